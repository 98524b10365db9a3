"""The handle: what somebody who uses a server has in hand."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import TYPE_CHECKING, Self
from urllib.parse import quote

from asyncq.broker.embedded.registry import Registry

if TYPE_CHECKING:
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
        with Registry.mutex:
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
