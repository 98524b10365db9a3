"""Python programs that start in a tenth of the time, by `helpers.fork_server`, which has imported asyncq.

This is for tests of what a program does. Tests of the start itself (which modules are imported, how long it
takes) start a new interpreter.
"""

from __future__ import annotations

import atexit
import contextlib
import json
import os
import select
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import IO, TYPE_CHECKING

from helpers.fork_server import NUMBER

if TYPE_CHECKING:
    from collections.abc import Mapping

TESTS = Path(__file__).parent.parent

_EARLY = ("PYTHON", "ASYNCQ_FAILPOINTS")
_lock = threading.Lock()
_socket: Path | None = None


class Forked:
    """A process that runs `python ARGUMENTS`, with the methods of `subprocess.Popen`. `Popen` itself can wait
    only for its own children, and this process is a child of the fork server.

    Args:
        arguments: `-m MODULE`, `-c CODE` or a file, with its own arguments; `-W ACTION` may come first.
        folder: its working directory.
        environ: its environment. The interpreter runs already, and asyncq is imported. So a variable that
            either of them reads at its start has no effect and is refused, except for `PYTHONPATH`.
        stdin: a descriptor (default: an empty stream).
        stdout: a descriptor (default: a pipe, as `stdout`).
        stderr: likewise.
    """

    def __init__(
        self,
        arguments: list[str],
        folder: Path | str,
        environ: Mapping[str, str],
        *,
        stdin: int = subprocess.DEVNULL,
        stdout: int = subprocess.PIPE,
        stderr: int = subprocess.PIPE,
    ) -> None:
        early = [name for name in environ if name.startswith(_EARLY) and name != "PYTHONPATH"]
        assert not early, f"{early} would have no effect"
        self.args = arguments
        self.returncode: int | None = None
        self.stdout: IO[str] | None = None
        self.stderr: IO[str] | None = None
        self._readers: list[_Reader] = []
        self._reaping = threading.Lock()
        with contextlib.ExitStack() as streams:
            numbers = [
                self._stream(name, stream, streams)
                for name, stream in (("stdin", stdin), ("stdout", stdout), ("stderr", stderr))
            ]
            program = {"arguments": arguments, "folder": str(folder), "environ": dict(environ)}
            self._connection = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
            self._connection.connect(str(_server()))
            socket.send_fds(self._connection, [json.dumps(program).encode()], numbers)
            self.pid = self._answer()

    def _stream(self, name: str, stream: int, streams: contextlib.ExitStack) -> int:
        """Returns the descriptor that the program gets. If one is opened here, the stack closes it."""
        if stream == subprocess.PIPE:
            ours, theirs = os.pipe()
            setattr(self, name, open(ours))  # noqa: SIM115, PTH123  for the test to read and close
        elif stream == subprocess.DEVNULL:
            theirs = os.open(os.devnull, os.O_RDWR)
        else:
            return stream
        streams.callback(os.close, theirs)
        return theirs

    def _answer(self) -> int:
        answer = self._connection.recv(NUMBER.size)
        assert answer, "the fork server has ended"
        return int(NUMBER.unpack(answer)[0])

    def poll(self) -> int | None:
        """Returns the exit code, or None if the program still runs. The code of a signal is negative."""
        with self._reaping:
            if self.returncode is None and select.select([self._connection], [], [], 0)[0]:
                self.returncode = self._answer()
                self._connection.close()
            return self.returncode

    def wait(self, timeout: float | None = None) -> int:
        """Blocks until the program has ended, and returns the exit code.

        Raises:
            subprocess.TimeoutExpired: it still runs.
        """
        if self.returncode is None:
            select.select([self._connection], [], [], timeout)
        if self.poll() is None:
            raise subprocess.TimeoutExpired(self.args, timeout or 0.0)
        assert self.returncode is not None
        return self.returncode

    def communicate(self, timeout: float | None = None) -> tuple[str, str]:
        """Reads both pipes to their ends and waits until the program has ended. May be called again.

        Raises:
            subprocess.TimeoutExpired: it still runs, or another process holds a pipe open.
        """
        end = None if timeout is None else time.monotonic() + timeout
        if not self._readers:
            self._readers = [_Reader(self.stdout), _Reader(self.stderr)]
        for reader in self._readers:
            reader.join(_left(end))
            if reader.is_alive():
                raise subprocess.TimeoutExpired(self.args, timeout or 0.0)
        self.wait(_left(end))
        out, err = (reader.text for reader in self._readers)
        return out, err

    def send_signal(self, number: int) -> None:
        if self.poll() is None:
            with contextlib.suppress(ProcessLookupError):  # it has just ended
                os.kill(self.pid, number)

    def terminate(self) -> None:
        self.send_signal(signal.SIGTERM)

    def kill(self) -> None:
        self.send_signal(signal.SIGKILL)


class _Reader(threading.Thread):
    """A thread that reads a pipe to its end: a program that writes into a full pipe would block."""

    def __init__(self, pipe: IO[str] | None) -> None:
        super().__init__(daemon=True)
        self.text = ""
        self._pipe = pipe
        self.start()

    def run(self) -> None:
        if self._pipe is not None and not self._pipe.closed:
            with self._pipe:
                self.text = self._pipe.read()


def _left(end: float | None) -> float | None:
    return None if end is None else max(0.0, end - time.monotonic())


def _server() -> Path:
    """Returns the socket of this process's fork server, which the first program starts."""
    global _socket  # noqa: PLW0603  one server a process
    with _lock:
        if _socket is None:
            _socket = _start_server()
        return _socket


def _start_server() -> Path:
    folder = Path(tempfile.mkdtemp(prefix="q-"))
    environ = {
        name: value for name, value in os.environ.items() if not name.startswith(("ASYNCQ_", "PYTHON"))
    }
    server = subprocess.Popen(
        [sys.executable, "-m", "helpers.fork_server", str(folder / "s")],
        env={**environ, "PYTHONPATH": str(TESTS)},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
    )
    assert server.stdout is not None
    with server.stdout as output:
        assert output.readline() == b"ready\n", "the fork server did not come up"

    def stop() -> None:
        server.kill()
        server.wait()
        shutil.rmtree(folder)

    atexit.register(stop)
    return folder / "s"
