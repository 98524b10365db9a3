"""A latency histogram with log-linear buckets, mergeable over rounds and processes.

Every power of two is cut into 128 equal buckets, so that a recorded value is known to better than 0.8 % from
a nanosecond to eighteen minutes, in a few kilobytes, and two histograms are merged by adding counts:
percentiles themselves must never be averaged.
"""

from collections import Counter
from collections.abc import Iterator
from typing import Any, Self

_HALF_BITS = 7
_HALF = 1 << _HALF_BITS
_LARGEST_NS = (
    1 << 40
) - 1  # 18 minutes; what is slower is counted in the last bucket, its true size kept in `max_ns`


class Histogram:
    """Counts of durations in nanoseconds."""

    def __init__(self) -> None:
        self.buckets: Counter[int] = Counter()
        self.count = 0
        self.max_ns = 0

    def record(self, ns: int) -> None:
        """Count one duration; one below zero (clocks read in the wrong order) is a bug of the caller."""
        if ns < 0:
            raise ValueError(f"a duration of {ns} ns: the end was read before the start")
        self.count += 1
        self.max_ns = max(self.max_ns, ns)
        self.buckets[_index(min(ns, _LARGEST_NS))] += 1

    def merge(self, other: Self) -> None:
        """Add the other histogram's counts to this one."""
        self.buckets.update(other.buckets)
        self.count += other.count
        self.max_ns = max(self.max_ns, other.max_ns)

    def quantile(self, q: float) -> float:
        """Return the duration, in nanoseconds, that the share `q` of all records does not exceed.

        Inside the bucket that holds it the answer is interpolated, and it is never above the largest record.
        """
        if not self.count:
            raise ValueError("an empty histogram has no quantiles")
        wanted = q * self.count
        seen = 0
        for index, held in sorted(self.buckets.items()):
            if seen + held >= wanted:
                low, width = _bounds(index)
                return min(low + width * (wanted - seen) / held, self.max_ns)
            seen += held
        return float(self.max_ns)

    def ms(self, q: float) -> float:
        """Return `quantile(q)` in milliseconds, rounded to the microsecond."""
        return round(self.quantile(q) / 1e6, 3)

    def to_json(self) -> dict[str, Any]:
        """Return a plain tree: every bucket's lower bound in nanoseconds with its count."""
        return {"count": self.count, "max_ns": self.max_ns, "buckets": dict(self._rows())}

    @classmethod
    def from_json(cls, tree: dict[str, Any]) -> Self:
        """Rebuild what `to_json` gave."""
        histogram = cls()
        histogram.count, histogram.max_ns = tree["count"], tree["max_ns"]
        histogram.buckets.update({_index(int(low)): held for low, held in tree["buckets"].items()})
        return histogram

    def _rows(self) -> Iterator[tuple[str, int]]:
        for index, held in sorted(self.buckets.items()):
            yield str(_bounds(index)[0]), held


def _index(ns: int) -> int:
    # Shifted until 8 bits are left, the top one set: 128 buckets for each shift. Small values are their own
    # bucket, and the two rules meet without a gap at 128.
    shift = max(0, ns.bit_length() - _HALF_BITS - 1)
    return (shift << _HALF_BITS) + (ns >> shift)


def _bounds(index: int) -> tuple[int, int]:
    """Return a bucket's lowest value and its width, both in nanoseconds."""
    shift = max(0, (index >> _HALF_BITS) - 1)
    return (index - (shift << _HALF_BITS)) << shift, 1 << shift
