"""asyncq as a user runs it: the worker by the command line with a concurrency of 100, default settings,
results kept an hour and pushed to the caller.
"""

import os
import sys
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from system import CONCURRENCY, HERE, MISSING, Client, System


class AsyncQClient:
    """An app of asyncq and its tasks."""

    def __init__(self, app: Any, tasks: dict[str, Any]) -> None:
        self._app = app
        self._tasks = tasks

    async def delay(self, value: Any = 0, task: str = "echo") -> Any:
        return await self._tasks[task].delay(value)

    async def value(self, handle: Any) -> object:
        return await handle.get()

    async def map(self, values: Sequence[Any], task: str = "echo") -> Sequence[Any]:
        return list(await self._tasks[task].map([(value,) for value in values]))

    async def delayed(self, count: int, seconds: float) -> Sequence[Any]:
        return list(await self._tasks["clock"].options(countdown=seconds).map([(0,)] * count))

    async def delay_in(self, queue: str, value: Any = 0) -> Any:
        return await self._tasks["echo"].options(queue=queue).delay(value)

    async def result(self, job_id: str) -> object:
        handle = self._app.AsyncResult(job_id)
        return await handle.get() if await handle.successful() else MISSING

    async def stored(self, job_ids: Sequence[str]) -> int:
        return int(await self._app.ResultSet(map(self._app.AsyncResult, job_ids)).completed_count())


class AsyncQSystem(System):
    """asyncq of this checkout. The worker gets its server's URL on the command line, the client by a
    variable.
    """

    name = "asyncq"
    promise = "at least once: a dead worker's jobs run again when its lease is over"
    packages = ("asyncq",)
    share = 1.0
    has_batch = True
    has_delay = True
    empty_streams_mean_stored = True

    def worker(self, url: str) -> list[str]:
        script = Path(sys.executable).with_name("asyncq")
        return [str(script), "--url", url, "worker", "adapters.asyncq_features:app", "-c", str(CONCURRENCY)]

    def worker_of(self, url: str, queues: Sequence[str]) -> list[str]:
        return [*self.worker(url), *queues]

    def hosted(self, url: str, count: int) -> list[str]:
        return [sys.executable, str(HERE / "hosted_workers.py"), url, str(count)]

    @asynccontextmanager
    async def open(self, url: str, callers: int = 1) -> AsyncIterator[Client]:  # noqa: ARG002
        os.environ["ASYNCQ_URL"] = url  # before the app is made, because it reads its settings once
        from adapters.asyncq_app import TASKS, app

        app.reconfigure(url=url)  # a scenario may have opened it for another server
        async with app:
            yield AsyncQClient(app, TASKS)

    @contextmanager
    def blocking(self, url: str) -> Iterator[Any]:
        os.environ["ASYNCQ_URL"] = url
        from adapters.asyncq_app import TASKS, app

        with app:
            yield SimpleNamespace(delay=TASKS["echo"].delay_sync, value=lambda handle: handle.get_sync())


SYSTEM = AsyncQSystem()
