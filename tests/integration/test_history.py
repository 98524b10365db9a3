"""The history of ended jobs: what is kept of them, for how many, and how it is listed."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta
from functools import partial

import pytest
from helpers.waiting import until, until_state

from asyncq import Retry, TaskExpired, Worker, chain, group, wire
from asyncq.broker import history as history_module

pytestmark = pytest.mark.anyio


async def listed(app, count: int, **filters):
    """Returns the ended jobs that fit the filters, once there are so many."""
    found = []

    async def are_there() -> bool:
        nonlocal found
        found = (await app.control.jobs(**filters)).items
        return len(found) >= count

    await until(are_there, f"{count} jobs in the history")
    return found


async def test_ended_jobs_are_listed_with_what_is_known_of_them_also_without_their_results(app, add):
    @app.task(name="failing", retry=Retry(max_retries=1, backoff=0))
    async def failing() -> None:
        raise KeyError("no such\nluck")

    async with Worker(app, name="w1"):
        good, bad = await add.delay(1, 1), await failing.options(queue="default").delay()
        await good.get(timeout=30)
        await bad.outcome(timeout=30)
        for each in (good, bad):
            await each.forget()

        (success,) = await listed(app, 1, state="SUCCESS")
        (failure,) = await listed(app, 1, state="FAILURE")

    assert (success.id, success.task, success.queue) == (good.id, add.name, "default")
    assert (success.worker, success.attempt, success.error) == ("w1", 1, None)
    now = datetime.now(UTC)
    assert now - timedelta(minutes=1) < success.enqueued <= success.started + timedelta(seconds=1)
    assert success.started <= success.ended <= now + timedelta(seconds=1)
    assert (failure.id, failure.attempt, failure.error) == (bad.id, 2, "KeyError: 'no such\\nluck'")


async def test_jobs_that_were_revoked_are_listed_whether_or_not_they_ran(app, add, nap):
    waiting = await add.delay(1, 1)
    await waiting.revoke(reason="no longer needed")
    async with Worker(app, name="w1"):
        running = await nap.delay(600)
        await until_state(running, "STARTED")
        await running.revoke(terminate=True)
        found = {job.id: job for job in await listed(app, 2, state="REVOKED")}

    assert set(found) == {waiting.id, running.id}
    assert found[waiting.id].error == "no longer needed"
    assert (found[waiting.id].worker, found[running.id].worker) == (None, "w1")


async def test_the_newest_come_first_page_by_page_behind_the_jobs_that_have_not_ended(app, add, nap):
    async with Worker(app):
        ended = []
        for number in range(5):
            ended.append((await add.delay(1, number)).id)
            await app.AsyncResult(ended[-1]).get(timeout=30)
            await listed(app, number + 1, state="SUCCESS")
        later = await nap.options(countdown=600).delay(1)
        pages, cursor = [], None
        while True:
            page = await app.control.jobs(limit=2, cursor=cursor)
            pages.append([job.id for job in page])
            if (cursor := page.cursor) is None:
                break
    every = [id_ for page in pages for id_ in page]
    assert every == [later.id, *reversed(ended)]
    assert max(map(len, pages)) == 2
    await later.revoke()


async def test_filters_hold_for_ended_jobs_too(app, add):
    async with Worker(app, queues=["default", "mail"]):
        here, there = await add.delay(1, 1), await add.options(queue="mail").delay(2, 2)
        for each in (here, there):
            await each.get(timeout=30)
        await listed(app, 2, state="SUCCESS")
    assert [job.id for job in await app.control.jobs(queue="mail")] == [there.id]
    assert [job.id for job in await app.control.jobs(state="SUCCESS", task="other")] == []
    soon = datetime.now(UTC) + timedelta(seconds=5)
    assert [job.id for job in await app.control.jobs(state="SUCCESS", since=soon)] == []


async def test_all_failures_are_kept_and_of_many_successes_a_part(app, add):
    @app.task(name="failing")
    async def failing(number: int) -> None:
        raise ValueError(number)

    async with Worker(app, concurrency=200):
        good = await add.map([(1, number) for number in range(2000)])
        bad = await failing.map([(number,) for number in range(300)])
        await good.get(timeout=60)
        await bad.join(timeout=60, propagate=False)
        await listed(app, 300, state="FAILURE", limit=1000)
        successes = await listed(app, history_module.SUCCESSES_PER_SECOND, state="SUCCESS", limit=1000)
    assert len(successes) < 2000
    failures = await app.control.jobs(state="FAILURE", limit=1000)
    assert {job.error for job in failures} == {f"ValueError: {number}" for number in range(300)}


async def test_the_newest_of_each_state_are_kept(make_app, raw):
    async with make_app(history=3) as app:

        @app.task(name="failing")
        async def failing(number: int) -> None:
            raise ValueError(number)

        async with Worker(app):
            for number in range(5):
                await (await failing.delay(number)).outcome(timeout=30)
                await until(partial(_newest_is, app, number), f"job {number} in the history")
        errors = [job.error for job in await app.control.jobs(state="FAILURE")]
        assert errors == ["ValueError: 4", "ValueError: 3", "ValueError: 2"]


async def _newest_is(app, number: int) -> bool:
    found = (await app.control.jobs(state="FAILURE")).items
    return bool(found) and found[0].error == f"ValueError: {number}"


async def test_without_a_history_nothing_is_kept(make_app, raw):
    async with make_app(history=0) as app:

        @app.task(name="one")
        async def one() -> int:
            return 1

        async with Worker(app):
            await one.call()
            await (await one.options(countdown=600).delay()).revoke()
            await asyncio.sleep(history_module.DELAY)  # more than a note would need
        assert [job async for job in _all(app)] == []
        assert await raw.exists(*(app.sessions.shards[0].history + letter for letter in wire.FINAL)) == 0


async def _all(app):
    for job in await app.control.jobs():
        yield job


async def test_an_entry_that_somebody_else_has_written_does_no_harm(app, raw):
    await raw.xadd(app.sessions.shards[0].history + wire.FAILED, {"j": b"nonsense"})
    await raw.xadd(app.sessions.shards[0].history + wire.FAILED, {"x": b"nonsense"})
    await raw.expire(app.sessions.shards[0].history + wire.FAILED, 60)
    (first, second) = await app.control.jobs(state="FAILURE")
    assert (first.id, first.error) == (second.id, second.error) == ("", "this entry cannot be read")


async def test_a_client_that_closes_at_once_leaves_its_notes(app, make_app, add):
    result = await add.delay(1, 1)
    async with make_app() as other:
        await other.AsyncResult(result.id).revoke()
    (job,) = await listed(app, 1, state="REVOKED")
    assert job.id == result.id


async def test_the_jobs_that_a_purge_has_ended_are_listed(make_app, namespace):
    for shards in (1, 3):
        async with make_app(namespace=f"{namespace}-{shards}", shards=shards) as app:

            @app.task(name="idle", ignore_result=True)
            async def idle(number: int) -> None: ...

            first = await idle.options(priority=5).delay(0)
            others = await idle.map([(number,) for number in range(1, 350)])
            assert await app.control.purge("default") == 350
            found = await listed(app, 350, state="REVOKED", limit=1000)
            assert {job.id for job in found} == {first.id, *(result.id for result in others)}
            assert {(job.task, job.queue, job.error, job.worker) for job in found} == {
                ("idle", "default", "its queue was purged", None)
            }
            (one,) = [job for job in found if job.id == first.id]
            assert datetime.now(UTC) - timedelta(minutes=1) < one.enqueued <= one.ended + timedelta(seconds=1)


@pytest.mark.parametrize("shards", [1, 3])
async def test_the_jobs_that_end_because_another_has_failed_are_listed_with_it(make_app, shards):
    async with make_app(shards=shards) as app:
        seen = []

        @app.task(name="failing")
        async def failing() -> int:
            raise ValueError("no luck")

        @app.task(name="next")
        async def following(*_: object) -> int:
            return 1

        @app.task(name="report")
        async def report(*_: object) -> None:
            seen.append(1)

        async with Worker(app):
            steps = chain(
                failing.s(), following.s(), following.options(link_error=report.s()).s(), following.s()
            )
            last = await steps.delay()
            fan_out = await (failing.s() | group(following.si(number) for number in range(300))).delay()
            await last.outcome(timeout=30)
            await fan_out.join(timeout=60, propagate=False)
            found = await listed(app, 1 + 3 + 1 + 300, state="FAILURE", limit=1000)
        ids = {job.id for job in found}
        assert {last.id, last.parent.id, last.parent.parent.id, last.parent.parent.parent.id} <= ids
        assert {result.id for result in fan_out} <= ids
        assert len(ids) == len(found), "each job is listed once"
        assert {job.error for job in found} == {"ValueError: no luck"}
        assert {job.task for job in found} >= {"failing", "next"}
        assert all(job.task for job in found)


async def test_a_revoked_workflow_is_listed_job_by_job_and_an_uncalled_error_callback_is_not(app, add):
    @app.task(name="report")
    async def report(*_: object) -> None: ...

    waiting = await chain(add.s(1, 1), add.s(2), add.s(3)).delay()
    await waiting.revoke(parents=True, reason="no longer needed")
    found = await listed(app, 3, state="REVOKED")
    assert {job.id for job in found} == {waiting.id, waiting.parent.id, waiting.parent.parent.id}
    assert {(job.task, job.error) for job in found} == {(add.name, "no longer needed")}
    async with Worker(app):
        assert await (await add.options(link_error=report.s()).delay(1, 1)).get(timeout=30) == 2
        await listed(app, 1, state="SUCCESS")
    assert {job.task for job in await app.control.jobs(state="REVOKED")} == {add.name}


async def test_jobs_that_expired_are_listed_whoever_noticed_it(app, add):
    asked = await add.options(expires=0.05).delay(1, 1)
    unasked = await add.options(expires=0.05, queue="mail").delay(1, 2)
    delayed = await add.options(expires=0.05, countdown=60).delay(1, 3)
    with pytest.raises(TaskExpired):
        await asked.get(timeout=30)
    with pytest.raises(TaskExpired):
        await delayed.get(timeout=30)
    async with Worker(app, queues=["mail"]):
        found = await listed(app, 3, state="REVOKED")
    assert {(job.id, job.task, job.queue) for job in found} == {
        (asked.id, add.name, "default"),
        (delayed.id, add.name, "default"),
        (unasked.id, add.name, "mail"),
    }
