"""The environment of a benchmark: the app of its task, and a worker process.

The worker is a child process for the time of a measurement, or one that the user has started. Runs on the
command's event loop.
"""

from __future__ import annotations

import asyncio
import os
import platform
import signal
import subprocess
import sys
import time
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from asyncq.cli.exits import CliError
from asyncq.errors import ResultTimeout

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from asyncq.app import AsyncQ
    from asyncq.tasks.task import Task

_PROBE = 1.0
"""How many seconds a worker that the user has started may take to answer."""


@dataclass(frozen=True, slots=True)
class BenchEnvironment:
    """The app, the task and the worker that a plan measures."""

    app: AsyncQ
    noop: Task[..., None]
    own_worker: bool

    @asynccontextmanager
    async def worker(self) -> AsyncIterator[None]:
        """Starts a worker process for the time of the block and waits until it is ready. With `own_worker`
        False it uses the workers that run already.

        Raises:
            CliError: the worker does not answer.
        """
        if not self.own_worker:
            await self._probe()
            yield
            return
        process = self._start()
        try:
            await self._ready(process)
            yield
        finally:
            await asyncio.to_thread(_end, process)

    async def _probe(self) -> None:
        """Runs one job: a worker that was killed stays listed until others have noticed."""
        job = await self.noop.delay("")
        try:
            await job.get(timeout=_PROBE)
        except ResultTimeout:
            await job.revoke()
            queue = self.app.settings.default_queue
            raise CliError(
                f"no worker answers on queue {queue!r}", "start one: asyncq worker asyncq.cli.bench_tasks:app"
            ) from None

    def _start(self) -> subprocess.Popen[bytes]:
        app = self.app
        server = app.sessions.current().server
        # A private server belongs to this process: the worker process reaches it by the URL of its socket.
        url = server.url if server is not None else app.settings.url
        environment = {**os.environ, "ASYNCQ_URL": url, "ASYNCQ_NAMESPACE": app.settings.namespace}
        arguments = [
            sys.executable,
            "-m",
            "asyncq",
            "--quiet",
            "worker",
            "asyncq.cli.bench_tasks:app",
            "--grace",
            "1s",
        ]
        return subprocess.Popen(arguments, env=environment, stdout=subprocess.DEVNULL)  # noqa: S603  our own

    async def _ready(self, process: subprocess.Popen[bytes]) -> None:
        broker, queue = self.app.sessions.current().broker, self.app.settings.default_queue
        end = time.monotonic() + 60.0
        while not await broker.listened_to(queue):
            if process.poll() is not None:
                raise CliError(f"the worker ended with exit code {process.returncode}")
            if time.monotonic() > end:
                raise CliError("the worker did not begin to listen within 60 s")
            await asyncio.sleep(0.01)


def cpu_model() -> str:
    """Returns what the processor calls itself, as far as the system says."""
    try:
        lines = Path("/proc/cpuinfo").read_text("utf-8", "replace").splitlines()
    except OSError:  # not Linux
        lines = []
    named = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(named, platform.processor() or platform.machine())


def _end(process: subprocess.Popen[bytes]) -> None:
    process.send_signal(signal.SIGTERM)
    try:
        process.wait(5)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
