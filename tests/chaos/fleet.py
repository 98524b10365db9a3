"""Worker processes of a trial: starts, kills, stops and replaces them.

Runs on the trial's loop; what blocks (the start and the end of a process) runs in a thread. `Fleet` notes
when it killed or stopped which process, so that the judge can tell which jobs may have run again.
"""

from __future__ import annotations

import asyncio
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from helpers.processes import is_stopped
from helpers.waiting import until

from asyncq.failpoints import VARIABLE as FAILPOINTS
from chaos.jobs import FOLDER

HERE = Path(__file__).parent


class WorkerProcess:
    """One worker, or another module, in a process of its own. Its log goes into a file beside its journal."""

    def __init__(
        self,
        url: str,
        folder: Path,
        settings: dict[str, Any],
        failpoints: str = "",
        module: tuple[str, ...] = ("chaos.worker",),
    ) -> None:
        environment = {
            **{name: value for name, value in os.environ.items() if not name.startswith("ASYNCQ_")},
            **{f"ASYNCQ_{name.upper()}": str(value) for name, value in settings.items()},
            "ASYNCQ_URL": url,
            # If the trials run on a copy of the package, the workers import that copy, too.
            "PYTHONPATH": os.pathsep.join(path for path in (str(HERE.parent), *sys.path) if path),
            FOLDER: str(folder),
            FAILPOINTS: failpoints,
        }
        self.errors = (folder / f"worker-{time.monotonic_ns()}.log").open("wb")
        self.process = subprocess.Popen(
            [sys.executable, "-m", *module],
            env=environment,
            stdout=subprocess.PIPE,
            stderr=self.errors,
        )
        self.pid = self.process.pid
        self.stopped_at: float | None = None

    @property
    def alive(self) -> bool:
        return self.process.poll() is None

    @property
    def stopped(self) -> bool:
        """Whether the process is stopped by a SIGSTOP."""
        return self.alive and is_stopped(self.pid)

    def wait_until_ready(self) -> None:
        """Blocks until the worker reads jobs, or has died."""
        assert self.process.stdout is not None
        self.process.stdout.readline()

    def send(self, number: signal.Signals) -> None:
        self.process.send_signal(number)

    def end(self, number: signal.Signals = signal.SIGKILL) -> None:
        """Sends a deadly signal, and blocks until the process has ended."""
        if self.alive:
            self.process.send_signal(number)
        self.process.wait(timeout=30)
        if self.process.stdout is not None:
            self.process.stdout.close()
        self.errors.close()

    def log(self) -> str:
        return Path(self.errors.name).read_text(errors="replace")


class Fleet:
    """The workers of a trial. They can be killed, stopped and replaced.

    Attributes:
        workers: the processes that run now.
        losses: each process that was killed or stopped past its lease, and when (monotonic).
        resumptions: each process that resumed after it was stopped, and when.
        unexpected_exits: the ends of the logs of workers that ended by themselves.
    """

    def __init__(self, url: str, folder: Path, settings: dict[str, Any], seed: int) -> None:
        self.url = url
        self.folder = folder
        self.settings = settings
        self.random = random.Random(seed)
        self.workers: list[WorkerProcess] = []
        self.losses: list[tuple[int, float]] = []
        self.resumptions: list[tuple[int, float]] = []
        self.unexpected_exits: list[str] = []
        self._expected: set[int] = set()

    async def add(
        self,
        *,
        failpoints: str = "",
        url: str | None = None,
        module: tuple[str, ...] = ("chaos.worker",),
        **settings: Any,
    ) -> WorkerProcess:
        """Starts one more worker, and returns when it reads jobs."""
        worker = WorkerProcess(
            url or self.url, self.folder, {**self.settings, **settings}, failpoints, module
        )
        self.workers.append(worker)
        await asyncio.to_thread(worker.wait_until_ready)
        return worker

    def expect_exit(self, worker: WorkerProcess) -> None:
        """Notes that this worker may end by itself."""
        self._expected.add(worker.pid)

    def lost(self, worker: WorkerProcess) -> None:
        """Notes that the jobs which this worker holds now may run again."""
        self.losses.append((worker.pid, time.monotonic()))

    async def kill(self, worker: WorkerProcess) -> None:
        """Kills a worker by SIGKILL, and returns when it has ended."""
        # The signal is sent here and not in the thread that waits: on a busy machine that thread may start a
        # second later, and the worker would have started more jobs by then.
        if worker.alive:
            worker.send(signal.SIGKILL)
        self.lost(worker)
        self.workers.remove(worker)
        await asyncio.to_thread(worker.end)

    async def replace_random(self) -> None:
        """Kills a random worker that runs, and starts another one. Waits if all are still starting."""
        await until(self._running, "a worker that runs", 60)
        await self.kill(self.random.choice(self._running()))
        await self.add()

    def _running(self) -> list[WorkerProcess]:
        return [worker for worker in self.workers if worker.stopped_at is None and worker.alive]

    async def stop_for(self, worker: WorkerProcess, seconds: float) -> None:
        """Stops a worker by SIGSTOP, and resumes it by SIGCONT after a time."""
        worker.stopped_at = time.monotonic()
        self.losses.append((worker.pid, worker.stopped_at))
        worker.send(signal.SIGSTOP)
        try:
            await asyncio.sleep(seconds)
        finally:
            if worker.alive:
                self.resumptions.append((worker.pid, time.monotonic()))
                worker.send(signal.SIGCONT)
            worker.stopped_at = None

    async def keep_up(self, frozen_after: float) -> None:
        """Replaces workers that died, and kills and replaces workers that stay stopped, as a supervisor does.
        Runs until it is cancelled.

        Args:
            frozen_after: a worker that is stopped for so many seconds is killed.
        """
        still: dict[int, float] = {}
        while True:
            now = time.monotonic()
            for worker in list(self.workers):
                if worker.alive and not worker.stopped:
                    still.pop(worker.pid, None)
                elif not worker.alive or now - still.setdefault(worker.pid, now) > frozen_after:
                    await self.kill(worker)
                    await self.add()
            await asyncio.sleep(0.05)

    def note_unexpected_exits(self) -> None:
        """Notes the end of the log of each worker that ended by itself. None should."""
        for worker in self.workers:
            if not worker.alive and worker.pid not in self._expected:
                self.unexpected_exits.append(f"exit {worker.process.returncode}: {worker.log()[-1500:]}")

    async def close(self, number: signal.Signals = signal.SIGKILL) -> None:
        """Ends all of them."""
        workers, self.workers = self.workers, []
        await asyncio.gather(*(asyncio.to_thread(worker.end, number) for worker in workers))
