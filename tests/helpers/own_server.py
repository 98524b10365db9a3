"""A real server for one test, which the test may kill, freeze, starve and restart at one address."""

from __future__ import annotations

import contextlib
import os
import random
import shutil
import signal
import socket
import subprocess
from typing import TYPE_CHECKING, Any, Self

import redis

from asyncq.embedded import launch
from helpers.waiting import until_sync

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

# Below what the system gives to outgoing connections: none of those can take a port between the check here
# and the start of the server, nor while the server is down.
PORTS = range(12000, 32000)


def free_port() -> int:
    """Returns a TCP port of 127.0.0.1 on which no process listens."""
    while True:
        port = random.choice(PORTS)
        with socket.socket() as probe, contextlib.suppress(OSError):
            probe.bind(("127.0.0.1", port))
            return port


class OwnServer:
    """A Valkey server on a unix socket, or on a TCP port of 127.0.0.1.

    Args:
        directory: the directory of its data.
        durable: keep an append-only file, synced with every write: a write that was answered survives kill
            -9.
        port: the TCP port, for clients that cannot use a socket.
    """

    def __init__(self, directory: Path, *, durable: bool = False, port: int = 0) -> None:
        self.directory = directory
        self.durable = durable
        self.port = port
        self.process: subprocess.Popen[bytes] | None = None

    @property
    def _socket(self) -> Path:
        return self.directory / "s"

    @property
    def url(self) -> str:
        return f"redis://127.0.0.1:{self.port}/0" if self.port else f"unix://{self._socket}"

    def start(self, *, until: str = "ready", **options: Any) -> Self:
        """Starts the server and waits until it answers; with `until="listening"`, only until it listens."""
        self.directory.mkdir(parents=True, exist_ok=True)
        settings = {
            "port": self.port,
            "bind": "127.0.0.1",
            "dir": self.directory,
            "logfile": self.directory / "server.log",
            "save": "",
            "appendonly": "yes" if self.durable else "no",
            "appendfsync": "always",
            "maxmemory-policy": "noeviction",
            "enable-debug-command": "yes",
            **({} if self.port else {"unixsocket": self._socket}),
            **{name.replace("_", "-"): value for name, value in options.items()},
        }
        arguments = [part for name, value in settings.items() for part in (f"--{name}", str(value))]
        self.process = subprocess.Popen(
            [launch.find(), *arguments], stdout=subprocess.DEVNULL, start_new_session=True
        )
        until_sync(lambda: self._answers(even_loading=until == "listening"), "the server to answer")
        return self

    def _answers(self, *, even_loading: bool) -> bool:
        try:
            return bool(self.do("PING"))
        except redis.exceptions.BusyLoadingError:
            return even_loading
        except redis.exceptions.ConnectionError:
            assert self.process is not None
            if self.process.poll() is not None:
                raise RuntimeError((self.directory / "server.log").read_text()[-2000:]) from None
            return False

    def client(self, timeout: float = 5.0, **options: Any) -> redis.Redis:
        """Returns a blocking client that never retries, so it hides no error from the test."""
        address = {"port": self.port} if self.port else {"unix_socket_path": str(self._socket)}
        no_retry = redis.retry.Retry(redis.backoff.NoBackoff(), 0)
        return redis.Redis(
            single_connection_client=True, retry=no_retry, socket_timeout=timeout, **address, **options
        )

    def do(self, *command: Any, **options: Any) -> Any:
        """Runs one command on a connection of its own, and returns the reply."""
        with contextlib.closing(self.client(**options)) as client:
            return client.execute_command(*command)

    def connections(self, **options: Any) -> list[int]:
        """Returns the ids of the connections of asyncq's clients and workers."""
        with contextlib.closing(self.client(**options)) as client:
            return _own(client)

    def cut(self, number: int) -> None:
        """Kills a connection, if it is still there."""
        with contextlib.suppress(redis.exceptions.ResponseError):
            self.do("CLIENT", "KILL", "ID", number)

    @staticmethod
    def cut_all(client: redis.Redis) -> None:
        """Kills all of asyncq's connections, through an open client: the server might refuse a new one."""
        for number in _own(client):
            client.execute_command("CLIENT", "KILL", "ID", number)

    def kill(self) -> None:
        """Kills the server with SIGKILL."""
        process, self.process = self.process, None
        if process is not None:
            with contextlib.suppress(ProcessLookupError):
                os.kill(process.pid, signal.SIGKILL)
            process.wait(timeout=30)

    def wipe(self) -> None:
        """Deletes all data. The server must not run."""
        shutil.rmtree(self.directory)

    def freeze(self) -> None:
        """Stops the process: connections stay open, and nothing is answered."""
        assert self.process is not None
        self.process.send_signal(signal.SIGSTOP)

    def thaw(self) -> None:
        """Resumes the process."""
        assert self.process is not None
        self.process.send_signal(signal.SIGCONT)

    @contextlib.contextmanager
    def hanging(self) -> Iterator[None]:
        """Freezes the server for the time of the block."""
        self.freeze()
        try:
            yield
        finally:
            self.thaw()

    def loading(self) -> bool:
        """Returns whether the server still loads its data, and refuses every command meanwhile."""
        try:
            self.do("PING")
        except redis.exceptions.BusyLoadingError:
            return True
        return False

    def used_memory(self) -> int:
        """Returns the memory that the server uses, in bytes, as it counts it itself."""
        with contextlib.closing(self.client()) as client:
            return client.info("memory")["used_memory"]

    def calls(self, command: str) -> int:
        """Returns how often a command was called since the start."""
        with contextlib.closing(self.client()) as client:
            return client.info("commandstats").get(f"cmdstat_{command}", {}).get("calls", 0)


@contextlib.contextmanager
def own_server(directory: Path, *, durable: bool = True, **options: Any) -> Iterator[OwnServer]:
    """Gives a server that runs, and kills it at the end of the block. Arguments as of `OwnServer`."""
    server = OwnServer(directory, durable=durable)
    try:
        yield server.start(**options)
    finally:
        server.kill()


def _own(client: redis.Redis) -> list[int]:
    return [int(each["id"]) for each in client.client_list() if each["name"].startswith("asyncq")]
