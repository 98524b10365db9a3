"""Tasks for tests, and a worker process for them: `python -m helpers.worker_jobs [QUEUE...]`."""

from __future__ import annotations

import asyncio
import os
import sys
import time
from collections.abc import AsyncIterator  # noqa: TC003  read at run time, for the items' type
from types import SimpleNamespace

import asyncq
from asyncq import AsyncQ, Worker
from helpers.notes import note


async def add(x: int, y: int) -> int:
    return x + y


async def logged(log: str, text: str, seconds: float = 0.0) -> str:
    """Writes its start and its end into a log."""
    note(log, f"start {text}")
    await asyncio.sleep(seconds)
    note(log, f"end {text}")
    return text


async def wait_for_file(log: str, text: str, gate: str) -> str:
    """Runs until a file appears."""
    note(log, f"start {text} {asyncq.current().attempt}")
    while not os.access(gate, os.F_OK):  # noqa: ASYNC110  the gate is another process's
        await asyncio.sleep(0.01)
    note(log, f"end {text}")
    return f"{text} by {os.getpid()}"


async def waits_at_first(log: str, text: str, id_: str, gate: str) -> str:
    """Waits for another job in its first attempt, and for a file in later ones."""
    note(log, f"start {text} {asyncq.current().attempt}")
    if asyncq.current().attempt == 1:
        with asyncq.allow_join_result():
            value: str = await asyncq.AsyncResult[str](id_).get()
            return value
    while not os.access(gate, os.F_OK):  # noqa: ASYNC110  the gate is another process's
        await asyncio.sleep(0.01)
    return text


async def poison(log: str) -> None:
    note(log, f"poison {asyncq.current().attempt} {asyncq.current().queue}")
    os._exit(9)


def blocked(log: str, text: str, seconds: float) -> str:
    """Blocks its thread: it is a plain function."""
    note(log, f"start {text}")
    time.sleep(seconds)
    note(log, f"end {text}")
    return text


async def numbers(log: str, n: int, pause: float) -> AsyncIterator[int]:
    """Yields numbers, and writes into a log which process runs it."""
    note(log, f"start {os.getpid()}")
    for i in range(1, n + 1):
        await asyncio.sleep(pause)
        yield i


def register(app: AsyncQ) -> SimpleNamespace:
    """Registers the tasks above with an app, under names that test and worker share."""
    functions = (add, logged, wait_for_file, waits_at_first, poison, blocked, numbers)
    tasks = SimpleNamespace(**{f.__name__: app.task(name=f.__name__)(f) for f in functions})
    tasks.alone = app.task(name="alone", concurrency=1)(wait_for_file)
    return tasks


async def main(queues: list[str]) -> None:
    app = AsyncQ()
    register(app)
    worker = Worker(app, queues=queues or None)
    worker.stop_on_signals()
    running = asyncio.create_task(worker.run())
    await worker.started.wait()
    sys.stdout.write("ready\n")
    sys.stdout.flush()
    await running


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1:]))
