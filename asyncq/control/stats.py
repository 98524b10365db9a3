"""Figures of a whole namespace for an operator: how many jobs wait for what outside of the queues. Runs on
the session's loop.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from asyncq.broker.broker import Broker


@dataclass(frozen=True, slots=True)
class Stats:
    """How many jobs are in no queue now.

    Attributes:
        delayed: those that wait for their time, for their next try, or for a limit of their task.
        retrying: those of them that have failed and are tried again.
        waiting_for_parents: those that wait for other jobs of their workflow.
        dead: how many dead letters there are.
        schedules: how many schedules there are, also those that are paused or have ended lately.
        exact: False if there are too many jobs, or too many keys at the server, to count them one by one;
            then `retrying` and `waiting_for_parents` are estimates.
    """

    delayed: int
    retrying: int
    waiting_for_parents: int
    dead: int
    schedules: int
    exact: bool


async def stats(broker: Broker) -> Stats:
    """Counts. Raises as `Commands.run`."""
    send, shards = broker.commands.send, broker.shards
    counts, dead, schedules = await asyncio.gather(
        broker.jobs.delayed_counts(),
        asyncio.gather(*(send(keys, "XLEN", keys.dead) for keys in shards)),
        asyncio.gather(*(send(keys, "ZCARD", keys.schedules_due) for keys in shards)),
    )
    return Stats(
        *(counts.delayed, counts.retrying, counts.waiting, sum(dead), sum(schedules)), exact=counts.is_exact
    )
