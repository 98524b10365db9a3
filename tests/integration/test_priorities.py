"""Priorities: which of the waiting jobs in a queue is taken first, whatever happens to the jobs before."""

from __future__ import annotations

import asyncio
import signal
from enum import IntEnum
from typing import TYPE_CHECKING

import pytest
from helpers.claiming import ClaimingConsumer
from helpers.inside import session_of
from helpers.notes import lines
from helpers.stopwatch import Stopwatch
from helpers.takeover import take
from helpers.waiting import until, until_state
from helpers.worker_process import worker_process

import asyncq
from asyncq import QueueFull, Retry, TaskRevoked, Worker, chain, group

if TYPE_CHECKING:
    from asyncq import AsyncQ

pytestmark = pytest.mark.anyio


class Urgency(IntEnum):
    LATER = -5
    NOW = 7


async def called(app: AsyncQ, raw, id: str) -> str:
    """Returns the name of the queue in the job's record."""
    record = await raw.get(app.sessions.shards.of(id).records + id)
    return record.split(b" ")[2].decode()


# -- the order -------------------------------------------------------------------------------------


async def test_waiting_jobs_run_level_by_level_from_the_highest_to_the_lowest(app, say, order):
    results = [
        await say.options(priority=level).delay(f"{level}.{n}") for n in range(3) for level in (0, -9, 5, 9)
    ]
    async with Worker(app, concurrency=1):
        await app.ResultSet(results).get(timeout=30)
    assert order == [f"{level}.{n}" for level in (9, 5, 0, -9) for n in range(3)]


async def test_a_later_job_with_a_higher_priority_starts_before_waiting_jobs_and_interrupts_none(
    app, say, order
):
    go = asyncio.Event()

    @app.task
    async def long() -> str:
        await go.wait()
        return "ran to its end"

    async with Worker(app, concurrency=1) as worker:
        running = await long.delay()
        await until_state(running, "STARTED")
        low = await say.delay("low")
        high = await say.options(priority=1).delay("high")
        served = session_of(worker).consumer.served
        await until(lambda: "default^1" in served.streams.values(), "the worker to know the new level")
        assert await running.refresh() == "STARTED"
        go.set()
        assert await running.get(timeout=30) == "ran to its end"
        await app.ResultSet([low, high]).get(timeout=30)
    assert order == ["high", "low"]


async def test_the_order_of_queues_comes_before_the_levels_within_a_queue(app, say, order):
    results = [
        await say.options(queue=queue, priority=level).delay(f"{queue}{level}")
        for queue, level in (("b", 9), ("a", -9), ("b", 0), ("a", 1))
    ]
    async with Worker(app, concurrency=1, queues=["a", "b"]):
        await app.ResultSet(results).get(timeout=30)
    assert order == ["a1", "a-9", "b9", "b0"]


async def test_the_priority_of_a_call_overrides_that_of_its_task_and_children_inherit_none(app, raw):
    @app.task(priority=4)
    async def urgent() -> None:
        pass

    @app.task(priority=Urgency.NOW)
    async def parent() -> str:
        child = await plain.delay()
        return await called(app, raw, child.id)

    @app.task
    async def plain() -> None:
        pass

    names = [
        await called(app, raw, (await task.delay()).id)
        for task in (urgent, urgent.options(priority=0), urgent.options(priority=Urgency.LATER), parent)
    ]
    assert names == ["default^4", "default", "default^-5", "default^7"]
    assert await called(app, raw, (await plain.apply_async(priority=2)).id) == "default^2"
    assert await called(app, raw, (await app.send("elsewhere", priority=3)).id) == "default^3"
    assert await called(app, raw, (await plain.s().set(priority=-1).delay()).id) == "default^-1"
    async with Worker(app, concurrency=1):  # the child does not run beside its parent, which reads its record
        assert await parent.call() == "default"


@pytest.mark.parametrize("wrong", [10, -10, 1.0, "1", True])
async def test_a_priority_is_an_integer_from_minus_nine_to_nine(app, say, wrong):
    with pytest.raises(ValueError, match="from -9 \\(last\\) to 9 \\(first\\)"):
        say.options(priority=wrong)
    with pytest.raises(ValueError, match="priority="):
        app.task(priority=wrong)(lambda: None)


@pytest.mark.one_shard
async def test_a_batch_is_enqueued_to_its_level_and_each_level_has_its_own_maximum_length(make_app, raw):
    async with make_app(max_length=20) as app:

        @app.task
        async def one(n: int) -> int:
            return n

        results = await one.options(priority=3).map([(n,) for n in range(20)])
        await one.map([(n,) for n in range(20)])
        assert await raw.xlen(app.sessions.shards[0].stream("default^3")) == 20
        with pytest.raises(QueueFull, match="queue 'default' holds max_length=20"):
            await one.options(priority=3).delay(1)
        async with Worker(app):
            assert await results.get(timeout=30) == list(range(20))


async def test_every_shard_has_levels(make_app):
    async with make_app(shards=2) as app:

        @app.task
        async def one(n: int) -> int:
            return n

        async with Worker(app):
            results = await one.options(priority=5).map([(n,) for n in range(150)])
            assert await results.get(timeout=30) == list(range(150))
        assert {app.sessions.shards.number(result.id) for result in results} == {0, 1}


# -- workers learn of levels ------------------------------------------------------------------------


async def test_a_new_level_is_served_at_once_by_a_waiting_worker(app, say):
    async with Worker(app):
        assert await say.call("plain") == "plain"
        await asyncio.sleep(0.05)  # by now its read waits at the server
        for level in (1, -1):
            stopwatch = Stopwatch()
            assert await say.options(priority=level).call("new") == "new"
            assert stopwatch.took < 0.1
        assert await say.call("plain again") == "plain again"


@pytest.mark.parametrize("lost", ["news", "subscription"])
async def test_a_new_level_is_found_though_its_message_was_lost(make_app, raw, lost):
    async with make_app(lease=0.6 if lost == "news" else 30) as app:

        @app.task
        async def one() -> int:
            return 1

        async with Worker(app):
            await one.call()
            await raw.sadd(app.sessions.shards[0].levels + "default", "6")  # as if the message was lost
            result = await one.options(priority=6).delay()
            if lost == "subscription":
                await raw.client_kill_filter(_type="pubsub")
            assert await result.get(timeout=30) == 1


@pytest.mark.one_shard
async def test_rubbish_among_the_levels_is_skipped(app, say, raw):
    await raw.sadd(app.sessions.shards[0].levels + "default", "x", "77", "0", b"\xff")
    async with Worker(app):
        await raw.publish(app.sessions.shards[0].new_levels, b"default^\xff")
        await raw.publish(app.sessions.shards[0].new_levels, b"\xff^5")
        assert await say.options(priority=5).call("fine") == "fine"
    streams = [
        key async for key in raw.scan_iter(match=app.sessions.shards[0].queues.replace("[", "\\[") + "*")
    ]
    assert len(streams) == 3, f"queue, last-attempt queue and one level: {streams}"


@pytest.mark.one_shard
async def test_without_levels_a_worker_sends_no_additional_commands(app, say, raw):
    async def calls() -> dict[str, int]:
        stats = await raw.info("commandstats")
        return {
            name: stats.get(f"cmdstat_{name}", {"calls": 0})["calls"]
            for name in ("xreadgroup", "sadd", "smembers", "publish", "spublish")
        }

    async with Worker(app):
        await say.call("warm")
        before = await calls()
        for n in range(20):
            await say.call(str(n))
        after = await calls()
    spent = {name: after[name] - count for name, count in before.items()}
    assert spent["xreadgroup"] <= 21
    assert spent["publish"] + spent["spublish"] == 20, "the outcomes"
    assert spent["sadd"] == 0
    assert spent["smembers"] <= 2, "of heartbeats and observations"


# -- retries, takeovers and other moves ---------------------------------------------------------------


async def test_a_delayed_job_and_a_retried_one_keep_their_level(app, raw):
    attempts = []

    @app.task(priority=4, retry=Retry(max_retries=1, backoff=0.2, jitter=False))
    async def second_time() -> str:
        attempts.append(asyncq.current().attempt)
        if len(attempts) == 1:
            raise ValueError("not yet")
        return await called(app, raw, asyncq.current().id)

    async with Worker(app):
        result = await second_time.options(countdown=0.1).delay()
        assert (await called(app, raw, result.id), result.state) == ("default^4", "SCHEDULED")
        await until_state(result, "RETRY")
        assert (await called(app, raw, result.id), result.queue) == ("default^4", "default")
        assert await result.get(timeout=30) == "default^4"
    assert (attempts, result.queue) == ([1, 2], "default")


@pytest.mark.one_shard
async def test_each_job_of_a_workflow_has_its_own_level(app, raw):
    @app.task
    async def where(*before: object) -> list[str]:
        return [asyncq.current().id]

    steps = chain(
        where.s().set(priority=5),
        group(where.s().set(priority=-2), where.s()),
        where.s().set(priority=9, countdown=0.05),
    )
    last = await steps.delay()
    first = last.parent.parent
    assert await called(app, raw, first.id) == "default^5"
    assert [await called(app, raw, one.id) for one in last.parent.results] == ["default^-2", "default"]
    assert await called(app, raw, last.id) == "default^9"
    async with Worker(app):
        await last.get(timeout=30)
    assert await raw.smembers(app.sessions.shards[0].levels + "default") == {b"5", b"-2", b"9"}


async def test_a_waiting_job_with_a_priority_can_be_revoked(app, say, raw):
    result = await say.options(priority=3).delay("never")
    assert (await result.refresh(), result.queue) == ("PENDING", "default")
    assert await result.revoke(wait=True, timeout=30) == "REVOKED"
    with pytest.raises(TaskRevoked):
        await result.get(timeout=30)
    assert await raw.xlen(app.sessions.shards[0].stream("default^3")) == 0


async def test_a_worker_that_stops_hands_a_job_back_to_its_level(app, raw):
    @app.task(priority=2)
    async def long() -> None:
        await asyncio.sleep(60)

    async with Worker(app, grace=0.05):
        result = await long.delay()
        await until_state(result, "STARTED")
        assert await app.sessions.current().broker.listened_to("default")
    assert await result.refresh() == "PENDING"
    assert await called(app, raw, result.id) == "default^2r"
    await result.revoke()


@pytest.mark.one_shard
async def test_a_worker_that_is_always_busy_with_a_high_level_is_shown_as_serving_all_levels(app, raw):
    result = await app.send("elsewhere", priority=9)
    assert not await app.sessions.current().broker.listened_to("default")
    busy = ClaimingConsumer(app.sessions.current().broker.commands, "busy", ["default"])
    await busy.make_groups()
    await busy.find_levels()
    await raw.hset(app.sessions.shards[0].beats, busy.name, 1)
    assert await busy.read(list(busy.served.streams), 1, block=False)
    assert await app.sessions.current().broker.listened_to("default")
    await result.revoke(terminate=True)
    delivery = ((await busy.unknown_entries(next(iter(busy.served.streams)), []))[0],)
    assert await busy.claims.release(delivery[0][0], [(delivery[0][1], result.id)]) == [2]
    assert await busy.unregister()
    busy.close()


@pytest.mark.one_shard
async def test_a_dead_letter_knows_its_queue_and_is_replayed_with_its_priority(app, raw):
    @app.task(priority=6, retry=Retry(max_retries=1, backoff=0))
    async def fail() -> None:
        raise ValueError

    async with Worker(app):
        result = await fail.delay()
        await result.outcome(timeout=30)
    (letter,) = await app.control.dead.list()
    assert letter.queue == "default"
    again = await app.control.dead.replay(letter.id)
    assert await called(app, raw, again.id) == "default^6"
    await again.revoke()


@pytest.mark.one_shard
async def test_a_job_of_a_dead_worker_returns_to_its_level_and_then_to_the_last_attempt_queue(make_app, raw):
    async with make_app() as app:
        result = await app.send("elsewhere", priority=8)
        worker = ClaimingConsumer(app.sessions.current().broker.commands, "w", ["default"])
        await worker.make_groups()
        await worker.find_levels()
        assert list(worker.served.streams.values()) == ["default^8", "default"]
        for name in ("default^8", "default!"):
            gone = ClaimingConsumer(app.sessions.current().broker.commands, "gone", ["default"])
            await gone.find_levels()
            ((stream, entry, _),) = await gone.read(list(gone.served.streams), 5, block=False)
            # Its body had started. Otherwise the second crash would not count.
            started = worker.served.keys[stream].started + gone.name
            await raw.hset(started, f"{entry} {result.id}", "1")
            await raw.expire(started, 60)
            gone.close()
            assert await take(worker, stream, gone.name, None) == (1, 0, False)
            assert await called(app, raw, result.id) == name
            assert (await result.refresh(), result.queue) == ("PENDING", "default")
        await result.revoke()
        await worker.unregister()
        worker.close()


async def test_jobs_with_priorities_of_a_killed_worker_run_on_another_worker(
    make_app, server_url, namespace, tmp_path
):
    log = tmp_path / "log"
    async with make_app(lease=0.6) as app:
        jobs = [await app.send("logged", (str(log), str(level), 30), priority=level) for level in (5, -5)]
        with worker_process(server_url, namespace, lease=0.6) as worker:
            await until(lambda: len(lines(log)) == 2, "both jobs to start")
            worker.send(signal.SIGKILL)
        ended = []

        @app.task(name="logged")
        async def logged(path: str, word: str, seconds: float) -> str:
            ended.append(word)
            return word

        async with Worker(app):
            assert [await job.get(timeout=30) for job in jobs] == ["5", "-5"]
    assert sorted(ended) == ["-5", "5"]
