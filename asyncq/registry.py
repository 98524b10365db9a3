"""The tasks of an app by name: those registered, those derived from them, and one of asyncq's own."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from asyncq.options import Options
from asyncq.serializers import PackedArgument, PackedValue
from asyncq.tasks import CoroutineTask, Task
from asyncq.workflows.plan import COLLECTED

if TYPE_CHECKING:
    from asyncq.application import App


class Registry(dict[str, Task[..., Any]]):
    """Registered tasks by name. Looking up `[name]` also finds `<name>*`, which makes several calls of a task
    in one job, and `asyncq.collected`; listing shows neither.
    """

    def __init__(self, app: App) -> None:
        super().__init__()
        self._app = app
        self._collected: Task[..., Any] | None = None

    def __missing__(self, name: str) -> Task[..., Any]:
        base = self.get(name[:-1]) if name.endswith("*") else None
        if base is not None:
            return base.starred()
        if name != COLLECTED:
            raise KeyError(name)
        if self._collected is None:
            self._collected = CoroutineTask(self._app, _collected, COLLECTED, Options())
            self._collected.use_codecs(PackedArgument(), PackedValue())
        return self._collected


async def _collected(values: Any) -> Any:
    return values  # a coroutine function, for it needs no thread
