"""Connections to a fake server, which replace those of redis-py. asyncq's own pipes run on them.

The server's replies arrive on the client's loop, in another turn than the command: as with a socket.
"""

from __future__ import annotations

import asyncio
from collections import deque
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, cast

import hiredis
import redis.exceptions as foreign

from asyncq.broker.transport.connection import Address
from asyncq.sync_bridge import running_loop
from helpers.fake_broker.server import FakeServer, Session

if TYPE_CHECKING:
    from collections.abc import Callable


class _Transport(asyncio.Transport):
    """The client's end of a connection, on the loop that made it."""

    def __init__(self, server: FakeServer) -> None:
        super().__init__()
        self._loop = asyncio.get_running_loop()
        self._protocol: Any = None
        self._commands = hiredis.Reader()  # commands look like replies that are lists
        self._incoming: deque[bytes | None] = deque()
        self._is_closed = False
        self.session = Session(server, self._deliver, self._loop)
        server.sessions.add(self.session)

    def set_protocol(self, protocol: asyncio.BaseProtocol) -> None:
        self._protocol = protocol

    def get_protocol(self) -> asyncio.BaseProtocol:
        return cast("asyncio.BaseProtocol", self._protocol)

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        """Does nothing: what is written has arrived."""

    def write(self, data: Any) -> None:
        if self._is_closed:
            return
        self._commands.feed(data)
        while (command := self._commands.gets()) is not False:
            self.session.execute(command)

    def is_closing(self) -> bool:
        return self._is_closed

    def close(self) -> None:
        self.abort()

    def abort(self) -> None:
        if not self._is_closed:
            self._close(None)

    def _close(self, error: Exception | None) -> None:
        self._is_closed = True
        self.session.close()
        if self._protocol is not None:
            self._loop.call_soon(self._protocol.connection_lost, error)

    def _deliver(self, data: bytes | None) -> None:
        """Takes bytes from the server, on any thread. They arrive in another turn of the loop."""
        self._incoming.append(data)
        if running_loop() is self._loop:
            self._loop.call_soon(self._arrive)
        elif not self._loop.is_closed():
            self._loop.call_soon_threadsafe(self._arrive)

    def _arrive(self) -> None:
        data = self._incoming.popleft()
        if self._is_closed:
            return
        if data is None:
            self._close(ConnectionResetError("the fake server has closed the connection"))
        else:
            self._protocol.data_received(data)


class FakeConnection:
    """The part of redis-py's connection that asyncq uses: the handshake and the transport."""

    def __init__(self, *, server: FakeServer, **_options: Any) -> None:
        self._server = server
        self._answers: deque[Any] = deque()
        self._writer: Any = None
        self._reader: Any = None
        self._transport: _Transport | None = None

    async def connect(self) -> None:
        await asyncio.sleep(0)  # never in the same turn of the loop
        if not self._server.is_up:
            raise foreign.ConnectionError("the fake server is down")
        self._transport = _Transport(self._server)
        # It has no socket that a forked child could hold open.
        self._writer = SimpleNamespace(transport=self._transport, get_extra_info=lambda _: None)

    async def send_command(self, *command: Any) -> None:
        assert self._transport is not None
        self._answers.append(_now(self._server, self._transport.session, command))

    async def read_response(self) -> Any:
        return _raised(self._answers.popleft())


class FakeBlockingConnection:
    """The part of redis-py's blocking connection that asyncq uses."""

    def __init__(self, *, server: FakeServer, **_options: Any) -> None:
        self._server = server
        self._answers: deque[Any] = deque()
        self._session: Session | None = None

    def connect(self) -> None:
        if not self._server.is_up:
            raise foreign.ConnectionError("the fake server is down")
        self._session = Session(self._server, self._deliver)
        self._server.sessions.add(self._session)

    def _deliver(self, data: bytes | None) -> None:
        if data is None:
            self._session = None

    def send_command(self, *command: Any) -> None:
        if self._session is None:
            raise foreign.ConnectionError("the fake server has closed the connection")
        self._answers.append(_now(self._server, self._session, command))

    def read_response(self) -> Any:
        return _raised(self._answers.popleft())

    def disconnect(self) -> None:
        session, self._session = self._session, None
        if session is not None:
            session.close()


def _now(server: FakeServer, session: Session, command: tuple[Any, ...]) -> Any:
    words = [word if isinstance(word, bytes) else str(word).encode() for word in command]
    with server.lock:
        return server.execute(session, words)


def _raised(answer: Any) -> Any:
    """Returns an answer, or raises an error with the class that redis-py would use."""
    if not isinstance(answer, Exception):
        return answer
    text = str(answer)
    if text.startswith("NOSCRIPT "):
        raise foreign.NoScriptError(text.removeprefix("NOSCRIPT "))
    raise foreign.ResponseError(text)


def address_of(server: FakeServer) -> Callable[..., Address]:
    """Returns a function that makes an app's addresses: each leads to a fake server."""

    def address(url: str, revive: Callable[[], None] | None = None) -> Address:
        return Address(
            url,
            cast("Any", FakeConnection),
            {"server": server},
            revive,
            blocking_class=cast("Any", FakeBlockingConnection),
        )

    return address
