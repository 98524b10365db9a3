"""A script with tasks in processes and a worker of its own, like the first script of a user.

python first_script.py - LOG      prints the results of its tasks as JSON
python first_script.py M:A LOG    the same, with a target for the worker's child processes
python first_script.py serve LOG  runs one job that sleeps
"""

from __future__ import annotations

import asyncio
import json
import sys
import time

import asyncq
from asyncq import AsyncQ, Worker
from helpers.notes import note

app = AsyncQ()
stamp = f"imported as {__name__}"


class OutOfStock(Exception):
    """Known to this file only."""


@app.task
async def add(x: int, y: int) -> int:
    return x + y


@app.task(executor="process")
def imported_as() -> str:
    return stamp


@app.task(executor="process")
def starts_another(x: int) -> str:
    return add.delay_sync(x, 1).id


@app.task(executor="process")
def waits_for_another(x: int) -> int:
    with asyncq.allow_join_result():
        return add.call_sync(x, 1)


@app.task(executor="process")
def fib(n: int) -> int:
    if n < 2:
        return n
    with asyncq.allow_join_result():
        first, second = fib.delay_sync(n - 1), fib.delay_sync(n - 2)
        return first.get_sync() + second.get_sync()


@app.task(executor="process")
def sells() -> None:
    raise OutOfStock("tea")


@app.task(executor="process")
def replaces_itself(x: int) -> int:
    asyncq.current().replace_sync(add.s(x, 2))


@app.task(executor="process")
def starts_another_and_dies(log: str) -> None:
    import os

    note(log, add.delay_sync(1, 1).id)
    os._exit(1)


@app.task(executor="process")
def sleep(log: str) -> None:
    import os

    note(log, str(os.getpid()))
    time.sleep(60)


async def report(target: str | None, log: str) -> None:
    async with app, Worker(app, concurrency=1, target=target):
        child = await starts_another.delay(1)
        child_id = await child.get(timeout=90)
        outcome = await child.outcome()
        received = await app.AsyncResult(child_id).outcome(timeout=90)
        sold = await sells.delay()
        dead = await (await starts_another_and_dies.delay(log)).outcome(timeout=90)
        answers = {
            "imported": await imported_as.call(),
            "names its children": outcome.children == [child_id],
            "ran its child": received.value,
            "nested": await fib.options(wait=90).call(4),
            "waited": await waits_for_another.call(1),
            "its error is ours": isinstance(await sold.get(propagate=False, timeout=90), OutOfStock),
            "replaced": await replaces_itself.call(1),
            "died": type(dead.error).__name__,
            "the dead names its children": dead.children,
        }
    sys.stdout.write(json.dumps(answers) + "\n")


async def serve(log: str) -> None:
    async with app, Worker(app):
        await sleep.call(log)


if __name__ == "__main__":
    kind, log = sys.argv[1:]
    asyncio.run(serve(log) if kind == "serve" else report(None if kind == "-" else kind, log))
