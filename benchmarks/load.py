"""Open loop: jobs arrive at a mean rate, whether or not the system has answered the earlier ones.

Latency counts from the time when a job was *due*, not from when the generator sent it. A generator that
waits for a slow system and only then starts the clock leaves the worst seconds out of its figures
(coordinated omission). Here they are all included, and so are the jobs that were never answered.
"""

import asyncio
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass

from arrivals import arriving, poisson
from histogram import Histogram
from scenario import Measured, Scenario
from system import CONCURRENCY, Client, System, WrongValueError, insist_equal, worker

KEPT_UP_WITHIN = 0.5  # seconds after the last arrival in which the last value must be there


@dataclass(frozen=True)
class OpenLoop(Scenario):
    """Makes jobs arrive for some seconds, at Poisson times. An asyncio task for each enqueues it and waits
    for it.
    """

    rate: int
    seconds: float
    warmup: float = 1.0
    timeout: float = 15.0

    async def run(self, system: System, url: str) -> Measured:
        return await Ladder((self.rate,), self.seconds, self.warmup, self.timeout).run(system, url)

    async def phase(self, client: Client, seconds: float) -> tuple[Histogram, int, float]:
        """Makes jobs arrive for some seconds. Returns the latencies, the number of jobs never answered, and
        the seconds from the last arrival to the end.
        """
        histogram = Histogram()
        pending: dict[asyncio.Task[None], int] = {}
        failed: list[asyncio.Task[None]] = []
        count = max(1, int(self.rate * seconds))
        done = asyncio.Event()

        async def one(due: int) -> None:
            value = await client.value(await client.delay(due))
            histogram.record(time.monotonic_ns() - due)
            insist_equal(due, value)

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
        with arriving(poisson(self.rate, count), arrive) as last, suppress(TimeoutError):
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


@dataclass(frozen=True)
class Ladder(Scenario):
    """Raises the rate of an open loop step by step, with one worker, until the system does not keep up, or a
    call of it raises.

    Args:
        key: what the names of the figures begin with.
    """

    rates: Sequence[int]
    seconds: float
    warmup: float = 0.5
    timeout: float = 5.0
    key: str = "open"

    async def run(self, system: System, url: str) -> Measured:
        async with worker(system, url), system.open(url, CONCURRENCY) as client:
            return await self.climb(client)

    async def climb(self, client: Client) -> Measured:
        """Does it with a client that is open."""
        figures: dict[str, float] = {f"{self.key}.kept_up_per_s": 0.0}
        histograms: dict[str, Histogram] = {}
        notes: dict[str, dict[str, int | float | str]] = {}
        insist_equal(1, await client.value(await client.delay(1)))
        for rate in self.rates:
            name = f"{self.key}{rate}"
            step = OpenLoop(rate, self.seconds, self.warmup, self.timeout)
            try:
                await step.phase(client, self.warmup)
                histogram, unanswered, behind = await step.phase(client, self.seconds)
            except WrongValueError:
                raise
            except Exception as error:  # each system has its own way to break under load
                if rate == self.rates[0]:
                    raise
                figures[f"{name}.kept_up"] = 0.0
                notes[name] = {"error": f"{type(error).__name__}: {error}"}
                break
            kept_up = not unanswered and behind <= KEPT_UP_WITHIN
            figures[f"{name}.p50_ms"] = histogram.ms(0.5)
            figures[f"{name}.p99_ms"] = histogram.ms(0.99)
            figures[f"{name}.kept_up"] = float(kept_up)
            histograms[name] = histogram
            notes[name] = {"unanswered": unanswered, "behind_s": round(behind, 3)}
            if not kept_up:
                break
            figures[f"{self.key}.kept_up_per_s"] = float(rate)
        return Measured(figures, histograms, notes)
