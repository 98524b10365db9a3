"""The locks: who starts, who uses, and which server owns the data."""

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
    """A fresh descriptor that holds the lock, or None if somebody else has it."""
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
    """A fresh descriptor that holds the shared lock; the exclusive one is never held for long."""
    descriptor = _open(path)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH)
    except BaseException:
        os.close(descriptor)
        raise
    return descriptor


@contextlib.contextmanager
def starting(place: ServerDirectories) -> Iterator[None]:
    """Hold `start.lock`. Asks again every few milliseconds, because `flock` itself knows no deadline."""
    timeout = 1.5 * resp.DEADLINE  # the holder may itself be waiting for a server
    deadline = time.monotonic() + timeout
    while (descriptor := try_exclusive(place.start_lock)) is None:
        if time.monotonic() > deadline:
            raise BrokerUnavailable(
                f"Another process has been starting the embedded server of {place.directory} "
                f"for {timeout:.0f} s. See {place.log}; `asyncq server stop --force` ends it."
            )
        time.sleep(0.002)
    try:
        yield
    finally:
        os.close(descriptor)


class MovedError(Exception):
    """Somebody started the server in another runtime directory meanwhile. Never leaves this package."""


def guard_data(place: ServerDirectories, deadline: float) -> int | None:
    """Take `server.lock` for the server about to start; None where the file system has no locks.

    Held by another server: it is on its way out (waited for), or lives in another runtime directory.
    """
    while True:
        try:
            guard = try_exclusive(place.data / "server.lock")
        except PermissionError:
            raise
        except OSError as error:
            # Some network file systems cannot lock. start.lock, which is local, still keeps this machine in
            # order.
            logger.debug("no lock on %s: %s", place.data, error)
            return None
        if guard is not None:
            return guard
        if elsewhere(place):
            raise MovedError
        if time.monotonic() > deadline:
            meta = place.meta()
            raise BrokerNotConfigured(
                f"The data in {place.data} is in use by a server that cannot be reached from here "
                f"(pid {meta.get('pid')} on {meta.get('host')}, socket {meta.get('socket')}).\n"
                "Another container that mounts this directory? Give both ASYNCQ_URL=redis://host:6379/0.\n"
                "A server whose socket was deleted (logout)? `asyncq server stop` ends it."
            )
        time.sleep(0.01)
