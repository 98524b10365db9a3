"""The report of a benchmark: lines of text for a person, and a tree for JSON."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from asyncq.cli.bench.histogram import Histogram

_QUANTILES = (("p50", 0.5), ("p90", 0.9), ("p99", 0.99), ("p99.9", 0.999), ("max", 1.0))


@dataclass(slots=True)
class BenchReport:
    """The results of a benchmark: lines for a person, a tree for JSON, and how many jobs were lost."""

    lines: list[str]
    tree: dict[str, Any]
    lost: int = 0

    def add(self, name: str, key: str, per_second: float) -> None:
        """Adds a rate."""
        self.lines.append(f"  {name:<18} {per_second:>9,.0f} jobs/s")
        self.tree[key] = round(per_second)


def summary(times: Histogram) -> dict[str, Any]:
    """Returns a histogram as a tree, with its percentiles in milliseconds."""
    shown = {f"{name}_ms": times.ms(q) for name, q in _QUANTILES} if times.count else {}
    return {**shown, "histogram": times.to_json()}


def quantiles(name: str, times: Histogram) -> str:
    """Formats a line of percentiles."""
    if not times.count:
        return f"  {name:<18} nothing"
    return f"  {name:<18} " + "  ".join(f"{label} {_short(times.ms(q))}" for label, q in _QUANTILES) + " ms"


def _short(ms: float) -> str:
    return f"{ms:.0f}" if ms >= 100 else f"{ms:.3g}" if ms >= 1 else f"{ms:.2f}"


def bars(times: Histogram) -> str:
    """Draws how many records fall into each power of two of milliseconds, as bars: `<0.5 ████▍  <1 ▏`."""
    if not times.count:
        return "nothing"
    rows: dict[int, int] = {}
    for low, held in times.to_json()["buckets"].items():
        power = (int(low) // 125_000).bit_length()  # 0: below 0.125 ms; each next one twice as much
        rows[power] = rows.get(power, 0) + held
    most = max(rows.values())
    blocks = " ▏▎▍▌▋▊▉█"
    parts = []
    for power in range(min(rows), max(rows) + 1):
        eighths = -(-rows.get(power, 0) * 96 // most)
        bar = "█" * (eighths // 8) + blocks[eighths % 8].strip()
        parts.append(f"<{0.125 * 2**power:g} {bar}".rstrip())
    return "  ".join(parts) + "   (ms)"
