"""Following waits through shards: does somebody for whom a job waits wait for it?

Within a shard the server answers that itself, in the step that notes the wait (`block.lua`).
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from asyncq.broker.broker import Broker


async def way_back(
    broker: Broker, id: str, targets: Sequence[str], *, most: int, patience: float
) -> list[str]:
    """The ids on the shortest way from one of the targets to a job, along those for whom each waits; empty if
    there is none. Raises as `Broker.run`.

    Args:
        broker: asks.
        id: the job.
        targets: for whom it waits.
        most: jobs that are looked at.
        patience: seconds for each look.
    """
    came_from: dict[str, str | None] = dict.fromkeys(targets)
    level = list(came_from)
    while level and id not in came_from and len(came_from) < most:
        following: list[str] = []
        for node, awaited in await _awaited_by(broker, level, patience):
            for target in awaited:
                if target not in came_from:
                    came_from[target] = node
                    following.append(target)
        level = following
    way: list[str] = []
    step = id if id in came_from else None
    while step is not None:
        way.insert(0, step)
        step = came_from[step]
    return way


async def _awaited_by(broker: Broker, ids: Iterable[str], patience: float) -> list[tuple[str, list[str]]]:
    """For whom each of some jobs waits."""
    by_shard = broker.shards.apportion(ids)
    asked = [
        broker.run("waits", (), (broker.shards[shard].space, *some), patience=patience)
        for shard, some in by_shard.items()
    ]
    return [
        (id_, [one.decode() for one in awaited])
        for some, answer in zip(by_shard.values(), await asyncio.gather(*asked), strict=True)
        for id_, awaited in zip(some, answer, strict=True)
    ]
