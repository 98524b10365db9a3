"""The private servers of tests: one process keeps them, and gives each harness a clean one of its own.

A server starts in some 35 ms, and cleaning one takes less than a millisecond, so a server that a harness
gives back serves the next one. It ends with the process, even if that is killed. The socket to which apps
connect is a link in a directory of the harness: `SlowServer` makes it lead elsewhere for a while. The harness
itself connects to the server directly.
"""

from __future__ import annotations

import os
import shutil
import tempfile
import threading
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from asyncq import embedded
from asyncq.broker.transport import scripts
from asyncq.broker.transport.reconnect import ReconnectingConnection
from asyncq.system.threads import in_daemon_thread

if TYPE_CHECKING:
    from asyncq.broker.transport.connection import Address
    from asyncq.embedded import EmbeddedServer

_OWN = "asyncq-harness"
"""The name of the harness's own connection, in the server's CLIENT LIST."""

_lock = threading.Lock()
_free: list[PrivateServer] = []


class PrivateServer:
    """A server for one harness at a time.

    Attributes:
        socket: the path of its unix socket.
        url: the URL that leads to it directly.
    """

    def __init__(self) -> None:
        self._server: EmbeddedServer = embedded.private(self)
        self.socket: Path = self._server.socket
        self.url: str = self._server.url


def _take() -> PrivateServer:
    """Returns a server that no harness uses. Blocks while it starts one."""
    with _lock:
        while _free:
            server = _free.pop()
            if server.socket.exists():  # else somebody has killed it
                return server
    return PrivateServer()


def _forget_all() -> None:
    """Forgets the servers of the parent in a child after `fork`: the child cannot keep them."""
    global _lock  # noqa: PLW0603  another thread of the parent may have held it
    _lock = threading.Lock()
    _free.clear()


os.register_at_fork(after_in_child=_forget_all)


def count_free() -> int:
    """Returns how many servers run that no harness uses."""
    with _lock:
        return sum(server.socket.exists() for server in _free)


def close_all() -> None:
    """Ends all servers that no harness uses. A harness that begins later starts a new one."""
    with _lock:
        _free.clear()


class HarnessServer:
    """A private server with the harness's own connection to it, on the harness's loop. Opened by `open`.

    Attributes:
        server: the server.
        link: the path of the socket to which apps connect.
    """

    def __init__(self, server: PrivateServer, address: Address, directory: Path) -> None:
        self.server = server
        self.link: Path = directory / "s"
        self._directory: Path | None = directory
        self._connection = ReconnectingConnection(address, _OWN)

    @classmethod
    async def open(cls) -> HarnessServer:
        """Takes a server and connects to it.

        Raises:
            BrokerNotConfigured: there is no server program, or it cannot start here.
        """
        server = await in_daemon_thread(_take)
        address = await in_daemon_thread(_address, server.url)
        connected = cls(server, address, await in_daemon_thread(_make_directory, server.socket))
        try:
            await connected.send("FLUSHALL")
        except BaseException:
            await connected._leave()
            raise
        return connected

    @property
    def url(self) -> str:
        """The URL for apps."""
        return f"unix://{self.link}"

    async def send(self, *command: Any) -> Any:
        """Sends a command directly to the server, whatever happens to the connections of the app."""
        pipe = self._connection.current or await self._connection.pipe()
        return await pipe.call(*command)

    async def drop_connections(self) -> None:
        """Closes all connections to the server but the harness's own."""
        for kind in ("normal", "pubsub"):
            await self.send("CLIENT", "KILL", "TYPE", kind, "SKIPME", "yes")

    async def connections(self) -> list[str]:
        """Returns the names of all connections to the server but the harness's own; `?` for one without."""
        lines = (await self.send("CLIENT", "LIST")).decode().splitlines()
        named = [dict(part.partition("=")[::2] for part in line.split(" ")) for line in lines]
        return [one.get("name") or "?" for one in named if one.get("name") != _OWN]

    async def lead_to(self, socket: Path) -> None:
        """Makes new connections of apps go to another socket."""
        await in_daemon_thread(_replace_link, self.link, socket)

    async def close(self) -> None:
        """Cleans the server and gives it back. A second call does nothing."""
        if self._directory is None:
            return
        await self.send("FLUSHALL")
        await self._leave()
        with _lock:
            _free.append(self.server)

    async def _leave(self) -> None:
        directory, self._directory = self._directory, None
        self._connection.close()
        if directory is not None:
            await in_daemon_thread(partial(shutil.rmtree, directory, ignore_errors=True))


def _make_directory(socket: Path) -> Path:
    """Makes a directory with a link to a socket. Its path is short: the paths of sockets may not be long."""
    usual = tempfile.gettempdir()
    short = usual if len(usual) < 60 else "/tmp"  # noqa: S108  the directory in it is our own
    directory = Path(tempfile.mkdtemp(prefix="asyncq-test-", dir=short))
    (directory / "s").symlink_to(socket)
    return directory


def _replace_link(link: Path, socket: Path) -> None:
    other = link.with_name("other")
    other.symlink_to(socket)
    other.replace(link)


def _address(url: str) -> Address:
    """Returns the address of a URL. Blocks, the first time: it also reads what the sessions will need."""
    scripts.load_for_tests()
    from asyncq.broker.transport.connection import parse  # imports redis-py

    return parse(url)
