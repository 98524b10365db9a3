"""Workflows whose members lie in several shards, while workers, clients and connections die.

No workflow may be accepted in part, no job may start too early or with a wrong value, and none may wait for
ever.
"""

from __future__ import annotations

import asyncio
import time
from random import Random
from typing import TYPE_CHECKING

from chaos import oracle
from chaos.fleet import WorkerProcess
from chaos.stage import Stage, beside, outcome_of
from chaos.trials.workflows import WORKERS, Draft, judge, kill_random_workers, mixed, parents_of, send

if TYPE_CHECKING:
    from chaos.report import Report

COUNT = 3
"""The number of shards. The jobs have ids of their own and so lie in any shard, and most edges of a workflow
cross shards.
"""
BY_A_CLIENT = 200
"""How many diamonds a client would send if it did not die."""
DEATHS = (
    "forwarder.delivered=kill",
    "forwarder.deliver=kill",
    "",
    "forwarder.delivered=kill@7",
    "forwarder.deliver=kill@7",
    "",
)
"""The failpoints of clients: they die after the forwarder delivers and before it deletes, or before it
delivers. An empty text means a kill at any time.
"""


async def shards(scale: float, seed: int, lease: float = 5.0) -> Report:
    """2,000 diamonds, chains of 100, fan-ins of 1,000 across 3 shards; kill -9 of workers and of clients."""
    async with Stage("shards", scale=scale, seed=seed, lease=lease, max_crashes=1000, shards=COUNT) as stage:
        draft, kills = Draft(stage.tasks, stage.random), stage.count(20, least=3)
        works = mixed(stage, draft, replaced=500)
        await stage.workers(WORKERS)
        started = time.monotonic()

        async with beside(_cut_connections(stage)), beside(_stop_workers(stage)):
            waits, _, firsts = await asyncio.gather(
                send(stage, works, seconds=kills * 0.8),
                kill_random_workers(stage, kills),
                _clients_that_die(stage, kills),
            )
        await asyncio.gather(*waits)
        parents = parents_of(works) | await _left_by_clients(stage, firsts)
        stage.report.fact("all ended after, s", round(time.monotonic() - started, 1))
        stage.report.fact(
            "workflows / kills of workers / of clients", f"{len(works)} / {kills} / {len(firsts)}"
        )
        await judge(stage, parents)
        return stage.report


async def _cut_connections(stage: Stage) -> None:
    """Closes random connections of workers and clients by CLIENT KILL, for ever."""
    while True:
        await asyncio.sleep(stage.random.uniform(0.1, 0.5))
        if numbers := await asyncio.to_thread(stage.server.connections):
            await asyncio.to_thread(stage.server.cut, stage.random.choice(numbers))


async def _stop_workers(stage: Stage) -> None:
    """Stops random workers past their lease, for ever. Such a worker may have read an outbox and not
    delivered its entries yet.
    """
    while True:
        running = [worker for worker in stage.fleet.workers if worker.alive]
        await stage.fleet.stop_for(stage.random.choice(running), stage.lease * 1.7)
        await asyncio.sleep(stage.random.uniform(0.0, stage.lease))


async def _clients_that_die(stage: Stage, count: int) -> list[int]:
    """Runs clients one after the other. Each sends diamonds until it dies. Returns the number of the first
    job of each client.
    """
    firsts = []
    for number in range(count):
        first = (number + 1) * 1_000_000
        module = ("chaos.submitter", str(first), str(BY_A_CLIENT), str(stage.seed))
        death = DEATHS[number % len(DEATHS)]
        client = WorkerProcess(stage.url, stage.folder, stage.fleet.settings, death, module)
        await asyncio.to_thread(client.wait_until_ready)
        if not death:
            await asyncio.sleep(stage.random.uniform(0.0, 0.3))
            client.process.kill()
        await asyncio.to_thread(client.process.wait, 20)
        client.end()
        firsts.append(first)
    return firsts


async def _left_by_clients(stage: Stage, firsts: list[int]) -> dict[int, list[int]]:
    """Returns the jobs that dead clients have left, each with its parents. Reports workflows that exist only
    in part: each must exist as a whole, or not at all.
    """
    noted = oracle.Journals.read(stage.folder).accepted
    left: dict[int, list[int]] = {}
    lasts, partial = [], []
    for first in firsts:
        draft = Draft(stage.tasks, Random(stage.seed), first)
        for work in (draft.diamond() for _ in range(BY_A_CLIENT)):
            present = await asyncio.gather(*(_exists(stage, number) for number in work.parents))
            if any(present) != all(present):
                partial.append(work.last)
            if any(present) or f"job-{work.last}" in noted:
                left.update(work.parents)
                lasts.append(work.last)
            if not any(present):
                break  # the client sent one after the other, so no later one exists
    for number in left:
        stage.journal.note(oracle.ACCEPTED, f"job-{number}", number)
    stage.report.fact("jobs of clients that died", len(left))
    stage.report.equal("workflows of dead clients that exist only in part", partial, [])
    await asyncio.gather(*(outcome_of(stage.app.AsyncResult(f"job-{last}"), 60.0) for last in lasts))
    return left


async def _exists(stage: Stage, number: int) -> bool:
    return await stage.app.AsyncResult(f"job-{number}").exists()
