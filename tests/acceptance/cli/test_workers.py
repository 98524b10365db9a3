"""`asyncq worker --workers N`: one supervisor, N worker processes, one banner, no job lost."""

from __future__ import annotations

import asyncio
import json
import os
import re
import signal
import subprocess
import sys
from typing import IO, TYPE_CHECKING

import pytest
from helpers.error_output import until_line
from helpers.forked import Forked
from helpers.notes import lines
from helpers.processes import is_gone
from helpers.stopwatch import Stopwatch
from helpers.waiting import until

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

pytestmark = [
    pytest.mark.anyio,
    pytest.mark.skipif(sys.platform != "linux", reason="asks /proc whether a process has ended"),
]

TASKS = """
import asyncio, os, time
import asyncq
from asyncq import AsyncQ

VERSION = 1
app = AsyncQ(lease=2)

def note(log: str, text: str) -> None:
    with open(log, "ab", buffering=0) as file:
        file.write(f"{text}\\n".encode())

note("imports", str(os.getpid()))

@app.task(name="who")
async def who(log: str, seconds: float) -> list[object]:
    note(log, asyncq.current().id)
    await asyncio.sleep(seconds)
    return [asyncq.current().worker, os.getpid(), VERSION]

@app.task(name="hold")
async def hold(log: str, gate: str) -> int:
    note(log, "start")
    while not os.path.exists(gate):
        await asyncio.sleep(0.01)
    return os.getpid()

@app.task(name="block_the_loop")
async def block_the_loop(log: str) -> None:
    note(log, "start")
    time.sleep(60)
"""

ASK = """
import asyncio
from jobs import app, who

async def main() -> None:
    async with app:
        found = await (await who.map([("log", 0.1)] * 8)).get(timeout=30)
        print(*sorted({worker for worker, *_ in found}))

asyncio.run(main())
"""

Worker = Forked | subprocess.Popen[str]


@pytest.fixture
def jobs(project):
    """The project with the tasks of these tests."""
    project.write("jobs.py", TASKS)
    return project


@pytest.fixture
def start(jobs, server_url, namespace) -> Callable[..., Worker]:
    """Starts workers on the server and in the namespace of the test's app; gives them when they are ready."""

    def start(*words: str, **environ: str) -> Worker:
        served = {"ASYNCQ_URL": server_url, "ASYNCQ_NAMESPACE": namespace}
        process = jobs.start("worker", "jobs", *words, **served, **environ)
        process.banner = until_line(process, "ready")
        process.children = _pids(process.banner)
        return process

    return start


@pytest.fixture
def tasks(app):
    """Stand-ins for the tasks, on the test's app."""

    async def who(log: str, seconds: float) -> list[object]: ...

    async def hold(log: str, gate: str) -> int: ...

    async def block_the_loop(log: str) -> None: ...

    return [app.task(name=each.__name__)(each) for each in (who, hold, block_the_loop)]


def _pids(text: str) -> dict[str, int]:
    """Returns the worker processes that a banner lists, by name."""
    return {name: int(pid) for name, pid in re.findall(r"([\w.-]+) \(pid (\d+)\)", text)}


@pytest.fixture
def log(tmp_path: Path) -> Path:
    return tmp_path / "log"


@pytest.fixture
def gate(tmp_path: Path) -> Path:
    return tmp_path / "gate"


@pytest.mark.without_secrets
def test_several_workers_share_the_jobs_and_print_one_banner(jobs, stop):
    """Without a URL: they share the embedded server."""
    process = jobs.start("worker", "jobs", "-w", "2", "-c", "2", "--name", "w", "--grace", "9s")
    head, *rows, ready = until_line(process, "ready").splitlines()
    assert re.fullmatch(r"asyncq 0\.1\.0  2 workers  python 3\.\S+  uvloop", head)
    app, server, queues, runs, workers = rows
    assert app == "  app      jobs:app, 3 tasks, namespace asyncq"
    assert server.startswith("  server   embedded Valkey ")
    assert queues == "  queues   default"
    assert runs == "  runs     each 2 jobs at a time, 32 threads, grace 9 s"
    pids = _pids(workers)
    assert workers == f"  workers  w-1 (pid {pids['w-1']}), w-2 (pid {pids['w-2']})"
    assert ready.startswith("ready in ")
    imports = {int(pid) for pid in lines(jobs.folder / "imports")}
    assert imports == set(pids.values()), "the supervisor does not import the app"
    assert jobs.python(ASK).out == "w-1 w-2\n"
    ended = stop(process, signal.SIGTERM)
    assert ended.code == 0, ended
    assert ended.err.count("draining 2 workers: running jobs have 9 s to end") == 1
    assert sorted(re.findall(r"worker '(w-\d)' stopped: \d+ jobs done, 0 of them failed", ended.err)) == [
        *("w-1", "w-2")
    ]
    assert "asyncq 0.1.0" not in ended.err


async def test_running_jobs_end_if_a_service_manager_signals_supervisor_and_workers_alike(
    start, stop, tasks, log, gate
):
    """As systemd does: each worker gets a SIGTERM of its own, beside the supervisor's wish to stop."""
    _, hold, _ = tasks
    process = start("-w", "2", "-c", "1")
    results = [await hold.delay(str(log), str(gate)) for _ in range(2)]
    await until(lambda: len(lines(log)) == 2, "a job on each worker")
    for pid in (process.pid, *process.children.values()):
        os.kill(pid, signal.SIGTERM)
    until_line(process, "draining 2 workers")
    gate.touch()
    assert {await each.get(timeout=30) for each in results} == set(process.children.values())
    assert process.wait(30) == 0
    assert lines(log) == ["start"] * 2, "none was handed back"


async def test_a_second_signal_hands_running_jobs_back_and_exits_75(start, stop, tasks, log, gate):
    _, hold, _ = tasks
    process = start("-w", "2")
    result = await hold.delay(str(log), str(gate))
    await until(lambda: lines(log), "the job to start")
    ended = await asyncio.to_thread(stop, process, signal.SIGINT, signal.SIGINT)
    assert ended.code == 75, ended
    assert "0 jobs done, 0 of them failed, 1 handed back" in ended.err
    assert await result.refresh() == "PENDING"


async def test_a_third_signal_ends_workers_at_once_that_cannot_stop(start, stop, tasks, log):
    _, _, block_the_loop = tasks
    process = start("-w", "2", ASYNCQ_STALL_WARNING="0")
    await block_the_loop.delay(str(log))
    await until(lambda: lines(log), "the job to start")
    stopwatch = Stopwatch()
    process.send_signal(signal.SIGTERM)
    until_line(process, "draining 2 workers")
    process.send_signal(signal.SIGTERM)
    until_line(process, "handing running jobs back")  # else two signals may count as one
    await until(lambda: any(map(is_gone, process.children.values())), "the other worker to end")
    ended = await asyncio.to_thread(stop, process, signal.SIGTERM)
    assert (ended.code, "ended at once" in ended.err) == (75, True), ended
    assert all(map(is_gone, process.children.values()))
    assert stopwatch.took < 8


async def test_a_worker_that_is_killed_is_restarted_and_its_jobs_are_not_lost(start, stop, tasks, log, gate):
    _, hold, _ = tasks
    process = start("-w", "2", "-c", "5", "--name", "w")
    results = [await hold.delay(str(log), str(gate)) for _ in range(10)]
    await until(lambda: len(lines(log)) == 10, "five jobs on each worker")
    killed = process.children["w-1"]
    os.kill(killed, signal.SIGKILL)
    warning = until_line(process, "has ended")
    assert f" WARNING worker 'w-1' (pid {killed}) has ended: SIGKILL; it is restarted in 0.1 s" in warning
    until_line(process, "worker 'w-1' runs again (pid ")
    gate.touch()
    ran_in = [await each.get(timeout=30) for each in results]
    assert killed not in ran_in
    ended = await asyncio.to_thread(stop, process, signal.SIGTERM)
    assert ended.code == 0, ended


async def test_workers_whose_supervisor_is_killed_hand_back_their_jobs_and_end_within_5_seconds(
    start, tasks, log, gate
):
    _, hold, block_the_loop = tasks
    process = start("-w", "2", "-c", "1", ASYNCQ_STALL_WARNING="0")
    result = await hold.delay(str(log), str(gate))
    stuck = await block_the_loop.delay(str(log))
    await until(lambda: len(lines(log)) == 2, "a job on each worker")
    stopwatch = Stopwatch()
    process.kill()
    await until(lambda: all(map(is_gone, process.children.values())), "the workers to end")
    assert stopwatch.took < 5
    assert await result.refresh() == "PENDING", "handed back, without a wait for the lease"
    output, errors = process.communicate(timeout=30)
    assert errors.count("the supervisor has died") == 2, (output, errors)
    await stuck.revoke()
    gate.touch()
    alone = start()
    assert await result.get(timeout=30) == alone.pid
    alone.terminate()
    assert alone.wait(30) == 0


def _deploy(jobs, version: str, text: str) -> None:
    """Makes a folder with a version of the code, and lets the link `current` lead to it."""
    jobs.write(f"{version}/jobs.py", text)
    link = jobs.folder / "next"
    link.symlink_to(version)
    link.rename(jobs.folder / "current")


async def test_a_rollover_under_load_runs_the_new_code_and_each_job_once(jobs, start, stop, tasks, log):
    who, *_ = tasks
    _deploy(jobs, "v1", TASKS)
    folder, jobs.folder = jobs.folder, jobs.folder / "current"
    process = start("-w", "2", "-c", "10", "--name", "w", PWD=str(jobs.folder))
    jobs.folder = folder
    running: list[asyncio.Task[list[object]]] = []

    async def submit() -> None:
        while True:
            result = await who.delay(str(log), 0.05)
            running.append(asyncio.create_task(result.get(timeout=60)))
            await asyncio.sleep(0.005)

    submitting = asyncio.create_task(submit())
    _deploy(jobs, "v2", TASKS.replace("VERSION = 1", "VERSION = 2"))
    process.send_signal(signal.SIGHUP)
    await asyncio.to_thread(until_line, process, "rolled over 2 workers")
    count = len(running)
    await until(lambda: len(running) >= count + 20, "jobs after the rollover")
    _deploy(jobs, "v3", "import nothing_of_that_name\n")
    process.send_signal(signal.SIGHUP)
    failed = await asyncio.to_thread(until_line, process, " ERROR ")
    assert "because a new worker 'w-1' could not start: cannot import" in failed
    count = len(running)
    await until(lambda: len(running) >= count + 20, "jobs after the rollover that failed")
    submitting.cancel()
    ends = await asyncio.gather(*running)
    assert len(lines(log)) == len(set(lines(log))) == len(running), "each ran once"
    assert {version for *_, version in ends} == {1, 2}
    by_version = {wanted: {pid for _, pid, version in ends if version == wanted} for wanted in (1, 2)}
    assert by_version[1] == set(process.children.values())
    assert len(by_version[2]) == 2
    assert not by_version[1] & by_version[2]
    ended = await asyncio.to_thread(stop, process, signal.SIGTERM)
    assert ended.code == 0, ended


@pytest.fixture
def terminal(jobs, server_url, namespace) -> Iterator[Callable[[], tuple[Worker, IO[bytes]]]]:
    """Starts workers in a terminal of their own; gives them and the terminal's other end."""
    masters: list[IO[bytes]] = []

    def start() -> tuple[Worker, IO[bytes]]:
        master, slave = os.openpty()
        masters.append(os.fdopen(master, "wb", 0))
        name = os.ttyname(slave)
        # A process that leads a session and opens a terminal is controlled by it from then on.
        process = subprocess.Popen(
            ["/bin/sh", "-c", f'exec "$0" -m asyncq worker jobs -w 2 <{name}', sys.executable],
            cwd=jobs.folder,
            env={**jobs.environ, "ASYNCQ_URL": server_url, "ASYNCQ_NAMESPACE": namespace},
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
        jobs._running.append(process)
        os.close(slave)
        process.children = _pids(until_line(process, "ready"))
        return process, masters[-1]

    yield start
    for master in masters:
        master.close()


async def test_ctrl_c_in_a_terminal_counts_once(terminal, tasks, log, gate):
    _, hold, _ = tasks
    process, master = terminal()
    result = await hold.delay(str(log), str(gate))
    await until(lambda: lines(log), "the job to start")
    master.write(b"\x03")
    until_line(process, "draining 2 workers")
    gate.touch()
    assert await result.get(timeout=30) in process.children.values()
    assert process.wait(30) == 0
    assert lines(log) == ["start"], "it was not handed back"


async def test_workers_stop_when_their_terminal_is_closed(terminal, tasks, log, gate):
    _, hold, _ = tasks
    process, master = terminal()
    result = await hold.delay(str(log), str(gate))
    await until(lambda: lines(log), "the job to start")
    master.close()
    assert await asyncio.to_thread(process.wait, 30) == 75
    assert all(map(is_gone, process.children.values()))
    assert await result.refresh() == "PENDING"


@pytest.mark.parametrize(
    ("words", "environ", "code", "error"),
    [
        (("nosuch",), {}, 78, "error: cannot import 'nosuch': no module named 'nosuch'"),
        (("jobs",), {"ASYNCQ_URL": "redis://127.0.0.1:1"}, 69, "error: no server at redis://127.0.0.1:1"),
        (("jobs", "--loop", "trio"), {}, 2, "error: there is no event loop 'trio'"),
    ],
)
def test_workers_that_cannot_start_print_one_error_and_exit_with_its_code(jobs, words, environ, code, error):
    ended = jobs.run("worker", *words, "-w", "2", ASYNCQ_OPERATION_TIMEOUT="1", **environ)
    assert ended.code == code, ended
    assert ended.err.startswith(error)
    assert len(ended.err.splitlines()) <= 2, ended


def test_workers_that_cannot_start_log_one_error_as_json(jobs):
    ended = jobs.run("worker", "nosuch", "-w", "2", "--log-format", "json")
    (line,) = ended.err.splitlines()
    assert (ended.code, json.loads(line)["level"]) == (78, "CRITICAL")


@pytest.mark.without_secrets
def test_all_processes_log_as_json_and_one_record_says_that_they_are_ready(jobs, stop):
    process = jobs.start("worker", "jobs", "-w", "2", "--log-format", "json", ASYNCQ_EMBEDDED="always")
    (ready,) = until_line(process, "ready").splitlines()
    fields = json.loads(ready)
    assert fields["message"].startswith("ready: asyncq 0.1.0 2 workers python")
    assert len(fields["workers"]) == 2
    ended = stop(process, signal.SIGTERM)
    stopped = {json.loads(line).get("worker") for line in ended.err.splitlines()}
    assert stopped >= fields["workers"].keys()


def test_workers_log_as_the_app_sets_it_up_and_their_supervisor_in_the_plain_format(jobs, stop):
    jobs.write(
        "jobs.py", f"import logging; logging.basicConfig(level='INFO', format='MINE %(message)s')\n{TASKS}"
    )
    words = ("worker", "jobs", "-w", "2", "--no-configure-logging", "--name", "w")
    process = jobs.start(*words, ASYNCQ_EMBEDDED="always")
    assert re.search(r" INFO    ready: asyncq 0\.1\.0 2 workers python", until_line(process, "ready"))
    ended = stop(process, signal.SIGTERM)
    assert ended.code == 0, ended
    assert "MINE worker 'w-1' stopped" in ended.err
    assert " INFO    draining 2 workers" in ended.err


def test_wrong_numbers_and_names_of_workers_are_usage_errors(jobs):
    zero, word, long, space = jobs.run_each(
        ("worker", "jobs", "-w", "0"),
        ("worker", "jobs", "-w", "x"),
        ("worker", "jobs", "-w", "12", "--name", "n" * 98),
        ("worker", "jobs", "-w", "2", "--name", "my worker"),
    )
    assert (zero.code, word.code, long.code, space.code) == (2, 2, 2, 2)
    assert "0 is less than 1" in zero.err
    assert "'x' is not a whole number" in word.err
    assert long.err == (
        f"error: --name is too long for 12 workers: the last one would be '{'n' * 98}-12'\n"
        "       use at most 97 characters\n"
    )
    assert space.err.startswith("error: name='my worker' of a worker: ")


def test_one_worker_runs_without_a_supervisor(jobs, stop):
    process = jobs.start("worker", "jobs", "-w", "1", "--name", "w")
    assert "worker w  python" in until_line(process, "ready")
    assert lines(jobs.folder / "imports") == [str(process.pid)]
    assert stop(process, signal.SIGTERM).code == 0


def test_a_worker_process_of_a_supervisor_does_not_import_typer():
    program = "import sys, asyncq.cli.worker_process; print(*sorted({'typer', 'click'} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout == "\n"
