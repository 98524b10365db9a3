"""The servers that this process holds, and a user's handle on one; also after `fork` and at exit.

`HeldServers.mutex` guards all of it, on any thread. `Held` has two subclasses: in `shared` and in
`throwaway`.
"""

from __future__ import annotations

import atexit
import os
import threading
from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Self
from urllib.parse import quote

if TYPE_CHECKING:
    import weakref
    from pathlib import Path
    from types import TracebackType


@dataclass(eq=False)
class EmbeddedServer:
    """A hold of this process on a running server. End it with `release`, or use it as a context manager.

    Example:
        >>> with acquire(Path("/srv/shop")) as server:  # doctest: +SKIP
        ...     print(server.url)
        unix:///run/user/1000/asyncq/4f1c09a7be21/s

    Attributes:
        url: the `unix://` URL to connect to.
        version: name and version of the server, as in "Valkey 9.1.2".
        directory: the project directory, with the data in `.asyncq/`; for `private` the temporary directory.
        socket: the path of the unix socket.
        started_here: whether this call started the server, and did not find it running.
    """

    url: str
    version: str
    directory: Path
    socket: Path
    started_here: bool
    _held: Held

    def release(self) -> None:
        """Ends this hold. A second call does nothing.

        The last handle of the last process shuts the server down, which takes a few milliseconds. The data of
        a project's server stay.
        """
        with HeldServers.mutex:
            self._held.leave(self)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.release()


class Held(ABC):
    """A server that this process uses, and the handles that were given out for it."""

    def __init__(self) -> None:
        self.handles: set[EmbeddedServer] = set()

    def handle(self, directory: Path, socket: Path, version: str, started_here: bool) -> EmbeddedServer:
        """Makes one more handle."""
        server = EmbeddedServer(
            f"unix://{quote(str(socket))}", version, directory, socket, started_here, self
        )
        self.handles.add(server)
        return server

    def leave(self, server: EmbeddedServer) -> None:
        """Takes a handle back. With the last one, this process ends its use of the server. A second call for
        the same handle does nothing.
        """
        if server in self.handles:
            self.handles.discard(server)
            if not self.handles:
                self.close()

    @abstractmethod
    def close(self) -> None:
        """Ends this process's use of the server, even if handles are left."""

    @abstractmethod
    def forked(self) -> None:
        """Takes locks of its own, or gives the server up, in a child after `fork`."""


class HeldServers:
    """The servers that this process holds. One mutex guards all: starting and leaving are rare and short."""

    # Re-entrant: a signal handler that calls `release` must not deadlock with the main thread that it
    # interrupts.
    mutex: ClassVar[threading.RLock] = threading.RLock()
    held: ClassVar[dict[Path | weakref.ref[Any] | None, Held]] = {}
    """By the project's directory; a throw-away server by its owner, or None."""

    @classmethod
    def close_all(cls) -> None:
        """Ends the use of every server, at the end of the process."""
        with cls.mutex:
            for held in list(cls.held.values()):
                held.close()

    @classmethod
    def before_fork(cls) -> None:
        """Takes the mutex, so that no thread starts or leaves during the fork: a child would inherit
        `start.lock` and hold it for its whole life.
        """
        cls.mutex.acquire()

    @classmethod
    def after_fork(cls) -> None:
        """Releases the mutex in the parent."""
        cls.mutex.release()

    @classmethod
    def forked(cls) -> None:
        """Makes a new mutex in the child, and has each held server take its own locks or give itself up."""
        cls.mutex = threading.RLock()
        for held in list(cls.held.values()):
            held.forked()


atexit.register(HeldServers.close_all)
if hasattr(os, "register_at_fork"):
    os.register_at_fork(
        before=HeldServers.before_fork,
        after_in_parent=HeldServers.after_fork,
        after_in_child=HeldServers.forked,
    )
