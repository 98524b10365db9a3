"""huey on Redis: eight threads (more only compete for the interpreter), blocking reads, results kept until
they are read and beyond, no logs, no periodic tasks. The client waits by `get(blocking=True)`, which is told
of results; each of many callers has a thread, because huey's own awaitable call polls. It has no call for
batches.
"""

import os
import sys
from collections.abc import AsyncIterator
from contextlib import AbstractContextManager, asynccontextmanager
from pathlib import Path
from typing import Any

import bodies
from blocking import BlockingClient
from huey import RedisHuey
from system import MISSING, System

URL = os.environ.get("BENCH_URL", "redis://127.0.0.1:6379/0")
THREADS = 8

huey = RedisHuey("bench", url=f"{URL}?max_connections=1200", notify_result=True)
TASKS = {name: huey.task(name=name)(getattr(bodies, f"blocking_{name}")) for name in bodies.NAMES}


class Client(BlockingClient):
    """huey's own calls."""

    def enqueue(self, value: Any, task: str) -> Any:
        return TASKS[task](value)

    def wait(self, handle: Any) -> object:
        return handle.get(blocking=True, timeout=60, preserve=True)

    def read(self, job_id: str) -> object:
        value = huey.result(job_id, preserve=True)
        return MISSING if value is None else value


class Huey(System):
    """huey by its command line."""

    name = "huey"
    promise = "at most once: a job that runs when the worker dies is lost"
    packages = ("huey",)
    share = 0.2
    slots = THREADS
    waiters = 1_000

    def worker(self, url: str) -> list[str]:  # noqa: ARG002  the app has it
        script = Path(sys.executable).with_name("huey_consumer")
        words = ["-w", str(THREADS), "-k", "thread", "--no-periodic", "--quiet"]
        return [str(script), "adapters.huey.huey", *words]

    @asynccontextmanager
    async def open(self, url: str, callers: int = 1) -> AsyncIterator[Client]:  # noqa: ARG002
        yield Client(callers)

    def blocking(self, url: str) -> AbstractContextManager[Any]:  # noqa: ARG002
        return Client().plainly()


SYSTEM = Huey()
