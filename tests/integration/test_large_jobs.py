"""Jobs and outcomes of a megabyte. No single call moves many of them, because that would block the server."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from helpers.steps import QUEUE, Steps
from helpers.takeover import take
from helpers.waiting import until

from asyncq import wire
from asyncq.broker.claims import MOST_UNDER_WAY
from asyncq.broker.schema.keys import token

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

pytestmark = pytest.mark.anyio

BODY = "x" * 1_000_000
JOBS = 12
MOST = 9
"""The largest number of these jobs in one call: eight megabytes, and the rest of the last job."""


@pytest.fixture
async def stage(app, raw) -> AsyncIterator[Steps]:
    async with Steps(app.sessions.current().broker, raw) as stage:
        yield stage


async def enqueue(stage: Steps, **options: Any) -> None:
    jobs = [stage.job(f"job{number}", BODY, **options) for number in range(JOBS)]
    await stage.broker.intake.enqueue_many(jobs)


async def claim(stage: Steps) -> list[wire.Delivery]:
    [stream] = stage.worker.served.streams
    return [stage.worker.delivery(entry) for entry in await stage.worker.read([stream], JOBS, block=False)]


@pytest.mark.one_shard
async def test_large_jobs_of_a_dead_worker_are_recovered_and_handed_back_some_at_a_time(stage):
    await enqueue(stage)
    held = await claim(stage)
    stream = held[0].stream
    calls = 0
    has_more = True
    while has_more:
        back, _, has_more = await take(stage.successor, stream, stage.worker.name, "1")
        assert back <= MOST
        calls += back > 0
    assert calls == 2
    names = await stage.raw.xinfo_consumers(stream, "g")
    assert stage.worker.name.encode() not in [one["name"] for one in names]
    # The other worker session reads all of them, and hands them back.
    entries = await stage.successor.read([stream], JOBS, block=False)
    deliveries = [stage.successor.delivery(entry) for entry in entries]
    assert sorted(one.job.id for one in deliveries) == sorted(f"job{number}" for number in range(JOBS))
    jobs = [(one.entry, one.job.id) for one in deliveries]
    before = await _calls(stage.raw)
    assert await stage.successor.claims.release(stream, jobs) == [1] * JOBS
    assert await _calls(stage.raw) - before == 2
    assert await stage.raw.xlen(f"{stream}^r") == JOBS


@pytest.mark.one_shard
async def test_large_jobs_that_are_due_are_moved_some_at_a_time(stage):
    await enqueue(stage, wait=1)
    shard = stage.broker.shards[0]
    await until(lambda: _is_due(stage), "all are due")
    assert await stage.worker.promote(shard) == 0.0
    assert await stage.raw.zcard(shard.delayed) == JOBS - MOST
    assert await stage.worker.promote(shard) is None
    assert await stage.raw.xlen(shard.stream(QUEUE)) == JOBS


@pytest.mark.one_shard
async def test_jobs_with_large_outcomes_end_some_at_a_time(stage):
    await stage.broker.intake.enqueue_many([stage.job(f"job{number}") for number in range(JOBS)])
    outcome = wire.encode_ended(wire.Ended(wire.SUCCEEDED, BODY.encode(), 1, 2, 1, "w", "t", QUEUE, 0))
    held = await claim(stage)
    before = await _calls(stage.raw)
    for delivery in held:
        stage.worker.claims.finish(delivery, wire.SUCCEEDED, outcome)
    await stage.worker.claims.drain()
    # At first each goes alone, because it is large, and then as many together as one call may take.
    assert 3 <= await _calls(stage.raw) - before <= MOST_UNDER_WAY + 3
    assert {await stage.state(delivery.job.id) for delivery in held} == {"SUCCESS"}


async def _is_due(stage: Steps) -> bool:
    [(_, due)] = await stage.raw.zrange(stage.broker.shards[0].delayed, -1, -1, withscores=True)
    seconds, micros = await stage.raw.time()
    return seconds * 1000 + micros / 1000 > due


async def _calls(raw: Any) -> int:
    return (await raw.info("commandstats"))["cmdstat_evalsha"]["calls"]


@pytest.mark.one_shard
async def test_a_read_requests_fewer_jobs_where_they_are_large_and_more_where_they_are_small(
    stage, monkeypatch
):
    monkeypatch.setattr("asyncq.broker.read_limit.ENOUGH_BYTES", 4_200_000)

    async def read(body: str) -> list[int]:
        """Reads twelve jobs. Returns how many came in each read."""
        await stage.broker.intake.enqueue_many([stage.job(token(), body) for _ in range(JOBS)])
        counts = []
        while claimed := await claim(stage):
            counts.append(len(claimed))
            for delivery in claimed:
                await stage.end(delivery)
        return counts

    assert await read(BODY) == [12]
    assert await read(BODY) == [4, 4, 4], "at most four megabytes"
    assert await read("small") == [4, 8], "twice as many"
    assert await read("small") == [12]
