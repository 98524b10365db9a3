"""Purges: which jobs end, who is told, and that a long queue holds up nobody."""

from __future__ import annotations

import asyncio
import time

import pytest
from helpers.waiting import until, until_state

from asyncq import TaskRevoked, Worker, chain
from asyncq.broker.schema.keys import GROUP

pytestmark = pytest.mark.anyio

SEVERAL = 10_000


async def test_the_jobs_that_wait_end_as_revoked_and_their_waiters_wake_at_once(app, add):
    results = [await add.options(priority=level).delay(1, level) for level in (0, 5, -5) for _ in range(3)]
    waits = asyncio.gather(*(result.outcome(timeout=30) for result in results))
    await asyncio.sleep(0)
    assert await app.control.purge("default") == 9
    outcomes = await asyncio.wait_for(waits, 2)
    assert {outcome.state for outcome in outcomes} == {"REVOKED"}
    with pytest.raises(TaskRevoked, match="its queue was purged"):
        await results[0].get(timeout=1)
    assert await app.control.purge("default") == 0
    async with Worker(app) as worker:
        assert await add.call(1, 1) == 2
    assert worker.done == 1


async def test_the_waiters_of_one_client_learn_it_from_one_message_for_many_jobs(app, raw, add):
    results = await app.submit([add.s(1, n) for n in range(1000)])
    waits = [asyncio.create_task(result.outcome(timeout=30)) for result in results]
    await asyncio.sleep(0)

    async def published() -> int:
        stats = await raw.info("commandstats")
        names = "cmdstat_publish", "cmdstat_spublish"  # the second one on a Cluster
        return sum(stats[name]["calls"] for name in names if name in stats)

    before = await published()
    assert await app.control.purge("default") == 1000
    assert {outcome.state for outcome in await asyncio.gather(*waits)} == {"REVOKED"}
    assert 10 <= await published() - before <= 20, "jobs end a hundred at a time"


@pytest.mark.one_shard
async def test_long_messages_end_a_step_early(app, raw, add):
    @app.task(name="heavy", ignore_result=True)
    async def heavy(data: bytes) -> None: ...

    await heavy.map([(bytes(300_000),)] * 12)
    keys = app.sessions.shards[0]
    until_ms, words = 2**50, (100, 1024 * 1024, b"", 60_000, 1000)
    stream = (keys.stream("default"),)
    arguments = (keys.key_prefix, GROUP, until_ms, *words)
    broker = app.sessions.current().broker
    steps = []
    while not steps or steps[-1][1]:
        steps.append(await broker.commands.run(keys, "purge", stream, arguments))
    counts = [count for count, _ in steps]
    assert sum(counts) == 12
    assert len([count for count in counts if count]) >= 3, "no more after 1 MiB"


async def test_what_a_worker_has_and_what_waits_for_its_time_goes_on(app, add, nap):
    later = await add.options(countdown=0.5).delay(2, 2)
    async with Worker(app, concurrency=1):
        running = await nap.delay(0.3)
        await until_state(running, "STARTED")
        waiting = [await add.delay(n, 1) for n in range(5)]
        assert await app.control.purge("default") == 5
        assert await running.get(timeout=30) == 0.3
        assert await later.get(timeout=30) == 4
    assert {await result.refresh() for result in waiting} == {"REVOKED"}


async def test_only_jobs_that_are_old_enough_end(app, add):
    old = await add.delay(1, 1)
    await asyncio.sleep(0.3)
    new = await add.delay(1, 2)
    assert await app.control.purge("default", older_than=60) == 0
    assert await app.control.purge("default", older_than=0.2) == 1
    assert [await result.refresh() for result in (old, new)] == ["REVOKED", "PENDING"]


async def test_the_jobs_that_wait_for_a_purged_job_end_with_it(app, add):
    last = await chain(add.s(1, 1), add.s(2), add.s(3)).delay()
    assert await app.control.purge("default") == 1
    with pytest.raises(TaskRevoked):
        await last.get(timeout=5)
    assert await last.parent.refresh() == "REVOKED"


async def test_other_queues_stay_as_they_are(app, add):
    kept = await add.options(queue="other").delay(1, 1)
    await add.delay(1, 1)
    assert await app.control.purge("default") == 1
    assert await kept.refresh() == "PENDING"
    with pytest.raises(ValueError, match="cannot be a name"):
        await app.control.purge("default^5")


async def test_an_entry_that_belongs_to_no_job_is_deleted_and_not_counted(app, raw):
    stream = app.sessions.shards[0].stream("default")
    await raw.xadd(stream, {"not": "ours"})
    assert await app.control.purge("default") == 0
    assert await raw.xlen(stream) == 0


async def test_a_purge_ends_though_jobs_keep_coming_and_leaves_those(app, add):
    go_on = True
    added = []

    async def produce() -> None:
        while go_on:
            added.append(await add.delay(1, 1))

    await app.submit([add.s(1, n) for n in range(2000)])
    producer = asyncio.create_task(produce())
    await until(lambda: len(added) > 20, "the producer to begin")
    ended = await asyncio.wait_for(app.control.purge("default"), 30)
    go_on = False
    await producer
    (queue,) = await app.control.queues()
    assert ended >= 2000
    assert queue.waiting == 2000 + len(added) - ended


async def test_a_purge_of_a_long_queue_in_three_shards_ends_every_job_once(make_app):
    async with make_app(shards=3) as app:

        @app.task(ignore_result=True)
        async def idle() -> None: ...

        await idle.map([() for _ in range(3000)])
        assert sum(await asyncio.gather(*(app.control.purge("default") for _ in range(3)))) == 3000
        assert (await app.control.queues())[0].waiting == 0


async def test_other_calls_are_answered_while_a_long_queue_is_purged(app, raw, add):
    await app.submit([add.s(1, n) for n in range(SEVERAL)])
    purge = asyncio.create_task(app.control.purge("default"))
    slowest = 0.0
    while not purge.done():
        began = time.monotonic()
        await raw.ping()
        slowest = max(slowest, time.monotonic() - began)
    assert await purge == SEVERAL
    assert slowest < 0.5
