"""A workflow that is too large for one step of the server is accepted as a whole, and delivered in parts."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from helpers.figures import report
from helpers.inside import forwards_nothing
from helpers.steps import QUEUE, Steps

from asyncq import QueueFull, Worker, chain, group, wire
from asyncq.broker.cross_shard import submission
from asyncq.states import State

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

pytestmark = pytest.mark.anyio

PART = 4


class Large(Steps):
    """Submits workflows. Only the test delivers their batches."""

    def row(self, length: int) -> list[tuple[wire.Job, bytes]]:
        """Returns the jobs of a chain."""
        return [
            self.job(
                f"step{n}",
                parents=(f"step{n - 1}",) if n else (),
                value_template=0 if n else None,
                dependents=(f"step{n + 1}",) if n + 1 < length else (),
            )
            for n in range(length)
        ]

    async def deliver(self, most: int = 1000) -> int:
        """Delivers the next batches, and returns how many."""
        forwarder, shard = self.broker.commands.forwarder, self.broker.shards[0]
        reading = await forwarder.read(shard)
        letters = reading.entries[:most]
        await forwarder.deliver(reading._replace(entries=letters))
        return len(letters)

    async def waiting(self) -> int:
        """Returns how many jobs can be claimed."""
        return await self.raw.xlen(self.broker.shards[0].stream(QUEUE))


@pytest.fixture
async def stage(make_app, raw, monkeypatch) -> AsyncIterator[Large]:
    monkeypatch.setattr(submission, "BATCH", PART)
    async with make_app(shards=1, max_length=20) as app:
        broker = app.sessions.current().broker
        forwards_nothing(monkeypatch, broker.commands.forwarder)
        async with Large(broker, raw) as stage:
            yield stage


async def test_the_first_job_of_a_chain_is_enqueued_when_all_other_jobs_are(stage):
    await stage.broker.intake.submit(stage.row(11))
    for _ in range(2):
        assert await stage.claim() is None
        assert await stage.deliver(1) == 1
    assert await stage.deliver(1) == 0
    for n in range(11):
        delivery = await stage.claim()
        assert delivery.job.id == f"step{n}"
        await stage.end(delivery, n)
    assert await stage.claim() is None


async def test_members_of_a_large_group_start_in_order_and_their_callback_gets_all_values(stage):
    members = [f"m{n}" for n in range(18)]
    jobs = [stage.job(one, dependents=("last",)) for one in members]
    jobs.append(stage.job("last", parents=tuple(members), value_template=list(range(18))))
    await stage.broker.intake.submit(jobs)
    assert await stage.waiting() == PART - 1, "the callback is in the queue before them"
    await stage.end(await stage.claim(), 0)
    while await stage.deliver(2):
        pass
    for n in range(1, 18):
        delivery = await stage.claim()
        assert delivery.job.id == f"m{n}"
        await stage.end(delivery, n)
    assert (await stage.claim()).job.id == "last"


async def test_batches_that_are_delivered_again_change_nothing(stage):
    await stage.broker.intake.submit(stage.row(10))
    forwarder, shard = stage.broker.commands.forwarder, stage.broker.shards[0]
    late = await forwarder.read(shard)
    for n in range(10):
        await forwarder.deliver(late)
        delivery = await stage.claim()
        assert delivery.job.id == f"step{n}"
        await stage.end(delivery, n)
    await forwarder.deliver(late)
    assert await stage.claim() is None


@pytest.mark.parametrize("verb", ["state", "fetch_status", "forget"])
async def test_a_query_finds_a_job_that_nobody_has_delivered_yet(stage, monkeypatch, verb):
    await stage.broker.intake.submit(stage.row(10))
    monkeypatch.undo()  # the client that submitted it is dead, and there is no worker
    ask = getattr(stage.broker, verb)
    answer = await ask(["step0"] if verb == "fetch_status" else "step0")
    assert answer not in (None, [None], "unknown")
    assert await stage.broker.revoke("step0", signal="c", outcome=b"") == "revoked"
    assert await stage.state("step9") is State.REVOKED


async def test_a_full_queue_counts_all_jobs_of_a_workflow_and_accepts_none(stage):
    for wait in (1000, None):
        jobs = [stage.job(f"{wait}{n}", wait=wait) for n in range(21)]
        with pytest.raises(QueueFull, match="wait for their time" if wait else "holds"):
            await stage.broker.intake.submit(jobs)
        assert (await stage.waiting(), await stage.deliver()) == (0, 0)
        await stage.broker.intake.submit(jobs[:20])
        while await stage.deliver():
            pass
    assert await stage.waiting() == 20


async def test_a_workflow_is_refused_if_an_id_is_in_use_or_occurs_twice(stage):
    await stage.broker.intake.submit([stage.job("step1")])
    await stage.claim()
    jobs = stage.row(10)
    jobs[1][0].request_id = "other"
    with pytest.raises(ValueError, match="step1"):
        await stage.broker.intake.submit(jobs)
    with pytest.raises(ValueError, match="m0"):
        await stage.broker.intake.submit([stage.job(f"m{n % 8}") for n in range(9)])
    assert await stage.deliver() == 0


async def test_a_workflow_that_is_sent_again_after_a_lost_answer_is_accepted_once(stage):
    jobs = stage.row(10)
    await stage.broker.intake.submit(jobs)
    await stage.broker.intake.submit(jobs)
    assert await stage.deliver() == 2


async def test_a_job_is_replaced_by_a_large_workflow(stage):
    await stage.broker.intake.submit([stage.job("first")])
    instead = stage.row(9)
    instead[-1][0].dependents = ("first",)
    delivery = await stage.claim()
    instead.append(stage.job("first", parents=("step8",), value_template=0))
    assert await stage.worker.claims.replace(delivery, instead) == 1
    assert await stage.claim() is None
    while await stage.deliver():
        pass
    for name in (*(f"step{n}" for n in range(9)), "first"):
        delivery = await stage.claim()
        assert delivery.job.id == name
        await stage.end(delivery, name)


async def test_a_worker_delivers_the_batches_of_a_client_that_died(make_app, monkeypatch):
    monkeypatch.setattr(submission, "BATCH", PART)
    async with make_app(lease=0.6) as app:

        @app.task
        async def add(a: int, b: int = 1) -> int:
            return a + b

        broker = app.sessions.current().broker

        async def dies(*_: Any, **__: Any) -> None:
            pass

        with monkeypatch.context() as patch:
            patch.setattr(broker.commands, "forwarded", dies)
            result = await chain(add.s(0), *(add.s() for _ in range(19))).delay()
        async with Worker(app):
            assert await result.get(timeout=20) == 20


@pytest.mark.trial
async def test_no_script_for_a_workflow_of_ten_thousand_jobs_blocks_the_server_for_long(app, raw):
    @app.task
    async def one(n: int) -> int:
        return n

    @app.task
    async def count(values: list[int]) -> int:
        return len(values)

    await raw.config_set("slowlog-log-slower-than", 1000)
    await raw.slowlog_reset()
    await (group(one.s(n) for n in range(9_999)) | count.s()).delay()
    slowest = max(entry["duration"] for entry in await raw.slowlog_get(200))
    await raw.config_set("slowlog-log-slower-than", 10_000)
    report(f"a workflow of 10,000 jobs: the slowest command took the server {slowest / 1000:.1f} ms")
    assert await raw.xlen(app.sessions.current().broker.shards[0].stream("default")) == 9_999
    assert slowest < 200_000, "four times the bound, for some machines are slow or busy"
