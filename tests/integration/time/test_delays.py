"""Jobs for a later time: they never start early, hardly late, and are as durable as any other job."""

from __future__ import annotations

import asyncio
import statistics
import time
from datetime import UTC, datetime, timedelta

import pytest
from helpers.figures import report
from helpers.own_server import own_server
from helpers.stopwatch import Stopwatch
from helpers.waiting import until, until_state

import asyncq
from asyncq import Retry, Worker
from asyncq.broker.consumer import Consumer

pytestmark = pytest.mark.anyio

ROUNDING = 0.002
"""The tolerance: the server counts whole milliseconds, and so do times in messages."""


@pytest.fixture
def tick(app, diary):
    @app.task(name="tick")
    async def tick(number: int = 0) -> int:
        diary.note(number)
        return number

    return tick


async def test_a_delayed_job_never_starts_early_and_on_an_idle_system_at_most_100_ms_late(app, tick, diary):
    due: dict[int, tuple[float, float]] = {}
    stopwatch = Stopwatch()
    async with Worker(app):
        results = []
        for number in range(150):
            countdown = 0.05 + (number * 37 % 150) / 120
            asked = time.time()
            results.append(await tick.options(countdown=countdown).delay(number))
            due[number] = asked + countdown, time.time() + countdown
        await asyncio.gather(*(result.get(timeout=30) for result in results))
    assert sorted(diary.texts) == list(range(150))
    earliest = min(when - due[number][0] for when, number in diary.notes)
    late = sorted(when - due[number][1] for when, number in diary.notes)
    p99 = statistics.quantiles(late, n=100)[98]
    p50, most = statistics.median(late) * 1000, late[-1] * 1000
    report(f"150 delayed jobs: {earliest * 1000:+.1f} ms at the earliest (of what may be)")
    report(f"150 delayed jobs: late by {p50:.1f} ms (p50), {p99 * 1000:.1f} ms (p99), {most:.1f} ms at most")
    assert earliest >= -ROUNDING
    assert p99 - stopwatch.took.withheld <= 0.1


@pytest.mark.parametrize("way", ["seconds", "timedelta", "datetime"])
async def test_a_time_may_be_given_in_seconds_as_a_timedelta_or_as_a_datetime(app, tick, diary, way):
    due_at = time.time() + 0.3
    eta = {
        "seconds": 0.3,
        "timedelta": timedelta(seconds=0.3),
        "datetime": datetime.fromtimestamp(due_at, UTC),
    }[way]
    stopwatch = Stopwatch()
    async with Worker(app):
        result = await tick.options(eta=eta).delay(1)
        await until_state(result, "SCHEDULED")
        await result.get(timeout=30)
    late = diary.times[0] - due_at
    assert late >= -ROUNDING
    assert late - stopwatch.took.withheld < 0.25


async def test_a_job_with_a_past_eta_runs_at_once(app, tick):
    async with Worker(app):
        past = datetime.now(UTC) - timedelta(days=1)
        assert await tick.options(eta=past, wait=30).call(3) == 3
        assert await tick.options(countdown=0, wait=30).call(4) == 4


async def test_an_invalid_time_is_refused_at_the_call(tick):
    with pytest.raises(ValueError, match="time zone"):
        tick.options(eta=datetime(2030, 1, 1))  # noqa: DTZ001  the mistake under test
    with pytest.raises(ValueError, match="both say when"):
        tick.options(countdown=1, eta=2)
    for countdown in (-1, float("nan"), float("inf")):
        with pytest.raises(ValueError, match="duration"):
            tick.options(countdown=countdown)


async def test_an_earlier_job_does_not_wait_behind_a_later_one(app, tick):
    async with Worker(app):
        await tick.options(countdown=3600).delay(1)
        await asyncio.sleep(0.1)  # the worker now sleeps until then, for an hour
        stopwatch = Stopwatch()
        await tick.options(countdown=0.2, wait=30).call(2)
        assert stopwatch.took < 0.4


async def test_an_earlier_job_of_which_the_message_was_lost_runs_as_soon_as_the_subscription_is_renewed(
    app, tick, raw, monkeypatch
):
    promote, waits = Consumer.promote, []

    async def promote_noted(*args) -> float | None:
        waits.append(await promote(*args))
        return waits[-1]

    monkeypatch.setattr(Consumer, "promote", promote_noted)
    async with Worker(app):
        result = await tick.options(countdown=600).delay(2)
        await until(lambda: any(wait is not None for wait in waits), "the worker to know of the job")
        for keys in app.sessions.shards:
            await raw.zadd(keys.delayed, {result.id: 1}, xx=True)  # as if a message about this was lost
        await raw.client_kill_filter(_type="pubsub")
        assert await result.get(timeout=10) == 2  # long before the worker asks by itself


async def test_a_job_that_became_due_while_no_worker_ran_runs_when_one_starts(app, tick):
    result = await tick.options(countdown=0.05).delay(1)
    await asyncio.sleep(0.1)  # due now
    assert await result.refresh() == "SCHEDULED"
    async with Worker(app):
        assert await result.get(timeout=30) == 1


async def test_many_jobs_that_are_due_at_the_same_time_each_run_once_whichever_worker_moves_them(
    app, make_app, tick, diary
):
    async with make_app() as second:
        second.task(name="tick")(tick.function)
        async with Worker(app, name="one"), Worker(second, name="two"):
            due_at = datetime.now(UTC) + timedelta(seconds=0.4)
            results = await tick.options(eta=due_at).map([(n,) for n in range(450)])
            assert await results.get(timeout=30) == list(range(450))
    assert sorted(diary.texts) == list(range(450))


async def test_another_client_can_wait_for_a_delayed_job(app, make_app, tick):
    result = await tick.options(countdown=0.3).delay(7)
    async with make_app() as elsewhere:
        handle = elsewhere.AsyncResult(result.id)
        assert not await handle.ready()
        assert handle.state == "SCHEDULED"
        async with Worker(app):
            assert await handle.get(timeout=30) == 7


async def test_a_revoked_delayed_job_never_runs_and_leaves_nothing(app, raw, tick, diary):
    async with Worker(app):
        result = await tick.options(countdown=0.2).delay(1)
        assert await result.revoke(wait=True) == "REVOKED"
        assert await raw.zcard(app.sessions.shards[0].delayed) == 0
        assert not await raw.exists(app.sessions.shards[0].messages + result.id)
        await asyncio.sleep(0.4)  # past its time
    assert diary.notes == []


async def test_a_given_job_id_belongs_to_one_delayed_job(app, tick):
    first = await tick.options(countdown=0.2, task_id="mine").delay(1)
    with pytest.raises(ValueError, match="mine"):
        await tick.options(task_id="mine").delay(2)
    async with Worker(app):
        assert await first.get(timeout=30) == 1


async def test_delayed_jobs_and_retries_survive_a_server_that_is_killed(make_app, tmp_path, diary):
    with own_server(tmp_path) as server:
        app = make_app(server.url)

        @app.task(retry=Retry(max_retries=1, backoff=1, jitter=False))
        async def fails_once() -> int:
            diary.note("retried")
            if len(diary.notes) == 1:
                raise OSError
            return asyncq.current().attempt

        @app.task
        async def tick() -> None:
            diary.note("delayed")

        async with app:
            async with Worker(app, grace=0):
                retried = await fails_once.delay()
                await until_state(retried, "RETRY")
                asked = time.time()
                delayed = await tick.options(countdown=1).delay()
            server.kill()
            server.start()
            await until(lambda: _is_up(delayed), "the app to be connected again")
            async with Worker(app):
                assert await retried.get(timeout=30) == 2
                await delayed.get(timeout=30)
    times = {what: when for when, what in diary.notes}
    assert times["delayed"] - asked >= 1 - ROUNDING
    assert times["retried"] - diary.times[0] >= 1 - ROUNDING


async def _is_up(result):
    try:
        return await result.exists()
    except asyncq.BrokerUnavailable:
        return False
