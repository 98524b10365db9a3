"""Exceptions that travel without pickle: what a task raised, and what the caller gets to see of it.

`encode` never raises, whatever the exception does to prevent it: a worker that cannot report a failure would
lose the job. `Failure.rebuild` runs in the caller's process on data that anybody may have written, so it
looks a class up only among what is imported there already, and calls nothing but the constructor of an
`Exception`.
"""

from __future__ import annotations

import textwrap
import traceback
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType, TracebackType
from typing import TYPE_CHECKING, Any, Final

from asyncq.errors import DecodeError, RemoteError, RemoteTraceback, SerializationError
from asyncq.main_module import import_name, is_script, modules_of
from asyncq.serializers import dumps, loads

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["Failure", "decode", "encode", "of_task", "one_line"]

MAX_MESSAGE: Final = 8 * 1024
MAX_TRACEBACK: Final = 32 * 1024
MAX_ARGS: Final = 32 * 1024
MAX_NOTES: Final = 32
MAX_EXCEPTIONS: Final = 100
"""Exceptions of one failure, counting causes, contexts and members of groups."""
MAX_LINKS: Final = 40
"""How deep causes, contexts and groups (these count twice) may nest; the wire allows 64."""
MAX_TOTAL: Final = 256 * 1024
"""Bytes of text and arguments of one failure, so that it always stays below `max_payload`."""
MAX_NAME: Final = 256

_CAUSE: Final = "The above exception was the direct cause of the following exception:"
_CONTEXT: Final = "During handling of the above exception, another exception occurred:"
_PACKAGE: Final = str(Path(__file__).parent)


# -- encode --


def encode(exc: BaseException) -> bytes:
    """Packs an exception: its type's name, message, arguments, notes, traceback, causes and group members.

    The traceback begins below asyncq's own frames, and holds no values of local variables. What is too long
    is cut and says so. Arguments that cannot travel are left out; the message stands in for them.

    Never raises, also not for an exception whose methods do.

    Example:
        >>> decode(encode(ValueError("no", 1))).rebuild()
        ValueError('no', 1)
    """
    try:
        return dumps(_Encoder().node(exc, 0))
    except BaseException as error:  # noqa: BLE001  its properties may raise anything, and it must be told
        text = f"the exception could not be described: {type(error).__name__}"
        return dumps({"type": _type_of(exc), "message": text, "traceback": text})


class _Encoder:
    """Walks the exceptions of one failure within its bounds."""

    def __init__(self) -> None:
        self.seen: set[int] = set()
        self.room = MAX_TOTAL

    def node(self, exc: BaseException, links: int) -> dict[str, Any]:
        self.seen.add(id(exc))
        tree: dict[str, Any] = {
            "type": _type_of(exc),
            "message": self.text(_message_of(exc), MAX_MESSAGE),
            "args": None if isinstance(exc, BaseExceptionGroup) else self.arguments(exc),
            "notes": [self.text(note, 1024) for note in _notes_of(exc)],
            "traceback": self.text(_traceback_of(exc), MAX_TRACEBACK),
            "suppress": bool(exc.__suppress_context__),
        }
        if self.is_full(links) and (exc.__cause__ or exc.__context__):
            tree["notes"].append("... what this was raised from was left out")
        cause = self.link(exc.__cause__, links)
        if cause is not None:
            tree["cause"] = cause
        context = self.link(exc.__context__, links)
        if context is not None:
            tree["context"] = context
        if isinstance(exc, BaseExceptionGroup):
            members = [self.link(member, links + 1) for member in exc.exceptions]
            tree["members"] = [member for member in members if member is not None]
            tree["left_out"] = len(members) - len(tree["members"])
        return tree

    def link(self, exc: BaseException | None, links: int) -> dict[str, Any] | None:
        """The exception below another one; None if there is none, it was seen, or a bound is reached."""
        if exc is None or id(exc) in self.seen or self.is_full(links):
            return None
        return self.node(exc, links + 1)

    def is_full(self, links: int) -> bool:
        return links >= MAX_LINKS or len(self.seen) >= MAX_EXCEPTIONS

    def text(self, text: str, limit: int) -> str:
        cut = _cut(text, min(limit, max(self.room, 200)))
        self.room -= len(cut.encode())
        return cut

    def arguments(self, exc: BaseException) -> bytes | None:
        try:
            data = dumps(_arguments_of(exc), path="args")
        except SerializationError:
            return None
        if len(data) > min(MAX_ARGS, self.room):
            return None
        self.room -= len(data)
        return data


def _message_of(exc: BaseException) -> str:
    if isinstance(exc, BaseExceptionGroup):
        return _said(
            lambda: exc.message
        )  # its str() counts the members, and the constructor would add that again
    return _said(lambda: str(exc))


def _arguments_of(exc: BaseException) -> tuple[Any, ...]:
    args = vars(BaseException)["args"].__get__(exc)  # exc.args may be what a class defines anew
    if type(exc) is RemoteError:  # a task let another task's failure pass
        return exc.type_name, tuple(args), exc.traceback
    if isinstance(exc, OSError) and len(args) == 2 and exc.filename is not None:
        # An OSError drops the names of the files from its args, though the constructor takes them.
        more = () if exc.filename2 is None else (None, exc.filename2)
        return (*args, exc.filename, *more)
    return tuple(args)


def _notes_of(exc: BaseException) -> list[str]:
    notes = getattr(exc, "__notes__", None)
    if type(notes) is not list:
        return []
    return [str.__str__(note) for note in notes[:MAX_NOTES] if isinstance(note, str)]


def _type_of(exc: BaseException) -> list[str]:
    module, name = _names_of(exc)
    return [_cut(import_name(module), MAX_NAME), name]


def _names_of(exc: BaseException) -> list[str]:
    # From `type` itself: a metaclass can make both of them anything.
    cls = type(exc)
    names = (_said(lambda: cls.__module__), _said(lambda: type.__dict__["__qualname__"].__get__(cls)))
    return [_cut(name, MAX_NAME) for name in names]


def _said(ask: Callable[[], Any]) -> str:
    """What foreign code says about itself, as a real str; or that it failed."""
    try:
        answer = ask()
        return str.__str__(answer) if isinstance(answer, str) else f"<{type(answer).__name__}>"
    except BaseException as error:  # noqa: BLE001  a broken __str__ may raise anything
        return f"<failed: {type(error).__name__}>"


def _traceback_of(exc: BaseException) -> str:
    return _said(lambda: "".join(_traceback_lines(exc)))


def of_task(trace: TracebackType | None) -> TracebackType | None:
    """The part of a traceback that begins in the task's own code; None if there is none."""
    while trace is not None and trace.tb_frame.f_code.co_filename.startswith(_PACKAGE):
        trace = trace.tb_next
    return trace


def one_line(exc: BaseException) -> str:
    r"""An exception as the last line of its traceback names it, and only the first line of its message.

    Never raises.

    >>> one_line(ValueError("no\nsuch luck"))
    'ValueError: no'
    """
    message = _message_of(exc).split("\n", 1)[0][:500]
    if type(exc) is RemoteError:  # its message begins with the class that is not known here
        return message
    module, name = _names_of(exc)
    full = name if module == "builtins" or is_script(module) else f"{module}.{name}"
    return f"{full}: {message}" if message else full


def _traceback_lines(exc: BaseException) -> list[str]:
    tb = of_task(exc.__traceback__)
    if tb is None:
        return traceback.format_exception_only(exc)
    # Without columns: to find where the ^^^^ go, every line is parsed again: 36 us of the 60 of a failure.
    places = [
        (frame.f_code.co_filename, line, frame.f_code.co_name, None) for frame, line in traceback.walk_tb(tb)
    ]
    frames = traceback.StackSummary.from_list(places).format()
    return ["Traceback (most recent call last):\n", *frames, *traceback.format_exception_only(exc)]


def _cut(text: str, limit: int) -> str:
    """The text of at most `limit` bytes, without its middle if it is longer, and without surrogates."""
    if text.isascii() and len(text) <= limit:
        return text
    data = text.encode(errors="backslashreplace")
    if len(data) > limit:
        keep = (limit - 40) // 2
        data = data[:keep] + b"\n... %d bytes left out ...\n" % (len(data) - 2 * keep) + data[-keep:]
    return data.decode(errors="ignore")


# -- decode --


@dataclass(frozen=True, slots=True)
class Failure:
    """An exception as it came over the wire.

    Attributes:
        module: where the class is defined.
        qualname: the name of the class there.
        message: what `str()` of the exception said.
        args: the arguments it was made with; None if they could not travel.
        notes: its notes.
        traceback: the formatted traceback; of this exception alone, not of its causes.
        cause: the exception it was raised from.
        context: the exception that was being handled when it was raised.
        suppress_context: whether `context` is not to be printed.
        members: the members if it is a group, else None.
    """

    module: str
    qualname: str
    message: str
    args: tuple[Any, ...] | None = None
    notes: tuple[str, ...] = ()
    traceback: str = ""
    cause: Failure | None = None
    context: Failure | None = None
    suppress_context: bool = False
    members: tuple[Failure, ...] | None = None

    @property
    def type_name(self) -> str:
        """The full name of the class, as a traceback prints it."""
        return self.qualname if self.module in {"builtins", "__main__"} else f"{self.module}.{self.qualname}"

    def formatted(self) -> str:
        """Formats it as Python prints an exception: what it was raised from first, a group's members last."""
        text = self.traceback or f"{self.type_name}: {self.message}\n"
        for number, member in enumerate(self.members or (), 1):
            text += f"  +---------------- {number} ----------------\n"
            text += textwrap.indent(member.formatted(), "    | ")
        if self.cause is not None:
            return f"{self.cause.formatted()}\n{_CAUSE}\n\n{text}"
        if self.context is not None and not self.suppress_context:
            return f"{self.context.formatted()}\n{_CONTEXT}\n\n{text}"
        return text

    def rebuild(self) -> Exception:
        """Makes the exception again, ready to be raised; a new one each time.

        It is of its own class if that is an `Exception` which this process has already imported, and its
        constructor takes the arguments; otherwise it is a `RemoteError`. A group becomes an `ExceptionGroup`
        of its members. Its `__cause__` is a `RemoteTraceback`, and what the task raised it from hangs below
        that.
        """
        exc = self._rebuild_group(self.members) if self.members else self._rebuild_one()
        remote = RemoteTraceback(self.traceback or f"{self.type_name}: {self.message}")
        if self.context is not None:
            remote.__context__ = self.context.rebuild()
        if self.cause is not None:
            remote.__cause__ = self.cause.rebuild()
        remote.__suppress_context__ = self.suppress_context
        # Past the class's own __setattr__: that of a frozen dataclass refuses.
        object.__setattr__(exc, "__cause__", remote)
        if self.notes:
            object.__setattr__(exc, "__notes__", list(self.notes))
        return exc

    def _rebuild_one(self) -> Exception:
        cls = _find(self.module, self.qualname)
        if cls is not None and self.args is not None:
            made = _construct(cls, self.args)
            if made is not None:
                return made
        args = (self.message,) if self.args is None else self.args
        return RemoteError(self.type_name, args, self.traceback)

    def _rebuild_group(self, members: tuple[Failure, ...]) -> Exception:
        rebuilt = [member.rebuild() for member in members]
        cls = _find(self.module, self.qualname)
        if cls is not None and issubclass(cls, ExceptionGroup):
            made = _construct(cls, (self.message, rebuilt))
            if made is not None:
                return made
        return ExceptionGroup(self.message, rebuilt)


def _find(module_name: str, qualname: str) -> type[Exception] | None:
    """The class, if it is here already."""
    classes = (_find_in(module, qualname) for module in modules_of(module_name))
    return next((cls for cls in classes if cls is not None), None)


def _find_in(module: ModuleType, qualname: str) -> type[Exception] | None:
    """The class of that name in a module. Reads dictionaries: getattr could run a lazy import."""
    found: Any = module
    for part in qualname.split("."):
        if not isinstance(found, ModuleType | type):
            return None
        names = object.__getattribute__(found, "__dict__") if isinstance(found, ModuleType) else vars(found)
        found = names.get(part)
    return found if isinstance(found, type) and issubclass(found, Exception) else None


def _construct(cls: type[Exception], args: tuple[Any, ...]) -> Exception | None:
    try:
        made = cls(*args)
    except Exception:  # noqa: BLE001  a constructor may refuse in any way; RemoteError takes its place
        return None
    return made if isinstance(made, cls) else None


def decode(data: bytes) -> Failure:
    """Reads what `encode` packed.

    Raises:
        DecodeError: `data` is anything else.
    """
    return _failure(loads(data))


def _failure(tree: Any) -> Failure:
    if type(tree) is not dict:
        raise DecodeError("not a failure: a dict was expected")
    names = _texts(tree, "type")
    if len(names) != 2:
        raise DecodeError("not a failure: the name of its type is missing")
    message, formatted = tree.get("message"), tree.get("traceback", "")
    if type(message) is not str or type(formatted) is not str:
        raise DecodeError("not a failure: its message or its traceback is not text")
    cause, context, members = tree.get("cause"), tree.get("context"), tree.get("members")
    if members is not None and type(members) is not list:
        raise DecodeError("not a failure: its members are not a list")
    notes = _texts(tree, "notes")
    left_out = tree.get("left_out")
    if type(left_out) is int and left_out:
        notes = (*notes, f"... {left_out} more members of this group were left out")
    return Failure(
        module=_printable(names[0]),
        qualname=_printable(names[1]),
        message=message,
        args=_arguments(tree.get("args")),
        notes=notes,
        traceback=formatted,
        cause=None if cause is None else _failure(cause),
        context=None if context is None else _failure(context),
        suppress_context=tree.get("suppress") is True,
        members=None if members is None else tuple(_failure(member) for member in members),
    )


def _texts(tree: dict[Any, Any], key: str) -> tuple[str, ...]:
    texts = tree.get(key, [])
    if type(texts) is not list or not all(type(text) is str for text in texts):
        raise DecodeError(f"not a failure: {key!r} is not a list of texts")
    return tuple(texts)


def _arguments(data: Any) -> tuple[Any, ...] | None:
    if data is None:
        return None
    args = loads(data) if type(data) is bytes else None
    if type(args) is not tuple:
        raise DecodeError("not a failure: its arguments are not a tuple")
    return args


def _printable(name: str) -> str:
    """The name with control characters (line ends, terminal codes, changes of direction) escaped."""
    shown = "".join(char if char.isprintable() else ascii(char)[1:-1] for char in name[:MAX_NAME])
    return shown[:MAX_NAME]
