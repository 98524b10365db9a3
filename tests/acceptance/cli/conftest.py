"""A project with tasks, and the command line run in it as real processes."""

import asyncio
import contextlib
import json
import os
import pty
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from helpers.forked import Forked
from helpers.waiting import until_sync

from asyncq.embedded import resp

TASKS = """
import asyncio, time
from pathlib import Path
from asyncq import AsyncQ

app = AsyncQ(lease=2)

@app.task
async def add(x: int, y: int) -> int:
    return x + y

@app.task
async def echo(*args: object, **kwargs: object) -> object:
    return [list(args), kwargs]

@app.task
async def boom() -> None:
    raise ValueError("no \\x1b[2J such luck")

@app.task
async def slow(seconds: float, mark: str = "") -> str:
    if mark:
        Path(mark).touch()
    await asyncio.sleep(seconds)
    return "done"

@app.task
def block(seconds: float, mark: str) -> str:
    Path(mark).touch()
    time.sleep(seconds)
    return "done"

@app.task
async def offload(seconds: float, mark: str) -> None:
    Path(mark).touch()
    await asyncio.to_thread(time.sleep, seconds)
"""


SEVERAL = """
import contextlib, io, json, sys
from asyncq.cli.main import run
ends = []
for words in json.loads(sys.argv[1]):
    with contextlib.redirect_stdout(io.StringIO()) as out, contextlib.redirect_stderr(io.StringIO()) as err:
        code = run(words)
    ends.append((out.getvalue(), err.getvalue(), code))
print(json.dumps(ends))
"""


class Project:
    """A folder with `shop.py` in it, and what was started there."""

    def __init__(self, folder: Path, runtime: Path) -> None:
        self.folder = folder
        kept = {"XDG_RUNTIME_DIR": str(runtime), "XDG_STATE_HOME": str(runtime)}
        self.environ = {**os.environ, **kept, "COLUMNS": "80"}
        self._running: list[Forked | subprocess.Popen[str]] = []
        self.write("shop.py", TASKS)
        self.write("pyproject.toml", "")

    def write(self, name: str, text: str) -> None:
        file = self.folder / name
        file.parent.mkdir(exist_ok=True)
        file.write_text(text)

    def start(self, *words: str, stdin: int = subprocess.DEVNULL, **environ: str) -> Forked:
        return self._start("-m", "asyncq", *words, stdin=stdin, **environ)

    def _start(self, *words: str, stdin: int = subprocess.DEVNULL, **environ: str) -> Forked:
        process = Forked(list(words), self.folder, {**self.environ, **environ}, stdin=stdin)
        self._running.append(process)
        return process

    def start_fresh(self, *words: str, **environ: str) -> subprocess.Popen[str]:
        """Starts a command as a user does, for tests of the start itself: it takes ten times as long."""
        process = subprocess.Popen(
            [sys.executable, "-m", "asyncq", *words],
            cwd=self.folder,
            env={**self.environ, **environ},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        self._running.append(process)
        return process

    @contextlib.contextmanager
    def in_terminal(self, *words: str, **environ: str) -> Iterator[tuple[subprocess.Popen[bytes], int]]:
        """Runs a command in a terminal. Gives the process and the other end of its terminal, and kills the
        process at the end of the block.
        """
        ours, theirs = pty.openpty()
        process = subprocess.Popen(
            [sys.executable, "-m", "asyncq", *words],
            cwd=self.folder,
            env={**self.environ, **environ},
            stdin=theirs,
            stdout=theirs,
            stderr=theirs,
        )
        os.close(theirs)
        try:
            yield process, ours
        finally:
            process.kill()
            process.wait()
            os.close(ours)

    def run(self, *words: str, **environ: str) -> "Ended":
        return Ended(self.start(*words, **environ), 60)

    def python(self, code: str) -> "Ended":
        return Ended(self._start("-c", code), 60)

    def run_each(self, *commands: tuple[str, ...]) -> "list[Ended]":
        """Runs several commands one after the other in one process, which saves the start of the others."""
        all_ = Ended(self._start("-c", SEVERAL, json.dumps(commands)), 60)
        assert all_.code == 0, all_
        return [Ended.of(*one) for one in json.loads(all_.out)]

    def worker(self, *words: str, fresh: bool = False) -> Forked | subprocess.Popen[str]:
        """Starts a worker and returns it when it is ready; its output so far is in `.banner`."""
        process = (self.start_fresh if fresh else self.start)("worker", "shop", *words)
        lines = []
        while not (lines and lines[-1].startswith("ready")):
            line = process.stderr.readline()
            assert line, f"the worker ended with {process.wait()}: {lines}"
            lines.append(line)
        process.banner = "".join(lines)
        return process

    def wait_for(self, name: str) -> None:
        until_sync((self.folder / name).exists, f"{name} to be there")

    def close(self) -> None:
        for process in self._running:
            if process.poll() is None:
                process.kill()
            process.communicate()


class Ended:
    """How a command ended."""

    def __init__(self, process: Forked | subprocess.Popen[str], within: float) -> None:
        self.out, self.err = process.communicate(timeout=within)
        self.code = process.returncode

    @classmethod
    def of(cls, out: str, err: str, code: int) -> "Ended":
        ended = cls.__new__(cls)
        ended.out, ended.err, ended.code = out, err, code
        return ended

    def __repr__(self) -> str:
        return f"exit {self.code}\n{self.out}\n{self.err}"


@pytest.fixture
def project(tmp_path):
    """A project. At the end, every process that was started in it is killed, and so is its server."""
    runtime = Path(tempfile.mkdtemp(prefix="q-"))
    folder = tmp_path / "srv"
    folder.mkdir()
    project = Project(folder.resolve(), runtime)
    yield project
    project.close()
    for socket in runtime.glob("asyncq/*/s"):
        resp.shut_down(socket, time.monotonic() + 5)
    shutil.rmtree(runtime, ignore_errors=True)


@pytest.fixture
def run(project, server_url, namespace):
    """Runs commands one after the other in one process, beside the loop."""

    async def run(*commands):
        project.environ |= {"ASYNCQ_URL": server_url, "ASYNCQ_NAMESPACE": namespace}
        return await asyncio.to_thread(project.run_each, *(tuple(command.split()) for command in commands))

    return run


@pytest.fixture
def stop():
    """Signals a process and waits for its end; between two signals it waits for a reaction."""

    def stop(process: Forked | subprocess.Popen[str], *numbers: signal.Signals, within: float = 60) -> Ended:
        output = ""
        for number in numbers[:-1]:
            process.send_signal(number)
            output += process.stderr.readline()
        process.send_signal(numbers[-1])
        ended = Ended(process, within)
        ended.err = output + ended.err
        return ended

    return stop
