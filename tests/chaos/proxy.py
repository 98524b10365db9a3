"""A TCP proxy that does to a connection what networks do: delay, cut, swallow, split, hold.

Runs in the loop of whoever starts it. Which bytes are hit is drawn from a seeded generator; the draws are
the same for the same seed, the traffic that they fall on is as repeatable as the schedule of processes lets
it be.
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
"""Linger, for no time: closing sends RST instead of FIN."""


class Link:
    """One connection: to the client and to the server."""

    def __init__(self, near: asyncio.StreamWriter, far: asyncio.StreamWriter) -> None:
        self.near = near
        self.far = far
        self.deaf = False

    def reset(self) -> None:
        """Both sides see the connection end at once, with a TCP reset."""
        for side in (self.near, self.far):
            if not side.transport.is_closing():
                side.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
            side.transport.abort()


class Proxy:
    """Between a client and the server at a port.

    Attributes:
        latency: seconds added to each chunk, drawn between the two, in either direction.
        drop_requests: chance that what the client sent is swallowed and the connection cut.
        drop_replies: chance that what the server answered is swallowed and the connection cut: it was
            executed.
        drop_pushes: chance that published messages are swallowed, and the connection stays.
        slices: largest piece that is forwarded at once; 0 for as it came.
        counts: how many chunks were forwarded, and how often each fault struck.
    """

    def __init__(self, port: int, seed: int = 0) -> None:
        self._port = port
        self._random = random.Random(seed)
        self._links: set[Link] = set()
        self._passing = asyncio.Event()
        self._passing.set()
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
        self._passing.set()
        self.reset_all()
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    # -- faults that are not a matter of chance --

    def hold(self) -> None:
        """A black hole: nothing passes, and nobody is told. New connections stand mute, too."""
        self._passing.clear()

    def heal(self) -> None:
        """What was held passes; what one side gave up meanwhile ends for the other, too."""
        self._passing.set()

    def reset_all(self) -> None:
        """Cuts every connection."""
        for link in list(self._links):
            link.reset()

    def half_open(self) -> None:
        """The server's side of every connection is gone, and the client never hears of it."""
        for link in list(self._links):
            link.deaf = True
            link.far.transport.abort()

    # -- passing on --

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        try:
            await self._passing.wait()
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
                await self._passing.wait()
                if link.deaf:
                    continue
                if not await self._forward(data, writer, kind):
                    break
        if link.deaf and kind == "reply":
            return  # the client's side stays open
        await self._passing.wait()
        link.reset()

    async def _forward(self, data: bytes, writer: asyncio.StreamWriter, kind: str) -> bool:
        """Passes a chunk on; False if it was swallowed and the connection is to be cut."""
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
