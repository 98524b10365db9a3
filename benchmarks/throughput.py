"""Scenarios of throughput: draining a backlog, a hundred callers at once, and only enqueueing."""

import asyncio
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Any

import redis
from histogram import Histogram
from scenario import Measured, Scenario
from server import Usage
from system import CONCURRENCY, MISSING, Client, System, insist_equal, wait_until, worker, workers

MAP_SIZE = 1000
SAMPLE = 100  # so many results are read back and compared


@dataclass(frozen=True)
class Drain(Scenario):
    """Lets workers drain a backlog. A client has enqueued the backlog and closed before the first worker
    starts.

    A job counts when its result is stored. Where the step that stores a result also deletes the stream's
    entry, the clock runs from the first check that finds the streams shorter to the first that finds them
    empty. For other systems it runs from the first check that finds a stored result to the first that finds
    the results of all probes: every fiftieth job, and the last two hundred. Then every job must have its
    result; while one has not, the clock goes on. So the worker's start is not included, but the storing of
    every result is.

    The same run gives the server's cost of a job in batches: enqueue and drain together, without the checks
    of the streams.
    """

    jobs: int
    workers: int = 1

    async def run(self, system: System, url: str) -> Measured:
        jobs = max(MAP_SIZE, round(self.jobs * system.share / MAP_SIZE) * MAP_SIZE)
        name = "drain" if self.workers == 1 else f"drain{self.workers}"
        with redis.Redis.from_url(url) as observer:
            before = Usage.read(observer)
            async with system.open(url, CONCURRENCY) as client:
                ids = [handle.id for handle in await _backlog(client, jobs)]
            enqueue = Usage.read(observer).since(before)
            if system.empty_streams_mean_stored:
                rate, drain = await self._by_streams(system, url, observer, jobs)
                async with system.open(url) as client:
                    await self._insist_stored(client, ids)
            else:
                rate, drain = await self._by_results(system, url, observer, ids)
        async with system.open(url) as client:
            await self._insist_values(client, ids)
        figures = {f"{name}.jobs_per_s": round(rate)}
        if self.workers == 1:
            whole = enqueue.plus(drain)
            figures["batch.commands_per_job"] = round(whole.commands.total() / jobs, 2)
            figures["batch.server_us_per_job"] = round(whole.cpu / jobs * 1e6, 2)
        return Measured(figures, notes={"jobs": jobs, "commands": dict(drain.commands.most_common(12))})

    async def _by_streams(self, system: System, url: str, observer: Any, jobs: int) -> tuple[float, Usage]:
        streams = list(observer.scan_iter(count=10_000, _type="stream"))
        checks = 0

        def left() -> int:
            nonlocal checks
            checks += len(streams)
            return sum(observer.xlen(stream) for stream in streams)

        if left() != jobs:
            raise RuntimeError(f"{jobs} jobs were enqueued, but the streams hold {left()} entries")
        before, checks = Usage.read(observer), 0
        async with workers(system, url, self.workers):
            wait_until(lambda: left() < jobs, within=20, what="the worker has finished its first job")
            start, first = time.perf_counter(), left()
            # Each check costs the server some 30 us, which count as the jobs'. So there are only some
            # hundred.
            wait_until(lambda: left() == 0, within=75, what="the backlog is drained", every=0.005)
            elapsed = time.perf_counter() - start
            spent = Usage.read(observer).since(before)
        return first / elapsed, Usage(spent.commands - Counter(xlen=checks), spent.cpu)

    async def _by_results(
        self, system: System, url: str, observer: Any, ids: Sequence[str]
    ) -> tuple[float, Usage]:
        before = Usage.read(observer)
        async with system.open(url) as client, workers(system, url, self.workers):
            await _until_stored(client, ids[:1], within=30)
            found = await client.stored(ids[:500])
            start = time.perf_counter()
            # Some 5 % of the results are asked for while the worker runs: asking costs the server and a core.
            probes = [*ids[500:-200:50], *ids[-200:]]
            for first in range(0, len(probes), 20):
                await _until_stored(client, probes[first : first + 20], within=75)
            end = time.perf_counter()
            spent = Usage.read(observer).since(before)
            if await _not_stored(client, ids):
                await _until_stored(client, ids, within=75)
                end = time.perf_counter()
        return (len(ids) - found) / (end - start), spent

    async def _insist_stored(self, client: Client, ids: Sequence[str]) -> None:
        if missing := await _not_stored(client, ids):
            raise RuntimeError(f"the backlog is empty, but {missing} jobs have no stored result")

    async def _insist_values(self, client: Client, ids: Sequence[str]) -> None:
        for number in range(0, len(ids), max(1, len(ids) // SAMPLE)):
            value = await client.result(ids[number])
            if value is MISSING:
                raise RuntimeError(f"the backlog is empty, but job {ids[number]} has no stored result")
            insist_equal(number, value)


async def _backlog(client: Client, jobs: int) -> list[Any]:
    handles: list[Any] = []
    for first in range(0, jobs, MAP_SIZE):
        handles += await client.map(range(first, first + MAP_SIZE))
    return handles


async def _not_stored(client: Client, ids: Sequence[str]) -> int:
    stored = 0
    for first in range(0, len(ids), MAP_SIZE):
        stored += await client.stored(ids[first : first + MAP_SIZE])
    return len(ids) - stored


async def _until_stored(client: Client, ids: Sequence[str], *, within: float) -> None:
    deadline = time.monotonic() + within
    while missing := await _not_stored(client, ids):
        if time.monotonic() > deadline:
            raise TimeoutError(f"after {within:g} s, {missing} of {len(ids)} jobs have no stored result")
        await asyncio.sleep(0.005)


@dataclass(frozen=True)
class ManyInFlight(Scenario):
    """Runs a number of callers in one process. Each enqueues its next job when it has the value
    of the last.
    """

    jobs: int
    callers: int = 100
    seconds: float = 60.0

    async def run(self, system: System, url: str) -> Measured:
        histogram = Histogram()
        async with worker(system, url), system.open(url, self.callers) as client:
            await self._all(client, self.jobs // 10, self.seconds / 4, Histogram())
            start = time.perf_counter()
            await self._all(client, self.jobs, self.seconds, histogram)
            elapsed = time.perf_counter() - start
        figures = {
            "inflight100.jobs_per_s": round(histogram.count / elapsed),
            "inflight100.p50_ms": histogram.ms(0.5),
            "inflight100.p99_ms": histogram.ms(0.99),
        }
        return Measured(figures, {"inflight100": histogram})

    async def _all(self, client: Client, jobs: int, seconds: float, histogram: Histogram) -> None:
        end = time.perf_counter() + seconds

        async def caller(first: int) -> None:
            for number in range(first, jobs, self.callers):
                start = time.perf_counter_ns()
                value = await client.value(await client.delay(number))
                histogram.record(time.perf_counter_ns() - start)
                insist_equal(number, value)
                if time.perf_counter() > end:
                    break

        await asyncio.gather(*(caller(first) for first in range(self.callers)))


@dataclass(frozen=True)
class Enqueue(Scenario):
    """Enqueues without a worker: one job after the other, by a hundred callers at once, and in batches. Then
    a worker starts, and the first jobs must return their values.

    One after the other takes three times `seconds`: client and server wake each other for each job, so this
    figure depends most on where the machine runs them.
    """

    jobs: int
    callers: int = 100
    seconds: float = 60.0

    async def run(self, system: System, url: str) -> Measured:
        async with system.open(url) as client:
            first = [await client.delay(number) for number in range(20)]
            rate = await self._rate(_one_by_one(client), self.jobs, 3 * self.seconds)
            figures = {"enqueue.sequential_per_s": rate}
        async with system.open(url, self.callers) as client:

            async def at_once(deadline: float, most: int) -> int:
                callers = (_one_by_one(client)(deadline, most // self.callers) for _ in range(self.callers))
                return sum(await asyncio.gather(*callers))

            async def in_batches(deadline: float, most: int) -> int:
                size = MAP_SIZE if system.has_batch else MAP_SIZE // 10
                sent = 0
                while sent < most and time.perf_counter() < deadline:
                    sent += len(await client.map(range(size)))
                return sent

            figures["enqueue.concurrent_per_s"] = await self._rate(at_once, self.jobs, self.seconds)
            figures["enqueue.map_per_s"] = await self._rate(in_batches, self.jobs * 2, self.seconds)
        async with system.open(url) as client, worker(system, url):
            for number, handle in enumerate(first):
                await _until_stored(client, [handle.id], within=30)
                insist_equal(number, await client.result(handle.id))
        return Measured(figures, notes={"batches": "one call" if system.has_batch else "100 callers"})

    async def _rate(
        self, enqueue: Callable[[float, int], Awaitable[int]], most: int, seconds: float
    ) -> float:
        start = time.perf_counter()
        count = await enqueue(start + seconds, most)
        return round(count / (time.perf_counter() - start))


def _one_by_one(client: Client) -> Callable[[float, int], Awaitable[int]]:
    async def enqueue(deadline: float, most: int) -> int:
        sent = 0
        while sent < most and time.perf_counter() < deadline:
            await client.delay(sent)
            sent += 1
        return sent

    return enqueue
