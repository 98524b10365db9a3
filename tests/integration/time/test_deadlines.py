"""Deadlines: an absolute end for a job and for all jobs that it starts."""

from __future__ import annotations

import asyncio
import time
from datetime import UTC, datetime, timedelta

import pytest
from helpers.stopwatch import Stopwatch
from helpers.waiting import until

import asyncq
from asyncq import Retry, TaskExpired, TimeLimitExceeded, Worker

pytestmark = pytest.mark.anyio


@pytest.fixture
def nap(app, diary):
    @app.task(name="nap")
    async def nap(seconds: float) -> str:
        diary.note("start")
        try:
            await asyncio.sleep(seconds)
        finally:
            diary.note("end")
        return "slept"

    return nap


async def test_a_running_coroutine_is_cancelled_at_its_deadline(app, nap, diary):
    async with Worker(app):
        stopwatch = Stopwatch()
        with pytest.raises(TimeLimitExceeded, match="before its deadline"):
            await nap.options(deadline=0.3, timeout=20).call(30)
        assert 0.29 <= stopwatch.took < 0.6
    assert diary.texts == ["start", "end"]


async def test_a_job_past_its_deadline_is_not_started_and_its_waiter_wakes_at_the_deadline(app, nap, diary):
    stopwatch = Stopwatch()
    with pytest.raises(TaskExpired):
        await nap.options(deadline=0.2).call(0)
    assert 0.2 <= stopwatch.took < 0.45
    async with Worker(app):
        await nap.call(0)
    assert diary.texts == ["start", "end"]


async def test_a_deadline_does_not_change_a_job_that_ends_in_time(app, nap):
    end = datetime.now(UTC) + timedelta(seconds=5)
    async with Worker(app):
        assert await nap.options(deadline=end).call(0.1) == "slept"


async def test_children_and_their_children_inherit_the_deadline(app, nap):
    seen: list[datetime | None] = []

    @app.task
    async def parent(depth: int) -> str:
        seen.append(asyncq.current().deadline)
        child = await (parent.delay(depth - 1) if depth else nap.delay(30))
        return child.id

    stopwatch, end = Stopwatch(), datetime.now(UTC) + timedelta(seconds=0.6)
    async with Worker(app):
        child = app.AsyncResult(await parent.options(deadline=end).call(1))
        grandchild = app.AsyncResult(await child.get(timeout=30))
        with pytest.raises(TimeLimitExceeded):
            await grandchild.get(timeout=30)
    assert datetime.now(UTC) >= end
    assert stopwatch.took < 0.9
    assert len(seen) == 2
    assert all(deadline and abs(deadline - end) < timedelta(milliseconds=2) for deadline in seen)


async def test_a_childs_own_deadline_counts_only_if_it_is_earlier(app, nap):
    @app.task
    async def parent(own: float) -> str:
        return (await nap.options(deadline=own).delay(30)).id

    async with Worker(app):
        for own, first in ((0.2, 0.2), (30, 0.5)):
            stopwatch = Stopwatch()
            child = app.AsyncResult(await parent.options(deadline=0.5).call(own))
            with pytest.raises(TimeLimitExceeded):
                await child.get(timeout=30)
            assert first - 0.01 <= stopwatch.took < first + 0.25


async def test_the_deadline_of_one_job_does_not_apply_to_the_next(app, nap):
    @app.task
    async def deadline() -> bool:
        return asyncq.current().deadline is None

    async with Worker(app, concurrency=1):
        await nap.options(deadline=5).call(0)
        assert await deadline.call()


async def test_no_attempt_is_planned_for_a_time_after_the_deadline(app, diary):
    @app.task(retry=Retry(max_retries=5, backoff=10, jitter=False))
    async def fails() -> None:
        diary.note("try")
        raise OSError("the error itself")

    async with Worker(app):
        stopwatch = Stopwatch()
        with pytest.raises(OSError, match="the error itself"):
            await fails.options(deadline=2).call()
        assert stopwatch.took < 1, "it fails when it is clear that there is no time left"
    assert len(diary.notes) == 1


async def test_a_delayed_job_whose_deadline_comes_first_never_runs(app, nap, diary):
    async with Worker(app):
        stopwatch = Stopwatch()
        with pytest.raises(TaskExpired):
            await nap.options(countdown=30, deadline=0.2).call(0)
        assert stopwatch.took < 0.45
    assert diary.notes == []


async def test_a_thread_past_its_deadline_goes_on_and_its_value_is_dropped(app, diary):
    @app.task
    def block() -> str:
        time.sleep(0.6)
        diary.note("end")
        return "too late"

    async with Worker(app):
        stopwatch = Stopwatch()
        with pytest.raises(TimeLimitExceeded):
            await block.options(deadline=0.2).call()
        assert stopwatch.took < 0.45
        await until(lambda: diary.texts == ["end"], "the thread to end")
