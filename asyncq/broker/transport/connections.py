"""Makes the connections of one session, of every kind, to one server, and has them closed when their server
is the master no more. `cluster_connections` does the same for a Cluster. Whether Sentinels say where the
server is, only this module, `sentinel` and `master_watch` know.

Lives on the session's loop.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

from asyncq.broker.transport.reconnect import ReconnectingConnection

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from asyncq.broker.schema.keys import Keys
    from asyncq.broker.schema.shards import Shards
    from asyncq.broker.transport.connection import Address, BlockingConnection
    from asyncq.broker.transport.master_watch import MasterWatch
    from asyncq.broker.transport.pipe import Pipe
    from asyncq.broker.transport.server_error import ServerError


class PubSub(NamedTuple):
    """The words of the server's publish and subscribe.

    Attributes:
        publish, subscribe, unsubscribe: the commands.
        message: the push that is a message.
        subscribed: the push that confirms a channel.
        unsubscribed: the push that ends a channel.
        is_sharded: whether a message reaches only subscribers at the node of its channel.
    """

    publish: str
    subscribe: str
    unsubscribe: str
    message: bytes
    subscribed: bytes
    unsubscribed: bytes
    is_sharded: bool


EVERYWHERE = PubSub(
    "PUBLISH", "SUBSCRIBE", "UNSUBSCRIBE", b"message", b"subscribe", b"unsubscribe", is_sharded=False
)


class ShardConnection(Protocol):
    """The connection that serves a shard at the moment."""

    @property
    def latest(self) -> Pipe | None:
        """The pipe that was made last, which may be broken by now."""
        ...

    @property
    def current(self) -> Pipe | None:
        """The pipe; None if there is none, or if it is known to be broken."""
        ...

    async def pipe(self) -> Pipe:
        """Returns the pipe, and connects if need be. Raises as `ReconnectingConnection.pipe`."""
        ...

    def drop(self) -> None:
        """Breaks the pipe. The next call of `pipe` makes a new one."""
        ...


class SharedConnections(Protocol):
    """One connection to each server that has shards of ours.

    Attributes:
        of: the connection of each shard, by its number.
    """

    of: Sequence[ShardConnection]

    def pipes(self) -> list[Pipe]:
        """Returns the pipes that are there now."""
        ...

    def drop(self) -> None:
        """Breaks all pipes."""
        ...

    def close(self) -> None:
        """Breaks all pipes for good. A second call does nothing."""
        ...


class BlockingConnections(Protocol):
    """Blocking connections to each server that has shards of ours, for a thread without a loop."""

    def of(self, keys: Keys) -> BlockingConnection:
        """Returns the connection of a shard.

        Raises:
            BrokerUnavailable: nobody knows which server serves it.
        """
        ...

    def refuse(self, keys: Keys, error: ServerError) -> None:
        """Takes in an error that may say that another server serves the shard."""
        ...

    def close(self) -> None:
        """Closes all sockets. A second call does nothing."""
        ...


class Connections(Protocol):
    """The connections of one session.

    Attributes:
        pubsub: the words of the server's publish and subscribe.
        together: the shards whose streams one read may name, by their numbers; each shard is in one group.
        guards: keys that a call of a script in a shard names last, by its number.
        on_move: called after another server than before serves some shards.
    """

    pubsub: PubSub
    together: Sequence[Sequence[int]]
    guards: Sequence[tuple[str, ...]]
    on_move: list[Callable[[], None]]

    def shared(self, name: str, **options: Any) -> SharedConnections:
        """Makes one connection to each server, which connects when it is first used.

        Args:
            name: of the connections, in the server's CLIENT LIST.
            options: those of `Pipe`.
        """
        ...

    def separate(self, shard: int, name: str, **options: Any) -> ReconnectingConnection:
        """Makes a connection of its own to the server of a shard. Arguments as of `shared`."""
        ...

    def blocking(self, name: str, timeout: float) -> BlockingConnections:
        """Makes blocking connections. Arguments as of `BlockingConnection`."""
        ...

    def watch(self) -> None:
        """Begins to listen for other servers that serve our shards. A second call does nothing."""
        ...

    def places(self) -> Sequence[str]:
        """Returns which server serves each shard, by its number, for people: the host and the port, or the
        URL of the only server.
        """
        ...

    async def confirm_owners(self) -> None:
        """Makes sure that the servers that serve the shards now are known, as of a second ago at most.

        Raises:
            BrokerUnavailable: nobody can say that now.
        """
        ...

    def take_error(self, shard: int, error: ServerError) -> bool:
        """Takes in an error of the server of a shard that may be for another server. Returns whether the same
        command may be sent again at once.
        """
        ...

    async def close(self) -> None:
        """Stops listening. The connections are closed by those who use them."""
        ...


class ServerConnections:
    """The connections of one session to one server; see `Connections`.

    Args:
        address: of the server.
        client: host and process id, for the names of the connections.
        shards: of the namespace.
    """

    pubsub = EVERYWHERE

    def __init__(self, address: Address, client: str, shards: Shards) -> None:
        self.together: Sequence[Sequence[int]] = [range(shards.count)]
        self.guards: Sequence[tuple[str, ...]] = [()] * shards.count
        self.on_move: list[Callable[[], None]] = []
        self._address = address
        self._count = shards.count
        self._watch: MasterWatch | None = None
        if address.sentinels is not None:
            from asyncq.broker.transport.master_watch import MasterWatch  # most sessions do not need it

            self._watch = MasterWatch(address, f"asyncq-sentinel:{client}")

    def shared(self, name: str, **options: Any) -> SharedConnections:
        """See `Connections.shared`."""
        return _OneConnection(self.separate(0, name, **options), self._count)

    def separate(self, shard: int, name: str, **options: Any) -> ReconnectingConnection:
        """See `Connections.separate`."""
        del shard  # all are at the same server
        connection = ReconnectingConnection(self._address, name, **options)
        if self._watch is not None:
            self._watch.add(connection)
        return connection

    def blocking(self, name: str, timeout: float) -> BlockingConnections:
        """See `Connections.blocking`."""
        from asyncq.broker.transport.sentinel import blocking_connection  # imports redis-py

        connection = blocking_connection(self._address, name, timeout)
        if self._watch is not None:
            self._watch.add(connection)
        return _OneBlockingConnection(connection)

    def watch(self) -> None:
        """See `Connections.watch`."""
        if self._watch is not None:
            self._watch.start()

    def places(self) -> Sequence[str]:
        """See `Connections.places`."""
        return [self._address.safe_url] * self._count

    async def confirm_owners(self) -> None:
        """See `Connections.confirm_owners`. There is one server, and a connection that is broken as soon as
        it is the master no more.
        """

    def take_error(self, shard: int, error: ServerError) -> bool:
        """See `Connections.take_error`."""
        del shard, error
        return False

    async def close(self) -> None:
        """See `Connections.close`."""
        if self._watch is not None:
            await self._watch.close()


class _OneConnection:
    """One connection for all shards; see `SharedConnections`."""

    def __init__(self, connection: ReconnectingConnection, count: int) -> None:
        self.of: Sequence[ShardConnection] = [connection] * count
        self._connection = connection

    def pipes(self) -> list[Pipe]:
        pipe = self._connection.current
        return [] if pipe is None else [pipe]

    def drop(self) -> None:
        self._connection.drop()

    def close(self) -> None:
        self._connection.close()


class _OneBlockingConnection:
    """One blocking connection for all shards; see `BlockingConnections`."""

    def __init__(self, connection: BlockingConnection) -> None:
        self._connection = connection

    def of(self, keys: Keys) -> BlockingConnection:
        del keys
        return self._connection

    def refuse(self, keys: Keys, error: ServerError) -> None:
        del keys, error  # there is no other server

    def close(self) -> None:
        self._connection.close()


def connections_of(address: Address, client: str, shards: Shards) -> Connections:
    """Makes the connections of a session to one server or to a Cluster.

    Args:
        address: of the server or the Cluster.
        client: host and process id, for the names of the connections.
        shards: of the namespace.
    """
    if address.is_cluster:
        from asyncq.broker.transport.cluster_connections import ClusterConnections  # most do not need it

        return ClusterConnections(address, client, shards)
    return ServerConnections(address, client, shards)
