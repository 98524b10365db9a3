"""asyncq as a user runs it: the worker by the command line, default settings, with results."""

import os
import sys
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from system import CONCURRENCY, Client


class AsyncQClient:
    """An app of asyncq and its one task."""

    def __init__(self, app: Any, noop: Any) -> None:
        self._app = app
        self._noop = noop

    async def delay(self) -> Any:
        return await self._noop.delay()

    async def value(self, handle: Any) -> object:
        return await handle.get()

    async def map(self, count: int) -> Sequence[Any]:
        return list(await self._noop.map([()] * count))

    async def stored(self, job_id: str) -> bool:
        return bool(await self._app.AsyncResult(job_id).successful())


class AsyncQSystem:
    """asyncq of this checkout. The worker gets its server's URL on the command line, the client by a
    variable.
    """

    name = "asyncq"

    def worker(self, url: str) -> list[str]:
        script = Path(sys.executable).with_name("asyncq")
        return [str(script), "--url", url, "worker", "adapters.asyncq_features:app", "-c", str(CONCURRENCY)]

    @asynccontextmanager
    async def open(self, url: str) -> AsyncIterator[Client]:
        os.environ["ASYNCQ_URL"] = url  # before the app is made, because it reads its settings once
        from adapters.asyncq_app import app, noop

        async with app:
            yield AsyncQClient(app, noop)


SYSTEM = AsyncQSystem()
