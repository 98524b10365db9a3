"""Scenarios of throughput: draining a backlog, a hundred callers at once, and only enqueueing."""

import asyncio
import time
from collections import Counter
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any

import redis
from scenario import Measured, Scenario
from server import Usage
from system import Client, System, wait_until, worker

from asyncq.cli.bench.histogram import Histogram

MAP_SIZE = 1000


@dataclass(frozen=True)
class Drain(Scenario):
    """Lets one worker drain a backlog. A client has enqueued the backlog and closed before the worker starts.

    The clock runs from the first check that finds the stream shorter to the first that finds it empty. (Every
    system here deletes an entry in the step that stores its result.) So the worker's start is not included.
    The same run gives the server's cost of a job in batches: enqueue and drain together, without the checks.
    """

    jobs: int

    async def run(self, system: System, url: str) -> Measured:
        with redis.Redis.from_url(url) as observer:
            before = Usage.read(observer)
            async with system.open(url) as client:
                ids = [
                    handle.id for _ in range(0, self.jobs, MAP_SIZE) for handle in await client.map(MAP_SIZE)
                ]
            enqueue = Usage.read(observer).since(before)
            rate, drain = await self._drain(system, url, observer)
        async with system.open(url) as client:
            for job_id in ids[:: max(1, len(ids) // 100)]:
                if not await client.stored(job_id):
                    raise RuntimeError(f"the backlog is empty, but job {job_id} has no stored result")
        whole = enqueue.plus(drain)
        figures = {
            "drain.jobs_per_s": round(rate),
            "batch.commands_per_job": round(whole.commands.total() / self.jobs, 2),
            "batch.server_us_per_job": round(whole.cpu / self.jobs * 1e6, 2),
        }
        return Measured(figures, notes={"commands": dict(whole.commands.most_common(12))})

    async def _drain(self, system: System, url: str, observer: Any) -> tuple[float, Usage]:
        streams = list(observer.scan_iter(count=10_000, _type="stream"))
        checks = 0

        def left() -> int:
            nonlocal checks
            checks += len(streams)
            return sum(observer.xlen(stream) for stream in streams)

        if left() != self.jobs:
            raise RuntimeError(f"{self.jobs} jobs were enqueued, but the streams hold {left()} entries")
        before, checks = Usage.read(observer), 0
        async with worker(system, url):
            wait_until(lambda: left() < self.jobs, within=20, what="the worker has finished its first job")
            start, first = time.perf_counter(), left()
            # Each check costs the server some 30 us, which count as the jobs'. So there are only some
            # hundred.
            wait_until(lambda: left() == 0, within=60, what="the backlog is drained", every=0.005)
            elapsed = time.perf_counter() - start
            spent = Usage.read(observer).since(before)
        return first / elapsed, Usage(spent.commands - Counter(xlen=checks), spent.cpu)


@dataclass(frozen=True)
class ManyInFlight(Scenario):
    """Runs a number of callers in one process. Each enqueues its next job when it has the value
    of the last.
    """

    jobs: int
    callers: int = 100

    async def run(self, system: System, url: str) -> Measured:
        histogram = Histogram()
        async with worker(system, url), system.open(url) as client:
            await self._all(client, self.jobs // 10, Histogram())
            start = time.perf_counter()
            await self._all(client, self.jobs, histogram)
            elapsed = time.perf_counter() - start
        figures = {
            "inflight100.jobs_per_s": round(self.jobs / elapsed),
            "inflight100.p99_ms": histogram.ms(0.99),
        }
        return Measured(figures, {"inflight100": histogram})

    async def _all(self, client: Client, jobs: int, histogram: Histogram) -> None:
        async def caller() -> None:
            for _ in range(jobs // self.callers):
                start = time.perf_counter_ns()
                await client.value(await client.delay())
                histogram.record(time.perf_counter_ns() - start)

        await asyncio.gather(*(caller() for _ in range(self.callers)))


@dataclass(frozen=True)
class Enqueue(Scenario):
    """Enqueues without a worker: one job after the other, by a hundred callers at once, and in batches."""

    jobs: int
    callers: int = 100

    async def run(self, system: System, url: str) -> Measured:
        async with system.open(url) as client:

            async def one_by_one(count: int) -> None:
                for _ in range(count):
                    await client.delay()

            async def at_once(count: int) -> None:
                await asyncio.gather(*(one_by_one(count // self.callers) for _ in range(self.callers)))

            async def in_batches(count: int) -> None:
                for _ in range(count // MAP_SIZE):
                    await client.map(MAP_SIZE)

            await one_by_one(200)
            figures = {
                "enqueue.sequential_per_s": await _rate(one_by_one, self.jobs // 4),
                "enqueue.concurrent_per_s": await _rate(at_once, self.jobs),
                "enqueue.map_per_s": await _rate(in_batches, self.jobs * 2),
            }
        return Measured(figures)


async def _rate(enqueue: Callable[[int], Awaitable[None]], count: int) -> float:
    start = time.perf_counter()
    await enqueue(count)
    return round(count / (time.perf_counter() - start))
