"""Tasks, a worker and a client that run under this version of asyncq and under the one before:
`python version_jobs.py worker|client`. It uses only what both versions have, and imports no other helper.

The client prints one JSON object: for each scenario, what it saw.
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
from collections.abc import AsyncIterator  # noqa: TC003  read at run time, for the items' type
from pathlib import Path
from typing import Any

import asyncq
from asyncq import AsyncQ, Retry, Worker, chain, chord, group

app = AsyncQ()
WAIT = 40.0


@app.task(name="add")
async def add(x: int, y: int) -> int:
    return x + y


@app.task(name="total")
async def total(values: list[int]) -> int:
    return sum(values)


@app.task(name="plain")
def plain(text: str) -> str:
    """Runs in a thread, as a plain function."""
    return text.upper()


@app.task(name="fail")
async def fail(text: str) -> None:
    raise ValueError(text)


@app.task(name="flaky", retry=Retry(max_retries=3, backoff=0.05, jitter=False))
async def flaky() -> int:
    """Fails twice."""
    attempt = asyncq.current().attempt
    if attempt < 3:
        raise ConnectionError(f"attempt {attempt}")
    return attempt


@app.task(name="hold")
async def hold(mark: str, gate: str) -> int:
    """Runs until a file appears. Returns the process that it ran in."""
    Path(mark).touch()  # noqa: ASYNC240  a call of microseconds
    while not os.access(gate, os.F_OK):  # noqa: ASYNC110  the gate is another process's
        await asyncio.sleep(0.01)
    return os.getpid()


@app.task(name="numbers")
async def numbers(n: int) -> AsyncIterator[int]:
    for i in range(n):
        yield i


@app.task(name="walk")
async def walk(steps: int, gate: str) -> str:
    """Reports its progress again and again, until a file shows that the client has seen it."""
    while not os.access(gate, os.F_OK):
        await asyncq.current().progress(1, steps, "on its way")
        await asyncio.sleep(0.05)
    return "arrived"


@app.task(name="parent")
async def parent(x: int) -> int:
    """Waits for a child."""
    with asyncq.allow_join_result():
        return await add.call(x, 1)


async def _error(result: Any) -> list[str]:
    try:
        await result.get(timeout=WAIT)
    except Exception as error:
        return [type(error).__name__, str(error).partition("\n")[0]]
    return []


async def _until(exists: str) -> None:
    async with asyncio.timeout(WAIT):
        while not os.access(exists, os.F_OK):  # noqa: ASYNC110  another process makes it
            await asyncio.sleep(0.01)


async def _jobs(folder: Path) -> dict[str, Any]:
    many = await add.map([(i, i) for i in range(50)])
    stored = await plain.delay("abc")
    assert await stored.get(timeout=WAIT) == "ABC"
    key = {"key": "the same"}
    first = await add.options(**key).delay(1, 2)
    again = await add.options(**key).delay(1, 2)
    return {
        "plain": await add.options(wait=WAIT).call(2, 3),
        "many": sum(await many.get(timeout=WAIT)),
        "by id": await app.AsyncResult(stored.id).get(timeout=WAIT),
        "delayed": await (await add.options(countdown=0.2).delay(4, 5)).get(timeout=WAIT),
        "failed": await _error(await fail.delay("no luck")),
        "retried": await (await flaky.delay()).get(timeout=WAIT),
        "child": await (await parent.delay(1)).get(timeout=WAIT),
        "priority": await (await add.options(priority=5).delay(6, 7)).get(timeout=WAIT),
        "key": [first.id == again.id, await again.get(timeout=WAIT)],
    }


async def _workflows(folder: Path) -> dict[str, Any]:
    steps = await chain(add.s(1, 2), add.s(3), add.s(4)).delay()
    side = await group(add.s(i, i) for i in range(5)).delay()
    body = await chord([add.s(i, 1) for i in range(4)], total.s()).delay()
    broken = await chain(fail.s("first"), add.s(1)).delay()
    return {
        "chain": await steps.get(timeout=WAIT),
        "group": await side.get(timeout=WAIT),
        "chord": await body.get(timeout=WAIT),
        "broken chain": await _error(broken),
    }


async def _revoked(folder: Path) -> dict[str, Any]:
    running = await hold.delay(str(folder / "running"), str(folder / "never"))
    await _until(str(folder / "running"))
    later = await add.options(countdown=3600).delay(1, 2)
    await running.revoke(terminate=True)
    await later.revoke()
    return {"running": (await _error(running))[0], "later": (await _error(later))[0]}


async def _followed(folder: Path) -> dict[str, Any]:
    items = [item async for item in (await numbers.delay(30)).stream()]
    gate = folder / "seen"
    job = await walk.delay(7, str(gate))
    seen: set[str] = set()
    async for event in job.events(timeout=WAIT):
        seen.add(str(event.state))
        if event.state == "PROGRESS":
            gate.touch()
    return {
        "items": items,
        "states": sorted(seen - {"PENDING", "STARTED"}),
        "end": await job.get(timeout=WAIT),
    }


def _say(**more: Any) -> None:
    """Prints which asyncq runs here, and more."""
    sys.stdout.write(json.dumps({"asyncq": asyncq.__file__, **more}) + "\n")
    sys.stdout.flush()


async def client() -> None:
    folder = Path(os.environ["FOLDER"])
    async with app:
        seen: dict[str, Any] = {}
        for part in (_jobs, _workflows, _revoked, _followed):
            seen |= await part(folder)
    _say(seen=seen)


async def sender() -> None:
    """Enqueues one job that holds its worker, and prints what it returned."""
    folder = Path(os.environ["FOLDER"])
    async with app:
        job = await hold.delay(str(folder / "mark"), str(folder / "gate"))
        _say(seen=await job.get(timeout=WAIT))


async def worker() -> None:
    running = Worker(app, concurrency=20)
    running.stop_on_signals()

    async def tell() -> None:
        await running.started.wait()
        _say()

    telling = asyncio.create_task(tell())
    await running.run()
    await telling


if __name__ == "__main__":
    asyncio.run({"worker": worker, "client": client, "sender": sender}[sys.argv[1]]())
