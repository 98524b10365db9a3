"""Measures the queues of a namespace, for metrics and for operators: how many jobs wait, for how long the
oldest has waited, and how many jobs workers have.

In metrics, each queue is reported by one worker at a time, which holds a lease on it at the server. Only
workers that report metrics ask for a lease. Runs on the session's loop.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, NamedTuple

from asyncq.broker.schema.keys import GROUP, token

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from asyncq.broker.commands import Commands
    from asyncq.broker.schema.keys import Keys

_NAMESPACE = "!"
"""Stands for the whole namespace among the queues. No queue can have this name, and no stream has it."""


class QueueFigures(NamedTuple):
    """What was measured of a queue.

    Attributes:
        waiting: how many jobs wait in it, whatever their priority. Those that are delayed or wait for other
            jobs are in no queue, and running jobs do not wait.
        oldest: for how many seconds the one that came first has waited; 0 if none waits.
        running: how many jobs of it workers have.
    """

    waiting: int
    oldest: float
    running: int


class NamespaceFigures(NamedTuple):
    """What was measured of a namespace.

    Attributes:
        workers: how many worker sessions have a heartbeat. A dead one counts until its jobs are taken over.
        dead: how many dead letters there are.
    """

    workers: int
    dead: int


class Figures(NamedTuple):
    """What one reporter has to report now.

    Attributes:
        queues: the queues on which it has the lease.
        namespace: None if another reporter has the lease on it.
    """

    queues: Mapping[str, QueueFigures]
    namespace: NamespaceFigures | None


class QueueMeter:
    """One reporter of metrics.

    Args:
        commands: of the session.
        queues: those that it may report.
        lease: seconds for which it stays the reporter of a queue without asking again.
    """

    def __init__(self, commands: Commands, queues: Sequence[str], lease: float) -> None:
        self._commands = commands
        self._queues = [*dict.fromkeys(queues), _NAMESPACE]
        self._lease_ms = max(1, round(lease * 1000))
        self._name = token()

    async def measure(self) -> Figures:
        """Asks for the leases, or keeps them, and measures. Raises as `Commands.run`.

        The leases lie in the first shard. The reporter of a queue measures it in all shards.
        """
        first, *others = self._commands.shards
        found = await _measured_in(self._commands, first, self._queues, self._name, self._lease_ms)
        mine = list(found)
        queues = _added([found, *[await _measured_in(self._commands, keys, mine) for keys in others]])
        has_namespace = queues.pop(_NAMESPACE, None) is not None
        return Figures(queues, await self._namespace() if has_namespace else None)

    async def _namespace(self) -> NamespaceFigures:
        send, shards = self._commands.send, self._commands.shards
        dead = [await send(keys, "XLEN", keys.dead) for keys in shards]
        return NamespaceFigures(await send(shards[0], "HLEN", shards[0].beats), sum(dead))


async def measured(commands: Commands, queues: Sequence[str]) -> dict[str, QueueFigures]:
    """Measures queues in all shards, whoever reports them. Raises as `Commands.run`.

    Args:
        commands: of the session.
        queues: the queues, which one call measures; each may have 75 streams.
    """
    return _added(await asyncio.gather(*(_measured_in(commands, keys, queues) for keys in commands.shards)))


async def waiting_in(commands: Commands, queues: Sequence[str]) -> int:
    """Returns how many jobs wait in some queues together. Raises as `Commands.run`."""
    return sum(figures.waiting for figures in (await measured(commands, queues)).values())


async def _measured_in(
    commands: Commands, keys: Keys, queues: Sequence[str], reporter: str = "", lease_ms: int = 0
) -> dict[str, QueueFigures]:
    """Measures queues in a shard. With a reporter, only those on which it gets the lease."""
    if not queues:
        return {}
    answers = await commands.run(
        keys,
        "queue_figures",
        [keys.stream(queue) for queue in queues],
        (GROUP, keys.levels, keys.reporters, reporter, lease_ms),
    )
    return {
        queue: QueueFigures(answer[0], answer[1] / 1000, answer[2])
        for queue, answer in zip(queues, answers, strict=True)
        if answer
    }


def _added(measured: Sequence[Mapping[str, QueueFigures]]) -> dict[str, QueueFigures]:
    """Returns the figures of each queue in all shards together."""
    return {
        queue: QueueFigures(
            sum(each[queue].waiting for each in measured),
            max(each[queue].oldest for each in measured),
            sum(each[queue].running for each in measured),
        )
        for queue in measured[0]
    }
