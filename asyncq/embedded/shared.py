"""The shared server: one for all processes of a project. `acquire` starts it or attaches to it.

A process holds one shared lock (`users.lock`) for each project that it uses, however many handles it has
given out. Starting, attaching and leaving take `HeldServers.mutex` first, then `start.lock`. Everything
blocks.
"""

from __future__ import annotations

import contextlib
import logging
import os
import subprocess
import time
from typing import TYPE_CHECKING

from asyncq.embedded import resp
from asyncq.embedded.directories import ServerDirectories, directories_of, failure
from asyncq.embedded.launch import disown, launch
from asyncq.embedded.locks import MovedError, hold_shared, starting, try_exclusive
from asyncq.embedded.resp import Answer, shut_down, wait_until_ready
from asyncq.embedded.server_handle import EmbeddedServer, Held, HeldServers
from asyncq.errors import BrokerUnavailable

if TYPE_CHECKING:
    from pathlib import Path

logger: logging.Logger = logging.getLogger(__name__)


def acquire(directory: Path) -> EmbeddedServer:
    """Attaches to the running server of a project, or starts it, and returns a handle.

    May be called again, for one directory or several: a process holds one lock for each directory and counts
    its handles. A server that has died meanwhile is started again. The process ends its use at exit. A
    process that ends by SIGTERM without a handler, or by SIGKILL, leaves the server running, until the next
    last user leaves or `stop` is called.

    Args:
        directory: the project directory, from `resolve`. The data are kept in `.asyncq/` below it.

    Returns:
        A handle with the URL to connect to. Starting the server takes 40 ms, attaching 1 ms.

    Raises:
        BrokerNotConfigured: there is no server program, or it cannot start here. The message says why, with
            the last lines of the server's log, and what helps. It comes after 25 s at the latest.
        BrokerUnavailable: the server does not answer or is still loading its data; a later try may succeed.

    Example:
        >>> server = acquire(resolve("embedded://", project_file=__file__))  # doctest: +SKIP
    """
    directory = directory.resolve()
    with HeldServers.mutex:
        held = HeldServers.held.get(directory)
        shared = held if isinstance(held, _Shared) else _Shared(directory)
        return shared.acquire()


class _Shared(Held):
    """The server of a project, shared with other processes."""

    def __init__(self, directory: Path) -> None:
        super().__init__()
        self.directory = directory
        self.directories: ServerDirectories | None = None
        self.users: int | None = None
        self.child: subprocess.Popen[bytes] | None = None

    def acquire(self) -> EmbeddedServer:
        deadline = time.monotonic() + resp.DEADLINE
        while True:
            directories = directories_of(self.directory)
            directories.create()
            try:
                with starting(directories):
                    return self._acquire_at(directories, deadline)
            except MovedError:
                continue
            except OSError as error:
                if isinstance(error, BrokerUnavailable):
                    raise
                raise failure(
                    f"The embedded server cannot be started: {error}", directories, directories.log_size()
                ) from error

    def _acquire_at(self, directories: ServerDirectories, deadline: float) -> EmbeddedServer:
        users = hold_shared(directories.users_lock)
        try:
            child, answer = self._attach_or_launch(directories, deadline)
        except BaseException:
            os.close(users)
            raise
        self._drop_users()  # the lock that belongs to a server that has died
        self.directories, self.users = directories, users
        if child is not None:
            disown(self.child)
            self.child = child
        HeldServers.held[self.directory] = self
        return self.handle(self.directory, directories.socket, answer.version, child is not None)

    @staticmethod
    def _attach_or_launch(
        directories: ServerDirectories, deadline: float
    ) -> tuple[subprocess.Popen[bytes] | None, Answer]:
        answer = wait_until_ready(directories.socket, deadline, gone=lambda: True)
        if answer.state == "absent":
            return launch(directories, deadline)
        if answer.state != "ready":
            what = "is still loading its data" if answer.state == "loading" else "does not answer"
            raise BrokerUnavailable(
                f"The embedded server at {directories.socket} {what}. "
                "Try again, or end it with `asyncq server stop --force`."
            )
        return None, answer

    def close(self) -> None:
        self.handles.clear()
        HeldServers.held.pop(self.directory, None)
        if self.users is None or self.directories is None:
            return
        try:
            with starting(self.directories):
                self._drop_users()
                self._close_if_last(self.directories)
        except OSError as error:  # also BrokerUnavailable: this runs at exit, where nobody could handle it
            logger.warning("the embedded server of %s is left running: %s", self.directory, error)
        finally:
            self._drop_users()
            disown(self.child)

    def _drop_users(self) -> None:
        if self.users is not None:
            os.close(self.users)
            self.users = None

    def _close_if_last(self, directories: ServerDirectories) -> None:
        # Tries the lock with a new descriptor, and never converts our own: a lock belongs to the open file
        # description, and a forked child that has not yet opened its own (or never will: a fork in C) shares
        # ours. Converting succeeded while such a child lived, and the parent shut down a server in use.
        alone = try_exclusive(directories.users_lock)
        if alone is None:
            return
        try:
            complaint = shut_down(directories.socket, time.monotonic() + resp.DEADLINE)
            if complaint:
                logger.warning("the embedded server of %s does not stop: %s", self.directory, complaint)
            elif self.child is not None:
                with contextlib.suppress(subprocess.TimeoutExpired):  # `close` then disowns it
                    self.child.wait(resp.DEADLINE)
        finally:
            os.close(alone)

    def forked(self) -> None:
        disown(self.child)  # the parent's child, not ours
        self.child = None
        if self.users is None or self.directories is None:
            return
        try:
            own = hold_shared(self.directories.users_lock)
        except OSError as error:
            # The inherited descriptor still holds the lock, as long as neither process converts it.
            logger.debug("the child keeps its parent's lock on %s: %s", self.directories.users_lock, error)
            return
        os.close(self.users)
        self.users = own
