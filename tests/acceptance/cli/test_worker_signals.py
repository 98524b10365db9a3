"""SIGUSR1 shows what each job of a worker does, SIGUSR2 toggles quiet: real processes, and real signals."""

from __future__ import annotations

import asyncio
import os
import re
import signal
import threading
from typing import TYPE_CHECKING

import pytest
from helpers.waiting import until, until_sync

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from helpers.forked import Forked

    from asyncq import AsyncResult

pytestmark = pytest.mark.anyio

TASKS = """
import asyncio, time
import asyncq
from asyncq import AsyncQ

app = AsyncQ(lease=2)

def started(gate: str) -> None:
    open(f"{gate}-{asyncq.current().id}", "w").close()

async def deep_inside(gate: str) -> None:
    import os
    started(gate)
    while not os.path.exists(gate):
        await asyncio.sleep(0.01)

@app.task(name="waits")
async def waits(gate: str) -> None:
    await deep_inside(gate)

@app.task(name="in_thread")
def in_thread(gate: str) -> None:
    import os
    started(gate)
    while not os.path.exists(gate):
        time.sleep(0.01)

def compute(gate: str) -> None:
    import os
    while not os.path.exists(gate):
        time.sleep(0.01)

@app.task(name="block_the_loop")
async def block_the_loop(gate: str) -> None:
    await asyncio.sleep(0.05)
    open(gate + "-started", "w").close()
    compute(gate)
"""


@pytest.fixture
def start(project, server_url, namespace) -> Callable[..., Forked]:
    """Starts workers on the server and in the namespace of the test's app; returns when they are ready."""

    def start(*words: str) -> Forked:
        project.write("jobs.py", TASKS)
        served = {"ASYNCQ_URL": server_url, "ASYNCQ_NAMESPACE": namespace, "ASYNCQ_STALL_WARNING": "0"}
        process = project.start("worker", "jobs", *words, **served)
        process.log = Log(process)
        process.log.until("ready in")
        return process

    return start


@pytest.fixture
def tasks(app):
    """Stand-ins for the tasks, on the test's app."""

    async def waits(gate: str) -> None: ...

    async def in_thread(gate: str) -> None: ...

    async def block_the_loop(gate: str) -> None: ...

    return {each.__name__: app.task(name=each.__name__)(each) for each in (waits, in_thread, block_the_loop)}


@pytest.fixture
def gate(tmp_path):
    return tmp_path / "gate"


class Log:
    """Reads what a process writes on stderr, on a thread of its own."""

    def __init__(self, process: Forked) -> None:
        self.text = ""
        self._process = process
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        for line in self._process.stderr:
            self.text += line

    def until(self, *texts: str) -> str:
        """Waits until all of these are in the log, and returns the log."""
        until_sync(lambda: all(text in self.text for text in texts), lambda: f"{texts} in {self.text}")
        return self.text

    def end(self) -> int:
        """Stops the process, reads the rest, and returns the exit code."""
        self._process.terminate()
        code = self._process.wait(30)
        self._reader.join(30)
        return code


async def until_started(gate: Path, results: list[AsyncResult[None]]) -> None:
    """Waits until the bodies of jobs run. A job is STARTED a moment earlier: when a worker has taken it."""
    marks = [gate.with_name(f"{gate.name}-{result.id}") for result in results]
    await until(lambda: all(mark.exists() for mark in marks), "the bodies to run")


def pids(process: Forked) -> dict[str, int]:
    """Returns the worker processes that a banner lists, by name."""
    return {name: int(pid) for name, pid in re.findall(r"([\w.-]+) \(pid (\d+)\)", process.log.text)}


async def test_sigusr1_logs_each_job_of_a_worker_with_its_stack_and_the_worker_goes_on(start, tasks, gate):
    process = start("--name", "w")
    results = [await tasks[name].delay(str(gate)) for name in ("waits", "in_thread")]
    await until_started(gate, results)
    process.send_signal(signal.SIGUSR1)
    text = await asyncio.to_thread(
        process.log.until, "in deep_inside", "await asyncio.sleep(0.01)", "in in_thread", "time.sleep(0.01)"
    )
    assert " INFO    2 jobs here (SIGUSR1)" in text
    for result, name in zip(results, ("waits", "in_thread"), strict=True):
        assert f"{name} {result.id}: attempt 1, running" in text
    gate.touch()
    for result in results:
        await result.get(timeout=30)
    assert await asyncio.to_thread(process.log.end) == 0


@pytest.mark.parametrize("loop", ["asyncio", "uvloop"])
async def test_sigusr1_shows_the_line_at_which_a_job_blocks_the_loop(start, tasks, gate, loop):
    """Nothing that goes through the loop could answer here."""
    process = start("--loop", loop, "--log-level", "error")
    started = gate.with_name("gate-started")
    result = await tasks["block_the_loop"].delay(str(gate))
    await until(started.exists, "the job to block the loop")
    process.send_signal(signal.SIGUSR1)
    text = await asyncio.to_thread(process.log.until, "in block_the_loop", "compute(gate)", "in compute")
    assert " ERROR   1 job here (SIGUSR1)" in text, "also where INFO is not logged"
    assert "/asyncq/" not in text, "frames above the body are left out"
    gate.touch()
    await result.get(timeout=30)
    assert await asyncio.to_thread(process.log.end) == 0


async def test_sigusr2_makes_a_worker_quiet_and_the_next_one_ends_that(start, app, tasks, gate):
    gate.touch()
    process = start("--name", "w")
    process.send_signal(signal.SIGUSR2)
    await until(lambda: _quiet(app, {"w": True}), "the worker to report that it is quiet")
    waiting = await tasks["waits"].delay(str(gate))
    assert "quiet" in str(await app.control.why(waiting.id))
    assert await waiting.refresh() == "PENDING"
    process.send_signal(signal.SIGUSR2)
    await waiting.get(timeout=30)
    await until(lambda: _quiet(app, {"w": False}), "the worker to report that it takes jobs")
    assert await asyncio.to_thread(process.log.end) == 0


async def _quiet(app, expected: dict[str, bool]) -> bool:
    return {info.name: info.quiet for info in await app.control.workers()} == expected


async def test_a_supervisor_passes_sigusr1_on_to_its_workers(start, tasks, gate):
    process = start("-w", "2", "-c", "1", "--name", "w")
    results = [await tasks["waits"].delay(str(gate)) for _ in range(2)]
    await until_started(gate, results)
    process.send_signal(signal.SIGUSR1)
    ids = [result.id for result in results]
    await asyncio.to_thread(process.log.until, *(f"waits {id_}: attempt 1, running" for id_ in ids))
    assert process.log.text.count("1 job here (SIGUSR1)") == 2
    gate.touch()
    for result in results:
        await result.get(timeout=30)
    assert await asyncio.to_thread(process.log.end) == 0


async def test_workers_of_a_quiet_supervisor_stay_quiet_also_if_they_are_signalled_or_replaced(
    start, app, tasks, gate
):
    gate.touch()
    process = start("-w", "2", "--name", "w")
    workers = pids(process)
    for pid in (process.pid, *workers.values()):  # as `systemctl kill` does
        os.kill(pid, signal.SIGUSR2)
    await until(lambda: _quiet(app, {"w-1": True, "w-2": True}), "both to report that they are quiet")
    os.kill(workers["w-1"], signal.SIGKILL)
    await asyncio.to_thread(process.log.until, "worker 'w-1' runs again")
    waiting = await tasks["waits"].delay(str(gate))
    assert {info.quiet for info in await app.control.workers() if info.pid != workers["w-1"]} == {True}
    assert await waiting.refresh() == "PENDING"
    process.send_signal(signal.SIGUSR2)
    await waiting.get(timeout=30)
    assert await asyncio.to_thread(process.log.end) == 0


def test_both_signals_before_the_app_is_imported_end_no_worker(project):
    project.write(
        "slow.py",
        "import time, pathlib\n"
        "from asyncq import AsyncQ\n"
        "pathlib.Path('importing').touch()\n"
        "while not pathlib.Path('go').exists(): time.sleep(0.01)\n"
        "app = AsyncQ()\n",
    )
    process = project.start("worker", "slow")
    project.wait_for("importing")
    process.send_signal(signal.SIGUSR1)
    process.send_signal(signal.SIGUSR2)
    (project.folder / "go").touch()
    log = Log(process)
    log.until("ready in")
    assert log.end() == 0
