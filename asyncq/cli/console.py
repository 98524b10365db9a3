"""What a command says: data on stdout, all else on stderr, no stranger's control characters on a terminal."""

from __future__ import annotations

import base64
import dataclasses
import json
import math
import os
import sys
from collections.abc import Mapping, Sequence
from contextlib import suppress
from datetime import date, time, timedelta
from enum import Enum
from typing import IO, Any

from asyncq.cli.exits import CliError
from asyncq.logs import escaped

_RED, _YELLOW = "31", "33"
_use_colors = True


def choose_colors(*, enabled: bool) -> None:
    """Switches colours off, or leaves them to `NO_COLOR` and to whether there is a terminal."""
    global _use_colors  # noqa: PLW0603  one process, one terminal
    _use_colors = enabled and not os.environ.get("NO_COLOR")


def colored(text: str, color: str, stream: IO[str]) -> str:
    """The text in a colour (an SGR number), if the stream is a terminal that may show it."""
    return f"\x1b[{color}m{text}\x1b[0m" if _use_colors and stream.isatty() else text


def open_streams() -> None:
    """Opens those of stdin, stdout and stderr that were closed when the process began, on /dev/null.

    Python has None for them, which ends whoever writes to it; and the next sockets and files would get their
    numbers, so that what C code or another process writes to stderr would go to the server.
    """
    for number, name in enumerate(("stdin", "stdout", "stderr")):
        try:
            os.fstat(number)
        except OSError:
            opened = os.open(os.devnull, os.O_RDWR)
            if opened != number:
                os.dup2(opened, number)
                os.close(opened)
            os.set_inheritable(number, True)
        if getattr(sys, name) is None:
            setattr(sys, name, open(os.devnull, "w" if number else "r", encoding="utf-8"))  # noqa: SIM115, PTH123


def data(text: str) -> None:
    """Prints a result. A pipe gets the text as it is, a terminal without its control characters.

    Raises:
        BrokenPipeError: nobody reads it any more.
        CliError: stdout cannot be written.
    """
    try:
        shown = escaped(text, keep="\n\t") if sys.stdout.isatty() else text
        print(shown, flush=True)  # noqa: T201  the command's output
    except BrokenPipeError:
        raise
    except OSError as error:
        raise CliError(f"the output cannot be written: {error.strerror}") from error


def document(value: Any) -> None:
    """Prints a value as one JSON document."""
    data(as_json(value))


def as_json(value: Any) -> str:
    """A value as JSON, see `plain`."""
    return json.dumps(plain(value), ensure_ascii=False)


def say(text: str) -> None:
    """Prints to the user, beside the data. If stderr cannot be written, nobody reads it, and nothing else
    happens.
    """
    _tell(escaped(text, keep="\n"))


def complain(message: str, hint: str = "") -> None:
    """Prints an error, and below it what helps. If stderr cannot be written, see `say`."""
    mark = colored("error:", _RED, sys.stderr)
    _tell(f"{mark} {escaped(message)}")
    for line in hint.splitlines():
        _tell(f"       {escaped(line.strip())}")


def _tell(text: str, end: str = "\n") -> None:
    # Its disk is full, its reader has gone, or an app has closed it: a worker runs jobs all the same.
    with suppress(OSError, ValueError):
        print(text, end=end, file=sys.stderr, flush=True)  # noqa: T201  the command's output


def plain(value: Any) -> Any:  # noqa: PLR0911  a table of types reads best as one
    """The nearest thing to a value that JSON can say.

    Bytes become base64, times ISO 8601, a timedelta seconds, sets lists, keys strings; what is not a number
    becomes null.

    >>> plain({1: b"a", "day": date(2026, 1, 2)})
    {'1': 'YQ==', 'day': '2026-01-02'}
    """
    match value:
        case Enum():
            return plain(value.value)
        case None | bool() | int() | str():
            return value
        case float():
            return value if math.isfinite(value) else None
        case bytes():
            return base64.b64encode(value).decode()
        case date() | time():
            return value.isoformat()
        case timedelta():
            return value.total_seconds()
        case Mapping():
            return {str(plain(key)): plain(item) for key, item in value.items()}
        case list() | tuple() | set() | frozenset():
            return [plain(item) for item in value]
    return _plain_record(value)


def _plain_record(value: Any) -> Any:
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {field.name: plain(getattr(value, field.name)) for field in dataclasses.fields(value)}
    dump = getattr(value, "model_dump", None)  # a pydantic model; importing pydantic to ask would cost 100 ms
    return str(value) if dump is None else plain(dump())


def named(error: Exception) -> str:
    """An exception as a traceback's last line says it: `ValueError: no such luck`."""
    if hasattr(error, "type_name"):  # a RemoteError: its text begins with the class that is not known here
        return str(error)
    return f"{type(error).__name__}: {error}".removesuffix(": ")


def agreed(question: str) -> bool:
    """Asks on the terminal; only `y` and `yes` are a yes. Blocks."""
    _tell(f"{escaped(question)} [y/N] ", end="")
    return sys.stdin.readline().strip().lower() in {"y", "yes"}


def aligned(rows: Sequence[tuple[str, ...]], indent: str = "  ") -> str:
    """Rows in columns, each as wide as its widest cell.

    >>> print(aligned([("up", "3 s"), ("keys", "1")], indent=""))
    up    3 s
    keys  1
    """
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = ("  ".join(f"{cell:<{width}}" for cell, width in zip(row, widths, strict=True)) for row in rows)
    return "\n".join(indent + line.rstrip() for line in lines)
