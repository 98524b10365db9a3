"""Makes the connections of one session to a Cluster: one to each node that has shards of ours, and those that
a reader has for itself. They follow the shards from node to node; see `topology`.

Lives on the session's loop, all but `_NodeThreadConnections`, which the heartbeat's thread uses.
"""

from __future__ import annotations

import asyncio
import random
import weakref
from typing import TYPE_CHECKING, Any

from asyncq.broker.transport.cluster_scripts import guards
from asyncq.broker.transport.cluster_view import Node, named_owner
from asyncq.broker.transport.connections import PubSub
from asyncq.broker.transport.pipe import Pipe
from asyncq.broker.transport.reconnect import ReconnectingConnection
from asyncq.broker.transport.topology import Topology
from asyncq.broker.transport.topology_watch import TopologyWatch
from asyncq.errors import BrokerUnavailable
from asyncq.system.tasks import cancel_and_wait, read_error

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence

    from asyncq.broker.schema.keys import Keys
    from asyncq.broker.schema.shards import Shards
    from asyncq.broker.transport.connection import Address, BlockingConnection
    from asyncq.broker.transport.connections import BlockingConnections, ShardConnection, SharedConnections
    from asyncq.broker.transport.server_error import ServerError

IN_SHARD = PubSub(
    "SPUBLISH", "SSUBSCRIBE", "SUNSUBSCRIBE", b"smessage", b"ssubscribe", b"sunsubscribe", is_sharded=True
)
_SEARCH = 3.0
"""Seconds for which one connect looks for the owner of a shard: a failover takes a second or more."""
_PAUSE = 0.2
"""The most seconds between two tries to reach the owner of a shard."""


class ClusterConnections:
    """The connections of one session to a Cluster; see `Connections`.

    Args:
        address: of the Cluster.
        client: host and process id, for the names of the connections.
        shards: of the namespace.
    """

    pubsub = IN_SHARD

    def __init__(self, address: Address, client: str, shards: Shards) -> None:
        # A command with keys of two slots is refused (CROSSSLOT), also if one node has both.
        self.together: Sequence[Sequence[int]] = [[number] for number in range(shards.count)]
        self.guards: Sequence[tuple[str, ...]] = [guards(keys) for keys in shards]
        self.on_move: list[Callable[[], None]] = []
        self.topology: Topology = Topology(address, shards, f"asyncq-topology:{client}")
        self.topology.on_change.append(self._move)
        self._watch = TopologyWatch(self.topology, self._pipes)
        self._address = address
        self._count = shards.count
        self._shared: weakref.WeakSet[_NodeConnections] = weakref.WeakSet()
        self._separate: weakref.WeakKeyDictionary[ReconnectingConnection, int] = weakref.WeakKeyDictionary()
        self._blocking: weakref.WeakSet[_NodeThreadConnections] = weakref.WeakSet()

    def shared(self, name: str, **options: Any) -> SharedConnections:
        """See `Connections.shared`."""
        connections = _NodeConnections(self._address, self.topology, self._count, name, options)
        self._shared.add(connections)
        return connections

    def separate(self, shard: int, name: str, **options: Any) -> ReconnectingConnection:
        """See `Connections.separate`."""

        async def open_at(node: Node) -> Pipe:
            return await Pipe.open(self._address.node(*node), name, **options)

        connection = ReconnectingConnection(
            self._address, name, make=lambda: until_reached(self.topology, shard, open_at), **options
        )
        self._separate[connection] = shard
        return connection

    def blocking(self, name: str, timeout: float) -> BlockingConnections:
        """See `Connections.blocking`."""
        connections = _NodeThreadConnections(self._address, self.topology, name, timeout)
        self._blocking.add(connections)
        return connections

    def watch(self) -> None:
        """See `Connections.watch`."""
        self._watch.start()

    def places(self) -> Sequence[str]:
        """See `Connections.places`. A shard that nobody serves is at "nowhere"."""
        return ["nowhere" if node is None else f"{node[0]}:{node[1]}" for node in self.topology.owners]

    async def confirm_owners(self) -> None:
        """See `Connections.confirm_owners`."""
        await self.topology.confirm()

    def take_error(self, shard: int, error: ServerError) -> bool:
        """See `Connections.take_error`."""
        if error.code == "MOVED":
            self.topology.moved(shard, str(error))
            return True
        if error.code in {"CLUSTERDOWN", "READONLY", "MASTERDOWN"}:
            self.topology.ask()
        return False

    def _pipes(self) -> list[Pipe]:
        """Returns all shared connections, those of the subscription first: another one to the same node is
        better to ask, because a subscription takes any error for that of a SUBSCRIBE, and is given up then.
        """
        shared = sorted(self._shared, key=lambda each: not each.is_subscription)
        return [pipe for each in shared for pipe in each.pipes()]

    def _move(self, changed: set[int]) -> None:
        """Closes the connections that lead to a node that serves none of our shards any more. Calls that wait
        there for an answer are sent again, to the new owner.
        """
        owners = {node for node in self.topology.owners if node is not None}
        for shared in list(self._shared):
            shared.keep_only(owners)
        for connection, shard in list(self._separate.items()):
            if shard in changed:
                connection.drop()
        for blocking in list(self._blocking):
            blocking.keep_only(owners)
        for call in self.on_move:
            call()

    async def close(self) -> None:
        """See `Connections.close`."""
        await self._watch.close()
        await self.topology.close()


async def until_reached(topology: Topology, shard: int, open_at: Callable[[Node], Awaitable[Pipe]]) -> Pipe:
    """Returns a pipe to the owner of a shard. While the owner cannot be reached, has the nodes asked who it
    is, for at most `_SEARCH` seconds: as a failover takes a second or more, this finds the new owner without
    the longer pauses of the callers.

    Args:
        topology: knows the owner.
        shard: its number.
        open_at: makes a pipe to a node.

    Raises:
        BrokerUnavailable: the owner cannot be reached; another try may help.
        ServerError: it refuses for a reason that stays.
    """
    loop = asyncio.get_running_loop()
    end = loop.time() + _SEARCH
    while True:
        node = await topology.owner(shard)
        opening = asyncio.ensure_future(open_at(node))
        opening.add_done_callback(read_error)
        try:
            # A node that hangs would hold us up for as long as a handshake may take.
            while topology.owners[shard] == node:
                events: list[asyncio.Future[Any]] = [opening, topology.next_change()]
                await asyncio.wait(events, timeout=_PAUSE, return_when=asyncio.FIRST_COMPLETED)
                if opening.done():
                    return opening.result()
                topology.ask()
        except BrokerUnavailable:
            if loop.time() > end:
                raise
        finally:
            if not opening.done():
                await cancel_and_wait(opening)
        if topology.owners[shard] == node:
            topology.ask()
            await asyncio.wait([topology.next_change()], timeout=_PAUSE * (0.5 + random.random() / 2))


class _NodeConnections:
    """One connection to each node; see `SharedConnections`."""

    def __init__(
        self, address: Address, topology: Topology, count: int, name: str, options: dict[str, Any]
    ) -> None:
        self.topology = topology
        self.is_subscription: bool = "on_push" in options
        self.of: Sequence[ShardConnection] = [_ShardOfNode(self, shard) for shard in range(count)]
        self._address = address
        self._name = name
        self._options = options
        self._by_node: dict[Node, ReconnectingConnection] = {}
        self._is_closed = False

    def at(self, node: Node) -> ReconnectingConnection | None:
        """Returns the connection to a node, if there is one."""
        return self._by_node.get(node)

    def made_at(self, node: Node) -> ReconnectingConnection:
        """Returns the connection to a node, and makes it if there is none."""
        if self._is_closed:
            raise BrokerUnavailable("the app was closed")
        connection = self._by_node.get(node)
        if connection is None:
            connection = ReconnectingConnection(self._address.node(*node), self._name, **self._options)
            self._by_node[node] = connection
        return connection

    def keep_only(self, owners: set[Node]) -> None:
        """Closes the connections to all other nodes."""
        for node in [node for node in self._by_node if node not in owners]:
            self._by_node.pop(node).close()

    def pipes(self) -> list[Pipe]:
        return [pipe for each in self._by_node.values() if (pipe := each.current) is not None]

    def drop(self) -> None:
        for connection in self._by_node.values():
            connection.drop()

    def close(self) -> None:
        self._is_closed = True
        for connection in self._by_node.values():
            connection.close()


class _ShardOfNode:
    """The connection to the node that serves a shard; see `ShardConnection`."""

    def __init__(self, nodes: _NodeConnections, shard: int) -> None:
        self._nodes = nodes
        self._owners = nodes.topology.owners
        self._shard = shard

    @property
    def latest(self) -> Pipe | None:
        node = self._owners[self._shard]
        connection = None if node is None else self._nodes.at(node)
        return None if connection is None else connection.latest

    @property
    def current(self) -> Pipe | None:
        pipe = self.latest
        return pipe if pipe is not None and pipe.broken is None else None

    async def pipe(self) -> Pipe:
        pipe = self.current
        if pipe is not None:
            return pipe
        return await until_reached(
            self._nodes.topology, self._shard, lambda node: self._nodes.made_at(node).pipe()
        )

    def drop(self) -> None:
        pipe = self.latest
        if pipe is not None:
            pipe.abort()


class _NodeThreadConnections:
    """A blocking connection to each node, used by one thread; see `BlockingConnections`. Only `keep_only` is
    called by the loop.
    """

    def __init__(self, address: Address, topology: Topology, name: str, timeout: float) -> None:
        self._address = address
        self._topology = topology
        self._name = name
        self._timeout = timeout
        self._by_node: dict[Node, BlockingConnection] = {}
        self._moved: dict[int, Node] = {}  # what a MOVED has told this thread

    def of(self, keys: Keys) -> BlockingConnection:
        from asyncq.broker.transport.connection import BlockingConnection  # imports redis-py

        node = self._moved.get(keys.shard) or self._topology.owners[keys.shard]
        if node is None:
            raise BrokerUnavailable(f"{self._address.safe_url}: nobody serves shard {keys.shard} now")
        connection = self._by_node.get(node)
        if connection is None:
            connection = BlockingConnection(self._address.node(*node), self._name, self._timeout)
            self._by_node[node] = connection
        return connection

    def refuse(self, keys: Keys, error: ServerError) -> None:
        owner = named_owner(str(error), self._topology.view.slots[keys.shard])
        if owner is not None:
            self._moved[keys.shard] = owner

    def keep_only(self, owners: set[Node]) -> None:
        """Breaks the connections to all other nodes: a call that waits there ends."""
        self._moved.clear()
        for node, connection in list(self._by_node.items()):
            if node not in owners:
                connection.drop()

    def close(self) -> None:
        for connection in list(self._by_node.values()):
            connection.close()
