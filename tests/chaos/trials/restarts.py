"""Workers that are stopped gracefully and replaced under load, as a deployment does it."""

from __future__ import annotations

import asyncio
import signal
import time
from typing import TYPE_CHECKING

from chaos.jobs import OLD
from chaos.stage import Stage

if TYPE_CHECKING:
    from chaos.report import Report

RATE = 500.0
WORKERS = 4


async def rolling_restart(scale: float, seed: int, lease: float = 5.0) -> Report:
    """500 jobs/s for 30 s, 4 workers, each replaced twice (SIGTERM): every job runs once."""
    async with Stage("rolling restart under load", scale=scale, seed=seed, lease=lease) as stage:
        seconds = max(12.0, 30.0 * scale)  # a worker takes a second to be replaced on a busy machine
        total = round(RATE * seconds)
        await stage.workers(WORKERS)
        started = time.monotonic()
        load = asyncio.create_task(stage.drive(total, rate=RATE, seconds=0.1))
        codes = []
        for turn in range(2 * WORKERS):
            await asyncio.sleep(started + seconds * (turn + 0.25) / (2 * WORKERS) - time.monotonic())
            codes.append(await _replace_oldest(stage))
        replaced = time.monotonic() - started
        await load
        offered = total / (time.monotonic() - started)
        await stage.all_answered()
        stage.report.above("jobs per second", offered, 0.95 * RATE)
        stage.report.equal("exit codes of the workers replaced", codes, [0] * 2 * WORKERS)
        stage.report.below("all were replaced after", replaced, seconds, " s")
        await stage.judge(extra_at_most=0)
        await stage.nothing_left()
        return stage.report


async def rolling_deployment(scale: float, seed: int, lease: float = 5.0) -> Report:
    """4 workers are replaced by a release with a new task, under load: no job fails, every job runs once.

    From the start, a fifth of 500 jobs/s is of the new task, which the old workers do not know.
    """
    async with Stage("rolling deployment with a new task", scale=scale, seed=seed, lease=lease) as stage:
        seconds = max(6.0, 30.0 * scale)
        rate = max(100.0, RATE * scale)
        count = stage.count(WORKERS, least=2)
        total = round(rate * seconds)
        stage.task_of = lambda number: stage.tasks.work if number % 5 else stage.tasks.released
        old = await asyncio.gather(*(stage.fleet.add(module=("chaos.worker", OLD)) for _ in range(count)))
        started = time.monotonic()
        load = asyncio.create_task(stage.drive(total, rate=rate, seconds=0.1))
        codes = []
        for turn in range(count):
            await asyncio.sleep(started + seconds * (turn + 0.5) / count - time.monotonic())
            codes.append(await _replace_oldest(stage))
        await load
        await stage.all_answered()
        report = stage.report
        report.equal("exit codes of the workers replaced", codes, [0] * count)
        deferring = sum("does not know the task 'released'" in worker.log() for worker in old)
        report.equal("old workers that deferred jobs of the new task", deferring, count)
        report.equal("dead letters", len(await stage.app.control.dead.list()), 0)
        await stage.judge(extra_at_most=0)
        await stage.nothing_left()
        return report


async def _replace_oldest(stage: Stage) -> int | None:
    worker = stage.fleet.workers.pop(0)
    await asyncio.to_thread(worker.end, signal.SIGTERM)
    await stage.fleet.add()
    return worker.process.returncode
