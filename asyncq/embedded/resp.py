"""Asks a server over its unix socket, without a Redis client: is it there, is it ready, will it shut down.

Each question opens a connection of its own and blocks, at most for the timeouts below. Tests shorten these.
"""

from __future__ import annotations

import logging
import socket as sockets
import time
from dataclasses import dataclass
from typing import IO, TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

logger: logging.Logger = logging.getLogger(__name__)


DEADLINE = 10.0
"""How many seconds a server may take to start, and to shut down."""

ANSWER_TIMEOUT = 1.0
"""How many seconds a server may take to answer. It takes 0.2 ms, unless it hangs."""


@dataclass(frozen=True)
class Answer:
    """The state of the server at a socket.

    Attributes:
        state: "absent": no server; "silent": a server that does not answer in time; "loading" or "ready".
        info: the fields of INFO; empty if the server did not answer.
    """

    state: Literal["absent", "silent", "loading", "ready"]
    info: Mapping[str, str]

    @property
    def version(self) -> str:
        """Name and version of the server, as in "Valkey 9.1.2"."""
        if "valkey_version" in self.info:
            return f"Valkey {self.info['valkey_version']}"
        return f"Redis {self.info.get('redis_version', '(version unknown)')}"


def ask(socket: Path, *commands: str, timeout: float) -> list[bytes]:
    """Sends inline commands and returns a reply for each. It knows enough RESP for PING and INFO."""
    with sockets.socket(sockets.AF_UNIX) as connection:
        connection.settimeout(timeout)
        connection.connect(str(socket))
        connection.sendall("".join(f"{command}\r\n" for command in commands).encode())
        with connection.makefile("rb") as stream:
            return [_reply(stream) for _ in commands]


def _reply(stream: IO[bytes]) -> bytes:
    line = stream.readline()
    if not line.endswith(b"\r\n"):
        raise ConnectionResetError("the server closed the connection")
    return stream.read(int(line[1:]) + 2)[:-2] if line.startswith(b"$") else line[:-2]


def probe(socket: Path) -> Answer:
    """Returns the state of the server at a socket. Only a missing socket or a refused connection means that
    there is none: a busy server must not be replaced by a second one.
    """
    try:
        pong, text = ask(socket, "PING", "INFO server memory persistence keyspace", timeout=ANSWER_TIMEOUT)
    except (FileNotFoundError, NotADirectoryError, ConnectionRefusedError):
        return Answer("absent", {})
    except OSError as error:
        logger.debug("no answer at %s: %s", socket, error)
        return Answer("silent", {})
    info = dict(line.split(":", 1) for line in text.decode().splitlines() if ":" in line)
    return Answer("loading" if pong.startswith(b"-LOADING") else "ready", info)


def wait_until_ready(socket: Path, deadline: float, gone: Callable[[], bool]) -> Answer:
    """Polls until the server is ready or the deadline is over, and returns the last answer.

    If no server is at the socket, polling ends only if `gone()`: a server that has just been started is not
    there yet.
    """
    while True:
        answer = probe(socket)
        if answer.state == "ready" or time.monotonic() > deadline or (gone() and answer.state == "absent"):
            return answer
        time.sleep(0.002)


def shut_down(socket: Path, deadline: float) -> str | None:
    """Asks the server to save its data and end, and waits for that. Returns its error if it stays."""
    try:
        with sockets.socket(sockets.AF_UNIX) as connection:
            connection.settimeout(max(0.1, deadline - time.monotonic()))
            connection.connect(str(socket))
            connection.sendall(b"SHUTDOWN\r\n")
            return connection.recv(4096).decode(errors="replace").strip() or None
    except (FileNotFoundError, ConnectionRefusedError, ConnectionResetError, BrokenPipeError):
        return None  # it has ended
    except OSError as error:
        return str(error)
