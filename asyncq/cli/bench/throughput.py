"""`asyncq bench throughput`: how many jobs go through in a second.

Two parts in each block: one worker drains a backlog, then 100 callers each enqueue a job and wait for it
(closed loop).
"""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from asyncq.cli.bench import IN_FLIGHT
from asyncq.cli.bench.figure import per_second
from asyncq.cli.bench.histogram import Histogram
from asyncq.cli.bench.latency import merged, percentiles
from asyncq.cli.bench.report import BenchReport, quantiles, summary
from asyncq.cli.exits import CliError
from asyncq.errors import AsyncQError

if TYPE_CHECKING:
    from asyncq.cli.bench.environment import BenchEnvironment


@dataclass(frozen=True, slots=True)
class ThroughputPlan:
    """A backlog drained by one worker, then a closed loop of many callers, in several blocks."""

    command: ClassVar[str] = "throughput"
    jobs: int
    payload: int
    blocks: int

    @property
    def title(self) -> str:
        """The plan in one line."""
        return f"{self.jobs:,} jobs, payload {self.payload} B"

    @property
    def parameters(self) -> dict[str, Any]:
        """What must be the same in two measurements that are compared."""
        return {"jobs": self.jobs, "payload": self.payload, "in_flight": IN_FLIGHT}

    async def run(self, environment: BenchEnvironment) -> BenchReport:
        """Runs both parts in each block. The drain comes first: the bench's own worker finds a backlog when
        it starts. With workers that run already there is no drain, for they would leave no backlog.
        """
        payload = "x" * self.payload
        enqueued, drained, closed, times = [], [], [], []
        for _ in range(self.blocks):
            if environment.own_worker:
                enqueued.append(await self._enqueue(environment, payload))
            async with environment.worker():
                if environment.own_worker:
                    drained.append(await self._drain(environment))
                times.append(Histogram())
                closed.append(await self._closed(environment, payload, times[-1]))
        report = BenchReport(self.parameters)
        if environment.own_worker:
            report.add(per_second("enqueue_per_s", "enqueue in batches", enqueued))
            report.add(per_second("drain_per_s", "drain of a backlog", drained))
        report.add(per_second("in_flight_per_s", f"{IN_FLIGHT} in flight", closed))
        report.lines.append(quantiles("one of these", merged(times)))
        report.tree["in_flight_times"] = summary(merged(times))
        report.figures += percentiles("in_flight", f"{IN_FLIGHT} in flight", times)
        return report

    async def _enqueue(self, environment: BenchEnvironment, payload: str) -> float:
        began = time.perf_counter()
        for size in _chunks(self.jobs, 1000):
            await environment.noop.map([(payload,)] * size)
        return self.jobs / (time.perf_counter() - began)

    async def _drain(self, environment: BenchEnvironment) -> float:
        """Returns jobs per second, from the first poll that finds the worker at work to the empty queue.

        A job leaves the queue in the step that stores its result, so the queue's length is the number of jobs
        without a result. A poll costs the server 1 us.
        """
        broker = environment.app.sessions.current().broker
        queue, send = environment.app.settings.default_queue, broker.commands.send
        end = time.monotonic() + 60.0
        first, began = 0, 0.0
        while left := sum(
            await asyncio.gather(*(send(keys, "XLEN", keys.stream(queue)) for keys in broker.shards))
        ):
            if not began and left < self.jobs:
                first, began = left, time.perf_counter()
            if time.monotonic() > end:
                raise CliError(f"{left:,} of {self.jobs:,} jobs were not done within 60 s")
            await asyncio.sleep(0.002)
        if not began:
            raise CliError(
                "the backlog was empty before the measurement began", "use more --jobs, and no other worker"
            )
        return first / (time.perf_counter() - began)

    async def _closed(self, environment: BenchEnvironment, payload: str, times: Histogram) -> float:
        """Returns jobs per second for callers that enqueue a job when they have the value of the last."""

        async def caller(jobs: int) -> None:
            for _ in range(jobs):
                start = time.perf_counter_ns()
                await environment.noop.call(payload)
                times.record(time.perf_counter_ns() - start)

        each = self.jobs // IN_FLIGHT
        began = time.perf_counter()
        try:
            async with asyncio.TaskGroup() as group:
                for _ in range(IN_FLIGHT):
                    group.create_task(caller(each))
        except* AsyncQError as errors:
            raise errors.exceptions[0] from None
        return times.count / (time.perf_counter() - began)


def _chunks(total: int, most: int) -> list[int]:
    return [most] * (total // most) + [total % most] * bool(total % most)
