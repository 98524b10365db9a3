"""Poison jobs beside innocent ones: the death of a worker hits all of its jobs, but only poison jobs are
given up.
"""

from __future__ import annotations

import asyncio
import importlib
import os
import signal
import subprocess
import sys
import time
from typing import TYPE_CHECKING

import pytest
from helpers import servers
from helpers.claiming import ClaimingConsumer
from helpers.figures import report
from helpers.processes import is_stopped
from helpers.signed import of_secrets
from helpers.stopwatch import Stopwatch
from helpers.waiting import until

from asyncq import Worker, WorkerLost
from asyncq.worker.processes import liveness

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from asyncq import AsyncQ

pytestmark = pytest.mark.anyio

TASKS = """
import asyncio, os
import asyncq

app = asyncq.AsyncQ()

@app.task(name="poison")
async def poison() -> None:
    await asyncio.sleep(0.05)  # the jobs beside it have started by then
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
    """Two workers. When one dies, another one replaces it, as with a supervisor."""

    def __init__(self, folder: Path, url: str, namespace: str, target: str) -> None:
        (folder / "poison_tasks.py").write_text(TASKS)
        (folder / "poison_worker.py").write_text(WORKER)
        kept = {name: value for name, value in os.environ.items() if not name.startswith("ASYNCQ_")}
        self._environment = {
            **kept,
            **of_secrets(),
            "ASYNCQ_URL": url,
            "ASYNCQ_NAMESPACE": namespace,
            "ASYNCQ_LEASE": "1",
            **servers.for_processes(),
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
        """Stops all workers, and returns their exit codes."""
        self._keeper.cancel()
        for worker in self._workers:
            # A worker that has just been started does not handle signals yet.
            ready = self._folder / f"ready-{worker.pid}"
            await until(lambda ready=ready: ready.exists(), "a worker to heed signals")
            worker.terminate()
        return [await asyncio.to_thread(worker.wait, 20) for worker in self._workers]


@pytest.mark.parametrize(
    "target",
    [
        pytest.param("poison_tasks:app", id="of a module that the worker was given"),
        pytest.param("", id="of a module that it finds", marks=pytest.mark.trial),
    ],
)
async def test_every_innocent_job_succeeds_and_every_poison_job_is_lost(
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
        stopwatch = Stopwatch()
        fleet = Fleet(tmp_path, server_url, namespace, target)
        try:
            workers = [*await first.get(timeout=80), *await rest.get(timeout=80)]
            ends = [await result.outcome(timeout=80) for result in bad]
        finally:
            codes = await fleet.stop()
        took = stopwatch.took
        report(
            f"120 innocent and 2 poison jobs, target={target!r}: {took:.1f} s, {fleet.deaths} workers died"
        )
        letters = await app.control.dead.list()
    assert len(workers) == 120
    assert [(type(end.error), end.attempts) for end in ends] == [(WorkerLost, 3)] * 2
    assert sorted(letter.job_id for letter in letters) == sorted(result.id for result in bad)
    assert codes == [0, 0], "the workers that survived stop normally"
    # Each poison job kills a worker at most twice. Its last attempt kills only the child process.
    assert fleet.deaths <= 4


async def _die_with(app: AsyncQ, queue: str, count: int) -> None:
    """Lets a worker read jobs and die with them. With max_crashes=2, their next attempt is the last."""
    commands = app.sessions.current().broker.commands
    gone = ClaimingConsumer(commands, "gone", [queue])
    await gone.make_groups()
    for keys, command in gone.beat_commands(1):
        await commands.send(keys, *command)
    for _ in range(count):
        assert len(await gone.read(list(gone.served.streams), 1, block=True)) == 1
    gone.close()


async def test_the_last_attempt_of_an_app_made_in_a_function_runs_beside_other_jobs(make_app, caplog):
    async with make_app(max_crashes=2, lease=0.6) as app:
        gate, started = asyncio.Event(), []

        @app.task
        async def hold(name: str) -> str:
            started.append(name)
            await gate.wait()
            return name

        first = await hold.map([("last",), ("last too",)])
        await _die_with(app, "default", 2)
        async with Worker(app):
            other = await hold.delay("other")
            await until(lambda: len(started) == 2, "one last attempt to start beside another job")
            later = await hold.delay("later")
            await until(lambda: "later" in started, "the worker to take more jobs meanwhile")
            assert len(started) == 3, "one last attempt at a time"
            gate.set()
            assert await first.get(timeout=20) == ["last", "last too"]
            assert [await each.get(timeout=20) for each in (other, later)] == ["other", "later"]
    assert caplog.text.count("is on its last try before max_crashes") == 2


async def test_the_next_last_attempt_starts_after_the_one_before_though_no_other_job_arrives(make_app):
    async with make_app(max_crashes=2, lease=0.6) as app:
        started = []

        @app.task
        async def note() -> None:
            started.append(time.monotonic())

        jobs = await note.map([()] * 20)
        await _die_with(app, "default", 20)
        async with Worker(app):
            await jobs.get(timeout=30)
    assert started[-1] - started[0] < 5, "not half a second each"


LASTING = """
import asyncio, os, pathlib, signal, time
import asyncq

app = asyncq.AsyncQ()

@app.task
async def meet(folder: str, count: int) -> int:
    # Returns when so many run at the same time.
    pathlib.Path(folder, str(os.getpid())).touch()
    while len(os.listdir(folder)) < count:
        await asyncio.sleep(0.01)
    return os.getpid()

@app.task
async def freeze(file: str) -> None:
    pathlib.Path(file).write_text(str(os.getpid()))
    os.kill(os.getpid(), signal.SIGSTOP)

@app.task(executor="process")
def freeze_apart(file: str) -> None:
    pathlib.Path(file).write_text(str(os.getpid()))
    os.kill(os.getpid(), signal.SIGSTOP)

@app.task(queue="forks")
async def fork(started: str, file: str) -> None:
    # Has a copy of all that the worker has open, once the other job has started.
    while not os.path.exists(started):
        await asyncio.sleep(0.01)
    if pid := os.fork():
        pathlib.Path(file + ".new").write_text(str(pid))
        os.rename(file + ".new", file)
    else:
        time.sleep(120)
        os._exit(0)

@app.task
async def sleep(file: str, seconds: float) -> int:
    pathlib.Path(file).write_text(str(os.getpid()))
    await asyncio.sleep(seconds)
    return os.getpid()
"""


@pytest.fixture
def lasting(server_url, namespace, tmp_path, monkeypatch):
    """Writes a module that has an app."""
    (tmp_path / "lasting_tasks.py").write_text(LASTING)
    (tmp_path / "met").mkdir()
    limits = {"lease": "0.6", "max_crashes": "2", "last_tries": "2"}
    for name, value in {"url": server_url, "namespace": namespace, **limits}.items():
        monkeypatch.setenv(f"ASYNCQ_{name.upper()}", value)
    monkeypatch.syspath_prepend(tmp_path)
    # Python ignores such entries, and a program may have them.
    monkeypatch.setattr(sys, "path", [*sys.path, tmp_path])
    monkeypatch.setattr(sys, "argv", [*sys.argv, tmp_path])
    module = importlib.import_module("lasting_tasks")
    yield module
    del sys.modules["lasting_tasks"]


async def test_last_attempts_of_a_worker_in_a_program_run_side_by_side_in_processes(lasting, tmp_path):
    async with lasting.app as app:
        # The jobs are in a queue that the app does not name.
        jobs = await lasting.meet.options(queue="other").map([(str(tmp_path / "met"), 2)] * 2)
        await _die_with(app, "other", 2)
        async with Worker(app, queues=["other"]):
            pids = await jobs.get(timeout=60)
    assert len({*pids, os.getpid()}) == 3, "each in a process of its own"


async def test_last_attempts_run_in_the_worker_if_another_process_lacks_a_task(lasting, tmp_path, caplog):
    async with lasting.app as app:

        @app.task
        async def made_here() -> int:
            return os.getpid()

        jobs = [await lasting.meet.delay(str(tmp_path / "met"), 1), await made_here.delay()]
        await _die_with(app, "default", 2)
        async with Worker(app):
            assert [await job.get(timeout=60) for job in jobs] == [os.getpid()] * 2
    assert "could not import lasting_tasks:app" in caplog.text


async def test_a_process_that_freezes_in_a_last_attempt_is_killed(lasting, tmp_path, caplog, monkeypatch):
    monkeypatch.setattr(liveness, "SHORTEST_SILENCE", 1.0)
    file = tmp_path / "pid"
    async with lasting.app as app:
        frozen = await lasting.freeze.delay(str(file))
        await _die_with(app, "default", 1)
        async with Worker(app):
            end = await frozen.outcome(timeout=60)
            assert (type(end.error), end.attempts) == (WorkerLost, 2)
            pid = int(file.read_text())
            await until(lambda: not _exists(pid), "the process to end")
    assert "did not respond for 2 s; it is killed" in caplog.text
    assert "has killed its process (signal 9)" in caplog.text


@pytest.mark.parametrize(
    ("seconds", "grace"),
    [(1.5, 20.0), pytest.param(30.0, 0.1, marks=pytest.mark.trial)],
    ids=["ends", "is handed back"],
)
async def test_a_last_attempt_has_its_workers_grace_and_its_process_ends_with_the_worker(
    lasting, tmp_path, seconds, grace
):
    file = tmp_path / "pid"
    async with lasting.app as app:
        job = await lasting.sleep.delay(str(file), seconds)
        await _die_with(app, "default", 1)
        async with Worker(app, grace=grace):
            await until(lambda: file.exists() and file.read_text(), "the last attempt to start", 30)
        assert not _exists(int(file.read_text()))
        assert await job.refresh() == ("SUCCESS" if seconds < grace else "PENDING")


async def test_a_last_attempt_has_its_grace_though_a_service_manager_signals_its_process_as_well(
    lasting, tmp_path
):
    file = tmp_path / "pid"
    async with lasting.app as app:
        job = await lasting.sleep.delay(str(file), 1.5)
        await _die_with(app, "default", 1)
        async with Worker(app, grace=20.0):
            await until(lambda: file.exists() and file.read_text(), "the last attempt to start", 30)
            os.kill(int(file.read_text()), signal.SIGTERM)
        assert await job.refresh() == "SUCCESS"


async def test_the_process_of_a_last_attempt_ends_after_its_worker_is_killed(lasting, tmp_path):
    file = tmp_path / "pid"
    async with lasting.app as app:
        job = await lasting.sleep.delay(str(file), 0.5)
        pid = await _started_by_a_worker_that_is_killed(app, file)
        assert await job.get(timeout=30) == pid, "it may end the job that it has started"
        await until(lambda: not _exists(pid), "the process to end", 30)


@pytest.mark.trial
async def test_a_last_attempt_is_handed_back_after_its_worker_is_killed_though_a_fork_of_it_lives(
    lasting, tmp_path, monkeypatch
):
    monkeypatch.setenv("ASYNCQ_GRACE", "0.1")
    file, fork = tmp_path / "pid", tmp_path / "fork"
    async with lasting.app as app:
        job = await lasting.sleep.delay(str(file), 60)
        await lasting.fork.delay(str(file), str(fork))
        pid = await _started_by_a_worker_that_is_killed(app, file, once=lambda _: fork.exists())
        try:
            await until(lambda: not _exists(pid), "the process to end", 30)
        finally:
            os.kill(int(fork.read_text()), signal.SIGKILL)
        assert await job.refresh() == "PENDING"


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells a process of its parent's death")
@pytest.mark.parametrize(
    "is_last_try",
    [pytest.param(True, marks=pytest.mark.trial), False],
    ids=["in a last attempt", "of a process task"],
)
async def test_a_stopped_process_ends_after_its_worker_is_killed(lasting, tmp_path, is_last_try):
    file = tmp_path / "pid"
    async with lasting.app as app:
        task = lasting.freeze if is_last_try else lasting.freeze_apart
        await task.delay(str(file))
        pid = await _started_by_a_worker_that_is_killed(app, file, is_last_try=is_last_try, once=is_stopped)
        await until(lambda: not _exists(pid), "the process to end", 30)


async def _started_by_a_worker_that_is_killed(
    app: AsyncQ, file: Path, *, is_last_try: bool = True, once: Callable[[int], bool] = lambda _: True
) -> int:
    """Returns the process that runs the waiting job, after the worker that started the process died."""
    if is_last_try:
        await _die_with(app, "default", 1)
    code = "import asyncio, lasting_tasks, asyncq; asyncio.run(asyncq.Worker(lasting_tasks.app).run())"
    environment = {**os.environ, "PYTHONPATH": str(file.parent)}
    worker = await asyncio.create_subprocess_exec(sys.executable, "-c", code, env=environment)
    pids: list[int] = []

    def has_started() -> bool:
        pids[:] = map(int, file.read_text().split()) if file.exists() else []
        return bool(pids) and once(pids[0])

    try:
        await until(has_started, "the job to start", 90)
    finally:
        worker.kill()
        await worker.wait()
    return pids[0]


def _exists(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True
