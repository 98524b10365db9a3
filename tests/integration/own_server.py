"""A server of a test's own: to be stopped, killed, starved and started again, as the shared one must not."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import redis

from asyncq.broker.embedded import program

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


class OwnServer:
    """Valkey on a unix socket, with every write on disk before it is answered.

    Args:
        directory: where its data and its socket go.
    """

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._socket = directory / "s"
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        return f"unix://{self._socket}"

    def start(self, **options: Any) -> OwnServer:
        """Starts it and waits until it has read its data and answers."""
        settings = {
            "port": 0,
            "unixsocket": self._socket,
            "dir": self._directory,
            "save": "",
            "appendonly": "yes",
            "appendfsync": "always",
            "maxmemory-policy": "noeviction",
            **options,
        }
        words = [word for name, value in settings.items() for word in (f"--{name}", str(value))]
        self._process = subprocess.Popen([program.find(), *words], stdout=subprocess.DEVNULL)
        deadline = time.monotonic() + 10
        while not self._answers():
            assert self._process.poll() is None, "the server ended at once"
            assert time.monotonic() < deadline, "the server did not answer within 10 s"
            time.sleep(0.005)
        return self

    def _answers(self) -> bool:
        try:
            return bool(self.do("PING"))
        except (redis.exceptions.ConnectionError, redis.exceptions.BusyLoadingError):
            return False

    def do(self, *command: Any) -> Any:
        """One command, on a connection of its own."""
        with redis.Redis(unix_socket_path=str(self._socket), socket_timeout=5) as client:
            return client.execute_command(*command)

    def kill(self) -> None:
        """Kill -9."""
        process, self._process = self._process, None
        if process is not None:
            process.kill()
            process.wait(timeout=10)

    @contextmanager
    def hanging(self) -> Iterator[None]:
        """Stands still inside the block: connections stay open, nothing is answered."""
        assert self._process is not None
        os.kill(self._process.pid, signal.SIGSTOP)
        try:
            yield
        finally:
            os.kill(self._process.pid, signal.SIGCONT)


@contextmanager
def own_server(directory: Path, **options: Any) -> Iterator[OwnServer]:
    """A server that runs, killed at the end of the block."""
    server = OwnServer(directory)
    try:
        yield server.start(**options)
    finally:
        server.kill()
