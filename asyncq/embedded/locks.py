"""The three locks of a project's server: `start.lock`, `users.lock`, `server.lock`. `__init__` explains them.

Each is an `flock` on a descriptor: closing the descriptor, or the death of its process, releases the lock. A
lock belongs to the open file, so a forked child shares its parent's locks until it takes its own. Waiting for
a lock blocks the thread.
"""

from __future__ import annotations

import contextlib
import logging
import os
import sys
import time
from typing import TYPE_CHECKING

from asyncq.embedded import resp
from asyncq.embedded.directories import ServerDirectories, elsewhere
from asyncq.errors import BrokerNotConfigured, BrokerUnavailable

if sys.platform != "win32":
    import fcntl

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

logger: logging.Logger = logging.getLogger(__name__)


def _open(path: Path) -> int:
    return os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)


def try_exclusive(path: Path) -> int | None:
    """Returns a new descriptor that holds the lock exclusively, or None if another process holds the lock."""
    descriptor = _open(path)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(descriptor)
        return None
    except BaseException:
        os.close(descriptor)
        raise
    return descriptor


def hold_shared(path: Path) -> int:
    """Returns a new descriptor that shares the lock. Blocks while another holds it exclusively: not long."""
    descriptor = _open(path)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH)
    except BaseException:
        os.close(descriptor)
        raise
    return descriptor


@contextlib.contextmanager
def starting(directories: ServerDirectories) -> Iterator[None]:
    """Holds `start.lock` in the block. It tries again every 2 ms, for `flock` itself has no timeout.

    Raises:
        BrokerUnavailable: another process has held the lock for 15 s.
    """
    timeout = 1.5 * resp.DEADLINE  # the process that holds the lock may itself wait for a server
    deadline = time.monotonic() + timeout
    while (descriptor := try_exclusive(directories.start_lock)) is None:
        if time.monotonic() > deadline:
            raise BrokerUnavailable(
                f"Another process has been starting the embedded server of {directories.directory} "
                f"for {timeout:.0f} s. See {directories.log}; `asyncq server stop --force` ends it."
            )
        time.sleep(0.002)
    try:
        yield
    finally:
        os.close(descriptor)


class MovedError(Exception):
    """Another process has started the server in another runtime directory. Never leaves this package."""


def guard_data(directories: ServerDirectories, deadline: float) -> int | None:
    """Takes `server.lock` for a server that is about to start, and returns the descriptor; None if the file
    system has no locks.

    If another server holds the lock, that server is shutting down, which is waited for, or it lives in
    another runtime directory.

    Raises:
        MovedError: a server answers in another runtime directory.
        BrokerNotConfigured: the lock is not free by the deadline.
    """
    while True:
        try:
            guard = try_exclusive(directories.data / "server.lock")
        except PermissionError:
            raise
        except OSError as error:
            # Some network file systems have no locks. `start.lock` is on a local one and still prevents two
            # servers of this machine.
            logger.debug("the file system cannot lock %s: %s", directories.data, error)
            return None
        if guard is not None:
            return guard
        if elsewhere(directories):
            raise MovedError
        if time.monotonic() > deadline:
            meta = directories.meta()
            raise BrokerNotConfigured(
                f"The data in {directories.data} is in use by a server that cannot be reached from here "
                f"(pid {meta.get('pid')} on {meta.get('host')}, socket {meta.get('socket')}).\n"
                "If another container mounts this directory: give both ASYNCQ_URL=redis://host:6379/0.\n"
                "If the socket of the server was deleted (logout): `asyncq server stop` ends the server."
            )
        time.sleep(0.01)
