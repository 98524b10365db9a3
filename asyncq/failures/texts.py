"""Gets the texts of an exception, its message, name and traceback, cut to a bounded length. Also says how
much of a failure may travel (`MAX_...`). Nothing here ever raises; may be called on any thread.
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
"""Bytes of the message of one exception."""
MAX_TRACEBACK: Final = 32 * 1024
"""Bytes of the traceback of one exception."""
MAX_ARGS: Final = 32 * 1024
"""Bytes of the arguments of one exception. Longer ones are left out."""
MAX_ATTRIBUTES: Final = 32 * 1024
"""Bytes of the attributes of one exception. Those that do not fit are left out, one by one."""
MAX_NOTES: Final = 32
"""Notes of one exception."""
MAX_EXCEPTIONS: Final = 100
"""Exceptions of one failure, counting causes, contexts and members of groups."""
MAX_LINKS: Final = 40
"""How deep causes, contexts and groups may nest."""
MAX_TOTAL: Final = 256 * 1024
"""Bytes of text, arguments and attributes of one failure."""
MAX_SHORT: Final = 7 * 1024
"""Bytes of a failure in its short form, which each dependent of the failed job gets."""
MAX_NAME: Final = 256
"""Bytes of the name of a class, a module or an attribute."""
MAX_BASES: Final = 16
"""How many base classes of an exception are named."""
MAX_LEFT_OUT: Final = 32
"""How many attributes that were left out are named."""

_PACKAGE: Final = str(Path(__file__).parents[1])
# Python prints more of these than class and message: a line of code, or a suggestion for the name.
_EXPLAINED: Final = (SyntaxError, NameError, AttributeError, ImportError, BaseExceptionGroup)
_ROOTS: Final = (Exception, BaseException, object)


def message_of(exc: BaseException) -> str:
    """Returns what `str()` gives. Of a group it returns the message alone: its `str()` counts the members."""
    if issubclass(type(exc), BaseExceptionGroup):
        return text_from(lambda: raw.group_message_of(exc))
    return text_from(lambda: str(exc))


def text_from(ask: Callable[[], Any]) -> str:
    """Returns the str that `ask` returns, as a plain `str`; else a text that says what went wrong."""
    try:
        answer = ask()
        return str.__str__(answer) if isinstance(answer, str) else f"<{type(answer).__name__}>"
    except BaseException as error:  # noqa: BLE001  a broken __str__ may raise anything
        return f"<failed: {type(error).__name__}>"


def cut(text: str, limit: int) -> str:
    """Cuts a text to `limit` bytes: a longer one loses its middle. Escapes lone surrogates."""
    if text.isascii() and len(text) <= limit:
        return text
    data = text.encode(errors="backslashreplace")
    if len(data) > limit:
        keep = (limit - 40) // 2
        data = data[:keep] + b"\n... %d bytes left out ...\n" % (len(data) - 2 * keep) + data[-keep:]
    return data.decode(errors="ignore")


def short(text: str) -> bytes:
    """Cuts a text, such as the reason of a revocation, to 1 KiB, for the short form of an outcome."""
    return cut(text, MAX_MESSAGE // 8).encode()


def wire_name_of(cls: type) -> list[str]:
    """Returns the module in which other processes find the class, and its name there."""
    module, name = name_of(cls)
    return [cut(import_name(module), MAX_NAME), name]


def name_of(cls: type) -> list[str]:
    """Returns the module in which this process has the class, and its name there."""
    module, name = raw.module_of(cls), raw.qualname_of(cls)
    if type(module) is not str:
        module = f"<{type(module).__name__}>"
    return [cut(module, MAX_NAME), cut(str.__str__(name), MAX_NAME)]


def base_names_of(cls: type) -> list[list[str]]:
    """Returns the names of the base classes, the nearest first; of a built-in class none, for every process
    has it.
    """
    if not raw.is_heap_type(cls) and raw.module_of(cls) == "builtins":
        return []
    bases = [base for base in raw.mro_of(cls)[1:] if not any(base is root for root in _ROOTS)]
    return [wire_name_of(base) for base in bases[:MAX_BASES]]


def full_name(module: str, qualname: str) -> str:
    """Returns the name of a class as a traceback prints it."""
    return qualname if module == "builtins" or is_script(module) else f"{module}.{qualname}"


def one_line(exc: BaseException) -> str:
    r"""Returns an exception in one line: class and message, as the last line of a traceback has them, but
    only the first line of the message.

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
    """Returns the part of a traceback that begins in the task's own code; None if there is none."""
    while trace is not None and trace.tb_frame.f_code.co_filename.startswith(_PACKAGE):
        trace = trace.tb_next
    return trace


def traceback_of(exc: BaseException, message: str) -> str:
    """Returns the formatted traceback of this exception alone, from the task's own code on.

    Args:
        exc: the exception.
        message: what `message_of` returned for it.
    """
    return text_from(lambda: "".join(_traceback_lines(exc, message)))


def _traceback_lines(exc: BaseException, message: str) -> list[str]:
    tb = of_task(raw.trace_of(exc))
    if tb is None:
        return _last_lines(exc, message)
    # Without columns: to place the ^^^^, Python would parse every line again. That took 36 us of the 60 us of
    # a failure.
    frames_shown = [
        (frame.f_code.co_filename, line, frame.f_code.co_name, None) for frame, line in traceback.walk_tb(tb)
    ]
    frames = traceback.StackSummary.from_list(frames_shown).format()
    return ["Traceback (most recent call last):\n", *frames, *_last_lines(exc, message)]


def _last_lines(exc: BaseException, message: str) -> list[str]:
    """Returns what stands below the frames of a traceback: the class and the message."""
    # `traceback` takes 15 us even for an exception without notes, so the common case is done by hand below.
    if issubclass(type(exc), _EXPLAINED) or "__notes__" in raw.dict_of(exc):
        return traceback.format_exception_only(exc)
    full = full_name(*name_of(type(exc)))
    return [f"{full}: {message}\n" if message else f"{full}\n"]
