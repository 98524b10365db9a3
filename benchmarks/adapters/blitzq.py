"""BlitzQ in its reliable mode (Redis streams, at least once), which is its default: 100 tasks at once,
results kept an hour, MessagePack, uvloop, no state tracking, no logs. The client waits by `get_result`, which
is pushed to, and enqueues batches by `enqueue_many`.
"""

import asyncio
import os
import signal
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any

import bodies
from blitzq import Queue, TaskState, Worker
from system import CONCURRENCY, MISSING, System, by_callers

URL = os.environ.get("BENCH_URL", "redis://127.0.0.1:6379/0")
VISIBILITY = 2 if "BENCH_KILL" in os.environ else 60

queue = Queue("bench", f"{URL}?max_connections=1200", result_ttl=3600, visibility_timeout=VISIBILITY)
TASKS = {name: queue.task(name=name)(getattr(bodies, name)) for name in bodies.NAMES}


async def work() -> None:
    """Runs a worker until it is stopped."""
    worker = Worker(queue, concurrency=CONCURRENCY)
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, worker.stop)
    await worker.run()


class Client:
    """BlitzQ's own calls."""

    async def delay(self, value: Any = 0, task: str = "echo") -> Any:
        return await TASKS[task].enqueue(value)

    async def value(self, handle: Any) -> object:
        return await queue.get_result(handle.id, timeout=60)

    async def map(self, values: Sequence[Any], task: str = "echo") -> Sequence[Any]:
        return await TASKS[task].enqueue_many([(value,) for value in values])

    async def result(self, job_id: str) -> object:
        info = await queue.inspect(job_id)
        return info.result if info is not None and info.state == TaskState.SUCCEEDED else MISSING

    async def stored(self, job_ids: Sequence[str]) -> int:
        states = await by_callers(queue.status, job_ids, 20)
        return sum(state == TaskState.SUCCEEDED for state in states)


class Blitzq(System):
    """BlitzQ with its worker in a script."""

    name = "blitzq"
    promise = "at least once: an abandoned message is redelivered after the visibility timeout"
    recovery = "visibility_timeout=2 (seconds; the default is a minute)"
    packages = ("blitzq",)
    share = 1.0
    has_batch = True
    waiters = 1_000

    @asynccontextmanager
    async def open(self, url: str, callers: int = 1) -> AsyncIterator[Client]:  # noqa: ARG002
        async with queue:
            yield Client()


SYSTEM = Blitzq()
