"""Knows which node of a Cluster serves each shard of a session, and finds out when that changes.

Runs on the session's loop; `owner` may be read on any thread. The nodes' own answers decide: CLUSTER SLOTS
says who owns which slot, and of several answers that with the highest epoch is the newest, which is how the
nodes decide among themselves. A node that is cut off from the others answers with an old epoch.

It asks at the first need, after MOVED or CLUSTERDOWN, and when a node cannot be reached. Nothing tells a
client that its node is cut off: connections stay open, and replies stop. So a task asks one node after the
other for its epoch, twice a second, and asks for everything when that has risen. While an owner is silent, it
asks more often.

redis-py's `NodesManager` is not used: it knows no epochs, takes the first answer of any node, and has pools
of connections with retries of their own. Its `key_slot` is.
"""

from __future__ import annotations

import asyncio
import contextvars
import logging
import random
import re
from typing import TYPE_CHECKING, Any, NamedTuple

from asyncq.broker.transport.pipe import Pipe, PipeBroken
from asyncq.broker.transport.server_error import ServerError, Unfit
from asyncq.broker.transport.supported_servers import Wanted
from asyncq.errors import BrokerUnavailable

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from asyncq.broker.schema.shards import Shards
    from asyncq.broker.transport.connection import Address

log: logging.Logger = logging.getLogger(__name__)

INTERVAL = 0.5
"""Seconds between two questions for the epoch of a node."""
ALARMED = 0.15
"""The same while the owner of a shard does not answer: then the others are about to choose another one."""
_ALARM = 30.0
"""For so many seconds at most: the node may stay away."""
ANSWER = 0.3
"""Seconds after which a node that has not answered is taken for cut off, and others are asked."""
SEARCH = 3.0
"""Seconds for which one connect looks for the owner of a shard: a failover takes a second or more."""
_ASK_AT_ONCE = 3
"""So many nodes are asked at the same time."""
_PATIENCE = 1.0
"""Seconds for a connect to a node and its answer."""
_FRESH = 1.0
"""For so many seconds, an answer counts as the present state."""
_TRUST = 3.0
"""Seconds after which an answer with an older epoch than one before counts, if there is no other: somebody
has made the Cluster anew."""

Node = tuple[str, int]
"""Host and port."""


class _Answer(NamedTuple):
    """What one node says.

    Attributes:
        epoch: the highest of the Cluster that it knows.
        is_up: whether the Cluster serves all slots, as far as it knows.
        ranges: first slot, last slot, owner.
        nodes: all that it knows.
    """

    epoch: int
    is_up: bool
    ranges: Sequence[tuple[int, int, Node]]
    nodes: Sequence[Node]


def named_owner(error: str) -> Node | None:
    """Returns the node that a MOVED names; None for any other error."""
    found = re.fullmatch(r"MOVED \d+ (.+):(\d+)", error)
    return None if found is None else (found[1].strip("[]"), int(found[2]))


class Topology:
    """Which node serves each shard.

    Args:
        address: of the Cluster.
        shards: of the namespace.
        name: of the connections that ask, in the CLIENT LIST of a node.

    Attributes:
        owners: the node of each shard, by its number; None for one that is not known.
        on_change: called after the owner of a shard has changed, with the numbers of these shards.
    """

    def __init__(self, address: Address, shards: Shards, name: str) -> None:
        from asyncq.broker.transport.connection import slot_of  # imports redis-py

        self.owners: list[Node | None] = [None] * shards.count
        self.on_change: list[Callable[[set[int]], None]] = []
        self._address = address
        self._name = name
        self._slots = [slot_of(keys.tag) for keys in shards]
        self._nodes: list[Node] = list(address.seeds)
        self._late: set[Node] = set()
        self._epoch = -1
        self._newest_at = float("-inf")
        self._asking: asyncio.Task[None] | None = None
        self._watching: asyncio.Task[None] | None = None
        self._problem: Exception | None = None

    async def owner(self, shard: int) -> Node:
        """Returns the node of a shard. Asks if it is not known.

        Raises:
            BrokerUnavailable: no node can be reached, or nobody serves the shard now.
            ServerError: the nodes refuse for a reason that stays.
        """
        if self.owners[shard] is None:
            await self.refresh()
        found = self.owners[shard]
        if found is not None:
            return found
        if self._problem is not None:
            raise self._problem
        raise BrokerUnavailable(
            f"{self._address.safe_url}: no node serves slot {self._slots[shard]}, in which shard {shard} lies"
        )

    def moved(self, shard: int, error: str) -> None:
        """Takes in the owner of a shard that a MOVED names, and asks for everything."""
        owner = named_owner(error)
        if owner is not None:
            self._apply({shard: owner})
        self.ask()

    def ask(self) -> None:
        """Has the nodes asked, in the background, if that is not under way."""
        if self._asking is None or self._asking.done():
            # In an empty context: the task outlives this call, and must not keep the caller's variables.
            self._asking = asyncio.get_running_loop().create_task(
                self._refresh(), context=contextvars.Context()
            )

    async def refresh(self) -> None:
        """Asks the nodes, and waits for the answer. Cancelling one caller disturbs no other."""
        self.ask()
        assert self._asking is not None
        await asyncio.shield(self._asking)

    async def confirm(self) -> None:
        """Asks the nodes, unless one has answered within the last second."""
        if asyncio.get_running_loop().time() - self._newest_at > _FRESH:
            await self.refresh()

    async def _refresh(self) -> None:
        """Asks some nodes, and takes in the newest of their answers. Notes why there is none."""
        loop = asyncio.get_running_loop()
        self._problem = None
        candidates = self._candidates()
        problems: list[Exception] = []
        for first in range(0, len(candidates), _ASK_AT_ONCE):
            asked = [
                loop.create_task(self._answer_of(node)) for node in candidates[first : first + _ASK_AT_ONCE]
            ]
            answers = await _answers(asked, problems)
            if answers and self._take(max(answers, key=lambda one: (one.epoch, one.is_up))):
                return
        if problems:
            # A refusal says more than an advice, and an advice more than silence.
            self._problem = max(problems, key=lambda one: (isinstance(one, ServerError), "\n" in str(one)))

    def _candidates(self) -> list[Node]:
        """Returns all nodes in the order in which they are asked: those that were late come last."""
        known = list(dict.fromkeys([*self._nodes, *self._address.seeds]))
        random.shuffle(known)
        return sorted(known, key=self._late.__contains__)

    async def _answer_of(self, node: Node) -> _Answer:
        """Asks one node.

        Raises:
            BrokerUnavailable: it does not answer.
            ServerError: it refuses.
        """
        pipe: Pipe | None = None
        try:
            async with asyncio.timeout(_PATIENCE):
                pipe = await Pipe.open(self._address.node(*node, Wanted.CLUSTER), self._name)
                info, slots = await asyncio.gather(
                    pipe.call("CLUSTER", "INFO"), pipe.call("CLUSTER", "SLOTS")
                )
        except (PipeBroken, TimeoutError) as error:
            self._late.add(node)
            raise BrokerUnavailable(
                f"{self._address.safe_url}: no answer from the node at {node[0]}:{node[1]}"
            ) from error
        except BrokerUnavailable:
            self._late.add(node)
            raise
        finally:
            if pipe is not None:
                pipe.abort()
        self._late.discard(node)
        return _answer(info, slots, node)

    def _take(self, answer: _Answer) -> bool:
        """Takes in an answer, unless a newer one is known. Returns whether it did, and the Cluster is up."""
        now = asyncio.get_running_loop().time()
        if answer.epoch < self._epoch and now - self._newest_at < _TRUST:
            return False
        self._epoch, self._newest_at = answer.epoch, now
        self._nodes = list(answer.nodes)
        found: dict[int, Node] = {}
        for shard, slot in enumerate(self._slots):
            for low, high, node in answer.ranges:
                if low <= slot <= high:
                    found[shard] = node
        self._apply(found)
        return answer.is_up

    def _apply(self, owners: dict[int, Node]) -> None:
        changed = {shard for shard, node in owners.items() if self.owners[shard] != node}
        for shard in changed:
            self.owners[shard] = owners[shard]
        if changed:
            log.debug("shards %s are served by other nodes now: %s", sorted(changed), self.owners)
            for call in self.on_change:
                call(changed)

    # -- watching --

    def watch(self, pipes: Callable[[], Iterable[Pipe]]) -> None:
        """Begins to ask for epochs. A second call does nothing.

        Args:
            pipes: returns the connections over which it may ask.
        """
        if self._watching is None:
            self._watching = asyncio.get_running_loop().create_task(
                self._watch(pipes), context=contextvars.Context()
            )

    async def close(self) -> None:
        """Ends the tasks. A second call does nothing."""
        tasks = [task for task in (self._watching, self._asking) if task is not None]
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks)

    async def _watch(self, pipes: Callable[[], Iterable[Pipe]]) -> None:
        turn = 0
        since: float | None = None  # when an owner was late first
        loop = asyncio.get_running_loop()
        while True:
            if self._late.isdisjoint(self.owners):
                since = None
            elif since is None:
                since = loop.time()
            is_alarmed = since is not None and loop.time() - since < _ALARM
            await asyncio.sleep((ALARMED if is_alarmed else INTERVAL) * random.uniform(0.9, 1.1))
            known = list(pipes())
            turn += 1
            if is_alarmed and turn % 4:
                # Now and then the late node is asked, too: it may be back.
                known = [pipe for pipe in known if pipe.endpoint not in self._late] or known
            try:
                if not known or await self._has_changed(known[turn % len(known)]):
                    await self.refresh()
            except Exception as error:  # noqa: BLE001  whatever it is, the next turn may go well
                log.debug("the nodes of the Cluster could not be asked (%s); asking again", error)

    async def _has_changed(self, pipe: Pipe) -> bool:
        """Returns whether a node knows a higher epoch, or does not answer."""
        node = pipe.endpoint
        try:
            async with asyncio.timeout(ANSWER):
                epoch, _ = _state(await pipe.call("CLUSTER", "INFO", now=True))
        except (TimeoutError, PipeBroken):
            if node is not None:
                self._late.add(node)
            return True
        if node is not None:
            self._late.discard(node)
        return epoch > self._epoch


async def _answers(asked: Sequence[asyncio.Task[_Answer]], problems: list[Exception]) -> list[_Answer]:
    """Waits for the first answer, and a moment longer for others. Adds what went wrong to `problems`."""
    answers: list[_Answer] = []
    waiting = set(asked)
    try:
        while waiting:
            done, waiting = await asyncio.wait(
                waiting, timeout=ANSWER if answers else None, return_when=asyncio.FIRST_COMPLETED
            )
            if not done:
                break
            for task in done:
                error = task.exception()
                if error is None:
                    answers.append(task.result())
                elif isinstance(error, (BrokerUnavailable, ServerError)):
                    problems.append(error)
                else:
                    raise error
    finally:
        for task in waiting:
            task.cancel()
        if waiting:
            await asyncio.wait(waiting)
    return answers


def _state(info: bytes) -> tuple[int, bool]:
    """Returns the highest epoch that a node knows, and whether the Cluster is up, of its CLUSTER INFO."""
    facts = dict(line.split(":", 1) for line in info.decode().split() if ":" in line)
    return int(facts.get("cluster_current_epoch", 0)), facts.get("cluster_state") == "ok"


def _answer(info: bytes, slots: Any, asked: Node) -> _Answer:
    """Reads the answers of a node to CLUSTER INFO and CLUSTER SLOTS."""
    epoch, is_up = _state(info)
    ranges: list[tuple[int, int, Node]] = []
    nodes: dict[Node, None] = {}
    for low, high, *served in slots:
        each = [_node(one, asked) for one in served]
        nodes |= dict.fromkeys(each)
        if each:
            ranges.append((int(low), int(high), each[0]))
    if not nodes:
        raise Unfit("the Cluster has no slots\nAdd slots to its nodes: valkey-cli --cluster create")
    return _Answer(epoch, is_up, ranges, list(nodes))


def _node(described: Sequence[Any], asked: Node) -> Node:
    """Returns a node in an answer. One without a host is known by the host that was asked."""
    host = described[0]
    text = host.decode() if isinstance(host, bytes) else str(host or "")
    return (text if text and text != "?" else asked[0], int(described[1]))
