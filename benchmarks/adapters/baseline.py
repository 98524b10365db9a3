"""asyncq of another checkout (`BASELINE=path`), to compare two versions in the same run.

Compare it with `current`: both run their worker in a script and not by the command line. So versions without
a command line can be measured, and its cost is in neither figure.
"""

import os
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from system import CONCURRENCY, HERE, Client, System

from adapters.asyncq import AsyncQClient


class Checkout(System):
    """One version of asyncq."""

    promise = "as asyncq"
    packages = ("asyncq",)
    share = 1.0
    has_batch = True
    empty_streams_mean_stored = True

    def __init__(self, name: str, path: str) -> None:
        self.name = name
        self._path = path

    def worker(self, url: str) -> list[str]:
        script = str(HERE / "scripted_worker.py")
        return [sys.executable, script, self._path, url, str(CONCURRENCY)]

    @asynccontextmanager
    async def open(self, url: str, callers: int = 1) -> AsyncIterator[Client]:  # noqa: ARG002
        os.environ["ASYNCQ_URL"] = url
        # The harness has imported parts of this checkout's asyncq. It keeps its references to them, and the
        # names of the modules become free for those of the other checkout.
        for name in [name for name in sys.modules if name.partition(".")[0] == "asyncq"]:
            del sys.modules[name]
        sys.path.insert(0, self._path)
        import asyncq
        from adapters.asyncq_app import TASKS, app

        if Path(asyncq.__file__).parents[1] != Path(self._path):
            raise RuntimeError(f"{self._path!r} holds no asyncq: {asyncq.__file__} was imported")
        async with app:
            yield AsyncQClient(app, TASKS)


SYSTEM = Checkout("baseline", os.environ.get("BASELINE", ""))
