"""The report of a benchmark: lines of text for a person, and a tree for JSON."""

from __future__ import annotations

import statistics
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Sequence

    from asyncq.cli.bench.comparison import Verdict
    from asyncq.cli.bench.figure import Figure
    from asyncq.cli.bench.histogram import Histogram

QUANTILES = (("p50", 0.5), ("p90", 0.9), ("p99", 0.99), ("p99.9", 0.999), ("max", 1.0))


@dataclass(slots=True)
class BenchReport:
    """The results of a benchmark.

    Args:
        parameters: what must be the same in two measurements that are compared.
        lines: for a person.
        tree: for JSON, beside the parameters and the figures.
        figures: what is compared.
        failed: whether jobs were lost, or no rate was kept up.
    """

    parameters: dict[str, Any]
    lines: list[str] = field(default_factory=list)
    tree: dict[str, Any] = field(default_factory=dict)
    figures: list[Figure] = field(default_factory=list)
    failed: bool = False

    def add(self, figure: Figure) -> None:
        """Adds a rate: a line for a person, a figure, and the median in the tree."""
        line = f"  {figure.title:<18} {figure.median:>9,.0f} {figure.unit}"
        if len(figure.blocks) > 1:
            least, most = min(figure.blocks), max(figure.blocks)
            line += f"  ({least:,.0f}-{most:,.0f} in {len(figure.blocks)} blocks)"
        self.lines.append(line)
        self.tree[figure.key] = round(figure.median)
        self.figures.append(figure)

    def to_json(self) -> dict[str, Any]:
        """Returns everything as a tree."""
        figures = [figure.to_json() for figure in self.figures]
        return {**self.parameters, **self.tree, "parameters": self.parameters, "figures": figures}


def summary(times: Histogram) -> dict[str, Any]:
    """Returns a histogram as a tree, with its percentiles in milliseconds."""
    shown = {f"{name}_ms": times.ms(q) for name, q in QUANTILES} if times.count else {}
    return {**shown, "histogram": times.to_json()}


def quantiles(name: str, times: Histogram) -> str:
    """Formats a line of percentiles."""
    if not times.count:
        return f"  {name:<18} nothing"
    return f"  {name:<18} " + "  ".join(f"{label} {short_ms(times.ms(q))}" for label, q in QUANTILES) + " ms"


def short_ms(ms: float) -> str:
    """Formats milliseconds with three digits at most."""
    return f"{ms:.0f}" if ms >= 100 else f"{ms:.3g}" if ms >= 1 else f"{ms:.2f}"


def verdict_lines(verdicts: Sequence[Verdict]) -> list[str]:
    """Formats the verdicts of a comparison, a line for each."""
    medians = [f"{_median(each.base)} -> {_median(each.now)} {each.unit}" for each in verdicts]
    wide = max(map(len, medians), default=0)
    return [
        f"  {each.title:<22} {shown:<{wide}}  x{each.ratio:<5.3g} p {each.p:<7.2g} {each.verdict}"
        for each, shown in zip(verdicts, medians, strict=True)
    ]


def _median(blocks: Sequence[float]) -> str:
    value = statistics.median(blocks)
    return f"{value:,.0f}" if value >= 1000 else short_ms(value)


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
