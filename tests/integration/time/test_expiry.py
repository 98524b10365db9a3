"""Jobs that expire: waiters are notified when the time passes, and no job starts after it."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta

import pytest
from helpers.figures import report
from helpers.own_server import own_server
from helpers.stopwatch import Stopwatch, Took
from helpers.waiting import until

from asyncq import TaskExpired, Worker

pytestmark = pytest.mark.anyio

AT_ONCE = 0.25
"""How late a waiter may be notified: a quarter of a second, as for a timeout."""


@pytest.fixture
def tick(app, diary):
    @app.task(name="tick")
    async def tick(seconds: float = 0) -> str:
        diary.note("start")
        await asyncio.sleep(seconds)
        return "ran"

    return tick


async def _expired_after(result, stopwatch: Stopwatch) -> Took:
    with pytest.raises(TaskExpired):
        await result.get(timeout=30)
    return stopwatch.took


@pytest.mark.parametrize("delayed", [False, True])
async def test_a_waiter_of_a_queued_job_learns_of_its_expiry_though_no_worker_runs(app, raw, tick, delayed):
    later = {"countdown": 30} if delayed else {}
    stopwatch = Stopwatch()
    result = await tick.options(expires=0.3, **later).delay()
    took = await _expired_after(result, stopwatch)
    report(f"expired after {took:.3f} s of 0.3 s")
    assert 0.3 <= took <= 0.3 + AT_ONCE
    assert result.state == "REVOKED"
    assert await raw.xlen(app.sessions.shards[0].stream("default")) == 0
    assert await raw.zcard(app.sessions.shards[0].delayed) == 0


@pytest.mark.parametrize("delayed", [False, True])
async def test_a_waiter_in_another_client_learns_of_the_expiry(app, make_app, tick, delayed):
    later = {"countdown": 30} if delayed else {}
    stopwatch = Stopwatch()
    result = await tick.options(expires=0.4, **later).delay()
    async with make_app() as elsewhere:
        assert 0.4 <= await _expired_after(elsewhere.AsyncResult(result.id), stopwatch) <= 0.4 + AT_ONCE


async def test_every_waiter_and_callback_of_a_job_learns_of_its_expiry(app, tick):
    notified: list[str] = []
    stopwatch = Stopwatch()
    result = await tick.options(expires=0.3).delay()
    result.then(lambda handle: notified.append(handle.state))
    waits = [_expired_after(app.AsyncResult(result.id), stopwatch) for _ in range(3)]
    assert max(await asyncio.gather(*waits)) <= 0.3 + AT_ONCE
    await until(lambda: notified == ["REVOKED"], "the callback")


async def test_an_expired_job_is_not_started_though_nobody_waited_for_it(app, tick, diary):
    result = await tick.options(expires=0.05).delay()
    await asyncio.sleep(0.1)
    assert await result.refresh() == "PENDING"
    async with Worker(app):
        outcome = await result.outcome(timeout=30)
    assert isinstance(outcome.error, TaskExpired)
    assert diary.notes == []


async def test_a_running_job_is_not_ended_by_its_expiry(app, tick):
    async with Worker(app):
        assert await tick.options(expires=1, wait=30).call(1.5) == "ran"


async def test_a_job_with_a_past_expiry_expires_at_once(app, tick, diary):
    result = await tick.options(expires=datetime.now(UTC) - timedelta(seconds=5)).delay()
    assert await _expired_after(result, Stopwatch()) < AT_ONCE
    async with Worker(app):
        assert await tick.call() == "ran"
    assert len(diary.notes) == 1


async def test_a_waiter_learns_of_an_expiry_after_the_server_has_stopped_hanging(make_app, tmp_path):
    with own_server(tmp_path) as server:
        async with make_app(server.url, operation_timeout=1) as app:

            @app.task
            async def tick() -> None:
                pytest.fail("no worker is there to run it")

            result = await tick.options(countdown=60, expires=0.3).delay()
            waiting = asyncio.create_task(_expired_after(result, Stopwatch()))
            with server.hanging():
                await asyncio.sleep(2)  # longer than the expiry and the operation timeout together
            back = Stopwatch()
            await waiting
            report(f"notified of an expiry {back.took:.2f} s after the server was back")
            assert back.took < 8, "the bound for a push that was lost"
