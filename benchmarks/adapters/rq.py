"""RQ: `SimpleWorker`, which runs a job in the worker's process (RQ's own default forks a process for each
job, and is slower), one job at a time (RQ has nothing else), results kept an hour, three retries, no logs.
The client waits by `latest_result`, which blocks on the result's stream, and enqueues batches by
`enqueue_many`; each of many callers has a thread, because RQ has no awaitable calls.
"""

import os
import sys
from collections.abc import AsyncIterator, Sequence
from contextlib import AbstractContextManager, asynccontextmanager
from pathlib import Path
from typing import Any

import bodies
from blocking import BlockingClient
from redis import Redis
from rq import Queue, Retry
from rq.job import Job
from system import MISSING, System

URL = os.environ.get("BENCH_URL", "redis://127.0.0.1:6379/0")
KILL = "BENCH_KILL" in os.environ
OPTIONS: dict[str, Any] = {"result_ttl": 3600, "retry": Retry(max=3), "timeout": 2 if KILL else 180}

connection = Redis.from_url(URL, socket_timeout=None, max_connections=1_200)
queue = Queue("bench", connection=connection)


class Client(BlockingClient):
    """RQ's own calls."""

    def enqueue(self, value: Any, task: str) -> Job:
        return self.enqueue_all([value], task)[0]

    def enqueue_all(self, values: Sequence[Any], task: str) -> list[Job]:
        body = getattr(bodies, f"blocking_{task}")
        return queue.enqueue_many([Queue.prepare_data(body, args=(value,), **OPTIONS) for value in values])

    def wait(self, handle: Job) -> object:
        result = handle.latest_result(timeout=60)
        assert result is not None
        return result.return_value

    def read(self, job_id: str) -> object:
        result = Job(job_id, connection).latest_result()
        return MISSING if result is None else result.return_value

    def count(self, job_ids: Sequence[str]) -> int:
        return int(connection.exists(*(f"rq:results:{job_id}" for job_id in job_ids)))


class Rq(System):
    """RQ by its command line."""

    name = "rq"
    promise = "a job whose worker died is found by a later clean-up, and queued again while it has retries"
    recovery = "job timeout 2 s (default 180), to which RQ adds a minute; maintenance every 2 s (default 600)"
    recovers_within = 130.0
    packages = ("rq",)
    slots = 1
    share = 0.05
    waiters = 1_000
    has_batch = True

    def worker(self, url: str) -> list[str]:
        script = Path(sys.executable).with_name("rq")
        words = ["--url", url, "--worker-class", "rq.SimpleWorker", "--logging_level", "CRITICAL"]
        soon = ["--maintenance-interval", "2"] if KILL else []
        return [str(script), "worker", "bench", *words, *soon]

    @asynccontextmanager
    async def open(self, url: str, callers: int = 1) -> AsyncIterator[Client]:  # noqa: ARG002
        yield Client(callers)

    def blocking(self, url: str) -> AbstractContextManager[Any]:  # noqa: ARG002
        return Client().plainly()


SYSTEM = Rq()
