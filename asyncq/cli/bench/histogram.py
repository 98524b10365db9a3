"""A latency histogram with log-linear buckets. Histograms of several rounds and processes can be merged.

Every power of two is cut into 128 equal buckets. So a recorded value is known to better than 0.8 %, from a
nanosecond to eighteen minutes, in a few kilobytes. Merging adds the counts: percentiles must never be
averaged.
"""

from __future__ import annotations

from collections import Counter
from typing import Any, Self

_HALF_BITS = 7
_LARGEST_NS = (1 << 40) - 1
"""18 minutes. A longer duration is counted in the last bucket; the largest one is kept in `max_ns`."""


class Histogram:
    """Counts of durations in nanoseconds.

    >>> times = Histogram()
    >>> for ns in (1_000_000, 2_000_000, 9_000_000):
    ...     times.record(ns)
    >>> times.ms(1.0)
    9.0
    """

    def __init__(self) -> None:
        self.buckets: Counter[int] = Counter()
        self.count: int = 0
        self.max_ns: int = 0

    def record(self, ns: int) -> None:
        """Counts one duration.

        Raises:
            ValueError: the duration is below zero: the clock was read in the wrong order.
        """
        if ns < 0:
            raise ValueError(f"a duration of {ns} ns: the end was read before the start")
        self.count += 1
        self.max_ns = max(self.max_ns, ns)
        self.buckets[_index(min(ns, _LARGEST_NS))] += 1

    def merge(self, other: Histogram) -> None:
        """Adds the other histogram's counts to this one."""
        self.buckets.update(other.buckets)
        self.count += other.count
        self.max_ns = max(self.max_ns, other.max_ns)

    def quantile(self, q: float) -> float:
        """Returns the duration, in nanoseconds, that the share `q` of all records does not exceed.

        The answer is interpolated inside its bucket, and is never above the largest record.

        Raises:
            ValueError: nothing was recorded.
        """
        if not self.count:
            raise ValueError("an empty histogram has no quantiles")
        rank = q * self.count
        seen = 0
        for index, held in sorted(self.buckets.items()):
            if seen + held >= rank:
                low, width = _bounds(index)
                return min(low + width * (rank - seen) / held, self.max_ns)
            seen += held
        return float(self.max_ns)

    def ms(self, q: float) -> float:
        """Returns `quantile(q)` in milliseconds, rounded to the microsecond."""
        return round(self.quantile(q) / 1e6, 3)

    def to_json(self) -> dict[str, Any]:
        """Returns the histogram as a plain tree: each bucket's count by its lower bound in nanoseconds."""
        buckets = {str(_bounds(index)[0]): held for index, held in sorted(self.buckets.items())}
        return {"count": self.count, "max_ns": self.max_ns, "buckets": buckets}

    @classmethod
    def from_json(cls, tree: dict[str, Any]) -> Self:
        """Makes the histogram again from what `to_json` returned."""
        histogram = cls()
        histogram.count, histogram.max_ns = tree["count"], tree["max_ns"]
        histogram.buckets.update({_index(int(low)): held for low, held in tree["buckets"].items()})
        return histogram


def _index(ns: int) -> int:
    # The value is shifted until 8 bits are left, with the top one set: 128 buckets for each shift. A value
    # below 256 needs no shift and has its own bucket.
    shift = max(0, ns.bit_length() - _HALF_BITS - 1)
    return (shift << _HALF_BITS) + (ns >> shift)


def _bounds(index: int) -> tuple[int, int]:
    """Returns a bucket's lowest value and its width, both in nanoseconds."""
    shift = max(0, (index >> _HALF_BITS) - 1)
    return (index - (shift << _HALF_BITS)) << shift, 1 << shift
