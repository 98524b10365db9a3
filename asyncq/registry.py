"""The tasks of an app by name: those registered, those derived from them, and one of asyncq's own."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from asyncq.tasks import CoroutineTask, Options, Task

if TYPE_CHECKING:
    from asyncq.app import AsyncQ

COLLECTED = "asyncq.collected"
"""The task that ends a group which takes the place of one job: its value is what it is given."""


class Registry(dict[str, Task[..., Any]]):
    """Registered tasks by name. Looking up `[name]` also finds `<name>*`, which makes several calls of a task
    in one job, and `asyncq.collected`; listing shows neither.
    """

    def __init__(self, app: AsyncQ) -> None:
        super().__init__()
        self._app = app
        self._collected: Task[..., Any] | None = None

    def __missing__(self, name: str) -> Task[..., Any]:
        base = self.get(name[:-1]) if name.endswith("*") else None
        if base is not None:
            return base._star()
        if name != COLLECTED:
            raise KeyError(name)
        if self._collected is None:
            self._collected = CoroutineTask(self._app, _collected, COLLECTED, Options())
        return self._collected


async def _collected(values: Any) -> Any:
    return values  # a coroutine function, for it needs no thread
