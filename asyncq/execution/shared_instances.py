"""The instances of dependencies with `scope="worker"`: made for the first job that needs one, cleaned up at
the end of the worker.

Each has an asyncio task of its own. So the job that needs it first may be cancelled, and nothing of it
belongs to that job. Runs on the worker's loop; `task.apply()` has such instances for one call.
"""

from __future__ import annotations

import logging
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

from asyncq import failures
from asyncq.dependencies.depends import key_of, name_of
from asyncq.execution.executors import JobControl
from asyncq.execution.instances import CLEAN_UP, Instances
from asyncq.execution.job_thread import JobThread
from asyncq.execution.own_task import OwnTask

if TYPE_CHECKING:
    import contextvars
    from collections.abc import AsyncIterator, Callable

    from asyncq.dependencies.overrides import Overrides

log: logging.Logger = logging.getLogger(__name__)

ENDING = 0.5
"""Seconds more than `CLEAN_UP` that an instance has until its asyncio task is cancelled."""


class SharedInstances:
    """The instances of one worker.

    Args:
        overrides: what stands for which function.
        context: the context variables of the functions. They see no job.
    """

    def __init__(self, overrides: Overrides, context: contextvars.Context) -> None:
        self._overrides = overrides
        self._context = context
        self._tasks: dict[Any, tuple[str, OwnTask[Any]]] = {}

    async def get(self, function: Callable[..., Any]) -> Any:
        """Returns the instance that a function makes. The first call makes it, and the others wait for that.
        If a call is cancelled, the others get the instance all the same.

        Raises:
            Exception: what the function raised. The next call tries again.
        """
        key = key_of(function)
        if key not in self._tasks:
            task: OwnTask[Any] = OwnTask(lambda: self._open(function), self._context.copy())
            self._tasks[key] = name_of(function), task
        _, task = self._tasks[key]
        try:
            return await task.entered()
        except Exception:
            if self._tasks.get(key, (None, None))[1] is task:
                del self._tasks[key]
            raise

    async def close(self) -> None:
        """Cleans up all instances, the last first. An error is logged. A second call does nothing."""
        while self._tasks:
            _, (name, task) = self._tasks.popitem()
            try:
                await task.leave(timeout=CLEAN_UP + ENDING)
            except Exception as error:
                log.error(
                    "the clean-up of the dependency %s of this worker failed: %s",
                    *(name, failures.one_line(error)),
                    exc_info=error,
                )

    @asynccontextmanager
    async def _open(self, function: Callable[..., Any]) -> AsyncIterator[Any]:
        control = JobControl()
        calls = JobThread(control)
        instances = Instances(self._overrides, self, calls, control)
        error: BaseException | None = None
        try:
            value = await instances.make(function)
            if not instances.needs_thread:
                calls.close()
            yield value
        except BaseException as raised:  # noqa: BLE001  raised again when all is cleaned up
            error = raised
        error = await instances.clean_up(error)
        calls.close()
        if error is not None:
            raise error
