"""A job ends for which many wait. No single call notifies all of them,
because that would block the server.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from helpers.steps import QUEUE, Steps

from asyncq import wire
from asyncq.execution import parent_results
from asyncq.serializers import PLAIN_ARGUMENTS
from asyncq.states import State

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

pytestmark = pytest.mark.anyio

MOST = 250
MANY = 2 * MOST + 100
VALUE = "long" * 500
CHILDREN = [f"child{number}" for number in range(MANY)]


@pytest.fixture
async def stage(app, raw) -> AsyncIterator[Steps]:
    async with Steps(app.sessions.current().broker, raw) as stage:
        yield stage


async def submit_group(stage: Steps) -> wire.Delivery:
    """Claims a job for which many jobs wait. One more job waits for each of these."""
    jobs = [stage.job("top", dependents=tuple(CHILDREN))]
    jobs += [stage.job(one, parents=("top",), value_template=0, dependents=(f"{one}.1",)) for one in CHILDREN]
    jobs += [stage.job(f"{one}.1", parents=(one,), value_template=None) for one in CHILDREN]
    await stage.broker.intake.submit(jobs)
    delivery = await stage.claim()
    assert delivery is not None
    return delivery


async def states(stage: Steps, names: list[str]) -> set[Any]:
    records = await stage.raw.mget([stage.broker.shards[0].records + name for name in names])
    return {wire.STATE_OF[chr(record[0])] if record else None for record in records}


async def free(stage: Steps) -> int:
    return await stage.raw.xlen(stage.broker.shards[0].stream(QUEUE))


@pytest.mark.one_shard
async def test_many_dependents_of_one_job_are_released_some_at_a_time(stage):
    await stage.end(await submit_group(stage), VALUE)
    shard = stage.broker.shards[0]
    await stage.broker.forget("top")
    counts = [await free(stage)]
    while (wait := await stage.worker.promote(shard)) == 0.0:
        counts.append(await free(stage))
    assert (counts, await free(stage), wait) == ([MOST, 2 * MOST], MANY, None)
    assert await stage.keys("rest:", "dep:top", "d") == [f"dep:{one}" for one in sorted(CHILDREN)]
    [stream] = stage.worker.served.streams
    outcome = wire.encode_ended(wire.Ended(wire.SUCCEEDED))
    ended = 0
    while ended < MANY:
        entries = await stage.worker.read([stream], min(100, MANY - ended), block=False)
        batch = [(stage.worker.delivery(entry), wire.SUCCEEDED, outcome) for entry in entries]
        job = batch[-1][0]
        values = await stage.broker.kept.filled(shard, job.values)
        assert parent_results.arguments(PLAIN_ARGUMENTS, job.job, values)[0] == [VALUE]
        assert await stage.worker.claims.finish_now(stream, batch) == len(batch)
        ended += len(batch)
    assert await free(stage) == MANY, "the jobs behind them"
    assert await stage.keys("h:", "hn:", "rest:", "dep:", "d") == []


@pytest.mark.one_shard
async def test_the_last_dependents_keep_the_value_though_all_others_ended_as_dead_letters(
    stage,
):
    jobs = [stage.job("top", dependents=tuple(CHILDREN[: MOST + 2]))]
    jobs += [stage.job(one, parents=("top",), value_template=0) for one in CHILDREN[: MOST + 2]]
    await stage.broker.intake.submit(jobs)
    await stage.run(VALUE)
    delivery = await stage.claim()
    assert await stage.worker.claims.dead_letter(delivery, b"", "retries used up") == 1
    for _ in range(MOST - 1):
        await stage.run()
    shard = stage.broker.shards[0]
    [kept] = await stage.keys("h:")
    assert await stage.worker.promote(shard) is None
    assert await free(stage) == 2
    assert await stage.raw.pttl(shard.key_prefix + kept) == -1, "it does not end before those that need it"
    for _ in "12":
        await stage.run()
    assert await stage.raw.pttl(shard.key_prefix + kept) > 0, "a dead letter may be sent again"


@pytest.mark.parametrize("way", ["fails", "is revoked"])
@pytest.mark.one_shard
async def test_dependents_of_a_job_without_a_value_end_some_at_a_time_at_every_depth(stage, way):
    delivery = await submit_group(stage)
    shard = stage.broker.shards[0]
    if way == "fails":
        await stage.end(delivery, b"failure", wire.FAILED)
    else:
        assert (await stage.worker.claims.release(delivery.stream, [(delivery.entry, "top")])) == [1]
        assert await stage.broker.revoke("top", signal="c", outcome=b"") == "revoked"
    everybody = [*CHILDREN, *(f"{one}.1" for one in CHILDREN)]
    expected = State.FAILURE if way == "fails" else State.REVOKED
    assert await states(stage, everybody) == {expected, State.PENDING}
    calls = 1
    while await stage.worker.promote(shard) == 0.0:
        calls += 1
    assert await states(stage, everybody) == {expected}
    assert 2 * MANY / MOST <= calls < 30
    ended = await stage.ended(f"{CHILDREN[-1]}.1")
    assert ended.member == ("top", "t" if way == "fails" else "")
    assert await stage.keys("h:", "rest:", "dep:", "m:", "d") == []


@pytest.mark.one_shard
async def test_the_remaining_dependents_fail_if_the_outcome_that_they_need_is_deleted(stage):
    await stage.end(await submit_group(stage), "value")
    shard = stage.broker.shards[0]
    [kept] = await stage.keys("h:")
    await stage.raw.delete(shard.key_prefix + kept)
    while await stage.worker.promote(shard) == 0.0:
        pass
    assert await states(stage, CHILDREN) == {State.PENDING, State.FAILURE}
    assert await free(stage) == MOST
    assert await stage.keys("h:", "rest:") == []
    assert len(await stage.keys("d")) == MOST, "the dependents of the released jobs"


async def test_damaged_data_of_a_remaining_dependent_delays_no_other_job(stage):
    shard, raw = stage.broker.shards[0], stage.raw
    await raw.set(shard.undelivered + "no:stream", b"\xff")
    await raw.xadd(shard.undelivered + "no:edges", {b"\xff": b"\xff \xff"})
    await raw.zadd(shard.delayed, {" no:stream": 0, " no:edges": 0, " ": 0, " \xff": 0})
    await stage.broker.intake.enqueue_many([stage.job("job", wait=1)])
    await raw.zadd(shard.delayed, {"job": 1})
    wait = await stage.worker.promote(shard)
    assert 50 < wait <= 60
    assert await raw.zrange(shard.delayed, 0, -1) == [b" no:stream"]
    assert await stage.run() == "job"
    await raw.delete(shard.undelivered + "no:stream", shard.delayed)
