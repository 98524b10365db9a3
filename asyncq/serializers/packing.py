"""Packing: from values to bytes. What annotations add has been done before, in `shapes`."""

from __future__ import annotations

import dataclasses
from enum import Enum
from types import NoneType
from typing import TYPE_CHECKING, Any, Final, NoReturn

from msgpack import packb

from asyncq.errors import SerializationError
from asyncq.serializers.extensions import PACKERS
from asyncq.serializers.places import (
    FIELD,
    KEY,
    MAX_DEPTH,
    MEMBER,
    Place,
    check_depth,
    name_of,
    refuse,
    shown,
    top,
)
from asyncq.serializers.trees import (
    CHOICE,
    FROZENSET,
    PAIRS,
    SCALARS,
    SET,
    TUPLE,
    Choice,
    Record,
    are_scalars,
    are_strings,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable


def dumps(value: Any, *, path: str = "value") -> bytes:
    r"""Packs a value of built-in types.

    None, bool, int, float, str, bytes, list, tuple, dict (any keys), set, frozenset, datetime, date, time,
    timedelta, UUID, Decimal, paths and IP addresses come back from `loads` equal and of the same type, at any
    depth down to 64. A zone of another library arrives as the standard one that is the same.

    Args:
        value: what to pack.
        path: what the value is called in an error message.

    Raises:
        SerializationError: something in the value cannot travel; the message names where, and how to mend it.

    Example:
        >>> dumps([1, "a"])
        b'\x92\x01\xa1a'
    """
    if is_native((value,), MAX_DEPTH):
        try:
            return packb(value)  # type: ignore[no-any-return]
        except (OverflowError, ValueError):
            pass  # an int beyond 64 bits, which the walk handles, or a lone surrogate, which it names
    return pack(to_tree(value, top(path)), path)


def is_native(values: Collection[Any], room: int) -> bool:
    """Whether msgpack keeps all of `values` as they are. `room` is how many more containers may nest.

    Range of ints and surrogates in strings are not looked at: `packb` does, in C.
    """
    if are_scalars(map(type, values)):
        return True
    if not room:
        return False
    for value in values:
        kind = type(value)
        if kind in SCALARS:
            continue
        if kind is list:
            inner = value
        elif (kind is dict or kind is Record) and are_strings(map(type, value)):
            inner = value.values()
        else:
            return False
        if not is_native(inner, room - 1):
            return False
    return True


def to_tree(value: Any, place: Place) -> Any:
    """The value as msgpack keeps it.

    Raises:
        SerializationError: something in it cannot travel; names the place.
    """
    packer = _PACKERS.get(type(value))
    return _refuse_type(value, place) if packer is None else packer(value, place)


def _items(values: Iterable[Any], place: Place, style: str = KEY) -> list[Any]:
    depth = check_depth(place)
    return [to_tree(value, (place, style, index, depth)) for index, value in enumerate(values)]


def _pack_dict(value: dict[Any, Any], place: Place) -> Any:
    depth = check_depth(place)
    if are_strings(map(type, value)):
        style = FIELD if type(value) is Record else KEY
        return {
            _pack_str(key, (place, KEY, key, depth)): to_tree(item, (place, style, key, depth))
            for key, item in value.items()
        }
    flat = [PAIRS.ext]
    for key, item in value.items():
        flat += (
            to_tree(key, (place, ".keys()<{}>", shown(key), depth)),
            to_tree(item, (place, KEY, key, depth)),
        )
    return flat


def _pack_choice(value: Choice, place: Place) -> Any:
    above, style, step, _ = place
    return [CHOICE.ext, value.arm, to_tree(value.tree, (above, style, step, check_depth(place)))]


def _pack_str(value: str, place: Place) -> str:
    if not value.isascii():
        try:
            value.encode()
        except UnicodeEncodeError:
            refuse(
                place,
                "a str with a lone surrogate has no UTF-8 form. Send bytes, or .encode(errors='replace') it",
            )
    return value


# The one table of what can travel; exact types, so that a subclass is never flattened in silence.
_PACKERS: Final[dict[type, Callable[[Any, Place], Any]]] = {
    NoneType: lambda value, _: value,
    bool: lambda value, _: value,
    float: lambda value, _: value,
    bytes: lambda value, _: value,
    str: _pack_str,
    list: _items,
    dict: _pack_dict,
    Record: _pack_dict,
    Choice: _pack_choice,
    tuple: lambda value, place: [TUPLE.ext, *_items(value, place)],
    set: lambda value, place: [SET.ext, *_items(value, place, MEMBER)],
    frozenset: lambda value, place: [FROZENSET.ext, *_items(value, place, MEMBER)],
    **PACKERS,
}


def _refuse_type(value: object, place: Place) -> NoReturn:
    cls = type(value)
    if isinstance(value, Enum):
        cure = f"Name {cls.__qualname__} in the task's annotations, or send its .value"
    elif dataclasses.is_dataclass(cls) or hasattr(cls, "model_fields") or hasattr(cls, "_fields"):
        cure = f"Name {cls.__qualname__} itself in the task's annotations, or send a dict or a tuple"
    else:
        base = next((base for base in cls.__mro__ if base in _PACKERS), None)
        cure = (
            f"It would lose its class: send a plain {base.__qualname__}"
            if base is not None
            else "Send built-in values, or a dataclass, enum or model that the task's annotations name"
        )
    refuse(place, f"a value of type {name_of(cls)} cannot travel. {cure}")


def pack(tree: Any, path: str) -> bytes:
    """The bytes of a tree made by `to_tree`."""
    try:
        return packb(tree)  # type: ignore[no-any-return]
    except ValueError as error:  # all that is left here: a part of 4 GiB or more
        raise SerializationError(f"{path}: {error}") from error
