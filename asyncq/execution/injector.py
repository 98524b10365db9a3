"""Makes the instances of dependencies for the jobs of one worker, or of one call of `apply`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from asyncq.execution.instances import Instances
from asyncq.execution.shared_instances import SharedInstances

if TYPE_CHECKING:
    import contextvars

    from asyncq.dependencies.overrides import Overrides
    from asyncq.execution.executors import JobControl
    from asyncq.execution.job_thread import PlainCalls


class Injector:
    """What makes the instances.

    Args:
        overrides: what stands for which function.
        context: the context variables of the instances that are shared by jobs.
    """

    def __init__(self, overrides: Overrides, context: contextvars.Context) -> None:
        self._overrides = overrides
        self._shared = SharedInstances(overrides, context)

    def instances(self, calls: PlainCalls, control: JobControl) -> Instances:
        """Returns the instances for one attempt of a job, none of which is made yet."""
        return Instances(self._overrides, self._shared, calls, control)

    async def close(self) -> None:
        """Cleans up the instances that are shared by jobs. An error is logged."""
        await self._shared.close()
