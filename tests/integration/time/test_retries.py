"""Jobs that fail and are tried again: when, how often, and which state the handle shows meanwhile."""

from __future__ import annotations

import time
from itertools import pairwise

import pytest
from helpers.figures import report
from helpers.waiting import until, until_state

import asyncq
from asyncq import Retry, RetryLater, TaskRevoked, Worker
from asyncq.system import clock
from asyncq.testing import harness

pytestmark = pytest.mark.anyio

QUICK = Retry(max_retries=2, backoff=0.05, jitter=False)


@pytest.fixture
def flaky(app, diary):
    """A task that fails until its third call, and returns its attempt and its `max_retries`."""

    @app.task(name="flaky", retry=QUICK)
    async def flaky(times: int = 2) -> list[int]:
        context = asyncq.current()
        diary.note(context.attempt)
        if len(diary.notes) <= times:
            raise OSError(f"number {context.attempt}")
        return [context.attempt, context.max_retries]

    return flaky


async def test_a_job_is_retried_until_it_succeeds_and_knows_the_number_of_its_attempt(app, flaky, diary):
    async with Worker(app):
        result = await flaky.delay()
        assert await result.get(timeout=30) == [3, 2]
        assert diary.texts == [1, 2, 3]
        assert result.retries == 2
        assert (await result.outcome()).attempts == 3


async def test_each_pause_before_a_retry_is_twice_as_long_and_never_shorter_than_configured(
    app, diary, flaky
):
    policy = Retry(max_retries=2, backoff=0.2, jitter=False)
    async with Worker(app):
        await flaky.options(retry=policy).call()
    waits = [b - a for a, b in pairwise(diary.times)]
    report(f"waits of 0.2 and 0.4 s took {waits[0]:.3f} and {waits[1]:.3f} s")
    assert 0.2 <= waits[0] < 0.35
    assert 0.4 <= waits[1] < 0.55


async def test_between_two_attempts_the_handle_shows_retry_and_the_last_error_with_its_traceback(app, flaky):
    policy = Retry(max_retries=1, backoff=60, jitter=False)
    async with Worker(app):
        result = await flaky.options(retry=policy).delay()
        await until_state(result, "RETRY")
        assert isinstance(result.result, OSError)
        assert str(result.result) == "number 1"
        assert "raise OSError" in (result.traceback or "")
        assert result.retries == 1
        assert result.date_done is None
        assert not await result.ready()
        assert await result.exists()


async def test_a_handle_made_from_an_id_waits_through_a_retry(app, make_app, flaky):
    policy = Retry(max_retries=2, backoff=0.3, jitter=False)
    async with make_app() as elsewhere, Worker(app):
        result = await flaky.options(retry=policy).delay()
        await until_state(result, "RETRY")
        assert await elsewhere.AsyncResult(result.id).get(timeout=30) == [3, 2]


async def test_a_job_that_waits_for_its_retry_holds_no_slot(app, flaky, diary):
    @app.task
    async def other() -> str:
        return "ran"

    async with Worker(app, concurrency=1):
        result = await flaky.options(retry=Retry(max_retries=5, backoff=60, jitter=False)).delay(100)
        await until_state(result, "RETRY")
        assert await other.options(wait=30).call() == "ran"


async def test_a_job_without_retries_left_fails_with_the_last_error(app, flaky, diary):
    async with Worker(app):
        with pytest.raises(OSError, match="number 3"):
            await flaky.call(100)
    assert diary.texts == [1, 2, 3]


async def test_a_job_is_not_retried_after_an_error_that_its_policy_does_not_name(app, flaky, diary):
    async with Worker(app):
        with pytest.raises(OSError, match="number 1"):
            await flaky.options(retry=Retry(on=(KeyError,), backoff=0)).call()
    assert diary.texts == [1]


async def test_the_retry_policy_of_a_call_applies_on_a_worker_whose_task_has_none(app, diary):
    @app.task
    async def fails() -> None:
        diary.note("try")
        raise ConnectionResetError

    async with Worker(app):
        with pytest.raises(ConnectionResetError):
            await fails.options(retry=Retry(max_retries=1, on=(OSError,), backoff=0)).call()
        with pytest.raises(ConnectionResetError):
            await fails.call()
    assert len(diary.notes) == 3


async def test_a_task_may_request_a_retry_itself_and_fails_with_the_reason_that_it_gave(app, diary):
    @app.task
    async def later() -> None:
        diary.note(asyncq.current().attempt)
        raise RetryLater("not now", countdown=0.2, max_retries=2) from ValueError("the reason")

    async with Worker(app):
        with pytest.raises(ValueError, match="the reason"):
            await later.call()
    assert diary.texts == [1, 2, 3]
    assert all(b - a >= 0.2 for a, b in pairwise(diary.times))


async def test_a_task_that_requests_a_retry_without_a_reason_fails_with_retry_later(app):
    @app.task
    async def later() -> None:
        raise RetryLater("not now", countdown=0, max_retries=1)

    async with Worker(app):
        with pytest.raises(RetryLater, match="not now"):
            await later.call()


@pytest.mark.parametrize("countdown", [float("inf"), 1e300])
async def test_a_job_that_requests_a_retry_at_an_impossible_time_fails(app, countdown):
    @app.task
    async def never() -> None:
        raise RetryLater(countdown=countdown)

    async with Worker(app):
        outcome = await (await never.delay()).outcome(timeout=30)
    assert outcome.state == "FAILURE"


async def test_a_job_that_is_revoked_between_two_attempts_never_runs_again(
    app, flaky, diary, harness_servers
):
    async with harness(app) as t:
        result = await flaky.options(retry=Retry(backoff=60, jitter=False)).delay(100)
        await t.drain()
        assert result.state == "RETRY"
        assert await result.revoke(wait=True) == "REVOKED"
        await t.advance(24 * 3600)
        with pytest.raises(TaskRevoked):
            await result
        assert diary.texts == [1]
        keys, send = app.sessions.shards[0], app.sessions.current().broker.commands.send
        assert await send(keys, "ZCARD", keys.delayed) == 0
        assert await send(keys, "EXISTS", keys.messages + result.id) == 0


async def test_the_pauses_of_a_long_policy_double_up_to_the_longest(app, harness_servers):
    tries: list[float] = []

    @app.task(retry=Retry(max_retries=12, jitter=False))
    async def fails() -> None:
        tries.append(clock.now())
        raise OSError

    async with harness(app) as t:
        result = await fails.delay()
        await t.advance(24 * 3600)
        assert result.state == "FAILURE"
    assert [round(b - a) for a, b in pairwise(tries)] == [2**n for n in range(10)] + [600, 600]


async def test_a_retry_runs_on_any_worker_and_returns_to_its_own_queue(app, flaky, diary):
    policy = Retry(backoff=0.1, jitter=False)
    async with Worker(app, queues=["second"]):
        result = await flaky.options(queue="second", retry=policy).delay(1)
        await until_state(result, "RETRY")
    assert await result.refresh() == "RETRY"
    async with Worker(app, queues=["second"], name="successor"):
        assert await result.get(timeout=30) == [2, 3]
    assert result.worker == "successor"
    assert result.queue == "second"


@pytest.mark.one_shard
async def test_jobs_that_failed_at_the_same_time_are_retried_at_different_times(app, raw, diary):
    @app.task(retry=Retry(max_retries=1, backoff=600, max_backoff=600))
    async def together() -> None:
        if asyncq.current().attempt == 1:
            raise OSError
        diary.note("again")

    async def due() -> list[float]:
        scores = await raw.zrange(app.sessions.shards[0].delayed, 0, -1, withscores=True)
        return [score / 1000 for _, score in scores]

    async def all_are_delayed() -> bool:
        return len(await due()) + len(diary.notes) == 200  # a few jobs are promoted at once

    async with Worker(app, concurrency=200):
        start = time.time()
        results = await together.map([()] * 200)
        await until(all_are_delayed, "all jobs to be delayed")
        times = [*await due(), *diary.times]
        await results.revoke()
    tenths = [sum(n <= (when - start) / 60 < n + 1 for when in times) for n in range(11)]
    report(f"second attempts of 200 jobs in each tenth of their ten minutes: {tenths}")
    assert max(tenths) < 60, "20 are due in each"
    assert sum(tenths) == 200


async def test_the_set_of_delayed_jobs_is_empty_after_all_jobs_have_ended(app, raw, flaky):
    async with Worker(app):
        await flaky.call()
    await until(lambda: _is_clean(app, raw), "no key of a delayed job to be left")


async def _is_clean(app, raw):
    return not [
        key async for key in raw.scan_iter(match=f"{app.sessions.shards[0].messages}*")
    ] and not await raw.exists(app.sessions.shards[0].delayed)
