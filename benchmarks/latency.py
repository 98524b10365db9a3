"""Closed loop: measures how long one caller waits from `delay` to the value. There is no other load."""

from dataclasses import dataclass
from time import perf_counter_ns

from scenario import Measured, Scenario
from system import System, worker

from asyncq.cli.bench.histogram import Histogram


@dataclass(frozen=True)
class OneInFlight(Scenario):
    """Enqueues one job, waits for it and takes the time; then the next job."""

    jobs: int
    warmup: int = 200

    async def run(self, system: System, url: str) -> Measured:
        histogram = Histogram()
        async with worker(system, url), system.open(url) as client:
            for _ in range(self.warmup):
                await client.value(await client.delay())
            for _ in range(self.jobs):
                start = perf_counter_ns()
                await client.value(await client.delay())
                histogram.record(perf_counter_ns() - start)
        figures = {"closed.p50_ms": histogram.ms(0.5), "closed.p99_ms": histogram.ms(0.99)}
        return Measured(figures, {"closed": histogram})
