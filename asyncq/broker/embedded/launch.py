"""The launch: from a program and a place to a server that answers."""

from __future__ import annotations

import os
import subprocess
import time
from typing import TYPE_CHECKING

from asyncq.broker.embedded import limits, program
from asyncq.broker.embedded.advice import failure
from asyncq.broker.embedded.answer import Answer, wait_until_ready
from asyncq.broker.embedded.locks import guard_data
from asyncq.errors import BrokerUnavailable

if TYPE_CHECKING:
    from pathlib import Path

    from asyncq.broker.embedded.place import Place


def launch(place: Place, deadline: float) -> tuple[subprocess.Popen[bytes], Answer]:
    """Start the server of this project. The caller holds `start.lock`, and nobody is at the socket."""
    binary = program.find()
    arguments = command_for(binary, place.socket, place.data, durable=True)
    guard = guard_data(place, deadline)
    try:
        log_from = place.log_size()
        with place.log.open("ab") as log:
            child = subprocess.Popen(  # noqa: S603  our own argument list, no shell
                arguments,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                cwd=place.data,
                start_new_session=True,  # Ctrl-C in the terminal is for us
                pass_fds=() if guard is None else (guard,),
            )
    finally:
        if guard is not None:
            os.close(guard)  # the server has its own copy: the lock lives as long as it does
    try:
        answer = wait_until_ready(place.socket, deadline, lambda: child.poll() is not None)
        _check_started(child, answer, place, log_from)
        place.write_meta(
            version=answer.version,
            pid=child.pid,
            socket=str(place.socket),
            directory=str(place.directory),
            host=os.uname().nodename,
            started=time.time(),
            argv=arguments,
        )
    except BrokerUnavailable:
        disown(child)
        raise
    except BaseException:
        child.kill()
        child.wait()
        raise
    return child, answer


def _check_started(child: subprocess.Popen[bytes], answer: Answer, place: Place, log_from: int) -> None:
    if answer.state == "loading":
        # A big append-only file. Leave it loading: the next attempt attaches.
        raise BrokerUnavailable(
            f"The embedded server of {place.directory} is still loading its data. Try again."
        )
    if child.poll() is not None:
        raise failure(
            f"The embedded server did not start: it ended with status {child.returncode}. "
            "The last lines of its log:",
            place,
            log_from,
        )
    if answer.state != "ready":
        raise failure(f"The embedded server did not answer within {limits.DEADLINE:.0f} s.", place, log_from)


def command_for(binary: Path, socket: Path, data: Path, *, durable: bool) -> list[str]:
    """The command that starts a server at a socket, with its data in a directory."""
    # No TCP port: nothing to probe, nothing to race for, and the socket's mode is the password.
    options = {
        "port": "0",
        "unixsocket": str(socket),
        "unixsocketperm": "700",
        "dir": str(data),
        "logfile": str(data / "server.log"),
        "appendonly": "yes" if durable else "no",
        "appendfsync": "everysec",
        "save": "",
        "maxmemory": "512mb",
        "maxmemory-policy": "noeviction",
        "enable-debug-command": "no",
    }
    return [str(binary), *(part for name, value in options.items() for part in (f"--{name}", value))]


def disown(child: subprocess.Popen[bytes] | None) -> None:
    """Let a child live on: it outlives this process on purpose, or is the parent's, after a fork."""
    # With a return code set, Popen's __del__ neither warns about that (ResourceWarning) nor waits.
    if child is not None and child.poll() is None:
        child.returncode = 0
