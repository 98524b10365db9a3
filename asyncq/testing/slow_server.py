"""Makes a server seem slow: what it sends reaches its clients later by a number of seconds, in its order.

A proxy on the harness's loop, between the socket of the apps and that of the server. Many commands may be on
their way at once, as over a long cable: the delay is added to each answer, and not to one after the other.
"""

from __future__ import annotations

import asyncio
import itertools
from contextlib import suppress
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from types import TracebackType

    from asyncq.testing.private_servers import HarnessServer

_CHUNK = 65536
_numbers = itertools.count()


class SlowServer:
    """A block in which a server answers late. Connections of apps are made anew when it begins and ends.

    Args:
        connected: the server.
        seconds: by how much each answer is late.
    """

    def __init__(self, connected: HarnessServer, seconds: float) -> None:
        self._connected = connected
        self._seconds = seconds
        self._listener: asyncio.Server | None = None
        self._links: set[asyncio.Task[None]] = set()

    async def __aenter__(self) -> None:
        path = self._connected.link.with_name(f"slow{next(_numbers)}")
        self._listener = await asyncio.start_unix_server(self._serve, path)
        await self._connected.lead_to(path)
        await self._connected.drop_connections()

    async def __aexit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        assert self._listener is not None
        await self._connected.lead_to(self._connected.server.socket)
        self._listener.close()
        for link in self._links:
            link.cancel()
        if self._links:
            await asyncio.wait(self._links)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Serves one connection, until either side ends it."""
        task = asyncio.current_task()
        assert task is not None
        self._links.add(task)
        try:
            far_reader, far_writer = await asyncio.open_unix_connection(self._connected.server.socket)
            try:
                await self._forward(reader, writer, far_reader, far_writer)
            finally:
                far_writer.transport.abort()
        except asyncio.CancelledError:
            return  # the block has ended; asyncio's own callback would report a cancelled handler
        finally:
            writer.transport.abort()
            self._links.discard(task)

    async def _forward(
        self,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        far_reader: asyncio.StreamReader,
        far_writer: asyncio.StreamWriter,
    ) -> None:
        late: asyncio.Queue[tuple[float, bytes]] = asyncio.Queue()
        parts = [
            asyncio.ensure_future(_pump(reader, far_writer)),
            asyncio.ensure_future(self._receive(far_reader, late)),
            asyncio.ensure_future(_deliver(late, writer)),
        ]
        try:
            await asyncio.wait(parts, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for part in parts:
                part.cancel()
            await asyncio.wait(parts)

    async def _receive(self, reader: asyncio.StreamReader, late: asyncio.Queue[tuple[float, bytes]]) -> None:
        loop = asyncio.get_running_loop()
        with suppress(OSError):
            while data := await reader.read(_CHUNK):
                late.put_nowait((loop.time() + self._seconds, data))


async def _pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with suppress(OSError):
        while data := await reader.read(_CHUNK):
            writer.write(data)
            await writer.drain()


async def _deliver(late: asyncio.Queue[tuple[float, bytes]], writer: asyncio.StreamWriter) -> None:
    loop = asyncio.get_running_loop()
    with suppress(OSError):
        while True:
            due, data = await late.get()
            await asyncio.sleep(due - loop.time())
            writer.write(data)
            await writer.drain()
