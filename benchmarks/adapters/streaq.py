"""streaQ: 100 tasks at once, results kept an hour, uvloop, no logs. The client waits by `Task.result`, and
enqueues batches by `enqueue_many`. Each wait has a connection, so the pool may grow to 1,200 (the default is
64).
"""

import os
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any

import bodies
from streaq import TaskStatus, Worker
from system import CONCURRENCY, MISSING, System, by_callers

URL = os.environ.get("BENCH_URL", "redis://127.0.0.1:6379/0")
IDLE = 2 if "BENCH_KILL" in os.environ else 60

worker = Worker(
    redis_url=URL, concurrency=CONCURRENCY, idle_timeout=IDLE, redis_kwargs={"max_connections": 1_200}
)
work = worker.run_async
TASKS = {name: worker.task(ttl=3600, name=name, silent=True)(getattr(bodies, name)) for name in bodies.NAMES}


class Client:
    """streaQ's own calls."""

    async def delay(self, value: Any = 0, task: str = "echo") -> Any:
        return await TASKS[task].enqueue(value)

    async def value(self, handle: Any) -> object:
        return (await handle.result()).result

    async def map(self, values: Sequence[Any], task: str = "echo") -> Sequence[Any]:
        jobs = [TASKS[task].enqueue(value) for value in values]
        await worker.enqueue_many(jobs)
        return jobs

    async def result(self, job_id: str) -> object:
        if await worker.status_by_id(job_id) != TaskStatus.DONE:
            return MISSING
        return (await worker.result_by_id(job_id)).result

    async def stored(self, job_ids: Sequence[str]) -> int:
        states = await by_callers(worker.status_by_id, job_ids, 20)
        return sum(state == TaskStatus.DONE for state in states)


class Streaq(System):
    """streaQ with its worker in a script."""

    name = "streaq"
    promise = "at least once: what a dead worker had is claimed by another one when it was idle for long"
    recovery = "idle_timeout=2 (seconds; the default is a minute)"
    packages = ("streaq", "coredis")
    has_batch = True
    waiters = 1_000

    @asynccontextmanager
    async def open(self, url: str, callers: int = 1) -> AsyncIterator[Client]:  # noqa: ARG002
        async with worker:
            yield Client()


SYSTEM = Streaq()
