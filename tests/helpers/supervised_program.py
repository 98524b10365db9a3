"""A worker process of a supervisor that runs no jobs, for tests of the supervisor: it starts in 0.05 s.

    python -m helpers.supervised_program NAME DESCRIPTOR PID

Files in a folder say what it does. A file whose name ends with `-NAME` is for one worker, one without it for
all of them:

    broken      it cannot start, and says why
    crashes     it dies by SIGSEGV while it starts
    slow        it is not ready before the file is deleted
    busy        it ends at the second step of stopping, with exit code 75
    deaf        it never ends

It notes what happens to it in the file `log`.
"""

from __future__ import annotations

import os
import signal
import socket
import sys
import time
from pathlib import Path
from typing import Any

import msgpack

LENGTH = 4


class SupervisedProgram:
    """One such process."""

    def __init__(self, name: str, descriptor: int) -> None:
        self._name = name
        self._connection = socket.socket(fileno=descriptor)
        self._setup = self._receive()[0]
        self._folder = Path(self._setup["folder"])

    def run(self) -> int:
        """Runs until the supervisor asks it to stop, or has ended. Returns the exit code."""
        signal.signal(signal.SIGTERM, lambda *_: os._exit(0))
        self._note("start")
        if self._is("crashes"):
            os.kill(os.getpid(), signal.SIGSEGV)
        if self._is("broken"):
            self._send("failed", "it is broken", "mend it", 78)
            return 78
        while self._is("slow"):
            time.sleep(0.005)
        self._send("ready", {"grace": self._setup["grace"]})
        self._note("ready")
        while frame := self._receive():
            self._note(f"step-{frame[1]}")
            if not self._is("deaf") and (frame[1] == 2 or not self._is("busy")):
                self._note("end")
                return 75 if frame[1] == 2 else 0
        return 1

    def _is(self, what: str) -> bool:
        return any((self._folder / file).exists() for file in (what, f"{what}-{self._name}"))

    def _note(self, what: str) -> None:
        with (self._folder / "log").open("ab", buffering=0) as file:
            file.write(f"{what} {self._name} {os.getpid()}\n".encode())

    def _send(self, *frame: Any) -> None:
        body = msgpack.packb(frame)
        self._connection.sendall(len(body).to_bytes(LENGTH) + body)

    def _receive(self) -> list[Any]:
        length = self._connection.recv(LENGTH, socket.MSG_WAITALL)
        if not length:
            return []
        body: list[Any] = msgpack.unpackb(self._connection.recv(int.from_bytes(length), socket.MSG_WAITALL))
        return body


if __name__ == "__main__":
    sys.exit(SupervisedProgram(sys.argv[1], int(sys.argv[2])).run())
