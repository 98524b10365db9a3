"""Types of the testing kit. Nobody runs this: mypy and pyright read it."""

from __future__ import annotations

from datetime import datetime
from typing import Any, assert_type

from asyncq import AsyncQ, Worker
from asyncq.testing import EnqueuedJob, Harness, InlineHarness, SyncHarness, harness, sync_harness

app = AsyncQ()


@app.task
async def add(x: int, y: int) -> int:
    return x + y


async def with_a_server() -> None:
    async with harness(app, concurrency=1) as t:
        assert_type(t, Harness)
        assert_type(t.jobs, list[EnqueuedJob])
        assert_type(t.assert_enqueued(add, 1, 2), EnqueuedJob)
        assert_type(t.jobs[0].args, tuple[Any, ...])
        assert_type(t.jobs[0].due, datetime | None)
        assert_type(t.now, datetime)
        await t.drain(timeout=1)
        await t.advance(60)
        async with t.worker(concurrency=2) as worker:
            assert_type(worker, Worker)
            await t.kill_worker(worker)
        t.drop_connections()
        async with t.delay_server(0.1):
            pass
    async with harness(app, worker=False) as t:
        assert_type(t, Harness)


async def inline() -> None:
    async with harness(app, inline=True) as t:
        assert_type(t, InlineHarness)
        await t.drain()
        await t.advance(60)
        t.kill_worker()  # type: ignore[attr-defined]  # pyright: ignore[reportAttributeAccessIssue]


def plain() -> None:
    with sync_harness(app) as t:
        assert_type(t, SyncHarness)
        assert_type(t.drain(), None)
        with t.worker() as worker:
            assert_type(worker, Worker)
        t.assert_not_enqueued(add)
