"""docket (package `pydocket`): 100 tasks at once, results kept an hour, uvloop, no logs. The client waits by
`Execution.get_result`, which is pushed to, and enqueues batches by `add_many`.
"""

import os
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from datetime import timedelta
from typing import Any

import bodies
from docket import Docket, Worker
from system import CONCURRENCY, MISSING, Held, System, by_callers

URL = os.environ.get("BENCH_URL", "redis://127.0.0.1:6379/0")
REDELIVERY = timedelta(seconds=2 if "BENCH_KILL" in os.environ else 300)
TASKS = [getattr(bodies, name) for name in bodies.NAMES]


def made() -> Docket:
    """Returns the docket with its tasks."""
    docket = Docket("bench", url=f"{URL}?max_connections=1200", execution_ttl=timedelta(hours=1))
    for task in TASKS:
        docket.register(task)
    return docket


async def work() -> None:
    """Runs a worker until it is stopped."""
    async with (
        made() as docket,
        Worker(docket, concurrency=CONCURRENCY, redelivery_timeout=REDELIVERY) as worker,
    ):
        await worker.run_forever()


class Client:
    """docket's own calls."""

    def __init__(self, docket: Docket) -> None:
        self._docket = docket

    async def delay(self, value: Any = 0, task: str = "echo") -> Held:
        execution = await self._docket.add(getattr(bodies, task))(value)
        return Held(execution.key, execution)

    async def value(self, handle: Held) -> object:
        return await handle.job.get_result()

    async def map(self, values: Sequence[Any], task: str = "echo") -> Sequence[Held]:
        calls = [self._docket.call(getattr(bodies, task))(value) for value in values]
        return [Held(execution.key, execution) for execution in await self._docket.add_many(calls)]

    async def result(self, job_id: str) -> object:
        execution = await self._docket.get_execution(job_id)
        if execution is None or execution.state.value != "completed":
            return MISSING
        return await execution.get_result()

    async def stored(self, job_ids: Sequence[str]) -> int:
        found = await by_callers(self.result, job_ids, 20)
        return sum(value is not MISSING for value in found)


class DocketSystem(System):
    """docket's worker in a script, because its command line has no uvloop."""

    name = "docket"
    promise = "at least once: another worker claims an entry after the redelivery timeout"
    recovery = "redelivery_timeout=2 (seconds; the default is five minutes)"
    packages = ("pydocket",)
    has_batch = True
    waiters = 1_000

    @asynccontextmanager
    async def open(self, url: str, callers: int = 1) -> AsyncIterator[Client]:  # noqa: ARG002
        async with made() as docket:
            yield Client(docket)


SYSTEM = DocketSystem()
