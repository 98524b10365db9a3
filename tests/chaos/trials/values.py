"""Large values that every member of a large group needs, while workers die: each value is stored once."""

from __future__ import annotations

import asyncio
import itertools
import time
from typing import TYPE_CHECKING

from asyncq import chain, group
from chaos.stage import Stage, beside
from chaos.trials.workflows import Work, judge, kill_random_workers, parents_of, send

if TYPE_CHECKING:
    from chaos.report import Report

WORKERS = 4
VALUE = 1_000_000
MEMORY = 256 * 1024 * 1024
"""The server's `maxmemory`. Copies of the value in the entries of all members of one group would be larger.
"""


async def large_values(scale: float, seed: int, lease: float = 5.0) -> Report:
    """5 values of a megabyte, each before a group of 2,000; 4 workers, 10 kill -9; a server of 256 MB."""
    async with Stage("large-values", scale=scale, seed=seed, lease=lease, max_crashes=1000) as stage:
        stage.server.do("CONFIG", "SET", "maxmemory", MEMORY)
        numbers, kills = itertools.count(), stage.count(10, least=3)
        works = [_work(stage, numbers, stage.count(2000, least=300)) for _ in range(stage.count(5, least=2))]
        peak: list[int] = [0]
        await stage.workers(WORKERS)
        started = time.monotonic()
        async with beside(_measure_memory(stage, peak)):
            waits, _ = await asyncio.gather(
                send(stage, works, seconds=1.0), kill_random_workers(stage, kills)
            )
            await asyncio.gather(*waits)
        stage.report.fact("all ended after, s", round(time.monotonic() - started, 1))
        stage.report.below("largest memory of the server, MB", peak[0] / 1e6, MEMORY / 1e6)
        await judge(stage, parents_of(works))
        return stage.report


def _work(stage: Stage, numbers: itertools.count[int], width: int) -> Work:
    top, *members, last = (next(numbers) for _ in range(width + 2))
    member = stage.tasks.member
    workflow = chain(
        stage.tasks.bulky.s(top, VALUE).set(task_id=f"job-{top}"),
        group(
            member.s(number, stage.random.uniform(0, 0.1)).set(task_id=f"job-{number}") for number in members
        ),
        member.s(last).set(task_id=f"job-{last}"),
    )
    return Work(workflow, last, {top: [], **{number: [top] for number in members}, last: members})


async def _measure_memory(stage: Stage, peak: list[int]) -> None:
    """Measures the largest amount of memory that the server takes, until it is cancelled."""
    while True:
        peak[0] = max(peak[0], await asyncio.to_thread(stage.server.used_memory))
        await asyncio.sleep(0.1)
