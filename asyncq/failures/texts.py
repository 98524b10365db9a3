"""What an exception says of itself, as text of bounded length, and how much of a failure travels. Nothing
here ever raises.
"""

from __future__ import annotations

import traceback
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from asyncq.errors import RemoteError
from asyncq.failures import raw
from asyncq.system.main_module import import_name, is_script

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import TracebackType

MAX_MESSAGE: Final = 8 * 1024
MAX_TRACEBACK: Final = 32 * 1024
MAX_ARGS: Final = 32 * 1024
MAX_ATTRIBUTES: Final = 32 * 1024
"""Bytes of the attributes of one exception. Those that do not fit are left out, one by one."""
MAX_NOTES: Final = 32
MAX_EXCEPTIONS: Final = 100
"""Exceptions of one failure, counting causes, contexts and members of groups."""
MAX_LINKS: Final = 40
"""How deep causes, contexts and groups may nest."""
MAX_TOTAL: Final = 256 * 1024
"""Bytes of text, arguments and attributes of one failure."""
MAX_SHORT: Final = 7 * 1024
"""Bytes of a failure in its short form, which each job gets that waited for the one that failed."""
MAX_NAME: Final = 256
MAX_BASES: Final = 16
"""How many base classes of an exception are named."""
MAX_LEFT_OUT: Final = 32
"""How many attributes that were left out are named."""

_PACKAGE: Final = str(Path(__file__).parents[1])
# Of these Python prints more than class and message: a line of code, what the name may have been meant to be.
_EXPLAINED: Final = (SyntaxError, NameError, AttributeError, ImportError, BaseExceptionGroup)
_ROOTS: Final = (Exception, BaseException, object)


def message_of(exc: BaseException) -> str:
    """What `str()` gives; of a group its message, for `str()` counts the members, too."""
    if issubclass(type(exc), BaseExceptionGroup):
        return text_from(lambda: raw.group_message_of(exc))
    return text_from(lambda: str(exc))


def text_from(ask: Callable[[], Any]) -> str:
    """What foreign code says about itself, as a real str; or that it failed."""
    try:
        answer = ask()
        return str.__str__(answer) if isinstance(answer, str) else f"<{type(answer).__name__}>"
    except BaseException as error:  # noqa: BLE001  a broken __str__ may raise anything
        return f"<failed: {type(error).__name__}>"


def cut(text: str, limit: int) -> str:
    """The text of at most `limit` bytes, without its middle if it is longer, and without surrogates."""
    if text.isascii() and len(text) <= limit:
        return text
    data = text.encode(errors="backslashreplace")
    if len(data) > limit:
        keep = (limit - 40) // 2
        data = data[:keep] + b"\n... %d bytes left out ...\n" % (len(data) - 2 * keep) + data[-keep:]
    return data.decode(errors="ignore")


def short(text: str) -> bytes:
    """Cuts a text, such as the reason of a revocation, to 1 KiB: the short form of an outcome has it so."""
    return cut(text, MAX_MESSAGE // 8).encode()


def wire_name_of(cls: type) -> list[str]:
    """Where other processes find the class, and its name there."""
    module, name = name_of(cls)
    return [cut(import_name(module), MAX_NAME), name]


def name_of(cls: type) -> list[str]:
    """Where the class is defined here, and its name there."""
    module, name = raw.module_of(cls), raw.qualname_of(cls)
    if type(module) is not str:
        module = f"<{type(module).__name__}>"
    return [cut(module, MAX_NAME), cut(str.__str__(name), MAX_NAME)]


def base_names_of(cls: type) -> list[list[str]]:
    """The names of the classes above, the nearest first. Of a built-in class none: every process has it."""
    if not raw.is_heap_type(cls) and raw.module_of(cls) == "builtins":
        return []
    bases = [base for base in raw.mro_of(cls)[1:] if not any(base is root for root in _ROOTS)]
    return [wire_name_of(base) for base in bases[:MAX_BASES]]


def full_name(module: str, qualname: str) -> str:
    """The name of a class as a traceback prints it."""
    return qualname if module == "builtins" or is_script(module) else f"{module}.{qualname}"


def one_line(exc: BaseException) -> str:
    r"""An exception as the last line of its traceback names it, and only the first line of its message.

    Never raises.

    >>> one_line(ValueError("no\nsuch luck"))
    'ValueError: no'
    """
    message = cut(message_of(exc).split("\n", 1)[0][:500], MAX_MESSAGE)
    if issubclass(type(exc), RemoteError):  # its message begins with the class that it stands for
        return message
    full = full_name(*name_of(type(exc)))
    return f"{full}: {message}" if message else full


def of_task(trace: TracebackType | None) -> TracebackType | None:
    """The part of a traceback that begins in the task's own code; None if there is none."""
    while trace is not None and trace.tb_frame.f_code.co_filename.startswith(_PACKAGE):
        trace = trace.tb_next
    return trace


def traceback_of(exc: BaseException, message: str) -> str:
    """The traceback of this exception alone, from the task's own code on.

    Args:
        exc: the exception.
        message: what `message_of` gave for it.
    """
    return text_from(lambda: "".join(_traceback_lines(exc, message)))


def _traceback_lines(exc: BaseException, message: str) -> list[str]:
    tb = of_task(raw.trace_of(exc))
    if tb is None:
        return _last_lines(exc, message)
    # Without columns: to find where the ^^^^ go, every line is parsed again: 36 us of the 60 of a failure.
    frames_shown = [
        (frame.f_code.co_filename, line, frame.f_code.co_name, None) for frame, line in traceback.walk_tb(tb)
    ]
    frames = traceback.StackSummary.from_list(frames_shown).format()
    return ["Traceback (most recent call last):\n", *frames, *_last_lines(exc, message)]


def _last_lines(exc: BaseException, message: str) -> list[str]:
    # What the module does for an exception without notes takes it 15 us.
    if issubclass(type(exc), _EXPLAINED) or "__notes__" in raw.dict_of(exc):
        return traceback.format_exception_only(exc)
    full = full_name(*name_of(type(exc)))
    return [f"{full}: {message}\n" if message else f"{full}\n"]
