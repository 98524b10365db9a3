"""The tasks of an app by name: registered tasks, their batch tasks (`name*`), and the barrier task.

Client and worker look a task up here by the name in a message. Batch and barrier tasks are made at the first
look-up, so both sides know them without registration.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from asyncq.serializers import PackedArgument, PackedValue
from asyncq.tasks.options import Options
from asyncq.tasks.planning import BARRIER_TASK
from asyncq.tasks.task import CoroutineTask, Task

if TYPE_CHECKING:
    from asyncq.client.application import App


class Registry(dict[str, Task[..., Any]]):
    """Registered tasks by name. `[name]` also finds the batch task `<name>*`, which makes several calls of a
    task in one job, and the barrier task `asyncq.collected`. Listings show neither.
    """

    def __init__(self, app: App) -> None:
        super().__init__()
        self._app = app
        self._barrier_task: Task[..., Any] | None = None

    def __missing__(self, name: str) -> Task[..., Any]:
        base = self.get(name[:-1]) if name.endswith("*") else None
        if base is not None:
            return base.batch_task()
        if name != BARRIER_TASK:
            raise KeyError(name)
        if self._barrier_task is None:
            self._barrier_task = CoroutineTask(self._app, _barrier, BARRIER_TASK, Options())
            self._barrier_task.use_codecs(PackedArgument(), PackedValue())
        return self._barrier_task


async def _barrier(values: Any) -> Any:
    return values  # this is a coroutine function, so that it needs no thread
