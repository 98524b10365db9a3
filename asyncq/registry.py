"""The tasks of an app by name: those registered, those derived from them, and one of asyncq's own."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from asyncq.errors import DecodeError
from asyncq.options import Options
from asyncq.serializers import ArgumentCodec, ValueCodec
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
            self._collected.use_codecs(_OneArgument(None), _Verbatim())
        return self._collected


class _OneArgument(ArgumentCodec):
    """Hands on the one argument as it came, so that classes in it survive a task that does not know them."""

    def loads(self, data: bytes) -> tuple[list[Any], dict[str, Any]]:
        # An array of two: an array of one, which is the argument, and an empty map.
        if data[:2] != b"\x92\x91" or data[-1:] != b"\x80":
            raise DecodeError("not one argument")
        return [data[2:-1]], {}


class _Verbatim(ValueCodec):
    """Takes a value that is packed already."""

    def dumps(self, value: Any, path: str = "result") -> bytes:  # noqa: ARG002  nothing in it can be wrong
        packed: bytes = value
        return packed


async def _collected(values: Any) -> Any:
    return values  # a coroutine function, for it needs no thread
