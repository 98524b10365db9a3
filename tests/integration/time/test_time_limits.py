"""Time limits of one attempt: a hard one that stops the body, a soft one that raises in it."""

from __future__ import annotations

import asyncio
import threading
import time
from typing import TYPE_CHECKING

import anyio
import pytest
from helpers.figures import report
from helpers.stopwatch import Stopwatch
from helpers.waiting import until

import asyncq
from asyncq import Retry, RetryLater, SoftTimeLimitExceeded, TimeLimitExceeded, Worker

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterator

pytestmark = pytest.mark.anyio


async def _timed_out(call, least: float, most: float) -> None:
    stopwatch = Stopwatch()
    with pytest.raises(TimeLimitExceeded):
        await call
    took = stopwatch.took
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


async def test_the_timeout_of_a_call_overrides_that_of_the_task(app):
    @app.task(timeout=30)
    async def slow(seconds: float) -> str:
        await asyncio.sleep(seconds)
        return "slept"

    async with Worker(app):
        await _timed_out(slow.options(timeout=0.2).call(30), 0.2, 0.45)
        assert await slow.options(timeout=5).call(0.01) == "slept"


async def test_waiters_of_a_thread_are_notified_at_its_timeout_and_its_value_is_dropped(app, diary):
    @app.task(timeout=0.2)
    def block() -> str:
        time.sleep(0.6)
        diary.note("end")
        return "dropped"

    async with Worker(app):
        result = await block.delay()
        await _timed_out(result.get(), 0.1, 0.5)
        await until(lambda: diary.texts == ["end"], "the thread to end")
        assert await result.refresh() == "FAILURE"


async def test_the_timeout_applies_to_each_attempt(app, diary):
    @app.task(timeout=0.2, retry=Retry(max_retries=2, on=(TimeLimitExceeded,), backoff=0))
    async def slow_twice() -> str:
        diary.note("try")
        await asyncio.sleep(30 if len(diary.notes) < 3 else 0.05)
        return "in time"

    async with Worker(app):
        assert await slow_twice.options(wait=30).call() == "in time"
    assert len(diary.notes) == 3


async def test_a_body_that_swallows_its_cancellation_has_still_exceeded_its_limit(app):
    @app.task(timeout=0.2)
    async def stubborn() -> str:
        try:
            await asyncio.sleep(30)
        except asyncio.CancelledError:
            return "nothing happened"
        return "slept"

    async with Worker(app):
        await _timed_out(stubborn.call(), 0.2, 0.45)


async def test_a_body_that_raises_another_error_at_its_cancellation_has_exceeded_its_limit(app):
    @app.task(timeout=0.2)
    async def wraps() -> None:
        try:
            await asyncio.sleep(30)
        except asyncio.CancelledError as error:
            raise RuntimeError("wrapped") from error

    async with Worker(app):
        await _timed_out(wraps.call(), 0.2, 0.45)


async def test_the_soft_limit_is_raised_where_the_body_waits_and_its_value_still_counts(app):
    @app.task(soft_timeout=0.2)
    async def careful() -> str:
        try:
            await asyncio.sleep(30)
        except SoftTimeLimitExceeded as error:
            return f"half of it: {error}"
        return "all of it"

    async with Worker(app):
        assert "0.2 s" in await careful.options(wait=30).call()


async def test_a_body_that_does_not_catch_the_soft_limit_fails_with_it(app):
    @app.task(soft_timeout=0.2)
    async def careless() -> None:
        await asyncio.sleep(30)

    async with Worker(app):
        with pytest.raises(SoftTimeLimitExceeded):
            await careless.options(wait=30).call()


async def test_the_soft_limit_passes_through_task_groups_and_timeouts_of_the_body(app):
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


async def test_the_hard_limit_applies_after_the_soft_limit(app, diary):
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


async def test_a_body_that_ends_before_its_limits_is_not_disturbed(app):
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


async def test_a_cancellation_by_the_body_itself_is_no_time_limit(app):
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


async def test_a_soft_limit_for_a_plain_function_is_refused_at_its_registration(app):
    with pytest.raises(ValueError, match="soft_timeout"):

        @app.task(soft_timeout=1)
        def block() -> None: ...


async def test_the_timeout_of_a_thread_starts_with_its_body_and_not_with_the_wait_for_a_thread(make_app):
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


async def test_a_soft_timeout_above_the_timeout_is_refused_for_a_task_and_for_one_call(app):
    with pytest.raises(ValueError, match=r"soft_timeout=5.* is above timeout=2"):

        @app.task(timeout=2, soft_timeout=5)
        async def never() -> None: ...

    @app.task(timeout=10, soft_timeout=5)
    async def fine() -> None: ...

    with pytest.raises(ValueError, match=r"soft_timeout=5.* is above timeout=2"):
        fine.options(timeout=2)
    fine.options(timeout=5)


# -- bodies that go on after their limit --


async def test_waiters_are_notified_in_time_though_the_body_goes_on_and_keeps_its_slot(app, diary):
    gate = asyncio.Event()

    @app.task(timeout=0.2)
    async def deaf() -> str:
        while not gate.is_set():
            try:
                await gate.wait()
            except asyncio.CancelledError:
                diary.note("cancelled")
        diary.note("end")
        return "late"

    @app.task
    async def after() -> None:
        diary.note("next")

    async with Worker(app, concurrency=1):
        result = await deaf.delay()
        following = await after.delay()
        await _timed_out(result.get(), 0.2, 1.2)
        assert diary.texts == ["cancelled"]
        gate.set()
        await following.get(timeout=30)
        assert diary.texts == ["cancelled", "end", "next"]
        assert await result.refresh() == "FAILURE"


async def test_a_thread_past_its_limit_keeps_its_slot_and_can_see_that_its_time_is_over(make_app, diary):
    gate = threading.Event()

    async with make_app(threads=1) as app:

        @app.task(timeout=0.2, concurrency=1)
        def block(number: int) -> None:
            diary.note(f"start {number}")
            gate.wait(30)
            diary.note(f"{number} is late: {asyncq.current().cancelled}")

        async with Worker(app):
            result = await block.delay(1)
            await _timed_out(result.get(), 0.1, 1.2)
            second = await block.delay(2)
            await asyncio.sleep(0.3)  # long enough for it to start, if it could
            assert diary.texts == ["start 1"]
            gate.set()
            await second.get(timeout=30)
    assert diary.texts == ["start 1", "1 is late: True", "start 2", "2 is late: False"]


@pytest.mark.parametrize("executor", ["coroutine", "thread"])
async def test_the_next_attempt_starts_after_the_body_of_the_previous_one_has_ended(app, diary, executor):
    gate = threading.Event()

    def body() -> str:
        attempt = asyncq.current().attempt
        diary.note(f"start {attempt}")
        if attempt == 1:
            gate.wait(30)
        diary.note(f"end {attempt}")
        return "the second"

    async def deaf() -> str:
        attempt = asyncq.current().attempt
        diary.note(f"start {attempt}")
        while attempt == 1 and not gate.is_set():
            try:
                await asyncio.sleep(0.02)
            except asyncio.CancelledError:
                diary.note("cancelled")
        diary.note(f"end {attempt}")
        return "the second"

    policy = Retry(max_retries=1, on=(TimeLimitExceeded,), backoff=0, jitter=False)
    task = app.task(name="body", timeout=0.1, retry=policy)(body if executor == "thread" else deaf)
    async with Worker(app):
        result = await task.delay()
        await until(lambda: diary.texts, "the body to start")
        await asyncio.sleep(1)  # past the limit, and past the time that the body gets to end
        assert "start 2" not in diary.texts
        assert await result.refresh() == "STARTED"
        gate.set()
        assert await result.get(timeout=30) == "the second"
    assert [text for text in diary.texts if text != "cancelled"] == ["start 1", "end 1", "start 2", "end 2"]


# -- kinds of waits in a body --


async def _in_task_group(child: Callable[[], Awaitable[None]]) -> None:
    async with asyncio.TaskGroup() as group:
        group.create_task(child())


async def _in_the_block_of_a_task_group(child: Callable[[], Awaitable[None]]) -> None:
    async with asyncio.TaskGroup() as group:
        group.create_task(child())
        await asyncio.sleep(30)


async def _in_anyio_group(child: Callable[[], Awaitable[None]]) -> None:
    async with anyio.create_task_group() as group:
        group.start_soon(child)


async def _in_wait_for(child: Callable[[], Awaitable[None]]) -> None:
    await asyncio.wait_for(child(), 30)


async def _in_gather(child: Callable[[], Awaitable[None]]) -> None:
    await asyncio.gather(child(), child())


async def _in_nested_groups(child: Callable[[], Awaitable[None]]) -> None:
    async with asyncio.TaskGroup() as group:
        group.create_task(_in_anyio_group(child))
        await _in_task_group(child)


async def test_no_child_of_a_body_outlives_its_soft_limit(app, diary):
    ways = [
        _in_task_group,
        _in_the_block_of_a_task_group,
        _in_anyio_group,
        _in_wait_for,
        _in_gather,
        _in_nested_groups,
    ]
    running: list[str] = []

    async def waits(way: str) -> None:
        running.append(way)
        try:
            await asyncio.sleep(30)
        finally:
            try:
                await asyncio.sleep(0)  # as code does that closes a connection
            finally:
                running.remove(way)

    @app.task(soft_timeout=0.2)
    async def body(number: int) -> str:
        way, kind = ways[number], ""
        try:
            await way(lambda: waits(way.__name__))
        except* SoftTimeLimitExceeded as errors:
            kind = type(errors.exceptions[0]).__name__
        left = running.count(way.__name__)
        await asyncio.sleep(0.01)  # no cancellation is left behind
        return f"{left} left, {kind}"

    async with Worker(app):
        answers = await (await body.map([(number,) for number in range(len(ways))])).get(timeout=30)
    assert answers == ["0 left, SoftTimeLimitExceeded"] * len(ways)


async def test_a_job_that_its_soft_limit_ends_does_not_count_as_cancelled(app):
    @app.task(soft_timeout=0.1)
    async def grouped() -> None:
        await _in_task_group(lambda: asyncio.sleep(30))

    @app.task(soft_timeout=0.1)
    async def wrapped() -> None:
        try:
            await asyncio.sleep(30)
        except SoftTimeLimitExceeded as error:
            raise ValueError("no draft") from error

    async with Worker(app):
        with pytest.raises(SoftTimeLimitExceeded, match=r"0\.1 s") as caught:
            await grouped.options(wait=30).call()
        assert not isinstance(caught.value, asyncio.CancelledError)
        with pytest.raises(ValueError, match="no draft") as other:
            await wrapped.options(wait=30).call()
    assert other.value.__cause__ is not None  # the remote traceback
    assert type(other.value.__cause__.__cause__) is SoftTimeLimitExceeded


async def test_an_exception_group_of_control_flow_exceptions_counts_as_control_flow(app, diary):
    @app.task
    async def add(x: int, y: int) -> int:
        return x + y

    @app.task
    async def replaced() -> int:
        async with anyio.create_task_group(), asyncio.TaskGroup():
            await asyncq.current().replace(add.s(1, 2))
        return 0

    async def later() -> None:
        raise RetryLater("rate limit", countdown=0)

    @app.task
    async def retried() -> int:
        if asyncq.current().attempt == 1:
            async with asyncio.TaskGroup() as group:
                group.create_task(later())
                group.create_task(asyncio.sleep(30))
        return 7

    @app.task
    async def mixed() -> None:
        diary.note("mixed")
        raise ExceptionGroup("both", [RetryLater(), ValueError("no")])

    async with Worker(app):
        assert await replaced.options(wait=30).call() == 3
        assert await retried.options(wait=30).call() == 7
        with pytest.raises(ExceptionGroup, match="both"):
            await mixed.options(wait=30).call()
    assert diary.texts == ["mixed"]
