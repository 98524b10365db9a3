"""Keeps the path of a value inside of an argument or a result, so that an error can name it:
`kwargs['items'][3].at`. Also bounds how deep values nest. Pure functions.
"""

from __future__ import annotations

from typing import Any, Final, NoReturn

from asyncq.errors import SerializationError

MAX_DEPTH: Final = 64
"""How many containers deep a value may nest. The same rule refuses a value that holds itself."""

# (the path above, how to print the step, the step, the number of containers above). A plain tuple, for speed:
# one is made for each item of every container, and printed only if something is wrong.
ValuePath = tuple[Any, str, Any, int]
KEY, FIELD, MEMBER = "[{}]", ".{}", "<item {}>"

_PRINTABLE: Final = frozenset({type(None), bool, int, float, str, bytes})


def top(name: str) -> ValuePath:
    """Returns the path of a whole value, which errors call `name`."""
    return (None, "", name, 0)


def check_depth(path: ValuePath) -> int:
    """Returns how deep the items of the container at `path` are.

    Raises:
        SerializationError: deeper than `MAX_DEPTH`; names the argument, and not the 64 steps below it.
    """
    if path[3] >= MAX_DEPTH:
        root = path
        while root[0] is not None and root[0][0] is not None:
            root = root[0]
        refuse(root, f"nested more than {MAX_DEPTH} deep, or it holds itself. Send it flat, or in parts")
    return path[3] + 1


def refuse(path: ValuePath, reason: str) -> NoReturn:
    """Raises the error that names the path.

    Raises:
        SerializationError: always, as in `kwargs['items'][3].at: <reason>`.
    """
    raise SerializationError(f"{path_text(path)}: {reason}")


def path_text(path: ValuePath) -> str:
    """Returns the path as an error prints it: `kwargs['items'][3].at`."""
    above, style, step, _ = path
    if above is None:
        return str(step)
    return path_text(above) + style.format(shown(step) if style == KEY else step)


def shown(key: object) -> str:
    """Returns the key of a dict as an error prints it, in at most 80 characters."""
    # Only exact built-in types: the repr of anything else is foreign code, and may raise or never end.
    if type(key) not in _PRINTABLE:
        return f"<{name_of(type(key))}>"
    text = repr(key)
    return text if len(text) <= 80 else text[:77] + "..."


def name_of(cls: type) -> str:
    """Returns the name of a class as an error prints it."""
    return cls.__qualname__ if cls.__module__ == "builtins" else f"{cls.__module__}.{cls.__qualname__}"
