"""The one subscription of a session: its own channel, on which it is notified of outcomes, and those that
somebody follows for a while. It is kept up across lost connections.

redis-py would subscribe again in silence. Here each confirmation begins a new epoch, for what was published
while no connection was there is lost: whoever relies on a notification must know of it.

Lives on the session's loop.
"""

from __future__ import annotations

import asyncio
import contextvars
import logging
from typing import TYPE_CHECKING, Any

from asyncq import failures
from asyncq.broker.schema import damaged_data
from asyncq.broker.transport.reconnect import pause
from asyncq.broker.transport.server_error import ServerError
from asyncq.errors import BrokerUnavailable

if TYPE_CHECKING:
    from collections.abc import Callable, Collection

    from asyncq.broker.commands import Commands

log: logging.Logger = logging.getLogger(__name__)

KEEPALIVE = REPLY_TIMEOUT = 4.0
"""A PING after this many seconds of silence, and how long its answer may take: a dead subscription is found
within 10 s."""


class Subscription:
    """The channels that a session listens to, on a connection of their own.

    Args:
        commands: of the session.
        on_outcomes: called with each message on the session's own channel.

    Attributes:
        epoch: counts the connections of which the server has confirmed the session's own channel; 0 while
            there is none.
        renewed: called after each reconnection: what was published meanwhile was missed.
    """

    def __init__(self, commands: Commands, on_outcomes: Callable[[bytes], None]) -> None:
        self.epoch: int = 0
        self.renewed: set[Callable[[], None]] = set()
        self._channel = commands.channel
        self._on_outcomes = on_outcomes
        self._line = commands.new_line(
            f"asyncq-sub:{commands.client}",
            on_push=self._on_push,
            on_broken=self._on_broken,
            keepalive=KEEPALIVE,
            timeout=REPLY_TIMEOUT,
        )
        self._loop = asyncio.get_running_loop()
        self._confirmed = 0
        self._handlers: dict[str, list[Callable[[bytes], None]]] = {}
        self._unconfirmed: dict[bytes, asyncio.Future[None]] = {}
        self._lost = asyncio.Event()
        self._keeper: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Begins to keep up what `confirm` has made."""
        # In a context of its own: it outlives the call that begins it, and is not that caller's.
        self._keeper = self._loop.create_task(self._keep_up(), context=contextvars.Context())

    async def close(self) -> None:
        """Ends it."""
        if self._keeper is not None:
            self._keeper.cancel()
            await asyncio.wait([self._keeper])
        self._line.close()

    async def subscribe(self, channel: str, handler: Callable[[bytes], None]) -> None:
        """Adds a channel, until `unsubscribe`. Without a connection it is added with the next one.

        Raises:
            BrokerUnavailable: the server did not confirm.
        """
        handlers = self._handlers.setdefault(channel, [])
        handlers.append(handler)
        pipe = self._line.current
        if pipe is not None and len(handlers) == 1:
            self._confirmation(channel)
            pipe.post("SUBSCRIBE", channel)
        # Its own and no other: where streams are opened all the time, there is always one on its way.
        confirmation = self._unconfirmed.get(channel.encode())
        if pipe is not None and confirmation is not None:
            await self._until_confirmed([confirmation])

    def unsubscribe(self, channel: str, handler: Callable[[bytes], None]) -> None:
        """Takes back what `subscribe` did."""
        handlers = self._handlers.get(channel, [])
        if handler in handlers:
            handlers.remove(handler)
        if not handlers and self._handlers.pop(channel, None) is not None:
            pipe = self._line.current
            if pipe is not None:
                pipe.post("UNSUBSCRIBE", channel)

    async def confirm(self) -> None:
        """Subscribes; returns when the server has confirmed.

        Raises:
            BrokerUnavailable, ServerError, PipeBroken: not now, or never.
        """
        self._lost.clear()
        pipe = await self._line.pipe()
        channels = [self._channel, *self._handlers]
        confirmations = [self._confirmation(channel) for channel in channels]
        pipe.post("SUBSCRIBE", *channels)
        await self._until_confirmed(confirmations)
        if isinstance(pipe.broken, ServerError):
            raise pipe.broken
        if pipe.broken is not None:
            raise BrokerUnavailable(f"the subscription was lost at once ({pipe.broken})")
        self._confirmed += 1
        self.epoch = self._confirmed

    def _confirmation(self, channel: str) -> asyncio.Future[None]:
        """Done when the server has confirmed the channel, or will not: the connection was lost."""
        return self._unconfirmed.setdefault(channel.encode(), self._loop.create_future())

    async def _until_confirmed(self, confirmations: Collection[asyncio.Future[None]]) -> None:
        late: Collection[asyncio.Future[None]] = confirmations
        # In parts: a process that was stopped for a while, and goes on, finds one of them over, and not all.
        for _ in range(4):
            _, late = await asyncio.wait(late, timeout=REPLY_TIMEOUT / 4)
            if not late:
                return
        self._line.drop()
        raise BrokerUnavailable("the server did not confirm a subscription")

    def _on_push(self, push: list[Any]) -> None:
        kind = push[0]
        if kind == b"message":
            channel = push[1].decode()
            try:
                if channel == self._channel:
                    self._on_outcomes(push[2])
                else:
                    for handler in self._handlers.get(channel, ()):
                        handler(push[2])
            except Exception as error:  # noqa: BLE001  raised, it would close the connection for all channels
                why = failures.one_line(error)
                damaged_data.warn(log, "message", f"a message on {channel} could not be read", why)
        elif kind == b"subscribe":
            confirmation = self._unconfirmed.pop(push[1], None)
            if confirmation is not None:
                confirmation.set_result(None)

    def _on_broken(self, reason: Exception) -> None:
        self.epoch = 0
        self._lost.set()
        for confirmation in self._unconfirmed.values():
            confirmation.set_result(None)  # whoever waits for it sees that the pipe is broken
        self._unconfirmed.clear()
        log.debug("the subscription was lost: %s", reason)

    async def _keep_up(self) -> None:
        attempt = 0
        while True:
            await self._lost.wait()
            attempt += 1
            await asyncio.sleep(pause(attempt))
            try:
                await self.confirm()
            except Exception as error:  # noqa: BLE001  whatever it is, a process without notifications is deaf
                if attempt == 3:
                    log.warning("notifications of results cannot be received (%s); trying on", error)
                self._lost.set()
                continue
            attempt = 0
            for missed in list(self.renewed):
                missed()
