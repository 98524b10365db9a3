"""`asyncq bench latency`: how long a job takes, at a fixed rate of arrivals (open loop).

Jobs arrive whether or not earlier ones have ended. Each is timed from the time at which it was due, so a slow
system cannot hide its delays.
"""

from __future__ import annotations

import asyncio
import time
from contextlib import suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar

from asyncq.cli.bench.figure import Figure
from asyncq.cli.bench.histogram import Histogram
from asyncq.cli.bench.load_generator import generate_load
from asyncq.cli.bench.report import BenchReport, bars, quantiles, summary
from asyncq.config import shown
from asyncq.errors import ResultTimeout

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from asyncq.cli.bench.environment import BenchEnvironment
    from asyncq.tasks.task import Task

_LAST_RESULT_TIMEOUT = 15.0
"""How many seconds a job may take to be answered. After that it counts as lost."""


@dataclass(frozen=True, slots=True)
class LatencyPlan:
    """Arrivals at a fixed rate, in an open loop, in several blocks. Each block has a new worker."""

    command: ClassVar[str] = "latency"
    rate: int
    seconds: float
    warmup: float
    payload: int
    blocks: int

    @property
    def title(self) -> str:
        """The plan in one line."""
        times = f"{shown(self.seconds)} in {self.blocks} blocks, {shown(self.warmup)} warm-up each"
        return f"open loop, {self.rate}/s for {times}, payload {self.payload} B"

    @property
    def parameters(self) -> dict[str, Any]:
        """What must be the same in two measurements that are compared."""
        return {"rate": self.rate, "payload": self.payload}

    async def run(self, environment: BenchEnvironment) -> BenchReport:
        """Runs all blocks, each after its warm-up."""
        payload = "x" * self.payload
        measured = []
        for count in shares(int(self.rate * self.seconds), self.blocks):
            async with environment.worker():
                await OpenLoop(environment.noop, payload, self.rate, int(self.rate * self.warmup)).run()
                block = OpenLoop(environment.noop, payload, self.rate, count)
                await block.run()
            measured.append(block)
        enqueued = merged(block.enqueued for block in measured)
        answered = merged(block.answered for block in measured)
        count, lost = sum(block.count for block in measured), sum(block.lost for block in measured)
        return BenchReport(
            self.parameters,
            [
                quantiles("enqueue", enqueued),
                quantiles("enqueue -> result", answered),
                f"  {bars(answered)}",
                f"  {count:,} sent, {answered.count:,} done, {lost:,} lost",
            ],
            {
                "seconds": self.seconds,
                "lost": lost,
                "enqueue": summary(enqueued),
                "result": summary(answered),
            },
            [
                *percentiles("enqueue", "enqueue", [block.enqueued for block in measured]),
                *percentiles("result", "enqueue -> result", [block.answered for block in measured]),
            ],
            failed=bool(lost),
        )


def shares(total: int, blocks: int) -> list[int]:
    """Divides jobs into blocks that differ by one job at most. No block is empty.

    >>> shares(10, 4)
    [3, 3, 2, 2]
    """
    blocks = min(total, blocks)
    return [total // blocks + (number < total % blocks) for number in range(blocks)]


def merged(histograms: Iterable[Histogram]) -> Histogram:
    """Returns one histogram with all records."""
    whole = Histogram()
    for each in histograms:
        whole.merge(each)
    return whole


def percentiles(key: str, title: str, blocks: Sequence[Histogram]) -> list[Figure]:
    """Returns the median and the 99th percentile in each block. A block without answers has none."""
    held = [block for block in blocks if block.count]
    if not held:
        return []
    return [
        Figure(f"{key}_{name}_ms", f"{title}, {name}", "ms", False, tuple(block.ms(q) for block in held))
        for name, q in (("p50", 0.5), ("p99", 0.99))
    ]


@dataclass(slots=True)
class OpenLoop:
    """One run of arrivals. Each arrival is a task that enqueues a job and waits for it."""

    noop: Task[..., None]
    payload: str
    rate: int
    count: int
    enqueued: Histogram = field(default_factory=Histogram)
    answered: Histogram = field(default_factory=Histogram)
    lost: int = 0

    async def run(self) -> None:
        """Makes all arrivals and fills the histograms. A job without an answer in time counts only as lost.

        Raises:
            Exception: the error of the first job that failed.
        """
        pending: set[asyncio.Task[None]] = set()
        failed: list[asyncio.Task[None]] = []
        all_ended = asyncio.Event()
        if not self.count:
            return

        def arrive(due: int) -> None:
            task = asyncio.create_task(self._one(due))
            pending.add(task)
            task.add_done_callback(ended)

        def ended(task: asyncio.Task[None]) -> None:
            pending.discard(task)
            if not task.cancelled() and task.exception() is not None:
                failed.append(task)
            if failed or self.answered.count + self.lost == self.count:
                all_ended.set()

        with generate_load(self.rate, self.count, arrive) as last, suppress(TimeoutError):
            async with asyncio.timeout((last - time.monotonic_ns()) / 1e9 + 2 * _LAST_RESULT_TIMEOUT):
                await all_ended.wait()
        unanswered = list(pending)
        for task in unanswered:
            task.cancel()
        await asyncio.gather(*unanswered, return_exceptions=True)
        for task in failed:
            task.result()
        self.lost = self.count - self.answered.count

    async def _one(self, due: int) -> None:
        result = await self.noop.delay(self.payload)
        self.enqueued.record(time.monotonic_ns() - due)
        try:
            await result.get(timeout=_LAST_RESULT_TIMEOUT)
        except ResultTimeout:
            self.lost += 1
        else:
            self.answered.record(time.monotonic_ns() - due)
