"""Listings: pages of jobs with their filters, the jobs that run, queues, figures of the whole namespace."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta

import pytest
from helpers.waiting import until, until_state, until_sync

from asyncq import Retry, Worker, chain
from asyncq.control import job_listing as listing

pytestmark = pytest.mark.anyio


async def every_page(app, **filters):
    """Returns the jobs of all pages, and how many jobs were looked at."""
    found, looked_at, cursor = [], 0, None
    while True:
        page = await app.control.jobs(cursor=cursor, **filters)
        found += page
        looked_at += page.looked_at
        if (cursor := page.cursor) is None:
            return found, looked_at


@pytest.fixture
async def some_of_each(app, add, nap):
    """A worker that runs one job, and jobs that wait for a worker, for their time, for a retry, for a job."""

    @app.task(name="failing", retry=Retry(max_retries=3, backoff=600))
    async def failing() -> None:
        raise KeyError("no such\nluck")

    async with Worker(app, concurrency=1, name="w1"):
        retried = await failing.delay()
        await until_state(retried, "RETRY")
        running = await nap.delay(600)
        await until_state(running, "STARTED")
        later = await add.options(countdown=600).delay(1, 1)
        waiting = [await add.options(priority=n).delay(1, n) for n in range(3)]
        last = await chain(add.s(5, 5), add.s(6)).delay()
        yield {
            "running": [running.id],
            "waiting": [*(result.id for result in waiting), last.parent.id],
            "later": [later.id],
            "retried": [retried.id],
            "dependent": [last.id],
        }
        await app.control.revoke([running.id], terminate=True)
        await app.control.revoke([retried.id, later.id])
        await app.control.purge("default")


def ids(jobs):
    return sorted(job.id for job in jobs)


async def test_jobs_are_listed_by_their_state_with_what_is_known_of_them(app, some_of_each):
    some = some_of_each
    for state, kinds in (
        ("STARTED", ["running"]),
        ("PENDING", ["waiting", "dependent"]),
        ("SCHEDULED", ["later"]),
        ("RETRY", ["retried"]),
        (None, list(some)),
    ):
        found, _ = await every_page(app, state=state)
        assert ids(found) == sorted(id_ for kind in kinds for id_ in some[kind]), state
    (running,), _ = await every_page(app, state="STARTED")
    assert (running.task, running.queue, running.worker, running.attempt) == (
        running.task,
        "default",
        "w1",
        1,
    )
    assert running.task.endswith("nap")
    assert running.enqueued <= running.started + timedelta(seconds=1)
    assert running.ended is None
    (retried,), _ = await every_page(app, state="RETRY")
    assert (retried.task, retried.attempt, retried.error) == ("failing", 2, "KeyError: 'no such\\nluck'")
    assert retried.worker is None


async def test_filters_of_queue_task_and_time_are_combined(app, some_of_each, add):
    elsewhere = await add.options(queue="other").delay(1, 1)
    found, _ = await every_page(app, queue="other")
    assert ids(found) == [elsewhere.id]
    found, _ = await every_page(app, task="failing")
    assert ids(found) == some_of_each["retried"]
    found, _ = await every_page(app, task=add.name, state="SCHEDULED")
    assert ids(found) == some_of_each["later"]
    found, _ = await every_page(app, task=add.name, since=datetime.now(UTC) + timedelta(seconds=5))
    assert found == []
    found, _ = await every_page(app, queue="other", since=60)
    assert ids(found) == [elsewhere.id]
    await elsewhere.revoke()


async def test_pages_of_any_length_have_every_job_once(app, some_of_each):
    everything = sorted(id_ for some in some_of_each.values() for id_ in some)
    for limit in (1, 2, 3, 50):
        found, _ = await every_page(app, limit=limit)
        assert ids(found) == everything, limit


@pytest.mark.one_shard
async def test_a_filter_without_an_index_looks_at_a_part_and_goes_on_from_there(app, add, monkeypatch):
    @app.task(name="rare")
    async def rare() -> None: ...

    first = await rare.delay()
    await app.submit([add.s(1, n) for n in range(3500)])
    last = await rare.delay()
    monkeypatch.setattr(listing, "MOST_LOOKED_AT", 1000)
    page = await app.control.jobs(task="rare", limit=5)
    assert ids(page) == [first.id]
    assert 1000 <= page.looked_at <= 2000
    assert page.cursor is not None
    found, looked_at = await every_page(app, task="rare", state="PENDING", queue="default")
    assert ids(found) == sorted([first.id, last.id])
    assert looked_at >= 3502
    await app.control.purge("default")


async def test_a_listing_of_many_empty_queues_comes_in_parts(app, add, monkeypatch):
    results = [await add.options(queue=f"queue-{n}").delay(1, n) for n in range(4)]
    monkeypatch.setattr(listing, "MOST_READINGS", 3)
    page = await app.control.jobs()
    assert (page.cursor is None, len(page) < 4) == (False, True)
    found, _ = await every_page(app)
    assert ids(found) == ids(results)
    await app.control.revoke(ids(results))


async def test_filters_and_cursors_that_make_no_sense_are_refused(app):
    for wrong, message in (
        ({"state": "UNKNOWN"}, "no job is listed under it"),
        ({"state": "LATER"}, "use one of"),
        ({"queue": "a b"}, "cannot be a name"),
        ({"limit": 0}, "1 to 1000"),
        ({"limit": 1001}, "1 to 1000"),
        ({"cursor": "nonsense"}, "cursor="),
        ({"cursor": ""}, "cursor="),
        ({"since": datetime.now()}, "no time zone"),  # noqa: DTZ005
        ({"since": -1}, "since"),
    ):
        with pytest.raises(ValueError, match=message):
            await app.control.jobs(**wrong)


async def test_active_lists_the_jobs_of_all_workers_or_of_one(app, make_app, nap):
    async with make_app() as other:
        other.task(name=nap.name)(nap.function)
        async with Worker(app, name="one", queues=["a"]), Worker(other, name="two", queues=["b"]):
            first = await nap.options(queue="a").delay(600)
            second = await nap.options(queue="b").delay(600)
            await until_state(first, "STARTED")
            await until_state(second, "STARTED")
            assert ids(await app.control.active()) == sorted([first.id, second.id])
            (job,) = await app.control.active("two")
            assert (job.id, job.worker, job.state) == (second.id, "two", "STARTED")
            with pytest.raises(LookupError, match=r"no worker 'three'; registered workers: 'one', 'two'"):
                await app.control.active("three")
            states = await app.control.revoke(
                [first.id, second.id, "nobody"], terminate=True, reason="enough"
            )
            assert states["nobody"] == "UNKNOWN"
            assert (await first.outcome(timeout=30)).state == "REVOKED"
            assert (await second.outcome(timeout=30)).state == "REVOKED"
    with pytest.raises(TypeError, match="list of ids"):
        await app.control.revoke(first.id)


async def test_queues_show_how_full_they_are_and_who_serves_them(app, add, nap):
    await add.options(queue="lonely").delay(1, 1)
    async with Worker(app, concurrency=1, queues=["busy", "idle"]):
        running = await nap.options(queue="busy").delay(600)
        await until_state(running, "STARTED")
        for level in (0, 3):
            await add.options(queue="busy", priority=level).delay(1, 1)
        await asyncio.sleep(0.05)
        busy, idle, lonely = await app.control.queues()
        assert (busy.name, busy.waiting, busy.running, busy.consumers) == ("busy", 2, 1, 1)
        assert 0.04 < busy.oldest_wait < 20
        assert (idle.name, idle.waiting, idle.running, idle.oldest_wait, idle.consumers) == (
            "idle",
            0,
            0,
            0,
            1,
        )
        assert (lonely.name, lonely.waiting, lonely.consumers, lonely.paused) == ("lonely", 1, 0, False)
        await running.revoke(terminate=True)
        await app.control.purge("busy")
    await app.control.purge("lonely")


async def test_a_job_that_was_handed_back_counts_as_waiting(app, nap):
    worker = Worker(app, grace=0.1)
    async with worker:
        running = await nap.delay(600)
        await until_state(running, "STARTED")
    (queue,) = await app.control.queues()
    assert (queue.waiting, queue.running) == (1, 0)
    assert ids((await every_page(app, state="PENDING"))[0]) == [running.id]
    await app.control.purge("default")


async def test_stats_count_what_is_in_no_queue(app, some_of_each):
    stats = await app.control.stats()
    assert (stats.delayed, stats.retrying, stats.waiting_for_parents, stats.dead) == (2, 1, 1, 0)
    assert (stats.schedules, stats.exact) == (0, True)


async def test_stats_count_schedules(app, add):
    await app.schedules.add("sums", add.s(1, 2), every=3600)
    assert (await app.control.stats()).schedules == 1
    await app.schedules.remove("sums")


async def test_calls_of_control_have_blocking_twins(app, add):
    await add.delay(1, 1)

    def use() -> tuple[int, int, int]:
        (queue,) = until_sync(app.control.queues_sync, "the other session to note its queue")
        waiting = queue.waiting
        listed = len(app.control.jobs_sync(queue="default"))
        app.control.pause_sync("default")
        app.control.resume_sync("default")
        assert app.control.workers_sync() == []
        assert app.control.ping_sync(timeout=0.1) == {}
        return waiting, listed, app.control.purge_sync("default")

    assert await asyncio.to_thread(use) == (1, 1, 1)


async def test_ten_thousand_waiting_jobs_are_listed_in_pages(app, add):
    await app.submit([add.s(1, n) for n in range(10_000)])
    found, looked_at = await every_page(app, queue="default", state="PENDING", limit=1000)
    assert len(set(ids(found))) == 10_000
    assert looked_at >= 10_000
    await app.control.purge("default")


@pytest.mark.one_shard
async def test_a_job_whose_message_cannot_be_read_is_listed_without_its_task(app, raw, add):
    result = await add.delay(1, 1)
    stream = app.sessions.shards[0].stream("default")
    await raw.xadd(stream, {"i": "job-1", "m": "nonsense"})
    found, _ = await every_page(app, queue="default")
    assert [(job.id, job.task) for job in found] == [(result.id, add.name), ("job-1", "")]
    await until(lambda: app.control.purge("default"), "the queue to be purged")


async def test_names_and_keys_that_somebody_else_has_written_do_no_harm(app, raw, add):
    keys = app.sessions.shards[0]
    await raw.sadd(keys.levels + "default", "none", "text", b"\xff")
    await raw.set(keys.stream("default^text"), "no stream")
    result = await add.delay(1, 2)
    assert (await app.control.queues())[0].waiting == 1
    assert ids((await every_page(app, queue="default"))[0]) == [result.id]
    assert await app.control.active() == []
    assert await app.control.purge("default") == 1
    await raw.delete(keys.stream("default^text"))  # nobody could read it
