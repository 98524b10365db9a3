"""A real server that a trial may kill, freeze, starve and bring back, at one address all the while."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import socket
import subprocess
import time
from typing import TYPE_CHECKING, Any, Self

import redis

from asyncq.broker.embedded import program

if TYPE_CHECKING:
    from pathlib import Path


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


class Server:
    """Valkey on a TCP port of 127.0.0.1.

    Args:
        directory: where its data goes.
        durable: keep an append-only file, synced with every write: what was answered survives kill -9.
    """

    def __init__(self, directory: Path, *, durable: bool = False) -> None:
        self.directory = directory
        self.durable = durable
        self.port = free_port()
        self.process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        return f"redis://127.0.0.1:{self.port}/0"

    def start(self, *, until: str = "ready", **options: Any) -> Self:
        """Starts it and waits until it answers; with `until="listening"`, until it listens."""
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
            **{name.replace("_", "-"): value for name, value in options.items()},
        }
        arguments = [part for name, value in settings.items() for part in (f"--{name}", str(value))]
        self.process = subprocess.Popen(
            [program.find(), *arguments], stdout=subprocess.DEVNULL, start_new_session=True
        )
        self._wait(until)
        return self

    def _wait(self, until: str) -> None:
        end = time.monotonic() + 30
        while time.monotonic() < end:
            try:
                self.do("PING")
                return
            except redis.exceptions.BusyLoadingError:
                if until == "listening":
                    return
            except redis.exceptions.ConnectionError:
                assert self.process is not None
                if self.process.poll() is not None:
                    raise RuntimeError((self.directory / "server.log").read_text()[-2000:]) from None
            time.sleep(0.005)
        raise TimeoutError("the server did not come up within 30 s")

    def client(self, patience: float = 5.0, **options: Any) -> redis.Redis:
        """A blocking client of the trial's own, which hides nothing by trying again."""
        no_retry = redis.retry.Retry(redis.backoff.NoBackoff(), 0)
        return redis.Redis(
            single_connection_client=True, port=self.port, retry=no_retry, socket_timeout=patience, **options
        )

    def do(self, *command: Any, **options: Any) -> Any:
        """One command on a connection of its own."""
        with contextlib.closing(self.client(**options)) as client:
            return client.execute_command(*command)

    def connections(self, **options: Any) -> list[int]:
        """The ids of asyncq's own connections, of clients and workers."""
        with contextlib.closing(self.client(**options)) as client:
            return _own(client)

    def cut(self, number: int) -> None:
        """Kills a connection, if it is still there."""
        with contextlib.suppress(redis.exceptions.ResponseError):
            self.do("CLIENT", "KILL", "ID", number)

    @staticmethod
    def cut_all(client: redis.Redis) -> None:
        """Kills all of asyncq's connections, by one that is open: a new one might not be let in."""
        for number in _own(client):
            client.execute_command("CLIENT", "KILL", "ID", number)

    def kill(self) -> None:
        """Kill -9."""
        process, self.process = self.process, None
        if process is not None:
            with contextlib.suppress(ProcessLookupError):
                os.kill(process.pid, signal.SIGKILL)
            process.wait(timeout=10)

    def wipe(self) -> None:
        """Loses all data, of a server that does not run."""
        shutil.rmtree(self.directory)

    def freeze(self) -> None:
        assert self.process is not None
        self.process.send_signal(signal.SIGSTOP)

    def thaw(self) -> None:
        assert self.process is not None
        self.process.send_signal(signal.SIGCONT)

    def loading(self) -> bool:
        """Whether it still reads its data, and refuses everything meanwhile."""
        try:
            self.do("PING")
        except redis.exceptions.BusyLoadingError:
            return True
        return False

    def used_memory(self) -> int:
        """Bytes of data and bookkeeping, as the server counts."""
        with contextlib.closing(self.client()) as client:
            return client.info("memory")["used_memory"]

    def calls(self, command: str) -> int:
        """How often a command was called since the start."""
        with contextlib.closing(self.client()) as client:
            return client.info("commandstats").get(f"cmdstat_{command}", {}).get("calls", 0)


def _own(client: redis.Redis) -> list[int]:
    return [int(each["id"]) for each in client.client_list() if each["name"].startswith("asyncq")]
