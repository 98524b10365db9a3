"""Compares two exceptions: the one that a body raised, and the one that arrived."""

from __future__ import annotations

import re
from typing import Any

from asyncq import RemoteError, RemoteTraceback
from asyncq.errors import SerializationError
from asyncq.serializers import dumps


def plain_attributes(exc: BaseException) -> dict[str, Any]:
    """Returns the attributes that are plain data, also those of classes that are written in C."""
    found = dict(vars(exc))
    for cls in type(exc).__mro__:
        if cls.__module__ == "builtins" and cls is not BaseException:
            found |= _in_c(exc, cls)
    return {name: value for name, value in found.items() if not name.startswith("__") and _is_plain(value)}


def _in_c(exc: BaseException, cls: type) -> dict[str, Any]:
    fields = [name for name, field in vars(cls).items() if type(field).__name__ == "member_descriptor"]
    values = {name: getattr(exc, name) for name in fields if name not in {"obj", "print_file_and_line"}}
    return {name: value for name, value in values.items() if value is not None}


def _is_plain(value: Any) -> bool:
    if isinstance(value, int | str):
        return True
    try:
        dumps(value)
    except SerializationError:
        return False
    return True


def differences(raised: Exception, arrived: Exception) -> list[str]:
    """Returns in what an exception that arrived differs from the one that was raised, one text each."""
    known = plain_attributes(raised)
    found = plain_attributes(arrived)
    pairs = {
        "type": (type(raised), type(arrived)),
        "str": (str(raised), str(arrived)),
        "args": (raised.args, arrived.args),
        **{name: (value, found.get(name)) for name, value in known.items()},
    }
    return [f"{name}: {one!r} arrives as {other!r}" for name, (one, other) in pairs.items() if one != other]


def tree(exc: BaseException | None) -> Any:
    """Returns an exception with its members, causes and contexts as texts, the same wherever it was raised.

    An exception that occurs again is a number, and memory addresses are left out.
    """
    return _tree(exc, {})


def _tree(exc: BaseException | None, seen: dict[int, int]) -> Any:
    if exc is None:
        return None
    if id(exc) in seen:
        return seen[id(exc)]
    seen[id(exc)] = len(seen)
    # What a job's exception was raised from hangs below the traceback that was sent.
    above = exc.__cause__ if isinstance(exc.__cause__, RemoteTraceback) else exc
    members = exc.exceptions if isinstance(exc, BaseExceptionGroup) else ()
    return [
        re.sub(r"scope \w+", "scope", _line(exc)),
        [_tree(member, seen) for member in members],
        _tree(above.__cause__, seen),
        _tree(above.__context__, seen),
        above.__suppress_context__,
    ]


def _line(exc: BaseException) -> str:
    cls = type(exc)
    if isinstance(exc, RemoteError):
        return str(exc)
    name = cls.__qualname__ if cls.__module__ == "builtins" else f"{cls.__module__}.{cls.__qualname__}"
    return f"{name}: {exc}".removesuffix(": ")
