"""Fixtures for the embedded server: a project, a runtime directory, and scripts run as real processes."""

import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pytest

from asyncq import embedded

PREAMBLE = """
import os, signal, sys, time, types
from pathlib import Path
# A bare package, so that only this one and asyncq.errors are loaded: the face costs each script 0.2 s.
module = Path(sys.argv[2])
sys.modules["asyncq"] = types.ModuleType("asyncq")
sys.modules["asyncq"].__path__ = [str(module.parents[1])]
from asyncq import embedded
from asyncq.errors import BrokerNotConfigured
project = Path(sys.argv[1])
def send_line(*words): print(*words, flush=True)
def receive_line(): return sys.stdin.readline()
def command(server, text): return embedded.resp.ask(server.socket, text, timeout=5)[0].decode()
"""


class Script:
    """A Python process. The test writes to its standard input and reads its standard output."""

    def __init__(self, body, project, **environ):
        self.process = subprocess.Popen(
            [sys.executable, "-W", "error", "-c", PREAMBLE + body, str(project), embedded.__file__],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env={name: value for name, value in {**os.environ, **environ}.items() if value is not None},
        )

    def receive_line(self):
        line = self.process.stdout.readline().strip()
        assert line, f"the script ended with {self.process.wait()}"
        return line

    def send_line(self, text="go"):
        self.process.stdin.write(text + "\n")
        self.process.stdin.flush()

    def end(self):
        """Lets the process run to its end, and checks its exit code. Returns the words of its last output."""
        rest, _ = self.process.communicate(timeout=60)
        assert self.process.returncode == 0
        return rest.split()

    def kill(self, number=signal.SIGKILL):
        self.process.send_signal(number)
        self.process.wait(30)

    def close(self):
        if self.process.poll() is None:
            self.process.kill()
        self.process.communicate()


@pytest.fixture(autouse=True)
def runtime(monkeypatch):
    """The XDG_RUNTIME_DIR of the test. Servers that are left in it are stopped, so that no test leaks one."""
    directory = Path(tempfile.mkdtemp(prefix="q-"))
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(directory))
    for name in ("ASYNCQ_URL", "ASYNCQ_ENV", "ASYNCQ_EMBEDDED"):
        monkeypatch.delenv(name, raising=False)
    yield directory
    embedded.server_handle.HeldServers.close_all()
    for socket in directory.glob("asyncq/*/s"):
        embedded.resp.shut_down(socket, time.monotonic() + 5)
    shutil.rmtree(directory, ignore_errors=True)


@pytest.fixture
def project(tmp_path):
    directory = tmp_path / "shop"
    directory.mkdir()
    return directory.resolve()


@pytest.fixture
def script(project):
    """Starts a script: `script("send_line(1)")`. Scripts that still run at the end are killed."""
    running = []

    def start(body, directory=project, **environ):
        running.append(Script(body, directory, **environ))
        return running[-1]

    yield start
    for each in running:
        each.close()


@pytest.fixture
def ask():
    """Sends one inline command to a server, and returns the reply as text."""
    return lambda server, text: embedded.resp.ask(server.socket, text, timeout=5)[0].decode()


@pytest.fixture
def impatient(monkeypatch):
    """Reduces the deadline from ten seconds to half a second, for tests that must exceed it."""
    monkeypatch.setattr(embedded.resp, "DEADLINE", 0.5)
    monkeypatch.setattr(embedded.resp, "ANSWER_TIMEOUT", 0.2)
