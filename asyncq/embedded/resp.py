"""What a server answers when it is asked over a socket, without a Redis client, and how long it may take.
Tests shorten these times.
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
"""Seconds that a server has for starting, and for leaving."""

ANSWER_TIMEOUT = 1.0
"""Seconds for one question. The answer takes 0.2 ms unless the server hangs."""


@dataclass(frozen=True)
class Answer:
    """What is at a socket.

    Attributes:
        state: "absent": nobody; "silent": somebody who does not answer in time; "loading" or "ready".
        info: the fields of INFO; empty if it did not answer.
    """

    state: Literal["absent", "silent", "loading", "ready"]
    info: Mapping[str, str]

    @property
    def version(self) -> str:
        """As in "Valkey 9.1.2"."""
        if "valkey_version" in self.info:
            return f"Valkey {self.info['valkey_version']}"
        return f"Redis {self.info.get('redis_version', '(version unknown)')}"


def ask(socket: Path, *commands: str, timeout: float) -> list[bytes]:
    """Send inline commands and return a reply for each: enough RESP for PING and INFO."""
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
    """Looks who is at the socket. Only a refused connection means nobody: a busy server is not replaced."""
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
    """Ask until the server is ready, or the deadline is over; returns the last answer.

    That nobody is at the socket ends it only if `gone()`: a server that was just started is not there yet.
    """
    while True:
        answer = probe(socket)
        if answer.state == "ready" or time.monotonic() > deadline or (gone() and answer.state == "absent"):
            return answer
        time.sleep(0.002)


def shut_down(socket: Path, deadline: float) -> str | None:
    """Ask the server to save and leave; wait until it has. Returns what it said if it stays."""
    try:
        with sockets.socket(sockets.AF_UNIX) as connection:
            connection.settimeout(max(0.1, deadline - time.monotonic()))
            connection.connect(str(socket))
            connection.sendall(b"SHUTDOWN\r\n")
            return connection.recv(4096).decode(errors="replace").strip() or None
    except (FileNotFoundError, ConnectionRefusedError, ConnectionResetError, BrokenPipeError):
        return None  # gone already
    except OSError as error:
        return str(error)
