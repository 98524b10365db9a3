"""Compares two measurements: `faster`, `slower`, or `no difference that the noise allows`.

The method, for each figure, with the blocks of both measurements:

1. The two-sided Mann-Whitney U test (Mann and Whitney 1947, "On a test of whether one of two random variables
   is stochastically larger than the other") on the blocks. Its distribution is exact: all ways to divide the
   blocks among both measurements are counted, with mean ranks for equal values. It needs no assumption about
   how the figures are distributed.
2. Holm's correction (Holm 1979, "A simple sequentially rejective multiple test procedure") over all figures
   of one comparison. A difference counts if its corrected p is below `LEVEL`: of twenty comparisons of equal
   measurements, about one at most shows any difference.
3. The ratio is that of the medians of the blocks. A difference below `LEAST` is not reported even if it is
   certain: two runs of the same code differ by so much, because the machine is another one an hour later, and
   blocks of one run do not show that.

If other programs used more of the machine in one of the measurements (`saved.OTHERS`), all verdicts are
`no difference that the noise allows`: the cause could be theirs.

Blocks start new worker processes for the same reason (Kalibera and Jones 2013, "Rigorous benchmarking in
reasonable time"): repeat where the variation comes from.
"""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass, replace
from functools import cache
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Sequence

    from asyncq.cli.bench.figure import Figure

FASTER = "faster"
SLOWER = "slower"
NO_DIFFERENCE = "no difference that the noise allows"

LEVEL = 0.05
"""A corrected p below it is a difference."""
LEAST = 0.03
"""The smallest difference of the ratio from 1 that is reported."""


@dataclass(frozen=True, slots=True)
class Verdict:
    """What became of one figure.

    Args:
        key: the figure.
        title: the figure's name for a person.
        unit: of the medians.
        more_is_better: whether a larger value is better.
        base: the blocks of the saved measurement.
        now: the blocks of this one.
        ratio: of the medians, now to base.
        p: corrected for the number of figures.
        verdict: `FASTER`, `SLOWER` or `NO_DIFFERENCE`.
    """

    key: str
    title: str
    unit: str
    more_is_better: bool
    base: tuple[float, ...]
    now: tuple[float, ...]
    ratio: float
    p: float
    verdict: str

    def to_json(self) -> dict[str, Any]:
        """Returns the verdict as a tree."""
        return asdict(self)


def compared(base: Sequence[Figure], now: Sequence[Figure], *, alike: bool = True) -> list[Verdict]:
    """Returns a verdict for each figure that both measurements have, in the order of `now`.

    Args:
        base: the saved measurement.
        now: this one.
        alike: whether the machine was as busy in both. If not, no verdict is a difference.
    """
    old = {figure.key: figure for figure in base}
    pairs = [(old[figure.key], figure) for figure in now if figure.key in old]
    corrected = holm([mann_whitney(before.blocks, after.blocks) for before, after in pairs])
    verdicts = [_judged(before, after, p) for (before, after), p in zip(pairs, corrected, strict=True)]
    return verdicts if alike else [replace(verdict, verdict=NO_DIFFERENCE) for verdict in verdicts]


def enough_blocks(verdicts: Sequence[Verdict]) -> bool:
    """Returns whether a difference could show at all: with few blocks and many figures, none can."""
    certain = [2 / math.comb(len(each.base) + len(each.now), len(each.now)) for each in verdicts]
    return not certain or min(certain) * len(certain) < LEVEL


def mann_whitney(one: Sequence[float], other: Sequence[float]) -> float:
    """Returns the exact two-sided p of the Mann-Whitney U test, with mean ranks for equal values.

    It is the share of all ways to divide the values into two groups of these sizes whose rank sum is at least
    as far from the mean as the one that was seen.
    """
    values = sorted((*one, *other))
    # Twice the mean rank, so that all ranks are whole numbers.
    rank = {value: 2 * values.index(value) + values.count(value) + 1 for value in set(values)}
    ranks = tuple(rank[value] for value in values)
    seen = sum(rank[value] for value in one)
    mean = len(one) * (len(values) + 1)
    ways = _rank_sums(ranks, len(one))
    as_far = sum(count for total, count in ways.items() if abs(total - mean) >= abs(seen - mean))
    return as_far / math.comb(len(values), len(one))


@cache
def _rank_sums(ranks: tuple[int, ...], size: int) -> dict[int, int]:
    """Returns in how many ways `size` of the ranks have each sum."""
    ways: list[dict[int, int]] = [{0: 1}] + [{} for _ in range(size)]
    for rank in ranks:
        for chosen in range(size, 0, -1):
            for total, count in ways[chosen - 1].items():
                ways[chosen][total + rank] = ways[chosen].get(total + rank, 0) + count
    return ways[size]


def holm(ps: Sequence[float]) -> list[float]:
    """Returns each p, corrected for how many there are, by Holm's method."""
    corrected = [0.0] * len(ps)
    largest = 0.0
    for done, index in enumerate(sorted(range(len(ps)), key=lambda number: ps[number])):
        largest = max(largest, min(1.0, ps[index] * (len(ps) - done)))
        corrected[index] = largest
    return corrected


def _judged(before: Figure, after: Figure, p: float) -> Verdict:
    ratio = _ratio(before.median, after.median)
    verdict = NO_DIFFERENCE
    if p < LEVEL and abs(ratio - 1) >= LEAST:
        verdict = FASTER if (ratio > 1) == after.more_is_better else SLOWER
    words = after.key, after.title, after.unit, after.more_is_better
    return Verdict(*words, before.blocks, after.blocks, round(ratio, 4), round(p, 5), verdict)


def _ratio(old: float, new: float) -> float:
    if not old:  # a rate of zero: nothing was kept up
        return math.inf if new else 1.0
    return new / old
