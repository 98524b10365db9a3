"""Shapes: what annotations add to the plain values, for containers and unions.

A shape turns the annotated classes in a value into plain trees before it is packed, and back after it was
unpacked. Those of the classes themselves are in `classes`; `annotations` picks the shape.
"""

# ruff: noqa: D102  what accepts, dump, load and compile do is described once, where each is declared

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, Any, Final, cast

from asyncq.errors import DecodeError
from asyncq.serializers.places import KEY, MEMBER, Place, check_depth, name_of, refuse, shown
from asyncq.serializers.trees import CONTAINERS, Choice, Record, are_scalars

if TYPE_CHECKING:
    from collections.abc import Callable

SEQUENCES: Final = (list, tuple)
SETS: Final = (set, frozenset)


class Shape(ABC):
    """What an annotation adds to the plain codec: how classes become a plain tree, and a tree becomes them.

    Every shape lets plain values it does not recognise pass untouched in both directions, as a direct call
    would.
    """

    __slots__ = ()

    @abstractmethod
    def accepts(self, value: Any) -> bool:
        """Whether `value` is of exactly the annotated type; this picks the arm of a union."""

    @abstractmethod
    def dump(self, value: Any, place: Place) -> Any:
        """Turns the annotated classes in `value` into plain trees."""

    @abstractmethod
    def load(self, tree: Any) -> Any:
        """Turns plain trees back into the annotated classes."""


def dumped(shape: Shape | None, value: Any, place: Place) -> Any:
    """The tree of a value with or without a shape."""
    return value if shape is None else shape.dump(value, place)


def loaded(shape: Shape | None, tree: Any) -> Any:
    """The value of a tree with or without a shape."""
    return bare(tree) if shape is None else shape.load(tree)


def bare(tree: Any) -> Any:
    """The tree without choices. One stands where no union is annotated if the writer's hints differ."""
    kind = type(tree)
    if kind is Choice:
        return bare(tree.tree)
    if kind is dict:
        return {bare(key): bare(item) for key, item in tree.items()}
    if kind not in CONTAINERS or are_scalars(map(type, tree)):
        return tree
    return cast("Any", kind)(map(bare, tree))


def opened(tree: Any) -> Any:
    """The tree itself, where the reader's annotation has no use for the choice that the writer made."""
    return tree.tree if type(tree) is Choice else tree


class ItemsShape(Shape):
    """A list, tuple, set or frozenset, whose items have a shape; whatever of these is given comes back."""

    __slots__ = ("item", "kinds")

    def __init__(self, item: Shape, kinds: tuple[type, ...]) -> None:
        self.item: Shape = item
        self.kinds: tuple[type, ...] = kinds

    def accepts(self, value: Any) -> bool:
        return type(value) in self.kinds and all(map(self.item.accepts, value))

    def dump(self, value: Any, place: Place) -> Any:
        kind = type(value)
        if kind not in SEQUENCES and kind not in SETS:
            return value
        depth = check_depth(place)
        style = KEY if kind in SEQUENCES else MEMBER
        items = [self.item.dump(item, (place, style, index, depth)) for index, item in enumerate(value)]
        if kind in SETS:  # not a set of trees: those of dataclasses are dicts, which cannot be members
            return Choice(SETS.index(kind), items)
        return items if kind is list else tuple(items)

    def load(self, tree: Any) -> Any:
        index, tree = tree if type(tree) is Choice else (-1, tree)
        kind = type(tree)
        if kind not in SEQUENCES and kind not in SETS:
            return bare(tree)
        items = [self.item.load(item) for item in tree]
        if 0 <= index < len(SETS):
            kind = SETS[index]
        return _hashed(lambda: kind(items))


def _hashed(build: Callable[[], Any]) -> Any:
    try:
        return build()
    except TypeError as error:
        raise DecodeError(f"a key or member received is not hashable: {error}") from error


class TupleShape(Shape):
    """A tuple with a shape per place, as in `tuple[Point, int]`."""

    __slots__ = ("items",)

    def __init__(self, items: tuple[Shape | None, ...]) -> None:
        self.items: tuple[Shape | None, ...] = items

    def accepts(self, value: Any) -> bool:
        return (
            type(value) is tuple
            and len(value) == len(self.items)
            and all(
                shape is None or shape.accepts(item) for shape, item in zip(self.items, value, strict=True)
            )
        )

    def dump(self, value: Any, place: Place) -> Any:
        kind = type(value)
        if kind not in SEQUENCES or len(value) != len(self.items):
            return value
        depth = check_depth(place)
        return kind(
            dumped(shape, item, (place, KEY, index, depth))
            for index, (shape, item) in enumerate(zip(self.items, value, strict=True))
        )

    def load(self, tree: Any) -> Any:
        tree = opened(tree)
        kind = type(tree)
        if kind not in SEQUENCES or len(tree) != len(self.items):
            return bare(tree)
        return kind(loaded(shape, item) for shape, item in zip(self.items, tree, strict=True))


class MappingShape(Shape):
    """A dict whose keys or values have a shape."""

    __slots__ = ("key", "value")

    def __init__(self, key: Shape | None, value: Shape | None) -> None:
        self.key: Shape | None = key
        self.value: Shape | None = value

    def accepts(self, value: Any) -> bool:
        return (
            type(value) is dict
            and (self.key is None or all(map(self.key.accepts, value)))
            and (self.value is None or all(map(self.value.accepts, value.values())))
        )

    def dump(self, value: Any, place: Place) -> Any:
        if type(value) is not dict:
            return value
        depth = check_depth(place)
        tree = {}
        for key, item in value.items():
            wire_key = dumped(self.key, key, (place, ".keys()<{}>", shown(key), depth))
            if type(wire_key) is Record:
                refuse(place, f"a {name_of(type(key))} cannot be a key on the wire. Send a list of pairs")
            if wire_key in tree:
                refuse(place, f"two keys are both {shown(wire_key)} on the wire. Send a list of pairs")
            tree[wire_key] = dumped(self.value, item, (place, KEY, key, depth))
        return tree

    def load(self, tree: Any) -> Any:
        tree = opened(tree)
        if type(tree) is not dict:
            return bare(tree)
        return _hashed(
            lambda: {loaded(self.key, key): loaded(self.value, item) for key, item in tree.items()}
        )


class UnionShape(Shape):
    """A union of which at least one arm has a shape; which arm was meant travels with the value."""

    __slots__ = ("arms", "plain")

    def __init__(self, arms: tuple[Shape | None, ...], plain: frozenset[Any]) -> None:
        self.arms: tuple[Shape | None, ...] = arms
        self.plain: frozenset[Any] = plain

    def accepts(self, value: Any) -> bool:
        return type(value) in self.plain or any(arm is not None and arm.accepts(value) for arm in self.arms)

    def dump(self, value: Any, place: Place) -> Any:
        above, style, step, _ = place
        for index, arm in enumerate(self.arms):
            if arm is not None and arm.accepts(value):
                return Choice(index, arm.dump(value, (above, style, step, check_depth(place))))
        return value

    def load(self, tree: Any) -> Any:
        if type(tree) is not Choice or not 0 <= tree.arm < len(self.arms):
            return bare(tree)
        return loaded(self.arms[tree.arm], tree.tree)
