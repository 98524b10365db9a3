"""Bodies that fork, as `multiprocessing` does: their children do not disturb the worker, and share nothing of
it.
"""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from helpers import fork_bodies
from helpers.forked import TESTS, Forked
from helpers.notes import lines
from helpers.processes import is_gone
from helpers.stopwatch import Stopwatch
from helpers.waiting import until

from asyncq import Worker, WorkerLost

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = pytest.mark.anyio


class Workers:
    """Starts `asyncq worker` processes that run `helpers.fork_bodies`, each in a process group of its own."""

    def __init__(self, url: str, namespace: str) -> None:
        self._environ = {
            **os.environ,
            "PYTHONPATH": str(TESTS),
            "ASYNCQ_URL": url,
            "ASYNCQ_NAMESPACE": namespace,
            "ASYNCQ_LEASE": "2",
        }
        self.started: list[Forked] = []

    def start(self, *words: str) -> Forked:
        arguments = ["-m", "asyncq", "worker", "helpers.fork_bodies:app", "--quiet", *words]
        null = subprocess.DEVNULL
        self.started.append(Forked(arguments, TESTS, self._environ, stdout=null, stderr=null))
        return self.started[-1]


@pytest.fixture
def workers(server_url: str, namespace: str) -> Iterator[Workers]:
    workers = Workers(server_url, namespace)
    yield workers
    for worker in workers.started:
        worker.kill()
        worker.wait(30)


@pytest.fixture
def log(tmp_path: Path) -> Iterator[str]:
    path = tmp_path / "log"
    yield str(path)
    for pid in noted(str(path), "child"):  # children that a test has left
        if not is_gone(pid):
            os.kill(pid, signal.SIGKILL)


def noted(path: str, word: str) -> list[int]:
    """Returns the process ids that bodies have noted after a word."""
    found = [line.split() for line in lines(Path(path))]
    return [int(pid) for first, pid in found if first == word]


async def test_process_pools_and_child_processes_work_in_all_executors_and_stop_no_worker(app, workers):
    worker = workers.start()
    jobs = [(f"pooled.{executor}", "fork") for executor in fork_bodies.EXECUTORS]
    for name, method in [*jobs, ("pooled.thread", "spawn"), ("pooled.process", "forkserver")]:
        result = await app.send(name, (method,))
        assert (name, method, await result.get(timeout=60)) == (name, method, fork_bodies.EXPECTED)
    assert worker.poll() is None
    worker.terminate()
    assert await asyncio.to_thread(worker.wait, 30) == 0


async def test_a_signal_to_a_process_group_counts_as_one_signal(app, workers, log, tmp_path):
    worker = workers.start("--grace", "60")
    result = await app.send("has_children", (log, str(tmp_path / "gate")))
    await until(lambda: len(noted(log, "child")) == 2, "two children")
    child, _ = noted(log, "child")
    for pid in (worker.pid, child):  # not the process group: that of the tests has more members
        os.kill(pid, signal.SIGTERM)
    await until(lambda: is_gone(child), "the forked child to end")
    (tmp_path / "gate").touch()
    assert await result.get(timeout=30) == "done", "one signal lets running jobs end"
    assert await asyncio.to_thread(worker.wait, 30) == 0


async def test_processes_end_with_their_killed_worker_though_its_forked_children_live_on(
    app, workers, log, tmp_path
):
    worker = workers.start()
    await app.send("has_children", (log, str(tmp_path / "gate")))
    await app.send("waits", (log,))
    (process,) = await until(lambda: noted(log, "process"), "the process to run")
    await until(lambda: len(noted(log, "child")) == 2, "two children")
    worker.kill()
    await until(lambda: is_gone(process), "the process to end with its worker")
    assert not any(map(is_gone, noted(log, "child")))


async def test_a_worker_that_leaves_a_thread_behind_ends_the_processes_that_the_thread_started(
    app, workers, log
):
    worker = workers.start("--grace", "100ms")
    await app.send("holds_a_process", (log,))
    (child,) = await until(lambda: noted(log, "child"), "the body's process to run")
    worker.terminate()
    assert await asyncio.to_thread(worker.wait, 30) == 75
    await until(lambda: is_gone(child), "the body's process to end")


async def test_the_end_of_a_process_is_noticed_though_its_child_keeps_its_connection_open(make_app, log):
    async with make_app() as app:
        function = fork_bodies.forks_and_dies.function
        task = app.task(name="forks_and_dies", executor="process")(function)
        async with Worker(app):
            stopwatch = Stopwatch()
            with pytest.raises(WorkerLost, match="SIGKILL"):
                await task.call(log)
            assert stopwatch.took < 10
    assert not is_gone(noted(log, "child")[0])


async def test_a_forked_child_starts_jobs_and_learns_that_no_worker_is_reachable(app):
    @app.task
    async def double(number: int) -> int:
        return 2 * number

    @app.task
    def forks() -> tuple[int, str]:
        return fork_bodies.ask_in_child(double)

    async with Worker(app):
        value, text = await forks.call()
    assert value == 14
    assert "forked child" in text
