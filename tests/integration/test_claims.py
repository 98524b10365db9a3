"""`Claims` ends every claim: a hook is called for every kind of end."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

import pytest
from helpers.ends import ENDS
from helpers.inside import session_of
from helpers.steps import QUEUE, Steps
from helpers.waiting import until

from asyncq import Worker, wire
from asyncq.broker.claims import ClaimEnd, Way

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

pytestmark = pytest.mark.anyio

BY_END = {
    **{f"finish {letter}": Way.FINISHED for letter in "SFCE"},
    "dead_letter": Way.DEAD,
    "quarantine": Way.UNREADABLE,
    "retry of a signalled job": Way.RETRIED,
    "release of a signalled job": Way.RELEASED,
    "replace of a signalled job": Way.REPLACED,
    "take at the cap": Way.LOST,
}


@pytest.fixture
async def stage(make_app, raw) -> AsyncIterator[Steps]:
    async with make_app(max_crashes=1) as app, Steps(app.sessions.current().broker, raw) as stage:
        await stage.broker.intake.submit([stage.job("parent")])
        yield stage


@pytest.fixture
def received(stage) -> list[ClaimEnd]:
    received: list[ClaimEnd] = []
    for worker in (stage.worker, stage.successor):
        worker.claims.hooks.append(received.append)
    return received


@pytest.mark.parametrize("end", BY_END)
@pytest.mark.one_shard
async def test_a_hook_is_called_for_every_kind_of_end_of_a_job(stage, received, end):
    play, letter = ENDS[end]
    await play(stage)
    (one,) = received
    assert (one.way, one.stream) == (BY_END[end], stage.broker.shards[0].stream(QUEUE))
    assert one.id == ("" if one.way is Way.UNREADABLE else "parent")
    ended_as_requested = one.way in {Way.FINISHED, Way.DEAD, Way.UNREADABLE, Way.LOST}
    assert (one.letter, one.answer) == (letter if ended_as_requested else "", 1 if ended_as_requested else 2)


@pytest.mark.one_shard
async def test_a_hook_is_called_when_a_claim_ends_and_the_job_goes_on(stage, received):
    delivery = await stage.claim()
    assert await stage.worker.claims.retry(delivery, 0, 1, b"") == 1
    await stage.worker.promote(stage.broker.shards[0])
    delivery = await stage.claim()
    assert await stage.worker.claims.defer(delivery, 0, b"") == 1
    await stage.worker.promote(stage.broker.shards[0])
    delivery = await stage.claim()
    assert await stage.worker.claims.release(delivery.stream, [(delivery.entry, "parent")]) == [1]
    delivery = await stage.claim()
    assert await stage.worker.claims.replace(delivery, [stage.job("new"), stage.job("parent")]) == 1
    assert [one.way for one in received] == [Way.RETRIED, Way.DEFERRED, Way.RELEASED, Way.REPLACED]
    assert [one.answer for one in received] == [1, 1, 1, 1]


async def test_a_hook_is_called_when_an_end_was_refused(stage, received):
    delivery = await stage.claim()
    await stage.end(delivery, 1)
    assert await stage.successor.claims.finish_now(delivery.stream, [(delivery, wire.FAILED, b"")]) == [0]
    assert [(one.letter, one.answer) for one in received] == [("S", 1), ("F", 0)]


async def test_a_replacement_whose_id_is_in_use_keeps_the_claim_and_calls_no_hook(stage, received):
    delivery = await stage.claim()
    await stage.broker.intake.submit([stage.job("taken")])
    other = wire.Job("taken", "t", QUEUE, b"", "another call", "", 0, 100_000)
    jobs = [(other, wire.encode_job(other)), stage.job("parent")]
    assert await stage.worker.claims.replace(delivery, jobs) == -1
    assert received == []


async def test_a_worker_releases_a_job_whose_hook_fails(app, add, caplog):
    def fail(_end: ClaimEnd) -> None:
        raise RuntimeError("a fault of the hook")

    received: list[Any] = []
    async with Worker(app) as worker:
        session_of(worker).attempts.outcomes.claims.hooks += [fail, received.append]
        assert await add.call(1, 2) == 3
        await until(lambda: not session_of(worker).held, "the worker to release the job")
    assert [(one.way, one.letter) for one in received] == [(Way.FINISHED, "S")]
    (record,) = [one for one in caplog.records if one.levelno == logging.ERROR]
    assert (record.name, record.exc_info[1].args) == ("asyncq.broker.claims", ("a fault of the hook",))
