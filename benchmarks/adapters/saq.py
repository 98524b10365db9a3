"""saq on Redis: 100 jobs at once, results kept an hour, ORJSON, 100 operations at once (the default is 20),
three tries, uvloop, hiredis, no logs. The client waits by saq's own subscription (`Job.refresh` with
`until_complete`), half a second at a time, because a job that ends before the subscription is there is not
told of. It has no call for batches, so a hundred callers enqueue.
"""

import os
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress
from typing import Any

import bodies
import orjson
from saq import Queue, Status, Worker
from system import CONCURRENCY, MISSING, Held, System, by_callers

URL = os.environ.get("BENCH_URL", "redis://127.0.0.1:6379/0")
KILL = "BENCH_KILL" in os.environ
OPTIONS: dict[str, Any] = {"retries": 3, "ttl": 3600, **({"heartbeat": 2} if KILL else {})}

queue = Queue.from_url(
    f"{URL}?max_connections=1200", dump=orjson.dumps, load=orjson.loads, max_concurrent_ops=CONCURRENCY
)


async def echo(_context: Any, *, value: Any) -> Any:
    return await bodies.echo(value)


async def clock(_context: Any, *, value: Any) -> int:
    return await bodies.clock(value)


async def nap(_context: Any, *, value: int) -> int:
    return await bodies.nap(value)


async def work() -> None:
    """Runs a worker until it is stopped."""
    timers: Any = {"sweep": 2, "schedule": 1} if KILL else {}
    await Worker(queue, [echo, clock, nap], concurrency=CONCURRENCY, timers=timers).start()


class Client:
    """saq's queue."""

    async def delay(self, value: Any = 0, task: str = "echo") -> Any:
        job = await queue.enqueue(task, value=value, **OPTIONS)
        return Held(job.key, job)

    async def value(self, handle: Any) -> object:
        while not handle.job.completed:
            with suppress(TimeoutError):
                await handle.job.refresh(until_complete=0.5)
        return handle.job.result

    async def map(self, values: Sequence[Any], task: str = "echo") -> list[Any]:
        return await by_callers(lambda value: self.delay(value, task), values)

    async def result(self, job_id: str) -> object:
        job = await queue.job(job_id)
        return job.result if job is not None and job.status == Status.COMPLETE else MISSING

    async def stored(self, job_ids: Sequence[str]) -> int:
        jobs = await queue.jobs(job_ids)
        return sum(job is not None and job.status == Status.COMPLETE for job in jobs)


class Saq(System):
    """saq with its worker's settings."""

    name = "saq"
    promise = "at least once: a job without a heartbeat is swept, and queued again while it has retries"
    recovery = "heartbeat=2, sweep every 2 s (default: none, a minute); up to 5 s for each job in turn"
    packages = ("saq",)

    @asynccontextmanager
    async def open(self, url: str, callers: int = 1) -> AsyncIterator[Client]:  # noqa: ARG002
        await queue.connect()
        yield Client()


SYSTEM = Saq()
