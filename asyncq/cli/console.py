"""The output of commands: data goes to stdout, everything else to stderr.

A terminal gets no control characters from names, errors and results, for strangers may have written them. All
functions block. An stderr that cannot be written is ignored; an stdout that cannot be written is an error.
"""

from __future__ import annotations

import json
import os
import sys
from contextlib import suppress
from typing import IO, TYPE_CHECKING, Any

from asyncq.cli.exits import CliError
from asyncq.json_values import plain
from asyncq.logs import escaped

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from typing import TypeVar

    T = TypeVar("T")

_RED, _YELLOW = "31", "33"
_use_colors = True


def choose_colors(*, enabled: bool) -> None:
    """Switches colours off, or lets `NO_COLOR` and the kind of the stream decide."""
    global _use_colors  # noqa: PLW0603  one process, one terminal
    _use_colors = enabled and not os.environ.get("NO_COLOR")


def colored(text: str, color: str, stream: IO[str]) -> str:
    """Returns the text in a colour (an SGR number), if the stream is a terminal and colours are on."""
    return f"\x1b[{color}m{text}\x1b[0m" if _use_colors and stream.isatty() else text


def open_streams() -> None:
    """Opens /dev/null for those of stdin, stdout and stderr that were closed when the process began.

    For a closed one Python has None, and code that writes to None fails. Also, the next socket or file would
    get its number: what C code or a child process writes to stderr would go to the server.
    """
    names = ("stdin", "stdout", "stderr")
    for number in range(len(names)):
        try:
            os.fstat(number)
        except OSError:
            opened = os.open(os.devnull, os.O_RDWR)
            if opened != number:
                os.dup2(opened, number)
                os.close(opened)
            os.set_inheritable(number, True)
    # Only now: a file that is opened here takes the lowest free number, and no other process inherits it.
    for number, name in enumerate(names):
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


def listing(
    items: Sequence[T],
    row: Callable[[T], tuple[str, ...]],
    *,
    json: bool,
    jsonl: bool,
    tree: Callable[[T], Any] | None = None,
    whole: Any = None,
) -> None:
    """Prints a listing: as lines of aligned cells, as one JSON document, or as one for each item. Prints no
    lines without items.

    Args:
        items: what is listed.
        row: returns the cells of an item.
        json: whether to print one JSON document.
        jsonl: whether to print one for each item; wins over `json`.
        tree: returns an item as JSON shows it (default: the item).
        whole: the one JSON document (default: the list of the items).
    """
    if not (json or jsonl):
        if items:
            data(aligned([row(item) for item in items], indent=""))
        return
    trees = items if tree is None else [tree(item) for item in items]
    for each in trees if jsonl else [trees if whole is None else whole]:
        document(each)


def as_json(value: Any) -> str:
    """Returns a value as JSON text, see `plain`."""
    return json.dumps(plain(value), ensure_ascii=False)


def say(text: str) -> None:
    """Prints a text for the user on stderr, beside the data. Does nothing if stderr cannot be written."""
    _tell(escaped(text, keep="\n"))


def complain(message: str, hint: str = "") -> None:
    """Prints an error on stderr, and a hint below it. Does nothing if stderr cannot be written."""
    mark = colored("error:", _RED, sys.stderr)
    _tell(f"{mark} {escaped(message)}")
    for line in hint.splitlines():
        _tell(f"       {escaped(line.strip())}")


def _tell(text: str, end: str = "\n") -> None:
    # The disk may be full, the reader gone, or an app may have closed stderr: a worker must run jobs all the
    # same.
    with suppress(OSError, ValueError):
        print(text, end=end, file=sys.stderr, flush=True)  # noqa: T201  the command's output


def named(error: Exception) -> str:
    """Formats an exception like the last line of a traceback: `ValueError: no such luck`."""
    if hasattr(error, "type_name"):  # a RemoteError: its text begins with the name of the unknown class
        return str(error)
    return f"{type(error).__name__}: {error}".removesuffix(": ")


def agreed(question: str) -> bool:
    """Asks a question on the terminal and returns whether the answer is `y` or `yes`. Blocks."""
    _tell(f"{escaped(question)} [y/N] ", end="")
    return sys.stdin.readline().strip().lower() in {"y", "yes"}


def aligned(rows: Sequence[tuple[str, ...]], indent: str = "  ") -> str:
    """Formats rows in columns, each as wide as its widest cell.

    >>> print(aligned([("up", "3 s"), ("keys", "1")], indent=""))
    up    3 s
    keys  1
    """
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = ("  ".join(f"{cell:<{width}}" for cell, width in zip(row, widths, strict=True)) for row in rows)
    return "\n".join(indent + line.rstrip() for line in lines)
