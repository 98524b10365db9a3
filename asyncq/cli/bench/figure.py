"""A figure of `asyncq bench`: what was measured, once in each block.

A measurement is made of several blocks, so that a comparison knows how much a figure differs by itself.
"""

from __future__ import annotations

import statistics
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Self

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence


@dataclass(frozen=True, slots=True)
class Figure:
    """A figure with its value in each block.

    Args:
        key: its name in JSON.
        title: its name for a person.
        unit: such as `ms`.
        more_is_better: whether a larger value is better.
        blocks: the value in each block, in the order of measurement.
    """

    key: str
    title: str
    unit: str
    more_is_better: bool
    blocks: tuple[float, ...]

    @property
    def median(self) -> float:
        """The median of the blocks."""
        return statistics.median(self.blocks)

    def to_json(self) -> dict[str, Any]:
        """Returns the figure as a tree, with its median."""
        return {
            "key": self.key,
            "title": self.title,
            "unit": self.unit,
            "more_is_better": self.more_is_better,
            "median": self.median,
            "blocks": list(self.blocks),
        }

    @classmethod
    def from_json(cls, tree: Mapping[str, Any]) -> Self:
        """Makes the figure again from what `to_json` returned.

        Raises:
            KeyError, TypeError, ValueError: the tree is not such a figure.
        """
        blocks = tuple(float(value) for value in tree["blocks"])
        if not blocks:
            raise ValueError("a figure without blocks")
        return cls(tree["key"], tree["title"], tree["unit"], bool(tree["more_is_better"]), blocks)


def per_second(key: str, title: str, blocks: Sequence[float]) -> Figure:
    """Returns a rate in jobs per second, rounded to whole jobs."""
    return Figure(key, title, "jobs/s", True, tuple(float(round(value)) for value in blocks))
