"""Decides which arguments and attributes of an exception can travel, as plain data, and whether two values
are the same. Calls as little code of foreign classes as it can, for that may do anything.
"""

from __future__ import annotations

from datetime import date, datetime, time, timedelta
from decimal import Decimal
from typing import Any, Final
from uuid import UUID

from asyncq.errors import SerializationError
from asyncq.serializers import BrokenText, dumps

_MAX_DEPTH: Final = 32
_SCALARS: Final = (str, int, float, bytes)
_CONTAINERS: Final = frozenset({list, tuple, set, frozenset})
_KEYS: Final = frozenset({*_SCALARS, bool, type(None), date, datetime, time, timedelta, Decimal, UUID})


def packed(value: Any) -> bytes | None:
    """Encodes a value; returns None if something in it cannot travel. Never raises an `Exception`.

    A str may have lone surrogates: a `UnicodeEncodeError` holds the text that could not be encoded.

    A value whose class derives from a built-in one (`HTTPStatus.NOT_FOUND`, a named tuple, markup) is encoded
    as the equal value of that built-in class.
    """
    try:
        return dumps(value)
    except SerializationError:
        pass
    except Exception:  # noqa: BLE001  the message of the error calls `repr` of values, which may raise
        return None
    try:
        known = plain(value)
    except Exception:  # noqa: BLE001  a subclass of a container may do anything when its items are read
        return None
    for form in (known, _with_broken_texts(known)):
        try:
            return dumps(form)
        except Exception:  # noqa: BLE001, S112  as above; the next form may succeed
            continue
    return None


def _with_broken_texts(value: Any) -> Any:
    """Returns a value of `plain` in which each str with lone surrogates has a form that can travel."""
    cls = type(value)
    if cls is str:
        return value if _is_sound(value) else BrokenText(value)
    if cls is dict:
        return {_with_broken_texts(key): _with_broken_texts(item) for key, item in value.items()}
    if cls in _CONTAINERS:
        return cls(map(_with_broken_texts, value))
    return value


def _is_sound(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def plain(value: Any, depth: int = 0) -> Any:
    """Returns the value with each instance of a subclass of a built-in class replaced by the equal instance
    of the built-in class.

    Raises:
        SerializationError: the value is nested too deep to travel.
        Exception: the code of a subclass raised.
    """
    if depth > _MAX_DEPTH:
        raise SerializationError("nested too deep")
    cls = type(value)
    if issubclass(cls, _SCALARS) and cls not in _KEYS:
        return _scalar(value)
    if issubclass(cls, dict):
        return {plain(key, depth + 1): plain(item, depth + 1) for key, item in dict.items(value)}
    for kind in (list, tuple, set, frozenset):
        if issubclass(cls, kind):
            return kind([plain(item, depth + 1) for item in kind.__iter__(value)])
    return value


def _scalar(value: Any) -> Any:
    """Returns the equal value of the built-in class."""
    # By the methods of the built-in class: a subclass may have overridden them.
    if isinstance(value, str):
        return str.__str__(value)
    if isinstance(value, int):
        return int.__index__(value)
    return float.__float__(value) if isinstance(value, float) else bytes.__getitem__(value, slice(None))


def is_same(sent: Any, found: Any) -> bool:
    """Returns whether a value is what was sent: of the same built-in classes at every depth, and equal.

    A value of any other class is not the same, so no code of such a class is called.

    Args:
        sent: a value from `loads`.
        found: any value.
    """
    cls = type(sent)
    if type(found) is not cls:
        return False
    if cls is list or cls is tuple:
        return len(sent) == len(found) and all(map(is_same, sent, found))
    if cls is dict:
        # Keys of other classes than these could run code when they are compared.
        known = len(sent) == len(found) and all(type(key) in _KEYS for key in found)
        return known and all(key in found and is_same(item, found[key]) for key, item in sent.items())
    if cls is set or cls is frozenset:
        # Members of other classes than the built-in ones could run code when they are compared.
        return packed(found) is not None and bool(sent == found)
    if cls is Decimal:  # by its text: a NaN equals nothing, and one kind of it cannot be compared
        return str(sent) == str(found)
    return bool(sent == found) or (cls is float and sent != sent and found != found)  # noqa: PLR0124  NaN


def has_set(value: Any) -> bool:
    """Returns whether there is a set in a value from `loads`: the repr of a set differs between processes."""
    cls = type(value)
    if cls is set or cls is frozenset:
        return True
    if cls is dict:
        return any(map(has_set, value)) or any(map(has_set, value.values()))
    return (cls is list or cls is tuple) and any(map(has_set, value))
