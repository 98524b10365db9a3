"""A process manager may start a command without stdin, stdout or stderr: that ends nothing."""

import signal
import subprocess
import sys
from pathlib import Path

import pytest

CLOSED = ["2>&-", ">&-", ">&- 2>&-", "<&- >&- 2>&-"]


@pytest.fixture
def start_closed(project):
    """Starts a command with streams closed as the shell is told to."""
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
def test_a_worker_runs_jobs_and_ends_with_0(project, start_closed, closed):
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
        *((closed, ("call", "shop", "add", "1", "2"), 0) for closed in CLOSED),
        *((closed, ("call", "shop", "nope"), 2) for closed in ("2>&-", CLOSED[-1])),  # it writes to stderr
        (CLOSED[-1], ("--version",), 0),
    ],
)
def test_other_commands_end_as_ever(start_closed, closed, words, code):
    process = start_closed(closed, *words)
    out, err = process.communicate(timeout=60)
    assert (process.returncode, "bug" in err) == (code, False), (out, err)
