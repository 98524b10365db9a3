"""Closed loop: measures how long one caller waits from `delay` to the value. There is no other load."""

import asyncio
from dataclasses import dataclass
from time import perf_counter, perf_counter_ns

from histogram import Histogram
from scenario import Measured, Scenario
from system import System, insist_equal, worker


@dataclass(frozen=True)
class OneInFlight(Scenario):
    """Enqueues one job, waits for it and takes the time; then the next job."""

    jobs: int
    seconds: float = 60.0
    warmup: int = 200

    async def run(self, system: System, url: str) -> Measured:
        histogram = Histogram()
        async with worker(system, url), system.open(url) as client:
            start = perf_counter()
            for number in range(self.warmup):
                insist_equal(number, await client.value(await client.delay(number)))
                if perf_counter() - start > self.seconds / 4:  # a slow system is warm after fewer jobs
                    break
            end = perf_counter() + self.seconds
            for number in range(self.jobs):
                start_ns = perf_counter_ns()
                value = await client.value(await client.delay(number))
                histogram.record(perf_counter_ns() - start_ns)
                insist_equal(number, value)
                if perf_counter() > end:
                    break
        figures = {"closed.p50_ms": histogram.ms(0.5), "closed.p99_ms": histogram.ms(0.99)}
        return Measured(figures, {"closed": histogram})


@dataclass(frozen=True)
class BlockingCalls(Scenario):
    """Does the same from code without a loop, by the system's blocking calls."""

    jobs: int
    seconds: float
    warmup: int = 50

    async def run(self, system: System, url: str) -> Measured:
        async with worker(system, url):
            return await asyncio.to_thread(self._measure, system, url)

    def _measure(self, system: System, url: str) -> Measured:
        histogram = Histogram()
        with system.blocking(url) as client:
            for number in range(self.warmup):
                insist_equal(number, client.value(client.delay(number)))
            end = perf_counter() + self.seconds
            for number in range(self.jobs):
                start = perf_counter_ns()
                value = client.value(client.delay(number))
                histogram.record(perf_counter_ns() - start)
                insist_equal(number, value)
                if perf_counter() > end:
                    break
        figures = {"sync.p50_ms": histogram.ms(0.5), "sync.p99_ms": histogram.ms(0.99)}
        return Measured(figures, {"sync": histogram})
