"""ArdiQ: its worker by the command line, 100 tasks at once, prefetch 200 (its default for that), results kept an hour,
no banner, no logs. The client waits by ArdiQ's own `result(timeout=)`, and enqueues batches by `enqueue_many`.
"""

import os
import sys
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import bodies
from ardiq import Ardiq
from system import CONCURRENCY, MISSING, System

URL = os.environ.get("BENCH_URL", "redis://127.0.0.1:6379/0")
IDLE_MS = 2_000 if "BENCH_KILL" in os.environ else 60_000

app = Ardiq(URL, concurrency=CONCURRENCY, result_ttl_ms=3_600_000, idle_timeout_ms=IDLE_MS)
TASKS = {name: app.task(getattr(bodies, name), name=name) for name in bodies.NAMES}


class Client:
    """ArdiQ's own calls."""

    async def delay(self, value: Any = 0, task: str = "echo") -> Any:
        return await TASKS[task].enqueue(value)

    async def value(self, handle: Any) -> object:
        return (await handle.result(timeout=60)).value

    async def map(self, values: Sequence[Any], task: str = "echo") -> Sequence[Any]:
        return await TASKS[task].enqueue_many([(value,) for value in values])

    async def result(self, job_id: str) -> object:
        found = await app.result(job_id)
        return MISSING if found is None else found.value

    async def stored(self, job_ids: Sequence[str]) -> int:
        return sum([await app.result(job_id) is not None for job_id in job_ids])


class ArdiqSystem(System):
    """ArdiQ by its command line."""

    name = "ardiq"
    promise = "at least once: what a dead worker had is claimed by another one when it was idle for long"
    recovery = "idle_timeout_ms=2000 (the default is a minute)"
    packages = ("ardiq",)
    has_batch = True

    def worker(self, url: str) -> list[str]:  # noqa: ARG002  the app has it
        return [str(Path(sys.executable).with_name("ardiq")), "run", "adapters.ardiq:app", "--quiet"]

    @asynccontextmanager
    async def open(self, url: str, callers: int = 1) -> AsyncIterator[Client]:  # noqa: ARG002
        yield Client()


SYSTEM = ArdiqSystem()
