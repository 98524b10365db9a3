"""The master of a trio of Sentinels changes under load: by order, by SIGKILL, and by SIGSTOP."""

from __future__ import annotations

import asyncio
import signal
from typing import TYPE_CHECKING

from helpers.waiting import until

from chaos.stage import Stage
from chaos.under_load import calls_at_a_rate, judge_losses, service_is_back

if TYPE_CHECKING:
    from collections.abc import Callable

    from helpers.sentinel_trio import SentinelTrio
    from helpers.server_node import Node

    from chaos.report import Report

RATE = 200.0
WORKERS = 2
PROBES = 1_000_000
"""The number of the first call that measures when the service is back."""


def _order(trio: SentinelTrio) -> Node:
    return trio.order_failover()


def _kill(trio: SentinelTrio) -> Node:
    old = trio.named()
    old.kill()
    return trio.other(old)


def _stop(trio: SentinelTrio) -> Node:
    old = trio.named()
    old.send(signal.SIGSTOP)
    return trio.other(old)


def _nothing(_: Node) -> None: ...


WAYS: dict[str, tuple[Callable[[SentinelTrio], Node], Callable[[Node], object]]] = {
    "SENTINEL FAILOVER": (_order, _nothing),
    "kill -9": (_kill, lambda old: old.start()),
    "SIGSTOP": (_stop, lambda old: old.send(signal.SIGCONT)),
}
"""How the master goes, and how it comes back when another one is there."""


async def failovers(scale: float, seed: int, lease: float = 5.0) -> Report:
    """200 jobs/s, 2 workers: the master changes by order, by kill -9, by SIGSTOP; nobody waits for ever."""
    async with Stage("failover of a master", scale=scale, seed=seed, lease=lease, watched=True) as stage:
        await stage.workers(WORKERS)
        rounds = stage.count(3)
        numbers = iter(range(PROBES, 2 * PROBES))
        stop = asyncio.Event()
        load = asyncio.create_task(calls_at_a_rate(stage, stop, RATE))
        try:
            for _ in range(rounds):
                for way in WAYS:
                    await asyncio.sleep(2.0)
                    await _one(stage, way, next(numbers))
        finally:
            stop.set()
            await load
        await stage.all_answered()
        await judge_losses(stage, {})
        return stage.report


async def _one(stage: Stage, way: str, number: int) -> None:
    """Lets the master change once, and measures when the service is back and when all waits have ended."""
    trio = stage.trio
    go, come_back = WAYS[way]
    new = await asyncio.to_thread(go, trio)
    old = trio.other(new)
    await asyncio.to_thread(trio.wait_until_named, new)
    await service_is_back(stage, way, [number])
    await asyncio.to_thread(come_back, old)
    await until(lambda: old.role() == "slave", "the old master to be a replica", timeout=60, every=0.05)
    await until(lambda: new.do("WAIT", 1, 10) == 1, "the replica to have all", timeout=60, every=0.05)
