"""ArdiQ: its worker in a script on uvloop (its command line logs each task), 100 tasks at once, prefetch 200
(its default for that), results kept an hour, no logs. The client waits by ArdiQ's own `result(timeout=)`, and
enqueues batches by `enqueue_many`.
"""

import asyncio
import os
import signal
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any

import bodies
from ardiq import Ardiq
from system import CONCURRENCY, MISSING, System, by_callers

URL = os.environ.get("BENCH_URL", "redis://127.0.0.1:6379/0")
IDLE_MS = 2_000 if "BENCH_KILL" in os.environ else 60_000

app = Ardiq(URL, concurrency=CONCURRENCY, result_ttl_ms=3_600_000, idle_timeout_ms=IDLE_MS)
TASKS = {name: app.task(getattr(bodies, name), name=name) for name in bodies.NAMES}


async def work() -> None:
    """Runs a worker until it is stopped."""
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, app.stop)
    await app.run()


class Client:
    """ArdiQ's own calls."""

    async def delay(self, value: Any = 0, task: str = "echo") -> Any:
        return await TASKS[task].enqueue(value)

    async def value(self, handle: Any) -> object:
        return (await handle.result(timeout=60)).value

    async def map(self, values: Sequence[Any], task: str = "echo") -> Sequence[Any]:
        return await app.enqueue_many([TASKS[task].prepare(value) for value in values])

    async def result(self, job_id: str) -> object:
        found = await app.result(job_id)
        return MISSING if found is None else found.value

    async def stored(self, job_ids: Sequence[str]) -> int:
        found = await by_callers(app.result, job_ids, 20)
        return sum(value is not None for value in found)


class ArdiqSystem(System):
    """ArdiQ with its worker in a script."""

    name = "ardiq"
    promise = "at least once: what a dead worker had is claimed by another one when it was idle for long"
    recovery = "idle_timeout_ms=2000 (the default is a minute)"
    packages = ("ardiq",)
    share = 0.5
    has_batch = True
    waiters = 1_000

    @asynccontextmanager
    async def open(self, url: str, callers: int = 1) -> AsyncIterator[Client]:  # noqa: ARG002
        yield Client()


SYSTEM = ArdiqSystem()
