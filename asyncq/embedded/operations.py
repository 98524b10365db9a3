"""The operations of `asyncq server` on a project's server: status, stop, and run in the foreground.

All of them block. `status` and `stop` do not keep a hold on the server; `run_foreground` must run on the main
thread.
"""

from __future__ import annotations

import contextlib
import logging
import os
import re
import select
import signal
import subprocess
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from asyncq.embedded import resp
from asyncq.embedded.directories import ServerDirectories, directories_of
from asyncq.embedded.locks import starting, try_exclusive
from asyncq.embedded.resp import probe, shut_down
from asyncq.embedded.shared import acquire

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from types import FrameType

    from asyncq.embedded.server_handle import EmbeddedServer

logger: logging.Logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Status:
    """What is known about the server of a project.

    Attributes:
        running: whether a server is at the socket.
        pid: the server's process id, if it answers.
        version: as in "Valkey 9.1.2"; that of the last start, if none runs; None if there never was one.
        socket: where its socket is, or would be.
        directory: the project directory.
        started: when it was started, in seconds since the epoch; None if it does not run.
        in_use: whether any process (this one too) holds it; None if that is not known.
        memory: bytes in use; None if it does not answer.
        keys: number of keys; None if it does not answer.
        aof_size: bytes of the append-only file on disk.
    """

    running: bool
    pid: int | None
    version: str | None
    socket: Path
    directory: Path
    started: float | None
    in_use: bool | None
    memory: int | None
    keys: int | None
    aof_size: int


def status(directory: Path) -> Status:
    """Looks at the server of a project, without starting or holding it.

    Example:
        >>> status(Path("/srv/shop")).running  # doctest: +SKIP
        False
    """
    directories = directories_of(directory.resolve())
    answer = probe(directories.socket)
    info = answer.info
    running = answer.state != "absent"
    uptime = info.get("uptime_in_seconds")
    return Status(
        running=running,
        pid=int(info["process_id"]) if "process_id" in info else None,
        version=answer.version if info else directories.meta().get("version"),
        socket=directories.socket,
        directory=directories.directory,
        started=time.time() - int(uptime) if uptime else None,
        in_use=_in_use(directories) if running else False,
        memory=int(info["used_memory"]) if "used_memory" in info else None,
        keys=_count_keys(info) if info else None,
        aof_size=sum(file.stat().st_size for file in (directories.data / "appendonlydir").glob("*")),
    )


def _count_keys(info: Mapping[str, str]) -> int:
    """Sums up the keys of `db0:keys=3,expires=0,...` over the databases."""
    databases = (text for name, text in info.items() if re.fullmatch(r"db\d+", name))
    return sum(int(text.split(",")[0].removeprefix("keys=")) for text in databases)


def _in_use(directories: ServerDirectories) -> bool | None:
    # Only under `start.lock`: while we hold the exclusive lock, a process that leaves would else find it
    # taken, believe that users are left, and leave the server running.
    try:
        with starting(directories):
            alone = try_exclusive(directories.users_lock)
    except OSError as error:
        logger.debug(
            "the users of the embedded server of %s could not be checked: %s", directories.directory, error
        )
        return None
    if alone is None:
        return True
    os.close(alone)
    return False


def stop(directory: Path, *, force: bool = False) -> bool:
    """Shuts down the server of a project. Its data stay.

    It also ends a server whose users were killed, or whose socket was deleted.

    Args:
        directory: the project directory.
        force: stop the server even if processes use it, and kill it if it does not answer. Up to a second of
            writes is lost then.

    Returns:
        Whether a server was stopped. False: none runs, or it is in use and `force` was not given.

    Example:
        >>> stop(Path("/srv/shop"))  # doctest: +SKIP
        True
    """
    directories = directories_of(directory.resolve())
    if probe(directories.socket).state == "absent":
        return _kill(directories, signal.SIGTERM)  # a server whose socket was deleted may still run
    # With force, without the lock: a process may hang while it holds `start.lock`.
    with contextlib.nullcontext() if force else starting(directories):
        alone = try_exclusive(directories.users_lock)
        if alone is not None:
            os.close(alone)
        elif not force:
            return False
        complaint = shut_down(
            directories.socket, time.monotonic() + (2 * resp.ANSWER_TIMEOUT if force else resp.DEADLINE)
        )
        if complaint is None:
            return True
        logger.warning("the embedded server of %s does not stop: %s", directories.directory, complaint)
        return force and _kill(directories, signal.SIGKILL)


def _kill(directories: ServerDirectories, number: signal.Signals) -> bool:
    """Sends a signal to the process that the last start wrote down, if it is still the server, and waits for
    its end. Returns whether it has ended.
    """
    meta = directories.meta()
    pid = int(meta.get("pid", 0))
    if meta.get("host") != os.uname().nodename or not pid or str(meta.get("socket")) not in command_line(pid):
        return False
    os.kill(pid, number)
    deadline = time.monotonic() + resp.DEADLINE
    while str(meta.get("socket")) in command_line(pid):
        if time.monotonic() > deadline:
            return False
        time.sleep(0.01)
    return True


def command_line(pid: int) -> str:
    """Returns a process's command line, in which a server names its socket; empty if there is no process."""
    if Path("/proc/self/cmdline").exists():
        try:
            return Path(f"/proc/{pid}/cmdline").read_text()
        except (FileNotFoundError, ProcessLookupError):
            return ""
    shown = subprocess.run(  # noqa: S603  fixed arguments
        ["/bin/ps", "-o", "args=", "-p", str(pid)], capture_output=True, text=True, check=False
    )
    return shown.stdout


def run_foreground(directory: Path, *, ready: Callable[[EmbeddedServer], None]) -> None:
    """Keeps the server of a project up until SIGINT or SIGTERM, and starts it again if it dies.

    It handles both signals meanwhile, so it must be called on the main thread.

    Args:
        directory: the project directory.
        ready: called with the handle once the server answers, and again after each new start; print the URL
            there.

    Raises:
        BrokerNotConfigured: as for `acquire`.
    """
    wake, waker = os.pipe()

    def stop_waiting(_number: int, _frame: FrameType | None) -> None:
        os.write(waker, b"x")  # setting a threading.Event in a handler can deadlock the wait it interrupts

    before = {number: signal.signal(number, stop_waiting) for number in (signal.SIGINT, signal.SIGTERM)}
    server = None
    try:
        server = acquire(directory)
        ready(server)
        while not select.select([wake], [], [], 1.0)[0]:
            if probe(server.socket).state == "absent":
                server.release()
                server = acquire(directory)
                ready(server)
    finally:
        if server is not None:
            server.release()
        for number, handler in before.items():
            signal.signal(number, handler)
        os.close(wake)
        os.close(waker)
