"""Trees: what values are turned into, so that msgpack keeps them as they are.

A tree is made of what msgpack knows, and of arrays whose first item is a container tag: they stand for the
containers it does not know, and for instances of classes.

An instance is one array, `[container_tag, tag, fingerprint, fields, more]`, and holds all that a reader
needs:

- the tag, a short name of its class, never the name of a module;
- the fingerprint of the names and types of its fields; nil for a class with one value (an enum);
- the fields: a map for a dataclass or a model, an array for a NamedTuple, the value for an enum;
- more: a map of what is not a field, left out if there is nothing. `s`: which fields of a model were set, if
  not all; `x`: extra fields of a model; `p`: its private attributes; `d`: what else an instance holds.
"""

from __future__ import annotations

from collections import Counter
from types import NoneType
from typing import TYPE_CHECKING, Any, Final

from msgpack import ExtType

from asyncq.errors import DecodeError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

SCALARS: Final = frozenset({NoneType, bool, int, float, str, bytes})
# Asked about `map(type, values)`. Bound here once, because Python 3.11 looks a method of an imported name up
# the slow way at each call: 110 ns of the 880 that the arguments of a small call took.
are_scalars: Final = SCALARS.issuperset
are_strings: Final = frozenset({str}).issuperset

CONTAINER_TAG_CODE: Final = 1
CONTAINER_TAG_START: Final = b"\xd4\x01"  # how msgpack begins an extension of one byte with code 1

MAX_COLLISIONS: Final = 256
"""How many members of a set, or keys of a dict, may share one hash. More are an attack: Python compares each
with each."""


class Instance(tuple[Any, ...]):
    """An instance of an annotated class: container_tag, tag, fingerprint, fields, and a map of more if there
    is more.

    As it is made for the wire nothing in it is left to be turned into a tree; as it is read, what it holds
    are trees.
    """

    __slots__ = ()


class Bag:
    """A set whose members may be trees, which have no hash."""

    __slots__ = ("items", "kind")

    def __init__(self, kind: Any, items: list[Any]) -> None:
        self.kind: Any = kind
        self.items: list[Any] = items


class Pairs:
    """A dict whose keys may be trees, which have no hash: key, value, key, value ..."""

    __slots__ = ("items",)

    def __init__(self, items: list[Any]) -> None:
        self.items: list[Any] = items


class ContainerTag:
    """The first item of an array that stands for something else than a list.

    Attributes:
        ext: the tag on the wire.
        build: makes the value of the items, for a reader without annotations.
        keep: makes a tree of them, for one with annotations.
        kind: the type of a container that is made of its items alone; else None.
    """

    __slots__ = ("build", "ext", "keep", "kind")

    def __init__(
        self, code: int, kind: Any, build: Callable[[list[Any]], Any], keep: Callable[[list[Any]], Any]
    ) -> None:
        self.ext: Any = ExtType(CONTAINER_TAG_CODE, bytes([code]))
        self.kind: Any = kind
        self.build: Callable[[list[Any]], Any] = build
        self.keep: Callable[[list[Any]], Any] = keep


def make_set(kind: Any, items: list[Any]) -> Any:
    """A set or frozenset.

    Raises:
        DecodeError: a member has no hash, or too many share one.
    """
    _check_hashes(items)
    return kind(items)


def make_dict(keys: list[Any], values: Iterable[Any]) -> dict[Any, Any]:
    """A dict of keys of any kind.

    Raises:
        DecodeError: as `make_set`.
    """
    _check_hashes(keys)
    return dict(zip(keys, values, strict=True))


def _check_hashes(items: list[Any]) -> None:
    # The hash of a number, a time, a tuple or a frozenset of them is no secret: a writer can choose thousands
    # that share one, and a set of these takes the square of their number (1.2 s for 200 KiB).
    try:
        hashes = set(map(hash, items))
    except Exception as error:  # the class of a key or member is foreign code
        raise DecodeError(f"a key or member received is not hashable: {error}") from error
    # Many small groups are no attack: -1 and -2 share a hash, and so do most powers of two as floats. Only a
    # large group costs the square of its size; hashes are counted only if there can be one.
    surplus = len(items) - len(hashes)
    if surplus >= MAX_COLLISIONS and max(Counter(map(hash, items)).values()) > MAX_COLLISIONS:
        raise DecodeError(f"more than {MAX_COLLISIONS} keys or members received share one hash")


def _build_pairs(items: list[Any]) -> dict[Any, Any]:
    return make_dict(items[::2], items[1::2])


def check_pairs(items: list[Any]) -> None:
    """Refuses a dict on the wire of an odd number of keys and values.

    Raises:
        DecodeError: it is one.
    """
    if len(items) % 2:
        raise DecodeError("a dict on the wire has a key without a value")


def check_instance(items: list[Any]) -> None:
    """Refuses an instance on the wire that is none.

    Raises:
        DecodeError: it is not a container tag, a text, bytes or nil, the fields, and perhaps a map.
    """
    if (
        not 4 <= len(items) <= 5
        or type(items[1]) is not str
        or (items[2] is not None and type(items[2]) is not bytes)
        or (len(items) == 5 and type(items[4]) is not dict)
    ):
        raise DecodeError("an instance on the wire is not a tag, a fingerprint and fields")


def plain_fields(instance: list[Any] | Instance) -> Any:
    """What a reader without the class sees: the dict of its fields, the tuple, or the value of an enum."""
    fields = instance[3]
    if instance[2] is None:
        return fields
    if type(fields) is list:
        return tuple(fields)
    extra = instance[4].get("x") if len(instance) == 5 else None
    return {**fields, **extra} if type(extra) is dict and type(fields) is dict else fields


TUPLE: Final = ContainerTag(0, tuple, tuple, tuple)
SET: Final = ContainerTag(1, set, lambda items: make_set(set, items), lambda items: Bag(set, items))
FROZENSET: Final = ContainerTag(
    2, frozenset, lambda items: make_set(frozenset, items), lambda items: Bag(frozenset, items)
)
PAIRS: Final = ContainerTag(3, None, _build_pairs, Pairs)
# 4 was another kind of container tag before the first release, and is not given again.
INSTANCE: Final = ContainerTag(5, None, plain_fields, Instance)
CONTAINER_TAGS: Final[dict[bytes, ContainerTag]] = {
    container_tag.ext.data: container_tag for container_tag in (TUPLE, SET, FROZENSET, PAIRS, INSTANCE)
}
CONTAINERS: Final = frozenset({list, tuple, dict, set, frozenset, Instance, Bag, Pairs})
