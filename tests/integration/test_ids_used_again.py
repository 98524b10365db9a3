"""A `task_id` is free again after its result was forgotten, and a call that is sent twice makes one job."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from helpers.steps import Steps
from helpers.waiting import until

from asyncq import ResultTimeout, Worker, wire

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from asyncq import AsyncQ

pytestmark = pytest.mark.anyio


@pytest.fixture
async def stage(app, raw) -> AsyncIterator[Steps]:
    stage = Steps(app.sessions.current().broker, raw)
    await stage.worker.make_groups()
    yield stage
    stage.worker.close()


def call(stage: Steps, request_id: str, **options: Any) -> tuple[wire.Job, bytes]:
    """Returns a call. All calls here have the same id."""
    job, _ = stage.job("id", **options)
    job.request_id = request_id
    return job, wire.encode_job(job)


async def enqueue(stage: Steps, request_id: str) -> bool:
    return not await stage.broker.intake.enqueue_many([call(stage, request_id)])


async def submit(stage: Steps, request_id: str) -> bool:
    """Sends the call as a workflow, with a job that waits for it. Returns whether it was accepted."""
    after, _ = stage.job(f"after-{request_id}", parents=("id",))
    try:
        await stage.broker.intake.submit(
            [call(stage, request_id, dependents=(after.id,)), (after, wire.encode_job(after))]
        )
    except ValueError:
        return False
    return True


async def end_all(stage: Steps) -> int:
    count = 0
    while (delivery := await stage.claim()) is not None:
        await stage.end(delivery)
        count += 1
    return count


@pytest.mark.parametrize("way", [enqueue, submit])
@pytest.mark.one_shard
async def test_late_resent_calls_with_an_id_that_was_used_again_make_no_job(stage, way):
    jobs = 1 if way is enqueue else 2
    for number, request_id in enumerate(("first~99999999999999", "second", "third")):
        assert await way(stage, request_id)
        for earlier in ("first~-", "second", "third")[: number + 1]:
            assert await way(stage, earlier), "it was accepted before"
        assert not await way(stage, "other")
        assert await end_all(stage) == jobs, "each call makes one job"
        assert not await way(stage, "other"), "its result is there"
        assert await stage.broker.forget("id") == "forgotten"
        for earlier in ("first~-", "second", "third")[: number + 1]:
            assert await way(stage, earlier), "it was accepted before"
        assert await end_all(stage) == 0


async def test_earlier_calls_are_remembered_as_long_as_a_tombstone_is_kept(stage, raw):
    for request_id in ("first", "second"):
        assert await enqueue(stage, request_id)
        await end_all(stage)
        await stage.broker.forget("id")
    keys = stage.broker.shards[0]
    assert await stage.keys("u:") == ["u:id:first"]
    assert 50_000 < await raw.pttl(f"{keys.calls}id:first") <= 60_000
    assert await raw.pttl(f"{keys.records}id") >= await raw.pttl(f"{keys.calls}id:first")


async def test_a_full_queue_does_not_refuse_a_resent_call_that_was_accepted_before(make_app, raw):
    async with make_app(max_length=1) as app:
        stage = Steps(app.sessions.current().broker, raw)
        await stage.worker.make_groups()
        for request_id in ("first", "second"):
            assert await enqueue(stage, request_id)
            await end_all(stage)
            await stage.broker.forget("id")
        await stage.broker.intake.enqueue_many([stage.job("full")])
        assert await enqueue(stage, "first")
        stage.worker.close()


@pytest.mark.parametrize("shards", [1, 3])
async def test_a_task_id_is_free_when_its_result_is_forgotten_or_was_never_kept(make_app, shards):
    async with make_app(shards=shards) as app:

        @app.task
        async def give(value: int) -> int:
            return value

        async with Worker(app):
            for value in range(3):
                result = await give.options(task_id="invoice").delay(value)
                assert await result.get(timeout=30) == value
                with pytest.raises(ValueError, match="exists already"):
                    await give.options(task_id="invoice").delay(value)
                await result.forget()
                assert not await app.AsyncResult("invoice").exists()
            workflow = give.s(7).set(task_id="one") | give.s().set(task_id="invoice")
            for _ in range(2):
                result = await workflow.delay()
                assert await result.get(timeout=30) == 7
                with pytest.raises(ValueError, match="exist already"):
                    await workflow.delay()
                await result.forget()
            for _ in range(2):
                await give.options(task_id="note", ignore_result=True).delay(1)
                await until(lambda: _is_gone(app, "note"), "a result that is not kept to be deleted")


async def _is_gone(app: AsyncQ, id_: str) -> bool:
    return not await app.AsyncResult(id_).exists()


async def test_the_expiry_of_an_earlier_call_does_not_end_a_later_job_with_the_same_id(app):
    @app.task
    async def give(value: int) -> int:
        return value

    async with Worker(app):
        first = await give.options(task_id="id", expires=0.3).delay(1)
        assert await first == 1
        await first.forget()
        assert not await first.exists()
    second = await give.options(task_id="id").delay(2)
    with pytest.raises(ResultTimeout, match="PENDING"):  # not TaskExpired
        await first.get(timeout=0.5)
    assert await second.refresh() == "PENDING"
