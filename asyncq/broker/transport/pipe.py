"""One connection, many commands: what is sent in one turn of the loop leaves in one write, and replies are
matched in order.

A pipe never reconnects and never sends anything twice; when it breaks, every open call gets `PipeBroken` and
the `reconnect` above makes a new one. A caller that is cancelled leaves its place in the order behind, so
that its
reply reaches nobody: the pipe stays in step (redis-py's pool had to learn this the hard way, CVE-2023-28858).

It reads through `hiredis.Reader` on a bare protocol instead of redis-py's stream reader: 2-3.5 us of CPU a
command instead of 50-65 on the pool, and one turn of the loop less per round trip. A watchdog stands in for
read time-outs, one timer a connection instead of one
a command: silence for `timeout` seconds with a reply due, or with a PING due, breaks the pipe.
"""

from __future__ import annotations

import asyncio
from collections import deque
from typing import TYPE_CHECKING, Any, cast

import hiredis

from asyncq.broker.transport.server_error import ServerError

if TYPE_CHECKING:
    from collections.abc import Callable

    from asyncq.broker.transport.connection import Address, Handshaken

REPLY_TIMEOUT = 8.0
"""Seconds of silence after which a connection that owes a reply is given up. The watchdog looks four times in
that span, so a dead connection is found within 10 s."""


class PipeBroken(ConnectionError):
    """The connection was lost; whether the server has carried out what was sent is not known."""


class Pipe(asyncio.Protocol):
    """A pipelined connection. `send` with a callback is the quick way, `call` the comfortable one.

    Attributes:
        received: bytes so far.
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
        # A reply that is an error becomes a ServerError value, also inside arrays; hiredis raises only on a
        # broken stream.
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
        self._handshaken: Handshaken | None = None
        self._transport: asyncio.Transport | None = None
        self._last_reply_at = self._loop.time()
        self.received: int = 0
        self._watchdog: asyncio.TimerHandle | None = None
        self.broken: Exception | None = None

    @classmethod
    async def open(cls, address: Address, name: str, **options: Any) -> Pipe:
        """A connected pipe. Options are those of the constructor.

        Raises:
            BrokerUnavailable, ServerError: as `connection.connect`.
        """
        from asyncq.broker.transport.connection import connect  # imports redis-py

        handshaken = await connect(address, name)
        pipe = cls(**options)
        # redis-py gives out its transport under no public name.
        assert handshaken._writer is not None
        transport = handshaken._writer.transport
        # The handshake has read all of its replies and the server sends nothing unasked before the first
        # SUBSCRIBE, so nothing is left in the reader that we leave behind.
        transport.set_protocol(pipe)
        pipe._handshaken = handshaken  # kept: it closes the transport when it is collected
        pipe._transport = cast("asyncio.Transport", transport)
        pipe._watch()
        return pipe

    # -- sending --

    def send(
        self, command: tuple[Any, ...], on_reply: Callable[[Any], None] | None, *, now: bool = False
    ) -> None:
        """Sends a command at the end of this turn of the loop. `on_reply` gets the reply, or the error as a
        value, exactly once.

        Args:
            command: with its arguments.
            on_reply: as said.
            now: do not wait for the end of the turn: for who has gathered until then, and for a pipe on which
                nothing else is sent. To wait once more takes another turn of the loop, a callback and a look
                at all sockets.

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
        """Sends a command that is answered by pushes only (SUBSCRIBE under RESP3).

        Raises:
            PipeBroken: the pipe is broken.
        """
        self.send(command, None)
        self._due.pop()

    async def call(self, *command: Any, now: bool = False) -> Any:
        """Sends a command and returns its reply. A caller that is cancelled does not take the command back.

        Args:
            command: with its arguments.
            now: as of `send`.

        Raises:
            ServerError: the server answered with an error.
            PipeBroken: the connection was lost before the reply came.
        """
        reply: asyncio.Future[Any] = self._loop.create_future()

        def settle(value: Any) -> None:
            if reply.done():
                return
            if isinstance(value, Exception):
                reply.set_exception(value)
            else:
                reply.set_result(value)

        self.send(command, settle, now=now)
        return await reply

    def _flush(self) -> None:
        self._corked = False
        if self._out and self._writable and self._transport is not None and self.broken is None:
            if len(self._due) == len(self._out):
                self._last_reply_at = self._loop.time()  # nothing was due: silence counts from now
            self._transport.write(self._out[0] if len(self._out) == 1 else b"".join(self._out))
            self._out.clear()

    # -- receiving --

    def data_received(self, data: bytes) -> None:
        """Called by the transport."""
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
                    # A SUBSCRIBE that is refused: it was posted, so no place in the order is its own.
                    self.abort(reply)
                    return
                on_reply = self._due.popleft()
                if on_reply is not None:
                    on_reply(reply)
        except PipeBroken as error:
            self.abort(error)

    def connection_lost(self, exc: Exception | None) -> None:
        """Called by the transport."""
        self._break(PipeBroken(f"the connection was lost ({exc or 'closed by the server'})"))

    def pause_writing(self) -> None:
        """Called by the transport when the server reads too slowly: what is sent waits here."""
        self._writable = False

    def resume_writing(self) -> None:
        """Called by the transport."""
        self._writable = True
        self._flush()

    # -- the end --

    def abort(self, reason: Exception | None = None) -> None:
        """Closes at once. Open calls get `PipeBroken`. Twice is once."""
        self._break(reason or PipeBroken("the connection was closed"))

    def _break(self, reason: Exception) -> None:
        if self.broken is not None:
            return
        self.broken = reason
        if self._watchdog is not None:
            self._watchdog.cancel()
        if self._transport is not None:
            self._transport.abort()
        if self._handshaken is not None:
            # So that redis-py does not warn of a connection left open: it was not.
            self._handshaken._reader = self._handshaken._writer = None
            self._handshaken = None
        due, self._due = self._due, deque()
        for on_reply in due:
            if on_reply is not None:
                on_reply(PipeBroken(str(reason)))
        self._out.clear()
        if self._on_broken is not None:
            self._on_broken(reason)

    def _watch(self) -> None:
        """Runs a few times within `timeout`; a stopped and continued process gives the server one more
        interval to answer.
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


class _Nothing:
    """What the reader answers when a reply is not complete: no value that a server could send."""


_NOTHING = _Nothing()
