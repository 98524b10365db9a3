"""The master of a trio of Sentinels changes under load: by order, by SIGKILL, and by SIGSTOP."""

from __future__ import annotations

import asyncio
import signal
import time
from typing import TYPE_CHECKING

from helpers.stopwatch import Stopwatch
from helpers.waiting import until

from chaos import oracle
from chaos.stage import Stage

if TYPE_CHECKING:
    from collections.abc import Callable

    from helpers.sentinel_trio import Node, SentinelTrio

    from chaos.report import Report

RATE = 200.0
WORKERS = 2
BACK_WITHIN = 1.0
"""Seconds after the Sentinels name a new master, within which calls must be answered again."""
ANSWERED_WITHIN = 12.0
"""Seconds after that, within which everybody who waited then must have an answer."""
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
        load = asyncio.create_task(_load(stage, stop))
        for _ in range(rounds):
            for way in WAYS:
                await asyncio.sleep(2.0)
                await _one(stage, way, next(numbers))
        stop.set()
        await load
        await stage.all_answered()
        await _judge(stage)
        return stage.report


async def _load(stage: Stage, stop: asyncio.Event) -> None:
    """Starts calls at the rate, until `stop`."""
    started, done = time.monotonic(), 0
    while not stop.is_set():
        due = int((time.monotonic() - started) * RATE) + 1
        for number in range(done, due):
            stage.begin(number, stage.random.uniform(0, 0.1))
        done = due
        await asyncio.sleep(0.01)
    stage.report.fact("jobs offered", done)


async def _one(stage: Stage, way: str, number: int) -> None:
    """Lets the master change once, and measures when the service is back and when all waits have ended."""
    trio = stage.trio
    go, come_back = WAYS[way]
    new = await asyncio.to_thread(go, trio)
    old = trio.other(new)
    await asyncio.to_thread(trio.wait_until_named, new)
    since_named = Stopwatch()
    waiting = stage.waiting()
    await stage.call(number, timeout=30)
    stage.report.below(f"{way}: next call ended after", since_named.took, BACK_WITHIN, " s")
    _, late = await asyncio.wait(waiting, timeout=ANSWERED_WITHIN + 5.0)
    stage.report.below(
        f"{way}: all {len(waiting)} waits ended after", since_named.took, ANSWERED_WITHIN, " s"
    )
    stage.report.equal(f"{way}: waits that did not end", len(late), 0)
    await asyncio.to_thread(come_back, old)
    await until(lambda: old.role() == "slave", "the old master to be a replica", timeout=60, every=0.05)
    await until(lambda: new.do("WAIT", 1, 10) == 1, "the replica to have all", timeout=60, every=0.05)


async def _judge(stage: Stage) -> None:
    journals = oracle.Journals.read(stage.folder)
    stored = await stage.stored(list(journals.accepted))
    report = stage.report
    kinds = journals.answer_kinds()
    lost = set(journals.accepted) - set(stored)
    report.fact("jobs accepted", len(journals.accepted))
    report.fact("waiters that got ResultNotFound", kinds.get("other:ResultNotFound", 0))
    report.fact("jobs of which the last master has no outcome", len(lost))
    report.fact("extra runs", journals.extra_runs())
    report.fact("outcomes that were lost after their waiter had them", len(journals.contradicted(stored)))
    report.equal("other answers", sorted(set(kinds) - {"ok", "other:ResultNotFound"}), [])
    report.equal("wrong values", len(journals.wrong()), 0)
    report.equal("enqueues that made two jobs", len(journals.duplicated_jobs()), 0)
    report.equal("waits that did not end", len(journals.accepted) - len(journals.answers), 0)
    report.equal("waits that ended later than timeout + 1 s", len(journals.late(1.0)), 0)
    report.equal("workers that ended by themselves", stage.fleet.unexpected_exits, [])
