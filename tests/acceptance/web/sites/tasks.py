"""The tasks that the sites and scripts of these tests share, and the worker that runs them.

Server and namespace come from the environment, as they would in a deployment.
"""

from __future__ import annotations

import asyncio
import os

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


async def work() -> None:
    worker = Worker(app)
    worker.stop_on_signals()
    running = asyncio.create_task(worker.run())
    await worker.started.wait()
    print("ready", flush=True)  # noqa: T201  what the tests wait for
    await running
