"""Scenario of sizes: jobs whose argument and result are larger than a number."""

import asyncio
import time
from collections.abc import Sequence
from dataclasses import dataclass

from histogram import Histogram
from scenario import Measured, Scenario
from system import System, insist_equal, worker

SIZES = {"200b": 200, "10kb": 10_000, "1mb": 1_000_000}


@dataclass(frozen=True)
class Payloads(Scenario):
    """Sends texts of 200 bytes, 10 kB and 1 MB to a job that returns its argument, and compares them: one in
    flight, and ten callers at once.
    """

    seconds: float
    callers: int = 10
    sizes: Sequence[str] = tuple(SIZES)
    ours = True

    async def run(self, system: System, url: str) -> Measured:
        figures, histograms = {}, {}
        async with worker(system, url), system.open(url, self.callers) as client:
            for name in self.sizes:
                text = "x" * SIZES[name]

                async def caller(histogram: Histogram, end: float, text: str = text) -> None:
                    while time.perf_counter() < end:
                        start = time.perf_counter_ns()
                        value = await client.value(await client.delay(text))
                        histogram.record(time.perf_counter_ns() - start)
                        insist_equal(text, value)

                alone, together = Histogram(), Histogram()
                await caller(Histogram(), time.perf_counter() + self.seconds / 5)
                await caller(alone, time.perf_counter() + self.seconds)
                start = time.perf_counter()
                await asyncio.gather(*(caller(together, start + self.seconds) for _ in range(self.callers)))
                elapsed = time.perf_counter() - start
                figures[f"payload{name}.p50_ms"] = alone.ms(0.5)
                figures[f"payload{name}.p99_ms"] = alone.ms(0.99)
                figures[f"payload{name}.jobs_per_s"] = round(together.count / elapsed, 1)
                histograms[f"payload{name}"] = alone
        return Measured(figures, histograms)
