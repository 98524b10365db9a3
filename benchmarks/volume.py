"""Scenarios of volume: a million jobs in the queue, and a hundred thousand that wait for their time."""

import asyncio
import time
from dataclasses import dataclass

import redis
from histogram import Histogram
from scenario import Measured, Scenario
from system import MISSING, Client, Skipped, System, insist_equal, wait_until, worker

BATCH = 1000


@dataclass(frozen=True)
class Queued(Scenario):
    """Enqueues a million jobs, and lets one worker drain them. Gives the server's memory for a waiting job,
    and the rate with the whole backlog behind it. A sample of the results is compared.
    """

    jobs: int
    ours = True
    once = True
    limit = 600.0

    async def run(self, system: System, url: str) -> Measured:
        with redis.Redis.from_url(url) as observer:
            empty = int(observer.info("memory")["used_memory"])
            ids: list[str] = []
            async with system.open(url) as client:
                start = time.perf_counter()
                for first in range(0, self.jobs, BATCH):
                    ids += [handle.id for handle in await client.map(range(first, first + BATCH))]
                enqueued = time.perf_counter() - start
            full = int(observer.info("memory")["used_memory"])
            streams = list(observer.scan_iter(count=100_000, _type="stream"))

            def left() -> int:
                return sum(observer.xlen(stream) for stream in streams)

            async with worker(system, url):
                wait_until(
                    lambda: left() < self.jobs, within=60, what="the worker has finished its first job"
                )
                start, first = time.perf_counter(), left()
                wait_until(lambda: left() == 0, within=400, what="the backlog is drained", every=0.05)
                drained = time.perf_counter() - start
        async with system.open(url) as client:
            for number in range(0, self.jobs, self.jobs // 100):
                value = await client.result(ids[number])
                if value is MISSING:
                    raise RuntimeError(f"job {number} of {self.jobs} has no stored result")
                insist_equal(number, value)
        return Measured(
            {
                "queued.enqueue_per_s": round(self.jobs / enqueued),
                "queued.bytes_per_job": round((full - empty) / self.jobs),
                "queued.drain_per_s": round(first / drained),
            }
        )


@dataclass(frozen=True)
class Delayed(Scenario):
    """Enqueues jobs that may start at one later time, while a worker runs. Gives how late they ran: from the
    time when they were due to the clock that they return.
    """

    jobs: int
    seconds: float
    ours = True
    once = True
    limit = 300.0

    async def run(self, system: System, url: str) -> Measured:
        if not system.has_delay:
            raise Skipped("no delayed jobs")
        late = Histogram()
        async with worker(system, url), system.open(url) as client:
            await client.value(await client.delay())
            due = time.monotonic() + self.seconds
            start = time.perf_counter()
            handles = []
            for _ in range(0, self.jobs, BATCH):
                handles += await client.delayed(BATCH, max(0.0, due - time.monotonic()))
            rate = self.jobs / (time.perf_counter() - start)
            if time.monotonic() > due:
                raise RuntimeError(f"{self.seconds:g} s were too short to enqueue {self.jobs} jobs")
            for first in range(0, self.jobs, BATCH):
                await asyncio.gather(
                    *(self._one(client, handle, due, late) for handle in handles[first : first + BATCH])
                )
        return Measured(
            {
                "delayed.enqueue_per_s": round(rate),
                "delayed.late_p50_ms": late.ms(0.5),
                "delayed.late_p99_ms": late.ms(0.99),
            },
            {"delayed": late},
        )

    async def _one(self, client: Client, handle: object, due: float, late: Histogram) -> None:
        ran = await client.value(handle)
        assert isinstance(ran, int)
        early = due * 1e9 - ran
        if early > 5e6:  # the delay is sent in whole milliseconds
            raise RuntimeError(f"a job ran {early / 1e6:.1f} ms before it was due")
        late.record(max(0, round(-early)))
