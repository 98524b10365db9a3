"""`advance` moves the virtual clock, and returns when what fell due has ended."""

from __future__ import annotations

import asyncio
import itertools
import time
from datetime import datetime, timedelta
from zoneinfo import ZoneInfo

import pytest
from helpers.waiting import until_state

from asyncq import AsyncQ, Retry, RetryLater, TaskExpired, WorkerLost
from asyncq.system import clock
from asyncq.testing import harness

pytestmark = pytest.mark.anyio
PARIS = ZoneInfo("Europe/Paris")


async def test_a_countdown_ends_at_its_second_and_not_before(app, add):
    async with harness(app) as t:
        result = await add.options(countdown=3600).delay(1, 2)
        await t.advance(3599)
        assert result.state == "SCHEDULED"
        await t.advance(1)
        assert (result.state, result.result) == ("SUCCESS", 3)


async def test_an_eta_counts_by_the_clock_of_the_test(app, add):
    async with harness(app) as t:
        await t.advance(timedelta(days=30))
        result = await add.options(eta=t.now + timedelta(hours=1)).delay(1)
        await t.advance(3590)
        assert result.state == "SCHEDULED"
        await t.advance(20)
        assert result.state == "SUCCESS"


async def test_retries_follow_each_other_at_their_times(app):
    tries = []

    @app.task(retry=Retry(max_retries=3, backoff=10, jitter=False))
    async def fail() -> None:
        tries.append(clock.now())
        raise ValueError

    async with harness(app) as t:
        began = time.monotonic()
        result = await fail.delay()
        await t.advance(29)
        assert len(tries) == 2
        assert result.state == "RETRY"
        await t.advance(1)
        assert len(tries) == 3
        await t.advance(3600)
        assert result.state == "FAILURE"
        pauses = [round(after - before) for before, after in itertools.pairwise(tries)]
        assert pauses == [10, 20, 40]
        assert time.monotonic() - began < 20, "an hour of the test takes no hour"


async def test_jobs_that_start_others_later_run_within_one_advance(app):
    times = []

    @app.task
    async def every_minute(left: int) -> None:
        times.append(clock.now())
        if left:
            await every_minute.options(countdown=60).delay(left - 1)

    async with harness(app) as t:
        await every_minute.delay(3)
        await t.advance(120)
        assert len(times) == 3
        await t.advance(60)
        assert [round(after - before) for before, after in itertools.pairwise(times)] == [60] * 3


async def test_a_job_may_ask_for_another_time(app):
    @app.task
    async def later() -> str:
        if clock.now() < until:
            raise RetryLater(countdown=600)
        return "done"

    async with harness(app) as t:
        until = clock.now() + 1500
        result = await later.delay()
        await t.advance(1799)
        assert result.state == "RETRY"
        await t.advance(1)
        assert result.result == "done"


@pytest.mark.parametrize("has_worker", [True, False])
async def test_a_job_that_expires_never_starts(app, add, hold, has_worker):
    async with harness(app, worker=has_worker, concurrency=1) as t:
        running = await hold.delay()
        if has_worker:
            await until_state(running, "STARTED")
        result = await add.options(expires=60).delay(1)
        waiting = asyncio.create_task(result.get())
        await t.advance(61)
        assert result.state == "REVOKED"
        with pytest.raises(TaskExpired):
            await waiting
        await running.revoke(terminate=True, wait=True)


async def test_a_schedule_ticks_by_the_clock_of_the_test(app, add):
    async with harness(app) as t:
        await app.schedules.add("half-hourly", add.s(1, 2), every=1800)
        await t.advance(1799)
        t.assert_not_enqueued(add)
        await t.advance(1)
        assert t.assert_enqueued(add, 1, 2).result.result == 3
        await t.advance(3600)
        jobs = [job for job in t.jobs if job.task == add.name]
        assert len(jobs) == 3
        assert (jobs[-1].headers["schedule"], jobs[-1].made_at) == ("half-hourly", None)
        assert all(job.result.state == "SUCCESS" for job in jobs)
        ticks = [datetime.fromisoformat(job.headers["scheduled_for"]) for job in jobs]
        assert [after - before for before, after in itertools.pairwise(ticks)] == [timedelta(minutes=30)] * 2
        await app.schedules.pause("half-hourly")
        await t.advance(3600)
        assert len(t.jobs) == 3


async def test_schedules_in_code_tick_from_the_first_advance_on(app):
    @app.task(cron="0 3 * * *", tz="Europe/Paris")
    async def tidy() -> None: ...

    @app.task(every=60, jitter=10)
    async def sweep() -> None: ...

    async with harness(app) as t:
        await t.advance(180)
        assert len([job for job in t.jobs if job.task == sweep.name]) in {2, 3}  # the last one's jitter
        await app.schedules.pause(sweep.name)
        await t.advance(timedelta(days=2))
        jobs = [job for job in t.jobs if job.task == tidy.name]
        assert len(jobs) in {2, 3}  # the first may have come before the two days
        hours = {datetime.fromisoformat(job.headers["scheduled_for"]).astimezone(PARIS).hour for job in jobs}
        assert hours == {3}


async def test_without_a_worker_schedules_do_not_tick_and_advance_returns(app, add):
    async with harness(app, worker=False) as t:
        await app.schedules.add("pulse", add.s(1), every=60)
        await t.advance(600)
        assert t.jobs == []
        with pytest.raises(TimeoutError, match=r"(?s)no worker runs.*schedule pulse, which is due"):
            await t.drain(timeout=0)
        async with t.worker():
            await t.drain()
        assert len(t.jobs) == 1, "the latest of the missed ticks runs"


async def test_a_rate_limit_goes_by_the_clock_of_the_test(app):
    started = []

    @app.task(rate_limit="1/m")
    async def limited(number: int) -> None:
        started.append(number)

    async with harness(app) as t:
        for number in range(3):
            await limited.delay(number)
        await t.advance(1)
        assert len(started) == 1
        await t.advance(60)
        assert len(started) == 2
        await t.advance(60)
        assert len(started) == 3


async def test_results_are_kept_for_as_long_as_they_would_be(app, add):
    async with harness(app, result_ttl=600) as t:
        result = await add.delay(1)
        await t.drain()
        id_ = result.id
        await t.advance(590)
        assert await app.AsyncResult(id_).exists()
        await t.advance(20)
        assert not await app.AsyncResult(id_).exists()
        assert result.result == 2, "what this process knows, it keeps"


async def test_dead_letters_go_by_the_clock_of_the_test(app):
    @app.task(retry=Retry(max_retries=1, backoff=1))
    async def fail(number: int) -> None:
        raise ValueError(number)

    async with harness(app, dead_ttl=86400) as t:
        await fail.delay(1)
        await t.advance(3600)
        [old] = await app.control.dead.list()
        await t.advance(20 * 3600)
        await fail.delay(2)
        await t.advance(2 * 3600)
        assert len(await app.control.dead.list()) == 2
        await t.advance(2 * 3600)
        [new] = await app.control.dead.list()
        assert new.id != old.id


async def test_workers_and_permits_outlive_any_advance(app):
    release = asyncio.Event()

    @app.task(concurrency=1)
    async def alone() -> int:
        await release.wait()
        return 1

    async with harness(app) as t:
        first, second = await alone.delay(), await alone.delay()
        await t.advance(timedelta(days=30), timeout=30)
        assert await first.refresh() == "STARTED"
        assert not await second.ready()
        release.set()
        await t.drain()
        assert [first.result, second.result] == [1, 1]


async def test_a_job_that_ran_before_is_waited_for_but_not_for_ever(app, add, hold):
    async with harness(app) as t:
        running = await hold.delay()
        later = await add.options(countdown=60).delay(1)
        await t.advance(60)
        assert later.state == "SUCCESS"
        assert await running.refresh() == "STARTED"
        await running.revoke(terminate=True, wait=True)


async def test_advance_names_what_fell_due_and_has_not_ended(app, hold):
    async with harness(app) as t:
        result = await hold.options(countdown=60).delay()
        with pytest.raises(TimeoutError, match=rf"advance\(\): .*\n.*{result.id}.*, which runs"):
            await t.advance(60, timeout=0.2)
        await result.revoke(terminate=True, wait=True)


async def test_without_a_worker_the_clock_goes_ahead_and_jobs_stay_where_they_are(app, add):
    async with harness(app, worker=False) as t:
        began = time.monotonic()
        results = [await add.options(countdown=countdown).delay(1) for countdown in (1, 10, 100)]
        await t.advance(3600)
        assert time.monotonic() - began < 5
        assert (t.now - t.jobs[0].due).total_seconds() > 3598
        async with t.worker():
            await t.drain()
        assert {result.state for result in results} == {"SUCCESS"}


async def test_time_that_goes_back_is_refused(app):
    async with harness(app) as t:
        with pytest.raises(ValueError, match="-1"):
            await t.advance(-1)


async def test_the_clock_is_the_machines_again_after_the_last_harness(app, add):
    other = AsyncQ("redis://127.0.0.1:1/0")

    @other.task
    async def double(x: int) -> int:
        return 2 * x

    async with harness(app) as t:
        async with harness(other) as u:
            result = await double.options(countdown=60).delay(1)
            await t.advance(61)  # one process has one clock
            assert u.now - t.now < timedelta(seconds=1)
            await u.drain()
            assert result.state == "SUCCESS"
        assert clock.now() - time.time() > 60
    assert clock.now is time.time


async def test_a_job_that_kills_its_workers_is_lost(app):
    @app.task
    async def crash() -> None:
        await t.kill_worker()

    async with harness(app) as t:
        result = await crash.delay()
        with pytest.raises(WorkerLost):
            await result.get(timeout=20)
