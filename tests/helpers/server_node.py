"""A server or a Sentinel that a test has started, and may signal, kill and start again at the same port."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
from typing import TYPE_CHECKING, Any, Self

import redis

from helpers.own_server import free_port
from helpers.waiting import until_sync

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path


def tls_lines(folder: Path) -> list[str]:
    """Returns the lines of a configuration for certificates: `ca.pem`, `server.pem`, `server.key`."""
    files = {"tls-ca-cert-file": "ca.pem", "tls-cert-file": "server.pem", "tls-key-file": "server.key"}
    return ["tls-replication yes", *(f"{option} {folder / file}" for option, file in files.items())]


def tls_client(folder: Path) -> dict[str, Any]:
    """Returns the options of a client of such a server."""
    own = {"ssl_certfile": str(folder / "server.pem"), "ssl_keyfile": str(folder / "server.key")}
    return {"ssl": True, "ssl_ca_certs": str(folder / "ca.pem"), **own}


class Node:
    """One process: a server or a Sentinel.

    Args:
        directory: of its data and its configuration, which Sentinels write.
        lines: of its configuration.
        words: further arguments of the program.
        options: of the client that tests use.
        binary: the program.
        port: to listen on; None for any that is free.
    """

    def __init__(
        self,
        directory: Path,
        lines: list[str],
        words: list[str],
        options: Mapping[str, Any],
        binary: str,
        port: int | None = None,
    ) -> None:
        self.directory = directory
        self.port = free_port() if port is None else port
        self._words = words
        self._binary = binary
        self._options = options
        self.process: subprocess.Popen[bytes] | None = None
        self._guard: subprocess.Popen[bytes] | None = None
        directory.mkdir(parents=True)
        ports = ["port 0", f"tls-port {self.port}"] if options.get("ssl") else [f"port {self.port}"]
        own = [*ports, "bind 127.0.0.1", f"dir {directory}", f"logfile {directory}/log"]
        (directory / "conf").write_text("\n".join([*own, *lines, ""]))

    def start(self) -> Self:
        """Starts the process and waits until it answers."""
        self.launch()
        self.wait_until_answering()
        return self

    def launch(self) -> None:
        """Starts the process."""
        self.process = subprocess.Popen(
            [self._binary, str(self.directory / "conf"), *self._words],
            stdout=subprocess.DEVNULL,
            start_new_session=True,
        )
        # If the tests are killed, nobody else ends the server: the system closes the pipe then.
        self._guard = subprocess.Popen(
            ["/bin/sh", "-c", 'read -r _; kill -9 "$0"', str(self.process.pid)],
            stdin=subprocess.PIPE,
            start_new_session=True,
        )

    def wait_until_answering(self) -> None:
        """Waits until the process answers. Blocks. Raises `RuntimeError`, with its log, if it has ended."""
        until_sync(self._answers, f"{self.directory.name} to answer")

    def log(self) -> str:
        """Returns the last lines of the log."""
        return (self.directory / "log").read_text()[-2000:]

    def _answers(self) -> bool:
        assert self.process is not None
        if self.process.poll() is not None:
            raise RuntimeError(self.log())
        try:
            with contextlib.closing(self.client()) as client:
                # The process of another test may have taken the port. Then ours is about to end.
                return client.ping() and client.info("server")["process_id"] == self.process.pid
        except (redis.exceptions.ConnectionError, redis.exceptions.BusyLoadingError):
            return False

    def client(self, timeout: float = 5.0) -> redis.Redis:
        """Returns a blocking client that never retries."""
        return redis.Redis(
            host="127.0.0.1",
            port=self.port,
            single_connection_client=True,
            retry=redis.retry.Retry(redis.backoff.NoBackoff(), 0),
            socket_timeout=timeout,
            **self._options,
        )

    def do(self, *command: Any, timeout: float = 5.0) -> Any:
        """Runs one command on a connection of its own, and returns the reply."""
        with contextlib.closing(self.client(timeout)) as client:
            return client.execute_command(*command)

    def role(self) -> str:
        """Returns `master` or `slave`; an empty text if the server does not answer."""
        try:
            return self.do("ROLE")[0].decode()
        except (redis.exceptions.RedisError, OSError):
            return ""

    def connections(self) -> list[str]:
        """Returns the names of the connections of asyncq's clients and workers."""
        with contextlib.closing(self.client()) as client:
            names = [each["name"] for each in client.client_list()]
        return [name for name in names if name.startswith("asyncq")]

    def send(self, number: signal.Signals) -> None:
        """Sends a signal."""
        assert self.process is not None
        self.process.send_signal(number)

    def kill(self) -> None:
        """Kills the process with SIGKILL. A second call does nothing."""
        process, self.process = self.process, None
        guard, self._guard = self._guard, None
        if guard is not None:
            guard.kill()
            guard.communicate()
        if process is not None:
            with contextlib.suppress(ProcessLookupError):
                os.kill(process.pid, signal.SIGKILL)
            process.wait(timeout=30)
