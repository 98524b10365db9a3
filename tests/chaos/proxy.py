"""A TCP proxy between clients and the server that does what bad networks do: it delays, cuts, drops, splits
and holds back.

Runs on the loop that starts it. A seeded generator decides which chunks are hit. The same seed gives the same
draws. The traffic that they hit differs as far as the scheduling of the processes differs.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
import socket
import struct
from collections import Counter
from typing import Self

CHUNK = 65536
PUSH = b">3\r\n$7\r\nmessage\r\n"
RESET = struct.pack("ii", 1, 0)
"""The socket option "linger for no time": a close sends RST instead of FIN."""


class Link:
    """One connection: to the client and to the server."""

    def __init__(self, near: asyncio.StreamWriter, far: asyncio.StreamWriter) -> None:
        self.near = near
        self.far = far
        self.is_half_open = False

    def reset(self) -> None:
        """Ends the connection at once: both sides see a TCP reset."""
        for side in (self.near, self.far):
            if not side.transport.is_closing():
                side.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
            side.transport.abort()


class Proxy:
    """A proxy between clients and the server at a port.

    Attributes:
        latency: seconds by which each chunk is delayed, drawn between the two, in either direction.
        drop_requests: the chance that a chunk of the client is dropped and its connection cut.
        drop_replies: the chance that a chunk of the server is dropped and its connection cut. The commands
            were executed.
        drop_pushes: the chance that a published message is dropped. The connection stays.
        slices: the largest number of bytes that is forwarded at once; 0 forwards each chunk as it came.
        counts: how many chunks were forwarded, and how often each fault happened.
    """

    def __init__(self, port: int, seed: int = 0) -> None:
        self._port = port
        self._random = random.Random(seed)
        self._links: set[Link] = set()
        self._forwarding = asyncio.Event()
        self._forwarding.set()
        self._server: asyncio.Server | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        self.latency = (0.0, 0.0)
        self.drop_requests = self.drop_replies = 0.0
        self.drop_pushes = 0.0
        self.slices = 0
        self.counts: Counter[str] = Counter()

    @property
    def url(self) -> str:
        assert self._server is not None
        return f"redis://127.0.0.1:{self._server.sockets[0].getsockname()[1]}/0"

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        return self

    async def __aexit__(self, *_: object) -> None:
        assert self._server is not None
        self._server.close()
        self._forwarding.set()
        self.reset_all()
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    # -- faults that a trial causes --

    def hold(self) -> None:
        """Begins a black hole: no data passes, and neither side notices. New connections are silent."""
        self._forwarding.clear()

    def heal(self) -> None:
        """Ends the black hole: what was held back is forwarded. If one side has given up its connection, the
        connection ends for the other side, too.
        """
        self._forwarding.set()

    def reset_all(self) -> None:
        """Cuts every connection."""
        for link in list(self._links):
            link.reset()

    def half_open(self) -> None:
        """Ends the server's side of every connection. The clients never learn of it."""
        for link in list(self._links):
            link.is_half_open = True
            link.far.transport.abort()

    # -- forwarding --

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        try:
            await self._forwarding.wait()
            try:
                far_reader, far_writer = await asyncio.open_connection("127.0.0.1", self._port)
            except OSError:
                writer.transport.abort()
                return
            link = Link(writer, far_writer)
            self._links.add(link)
            await asyncio.gather(
                self._pump(link, reader, far_writer, "request"), self._pump(link, far_reader, writer, "reply")
            )
            self._links.discard(link)
        except asyncio.CancelledError:
            writer.transport.abort()  # the trial is over; asyncio's own callback reports a cancelled handler
        finally:
            self._tasks.discard(task)

    async def _pump(
        self, link: Link, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, kind: str
    ) -> None:
        with contextlib.suppress(ConnectionError, OSError):
            while data := await reader.read(CHUNK):
                await self._forwarding.wait()
                if link.is_half_open:
                    continue
                if not await self._forward(data, writer, kind):
                    break
        if link.is_half_open and kind == "reply":
            return  # the client's side stays open
        await self._forwarding.wait()
        link.reset()

    async def _forward(self, data: bytes, writer: asyncio.StreamWriter, kind: str) -> bool:
        """Forwards a chunk. Returns False if it was dropped, and the connection must be cut."""
        self.counts[kind] += 1
        if self._random.random() < (self.drop_requests if kind == "request" else self.drop_replies):
            self.counts[f"lost {kind}"] += 1
            return False
        if kind == "reply" and data.startswith(PUSH) and self._random.random() < self.drop_pushes:
            self.counts["lost push"] += 1
            return True
        if self.latency[1]:
            await asyncio.sleep(self._random.uniform(*self.latency))
        size = self.slices or len(data)
        for start in range(0, len(data), size):
            writer.write(data[start : start + size])
            await writer.drain()
            if self.slices:
                await asyncio.sleep(0)
        return True
