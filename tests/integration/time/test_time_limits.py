"""Time limits of one attempt: a hard one that stops, a soft one that asks."""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING

import pytest
from helpers.figures import report
from helpers.stopwatch import Stopwatch
from helpers.waiting import until

from asyncq import Retry, SoftTimeLimitExceeded, TimeLimitExceeded, Worker

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = pytest.mark.anyio


async def _timed_out(call, least: float, most: float) -> None:
    begun = Stopwatch()
    with pytest.raises(TimeLimitExceeded):
        await call
    took = begun.took
    report(f"a limit of {least:g} s took {took:.3f} s")
    assert least <= took < most


async def test_a_coroutine_is_cancelled_at_its_timeout_and_may_clean_up(app, diary):
    @app.task(timeout=0.2)
    async def slow() -> None:
        try:
            await asyncio.sleep(30)
        finally:
            diary.note("cleaned")

    async with Worker(app):
        await _timed_out(slow.call(), 0.2, 0.45)
    assert diary.texts == ["cleaned"]


async def test_the_timeout_of_a_call_outranks_that_of_the_task(app):
    @app.task(timeout=30)
    async def slow(seconds: float) -> str:
        await asyncio.sleep(seconds)
        return "slept"

    async with Worker(app):
        await _timed_out(slow.options(timeout=0.2).call(30), 0.2, 0.45)
        assert await slow.options(timeout=5).call(0.01) == "slept"


async def test_waiters_of_a_thread_are_told_at_its_timeout_and_what_it_returns_is_dropped(app, diary):
    @app.task(timeout=0.2)
    def block() -> str:
        time.sleep(0.6)
        diary.note("end")
        return "dropped"

    async with Worker(app):
        result = await block.delay()
        await _timed_out(result.get(), 0.1, 0.5)
        await until(lambda: diary.texts == ["end"], "the thread to come to its end")
        assert await result.refresh() == "FAILURE"


async def test_the_timeout_counts_for_each_attempt(app, diary):
    @app.task(timeout=0.2, retry=Retry(max_retries=2, on=(TimeLimitExceeded,), backoff=0))
    async def slow_twice() -> str:
        diary.note("try")
        await asyncio.sleep(30 if len(diary.notes) < 3 else 0.05)
        return "in time"

    async with Worker(app):
        assert await slow_twice.options(wait=30).call() == "in time"
    assert len(diary.notes) == 3


async def test_a_body_that_swallows_the_cancellation_has_exceeded_its_limit_all_the_same(app):
    @app.task(timeout=0.2)
    async def stubborn() -> str:
        try:
            await asyncio.sleep(30)
        except asyncio.CancelledError:
            return "nothing happened"
        return "slept"

    async with Worker(app):
        await _timed_out(stubborn.call(), 0.2, 0.45)


async def test_a_body_that_makes_another_error_of_the_cancellation_has_exceeded_its_limit(app):
    @app.task(timeout=0.2)
    async def wraps() -> None:
        try:
            await asyncio.sleep(30)
        except asyncio.CancelledError as error:
            raise RuntimeError("wrapped") from error

    async with Worker(app):
        await _timed_out(wraps.call(), 0.2, 0.45)


async def test_the_soft_limit_is_raised_where_the_body_waits_and_what_it_returns_then_counts(app):
    @app.task(soft_timeout=0.2)
    async def careful() -> str:
        try:
            await asyncio.sleep(30)
        except SoftTimeLimitExceeded as error:
            return f"half of it: {error}"
        return "all of it"

    async with Worker(app):
        assert "0.2 s" in await careful.options(wait=30).call()


async def test_a_body_that_does_not_care_fails_with_the_soft_limit(app):
    @app.task(soft_timeout=0.2)
    async def careless() -> None:
        await asyncio.sleep(30)

    async with Worker(app):
        with pytest.raises(SoftTimeLimitExceeded):
            await careless.options(wait=30).call()


async def test_the_soft_limit_passes_through_groups_and_timeouts_of_the_bodys_own(app):
    @app.task(soft_timeout=0.2)
    async def grouped() -> str:
        try:
            async with asyncio.timeout(30), asyncio.TaskGroup() as group:
                group.create_task(asyncio.sleep(30))
                await asyncio.sleep(30)
        except* SoftTimeLimitExceeded:
            pass
        await asyncio.sleep(0.01)  # no cancellation is left behind
        return "cleaned up"

    async with Worker(app):
        assert await grouped.options(wait=30).call() == "cleaned up"


async def test_after_the_soft_limit_comes_the_hard_one(app, diary):
    @app.task(soft_timeout=0.1, timeout=0.4)
    async def deaf() -> None:
        try:
            await asyncio.sleep(30)
        except SoftTimeLimitExceeded:
            diary.note("soft")
        await asyncio.sleep(30)

    async with Worker(app):
        await _timed_out(deaf.call(), 0.4, 0.65)
    assert diary.texts == ["soft"]


async def test_a_body_that_ends_before_its_limits_hears_nothing_of_them(app):
    @app.task(soft_timeout=0.15, timeout=0.2)
    async def quick() -> str:
        return "done"

    @app.task
    async def bystander() -> str:
        await asyncio.sleep(0.4)
        return "undisturbed"

    async with Worker(app):
        other = await bystander.delay()
        assert await quick.call() == "done"
        assert await other.get(timeout=30) == "undisturbed"


async def test_a_cancellation_of_the_bodys_own_is_no_time_limit(app):
    @app.task(timeout=5, soft_timeout=4)
    async def own() -> str:
        try:
            async with asyncio.timeout(0.05):
                await asyncio.sleep(30)
        except TimeoutError:
            return "its own"
        return "none"

    async with Worker(app):
        assert await own.options(wait=30).call() == "its own"


async def test_a_soft_limit_for_a_plain_function_is_refused_when_it_is_registered(app):
    with pytest.raises(ValueError, match="soft_timeout"):

        @app.task(soft_timeout=1)
        def block() -> None: ...


async def test_the_timeout_of_a_thread_begins_with_its_body_and_not_with_the_wait_for_a_thread(make_app):
    async with make_app(threads=1) as app:

        @app.task(timeout=0.5)
        def block() -> str:
            time.sleep(0.3)
            return "done"

        @app.task(timeout=0.5)
        def count() -> Iterator[int]:
            time.sleep(0.3)
            yield 1

        async with Worker(app):
            blocks = await block.map([()] * 3)
            streams = await count.map([()] * 2)
            assert await blocks.get(timeout=10) == ["done"] * 3
            assert await streams.get(timeout=10) == [None] * 2


async def test_a_deadline_passes_while_a_job_waits_for_a_thread(make_app, diary):
    async with make_app(threads=1) as app:

        @app.task
        def block(seconds: float) -> None:
            diary.note(str(seconds))
            time.sleep(seconds)

        async with Worker(app):
            first = await block.delay(0.8)
            await until(lambda: diary.texts == ["0.8"], "the thread to be taken")
            with pytest.raises(TimeLimitExceeded, match="no thread was free"):
                await block.options(deadline=0.2, wait=0.6).call(0.1)
            await first.get(timeout=10)
    assert diary.texts == ["0.8"]


async def test_a_soft_timeout_above_the_timeout_is_refused_also_for_one_call(app):
    with pytest.raises(ValueError, match=r"soft_timeout=5.* is above timeout=2"):

        @app.task(timeout=2, soft_timeout=5)
        async def never() -> None: ...

    @app.task(timeout=10, soft_timeout=5)
    async def fine() -> None: ...

    with pytest.raises(ValueError, match=r"soft_timeout=5.* is above timeout=2"):
        fine.options(timeout=2)
    fine.options(timeout=5)
