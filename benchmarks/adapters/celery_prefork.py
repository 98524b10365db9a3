"""Celery with its Redis transport and Redis results: a prefork pool of four processes (the machine has two
cores, and the job does nothing; more processes only take memory), late acknowledgement, no events, no logs,
no gossip, mingle or heartbeat, 64 messages prefetched for each process, JSON. The client waits by `get`,
which is pushed to; each of many callers has a thread with its own connections, because Celery has no
awaitable calls.
"""

import os
import sys
from collections.abc import AsyncIterator, Sequence
from contextlib import AbstractContextManager, asynccontextmanager
from typing import Any

import bodies
from blocking import BlockingClient
from celery import Celery
from celery.result import AsyncResult
from system import MISSING, System

URL = os.environ.get("BENCH_URL", "redis://127.0.0.1:6379/0")
SOON = {"visibility_timeout": 5, "unacked_restore_interval": 1, "unacked_restore_throttle": 1}
KILL = "BENCH_KILL" in os.environ

app = Celery("bench", broker=URL, backend=URL)
app.conf.update(
    task_acks_late=True,
    task_reject_on_worker_lost=True,
    worker_prefetch_multiplier=64,
    worker_send_task_events=False,
    broker_pool_limit=100,
    broker_transport_options=SOON if KILL else {"visibility_timeout": 3600},
    broker_connection_retry_on_startup=True,
    result_expires=3600,
)
TASKS = {name: app.task(getattr(bodies, f"blocking_{name}"), name=name) for name in bodies.NAMES}


class Client(BlockingClient):
    """Celery's own calls. The result backend belongs to a thread, so a waiter makes the result anew."""

    def enqueue(self, value: Any, task: str) -> AsyncResult:
        return TASKS[task].delay(value)

    def wait(self, handle: AsyncResult) -> object:
        return AsyncResult(handle.id, app=app).get(interval=0.005)

    def read(self, job_id: str) -> object:
        meta = app.backend.get_task_meta(job_id)
        return meta["result"] if meta["status"] == "SUCCESS" else MISSING

    def count(self, job_ids: Sequence[str]) -> int:
        return int(app.backend.client.exists(*map(app.backend.get_key_for_task, job_ids)))


class CelerySystem(System):
    """Celery with one kind of pool."""

    promise = "at least once: a dead worker's messages come back after the visibility timeout"
    recovery = (
        "visibility_timeout=5 (seconds; default an hour), looked for every second (default every 100 s)"
    )
    packages = ("celery", "kombu")
    share = 0.05
    waiters = 1_000

    def __init__(self, name: str, slots: int) -> None:
        self.name, self.slots = name, slots
        self._pool = name.partition("_")[2]

    def worker(self, url: str) -> list[str]:  # noqa: ARG002  the app has it
        quiet = ["--without-gossip", "--without-mingle", "--without-heartbeat", "-l", "critical"]
        pool = ["--pool", self._pool, "-c", str(self.slots)]
        return [sys.executable, "-m", "celery", "-A", f"adapters.{self.name}:app", "worker", *pool, *quiet]

    @asynccontextmanager
    async def open(self, url: str, callers: int = 1) -> AsyncIterator[Client]:  # noqa: ARG002
        yield Client(callers)

    def blocking(self, url: str) -> AbstractContextManager[Any]:  # noqa: ARG002
        return Client().plainly()


SYSTEM = CelerySystem("celery_prefork", slots=4)
