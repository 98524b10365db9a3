"""Encodes values of built-in types as bytes (`dumps`). Type codecs run before, and turn instances of
annotated classes into trees. Pure functions, on any thread. The exact type of a value decides.
"""

from __future__ import annotations

import dataclasses
from enum import Enum
from types import NoneType
from typing import TYPE_CHECKING, Any, Final, NoReturn

from msgpack import ExtType

from asyncq.errors import SerializationError
from asyncq.serializers.extensions import PACKERS
from asyncq.serializers.trees import (
    CONTAINER_TAG_CODE,
    FROZENSET,
    PAIRS,
    SCALARS,
    SET,
    TUPLE,
    Bag,
    Instance,
    Pairs,
    are_scalars,
    are_strings,
)
from asyncq.serializers.value_paths import (
    FIELD,
    KEY,
    MAX_DEPTH,
    MEMBER,
    ValuePath,
    check_depth,
    name_of,
    path_text,
    refuse,
    shown,
    top,
)
from asyncq.wire import packed

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable


def dumps(value: Any, *, path: str = "value") -> bytes:
    r"""Encodes a value of built-in types.

    None, bool, int, float, str, bytes, list, tuple, dict (any keys), set, frozenset, datetime, date, time,
    timedelta, UUID, Decimal, paths and IP addresses come back from `loads` equal and of the same type, at any
    depth down to 64. A time zone of another library arrives as the equal one of the standard library.

    Args:
        value: the value.
        path: what an error calls the whole value.

    Raises:
        SerializationError: something in the value cannot travel; the message says where, and what to do.

    Example:
        >>> dumps([1, "a"])
        b'\x92\x01\xa1a'
    """
    if is_native((value,), MAX_DEPTH):
        try:
            return packed(value)
        except (OverflowError, ValueError):
            pass  # an int beyond 64 bits, which `to_tree` encodes, or a lone surrogate, which it refuses
    whole = top(path)
    return pack(to_tree(value, whole), whole)


def is_native(values: Collection[Any], room: int) -> bool:
    """Returns whether msgpack can encode all values as they are. `room` is how many more containers may nest.

    Does not check the range of ints, nor strings for surrogates: msgpack does, in C.
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
        elif kind is dict and are_strings(map(type, value)):
            inner = value.values()
        elif kind is Instance:
            continue  # the codec that made it has made trees of all that it holds
        else:
            return False
        if not is_native(inner, room - 1):
            return False
    return True


def to_tree(value: Any, path: ValuePath) -> Any:
    """Turns a value into a tree, which msgpack can encode as it is.

    Raises:
        SerializationError: something in the value cannot travel; names its path.
    """
    packer = _PACKERS.get(type(value))
    return _refuse_type(value, path) if packer is None else packer(value, path)


def _items(values: Iterable[Any], path: ValuePath, style: str = KEY) -> list[Any]:
    depth = check_depth(path)
    return [to_tree(value, (path, style, index, depth)) for index, value in enumerate(values)]


def _pack_dict(value: dict[Any, Any], path: ValuePath) -> Any:
    depth = check_depth(path)
    if are_strings(map(type, value)):
        return {
            _pack_str(key, (path, KEY, key, depth)): to_tree(item, (path, KEY, key, depth))
            for key, item in value.items()
        }
    flat = [PAIRS.ext]
    for key, item in value.items():
        flat += (
            to_tree(key, (path, ".keys()<{}>", shown(key), depth)),
            to_tree(item, (path, KEY, key, depth)),
        )
    return flat


def _pack_bag(value: Bag, path: ValuePath) -> Any:
    return [(SET if value.kind is set else FROZENSET).ext, *_items(value.items, path, MEMBER)]


def _pack_pairs(value: Pairs, path: ValuePath) -> Any:
    depth = check_depth(path)
    inner_path = (
        path,
        ".keys()<{}>",
        "...",
        depth,
    )  # no exact path: the codec that made these items has checked them
    return [PAIRS.ext, *(to_tree(item, inner_path) for item in value.items)]


def _pack_str(value: str, path: ValuePath) -> str:
    if not value.isascii():
        try:
            value.encode()
        except UnicodeEncodeError:
            refuse(
                path,
                "a str with a lone surrogate has no UTF-8 form. Send bytes, or .encode(errors='replace') it",
            )
    return value


# The one table of what can travel. By exact type, so that an instance of a subclass never loses its class
# without an error.
_PACKERS: Final[dict[type, Callable[[Any, ValuePath], Any]]] = {
    NoneType: lambda value, _: value,
    bool: lambda value, _: value,
    float: lambda value, _: value,
    bytes: lambda value, _: value,
    str: _pack_str,
    list: _items,
    dict: _pack_dict,
    Instance: lambda value, _: value,
    Bag: _pack_bag,
    Pairs: _pack_pairs,
    tuple: lambda value, path: [TUPLE.ext, *_items(value, path)],
    set: lambda value, path: [SET.ext, *_items(value, path, MEMBER)],
    frozenset: lambda value, path: [FROZENSET.ext, *_items(value, path, MEMBER)],
    **PACKERS,
}


def ready(value: Any, path: ValuePath) -> Any:
    """Turns what a type codec has made of a value into a tree, for an `Instance` that holds it.

    Raises:
        SerializationError: something in the value cannot travel; names its path.
    """
    kind = type(value)
    if kind in SCALARS or kind is Instance or is_native((value,), MAX_DEPTH - path[3]):
        return value
    return to_tree(value, path)


def _refuse_type(value: object, path: ValuePath) -> NoReturn:
    """Refuses a value whose type cannot travel. The error says what to send instead."""
    cls = type(value)
    if cls.__module__.partition(".")[0] == "asyncq":
        cure = (
            "Pass its `.id`, and get the handle again with `app.AsyncResult(id)`"
            if hasattr(cls, "id")
            else "It belongs to this process: send what it was made of"
        )
    elif is_to_be_named(cls):
        plain = "its .value" if isinstance(value, Enum) else "a dict or a tuple of its fields"
        cure = (
            f"No annotation names {cls.__qualname__} at this place: name it there, list it in "
            f"AsyncQ(types=[{cls.__qualname__}]), or send {plain}"
        )
    else:
        base = next((base for base in cls.__mro__ if base in _PACKERS), None)
        cure = (
            f"It would lose its class: send a plain {base.__qualname__}"
            if base is not None
            else "Send built-in values, or a dataclass, enum or model that an annotation names at this place"
        )
    refuse(path, f"a value of type {name_of(cls)} cannot travel. {cure}")


def is_to_be_named(cls: type) -> bool:
    """Returns whether instances of the class can travel if an annotation or `types=` names it: it is an enum,
    a dataclass, a NamedTuple or a model.
    """
    return (
        issubclass(cls, Enum)
        or dataclasses.is_dataclass(cls)
        or hasattr(cls, "_fields")
        or hasattr(cls, "model_fields")
    )


def pack(tree: Any, path: ValuePath) -> bytes:
    """Encodes a tree that `to_tree` or `ready` has made.

    Raises:
        SerializationError: a text in it has no UTF-8 form, or a part of it has 4 GiB or more.
    """
    try:
        return packed(tree)
    except (OverflowError, ValueError):
        pass  # an int beyond 64 bits or a lone surrogate, inside an instance
    try:
        return packed(_mended(tree, path))
    except ValueError as error:  # the only cause that is left: a part of 4 GiB or more
        raise SerializationError(f"{path_text(path)}: {error}") from error


def _mended(tree: Any, path: ValuePath) -> Any:
    """Returns a tree whose large ints are extensions, and refuses lone surrogates. Only an `Instance` can
    still hold any: `ready` passes native values on without a look at them.
    """
    kind = type(tree)
    if kind is int or kind is str:
        return to_tree(tree, path)
    if kind is dict:
        return {_pack_str(key, path): _mended(item, (path, KEY, key, 0)) for key, item in tree.items()}
    if kind is Instance:
        container_tag, tag, print_, fields, *more = tree
        if type(fields) is dict:
            fields = {
                _pack_str(name, path): _mended(item, (path, FIELD, name, 0)) for name, item in fields.items()
            }
        else:
            fields = _mended(fields, path)
        return [container_tag, tag, print_, fields, *(_mended(part, path) for part in more)]
    if kind is list or kind is tuple:
        # A container tag at the front does not count as an item.
        start = -1 if tree and type(tree[0]) is ExtType and tree[0].code == CONTAINER_TAG_CODE else 0
        return [_mended(item, (path, KEY, index, 0)) for index, item in enumerate(tree, start)]
    return tree
