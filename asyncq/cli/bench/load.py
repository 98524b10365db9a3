"""`asyncq bench load`: the highest rate of arrivals that worker, server and this client keep up with.

The open loop of `asyncq bench latency` at rising rates, until one is not kept up. Each block has a new worker
and climbs all rates again, so that every rate is measured at several times.
"""

from __future__ import annotations

import statistics
from collections import defaultdict
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from asyncq.cli.bench.figure import per_second
from asyncq.cli.bench.latency import OpenLoop, merged, percentiles
from asyncq.cli.bench.report import BenchReport, quantiles, summary
from asyncq.config import shown

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from asyncq.cli.bench.environment import BenchEnvironment


def rising(lowest: int, highest: int, steps: int) -> tuple[int, ...]:
    """Returns rates from the lowest to the highest, each the same factor above the last, with two digits.

    >>> rising(500, 20_000, 5)
    (500, 1300, 3200, 8000, 20000)
    """
    if steps < 2 or lowest == highest:
        return (highest,) if lowest == highest else (lowest, highest)
    factor = (highest / lowest) ** (1 / (steps - 1))
    between = [float(f"{lowest * factor**step:.2g}") for step in range(1, steps - 1)]
    rounded = {int(rate) for rate in between if lowest < rate < highest}
    return (lowest, *sorted(rounded), highest)


@dataclass(frozen=True, slots=True)
class LoadPlan:
    """Arrivals at rising rates, in an open loop.

    Args:
        rates: arrivals per second, rising.
        seconds: how long each rate is measured, all blocks together.
        warmup: how long the lowest rate runs before each block, not counted.
        payload: bytes of each job's argument.
        limit: the largest 99th percentile of a rate that is kept up, in seconds.
        blocks: how often the rates are climbed.
    """

    command: ClassVar[str] = "load"
    rates: tuple[int, ...]
    seconds: float
    warmup: float
    payload: int
    limit: float
    blocks: int

    @property
    def title(self) -> str:
        """The plan in one line."""
        rates = f"{self.rates[0]:,}/s to {self.rates[-1]:,}/s"
        each = f"{shown(self.seconds)} each in {self.blocks} blocks"
        return (
            f"open loop, {rates}, {each}, kept up with p99 <= {shown(self.limit)}, payload {self.payload} B"
        )

    @property
    def parameters(self) -> dict[str, Any]:
        """What must be the same in two measurements that are compared."""
        return {"rates": list(self.rates), "payload": self.payload, "p99_limit_s": self.limit}

    async def run(self, environment: BenchEnvironment) -> BenchReport:
        """Climbs the rates in each block, and stops a block at the first rate that is not kept up."""
        steps: dict[int, list[OpenLoop]] = defaultdict(list)
        kept_up = []
        for _ in range(self.blocks):
            async with environment.worker():
                warmup = int(self.rates[0] * self.warmup)
                await OpenLoop(environment.noop, "x" * self.payload, self.rates[0], warmup).run()
                kept_up.append(await self._climb(environment, steps))
        return self._report(steps, kept_up)

    async def _climb(self, environment: BenchEnvironment, steps: dict[int, list[OpenLoop]]) -> int:
        """Returns the highest rate that was kept up, 0 if none was."""
        best = 0
        for rate in self.rates:
            count = max(1, int(rate * self.seconds / self.blocks))
            step = OpenLoop(environment.noop, "x" * self.payload, rate, count)
            await step.run()
            steps[rate].append(step)
            if not self._kept_up(step):
                break
            best = rate
        return best

    def _kept_up(self, step: OpenLoop) -> bool:
        """Returns whether no job was lost or late. If arrivals are faster than the jobs, each one waits
        longer than the one before it, so a 99th percentile from the due time shows it.
        """
        return not step.lost and step.answered.ms(0.99) <= self.limit * 1000

    def _report(self, steps: Mapping[int, Sequence[OpenLoop]], kept_up: Sequence[int]) -> BenchReport:
        report = BenchReport(self.parameters)
        rows, latencies = [], []
        for rate, measured in steps.items():
            times = merged(step.answered for step in measured)
            held = sum(map(self._kept_up, measured))
            report.lines.append(
                f"{quantiles(f'{rate:,}/s', times)}, kept up in {held} of {self.blocks} blocks"
            )
            rows.append(
                {
                    "rate": rate,
                    "blocks": len(measured),
                    "kept_up_blocks": held,
                    "lost": sum(step.lost for step in measured),
                    "result": summary(times),
                }
            )
            # A rate that is not kept up has no latency: it grows for as long as the measurement lasts.
            if held == self.blocks:
                latencies += percentiles(f"at_{rate}", f"{rate:,}/s", [step.answered for step in measured])
        best = statistics.median_low(kept_up)  # at least half of the blocks have kept it up
        report.tree = {"seconds": self.seconds, "kept_up_per_s": best, "steps": rows}
        report.figures = [per_second("kept_up_per_s", "kept up", kept_up), *latencies]
        report.lines.append(f"  kept up: {best:,} jobs/s")
        report.failed = not best
        return report
