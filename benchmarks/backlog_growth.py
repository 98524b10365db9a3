"""Scenarios of growth: what the next job costs when many jobs are queued, or wait for their time."""

import itertools
import statistics
import time
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import Any, ClassVar

import redis
import server
from curves import curve, growth, medians, paired_growth
from scenario import Measured, Scenario
from server import Usage, empty
from system import MISSING, Skipped, System, insist_equal, wait_until, worker
from volume import Delayed

BATCH = 1000
SAMPLED = 100
"""The id of every so manieth job is kept, and its value compared."""
SMALL, LARGE = "x" * 20, "x" * 200
"""The payloads of which the server's memory is measured."""
FAR = 3600.0
"""Seconds: jobs with this delay are not due while they are measured."""


@dataclass
class _Costs:
    """What the jobs of some pieces cost, by the number of jobs that were there before.

    Attributes:
        wall: microseconds of time per job.
        server: microseconds of the server's CPU per job.
    """

    wall: dict[int, list[float]] = field(default_factory=dict)
    server: dict[int, list[float]] = field(default_factory=dict)

    def add(self, size: int, jobs: int, seconds: float, cpu: float) -> None:
        self.wall.setdefault(size, []).append(seconds / jobs * 1e6)
        self.server.setdefault(size, []).append(cpu / jobs * 1e6)

    def curves(self, key: str, what: str, x: str) -> list[dict[str, Any]]:
        return [
            curve(f"{key}_us", f"{what}: time", x, "us per job", medians(self.wall)),
            curve(f"{key}_server_us", f"{what}: CPU of the server", x, "us per job", medians(self.server)),
        ]

    def beside(self, base: "_Costs") -> "_Costs":
        """Returns these costs, and all of an empty queue as those of size 0."""
        return _Costs(
            {0: [*itertools.chain(*base.wall.values())], **self.wall},
            {0: [*itertools.chain(*base.server.values())], **self.server},
        )

    def growth(self, key: str, base: "_Costs", size: int) -> dict[str, float]:
        """Returns how many times as much a job costs at a size as at one that was measured beside it."""
        return {
            f"{key}_x": paired_growth(base.wall[size], self.wall[size]),
            f"{key}_server_x": paired_growth(base.server[size], self.server[size]),
        }


class _Backlog:
    """The queued jobs of one system. Keeps the ids of some, whose values are compared when they have run."""

    def __init__(self, system: System, url: str, observer: redis.Redis) -> None:
        self.system = system
        self.url = url
        self.observer = observer
        self.enqueued = 0
        self._streams: list[Any] = []
        self._sample: list[tuple[int, str]] = []

    def left(self) -> int:
        """Returns how many jobs have not ended."""
        return sum(int(self.observer.xlen(stream)) for stream in self._streams)

    async def add(self, jobs: int, payload: str = LARGE) -> float:
        """Enqueues jobs in batches, and returns how long that took. A new client does it, so that what a
        client keeps for each of its jobs does not grow.
        """
        took = 0.0
        async with self.system.open(self.url) as client:
            for first in range(0, jobs, BATCH):
                values = [payload] * min(BATCH, jobs - first)
                start = time.perf_counter()
                handles = await client.map(values)
                took += time.perf_counter() - start
                for number in range(-self.enqueued % SAMPLED, len(handles), SAMPLED):
                    self._sample.append((self.enqueued + number, handles[number].id))
                self.enqueued += len(handles)
        if not self._streams:  # now, because a million keys take long to scan
            self._streams = list(self.observer.scan_iter(count=10_000, _type="stream"))
        return took

    async def fill(self, size: int) -> None:
        """Enqueues what is missing from so many queued jobs."""
        while (missing := size - self.left()) > 0:
            await self.add(min(missing, 50 * BATCH))

    async def insist_values(self) -> None:
        """Compares the values of those of the sample that have ended. Jobs start in order, so the first half
        of as many as have ended has ended.
        """
        ended = (self.enqueued - self.left()) // 2
        async with self.system.open(self.url) as client:
            for number, job_id in self._sample:
                if number < ended:
                    value = await client.result(job_id)
                    if value is MISSING and not self.system.hands_back:
                        continue  # it was lost with one of the workers that were stopped
                    if value is MISSING:
                        raise RuntimeError(f"job {number} of {ended} has no stored result")
                    insist_equal(LARGE, value)


@dataclass(frozen=True)
class QueueGrowth(Scenario):
    """Measures what it costs to enqueue a job and to claim one while so many others are queued, and the
    server's memory for a queued job.

    The system itself fills the queue, in batches. For each size, `times` times: a piece is enqueued in
    batches behind the queued jobs; then a worker starts and takes as many from the front, while the rest
    stays. To claim means here: from the claim to the stored result. The worker's start is not included, and
    neither are the first thousand jobs.

    Before each of these measurements, the same is measured with an empty queue, on a second server. So other
    load of the machine affects both, and each ratio is of two measurements that follow each other. The
    figures are the median ratios at the largest size. That a job costs more there is mostly due to the memory
    of the server: what does not fit into the processor's cache is slower to read, for the floor, too.

    Args:
        sizes: of the queue, the smallest first.
        piece: how many jobs are enqueued and claimed for each measurement.
        times: how often each is measured; three times as often at the largest size, because its ratios are
            the figures.
    """

    sizes: Sequence[int]
    piece: int
    times: int
    ours = True
    once = True
    limit = 300.0
    environment: ClassVar[Mapping[str, str]] = {"ASYNCQ_MAX_LENGTH": "2000000"}  # the default is a million

    async def run(self, system: System, url: str) -> Measured:
        enqueue, claim, enqueue_empty, claim_empty = _Costs(), _Costs(), _Costs(), _Costs()
        bytes_each: list[tuple[int, float]] = []
        with ExitStack() as stack:
            observer = stack.enter_context(redis.Redis.from_url(url))
            small = await self._bytes_of(SMALL, self.sizes[-1] // 10, system, url, observer)
            backlog = _Backlog(system, url, observer)
            await backlog.add(BATCH // 10)
            url = stack.enter_context(server.running())
            unfilled = _Backlog(system, url, stack.enter_context(redis.Redis.from_url(url)))
            for size in self.sizes:
                before, there = _memory(observer), backlog.left()
                await backlog.fill(size)
                bytes_each.append((size, round((_memory(observer) - before) / (size - there), 1)))
                for _ in range(self.times * (1 if size < self.sizes[-1] else 3)):
                    await self._enqueue(unfilled, size, enqueue_empty)
                    await self._claim(unfilled, size, claim_empty)
                    await backlog.fill(size)
                    await self._enqueue(backlog, size, enqueue)
                    await self._claim(backlog, size, claim)
            await backlog.insist_values()
        x, last = "jobs in the queue", self.sizes[-1]
        figures = {
            **enqueue.growth("grow_queued.enqueue", enqueue_empty, last),
            **claim.growth("grow_queued.claim", claim_empty, last),
            f"grow_queued.bytes_{len(LARGE)}": bytes_each[-1][1],
            f"grow_queued.bytes_{len(SMALL)}": small,
        }
        title = f"memory of the server for a job with {len(LARGE)} bytes"
        return Measured(
            figures,
            curves=[
                *enqueue.beside(enqueue_empty).curves(
                    "grow_queued.enqueue", "to enqueue a job, in batches", x
                ),
                *claim.beside(claim_empty).curves("grow_queued.claim", "to claim a job, run and end it", x),
                curve("grow_queued.bytes", title, x, "bytes per job", bytes_each),
            ],
        )

    async def _bytes_of(
        self, payload: str, jobs: int, system: System, url: str, observer: redis.Redis
    ) -> float:
        """Returns the server's memory for each of some jobs, and removes them."""
        backlog = _Backlog(system, url, observer)
        await backlog.add(BATCH, payload)
        before = _memory(observer)
        await backlog.add(jobs, payload)
        found = (_memory(observer) - before) / jobs
        empty(observer)
        return round(found, 1)

    async def _enqueue(self, backlog: _Backlog, size: int, costs: _Costs) -> None:
        before = Usage.read(backlog.observer)
        took = await backlog.add(self.piece)
        costs.add(size, self.piece, took, Usage.read(backlog.observer).since(before).cpu)

    async def _claim(self, backlog: _Backlog, size: int, costs: _Costs) -> None:
        """Measures from the moment when the worker has ended some of the piece until most of it has ended."""
        observer, left = backlog.observer, backlog.left
        margin = min(BATCH, self.piece // 10)
        begin, end = left() - margin, left() - self.piece + margin // 2
        async with worker(backlog.system, backlog.url):
            wait_until(lambda: left() <= begin, within=60, what="the worker has ended its first jobs")
            before, start, first = Usage.read(observer), time.perf_counter(), left()
            wait_until(lambda: left() <= end, within=60, what="the worker has ended the piece")
            jobs, seconds = first - left(), time.perf_counter() - start
            costs.add(size, jobs, seconds, Usage.read(observer).since(before).cpu)


@dataclass(frozen=True)
class DelayGrowth(Scenario):
    """Measures what it costs to enqueue a delayed job while so many others wait for their time, and how late
    jobs run if so many are due at one time.

    The first part has no worker, and jobs with a delay of an hour. The second is `Delayed` for each size.

    Args:
        sizes: how many jobs are delayed already.
        piece: how many jobs are enqueued for each measurement.
        times: how often each is measured.
        due: how many jobs are due at one time.
        lead: seconds from the last enqueue to that time, at least.
    """

    sizes: Sequence[int]
    piece: int
    times: int
    due: Sequence[int]
    lead: float = 1.5
    ours = True
    once = True
    limit = 180.0

    async def run(self, system: System, url: str) -> Measured:
        if not system.has_delay:
            raise Skipped("no delayed jobs")
        costs, late = _Costs(), {}
        with redis.Redis.from_url(url) as observer:
            for size in self.sizes:
                empty(observer)
                async with system.open(url) as client:
                    await client.delayed(1, FAR)
                    for _ in range(0, size, BATCH):
                        await client.delayed(BATCH, FAR)
                for _ in range(self.times):
                    await self._enqueue(system, url, observer, size, costs)
            each = statistics.median(costs.wall[self.sizes[-1]]) / 1e6
            for count in self.due:
                empty(observer)
                # While a worker runs, too, to enqueue takes somewhat longer than it took without one.
                late[count] = await Delayed(count, self.lead + 2 * each * count).run(system, url)
        return self._measured(costs, late)

    async def _enqueue(
        self, system: System, url: str, observer: redis.Redis, size: int, costs: _Costs
    ) -> None:
        async with system.open(url) as client:
            await client.delayed(1, FAR)
            before, start = Usage.read(observer), time.perf_counter()
            for _ in range(0, self.piece, BATCH):
                await client.delayed(BATCH, FAR)
            took = time.perf_counter() - start
            costs.add(size, self.piece, took, Usage.read(observer).since(before).cpu)

    def _measured(self, costs: _Costs, late: Mapping[int, Measured]) -> Measured:
        curves = costs.curves(
            "grow_delayed.enqueue", "to enqueue a delayed job, in batches", "jobs delayed already"
        )
        for percent in ("p50", "p99"):
            points = [(count, run.figures[f"delayed.late_{percent}_ms"]) for count, run in late.items()]
            title = f"how late delayed jobs run, {percent}"
            curves.append(
                curve(f"grow_delayed.late_{percent}", title, "jobs that are due at one time", "ms", points)
            )
        largest = late[self.due[-1]]
        figures = {
            "grow_delayed.enqueue_x": growth(medians(costs.wall)),
            "grow_delayed.enqueue_server_x": growth(medians(costs.server)),
            "grow_delayed.late_p50_ms": largest.figures["delayed.late_p50_ms"],
            "grow_delayed.late_p99_ms": largest.figures["delayed.late_p99_ms"],
        }
        return Measured(figures, {"grow_delayed": largest.histograms["delayed"]}, curves=curves)


def _memory(observer: redis.Redis) -> int:
    """Returns the server's memory in use, once it has freed what was deleted before."""

    def is_freed() -> bool:
        memory: dict[str, Any] = observer.info("memory")
        return int(memory["lazyfree_pending_objects"]) == 0

    wait_until(is_freed, within=30, what="the server has freed what was deleted")
    memory: dict[str, Any] = observer.info("memory")
    return int(memory["used_memory"])
