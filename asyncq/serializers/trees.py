"""Defines trees: the form of a value that msgpack can encode as it is. Also defines and checks the container
tags. The layout is in the queues of users: it may be extended, but not changed.

A tree consists of what msgpack knows, and of arrays whose first item is a container tag. Such an array stands
for a container that msgpack does not know, or for an instance of a class.

An instance is one array, `[container_tag, tag, fingerprint, fields, more]`, with all that a reader needs:

- the tag: a short name of its class, never the name of a module;
- the fingerprint of the names and types of its fields; nil for a class with one value (an enum);
- the fields: a map for a dataclass or a model, an array for a NamedTuple, the value for an enum;
- more: a map of what is not a field, left out if it is empty. `s`: which fields of a model were set, if not
  all; `x`: extra fields of a model; `p`: its private attributes; `d`: other attributes of the instance.
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
# Both are called with `map(type, values)`. Bound here once: Python 3.11 looks up a method of an imported name
# in the slow way at each call, which took 110 ns of the 880 ns for the arguments of a small call.
are_scalars: Final = SCALARS.issuperset
are_strings: Final = frozenset({str}).issuperset

CONTAINER_TAG_CODE: Final = 1
CONTAINER_TAG_START: Final = b"\xd4\x01"  # the first bytes of an extension of one byte with code 1

MAX_COLLISIONS: Final = 256
"""How many members of a set, or keys of a dict, may share one hash. More are an attack: Python would compare
each of them with each other."""


class Instance(tuple[Any, ...]):
    """An instance of an annotated class in a tree: container_tag, tag, fingerprint, fields, and a map of more
    if there is more.

    All that it holds are trees: a codec has made them for the wire, or they have just been read.
    """

    __slots__ = ()


class Bag:
    """A set in a tree. Its members may be trees, which have no hash."""

    __slots__ = ("items", "kind")

    def __init__(self, kind: Any, items: list[Any]) -> None:
        self.kind: Any = kind
        self.items: list[Any] = items


class Pairs:
    """A dict in a tree, as key, value, key, value ... Its keys may be trees, which have no hash."""

    __slots__ = ("items",)

    def __init__(self, items: list[Any]) -> None:
        self.items: list[Any] = items


class ContainerTag:
    """The first item of an array that is something else than a list.

    Attributes:
        ext: the tag on the wire.
        build: makes the value of the items, for a reader without annotations.
        keep: makes a tree of the items, for a reader with annotations.
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
    """Makes a set or frozenset of items that came.

    Raises:
        DecodeError: a member has no hash, or too many members share one.
    """
    _check_hashes(items)
    return kind(items)


def make_dict(keys: list[Any], values: Iterable[Any]) -> dict[Any, Any]:
    """Makes a dict of keys of any kind, and values, that came.

    Raises:
        DecodeError: a key has no hash, or too many keys share one.
    """
    _check_hashes(keys)
    return dict(zip(keys, values, strict=True))


def _check_hashes(items: list[Any]) -> None:
    """Checks that all items have a hash, and that not too many share one. Raises as `make_set`."""
    # The hash of a number, a time, or a tuple or frozenset of these is no secret. A writer can choose
    # thousands of values with one hash, and the time to make a set of them is the square of their number
    # (1.2 s for 200 KiB).
    try:
        hashes = set(map(hash, items))
    except Exception as error:  # the class of a key or member is foreign code
        raise DecodeError(f"a received key or member is not hashable: {error}") from error
    # Many small groups with one hash each are no attack: -1 and -2 share a hash, and so do most powers of two
    # as floats. Only a large group costs the square of its size. The hashes are counted only if there can be
    # such a group.
    surplus = len(items) - len(hashes)
    if surplus >= MAX_COLLISIONS and max(Counter(map(hash, items)).values()) > MAX_COLLISIONS:
        raise DecodeError(f"more than {MAX_COLLISIONS} received keys or members share one hash")


def _build_pairs(items: list[Any]) -> dict[Any, Any]:
    return make_dict(items[::2], items[1::2])


def check_pairs(items: list[Any]) -> None:
    """Checks that a dict on the wire has a value for each key.

    Raises:
        DecodeError: the number of keys and values is odd.
    """
    if len(items) % 2:
        raise DecodeError("a dict on the wire has a key without a value")


def check_instance(items: list[Any]) -> None:
    """Checks the parts of an instance on the wire.

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
    """Returns what a reader without the class gets: the dict of the fields, the tuple, or the value of an
    enum.
    """
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
# 4 was another kind of container tag before the first release. It is not used again.
INSTANCE: Final = ContainerTag(5, None, plain_fields, Instance)
CONTAINER_TAGS: Final[dict[bytes, ContainerTag]] = {
    container_tag.ext.data: container_tag for container_tag in (TUPLE, SET, FROZENSET, PAIRS, INSTANCE)
}
CONTAINERS: Final = frozenset({list, tuple, dict, set, frozenset, Instance, Bag, Pairs})
