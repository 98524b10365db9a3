"""What somebody who uses a server has in hand, and which servers this process holds, also across its forks
and at its end.
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
    """A running server that this process holds on to. Leave with `release`, or use it as a context manager.

    Example:
        >>> with acquire(Path("/srv/shop")) as server:  # doctest: +SKIP
        ...     print(server.url)
        unix:///run/user/1000/asyncq/4f1c09a7be21/s

    Attributes:
        url: the `unix://` URL to connect to.
        version: name and version of the server, as in "Valkey 9.1.2".
        directory: the project directory, with the data in `.asyncq/`; for `private` the temporary directory.
        socket: the path of the unix socket.
        started_here: whether this call started the server, rather than find it running.
    """

    url: str
    version: str
    directory: Path
    socket: Path
    started_here: bool
    _held: Held

    def release(self) -> None:
        """Let go. Does nothing when called again.

        The last handle of the last process shuts the server down (data kept), which takes a few milliseconds.
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
        """Give out one more handle."""
        server = EmbeddedServer(
            f"unix://{quote(str(socket))}", version, directory, socket, started_here, self
        )
        self.handles.add(server)
        return server

    def leave(self, server: EmbeddedServer) -> None:
        """Take a handle back; with the last one the server is let go. Does nothing the second time."""
        if server in self.handles:
            self.handles.discard(server)
            if not self.handles:
                self.close()

    @abstractmethod
    def close(self) -> None:
        """Let go of the server, whatever handles are left."""

    @abstractmethod
    def forked(self) -> None:
        """Put things right in a forked child."""


class HeldServers:
    """What this process holds. One mutex for all of it: starting and leaving are rare and short."""

    # Re-entrant, so that a signal handler that releases does not lock up the main thread.
    mutex: ClassVar[threading.RLock] = threading.RLock()
    held: ClassVar[dict[Path | weakref.ref[Any] | None, Held]] = {}
    """By the project's directory; a throw-away server by its owner."""

    @classmethod
    def close_all(cls) -> None:
        """Let go of every server, at the end of the process."""
        with cls.mutex:
            for held in list(cls.held.values()):
                held.close()

    @classmethod
    def before_fork(cls) -> None:
        """Nobody starts or leaves during a fork: a child would hold the start.lock it inherits for life."""
        cls.mutex.acquire()

    @classmethod
    def after_fork(cls) -> None:
        """The parent goes on."""
        cls.mutex.release()

    @classmethod
    def forked(cls) -> None:
        """The child takes locks of its own, and lets go of what belongs to the parent alone."""
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
