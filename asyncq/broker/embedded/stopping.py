"""The stopping: how a project's server is ended by hand."""

from __future__ import annotations

import contextlib
import logging
import os
import signal
import subprocess
import time
from pathlib import Path

from asyncq.broker.embedded import limits
from asyncq.broker.embedded.answer import probe, shut_down
from asyncq.broker.embedded.locks import starting, try_exclusive
from asyncq.broker.embedded.place import Place, place_of

logger: logging.Logger = logging.getLogger(__name__)


def stop(directory: Path, *, force: bool = False) -> bool:
    """Shut the server of a project down; its data stay.

    Also ends a server that was left alone: its users killed, its socket deleted.

    Args:
        directory: the project directory.
        force: do it even if processes use it, and kill it if it does not answer. Up to a second of writes is
            then lost.

    Returns:
        Whether a server was stopped. False: none runs, or it is in use and `force` was not given.

    Example:
        >>> stop(Path("/srv/shop"))  # doctest: +SKIP
        True
    """
    place = place_of(directory.resolve())
    if probe(place.socket).state == "absent":
        return _kill(place, signal.SIGTERM)  # perhaps one whose socket was deleted
    # By force also past a process that hangs while it holds start.lock.
    with contextlib.nullcontext() if force else starting(place):
        alone = try_exclusive(place.users_lock)
        if alone is not None:
            os.close(alone)
        elif not force:
            return False
        complaint = shut_down(
            place.socket, time.monotonic() + (2 * limits.ANSWER_TIMEOUT if force else limits.DEADLINE)
        )
        if complaint is None:
            return True
        logger.warning("the embedded server of %s does not stop: %s", place.directory, complaint)
        return force and _kill(place, signal.SIGKILL)


def _kill(place: Place, number: signal.Signals) -> bool:
    """Signal the server by the pid it was started with, if that process is still it; wait for its end."""
    meta = place.meta()
    pid = int(meta.get("pid", 0))
    if meta.get("host") != os.uname().nodename or not pid or str(meta.get("socket")) not in command_line(pid):
        return False
    os.kill(pid, number)
    deadline = time.monotonic() + limits.DEADLINE
    while str(meta.get("socket")) in command_line(pid):
        if time.monotonic() > deadline:
            return False
        time.sleep(0.01)
    return True


def command_line(pid: int) -> str:
    """What the process calls itself; empty if there is none. A server names its socket there."""
    if Path("/proc/self/cmdline").exists():
        try:
            return Path(f"/proc/{pid}/cmdline").read_text()
        except (FileNotFoundError, ProcessLookupError):
            return ""
    shown = subprocess.run(  # noqa: S603  fixed arguments
        ["/bin/ps", "-o", "args=", "-p", str(pid)], capture_output=True, text=True, check=False
    )
    return shown.stdout
