"""The tasks that the sites and scripts of these tests share, and the worker that runs them.

Server and namespace come from the environment, as they would in a deployment.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator  # noqa: TC003  asyncq reads the annotations
from dataclasses import dataclass
from datetime import timedelta

import asyncq
from asyncq import AsyncQ, Worker

app = AsyncQ()


@app.task
async def add(x: int, y: int) -> int:
    return x + y


@app.task
async def slow_add(x: int, y: int, seconds: float) -> int:
    await asyncio.sleep(seconds)
    return x + y


@app.task
def process_id() -> int:
    return os.getpid()


@dataclass
class Picture:
    title: str
    exposure: timedelta


@app.task
async def draw(steps: int) -> Picture:
    job = asyncq.current()
    for step in range(1, steps + 1):
        await job.progress(step, steps, f"line {step}")
        await asyncio.sleep(0.02)
    return Picture("Dawn", timedelta(seconds=90))


seen: set[str] = set()
"""The ids of the jobs at whose progress somebody has looked."""


@app.task
async def see(id: str) -> None:
    seen.add(id)


@app.task
async def draw_until_seen() -> Picture:
    """Reports progress until somebody has looked at it, however late that is."""
    job = asyncq.current()
    lines = 0
    while job.id not in seen:
        lines += 1
        await job.progress(lines, lines + 1)
        await asyncio.sleep(0.02)
    return Picture("Dawn", timedelta(seconds=90))


@app.task
async def count(to: int, *, fails: bool = False) -> AsyncIterator[int]:
    for number in range(1, to + 1):
        yield number
    if fails:
        raise ValueError("no further")


@app.task
async def nap(seconds: float) -> str:
    await asyncio.sleep(seconds)
    return "rested"


class OutOfStock(Exception):
    """An exception that the sites do not import under this name."""


@app.task
async def fail(kind: str) -> None:
    raise {"value": ValueError, "stock": OutOfStock, "timeout": asyncq.ResultTimeout}[kind](
        "<b>no</b> such luck"
    )


async def work() -> None:
    worker = Worker(app)
    worker.stop_on_signals()
    running = asyncio.create_task(worker.run())
    await worker.started.wait()
    print("ready", flush=True)  # noqa: T201  what the tests wait for
    await running
