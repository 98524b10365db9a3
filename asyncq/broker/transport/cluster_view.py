"""Knows which node of a Cluster owns each shard, as far as the nodes have told: the newest of their answers.

A node says in CLUSTER SLOTS who owns which slot, and in CLUSTER NODES in which epoch each node got its
slots. Of two nodes that claim a slot, that with the higher epoch owns it, which is how the nodes decide among
themselves. A node that is cut off from the others, or has not yet heard how an election ended, names the
owner before. But if an administrator takes slots from a node and gives them to another by hand, the new owner
may have a lower epoch. So an older answer counts when all answers have been as old for a while.

Runs on the session's loop; `owners` may be read on any thread.
"""

from __future__ import annotations

import asyncio
import re
from typing import TYPE_CHECKING, Any, NamedTuple

from asyncq.broker.transport.server_error import Unfit

if TYPE_CHECKING:
    from collections.abc import Sequence

    from asyncq.broker.transport.pipe import Pipe

_TRUST = 3.0
"""Seconds for which all answers must be older than one before until they count: somebody has made the Cluster
anew then, or has given slots away by hand."""

Node = tuple[str, int]
"""Host and port."""


class SlotRange(NamedTuple):
    """Slots that one node owns.

    Attributes:
        first, last: of the slots.
        owner: of all of them.
        epoch: in which the owner got slots last.
    """

    first: int
    last: int
    owner: Node
    epoch: int


class NodeAnswer(NamedTuple):
    """What one node says.

    Attributes:
        epoch: the highest of the Cluster that it knows.
        is_up: whether the Cluster serves all slots, as far as it knows.
        ranges: who owns which slots.
        nodes: all that it knows.
    """

    epoch: int
    is_up: bool
    ranges: Sequence[SlotRange]
    nodes: Sequence[Node]


class ViewChange(NamedTuple):
    """What a view has got from an answer.

    Attributes:
        is_up: whether the node is up to date, and finds that the Cluster is up.
        has_risen: whether the epoch is higher than all before.
        changed: the numbers of the shards that have another owner now.
    """

    is_up: bool
    has_risen: bool
    changed: set[int]


class ClusterView:
    """What is known of a Cluster.

    Args:
        slots: of the shards.
        seeds: the nodes that are known before the first answer.

    Attributes:
        owners: the node of each shard, by its number; None for one that is not known.
        nodes: all that are known.
        epoch: the highest that a node has named; -1 before the first answer.
    """

    def __init__(self, slots: Sequence[int], seeds: Sequence[Node]) -> None:
        self.slots: Sequence[int] = slots
        self.owners: list[Node | None] = [None] * len(slots)
        self.nodes: Sequence[Node] = seeds
        self.epoch: int = -1
        self._owned_since = [-1] * len(slots)  # the epoch in which each shard got its owner
        self._older_since: float | None = None  # since when all answers have an older epoch
        self._denied_since: dict[int, float] = {}  # since when all answers name an older owner, by shard

    def take(self, answer: NodeAnswer, now: float) -> ViewChange:
        """Takes in what is not older in an answer than what is known.

        Args:
            answer: of any node.
            now: the time, in seconds, by any clock that is never set.
        """
        if answer.epoch < self.epoch:
            self._older_since = now if self._older_since is None else self._older_since
            if now - self._older_since < _TRUST:
                return ViewChange(is_up=False, has_risen=False, changed=set())
            self._owned_since = [-1] * len(self.slots)
        self._older_since = None
        has_risen = 0 <= self.epoch < answer.epoch
        self.epoch = answer.epoch
        self.nodes = answer.nodes
        found: dict[int, Node] = {}
        for shard, slot in enumerate(self.slots):
            for each in answer.ranges:
                if each.first <= slot <= each.last and self._counts(shard, each, now):
                    found[shard] = each.owner
        return ViewChange(answer.is_up, has_risen, self.set_owners(found))

    def _counts(self, shard: int, claim: SlotRange, now: float) -> bool:
        """Returns whether a claim of the slot of a shard counts. A node may know of an election and not of
        its end: the epoch of its answer is new then, and the owner is not.
        """
        if claim.epoch < self._owned_since[shard] and claim.owner != self.owners[shard]:
            if now - self._denied_since.setdefault(shard, now) < _TRUST:
                return False
            self._owned_since[shard] = claim.epoch
        self._denied_since.pop(shard, None)
        self._owned_since[shard] = max(self._owned_since[shard], claim.epoch)
        return True

    def set_owners(self, owners: dict[int, Node]) -> set[int]:
        """Takes in the owners of some shards. Returns those of them that have another owner now."""
        changed = {shard for shard, node in owners.items() if self.owners[shard] != node}
        for shard in changed:
            self.owners[shard] = owners[shard]
        return changed


async def answer_of(pipe: Pipe, node: Node) -> NodeAnswer:
    """Asks a node for all that it knows.

    Args:
        pipe: to the node.
        node: its host and port.

    Raises:
        PipeBroken: the connection was lost.
        ServerError: the node refuses.
        Unfit: the Cluster has no slots.
    """
    info, slots, nodes = await asyncio.gather(
        pipe.call("CLUSTER", "INFO"), pipe.call("CLUSTER", "SLOTS"), pipe.call("CLUSTER", "NODES")
    )
    return read_answer(info, slots, nodes, node)


async def epoch_of(pipe: Pipe) -> int:
    """Asks a node for the highest epoch of the Cluster that it knows. Raises as `answer_of`."""
    epoch, _ = _state(await pipe.call("CLUSTER", "INFO", now=True))
    return epoch


def named_owner(error: str, slot: int) -> Node | None:
    """Returns the node that a MOVED names; None for any other error, for another slot, and if the node does
    not know the other's host.
    """
    found = re.fullmatch(r"MOVED (\d+) (.+):(\d+)", error)
    if found is None or int(found[1]) != slot or found[2] == "?":
        return None
    return found[2].strip("[]"), int(found[3])


def read_answer(info: bytes, slots: Any, nodes: bytes, asked: Node) -> NodeAnswer:
    """Reads the answers of a node to CLUSTER INFO, CLUSTER SLOTS and CLUSTER NODES.

    Raises:
        Unfit: the Cluster has no slots.
    """
    epoch, is_up = _state(info)
    # <id> <address> <flags> <primary> <ping sent> <pong received> <epoch> <state of the link> <slots>
    lines = [line.split() for line in nodes.splitlines()]
    epochs = {words[0]: int(words[6]) for words in lines if len(words) > 6}
    ranges: list[SlotRange] = []
    known: dict[Node, None] = {}
    for first, last, *served in slots:
        each = [_node(one, asked) for one in served]
        known |= dict.fromkeys(each)
        if each:
            ranges.append(SlotRange(int(first), int(last), each[0], epochs.get(served[0][2], 0)))
    if not known:
        raise Unfit("the Cluster has no slots\nAdd slots to its nodes: valkey-cli --cluster create")
    return NodeAnswer(epoch, is_up, ranges, list(known))


def _state(info: bytes) -> tuple[int, bool]:
    """Returns the highest epoch that a node knows, and whether the Cluster is up, of its CLUSTER INFO."""
    facts = dict(line.split(":", 1) for line in info.decode().split() if ":" in line)
    return int(facts.get("cluster_current_epoch", 0)), facts.get("cluster_state") == "ok"


def _node(described: Sequence[Any], asked: Node) -> Node:
    """Returns a node in an answer. One without a host is known by the host that was asked."""
    host = described[0]
    text = host.decode() if isinstance(host, bytes) else str(host or "")
    return (text if text and text != "?" else asked[0], int(described[1]))
