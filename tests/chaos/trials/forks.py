"""Bodies of jobs that fork, as `multiprocessing` does."""

from __future__ import annotations

import asyncio
import signal
from typing import TYPE_CHECKING

from helpers.fork_bodies import EXECUTORS, EXPECTED

from asyncq import AsyncQError
from chaos.fleet import WorkerProcess
from chaos.stage import Stage

if TYPE_CHECKING:
    from chaos.report import Report

METHODS = ("fork", "spawn", "forkserver")


async def forked_children(scale: float, seed: int, lease: float = 5.0) -> Report:
    """Pools and terminated processes in each executor, started in each way, 50 times: all on one worker."""
    async with Stage("forked children", scale=scale, seed=seed, lease=lease) as stage:
        times = stage.count(50)
        words = ("asyncq", "worker", "helpers.fork_bodies:app", "--quiet")
        worker = WorkerProcess(stage.url, stage.folder, stage.fleet.settings, module=words)
        stage.fleet.workers.append(worker)
        for executor in EXECUTORS:
            for method in METHODS:
                right = 0
                for _ in range(times):
                    right += await _is_right(stage, f"pooled.{executor}", method)
                stage.report.equal(f"right results in a {executor}, {method}", right, times)
        stage.report.equal("the worker is alive", worker.alive, expected=True)
        stage.fleet.workers.remove(worker)
        await asyncio.to_thread(worker.end, signal.SIGTERM)
        stage.report.equal("its exit code after SIGTERM", worker.process.returncode, 0)
        return stage.report


async def _is_right(stage: Stage, task: str, method: str) -> bool:
    result = await stage.app.send(task, (method,))
    try:
        return bool(await result.get(timeout=120) == EXPECTED)
    except AsyncQError:
        return False
