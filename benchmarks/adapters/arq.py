"""arq: 100 jobs at once, `poll_delay` of 10 ms (default 0.5 s; arq polls a
sorted set), results kept an hour, logs off, uvloop, hiredis. The client asks for a result every 10 ms, which
is how arq waits, or every 0.5 s (the default) if it waits for more than a hundred. It has no call for
batches, so a hundred callers enqueue.
"""

import os
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any, ClassVar

import bodies
from arq import create_pool
from arq.connections import RedisSettings
from arq.jobs import Job
from system import CONCURRENCY, MISSING, Held, System, by_callers

URL = os.environ.get("BENCH_URL", "redis://127.0.0.1:6379/0")
POLL = 0.01


async def echo(_context: Any, value: Any) -> Any:
    return await bodies.echo(value)


async def clock(_context: Any, value: Any) -> int:
    return await bodies.clock(value)


async def nap(_context: Any, number: int) -> int:
    return await bodies.nap(number)


class WorkerSettings:
    """What arq's command line reads."""

    functions: ClassVar = [echo, clock, nap]
    redis_settings = RedisSettings.from_dsn(URL)
    max_jobs = CONCURRENCY
    poll_delay = POLL
    keep_result = 3600
    job_timeout = 5 if "BENCH_KILL" in os.environ else 300
    health_check_interval = 3600


async def work() -> None:
    """Runs a worker until it is stopped."""
    from arq.worker import create_worker

    await create_worker(WorkerSettings).async_run()


class Client:
    """arq's pool."""

    def __init__(self, pool: Any, poll: float) -> None:
        self._pool = pool
        self._poll = poll

    async def delay(self, value: Any = 0, task: str = "echo") -> Any:
        job = await self._pool.enqueue_job(task, value)
        return Held(job.job_id, job)

    async def value(self, handle: Any) -> object:
        return await handle.job.result(poll_delay=self._poll)

    async def map(self, values: Sequence[Any], task: str = "echo") -> list[Any]:
        return await by_callers(lambda value: self.delay(value, task), values)

    async def result(self, job_id: str) -> object:
        info = await Job(job_id, self._pool).result_info()
        return MISSING if info is None else info.result

    async def stored(self, job_ids: Sequence[str]) -> int:
        return int(await self._pool.exists(*(f"arq:result:{job_id}" for job_id in job_ids)))


class Arq(System):
    """arq with its worker's settings."""

    name = "arq"
    promise = "at least once: a dead worker's jobs run again when the key that marks them as running is over"
    recovery = "job_timeout=5 (seconds; the key lasts ten seconds longer; the default is 300)"
    packages = ("arq",)

    @asynccontextmanager
    async def open(self, url: str, callers: int = 1) -> AsyncIterator[Client]:  # noqa: ARG002
        pool = await create_pool(RedisSettings.from_dsn(URL))
        try:
            yield Client(pool, POLL if callers <= CONCURRENCY else 0.5)
        finally:
            await pool.aclose()


SYSTEM = Arq()
