"""A process manager may start a command without stdin, stdout or stderr, or with one that cannot be written:
that ends no worker.
"""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from helpers.waiting import until_sync

ALL_CLOSED = "<&- >&- 2>&-"
CLOSED = ["2>&-", *(pytest.param(each, marks=pytest.mark.trial) for each in (">&-", ">&- 2>&-")), ALL_CLOSED]


@pytest.fixture
def start_closed(project):
    """Starts a command in a shell that closes some of its streams."""
    started = []

    def start(closed: str, *words: str) -> subprocess.Popen[str]:
        process = subprocess.Popen(
            ["/bin/sh", "-c", f'exec "$0" -m asyncq "$@" {closed}', sys.executable, *words],
            cwd=project.folder,
            env=project.environ,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        started.append(process)
        return process

    yield start
    for process in started:
        process.kill()
        process.communicate()


@pytest.mark.parametrize("closed", CLOSED)
def test_a_worker_with_closed_streams_runs_jobs_and_exits_0(project, start_closed, closed):
    project.write("noisy.py", NOISY)
    worker = start_closed(closed, "worker", "noisy")
    id_ = project.run("call", "noisy", "add", "1", "2", "--no-wait", "-q").out.strip()
    ended = project.run("result", "get", id_, "--timeout", "60s", "-q")
    assert (ended.out, ended.code) == ("3\n", 0), ended
    for number in (1, 2) if sys.platform == "linux" else ():  # no socket has got the number of a stream
        target = str(Path(f"/proc/{worker.pid}/fd/{number}").readlink())
        assert target.startswith(("/dev/null", "pipe:")), (number, target)
    worker.send_signal(signal.SIGTERM)
    out, err = worker.communicate(timeout=60)
    assert (worker.returncode, "Traceback" in out + err) == (0, False), (out, err)


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_worker_processes_of_a_supervisor_with_closed_streams_have_none_closed(project, start_closed):
    supervisor = start_closed(ALL_CLOSED, "worker", "shop", "-w", "2")
    listing = Path(f"/proc/{supervisor.pid}/task/{supervisor.pid}/children")
    until_sync(lambda: len(listing.read_text().split()) == 2, "two worker processes")
    assert project.run("call", "shop", "add", "1", "2", "-q").out == "3\n"
    files = [
        Path(f"/proc/{child}/fd/{number}") for child in listing.read_text().split() for number in (0, 1, 2)
    ]
    assert {str(file.readlink()) for file in files} == {"/dev/null"}
    supervisor.send_signal(signal.SIGTERM)
    assert supervisor.wait(60) == 0


NOISY = """
import sys
from asyncq import AsyncQ

app = AsyncQ(lease=2)

@app.task
async def add(x: int, y: int) -> int:
    print("on stdout")
    print("on stderr", file=sys.stderr)
    return x + y
"""


@pytest.mark.parametrize(
    ("closed", "words", "code"),
    [
        (">&-", ("call", "shop", "add", "1", "2"), 0),
        (ALL_CLOSED, ("call", "shop", "add", "1", "2"), 0),
        ("2>&-", ("call", "shop", "nope"), 2),  # it writes to stderr
        pytest.param(ALL_CLOSED, ("call", "shop", "nope"), 2, marks=pytest.mark.trial),
        pytest.param(ALL_CLOSED, ("--version",), 0, marks=pytest.mark.trial),
    ],
)
def test_other_commands_with_closed_streams_have_their_usual_exit_codes(start_closed, closed, words, code):
    process = start_closed(closed, *words)
    out, err = process.communicate(timeout=60)
    assert (process.returncode, "bug" in err) == (code, False), (out, err)


def _pipe_without_reader() -> int:
    reader, writer = os.pipe()
    os.close(reader)
    return writer


BROKEN = {"a pipe that nobody reads": _pipe_without_reader}
if Path("/dev/full").exists():
    BROKEN["a full disk"] = lambda: os.open("/dev/full", os.O_WRONLY)


@pytest.fixture(params=BROKEN)
def broken(request):
    """The descriptor of a stream that cannot be written."""
    descriptor = BROKEN[request.param]()
    yield descriptor
    os.close(descriptor)


@pytest.fixture
def start_broken(project):
    started = []

    def start(*words: str, **streams: int) -> subprocess.Popen[str]:
        streams = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, **streams}
        command = [sys.executable, "-m", "asyncq", *words]
        process = subprocess.Popen(command, cwd=project.folder, env=project.environ, text=True, **streams)
        started.append(process)
        return process

    yield start
    for process in started:
        process.kill()
        process.communicate()


def test_a_worker_whose_stderr_cannot_be_written_runs_jobs_and_exits_0(project, start_broken, broken):
    worker = start_broken("worker", "shop", "-v", stderr=broken)
    id_ = project.run("call", "shop", "add", "1", "2", "--no-wait", "-q").out.strip()
    ended = project.run("result", "get", id_, "--timeout", "15s", "-q")
    assert (ended.out, ended.code) == ("3\n", 0), ended
    worker.send_signal(signal.SIGTERM)
    assert worker.wait(60) == 0


@pytest.mark.parametrize(
    "words",
    [
        pytest.param(("call", "shop", "nope"), marks=pytest.mark.trial),
        ("nope",),
        pytest.param(("worker", "shop", "--log-level", "x"), marks=pytest.mark.trial),
    ],
)
def test_a_wrong_command_has_its_exit_code_also_if_stderr_cannot_be_written(start_broken, broken, words):
    process = start_broken(*words, stderr=broken)
    assert (process.wait(60), process.stdout.read()) == (2, "")


@pytest.mark.skipif("a full disk" not in BROKEN, reason="this system has no /dev/full")
def test_a_result_that_cannot_be_written_is_an_error(start_broken):
    full = os.open("/dev/full", os.O_WRONLY)
    for words in (("call", "shop", "add", "1", "2", "-q"), ("--help",)):
        process = start_broken(*words, stdout=full)
        _, err = process.communicate(timeout=60)
        expected = "error: the output cannot be written: No space left on device\n"
        assert (process.returncode, err) == (1, expected), words
    os.close(full)


def test_a_reader_that_closed_the_pipe_is_not_an_error(start_broken):
    pipe = _pipe_without_reader()
    process = start_broken("call", "shop", "add", "1", "2", "-q", stdout=pipe)
    _, err = process.communicate(timeout=60)
    assert (process.returncode, err) == (0, "")
    os.close(pipe)
