"""Finds out when shards of a Cluster get other owners.

Nothing tells a client that its node is cut off: connections stay open, and replies stop. So a task asks one
node after the other for the epoch of the Cluster, twice a second, and asks for everything when that has
risen. It rises when a replica asks for votes. The replica owns the slots only after that, and other nodes
hear of it later still. So for a while after that, and while an owner is silent, the task asks for everything,
and more often. It uses the session's own connections, as there may be hundreds of sessions.

Runs on the session's loop.
"""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import logging
import random
from typing import TYPE_CHECKING

from asyncq.broker.transport.background import ErrorLog, forever
from asyncq.broker.transport.cluster_view import answer_of, epoch_of
from asyncq.broker.transport.pipe import PipeBroken
from asyncq.broker.transport.topology import ANSWER
from asyncq.system.tasks import cancel_and_wait

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from asyncq.broker.transport.cluster_view import Node
    from asyncq.broker.transport.pipe import Pipe
    from asyncq.broker.transport.topology import Topology

log: logging.Logger = logging.getLogger(__name__)

INTERVAL = 0.5
"""Seconds between two questions for the epoch."""
ALARMED = 0.15
"""Seconds between two questions for everything, while owners are about to change."""
_SILENCE = 30.0
"""For so many seconds at most, an owner that does not answer is a reason for that: it may stay away."""
_ELECTION = 2.0
"""For so many seconds, an epoch that has risen is a reason for that."""


class TopologyWatch:
    """Keeps a topology up to date.

    Args:
        topology: learns the owners.
        pipes: returns the connections over which the nodes may be asked. Of several to one node, the last one
            is used.
    """

    def __init__(self, topology: Topology, pipes: Callable[[], Iterable[Pipe]]) -> None:
        self._topology = topology
        self._pipes = pipes
        self._late_since: dict[Node, float] = {}  # since when owners do not answer
        self._risen_at = float("-inf")
        self._risen = asyncio.Event()
        self._turn = 0
        self._task: asyncio.Task[None] | None = None
        topology.on_rise.append(self._on_rise)

    def start(self) -> None:
        """Begins to ask. A second call does nothing."""
        if self._task is None:
            # In an empty context: the task outlives this call, and must not keep the caller's variables.
            errors = ErrorLog(log, "a node of the Cluster could not be asked who serves what")
            self._task = asyncio.get_running_loop().create_task(
                forever(self._ask_some, errors), context=contextvars.Context()
            )

    async def close(self) -> None:
        """Stops asking. A second call does nothing."""
        if self._task is not None:
            await cancel_and_wait(self._task)

    def _on_rise(self) -> None:
        self._risen_at = asyncio.get_running_loop().time()
        self._risen.set()

    async def _ask_some(self) -> None:
        """Waits for the time of the next turn, and asks some nodes. Has all asked if none of them answers."""
        pause = ALARMED if self._is_alarmed() else INTERVAL
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(pause * random.uniform(0.9, 1.1)):
                await self._risen.wait()
        self._risen.clear()
        self._turn += 1
        if not any(await asyncio.gather(*map(self._look, self._chosen()))):
            self._topology.ask()

    def _chosen(self) -> list[Pipe]:
        """Returns the connections to the nodes that are asked in this turn."""
        late = self._topology.late
        known = {pipe.endpoint: pipe for pipe in self._pipes()}
        prompt_ones = [pipe for node, pipe in known.items() if node not in late]
        late_ones = [pipe for node, pipe in known.items() if node in late]
        # Two, for one of them may be the one that is cut off, of which nobody knows yet.
        count = min(2 if self._is_alarmed() else 1, len(prompt_ones))
        chosen = [prompt_ones[(self._turn + n) % len(prompt_ones)] for n in range(count)]
        if late_ones and (self._turn % 4 == 0 or not chosen):
            chosen.append(random.choice(late_ones))  # it may be back
        return chosen

    def _is_alarmed(self) -> bool:
        """Returns whether owners are about to change: one does not answer, or there is an election."""
        now = asyncio.get_running_loop().time()
        late = self._topology.late.intersection(self._topology.owners)
        self._late_since = {node: self._late_since.get(node, now) for node in late}
        is_late = any(now - since < _SILENCE for since in self._late_since.values())
        return is_late or now - self._risen_at < _ELECTION

    async def _look(self, pipe: Pipe) -> bool:
        """Asks a node for its epoch, and for everything if that has risen or owners are about to change.
        Returns whether it answered.
        """
        node = pipe.endpoint
        if node is None:
            return False  # the pipe is broken
        try:
            async with asyncio.timeout(ANSWER):
                if self._is_alarmed() or await epoch_of(pipe) > self._topology.view.epoch:
                    self._topology.take(await answer_of(pipe, node))
        except (TimeoutError, PipeBroken):
            self._topology.late.add(node)
            return False
        self._topology.late.discard(node)
        return True
