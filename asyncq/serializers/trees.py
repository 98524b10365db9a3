"""Trees: what values are turned into, so that msgpack keeps them as they are.

A tree is made of what msgpack knows, and of arrays whose first item is a mark: they stand for the containers
it does not know, and for the choice among the arms of a union.
"""

from __future__ import annotations

from types import NoneType
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from msgpack import ExtType

from asyncq.errors import DecodeError

if TYPE_CHECKING:
    from collections.abc import Callable

SCALARS: Final = frozenset({NoneType, bool, int, float, str, bytes})
# Asked about `map(type, values)`. Bound here once, because Python 3.11 looks a method of an imported name up
# the slow way at each call: 110 ns of the 880 that the arguments of a small call took.
are_scalars: Final = SCALARS.issuperset
are_strings: Final = frozenset({str}).issuperset

MARK_CODE: Final = 1
MARK_START: Final = b"\xd4\x01"  # how msgpack begins an extension of one byte with code 1


class Record(dict[str, Any]):
    """The fields of a dataclass or a model: packed as a dict, but printed `.at` and not `['at']`."""

    __slots__ = ()


class Choice(NamedTuple):
    """A tree, and which of the readings its annotation offers is meant. A plain reader sees the tree."""

    arm: int
    tree: Any


class Mark:
    """The first item of an array that stands for something else than a list."""

    __slots__ = ("build", "ext")

    def __init__(self, code: int, build: Callable[[list[Any]], Any]) -> None:
        self.ext: Any = ExtType(MARK_CODE, bytes([code]))
        self.build: Callable[[list[Any]], Any] = build


def _build_pairs(items: list[Any]) -> dict[Any, Any]:
    if len(items) % 2:
        raise DecodeError("a dict on the wire has a key without a value")
    return dict(zip(items[::2], items[1::2], strict=True))


def _build_choice(items: list[Any]) -> Choice:
    if len(items) != 2 or type(items[0]) is not int:
        raise DecodeError("a choice on the wire is not an index and a value")
    return Choice(*items)


TUPLE: Final = Mark(0, tuple)
SET: Final = Mark(1, set)
FROZENSET: Final = Mark(2, frozenset)
PAIRS: Final = Mark(3, _build_pairs)
CHOICE: Final = Mark(4, _build_choice)
MARKS: Final[dict[bytes, Mark]] = {mark.ext.data: mark for mark in (TUPLE, SET, FROZENSET, PAIRS, CHOICE)}
CONTAINERS: Final = frozenset({list, tuple, dict, set, frozenset, Choice})
