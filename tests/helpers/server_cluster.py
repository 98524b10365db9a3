"""A real Cluster of servers for tests: primaries with replicas that may be killed, cut off, added and
removed, and slots that may be moved.
"""

from __future__ import annotations

import contextlib
import random
import socket
from typing import TYPE_CHECKING, Any, Self

import redis
from redis.crc import key_slot

from asyncq.broker.schema.keys import Keys
from asyncq.embedded import launch
from helpers.gateway import Gateway
from helpers.server_node import Node, tls_client, tls_lines
from helpers.waiting import NotWithinError, until_sync

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

SLOTS = 16384
BUS = 10_000
"""How far the port of the bus is from that of the clients."""
PORTS = range(12000, 22000)
"""The ports of clients. Those of the bus are below what the system gives to outgoing connections, too."""


LAG = 1_000_000
"""A replica that is fewer bytes behind follows its primary."""


def slot_of(namespace: str, shard: int) -> int:
    """Returns the slot of a shard's keys."""
    return key_slot(Keys(namespace, shard).tag.encode())


def _free_pair() -> int:
    """Returns a port on which nobody listens, nor on the port of the bus that belongs to it."""
    while True:
        port = random.choice(PORTS)
        with contextlib.suppress(OSError), socket.socket() as one, socket.socket() as other:
            one.bind(("127.0.0.1", port))
            other.bind(("127.0.0.1", port + BUS))
            return port


class ClusterNode(Node):
    """One server of a cluster.

    Attributes:
        number: its place among all that the cluster has ever had.
        name: its id in the cluster.
        announced: the port under which clients and the other nodes reach it.
        announced_bus: likewise for the bus.
    """

    number: int
    name: str
    announced: int
    announced_bus: int

    def facts(self) -> dict[str, str]:
        """Returns the answer of CLUSTER INFO; nothing if the node does not answer."""
        try:
            lines = _text(self.do("CLUSTER", "INFO")).splitlines()
        except (redis.exceptions.RedisError, OSError):
            return {}
        return dict(line.split(":", 1) for line in lines if ":" in line)

    def view(self) -> dict[str, dict[str, Any]]:
        """Returns what the node knows of all nodes (CLUSTER NODES), by their ids."""
        found = {}
        for line in _text(self.do("CLUSTER", "NODES")).splitlines():
            name, _, flags, primary, _, _, _, link, *slots = line.split()
            served = [each.partition("-") for each in slots if not each.startswith("[")]
            found[name] = {
                "flags": flags.split(","),
                "primary": primary,
                "link": link,
                "slots": [(int(first), int(last or first)) for first, _, last in served],
            }
        return found

    def replicates_all(self) -> bool:
        """Returns whether all of its replicas follow; false if it has none. Under load they never have all
        that it has: a replica says once a second what it has.
        """
        with contextlib.closing(self.client()) as client:
            facts = client.info("replication")
        here = facts["master_repl_offset"]
        replicas = [facts[f"slave{number}"] for number in range(facts["connected_slaves"])]
        return bool(replicas) and all(r["state"] == "online" and here - r["offset"] < LAG for r in replicas)


class ServerCluster:
    """A cluster of primaries, each with replicas.

    Args:
        directory: of all nodes.
        primaries: how many there are. All slots are spread over them.
        replicas: how many each of them has.
        node_timeout: milliseconds of silence after which a node is taken for dead.
        password: of all nodes.
        tls: a directory with `ca.pem`, `server.pem` and `server.key`; None for no TLS. Nodes speak TLS with
            each other, too.
        divisible: whether nodes can be cut off (`cut_off`). All connections go through a gateway then. Needs
            Linux, and no TLS.
        binary: the program; None for the embedded one.
        settings: lines of every node's configuration, with `_` for `-`.

    Attributes:
        nodes: all nodes, those that were killed too. The first ones are the primaries of the beginning.
    """

    def __init__(
        self,
        directory: Path,
        *,
        primaries: int = 3,
        replicas: int = 1,
        node_timeout: int = 5000,
        password: str = "",
        tls: Path | None = None,
        divisible: bool = False,
        binary: str | None = None,
        **settings: Any,
    ) -> None:
        self.password = password
        self.nodes: list[ClusterNode] = []
        self._directory = directory
        self._binary = binary or str(launch.find())
        self._tls = tls
        self._primaries = primaries
        self._replicas = replicas
        self._gateway = Gateway() if divisible else None
        self._stack = contextlib.ExitStack()
        self._made = 0
        secret = [f'requirepass "{password}"', f'masterauth "{password}"'] if password else []
        self._lines = [
            'save ""',
            "cluster-enabled yes",
            f"cluster-node-timeout {node_timeout}",
            "repl-diskless-sync-delay 0",
            "enable-debug-command yes",
            *secret,
            *((*tls_lines(tls), "tls-cluster yes") if tls else ()),
            *(f"{name.replace('_', '-')} {value}" for name, value in settings.items()),
        ]

    # -- start and end --

    def start(self) -> Self:
        """Starts all nodes, and waits until all slots are served and all replicas have all data. Blocks for
        two to three seconds: for two of them a primary does not serve its slots after its start.
        """
        if self._gateway is not None:
            self._stack.enter_context(self._gateway)
        count = self._primaries * (1 + self._replicas)
        self.nodes = self._launch(count)
        first, primaries = self.nodes[0], self.nodes[: self._primaries]
        for node in self.nodes:
            # Else the nodes would have to agree on different ones first.
            node.do("CLUSTER", "SET-CONFIG-EPOCH", node.number + 1)
        for position, node in enumerate(primaries):
            start, end = (SLOTS * n // len(primaries) for n in (position, position + 1))
            node.do("CLUSTER", "ADDSLOTSRANGE", start, end - 1)
        for node in self.nodes[1:]:
            self._meet(first, node)
        self._wait_until_known(self.nodes)
        for number, replica in enumerate(self.nodes[self._primaries :]):
            replica.do("CLUSTER", "REPLICATE", primaries[number % len(primaries)].name)
        self.wait_until_well()
        return self

    def close(self) -> None:
        """Kills all nodes."""
        for node in self.nodes:
            node.kill()
        self._stack.close()

    def _launch(self, count: int) -> list[ClusterNode]:
        nodes = [self._make() for _ in range(count)]
        for node in nodes:
            node.launch()
        return [self._answering(node) for node in nodes]

    def _make(self) -> ClusterNode:
        number, self._made = self._made, self._made + 1
        port = _free_pair()
        lines = list(self._lines)
        announced = port, port + BUS
        if self._gateway is not None:
            announced = self._gateway.open(number, port), self._gateway.open(number, port + BUS)
            lines += [
                f"bind-source-addr {Gateway.address(number)}",
                "cluster-announce-ip 127.0.0.1",
                f"cluster-announce-port {announced[0]}",
                f"cluster-announce-bus-port {announced[1]}",
            ]
        options = {**(tls_client(self._tls) if self._tls else {}), "password": self.password or None}
        node = ClusterNode(self._directory / f"node{number}", lines, [], options, self._binary, port)
        node.number, (node.announced, node.announced_bus) = number, announced
        return node

    def _answering(self, node: ClusterNode) -> ClusterNode:
        """Waits until a new node answers. If another process was quicker to take one of its ports, makes
        another node.
        """
        try:
            node.wait_until_answering()
        except RuntimeError:
            if "in use" not in node.log():
                raise
            node.kill()
            node = self._make()
            node.launch()
            return self._answering(node)
        node.name = _text(node.do("CLUSTER", "MYID"))
        return node

    def _meet(self, one: ClusterNode, other: ClusterNode) -> None:
        one.do("CLUSTER", "MEET", "127.0.0.1", other.announced, other.announced_bus)

    def _wait_until_known(self, nodes: Sequence[ClusterNode]) -> None:
        names = {node.name for node in nodes}

        def knows_all(node: ClusterNode) -> bool:
            known = {name for name, each in node.view().items() if "handshake" not in each["flags"]}
            return names <= known

        until_sync(lambda: all(knows_all(node) for node in nodes), "all nodes to know each other")

    # -- what there is --

    @property
    def hosts(self) -> str:
        """All nodes, as in a URL."""
        return ",".join(f"127.0.0.1:{node.announced}" for node in self.nodes)

    @property
    def url(self) -> str:
        """The URL for an app, without the password."""
        return f"redis{'s' if self._tls else ''}+cluster://{self.hosts}"

    def client(self, **options: Any) -> redis.RedisCluster:
        """Returns a blocking client of the whole cluster."""
        nodes = [redis.cluster.ClusterNode("127.0.0.1", node.announced) for node in self.living()]
        tls = tls_client(self._tls) if self._tls else {}
        return redis.RedisCluster(
            startup_nodes=nodes, password=self.password or None, socket_timeout=5.0, **tls, **options
        )

    def living(self) -> list[ClusterNode]:
        """Returns the nodes that were not killed."""
        return [node for node in self.nodes if node.process is not None]

    def node(self, name: str) -> ClusterNode:
        """Returns the node with an id."""
        return next(node for node in self.nodes if node.name == name)

    def primaries(self, asked: ClusterNode | None = None) -> list[ClusterNode]:
        """Returns the primaries that have slots, as one node knows them; None for any that lives."""
        view = (asked or self.living()[0]).view()
        return [self.node(name) for name, each in view.items() if "master" in each["flags"] and each["slots"]]

    def replicas(self, primary: ClusterNode) -> list[ClusterNode]:
        """Returns the replicas of a node that live."""
        view = self.living()[0].view()
        found = [self.node(name) for name, each in view.items() if each["primary"] == primary.name]
        return [node for node in found if node.process is not None]

    def primary_of(self, node: ClusterNode) -> ClusterNode:
        """Returns the primary of a replica; of a primary, itself."""
        mine = self.living()[0].view()[node.name]
        return self.node(mine["primary"]) if "slave" in mine["flags"] else node

    def serving(self, slot: int, asked: ClusterNode | None = None) -> ClusterNode:
        """Returns the primary that has a slot, as one node knows it; None for any that lives."""
        for name, each in (asked or self.living()[0]).view().items():
            if any(first <= slot <= last for first, last in each["slots"]):
                return self.node(name)
        raise LookupError(f"no node has slot {slot}")

    def shards(self, namespace: str, count: int) -> dict[int, ClusterNode]:
        """Returns which node has each shard of a namespace."""
        return {shard: self.serving(slot_of(namespace, shard)) for shard in range(count)}

    def is_well(self) -> bool:
        """Returns whether all living nodes find that all slots are served and know the same primaries, and
        whether each replica has all data.
        """
        living = self.living()
        if any(node.facts().get("cluster_state") != "ok" for node in living):
            return False
        views = [frozenset(primary.name for primary in self.primaries(node)) for node in living]
        if len(set(views)) != 1:
            return False
        primaries = [node for node in living if node.name in views[0]]
        return all(node.role() == "master" and self._is_replicated(node) for node in primaries)

    def _is_replicated(self, primary: ClusterNode) -> bool:
        return not self.replicas(primary) or primary.replicates_all()

    def wait_until_well(self, timeout: float = 60.0) -> None:
        """Waits for `is_well`. Blocks."""
        try:
            until_sync(self.is_well, "all nodes to agree, and all replicas to have all data", timeout)
        except NotWithinError as error:
            views = [f"{node.number}: {node.view()}" for node in self.living()]
            raise AssertionError("\n".join([str(error), *views])) from error

    # -- failover --

    def fail_over(self, primary: ClusterNode, force: str = "") -> ClusterNode:
        """Makes a replica of a primary the primary, by order, and returns it when all know it. Blocks.

        Args:
            primary: the one that becomes a replica.
            force: nothing, `FORCE` or `TAKEOVER`, as of CLUSTER FAILOVER. Without it nothing is lost.
        """
        replica = self.replicas(primary)[0]
        replica.do("CLUSTER", "FAILOVER", *([force] if force else []))
        self.wait_until_primary(replica)
        return replica

    def wait_until_primary(
        self, node: ClusterNode, among: Sequence[ClusterNode] = (), timeout: float = 60.0
    ) -> None:
        """Waits until nodes name one of them as a primary that has slots, and find that all slots are served:
        then they accept writes. Blocks.

        Args:
            node: the new primary.
            among: the nodes that are asked; none for all that live.
            timeout: seconds to wait.
        """

        def is_primary() -> bool:
            for each in among or self.living():
                mine = each.view()[node.name]
                if "master" not in mine["flags"] or not mine["slots"]:
                    return False
                if each.facts().get("cluster_state") != "ok":
                    return False
            return True

        until_sync(is_primary, f"node {node.number} to be a primary", timeout)

    # -- slots move --

    def migration(self, slot: int, target: ClusterNode) -> Migration:
        """Returns the way of a slot to another node, to be gone step by step."""
        return Migration(self, slot, self.serving(slot), target)

    def move(self, slot: int, target: ClusterNode) -> None:
        """Moves a slot with its keys to another node. Blocks until all nodes know it."""
        migration = self.migration(slot, target)
        migration.begin()
        migration.move_keys()
        migration.finish()

    # -- nodes come and go --

    def add_node(self) -> ClusterNode:
        """Adds an empty node, and returns it when all nodes know it. Blocks."""
        (node,) = self._launch(1)
        self._meet(self.living()[0], node)
        self.nodes.append(node)
        self._wait_until_known(self.living())
        until_sync(lambda: node.facts().get("cluster_state") == "ok", "the new node to be ready")
        return node

    def remove_node(self, node: ClusterNode) -> None:
        """Takes a node out of the cluster, which must have no slots. It runs on alone, as `valkey-cli` leaves
        it, until it is killed. Blocks until all other nodes have forgotten it.
        """
        self.nodes.remove(node)
        self._stack.callback(node.kill)
        for other in self.living():
            other.do("CLUSTER", "FORGET", node.name)
        node.do("CLUSTER", "RESET", "SOFT")
        until_sync(
            lambda: all(node.name not in other.view() for other in self.living()), "the node to be forgotten"
        )

    # -- the network breaks --

    def cut_off(self, *nodes: ClusterNode, clients: bool = False) -> None:
        """Lets nothing pass between these nodes and all others, until `heal`. Of a divisible cluster.

        Args:
            nodes: that are cut off together.
            clients: whether clients cannot reach them, either.
        """
        assert self._gateway is not None, "the cluster is not divisible"
        self._gateway.cut_off(*(node.number for node in nodes), clients=clients)

    def heal(self) -> None:
        """Makes the network whole again."""
        assert self._gateway is not None, "the cluster is not divisible"
        self._gateway.heal()


class Migration:
    """The way of one slot from one node to another, step by step.

    After `begin`, the old node answers `ASK` for a key of the slot that it does not have, and `TRYAGAIN` for
    a command with several keys of which it has only some. After `finish`, it answers `MOVED`.

    Args:
        cluster: of the nodes.
        slot: the slot that moves.
        source: the node that has it.
        target: the node that gets it.
    """

    def __init__(self, cluster: ServerCluster, slot: int, source: ClusterNode, target: ClusterNode) -> None:
        self._cluster = cluster
        self.slot = slot
        self.source = source
        self.target = target

    def begin(self) -> None:
        """Says to both nodes that the slot moves."""
        self.target.do("CLUSTER", "SETSLOT", self.slot, "IMPORTING", self.source.name)
        self.source.do("CLUSTER", "SETSLOT", self.slot, "MIGRATING", self.target.name)

    def keys(self) -> list[bytes]:
        """Returns the keys of the slot that the old node still has."""
        return list(self.source.do("CLUSTER", "GETKEYSINSLOT", self.slot, 100_000))

    def move_keys(self, keys: Sequence[bytes] | None = None) -> int:
        """Moves keys of the slot, and returns how many.

        Args:
            keys: which; None for all, also those that come in meanwhile.
        """
        if keys is not None:
            self._migrate(keys)
            return len(keys)
        moved = 0
        while found := self.keys():
            for start in range(0, len(found), 100):
                self._migrate(found[start : start + 100])
            moved += len(found)
        return moved

    def _migrate(self, keys: Sequence[bytes]) -> None:
        secret = ("AUTH", self._cluster.password) if self._cluster.password else ()
        # A key may expire meanwhile: NOKEY is then the answer, and no error.
        self.source.do(
            "MIGRATE", "127.0.0.1", self.target.port, "", 0, 5000, *secret, "KEYS", *keys, timeout=30.0
        )

    def finish(self) -> None:
        """Gives the slot to the new node. Blocks until all nodes know it."""
        # First the new node: if it did not learn of it, nobody would have the slot.
        others = [node for node in self._cluster.primaries() if node.process is not None]
        for node in (self.target, self.source, *others):
            try:
                node.do("CLUSTER", "SETSLOT", self.slot, "NODE", self.target.name)
            except redis.exceptions.ResponseError as error:
                # A primary that has heard of the loss of its last slot is a replica of the new owner by now.
                if "only with master" not in str(error) and "only with primar" not in str(error):
                    raise
        self._wait_for(self.target)

    def _wait_for(self, owner: ClusterNode) -> None:
        living = self._cluster.living
        until_sync(
            lambda: all(self._cluster.serving(self.slot, node) is owner for node in living()),
            f"all nodes to know that node {owner.number} has slot {self.slot}",
        )


@contextlib.contextmanager
def server_cluster(directory: Path, **options: Any) -> Iterator[ServerCluster]:
    """Gives a cluster that runs, and kills it at the end of the block. Arguments as of `ServerCluster`."""
    cluster = ServerCluster(directory, **options)
    try:
        yield cluster.start()
    finally:
        cluster.close()


def _text(answer: Any) -> str:
    return answer.decode() if isinstance(answer, bytes) else str(answer)
