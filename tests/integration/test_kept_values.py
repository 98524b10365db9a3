"""Values that several jobs need are stored once, until the last of these jobs has ended."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import pytest
from helpers.ends import ENDS
from helpers.steps import QUEUE, Steps
from helpers.takeover import take

import asyncq
from asyncq import Worker, wire
from asyncq.errors import DecodeError
from asyncq.execution import parent_results
from asyncq.serializers import PLAIN_ARGUMENTS

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

pytestmark = pytest.mark.anyio

VALUE = "v" * 2_000
KEPT = ("h:", "hn:")


@pytest.fixture
async def stage(make_app, raw) -> AsyncIterator[Steps]:
    async with make_app(max_crashes=1) as app, Steps(app.sessions.current().broker, raw) as stage:
        yield stage


async def submit_family(stage: Steps, **options: Any) -> None:
    """Submits a grandparent whose value two jobs need: `parent`, which a test ends in some way,
    and `other`.
    """
    await stage.broker.intake.submit(
        [
            stage.job("grandparent", dependents=("parent", "other")),
            stage.job("parent", parents=("grandparent",), value_template=0, **options),
            stage.job("other", parents=("grandparent",), value_template=0),
        ]
    )
    assert await stage.run(VALUE) == "grandparent"


async def value_of(stage: Steps, delivery: wire.Delivery) -> Any:
    """Returns the value that a worker would pass to the body."""
    shard = stage.broker.shards[0]
    values = await stage.broker.kept.filled(shard, delivery.values)
    [[value], _] = parent_results.arguments(PLAIN_ARGUMENTS, delivery.job, values)
    return value


@pytest.mark.one_shard
async def test_a_long_value_is_stored_once_until_the_last_job_that_needs_it_has_ended(stage):
    names = [f"child{number}" for number in range(20)]
    await stage.broker.intake.submit(
        [
            stage.job("top", dependents=tuple(names)),
            *(stage.job(name, parents=("top",), value_template=0) for name in names),
        ]
    )
    await stage.run(VALUE * 50)
    assert await stage.keys("h:") == ["h:top:n-top"]
    shard = stage.broker.shards[0]
    assert await stage.raw.memory_usage(shard.stream(QUEUE)) < 20_000
    assert await stage.broker.forget("top") == "forgotten"
    await stage.raw.delete(shard.records + "top")
    for left in range(20, 0, -1):
        assert len(await stage.keys("hn:")) == left
        delivery = await stage.claim()
        assert await value_of(stage, delivery) == VALUE * 50
        await stage.end(delivery)
    assert await stage.keys(*KEPT) == []


@pytest.mark.one_shard
@pytest.mark.reads_bytes
async def test_a_value_for_one_job_and_a_short_value_are_stored_in_the_entries(stage):
    await stage.broker.intake.submit(
        [
            stage.job("first", dependents=("one", "two", "callback")),
            stage.job("one", parents=("first",), value_template=0, dependents=("last",)),
            stage.job("two", parents=("first",), value_template=0),
            stage.job("callback", parents=("first",), value_template="e", on_error=True),
            stage.job("last", parents=("one",), value_template=0),
        ]
    )
    await stage.run("short")
    for _ in "12":
        delivery = await stage.claim()
        assert await value_of(stage, delivery) == "short"
        await stage.end(delivery, VALUE)
    assert await stage.keys(*KEPT) == []
    assert parent_results.arguments(PLAIN_ARGUMENTS, *_of(await stage.claim())) == ([VALUE], {})


def _of(delivery: wire.Delivery) -> tuple[wire.Job, bytes]:
    return delivery.job, delivery.values


@pytest.mark.parametrize("way", ENDS)
@pytest.mark.one_shard
async def test_a_job_needs_no_kept_value_after_any_kind_of_end(stage, way):
    await submit_family(stage, dependents=("below",))
    end, _ = ENDS[way]
    assert len(await stage.keys("hn:")) == 2
    await end(stage)
    assert await stage.keys(*KEPT) == ["h:grandparent:n-grandparent", "hn:other"]
    other = await stage.claim(stage.successor)
    assert await value_of(stage, other) == VALUE
    await stage.end(other, by=stage.successor)
    left = await stage.keys(*KEPT)
    if way not in {"dead_letter", "take at the cap"}:
        assert left == []
    else:  # a dead letter may be sent again, and needs the value then
        assert left == ["h:grandparent:n-grandparent"]
        key = stage.broker.shards[0].key_prefix + left[0]
        week = stage.broker.commands.settings.dead_ttl * 1000
        assert week - 60_000 < await stage.raw.pttl(key) <= week


@pytest.mark.one_shard
async def test_a_job_that_moves_to_another_stream_keeps_its_value(stage):
    await submit_family(stage)
    worker, shard = stage.worker, stage.broker.shards[0]

    async def promoted() -> wire.Delivery:
        await stage.broker.commands.send(shard, "ZADD", shard.delayed, "XX", 0, "parent")
        await worker.promote(shard)
        return await stage.claim()

    delivery = await stage.claim()
    other = await stage.claim()
    assert (delivery.job.id, other.job.id) == ("parent", "other")
    await stage.end(other)
    assert await worker.claims.release(delivery.stream, [(delivery.entry, "parent")]) == [1]
    delivery = await stage.claim()
    assert await worker.claims.retry(delivery, 60_000, 1, b"") == 1
    delivery = await promoted()
    assert await worker.claims.defer(delivery, 60_000, b"0 0") == 1
    delivery = await promoted()
    assert await value_of(stage, delivery) == VALUE
    assert await stage.keys(*KEPT) == ["h:grandparent:n-grandparent", "hn:parent"]
    await stage.end(delivery)
    assert await stage.keys(*KEPT) == []


@pytest.mark.one_shard
async def test_a_job_whose_worker_died_reads_its_kept_value_again(make_app, raw):
    async with make_app() as app, Steps(app.sessions.current().broker, raw) as stage:
        await submit_family(stage)
        for _ in "12":
            assert await value_of(stage, await stage.claim()) == VALUE
        [stream] = stage.worker.served.streams
        assert await take(stage.successor, stream, stage.worker.name, "1") == (2, 0, False)
        for _ in "12":
            delivery = await stage.claim(stage.successor)
            assert (delivery.crashes, await value_of(stage, delivery)) == (1, VALUE)
            # Both answers are lost, so each call is sent twice.
            await stage.end(delivery, by=stage.successor)
            outcome = wire.encode_ended(wire.Ended(wire.SUCCEEDED))
            again = [(delivery, wire.SUCCEEDED, outcome)]
            assert await stage.successor.claims.finish_now(stream, again) == [2]
        assert await stage.keys(*KEPT) == []


@pytest.mark.one_shard
async def test_a_job_that_was_replaced_needs_its_kept_value_no_more(stage):
    await submit_family(stage)
    delivery = await stage.claim()
    jobs = [
        stage.job("inner", dependents=("parent",)),
        stage.job("parent", parents=("inner",), value_template=0),
    ]
    assert await stage.worker.claims.replace(delivery, jobs) == 1
    assert await stage.keys("hn:") == ["hn:other"]
    assert await stage.run() == "other"
    assert await stage.keys(*KEPT) == []
    assert await stage.run(VALUE) == "inner"
    assert await stage.run() == "parent"
    assert await stage.keys(*KEPT, "m:", "dep:") == []


@pytest.mark.one_shard
async def test_a_job_that_ends_while_it_waits_for_another_parent_needs_no_kept_value_any_more(stage):
    names = [f"child{number}" for number in range(4)]
    await stage.broker.intake.submit(
        [
            stage.job("late", dependents=tuple(names)),
            stage.job("early", dependents=tuple(names)),
            *(stage.job(name, parents=("late", "early"), value_template=[0, 1]) for name in names),
        ]
    )
    late = await stage.claim()
    assert (late.job.id, await stage.run(VALUE)) == ("late", "early")
    shard = stage.broker.shards[0]
    assert await stage.broker.revoke("child0", signal="c", outcome=b"") == "revoked"
    await stage.raw.hdel(shard.messages + "child1", "p")  # damaged data: the job is given up
    await stage.end(late, VALUE)
    assert await stage.keys("hn:") == ["hn:child2", "hn:child3"]
    for _ in "12":
        delivery = await stage.claim()
        values = await stage.broker.kept.filled(shard, delivery.values)
        assert parent_results.arguments(PLAIN_ARGUMENTS, delivery.job, values)[0] == [[VALUE, VALUE]]
        await stage.end(delivery)
    assert await stage.keys(*KEPT) == []


@pytest.mark.parametrize("damage", ["gone", "no hash", "no count", "no outcome", "rubbish"])
@pytest.mark.one_shard
async def test_a_damaged_kept_value_fails_only_the_jobs_that_need_it(app, raw, damage):
    gate = asyncio.Event()

    @app.task
    async def top() -> str:
        return VALUE

    @app.task
    async def below(value: str) -> int:
        return len(value)

    @app.task
    async def hold() -> None:
        await gate.wait()

    shard = app.sessions.current().broker.shards[0]
    flow = await (top.s() | asyncq.group(*(below.options(queue="later").s() for _ in range(3)))).delay()
    async with Worker(app):
        await flow.parent.get(timeout=10)
    [key] = [key async for key in raw.scan_iter(match=shard.kept + "*")]
    match damage:
        case "gone":
            await raw.delete(key)
        case "no hash":
            await raw.delete(key)
            await raw.set(key, b"\xff")
        case "no count":
            await raw.hset(key, "n", b"\xff")
        case "no outcome":
            await raw.hdel(key, "o")
        case "rubbish":
            await raw.hset(key, mapping={"o": b"\xff", "d": b"9" * 30, "n": b"1"})
    async with Worker(app, queues=["later"]):
        outcomes = [await member.get(timeout=10, propagate=False) for member in flow.results]
    expected = [len(VALUE)] * 3 if damage == "no count" else [DecodeError] * 3
    assert [one if isinstance(one, int) else type(one) for one in outcomes] == expected
    assert [key async for key in raw.scan_iter(match=shard.needs + "*")] == []


@pytest.mark.one_shard
async def test_a_value_of_a_megabyte_reaches_all_jobs_that_need_it(make_app, raw):
    """Also a job that is tried again, a handle that reads the arguments, and a dead letter."""
    tries: list[int] = []
    async with make_app(result_extended=True, max_payload=2_000_000) as app:

        @app.task
        async def top() -> str:
            return "v" * 1_000_000

        @app.task(retry=asyncq.Retry(max_retries=1, backoff=0.01))
        async def below(value: str, number: int) -> int:
            tries.append(number)
            if tries.count(number) == 1:
                raise ValueError(number)
            if number == 2 and tries.count(number) == 2:
                raise ValueError(number)
            return len(value) + number

        held = below.options(countdown=3600).s(9)
        flow = await (top.s() | asyncq.group(below.s(0), below.s(1), below.s(2), held)).delay()
        async with Worker(app):
            assert await flow.results[0].get(timeout=20) == 1_000_000
            assert await flow.results[1].get(timeout=20) == 1_000_001
            with pytest.raises(ValueError, match="2"):
                await flow.results[2].get(timeout=20)
            shard = app.sessions.current().broker.shards[0]
            [key] = [key async for key in raw.scan_iter(match=shard.kept + "*")]
            assert await raw.hget(key, "n") == b"1"
            waiting = app.AsyncResult(flow.results[3].id)
            await waiting.refresh()
            assert waiting.args == ("v" * 1_000_000, 9)
            await waiting.revoke()
            assert await raw.ttl(key) > 0
            [letter] = await app.control.dead.list()
            again = await app.control.dead.replay(letter.id)
            assert await again.get(timeout=20) == 1_000_002
