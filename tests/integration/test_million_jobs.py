"""A queue of a million jobs: every call of control returns soon, and holds up nobody meanwhile."""

from __future__ import annotations

import asyncio
import time
from contextlib import asynccontextmanager

import pytest
from helpers.figures import report

pytestmark = pytest.mark.anyio

AT_ONCE = 50_000


@asynccontextmanager
async def others_are_answered(raw, what: str, limit: float):
    """Checks that other clients of the server get their answers while the block runs."""
    slowest, done = 0.0, False

    async def ask() -> None:
        nonlocal slowest
        while not done:
            began = time.monotonic()
            await raw.ping()
            slowest = max(slowest, time.monotonic() - began)

    asking = asyncio.create_task(ask())
    began = time.monotonic()
    yield
    took = time.monotonic() - began
    done = True
    await asking
    report(f"{what}: {1000 * took:.0f} ms; another client waited {1000 * slowest:.1f} ms at most")
    assert slowest < limit, what


@pytest.mark.parametrize("count", [10_000, pytest.param(1_000_000, marks=pytest.mark.trial)])
async def test_no_call_takes_long_or_holds_up_the_server_however_many_jobs_wait(make_app, raw, count):
    limit = 0.5  # a busy machine makes everybody wait; a call over all jobs would take seconds
    async with make_app() as app:

        @app.task(name="idle", ignore_result=True)
        async def idle() -> None: ...

        first = await idle.delay()
        for begin in range(1, count, AT_ONCE):
            await idle.map([()] * min(AT_ONCE, count - begin))
        control = app.control
        async with others_are_answered(raw, "queues", limit):
            (queue,) = await control.queues()
        assert queue.waiting == count
        async with others_are_answered(raw, "stats", limit):
            await control.stats()
        async with others_are_answered(raw, "jobs", limit):
            page = await control.jobs(limit=50)
        assert (len(page), page.looked_at) == (50, 50)
        async with others_are_answered(raw, "jobs of a task that has none", limit):
            page = await control.jobs(task="nobody", state="PENDING")
        assert (len(page), page.looked_at <= 12_000) == (0, True)
        assert page.cursor is not None or count <= 10_000
        async with others_are_answered(raw, "active", limit):
            assert await control.active() == []
        async with others_are_answered(raw, "why", limit):
            assert (await control.why(first.id)).reasons[0].kind == "no worker"
        async with others_are_answered(raw, "pause and resume", limit):
            await control.pause("default")
            await control.resume("default")
        async with others_are_answered(raw, "purge", limit):
            assert await control.purge("default") == count
        assert (await control.queues())[0].waiting == 0
