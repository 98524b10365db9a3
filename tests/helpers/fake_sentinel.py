"""A Sentinel that names the servers that a test wants named, in the order in which it wants them named."""

from __future__ import annotations

import asyncio
import contextlib
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import hiredis

from helpers.sentinel_trio import MASTER

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

_HELLO = (
    b"%4\r\n$5\r\nproto\r\n:3\r\n$6\r\nserver\r\n$6\r\nvalkey\r\n"
    b"$7\r\nversion\r\n$5\r\n9.1.2\r\n$4\r\nmode\r\n$8\r\nsentinel\r\n"
)


class FakeSentinel:
    """Answers what asyncq asks a Sentinel.

    Attributes:
        ports: of the servers that it names, one for each question; the last one stays. A text is no port, so
            nobody can read such an answer.
        questions: how often it was asked.
        speaks: while it is not set, nothing is answered.
    """

    def __init__(self, *ports: int | str) -> None:
        self.ports = list(ports)
        self.questions = 0
        self.speaks = asyncio.Event()
        self.speaks.set()
        self.port = 0
        self._listening: set[asyncio.StreamWriter] = set()
        self._open: set[asyncio.StreamWriter] = set()
        self._serving: set[asyncio.Task[None]] = set()

    @property
    def url(self) -> str:
        return f"redis+sentinel://127.0.0.1:{self.port}/{MASTER}"

    @property
    def listening(self) -> int:
        """How many connections have subscribed."""
        return len(self._listening)

    def switch(self, old: int, new: int) -> None:
        """Names another server, and says so to those who listen."""
        self.ports = [new]
        text = f"{MASTER} 127.0.0.1 {old} 127.0.0.1 {new}".encode()
        for writer in self._listening:
            writer.write(_push(b"message", b"+switch-master", text))

    def cut(self) -> None:
        """Breaks the connections of those who listen."""
        for writer in self._listening:
            writer.transport.abort()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._serving.add(task)
        self._open.add(writer)
        commands = hiredis.Reader()
        try:
            with contextlib.suppress(ConnectionError):
                while data := await reader.read(65536):
                    await self.speaks.wait()
                    commands.feed(data)
                    while command := commands.gets():
                        writer.write(self._answer([word.upper() for word in command], writer))
        finally:
            self._listening.discard(writer)
            self._open.discard(writer)
            self._serving.discard(task)
            writer.close()

    def _answer(self, command: list[bytes], writer: asyncio.StreamWriter) -> bytes:
        match command:
            case [b"HELLO", *_]:
                return _HELLO
            case [b"SENTINEL", b"GET-MASTER-ADDR-BY-NAME", _]:
                self.questions += 1
                port = str(self.ports.pop(0) if len(self.ports) > 1 else self.ports[0])
                return f"*2\r\n$9\r\n127.0.0.1\r\n${len(port)}\r\n{port}\r\n".encode()
            case [b"SUBSCRIBE", _]:
                self._listening.add(writer)
                return _push(b"subscribe", b"+switch-master", b"1")
            case _:
                return b"+OK\r\n"

    async def close(self) -> None:
        self.speaks.set()
        for writer in list(self._open):
            writer.transport.abort()
        if self._serving:
            await asyncio.wait(self._serving)


def _push(*words: bytes) -> bytes:
    return b">%d\r\n" % len(words) + b"".join(b"$%d\r\n%b\r\n" % (len(word), word) for word in words)


@asynccontextmanager
async def fake_sentinel(*ports: int | str) -> AsyncIterator[FakeSentinel]:
    """Gives a fake Sentinel that names the servers at these ports."""
    sentinel = FakeSentinel(*ports)
    server = await asyncio.start_server(sentinel._serve, "127.0.0.1", 0)
    sentinel.port = server.sockets[0].getsockname()[1]
    try:
        yield sentinel
    finally:
        server.close()
        await sentinel.close()
