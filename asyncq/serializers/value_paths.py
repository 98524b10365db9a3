"""Value paths: where a value is inside what is packed, so that an error can name it."""

from __future__ import annotations

from typing import Any, Final, NoReturn

from asyncq.errors import SerializationError

MAX_DEPTH: Final = 64
"""How many containers deep a value may nest. A value that holds itself is refused by the same rule."""

# (path above, how to print the step, the step, containers above). A tuple, because one is made per item of
# every container that is walked, and printed only if something is wrong.
ValuePath = tuple[Any, str, Any, int]
KEY, FIELD, MEMBER = "[{}]", ".{}", "<item {}>"

_PRINTABLE: Final = frozenset({type(None), bool, int, float, str, bytes})


def top(name: str) -> ValuePath:
    """The path of a whole value, which messages call `name`."""
    return (None, "", name, 0)


def check_depth(path: ValuePath) -> int:
    """How deep the items of the container at `path` are.

    Raises:
        SerializationError: deeper than `MAX_DEPTH`; names the argument, not the 64 steps below it.
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
    """The path as an error prints it: `kwargs['items'][3].at`."""
    above, style, step, _ = path
    if above is None:
        return str(step)
    return path_text(above) + style.format(shown(step) if style == KEY else step)


def shown(key: object) -> str:
    """The key of a dict, as an error prints it: at most 80 characters."""
    # Only exact built-ins: the repr of anything else is foreign code, and may raise or go on for ever.
    if type(key) not in _PRINTABLE:
        return f"<{name_of(type(key))}>"
    text = repr(key)
    return text if len(text) <= 80 else text[:77] + "..."


def name_of(cls: type) -> str:
    """The name of a class, as an error prints it."""
    return cls.__qualname__ if cls.__module__ == "builtins" else f"{cls.__module__}.{cls.__qualname__}"
