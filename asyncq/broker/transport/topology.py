"""Asks the nodes of a Cluster who serves each shard of a session, and tells the session when that changes.

Runs on the session's loop; `owners` may be read on any thread. What of the answers counts, `ClusterView`
decides. The nodes are asked at the first need, after MOVED or CLUSTERDOWN, when a node cannot be reached, and
by `TopologyWatch`, for nothing tells a client that its node is cut off.

redis-py's `NodesManager` is not used: it knows no epochs, takes the first answer of any node, and has pools
of connections with retries of their own. Its `key_slot` is.
"""

from __future__ import annotations

import asyncio
import contextvars
import logging
import random
from typing import TYPE_CHECKING

from asyncq import failures
from asyncq.broker.transport.background import ErrorLog
from asyncq.broker.transport.cluster_view import ClusterView, Node, NodeAnswer, answer_of, named_owner
from asyncq.broker.transport.pipe import Pipe, PipeBroken
from asyncq.broker.transport.server_error import ServerError
from asyncq.broker.transport.supported_servers import Wanted
from asyncq.errors import BrokerUnavailable
from asyncq.system.tasks import cancel_and_wait

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from asyncq.broker.schema.shards import Shards
    from asyncq.broker.transport.connection import Address

log: logging.Logger = logging.getLogger(__name__)

ANSWER = 0.3
"""Seconds after which a node that has not answered is taken for cut off. When the nodes are asked over new
connections, these seconds begin with the first answer."""
_ASK_AT_ONCE = 3
"""So many nodes are asked at the same time."""
_PATIENCE = 1.0
"""Seconds for a connect to a node and its answer."""
_FRESH = 1.0
"""For so many seconds, an answer counts as the present state."""


class Topology:
    """Which node serves each shard.

    Args:
        address: of the Cluster.
        shards: of the namespace.
        name: of the connections that ask, in the CLIENT LIST of a node.

    Attributes:
        view: what the nodes have told.
        late: the nodes that did not answer in time when they were asked last.
        on_change: called after the owner of a shard has changed, with the numbers of these shards.
        on_rise: called when the epoch of the Cluster has risen.
    """

    def __init__(self, address: Address, shards: Shards, name: str) -> None:
        from asyncq.broker.transport.connection import slot_of  # imports redis-py

        self.view: ClusterView = ClusterView([slot_of(keys.tag) for keys in shards], address.seeds)
        self.late: set[Node] = set()
        self.on_change: list[Callable[[set[int]], None]] = []
        self.on_rise: list[Callable[[], None]] = []
        self._address = address
        self._name = name
        self._confirmed_at = float("-inf")
        self._is_closed = False
        self._errors = ErrorLog(log, "the answer of a node of the Cluster cannot be used")
        self._asking: asyncio.Task[None] | None = None
        self._next_change: asyncio.Future[None] | None = None
        self._problem: Exception | None = None

    @property
    def owners(self) -> Sequence[Node | None]:
        """The node of each shard, by its number; None for one that is not known. Always the same list."""
        return self.view.owners

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
        slot = self.view.slots[shard]
        raise BrokerUnavailable(
            f"{self._address.safe_url}: no node serves slot {slot}, in which shard {shard} lies"
        )

    def moved(self, shard: int, error: str) -> None:
        """Takes in the owner of a shard that a MOVED names, and asks for everything."""
        owner = named_owner(error, self.view.slots[shard])
        if owner is not None:
            self._tell(self.view.set_owners({shard: owner}))
        self.ask()

    def take(self, answer: NodeAnswer) -> bool:
        """Takes in an answer, and tells what has changed. Returns whether the node is up to date, and finds
        that the Cluster is up.
        """
        taken = self.view.take(answer, asyncio.get_running_loop().time())
        if taken.has_risen:
            for call in self.on_rise:
                call()
        self._tell(taken.changed)
        return taken.is_up

    def _tell(self, changed: set[int]) -> None:
        if not changed:
            return
        log.debug("shards %s are served by other nodes now: %s", sorted(changed), self.owners)
        if self._next_change is not None:
            self._next_change.set_result(None)
            self._next_change = None
        for call in self.on_change:
            call(changed)

    def next_change(self) -> asyncio.Future[None]:
        """Returns a future that is done after the next change of an owner. All callers share it: wait for it
        with `asyncio.wait`, which does not cancel it.
        """
        if self._next_change is None:
            self._next_change = asyncio.get_running_loop().create_future()
        return self._next_change

    # -- asking --

    def ask(self) -> None:
        """Has the nodes asked, in the background, if that is not under way. Does nothing after `close`."""
        if not self._is_closed and (self._asking is None or self._asking.done()):
            # In an empty context: the task outlives this call, and must not keep the caller's variables.
            self._asking = asyncio.get_running_loop().create_task(
                self._refresh(), context=contextvars.Context()
            )

    async def refresh(self) -> None:
        """Asks the nodes, and waits for the answer. Cancelling one caller disturbs no other.

        Raises:
            BrokerUnavailable: the app was closed.
        """
        self.ask()
        if self._is_closed or self._asking is None:
            raise BrokerUnavailable("the app was closed")
        await asyncio.shield(self._asking)

    async def confirm(self) -> None:
        """Asks the nodes, unless they have answered within the last second. What `TopologyWatch` has learnt
        is not enough: it asks one node, which may be the one that is cut off.

        Raises:
            BrokerUnavailable: no node says that the Cluster is up.
        """
        needed = asyncio.get_running_loop().time() - _FRESH
        for _ in range(2):  # the first one may have been under way for long
            if self._confirmed_at < needed:
                await self.refresh()
        if self._confirmed_at < needed:
            raise BrokerUnavailable(
                f"{self._address.safe_url}: {self._problem or 'the Cluster is down'}"
            ) from self._problem

    async def close(self) -> None:
        """Stops asking. A second call does nothing."""
        self._is_closed = True
        if self._asking is not None:
            await cancel_and_wait(self._asking)

    async def _refresh(self) -> None:
        """Asks nodes until one says that the Cluster is up, and takes in all answers. Notes why none does.

        It asks some at a time, and more at once when one says that the Cluster is down. After an answer, it
        waits a moment for those of the others: the first may come from a node that is cut off.
        """
        loop = asyncio.get_running_loop()
        started = loop.time()
        self._problem = None
        problems: list[Exception] = []
        candidates = self._candidates()
        self.late.intersection_update([*candidates, *self.owners])  # others have left the Cluster
        asked: dict[asyncio.Task[bool | Exception], Node] = {}
        waiting: set[asyncio.Task[bool | Exception]] = set()
        is_answered = is_up = False
        try:
            while waiting or (candidates and not is_up):
                if not is_up and (is_answered or not waiting):
                    some = [candidates.pop(0) for _ in candidates[:_ASK_AT_ONCE]]
                    tasks = {loop.create_task(self._take_from(node)): node for node in some}
                    asked |= tasks
                    waiting |= tasks.keys()
                done, waiting = await asyncio.wait(
                    waiting, timeout=ANSWER if is_answered else None, return_when=asyncio.FIRST_COMPLETED
                )
                if not done and (is_up or not candidates):
                    break
                for answer in [task.result() for task in done]:
                    if isinstance(answer, Exception):
                        problems.append(answer)
                    else:
                        is_answered = True
                        is_up |= answer
        finally:
            for task in waiting:
                task.cancel()
                self.late.add(asked[task])
            if waiting:
                await asyncio.wait(waiting)
        if is_up:
            self._confirmed_at = started
        elif problems:
            # A refusal says more than an advice, and an advice more than silence.
            self._problem = max(problems, key=lambda one: (isinstance(one, ServerError), "\n" in str(one)))

    def _candidates(self) -> list[Node]:
        """Returns all nodes in the order in which they are asked: those that were late come last."""
        known = list(dict.fromkeys([*self.view.nodes, *self._address.seeds]))
        random.shuffle(known)
        return sorted(known, key=self.late.__contains__)

    async def _take_from(self, node: Node) -> bool | Exception:
        """Asks one node, and takes in its answer. Returns as `take`, or the error if there is no answer that
        can be used: when other nodes have answered, nobody looks at this task, and asyncio logs an error that
        a task has raised for nobody.
        """
        try:
            return self.take(await self._answer_of(node))
        except (BrokerUnavailable, ServerError) as error:
            return error
        except Exception as error:  # noqa: BLE001  whatever it is, the other nodes may answer
            self._errors.add(error)
            unusable = BrokerUnavailable(
                f"{self._address.safe_url}: the answer of the node at {node[0]}:{node[1]} cannot be used "
                f"({failures.one_line(error)})"
            )
            unusable.__cause__ = error
            return unusable

    async def _answer_of(self, node: Node) -> NodeAnswer:
        """Asks one node, over a connection of its own.

        Raises:
            BrokerUnavailable: it does not answer.
            ServerError: it refuses.
        """
        pipe: Pipe | None = None
        try:
            async with asyncio.timeout(_PATIENCE):
                pipe = await Pipe.open(self._address.node(*node, Wanted.CLUSTER), self._name)
                answer = await answer_of(pipe, node)
        except (PipeBroken, TimeoutError) as error:
            self.late.add(node)
            raise BrokerUnavailable(
                f"{self._address.safe_url}: no answer from the node at {node[0]}:{node[1]}"
            ) from error
        except BrokerUnavailable:
            self.late.add(node)
            raise
        finally:
            if pipe is not None:
                pipe.abort()
        self.late.discard(node)
        return answer
