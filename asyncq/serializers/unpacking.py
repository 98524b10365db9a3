"""Decodes bytes that anybody may have written into values, or into trees for type codecs. Pure functions, on
any thread. Whatever the bytes are, the only error is `DecodeError`, and depth and collisions are bounded.
"""

from __future__ import annotations

import struct
from typing import Any, Final

from msgpack import unpackb

from asyncq.errors import DecodeError
from asyncq.serializers.extensions import read_extension
from asyncq.serializers.trees import (
    CONTAINER_TAG_CODE,
    CONTAINER_TAG_START,
    CONTAINER_TAGS,
    CONTAINERS,
    INSTANCE,
    MAX_COLLISIONS,
    PAIRS,
    TUPLE,
    Bag,
    ContainerTag,
    Instance,
    Pairs,
    check_instance,
    check_pairs,
    plain_fields,
)
from asyncq.serializers.value_paths import MAX_DEPTH

# What msgpack, struct, datetime, decimal, zoneinfo (it reads files) and hashing raise for garbage.
_GARBAGE: Final = (ValueError, TypeError, LookupError, ArithmeticError, struct.error, OSError, RecursionError)
# Every byte that cannot open a container. They are deleted, and the rest is counted.
_NO_CONTAINER: Final = bytes(
    byte for byte in range(256) if not (0x80 <= byte <= 0x9F or 0xDC <= byte <= 0xDF)
)


def loads(data: bytes) -> Any:
    r"""Decodes what `dumps` has made. Instances of annotated classes come as plain values.

    Bound the size of `data` before: one byte can become 72 bytes of memory.

    Raises:
        DecodeError: `data` is anything else than one whole message. This function raises no other exception.

    Example:
        >>> loads(b"\x92\x01\xa1a")
        [1, 'a']
    """
    return unpack(data)


def unpack(data: bytes, *, typed: bool = False, limit: int = MAX_DEPTH) -> Any:
    """Decodes a message.

    Args:
        data: the message.
        typed: whether to return a tree, which type codecs take, and not the value.
        limit: how deep containers may nest.

    Raises:
        DecodeError: `data` is not one whole message, or nests deeper.
    """
    try:
        if CONTAINER_TAG_START in data:
            reader = _Reader(typed=typed)
            value = unpackb(
                data, raw=False, strict_map_key=True, timestamp=3, ext_hook=reader.ext, list_hook=reader.array
            )
            stray = reader.unused
        else:
            stray = 0
            value = unpackb(data, raw=False, strict_map_key=True, timestamp=3, ext_hook=read_extension)
    except DecodeError:
        raise
    except _GARBAGE as error:
        raise DecodeError(f"not a message of asyncq: {error or type(error).__name__}") from error
    if stray:
        raise DecodeError("a container tag is at a wrong place")
    # msgpack itself stops at a depth of 1024. Only messages that open more containers than the limit pay for
    # this walk.
    if len(data) > limit and len(data.translate(None, _NO_CONTAINER)) > limit and _is_deeper(value, limit):
        raise DecodeError(f"nested more than {MAX_DEPTH} deep")
    return value


class _Reader:
    """The hooks for one message with container tags. msgpack calls `array` when it has all items of an array,
    so inner arrays are built first.
    """

    __slots__ = ("has_instances", "typed", "unused")

    def __init__(self, *, typed: bool) -> None:
        self.typed = typed
        # Container tags that were read and were not the first item of an array. No caller may get one.
        self.unused = 0
        self.has_instances = False

    def ext(self, code: int, data: bytes) -> Any:
        """Called by msgpack with each extension."""
        if code != CONTAINER_TAG_CODE:
            return read_extension(code, data)
        container_tag = CONTAINER_TAGS.get(data)
        if container_tag is None:
            raise DecodeError("unknown kind of container: not ours, or from a newer version of asyncq")
        self.unused += 1
        return container_tag

    def array(self, items: list[Any]) -> Any:
        """Called by msgpack with the items of each array."""
        container_tag = items[0] if items else None
        if container_tag is INSTANCE:
            self.unused -= 1
            # The usual form is checked here, because every instance pays for it; `check_instance` checks all
            # others.
            if len(items) != 4 or type(items[1]) is not str or type(items[2]) is not bytes:
                check_instance(items)
            self.has_instances = True
            return Instance(items) if self.typed else plain_fields(items)
        if type(container_tag) is not ContainerTag:
            return items
        self.unused -= 1
        del items[0]
        if container_tag is PAIRS:
            check_pairs(items)
        if self.typed:
            return container_tag.keep(items)
        # A few members are cheap, whatever their hashes are, so `make_set` need not count collisions.
        if container_tag is TUPLE or (
            container_tag.kind is not None and len(items) <= MAX_COLLISIONS and not self.has_instances
        ):
            return container_tag.kind(items)
        return self._build(container_tag, items)

    def _build(self, container_tag: ContainerTag, items: list[Any]) -> Any:
        """Builds a set or a dict of plain values."""
        try:
            return container_tag.build(items)
        except DecodeError:
            # An instance may have a hash though the dict of its fields has none: then the set becomes a list,
            # and the dict a list of pairs.
            if not self.has_instances or _have_hashes(items[::2] if container_tag is PAIRS else items):
                raise
            return (
                items
                if container_tag is not PAIRS
                else list(map(list, zip(items[::2], items[1::2], strict=True)))
            )


def _have_hashes(items: list[Any]) -> bool:
    try:
        for item in items:
            hash(item)
    except TypeError:
        return False
    return True


def _is_deeper(value: Any, limit: int) -> bool:
    """Returns whether the containers in a value nest deeper than `limit`."""
    level = [value]
    for _ in range(limit + 1):
        boxes = [item for item in level if type(item) in CONTAINERS and item]
        if not boxes:
            return False
        level = []
        for box in boxes:
            level += _inside(box)
    return True


def _inside(box: Any) -> Any:
    """Returns what a container holds one level below."""
    kind = type(box)
    if kind is dict:
        return [*box, *box.values()]
    if kind is Bag or kind is Pairs:
        return box.items
    if kind is not Instance:
        return box
    # Its fields count as one level below it, as in the dict that a reader without the class gets.
    held = [box[3], *(box[4].values() if len(box) == 5 else ())]
    return [
        item
        for part in held
        for item in (part.values() if type(part) is dict else part if type(part) is list else [part])
    ]
