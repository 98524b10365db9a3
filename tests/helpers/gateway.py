"""Forwards TCP connections to the nodes of a cluster, and cuts nodes off from one another as a broken network
does: nothing passes, and nobody is told.

All connections of a cluster go through one gateway: each node announces ports of the gateway in place of
its own, for clients and for the bus. A node is known by the address from which it connects
(`Gateway.address`, one of Linux's 127.0.0.0/8); every other address is a client's. Runs on a loop in a thread
of its own, so tests may block.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import threading
from typing import TYPE_CHECKING, Any, Self

if TYPE_CHECKING:
    from collections.abc import Callable


class _End(asyncio.Protocol):
    """One end of a link. What comes in goes out at the other end."""

    def __init__(self, link: _Link) -> None:
        self._link = link
        self.other: _End | None = None
        self.transport: Any = None
        self._waiting: list[bytes] = []
        """What came before the other end was connected."""

    def connection_made(self, transport: Any) -> None:
        self.transport = transport
        transport.get_extra_info("socket").setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._link.made(self)

    def data_received(self, data: bytes) -> None:
        if self.other is None:
            self._waiting.append(data)
        else:
            self.other.transport.write(data)

    def join(self, other: _End) -> None:
        """Begins to forward to the other end."""
        self.other = other
        for data in self._waiting:
            other.transport.write(data)
        self._waiting.clear()

    def pause_writing(self) -> None:
        if self.other is not None:
            self.other.transport.pause_reading()

    def resume_writing(self) -> None:
        if self.other is not None and not self._link.is_cut:
            self.other.transport.resume_reading()

    def connection_lost(self, _: Exception | None) -> None:
        self._link.lost(self)


class _Link:
    """A connection from a client or a node to a node.

    Attributes:
        source: the number of the node that made the connection; None for a client.
        target: the number of the node that it leads to.
        is_cut: whether nothing passes.
    """

    def __init__(self, gateway: Gateway, target: int, port: int) -> None:
        self._gateway = gateway
        self._port = port
        self.source: int | None = None
        self.target = target
        self.is_cut = False
        self._near = _End(self)
        self._far = _End(self)

    def near_end(self) -> asyncio.Protocol:
        return self._near

    def made(self, end: _End) -> None:
        self._gateway.ends.add(end)
        if end is self._near:
            host = end.transport.get_extra_info("peername")[0]
            self.source = self._gateway.number_of(host)
            self._gateway.links.add(self)
            # A link that is cut from its beginning is silent, and closed when the network is whole again.
            if self._gateway.cuts(self):
                self.cut()
            else:
                self._gateway.start(self._connect())
        elif self._near.transport.is_closing():
            end.transport.abort()
        else:
            self._near.join(end)
            end.join(self._near)
            if self.is_cut:
                end.transport.pause_reading()

    async def _connect(self) -> None:
        try:
            loop = asyncio.get_running_loop()
            await loop.create_connection(lambda: self._far, "127.0.0.1", self._port)
        except OSError:
            self.close()  # the node is down

    def cut(self) -> None:
        self.is_cut = True
        for end in self._ends():
            end.transport.pause_reading()

    def lost(self, end: _End) -> None:
        self._gateway.ends.discard(end)
        if self.is_cut:
            return  # a network that is cut hides that a process has closed its connection
        self._gateway.links.discard(self)
        for other in self._ends():
            if other is not end:
                other.transport.close()

    def close(self) -> None:
        self.is_cut = False
        self._gateway.links.discard(self)
        for end in self._ends():
            end.transport.abort()

    def _ends(self) -> list[_End]:
        return [end for end in (self._near, self._far) if end.transport is not None]


class Gateway:
    """The network between the nodes of a cluster, and from its clients to it. Methods may be called on any
    thread.

    Attributes:
        links: all connections that are open. Only the gateway's own thread reads and changes it.
        ends: all ends of connections that have a socket, also of those that are being closed.
    """

    def __init__(self) -> None:
        self.links: set[_Link] = set()
        self.ends: set[_End] = set()
        self._cut_nodes: set[int] = set()
        self._cuts_clients = False
        self._loop = asyncio.new_event_loop()
        self._servers: list[asyncio.Server] = []
        self._tasks: set[asyncio.Task[None]] = set()
        self._thread = threading.Thread(target=self._loop.run_forever, name="gateway", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._call(self._close)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    @staticmethod
    def address(number: int) -> str:
        """Returns the address from which a node connects."""
        return f"127.0.1.{number + 1}"

    @staticmethod
    def number_of(host: str) -> int | None:
        """Returns the number of the node that connects from an address; None for a client."""
        first, _, last = host.rpartition(".")
        return int(last) - 1 if first == "127.0.1" else None

    def open(self, number: int, port: int) -> int:
        """Listens, and returns the port of 127.0.0.1 that leads to a port of a node.

        Args:
            number: of the node.
            port: of the node.
        """

        async def listen() -> int:
            server = await self._loop.create_server(
                lambda: _Link(self, number, port).near_end(), "127.0.0.1", 0, backlog=512
            )
            self._servers.append(server)
            return int(server.sockets[0].getsockname()[1])

        return asyncio.run_coroutine_threadsafe(listen(), self._loop).result(10)

    def cut_off(self, *numbers: int, clients: bool = False) -> None:
        """Lets nothing pass between these nodes and all others, until `heal`. A connection that is open stays
        open, and a new one can be made; both are silent.

        Args:
            numbers: of the nodes. Between them everything passes.
            clients: whether they are cut off from clients, too.
        """

        async def cut() -> None:
            self._cut_nodes, self._cuts_clients = set(numbers), clients
            for link in list(self.links):
                if self.cuts(link):
                    link.cut()

        self._call(cut)

    def heal(self) -> None:
        """Makes the network whole. Connections that were cut are closed: whoever needs one connects anew."""

        async def heal() -> None:
            self._cut_nodes, self._cuts_clients = set(), False
            for link in list(self.links):
                if link.is_cut:
                    link.close()

        self._call(heal)

    def cuts(self, link: _Link) -> bool:
        """Returns whether nothing passes over a link at the moment."""
        if link.source is None:
            return self._cuts_clients and link.target in self._cut_nodes
        return (link.source in self._cut_nodes) != (link.target in self._cut_nodes)

    def start(self, work: Any) -> None:
        """Runs a coroutine beside all else. For the links, on the gateway's own thread."""
        task = self._loop.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def _call(self, work: Callable[[], Any]) -> None:
        asyncio.run_coroutine_threadsafe(work(), self._loop).result(10)

    async def _close(self) -> None:
        for server in self._servers:
            server.close()
        for link in list(self.links):
            link.close()
        for task in list(self._tasks):
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await task
        # Also those that wait until the other side has taken their last bytes.
        for end in list(self.ends):
            end.transport.abort()
        await asyncio.sleep(0)  # the transports are closed at the end of this turn
