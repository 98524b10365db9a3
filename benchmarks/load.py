"""Open loop: jobs arrive at a fixed rate, whether or not the system has answered the earlier ones.

Latency counts from the time when a job was *due*, not from when the generator sent it. A generator that
waits for a slow system and only then starts the clock leaves the worst seconds out of its figures
(coordinated omission). Here they are all included, and so are the jobs that were never answered.
"""

import asyncio
import time
from contextlib import suppress
from dataclasses import dataclass

from scenario import Measured, Scenario
from system import Client, System, worker

from asyncq.cli.bench.histogram import Histogram
from asyncq.cli.bench.load_generator import generate_load

KEPT_UP_WITHIN = 0.5  # seconds after the last arrival in which the last value must be there


@dataclass(frozen=True)
class OpenLoop(Scenario):
    """Makes jobs arrive at a fixed rate for some seconds. An asyncio task for each enqueues it and waits for
    it.
    """

    rate: int
    seconds: float
    warmup: float = 1.0
    timeout: float = 15.0

    async def run(self, system: System, url: str) -> Measured:
        async with worker(system, url), system.open(url) as client:
            await client.value(await client.delay())
            await self.phase(client, self.warmup)
            histogram, unanswered, behind = await self.phase(client, self.seconds)
        figures = {
            "open.p50_ms": histogram.ms(0.5),
            "open.p99_ms": histogram.ms(0.99),
            "open.kept_up": float(not unanswered and behind <= KEPT_UP_WITHIN),
        }
        return Measured(
            figures, {"open": histogram}, {"unanswered": unanswered, "behind_s": round(behind, 3)}
        )

    async def phase(self, client: Client, seconds: float) -> tuple[Histogram, int, float]:
        """Makes jobs arrive for some seconds. Returns the latencies, the number of jobs never answered, and
        the seconds from the last arrival to the end.
        """
        histogram = Histogram()
        pending: dict[asyncio.Task[None], int] = {}
        failed: list[asyncio.Task[None]] = []
        count = int(self.rate * seconds)
        done = asyncio.Event()

        async def one(due: int) -> None:
            await client.value(await client.delay())
            histogram.record(time.monotonic_ns() - due)

        def arrive(due: int) -> None:
            task = asyncio.create_task(one(due))
            pending[task] = due
            task.add_done_callback(ended)

        def ended(task: asyncio.Task[None]) -> None:
            del pending[task]
            if not task.cancelled() and task.exception():
                failed.append(task)
            if failed or histogram.count == count:
                done.set()

        # Jobs that are unanswered when the timeout is over are counted below.
        with generate_load(self.rate, count, arrive) as last, suppress(TimeoutError):
            await asyncio.wait_for(done.wait(), (last - time.monotonic_ns()) / 1e9 + self.timeout)
        behind = (time.monotonic_ns() - last) / 1e9
        unanswered = dict(pending)
        for task in unanswered:
            task.cancel()
        await asyncio.gather(*unanswered, return_exceptions=True)
        for task in failed:
            task.result()  # a job that failed fails the run
        for due in unanswered.values():
            histogram.record(time.monotonic_ns() - due)
        return histogram, len(unanswered), behind
