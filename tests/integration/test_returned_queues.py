"""Returned queues: jobs that a worker had fetched and gives back keep their turn."""

from __future__ import annotations

import asyncio
import contextlib

import pytest
from helpers.claiming import ClaimingConsumer
from helpers.inside import session_of
from helpers.takeover import take
from helpers.waiting import until, until_state

from asyncq import QueueFull, Worker

pytestmark = pytest.mark.anyio


@pytest.fixture
def hold(app, order):
    """A task that is interrupted in its first attempt."""

    @app.task(name="hold")
    async def hold(word: str) -> str:
        if word not in order:
            order.append(word)
            await asyncio.sleep(600)
        order.append(f"{word} again")
        return word

    return hold


async def test_a_job_that_a_stopping_worker_hands_back_runs_before_jobs_that_came_later(
    app, say, hold, order
):
    async with Worker(app, concurrency=1, grace=0):
        first = await hold.delay("first")
        await until_state(first, "STARTED")
        later = [await say.delay(word) for word in "ab"]
    async with Worker(app, concurrency=1):
        await app.ResultSet([first, *later]).get(timeout=30)
    if app.sessions.shards.is_one:
        assert order == ["first", "first again", "a", "b"]


async def test_a_job_that_is_handed_back_keeps_its_level(app, say, hold, order):
    async with Worker(app, concurrency=2, grace=0):
        low = await hold.delay("low")
        middle = await hold.options(priority=3).delay("middle")
        await until_state(low, "STARTED")
        await until_state(middle, "STARTED")
    high = await say.options(priority=5).delay("high")
    same = await say.options(priority=3).delay("same as middle")
    del order[2:]
    async with Worker(app, concurrency=1):
        await app.ResultSet([low, middle, high, same]).get(timeout=30)
    assert order[2:] == ["high", "middle again", "same as middle", "low again"]


async def test_a_worker_that_waits_at_its_queues_learns_of_a_returned_queue_at_once(app, hold, order):
    async with contextlib.AsyncExitStack() as first:
        await first.enter_async_context(Worker(app, concurrency=1, grace=0, name="first"))
        job = await hold.delay("job")
        await until_state(job, "STARTED")
        async with Worker(app, concurrency=1, name="second") as second:
            await first.aclose()
            # The server tells it; it does not wait for its next observation, five seconds later.
            assert await job.get(timeout=3) == "job"
            assert any("^r" in name for name in session_of(second).consumer.served.streams.values())


async def test_jobs_are_claimed_from_the_returned_queue_in_the_order_in_which_they_were_handed_back(app, say):
    async with app:
        consumer = ClaimingConsumer(app.sessions.current().broker.commands, "w", ["default"])
        await consumer.make_groups()
        for number in range(6):
            await say.options(task_id=f"{number}").delay("x")
        deliveries = [
            consumer.delivery(item)
            for stream in list(consumer.served.streams)
            for item in await consumer.read([stream], 4, block=False)
        ]
        for stream in {one.stream for one in deliveries}:
            jobs = [(one.entry, one.job.id) for one in deliveries if one.stream == stream]
            assert await consumer.claims.release(stream, jobs) == [1] * len(jobs)
            await consumer.read_returned_queue(stream)
        again: list[str] = []
        while found := await consumer.read(list(consumer.served.streams), 6, block=False):
            again += [consumer.delivery(item).job.id for item in found]
        if app.sessions.shards.is_one:
            assert again == ["0", "1", "2", "3", "4", "5"]
        consumer.close()


@pytest.mark.one_shard
async def test_a_read_of_several_streams_claims_no_more_than_it_asks_for(app, say):
    async with app:
        consumer = ClaimingConsumer(app.sessions.current().broker.commands, "w", ["default"])
        await consumer.make_groups()
        for number in range(4):
            await say.options(task_id=f"low-{number}").delay("x")
            await say.options(task_id=f"high-{number}", priority=1).delay("x")
        await consumer.find_levels()
        claimed = []
        while found := await consumer.read(list(consumer.served.streams), 3, block=False):
            assert len(found) <= 3
            claimed += [consumer.delivery(item).job.id for item in found]
        assert [id_.split("-")[0] for id_ in claimed] == ["high"] * 4 + ["low"] * 4
        consumer.close()


async def test_the_limit_of_a_queue_counts_jobs_that_were_handed_back(make_app, raw):
    app = make_app(max_length=3)

    @app.task
    async def job() -> None:
        await asyncio.sleep(600)

    async with app:
        async with Worker(app, concurrency=3, grace=0) as worker:
            results = [await job.delay() for _ in range(3)]
            for result in results:
                await until_state(result, "STARTED")
            assert len(session_of(worker).held) == 3
        with pytest.raises(QueueFull):
            await until(lambda: _enqueue(job), "the queue to be full")


async def _enqueue(job) -> None:
    await job.delay()


async def test_a_job_that_may_have_killed_its_worker_goes_to_the_end_of_its_queue(app, say, order):
    async with app:
        consumer = ClaimingConsumer(app.sessions.current().broker.commands, "dead", ["default"])
        await consumer.make_groups()
        results = [await say.delay(word) for word in "ab"]
        keys = app.sessions.shards.of(results[0].id)
        assert await consumer.read([keys.stream("default")], 1, block=False)
        other = ClaimingConsumer(app.sessions.current().broker.commands, "other", ["default"])
        assert await take(other, keys.stream("default"), consumer.name, None) == (1, 0, False)
        async with Worker(app, concurrency=1):
            await app.ResultSet(results).get(timeout=30)
        if app.sessions.shards.is_one:
            assert order == ["b", "a"]
        assert (await results[0].outcome()).attempts == 2
        consumer.close()
        other.close()
