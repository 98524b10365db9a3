"""Workers that end by themselves, or are replaced: `--burst`, `--max-jobs`, `--max-memory` and `--reload`."""

from __future__ import annotations

import asyncio
import os
import re
import signal
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from helpers.error_output import until_line
from helpers.waiting import until

if TYPE_CHECKING:
    from collections.abc import Callable

    from helpers.forked import Forked

pytestmark = pytest.mark.anyio

TASKS = """
import asyncio, os
import asyncq
from asyncq import AsyncQ

VERSION = 1
app = AsyncQ(lease=2)
kept = []

@app.task(name="who")
async def who() -> list[int]:
    return [os.getpid(), VERSION]

@app.task(name="again")
async def again(left: int) -> None:
    if left:
        await again.delay(left - 1)

@app.task(name="fail")
async def fail() -> None:
    raise ValueError("no such luck")

@app.task(name="keep")
async def keep(mebibytes: int) -> int:
    kept.append(os.urandom(mebibytes << 20))
    return os.getpid()

@app.task(name="nap")
async def nap(seconds: float) -> int:
    await asyncio.sleep(seconds)
    return VERSION
"""


@pytest.fixture
def start(project, server_url, namespace) -> Callable[..., Forked]:
    """Starts workers on the server and in the namespace of the test's app."""
    project.write("jobs.py", TASKS)

    def start(*words: str) -> Forked:
        served = {"ASYNCQ_URL": server_url, "ASYNCQ_NAMESPACE": namespace}
        return project.start("worker", "jobs", *words, **served)

    return start


@pytest.fixture
def tasks(app):
    """Stand-ins for the tasks, on the test's app."""

    async def who() -> list[int]: ...

    async def again(left: int) -> None: ...

    async def fail() -> None: ...

    async def keep(mebibytes: int) -> int: ...

    async def nap(seconds: float) -> int: ...

    return {each.__name__: app.task(name=each.__name__)(each) for each in (who, again, fail, keep, nap)}


# -- until no jobs are left --


@pytest.mark.parametrize("workers", ["1", "2"])
async def test_a_burst_ends_with_exit_code_0_when_all_jobs_and_those_that_they_enqueue_have_ended(
    start, tasks, workers
):
    results = [await tasks["again"].delay(5) for _ in range(4)]

    process = start("--burst", "-w", workers)
    _, errors = await asyncio.to_thread(process.communicate, timeout=60)

    assert process.returncode == 0, errors
    assert [await each.refresh() for each in results] == ["SUCCESS"] * 4
    done = sum(map(int, re.findall(r"stopped: (\d+) jobs? done", errors)))
    assert done == 24, errors
    assert "no jobs left (--burst): it reads no more jobs" in errors


@pytest.mark.parametrize("workers", ["1", "2"])
async def test_a_burst_over_an_empty_queue_ends_at_once(start, workers):
    process = start("--burst", "-w", workers)
    _, errors = await asyncio.to_thread(process.communicate, timeout=60)
    assert process.returncode == 0, errors


@pytest.mark.parametrize(("words", "code"), [((), 0), (("--fail-on-error",), 1)])
@pytest.mark.parametrize("workers", ["1", "2"])
async def test_a_burst_says_by_its_exit_code_whether_a_job_has_failed_if_it_is_asked_to(
    start, tasks, words, code, workers
):
    await tasks["fail"].delay()
    process = start("--burst", "-w", workers, *words)
    _, errors = await asyncio.to_thread(process.communicate, timeout=60)
    assert process.returncode == code, errors


def test_fail_on_error_without_burst_is_a_usage_error(project):
    ended = project.run("worker", "shop", "--fail-on-error")
    assert (ended.code, ended.out) == (2, "")
    assert ended.err.startswith("error: --fail-on-error needs --burst\n")


# -- a new process after so much --


async def test_a_worker_that_has_run_enough_jobs_makes_room_for_a_new_process(start, tasks, stop):
    process = start("--max-jobs", "3")
    first = int(re.search(r"\(pid (\d+)\)", until_line(process, "ready"))[1])

    ran_in = {(await tasks["who"].call())[0] for _ in range(3)}
    assert ran_in == {first}
    ended = until_line(process, "runs again")
    assert re.search(rf"INFO +worker '\S+' \(pid {first}\) has ended after 3 jobs \(--max-jobs\)", ended)
    assert "WARNING" not in ended
    assert (await tasks["who"].call())[0] not in {first, process.pid}
    stopped = await asyncio.to_thread(stop, process, signal.SIGTERM)
    assert stopped.code == 0, stopped


async def test_jobs_that_run_when_the_limit_is_reached_end_where_they_are(start, tasks, stop):
    process = start("--max-jobs", "1")
    until_line(process, "ready")
    long = await tasks["nap"].delay(2)

    await tasks["who"].call()

    assert await long.get(timeout=30) == 1
    assert "0 handed back" in until_line(process, "stopped: 2 jobs done")
    stopped = await asyncio.to_thread(stop, process, signal.SIGTERM)
    assert stopped.code == 0, stopped


async def test_a_worker_that_needs_too_much_memory_makes_room_for_a_new_process(start, tasks, stop):
    process = start("--max-memory", "200mb")
    until_line(process, "ready")

    first = await tasks["keep"].call(10)
    second = await tasks["keep"].call(200)

    assert first == second
    assert re.search(
        rf"pid {first}\) has ended after \d+ MiB of memory", until_line(process, "takes its place")
    )
    until_line(process, "runs again")
    assert await tasks["keep"].call(1) != first
    stopped = await asyncio.to_thread(stop, process, signal.SIGTERM)
    assert stopped.code == 0, stopped


# -- a new process after a change of the code --


async def test_a_change_of_the_code_starts_workers_anew_and_a_syntax_error_waits_for_the_next(
    project, start, tasks, stop
):
    process = start("--reload")
    until_line(process, "ready")
    assert (await tasks["who"].call())[1] == 1
    interrupted = await tasks["nap"].delay(20)

    project.write(
        "jobs.py", TASKS.replace("VERSION = 1", "VERSION = 2").replace("sleep(seconds)", "sleep(0)")
    )
    until_line(process, "jobs.py changed")
    until_line(process, "rolled over 1 workers")
    assert (await tasks["who"].call())[1] == 2
    assert await interrupted.get(timeout=15) == 2, "it was handed back, and ran again"

    project.write("jobs.py", "def broken(\n")
    assert "SyntaxError" in until_line(process, " ERROR ")
    assert (await tasks["who"].call())[1] == 2

    project.write("jobs.py", TASKS.replace("VERSION = 1", "VERSION = 3"))
    until_line(process, "rolled over 1 workers")
    assert (await tasks["who"].call())[1] == 3
    stopped = await asyncio.to_thread(stop, process, signal.SIGTERM)
    assert stopped.code == 0, stopped


async def test_two_changes_within_a_second_that_keep_the_length_of_the_file_both_count(
    project, start, tasks, stop
):
    process = start("--reload")
    until_line(process, "ready")
    assert (await tasks["who"].call())[1] == 1
    file = project.folder / "jobs.py"
    before = file.stat()

    project.write("jobs.py", TASKS.replace("VERSION = 1", "VERSION = 2"))
    os.utime(file, (before.st_atime, before.st_mtime))
    until_line(process, "rolled over 1 workers")
    assert (await tasks["who"].call())[1] == 2
    stopped = await asyncio.to_thread(stop, process, signal.SIGTERM)
    assert stopped.code == 0, stopped


async def test_an_app_that_is_broken_at_the_start_is_started_when_it_is_mended(project, start, tasks, stop):
    project.write("jobs.py", "def broken(\n")
    process = start("--reload")
    assert "is tried again when a file changes" in until_line(process, "SyntaxError")

    project.write("jobs.py", TASKS)
    until_line(process, "ready")

    assert (await tasks["who"].call())[1] == 1
    stopped = await asyncio.to_thread(stop, process, signal.SIGTERM)
    assert stopped.code == 0, stopped


async def test_a_reload_that_waits_for_a_mended_file_can_be_stopped(project, start, stop):
    project.write("jobs.py", "def broken(\n")
    process = start("--reload")
    until_line(process, "is tried again when a file changes")
    stopped = await asyncio.to_thread(stop, process, signal.SIGTERM)
    assert stopped.code == 0, stopped


# -- the first process of a container --


@pytest.mark.skipif(os.geteuid() != 0, reason="only root may make a namespace of process ids")
async def test_the_first_process_of_a_container_stops_at_a_signal_and_leaves_no_zombies(
    project, server_url, namespace, app, tmp_path
):
    project.write(
        "jobs.py",
        """
import asyncio, os
from asyncq import AsyncQ
app = AsyncQ()

@app.task(name="orphan")
async def orphan() -> int:
    process = await asyncio.create_subprocess_exec("sh", "-c", "sleep 0.1 & echo $!", stdout=-1)
    return int((await process.communicate())[0])

@app.task(name="zombies")
async def zombies() -> list[str]:
    found = []
    for name in os.listdir("/proc"):
        if name.isdecimal():
            try:
                with open(f"/proc/{name}/stat") as file:
                    fields = file.read().rpartition(")")[2].split()
            except FileNotFoundError:
                continue
            if fields[0] == "Z":
                found.append(name)
    return found
""",
    )

    async def orphan() -> int: ...

    async def zombies() -> list[str]: ...

    orphan, zombies = (app.task(name=each.__name__)(each) for each in (orphan, zombies))
    alone = ["unshare", "--fork", "--pid", "--mount-proc", "--kill-child"]
    process = subprocess.Popen(  # noqa: ASYNC220  it takes a moment
        [*alone, sys.executable, "-m", "asyncq", "worker", "jobs", "--name", "w"],
        cwd=project.folder,
        env={**project.environ, "ASYNCQ_URL": server_url, "ASYNCQ_NAMESPACE": namespace},
        stderr=subprocess.PIPE,
        text=True,
    )
    project._running.append(process)
    line = ""
    while "ready" not in line:
        line = process.stderr.readline()
        if not line and process.wait(30) == 1:
            pytest.skip("this machine lets nobody make a namespace of process ids")
        assert line

    assert await orphan.call() > 2

    async def none() -> bool:
        return await zombies.call() == []

    await until(none, "the orphan to be reaped")
    inner = await until(lambda: _children(process.pid), "the first process of the namespace")
    os.kill(inner[0], signal.SIGTERM)
    _, errors = await asyncio.to_thread(process.communicate, timeout=30)
    assert (process.returncode, "draining" in errors, "stopped" in errors) == (0, True, True), errors


def _children(pid: int) -> list[int]:
    return list(map(int, Path(f"/proc/{pid}/task/{pid}/children").read_text().split()))
