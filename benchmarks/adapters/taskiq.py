"""taskiq with taskiq-redis: `RedisStreamBroker` (the broker that keeps a message until it is acknowledged),
acknowledgement when the result is saved, `RedisAsyncResultBackend`, one worker process, 100 tasks at once,
ORJSON serializer, uvloop, no logs, no validation of arguments. The client asks for a result every 10 ms,
which is how taskiq waits, or every 0.2 s (the default) if it waits for more than a hundred. It has no call
for batches, so a hundred callers enqueue.
"""

import os
import sys
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any

import bodies
from system import CONCURRENCY, MISSING, Held, System, by_callers
from taskiq.serializers import ORJSONSerializer
from taskiq_redis import RedisAsyncResultBackend, RedisStreamBroker

URL = os.environ.get("BENCH_URL", "redis://127.0.0.1:6379/0")
IDLE_MS = 2_000 if "BENCH_KILL" in os.environ else 600_000
POLL = 0.01

results = RedisAsyncResultBackend(
    URL, result_ex_time=3600, max_connection_pool_size=CONCURRENCY, serializer=ORJSONSerializer()
)
broker = RedisStreamBroker(
    URL, consumer_id="0", idle_timeout=IDLE_MS, unacknowledged_lock_timeout=5
).with_result_backend(results)
broker = broker.with_serializer(ORJSONSerializer())
TASKS = {name: broker.task(task_name=name)(getattr(bodies, name)) for name in bodies.NAMES}


class Client:
    """taskiq's own calls."""

    def __init__(self, poll: float) -> None:
        self._poll = poll

    async def delay(self, value: Any = 0, task: str = "echo") -> Any:
        job = await TASKS[task].kiq(value)
        return Held(job.task_id, job)

    async def value(self, handle: Any) -> object:
        return (await handle.job.wait_result(check_interval=self._poll)).return_value

    async def map(self, values: Sequence[Any], task: str = "echo") -> list[Any]:
        return await by_callers(lambda value: self.delay(value, task), values)

    async def result(self, job_id: str) -> object:
        if not await results.is_result_ready(job_id):
            return MISSING
        return (await results.get_result(job_id)).return_value

    async def stored(self, job_ids: Sequence[str]) -> int:
        return sum(await by_callers(results.is_result_ready, job_ids, 20))


class Taskiq(System):
    """taskiq by its command line."""

    name = "taskiq"
    promise = "at least once: another worker claims a message that was idle for long"
    recovery = "idle_timeout=2000 (ms; the default is ten minutes), unacknowledged_lock_timeout=5"
    packages = ("taskiq", "taskiq-redis")

    def worker(self, url: str) -> list[str]:  # noqa: ARG002  the broker has it
        limits = ["--workers", "1", "--max-async-tasks", str(CONCURRENCY), "--max-prefetch", str(CONCURRENCY)]
        words = ["--ack-type", "when_saved", "--no-parse", "--log-level", "CRITICAL"]
        return [sys.executable, "-m", "taskiq", "worker", "adapters.taskiq:broker", *limits, *words]

    @asynccontextmanager
    async def open(self, url: str, callers: int = 1) -> AsyncIterator[Client]:  # noqa: ARG002
        await broker.startup()
        try:
            yield Client(POLL if callers <= CONCURRENCY else 0.2)
        finally:
            await broker.shutdown()


SYSTEM = Taskiq()
