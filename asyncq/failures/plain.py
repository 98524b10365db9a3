"""Plain data: what of arguments and attributes can travel, and when two values are the same."""

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
    """The bytes of the value; None if something in it cannot travel.

    A str may have lone surrogates: what cannot be encoded is what a `UnicodeEncodeError` tells of.

    A value whose class derives from a built-in one (`HTTPStatus.NOT_FOUND`, a named tuple, markup) is packed
    as the value of that built-in class to which it is equal.
    """
    try:
        return dumps(value)
    except SerializationError:
        pass
    except Exception:  # noqa: BLE001  the message of the error asks values for their repr
        return None
    try:
        known = plain(value)
    except Exception:  # noqa: BLE001  a subclass of a container may do anything when it is walked
        return None
    for form in (known, _with_broken_texts(known)):
        try:
            return dumps(form)
        except Exception:  # noqa: BLE001, S112  as above; the next form may do
            continue
    return None


def _with_broken_texts(value: Any) -> Any:
    """What `plain` gave, with each str that has lone surrogates in the form in which it can travel."""
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
    """The value with instances of subclasses of built-in classes as instances of these.

    Raises:
        SerializationError: it is nested deeper than a value that can travel.
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
    # By the methods of the built-in class: a subclass may define these anew.
    if isinstance(value, str):
        return str.__str__(value)
    if isinstance(value, int):
        return int.__index__(value)
    return float.__float__(value) if isinstance(value, float) else bytes.__getitem__(value, slice(None))


def is_same(sent: Any, found: Any) -> bool:
    """Whether a value is what was sent: of the same built-in classes at every depth, and equal.

    `sent` came out of `loads`. No code of another class is called: of another class, it is not the same.
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
    """Whether there is a set in a value from `loads`: its repr differs from process to process."""
    cls = type(value)
    if cls is set or cls is frozenset:
        return True
    if cls is dict:
        return any(map(has_set, value)) or any(map(has_set, value.values()))
    return (cls is list or cls is tuple) and any(map(has_set, value))
