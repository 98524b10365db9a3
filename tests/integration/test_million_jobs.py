"""A queue of a million jobs: every call of control returns soon, and holds up nobody meanwhile."""

from __future__ import annotations

import asyncio
import sys
import time
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from helpers.figures import report

pytestmark = pytest.mark.anyio

AT_ONCE = 50_000


@asynccontextmanager
async def others_are_answered(url: str, what: str, limit: float):
    """Checks that other clients of the server get their answers while the block runs."""
    other = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "helpers.other_client", url),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        cwd=Path(__file__).parents[1],
    )
    assert other.stdin is not None
    assert other.stdout is not None
    assert await other.stdout.readline() == b"ready\n"
    began = time.monotonic()
    yield
    took = time.monotonic() - began
    other.stdin.close()
    slowest = float(await other.stdout.readline())
    assert await other.wait() == 0
    report(f"{what}: {1000 * took:.0f} ms; another client waited {1000 * slowest:.1f} ms at most")
    assert slowest < limit, what


@pytest.mark.one_server("another client asks one server all the time")
@pytest.mark.parametrize("count", [10_000, pytest.param(1_000_000, marks=pytest.mark.trial)])
async def test_no_call_takes_long_or_holds_up_the_server_however_many_jobs_wait(make_app, server_url, count):
    limit = 0.5  # a busy machine makes everybody wait; a call over all jobs would take seconds
    async with make_app() as app:

        @app.task(name="idle")
        async def idle() -> None: ...

        first = await idle.delay()
        for begin in range(1, count, AT_ONCE):
            await idle.map([()] * min(AT_ONCE, count - begin))
        control = app.control
        async with others_are_answered(server_url, "queues", limit):
            (queue,) = await control.queues()
        assert queue.waiting == count
        async with others_are_answered(server_url, "stats", limit):
            await control.stats()
        async with others_are_answered(server_url, "jobs", limit):
            page = await control.jobs(limit=50)
        assert (len(page), page.looked_at) == (50, 50)
        async with others_are_answered(server_url, "jobs of a task that has none", limit):
            page = await control.jobs(task="nobody", state="PENDING")
        assert (len(page), page.looked_at <= 12_000) == (0, True)
        assert page.cursor is not None or count <= 10_000
        async with others_are_answered(server_url, "active", limit):
            assert await control.active() == []
        async with others_are_answered(server_url, "why", limit):
            assert (await control.why(first.id)).reasons[0].kind == "no worker"
        async with others_are_answered(server_url, "pause and resume", limit):
            await control.pause("default")
            await control.resume("default")
        async with others_are_answered(server_url, "purge", limit):
            assert await control.purge("default") == count
        assert (await control.queues())[0].waiting == 0
        page = await control.jobs(state="REVOKED", limit=1)
        assert [(job.task, job.error) for job in page] == [("idle", "its queue was purged")]
