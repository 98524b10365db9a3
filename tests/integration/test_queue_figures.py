"""Queues are measured as they are, and each is reported by one of all that ask."""

from __future__ import annotations

import asyncio

import pytest
from helpers.waiting import until, until_state

from asyncq import Worker
from asyncq.broker.queue_figures import NamespaceFigures, QueueMeter

pytestmark = pytest.mark.anyio


def _meter(app, *queues: str, lease: float = 30) -> QueueMeter:
    return QueueMeter(app.sessions.current().broker.commands, queues or ["default"], lease)


async def test_jobs_that_wait_are_counted_whatever_their_priority_and_no_others(app, add, nap):
    meter = _meter(app, "default", "mail")
    assert (await meter.measure()).queues == {"default": (0, 0.0, 0), "mail": (0, 0.0, 0)}
    await add.map([(1, 2), (3, 4)])
    for priority in (5, -3):
        await add.options(priority=priority).delay(1, 2)
    await add.options(countdown=60).delay(1, 2)
    await add.options(queue="mail").delay(1, 2)
    queues = (await meter.measure()).queues
    assert [queues[name].waiting for name in ("default", "mail")] == [4, 1]
    async with Worker(app, queues=["default"]):
        await until(lambda: _is_empty(meter), "the worker to run them")
    assert (await meter.measure()).queues["mail"].waiting == 1


async def _is_empty(meter: QueueMeter) -> bool:
    return (await meter.measure()).queues["default"] == (0, 0.0, 0)


async def test_a_running_job_does_not_wait_and_the_oldest_of_the_others_has_its_age(app, nap):
    meter = _meter(app)
    async with Worker(app, concurrency=1, grace=0):
        running = await nap.delay(60)
        await until_state(running, "STARTED")
        first = await nap.delay(60)
        began = asyncio.get_running_loop().time()
        await until(lambda: _age(meter, 0.1), "a job to have waited")
        await nap.delay(60)
        figures = (await meter.measure()).queues["default"]
        assert (figures.waiting, figures.running) == (2, 1)
        assert 0.1 <= figures.oldest <= asyncio.get_running_loop().time() - began + 5
        await first.revoke()
        younger = (await meter.measure()).queues["default"]
        assert younger.waiting == 1
        assert younger.oldest < figures.oldest


async def _age(meter: QueueMeter, least: float) -> bool:
    return (await meter.measure()).queues["default"].oldest >= least


async def test_each_queue_has_one_reporter_and_another_follows_when_it_has_ended(app):
    first, second = _meter(app, "a", lease=1), _meter(app, "a", "b", lease=1)
    assert (await first.measure()).queues.keys() == {"a"}
    figures = await second.measure()
    assert figures.queues.keys() == {"b"}
    assert figures.namespace is None, "the first one reports it"
    for _ in range(3):
        assert (await first.measure()).namespace == NamespaceFigures(workers=0, dead=0)
        assert (await second.measure()).queues.keys() == {"b"}
    await until(lambda: _has(second, "a"), "the lease to end", every=0.05)
    assert (await first.measure()) == ({}, None)


async def _has(meter: QueueMeter, queue: str) -> bool:
    return queue in (await meter.measure()).queues


async def test_workers_and_dead_letters_of_the_namespace_are_counted(app):
    @app.task(name="gone")
    async def gone() -> None: ...

    await gone.delay()
    del app.tasks["gone"]
    async with Worker(app):
        await until(lambda: _counts(app, NamespaceFigures(1, 1)), "the job to become a dead letter")


async def _counts(app, expected: NamespaceFigures) -> bool:
    # Another meter would not get the lease.
    meter = _meter(app, lease=0.001)
    await asyncio.sleep(0.005)
    return (await meter.measure()).namespace == expected


async def test_the_jobs_of_all_shards_are_counted(make_app):
    async with make_app(shards=3) as app:

        @app.task
        async def add(x: int, y: int) -> int:
            return x + y

        await add.map([(x, x) for x in range(30)])
        meter = _meter(app)
        assert (await meter.measure()).queues["default"].waiting == 30
        assert (await _meter(app).measure()) == ({}, None)


async def test_names_and_keys_that_somebody_else_has_written_do_no_harm(app, raw, add):
    keys = app.sessions.current().broker.shards[0]
    await raw.sadd(keys.levels + "default", "none", "text", b"\xff")
    await raw.set(keys.stream("default^text"), "no stream")
    await add.delay(1, 2)
    assert (await _meter(app).measure()).queues["default"].waiting == 1
    await raw.delete(keys.stream("default^text"))  # nobody could read it
