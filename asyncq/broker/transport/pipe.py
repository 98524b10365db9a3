"""Sends many commands over one connection: those of one turn of the loop leave in one write, and replies are
matched to calls by their order. Runs on the loop that opened it.

A pipe never reconnects and never sends anything twice. When it breaks, every open call gets `PipeBroken`, and
`reconnect.ReconnectingConnection` makes a new pipe. When a caller is cancelled, its reply stays due and then
reaches nobody, so all other replies still reach their callers (redis-py's pool once mixed them up,
CVE-2023-28858).

A pipe reads through `hiredis.Reader` on a bare protocol instead of redis-py's stream reader: 2-3.5 us of CPU
a command instead of 50-65 on the pool, and one turn of the loop less per round trip. A watchdog replaces read
time-outs, with one timer for the connection instead of one for each command: silence for `timeout` seconds
while a reply is due, also that to a PING, breaks the pipe.
"""

from __future__ import annotations

import asyncio
from collections import deque
from typing import TYPE_CHECKING, Any, NamedTuple, cast

import hiredis

from asyncq.broker.transport.server_error import ServerError

if TYPE_CHECKING:
    from collections.abc import Callable

    from asyncq.broker.transport.connection import Address, Handshaken

REPLY_TIMEOUT = 8.0
"""Seconds of silence after which a connection on which a reply is due is given up. The watchdog runs four
times in that span, so a dead connection is found within 10 s."""


class PipeBroken(ConnectionError):
    """The connection was lost. The server may have executed the command, or not."""


class Pipe(asyncio.Protocol):
    """A pipelined connection. `send` with a callback is the cheap way, `call` the convenient one. `open`
    makes one.

    Args:
        on_push: called with each push; a pipe with it is for subscriptions.
        on_broken: called once, with the reason, when the pipe breaks.
        keepalive: seconds of silence after which a PING is sent; None for no PING.
        timeout: seconds of silence, while a reply is due, after which the pipe breaks.

    Attributes:
        received: how many bytes came so far.
        broken: the reason why the pipe is broken; None while it is not.
    """

    def __init__(
        self,
        *,
        on_push: Callable[[list[Any]], None] | None = None,
        on_broken: Callable[[Exception], None] | None = None,
        keepalive: float | None = None,
        timeout: float = REPLY_TIMEOUT,
    ) -> None:
        self._loop = asyncio.get_running_loop()
        # An error reply becomes a ServerError as a value, also inside arrays. hiredis raises only when the
        # bytes are not RESP.
        self._reader = hiredis.Reader(
            replyError=ServerError, protocolError=PipeBroken, notEnoughData=_NOTHING
        )
        self._due: deque[Callable[[Any], None] | None] = deque()
        self._out: list[bytes] = []
        self._corked = False
        self._writable = True
        self._on_push = on_push
        self._on_broken = on_broken
        self._keepalive = keepalive
        self._timeout = timeout
        self._opened: _Opened | None = None
        self._last_reply_at = self._loop.time()
        self.received: int = 0
        self._watchdog: asyncio.TimerHandle | None = None
        self.broken: Exception | None = None

    @classmethod
    async def open(cls, address: Address, name: str, **options: Any) -> Pipe:
        """Connects, and returns the pipe.

        Args:
            address: of the server.
            name: of the connection, in the server's CLIENT LIST.
            options: those of the constructor.

        Raises:
            BrokerUnavailable, ServerError: as `connection.connect`.
        """
        from asyncq.broker.transport.sentinel import connect  # imports redis-py

        handshaken = await connect(address, name)
        pipe = cls(**options)
        # redis-py has no public name for its transport.
        assert handshaken._writer is not None
        transport = handshaken._writer.transport
        # Nothing is lost in redis-py's reader: the handshake has read all of its replies, and the server
        # sends nothing unasked before the first SUBSCRIBE.
        transport.set_protocol(pipe)
        # uvloop writes at the end of a turn of the loop, unless more than this is buffered. A pipe gathers by
        # itself, and what it writes should leave at once, so that the server begins while the turn goes on.
        # One byte and not 0: over TLS, both loops take an empty buffer for full then, and pause the pipe.
        transport.set_write_buffer_limits(high=1)
        pipe._opened = _Opened(cast("asyncio.Transport", transport), handshaken)
        pipe._watch()
        return pipe

    @property
    def endpoint(self) -> tuple[str, int] | None:
        """The host and the port of the server; None for a socket, and when the pipe is broken."""
        from asyncq.broker.transport.connection import endpoint  # imports redis-py

        return None if self._opened is None else endpoint(self._opened.handshaken)

    # -- sending --

    def send(
        self, command: tuple[Any, ...], on_reply: Callable[[Any], None] | None, *, now: bool = False
    ) -> None:
        """Sends a command at the end of this turn of the loop.

        Args:
            command: with its arguments.
            on_reply: gets the reply, or the error as a value, exactly once; None if nobody wants it.
            now: send at once. For callers that have gathered until the end of the turn themselves, and for a
                pipe on which nothing else is sent. To wait for the end of the turn would cost them another
                turn: a callback, and a poll of all sockets.

        Raises:
            PipeBroken: the pipe is broken; `on_reply` will not be called.
        """
        if self.broken is not None:
            raise PipeBroken(str(self.broken)) from self.broken
        self._out.append(hiredis.pack_command(command))
        self._due.append(on_reply)
        if self._corked:
            return
        if now:
            self._flush()
        else:
            self._corked = True
            self._loop.call_soon(self._flush)

    def post(self, *command: Any) -> None:
        """Sends a command that the server answers by pushes only (SUBSCRIBE under RESP3).

        Raises:
            PipeBroken: the pipe is broken.
        """
        self.send(command, None)
        self._due.pop()  # no reply is due: pushes are not matched by their order

    async def call(self, *command: Any, now: bool = False) -> Any:
        """Sends a command and returns its reply. Cancelling the call does not take the command back.

        Args:
            command: with its arguments.
            now: as of `send`.

        Raises:
            ServerError: the server answered with an error.
            PipeBroken: the connection was lost before the reply came.
        """
        reply: asyncio.Future[Any] = self._loop.create_future()

        def resolve(value: Any) -> None:
            if reply.done():
                return
            if isinstance(value, Exception):
                reply.set_exception(value)
            else:
                reply.set_result(value)

        self.send(command, resolve, now=now)
        return await reply

    def _flush(self) -> None:
        """Writes all commands that were gathered, in one write."""
        self._corked = False
        if self._out and self._writable and self._opened is not None and self.broken is None:
            if len(self._due) == len(self._out):
                # Nothing else is due, so nothing was expected until now: the watchdog counts from here.
                self._last_reply_at = self._loop.time()
            self._opened.transport.write(self._out[0] if len(self._out) == 1 else b"".join(self._out))
            self._out.clear()

    # -- receiving --

    def data_received(self, data: bytes) -> None:
        """Called by the transport: takes bytes in, and hands replies and pushes out."""
        self._last_reply_at = self._loop.time()
        self.received += len(data)
        reader = self._reader
        try:
            reader.feed(data)
            while (reply := reader.gets()) is not _NOTHING:
                if type(reply) is hiredis.PushNotification:
                    if self._on_push is not None:
                        self._on_push(reply)
                    continue
                if self._on_push is not None and isinstance(reply, ServerError):
                    # A SUBSCRIBE was refused. `post` sent it, so no call in `_due` belongs to this reply.
                    self.abort(reply)
                    return
                on_reply = self._due.popleft()
                if on_reply is not None:
                    on_reply(reply)
        except PipeBroken as error:
            self.abort(error)

    def connection_lost(self, exc: Exception | None) -> None:
        """Called by the transport: breaks the pipe."""
        self._break(PipeBroken(f"the connection was lost ({exc or 'closed by the server'})"))

    def pause_writing(self) -> None:
        """Called by the transport when the server reads too slowly: commands wait in this pipe."""
        self._writable = False

    def resume_writing(self) -> None:
        """Called by the transport when it takes bytes again: sends the commands that wait."""
        self._writable = True
        self._flush()

    # -- the end --

    def abort(self, reason: Exception | None = None) -> None:
        """Closes the connection at once. Open calls get `PipeBroken`. A second call does nothing.

        Args:
            reason: what `broken` and `on_broken` get.
        """
        self._break(reason or PipeBroken("the connection was closed"))

    def _break(self, reason: Exception) -> None:
        """Breaks the pipe: closes the transport, and ends every open call with `PipeBroken`."""
        if self.broken is not None:
            return
        self.broken = reason
        if self._watchdog is not None:
            self._watchdog.cancel()
        if self._opened is not None:
            transport, handshaken = self._opened
            self._opened = None
            transport.abort()
            # Otherwise redis-py would warn of a connection that was left open.
            handshaken._reader = handshaken._writer = None
        due, self._due = self._due, deque()
        for on_reply in due:
            if on_reply is not None:
                on_reply(PipeBroken(str(reason)))
        self._out.clear()
        if self._on_broken is not None:
            self._on_broken(reason)

    def _watch(self) -> None:
        """Breaks the pipe if a reply is due for too long, and sends a PING if `keepalive` asks for one. Runs
        at least four times within `timeout`.
        """
        if self.broken is not None:
            return
        silence = self._loop.time() - self._last_reply_at
        if self._due and silence > self._timeout:
            self.abort(PipeBroken(f"no answer for {silence:.1f} s"))
            return
        if self._keepalive is not None and not self._due and silence > self._keepalive * 0.9:
            self.send(("PING",), None)
        self._watchdog = self._loop.call_later(
            min(self._keepalive or self._timeout / 4, self._timeout / 4), self._watch
        )


class _Opened(NamedTuple):
    """What a pipe has got of redis-py.

    Attributes:
        transport: of the connection.
        handshaken: redis-py's own object. It is kept, because it closes the transport when it is collected.
    """

    transport: asyncio.Transport
    handshaken: Handshaken


class _Nothing:
    """The reader returns this while a reply is not complete. It is no value that a server could send."""


_NOTHING = _Nothing()
