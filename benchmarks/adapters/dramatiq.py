"""dramatiq with its Redis broker and Redis results: one process, eight threads (more only compete for the
interpreter), acknowledgement after the job (dramatiq has no other), retries and results as the only
middleware, no job logs. The client waits by `get_result(block=True)`; each of many callers has a thread,
because dramatiq has no awaitable calls. It has no call for batches.
"""

import os
import sys
from collections.abc import AsyncIterator
from contextlib import AbstractContextManager, asynccontextmanager
from typing import Any

import bodies
import dramatiq
from blocking import BlockingClient
from dramatiq.brokers.redis import RedisBroker
from dramatiq.middleware import Retries
from dramatiq.results import ResultMissing, Results
from dramatiq.results.backends import RedisBackend
from system import MISSING, Held, System

URL = os.environ.get("BENCH_URL", "redis://127.0.0.1:6379/0")
SOON: dict[str, Any] = (
    {"heartbeat_timeout": 5_000, "maintenance_chance": 100_000} if "BENCH_KILL" in os.environ else {}
)
THREADS = 8

pool = f"{URL}?max_connections=1200"
results = RedisBackend(url=pool)
keeping = Results(backend=results, store_results=True, result_ttl=3_600_000)
broker = RedisBroker(url=pool, middleware=[Retries(max_retries=3), keeping], **SOON)
dramatiq.set_broker(broker)
TASKS = {
    name: dramatiq.actor(getattr(bodies, f"blocking_{name}"), actor_name=name, broker=broker)
    for name in bodies.NAMES
}


class Client(BlockingClient):
    """dramatiq's own calls."""

    def enqueue(self, value: Any, task: str) -> Held:
        message = TASKS[task].send(value)
        return Held(f"{task}:{message.message_id}", message)

    def wait(self, handle: Held) -> object:
        return results.get_result(handle.job, block=True, timeout=60_000)

    def read(self, job_id: str) -> object:
        task, _, message_id = job_id.partition(":")
        try:
            return results.get_result(TASKS[task].message(0).copy(message_id=message_id))
        except ResultMissing:
            return MISSING


class Dramatiq(System):
    """dramatiq by its command line."""

    name = "dramatiq"
    promise = "at least once: a dead worker's messages come back when its heartbeat is too old"
    recovery = "heartbeat_timeout=5000 (ms; default a minute), maintenance_chance=100000 (default 1000)"
    packages = ("dramatiq",)
    slots = THREADS
    waiters = 1_000

    def worker(self, url: str) -> list[str]:  # noqa: ARG002  the broker has it
        words = ["--processes", "1", "--threads", str(THREADS), "--skip-logging"]
        return [sys.executable, "-m", "dramatiq", "adapters.dramatiq:broker", *words]

    @asynccontextmanager
    async def open(self, url: str, callers: int = 1) -> AsyncIterator[Client]:  # noqa: ARG002
        yield Client(callers)

    def blocking(self, url: str) -> AbstractContextManager[Any]:  # noqa: ARG002
        return Client().plainly()


SYSTEM = Dramatiq()
