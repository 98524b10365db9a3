"""The one subscription of a session: the reply channel, on which outcomes are notified, and the channels that
somebody follows for a while. After a lost connection it subscribes again by itself.

Runs on the session's loop. What is published while there is no connection is lost, and whoever relies on
notifications must know of the gap. So each confirmation of the reply channel begins a new epoch, and
`renewed` is called. (redis-py would subscribe again without telling anybody.)

On one server, one connection has all channels. On a Cluster, a channel is heard only at the node of its
shard. So each shard has a group of channels, which follows the shard from node to node, and the reply channel
is in every group, under a name with the tag of that shard. Each group is kept up by a task of its own: a node
that is away must not silence the others.
"""

from __future__ import annotations

import asyncio
import contextvars
import logging
from typing import TYPE_CHECKING, Any, NamedTuple

from asyncq import failures
from asyncq.broker.schema import damaged_data
from asyncq.broker.transport.reconnect import pause
from asyncq.broker.transport.server_error import ServerError
from asyncq.errors import BrokerUnavailable

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Sequence

    from asyncq.broker.commands import Commands
    from asyncq.broker.schema.keys import Keys
    from asyncq.broker.transport.pipe import Pipe

log: logging.Logger = logging.getLogger(__name__)

KEEPALIVE = REPLY_TIMEOUT = 4.0
"""Seconds of silence after which a PING is sent, and seconds that its answer may take. So a dead connection
is found within 10 s."""


class Subscription:
    """The channels that a session listens to, on a connection of their own.

    Args:
        commands: of the session.
        on_outcomes: called with each message on the reply channel.

    Attributes:
        epoch: the number of the latest confirmation of the reply channel in all groups; 0 while it is not
            confirmed in one of them.
        renewed: called after each reconnection of a group, with its shards: what was published there
            meanwhile was missed.
    """

    def __init__(self, commands: Commands, on_outcomes: Callable[[bytes], None]) -> None:
        self.epoch: int = 0
        self.renewed: set[Callable[[Sequence[Keys]], None]] = set()
        self._on_outcomes = on_outcomes
        self._commands = commands
        self._words = commands.connections.pubsub
        self._connections = commands.new_shared_connections(
            f"asyncq-sub:{commands.client}",
            on_push=self._on_push,
            on_broken=self._on_broken,
            keepalive=KEEPALIVE,
            timeout=REPLY_TIMEOUT,
        )
        self._loop = asyncio.get_running_loop()
        self._groups = _Groups(commands)
        self._confirmed_on: dict[int, Pipe] = {}  # by group
        self._confirmed = 0
        self._handlers: dict[str, list[Callable[[bytes], None]]] = {}
        self._unconfirmed: dict[bytes, _Confirmation] = {}  # by channel
        self._lost = {group: asyncio.Event() for group in self._groups.reply_channels}
        self._keepers: list[asyncio.Task[None]] = []
        commands.connections.on_move.append(self._wake_keepers)

    def start(self) -> None:
        """Starts the tasks that subscribe again after a lost connection. Call it once, after `confirm`."""
        self._keepers = [
            # In an empty context: the task outlives this call, and must not keep the caller's variables.
            self._loop.create_task(self._keep_up(group), context=contextvars.Context())
            for group in self._groups.reply_channels
        ]

    async def close(self) -> None:
        """Ends the tasks and closes the connections."""
        for keeper in self._keepers:
            keeper.cancel()
        if self._keepers:
            await asyncio.wait(self._keepers)
        self._connections.close()

    async def subscribe(self, channel: str, handler: Callable[[bytes], None]) -> None:
        """Adds a handler for the messages of a channel, until `unsubscribe`. Returns when the server has
        confirmed the channel. Without a connection it returns at once, and the next connection adds the
        channel.

        Raises:
            BrokerUnavailable: the server did not confirm. The handler stays: call `unsubscribe`.
        """
        handlers = self._handlers.setdefault(channel, [])
        handlers.append(handler)
        pipe = self._connections.of[self._groups.of(channel)].current
        if pipe is not None and len(handlers) == 1:
            self._confirmation(channel, pipe)
            pipe.post(self._words.subscribe, channel)
        # Waits for the confirmation of this channel only. Where streams are opened all the time, some other
        # confirmation is always on its way.
        confirmation = self._unconfirmed.get(channel.encode())
        if confirmation is not None:
            await self._until_confirmed([confirmation.done], confirmation.pipe)

    def unsubscribe(self, channel: str, handler: Callable[[bytes], None]) -> None:
        """Removes a handler. The channel of the last handler is left. A second call does nothing."""
        handlers = self._handlers.get(channel, [])
        if handler in handlers:
            handlers.remove(handler)
        if not handlers and self._handlers.pop(channel, None) is not None:
            pipe = self._connections.of[self._groups.of(channel)].current
            if pipe is not None:
                pipe.post(self._words.unsubscribe, channel)

    async def confirm(self) -> None:
        """Connects if need be, and subscribes to all channels that are not confirmed. Returns when the server
        has confirmed.

        Raises:
            BrokerUnavailable, PipeBroken: the server did not confirm; another try may succeed.
            ServerError: the server refuses.
        """
        # All groups are tried, whatever becomes of one.
        results = await asyncio.gather(
            *map(self._confirm_group, self._groups.reply_channels), return_exceptions=True
        )
        for result in results:
            if isinstance(result, BaseException):
                raise result

    async def _confirm_group(self, group: int) -> None:
        """Subscribes to all channels of a group, unless they are confirmed at the server that serves it now.
        Begins a new epoch if all other groups are confirmed. Raises as `confirm`.
        """
        # Cleared first: a connection that is lost from here on sets it again, and `_keep_up` tries again.
        self._lost[group].clear()
        pipe = await self._connections.of[group].pipe()
        is_new = self._confirmed_on.get(group) is not pipe
        if is_new:
            # Listed after the connection is there: `subscribe` may have added a channel meanwhile.
            channels = [self._groups.reply_channels[group]]
            channels += [channel for channel in self._handlers if self._groups.of(channel) == group]
            confirmations = [self._confirmation(channel, pipe) for channel in channels]
            pipe.post(self._words.subscribe, *channels)
            await self._until_confirmed(confirmations, pipe)
            if isinstance(pipe.broken, ServerError):
                self._commands.take_error(group, pipe.broken)
                raise pipe.broken
            if pipe.broken is not None:
                raise BrokerUnavailable(f"the subscription was lost at once ({pipe.broken})")
            self._confirmed_on[group] = pipe
            self._confirmed += 1
        # A connection that no group needs any more may have ended the epoch, and nothing was missed then.
        if len(self._confirmed_on) == len(self._lost) and (is_new or not self.epoch):
            self.epoch = self._confirmed
        if is_new and self._keepers:
            shards = self._groups.shards_of(group)
            for missed in list(self.renewed):
                missed(shards)

    def _confirmation(self, channel: str, pipe: Pipe) -> asyncio.Future[None]:
        """Returns a future that is done when the server at the other end of a pipe has confirmed the channel,
        or when that pipe is broken.
        """
        name = channel.encode()
        known = self._unconfirmed.get(name)
        if known is None or known.pipe is not pipe:
            if known is not None:  # the channel has moved to another node
                known.done.set_result(None)
            known = self._unconfirmed[name] = _Confirmation(self._loop.create_future(), pipe)
        return known.done

    async def _until_confirmed(self, confirmations: Collection[asyncio.Future[None]], pipe: Pipe) -> None:
        """Waits until channels are confirmed. If that takes more than `REPLY_TIMEOUT`, breaks the connection
        and raises `BrokerUnavailable`.
        """
        late: Collection[asyncio.Future[None]] = confirmations
        # In four parts: when a process was stopped for long and goes on, one part is over at once, and the
        # server still has the others to answer.
        for _ in range(4):
            _, late = await asyncio.wait(late, timeout=REPLY_TIMEOUT / 4)
            if not late:
                return
        pipe.abort()
        raise BrokerUnavailable("the server did not confirm a subscription")

    def _on_push(self, push: list[Any]) -> None:
        """Takes a push of the server: a message on a channel, or the confirmation of a channel."""
        kind = push[0]
        if kind == self._words.message:
            channel = push[1]
            try:
                if channel in self._groups.replies:
                    self._on_outcomes(push[2])
                else:
                    for handler in self._handlers.get(channel.decode(), ()):
                        handler(push[2])
            except Exception as error:  # noqa: BLE001  raised, it would close the connection for all channels
                why = failures.one_line(error)
                name = channel.decode(errors="replace")
                damaged_data.warn(log, "message", f"a message on {name} could not be read", why)
        elif kind == self._words.subscribed:
            confirmation = self._unconfirmed.pop(push[1], None)
            if confirmation is not None:
                confirmation.done.set_result(None)
        elif kind == self._words.unsubscribed and push[1] in self._groups.replies:
            # Nobody here unsubscribes from a reply channel: its slot has left this node.
            self.epoch = 0
            group = self._groups.of(push[1].decode())
            self._confirmed_on.pop(group, None)
            self._lost[group].set()

    def _on_broken(self, reason: Exception) -> None:
        """Takes in that a connection is lost: ends the epoch, and wakes the tasks that subscribe again."""
        self.epoch = 0
        self._confirmed_on = {
            group: pipe for group, pipe in self._confirmed_on.items() if pipe.broken is None
        }
        self._wake_keepers()
        for channel, confirmation in list(self._unconfirmed.items()):
            if confirmation.pipe.broken is not None:
                # No exception: `subscribe` need not fail, for the next connection adds the channel. `confirm`
                # sees that the pipe is broken.
                del self._unconfirmed[channel]
                confirmation.done.set_result(None)
        log.debug("the subscription was lost: %s", reason)

    def _wake_keepers(self) -> None:
        for lost in self._lost.values():
            lost.set()

    async def _keep_up(self, group: int) -> None:
        """Subscribes to a group again after each lost connection, with backoff, for ever."""
        attempt = 0
        while True:
            await self._lost[group].wait()
            attempt += 1
            await asyncio.sleep(pause(attempt))
            try:
                await self._confirm_group(group)
                attempt = 0
            except Exception as error:  # noqa: BLE001  whatever it is, a process without notifications is deaf
                if attempt == 3:
                    log.warning("notifications of results cannot be received (%s); trying again", error)
                self._lost[group].set()


class _Confirmation(NamedTuple):
    """That a server has confirmed a channel.

    Attributes:
        done: done then, or when the pipe is broken.
        pipe: on which the server was asked.
    """

    done: asyncio.Future[None]
    pipe: Pipe


class _Groups:
    """The groups of channels: on a Cluster one for each shard, else one.

    Attributes:
        reply_channels: the reply channel in each group, by the number of the group.
        replies: all of them.
    """

    def __init__(self, commands: Commands) -> None:
        self.reply_channels: dict[int, str] = {0: commands.channel}
        self._shards = list(commands.shards)
        self._by_tag: dict[str, int] = {}
        if commands.connections.pubsub.is_sharded:
            own = commands.channel.removeprefix(commands.shards[0].replies)
            self.reply_channels = {keys.shard: keys.replies + own for keys in commands.shards}
            self._by_tag = {keys.tag: keys.shard for keys in commands.shards}
        self.replies: frozenset[bytes] = frozenset(map(str.encode, self.reply_channels.values()))

    def shards_of(self, group: int) -> Sequence[Keys]:
        """Returns the shards whose channels are in a group."""
        return [self._shards[group]] if self._by_tag else self._shards

    def of(self, channel: str) -> int:
        """Returns the number of the group that a channel is in."""
        return self._by_tag[channel[: channel.index("}") + 1]] if self._by_tag else 0
