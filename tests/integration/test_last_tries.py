"""Poison beside innocents: a death takes every job of its worker along, and only the guilty may pay."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest
from helpers.figures import report
from helpers.stopwatch import Stopwatch
from helpers.waiting import until

from asyncq import WorkerLost

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.anyio

TASKS = """
import asyncio, os
import asyncq

app = asyncq.AsyncQ()

@app.task(name="poison")
async def poison() -> None:
    await asyncio.sleep(0.05)  # those beside it have begun by then
    os._exit(3)

@app.task(name="innocent")
async def innocent() -> str:
    await asyncio.sleep(0.02)
    return asyncq.current().worker
"""

WORKER = """
import asyncio, os, pathlib, sys
import poison_tasks
from asyncq import Worker

async def main() -> None:
    worker = Worker(poison_tasks.app, concurrency=20, target=sys.argv[1] or None)
    worker.stop_on_signals()
    pathlib.Path(f"ready-{os.getpid()}").touch()
    await worker.run()

asyncio.run(main())
"""


class Fleet:
    """Two workers, replaced when they die, as a supervisor does."""

    def __init__(self, folder: Path, url: str, namespace: str, target: str) -> None:
        (folder / "poison_tasks.py").write_text(TASKS)
        (folder / "poison_worker.py").write_text(WORKER)
        kept = {name: value for name, value in os.environ.items() if not name.startswith("ASYNCQ_")}
        self._environment = {
            **kept,
            "ASYNCQ_URL": url,
            "ASYNCQ_NAMESPACE": namespace,
            "ASYNCQ_LEASE": "1",
            "ASYNCQ_SHARDS": os.environ.get("TEST_SHARDS", "1"),
            "PYTHONPATH": str(folder),
        }
        self._folder, self._target = folder, target
        self.deaths = 0
        self._workers = [self._spawn(), self._spawn()]
        self._keeper = asyncio.create_task(self._keep())

    def _spawn(self) -> subprocess.Popen[bytes]:
        command = [sys.executable, "poison_worker.py", self._target]
        null = subprocess.DEVNULL
        return subprocess.Popen(command, cwd=self._folder, env=self._environment, stdout=null, stderr=null)

    async def _keep(self) -> None:
        while True:
            for number, worker in enumerate(self._workers):
                if worker.poll() is not None:
                    self.deaths += 1
                    self._workers[number] = self._spawn()
            await asyncio.sleep(0.05)

    async def stop(self) -> list[int]:
        """Ends all; their exit codes."""
        self._keeper.cancel()
        for worker in self._workers:
            # One that has just been started in the place of a dead one does not know signals yet.
            ready = self._folder / f"ready-{worker.pid}"
            await until(lambda ready=ready: ready.exists(), "a worker to heed signals")
            worker.terminate()
        return [await asyncio.to_thread(worker.wait, 20) for worker in self._workers]


@pytest.mark.parametrize(
    "target",
    [
        pytest.param("poison_tasks:app", id="in a child"),
        pytest.param("", id="in the worker itself", marks=pytest.mark.trial),
    ],
)
async def test_every_innocent_succeeds_and_every_poison_is_lost(
    make_app, server_url, namespace, tmp_path, target
):
    async with make_app(lease=1) as app:

        @app.task(name="poison")
        async def poison() -> None: ...

        @app.task(name="innocent")
        async def innocent() -> str:
            return ""

        first = await innocent.map([()] * 60)
        bad = [await poison.delay() for _ in range(2)]
        rest = await innocent.map([()] * 60)
        begun = Stopwatch()
        fleet = Fleet(tmp_path, server_url, namespace, target)
        try:
            workers = [*await first.get(timeout=25), *await rest.get(timeout=25)]
            ends = [await result.outcome(timeout=25) for result in bad]
        finally:
            codes = await fleet.stop()
        took = begun.took
        report(f"120 innocents and 2 poisons, target={target!r}: {took:.1f} s, {fleet.deaths} workers died")
        letters = await app.control.dead.list()
    assert len(workers) == 120
    assert [(type(end.error), end.attempts) for end in ends] == [(WorkerLost, 3)] * 2
    assert sorted(letter.job_id for letter in letters) == sorted(result.id for result in bad)
    assert codes == [0, 0], "who survived stops in peace"
    if target:
        # Each poison takes a worker twice at most; its last try takes the child, and nobody else.
        assert fleet.deaths <= 4
