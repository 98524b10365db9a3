"""Jobs that wait for other jobs, tested with the scripts: what frees them, and what ends them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from helpers.ends import ENDS
from helpers.steps import QUEUE, Steps
from helpers.takeover import take
from helpers.waiting import until

import asyncq
from asyncq import PayloadTooLarge, Worker, failures, wire
from asyncq.context import Replaced
from asyncq.execution import parent_results
from asyncq.serializers import PLAIN_ARGUMENTS, dumps
from asyncq.states import State

if TYPE_CHECKING:
    from collections.abc import AsyncIterator


pytestmark = pytest.mark.anyio


@pytest.fixture
async def stage(app, raw) -> AsyncIterator[Steps]:
    async with Steps(app.sessions.current().broker, raw) as stage:
        yield stage


def diamond(stage: Steps) -> list[tuple[wire.Job, bytes]]:
    return [
        stage.job("top", dependents=("left", "right")),
        stage.job("left", parents=("top",), value_template=0, dependents=("bottom",)),
        stage.job("right", parents=("top",), value_template=None, dependents=("bottom",)),
        stage.job("bottom", 7, parents=("left", "right"), value_template=[0, 1]),
    ]


def pair(stage: Steps, **options: Any) -> list[tuple[wire.Job, bytes]]:
    return [
        stage.job("first", dependents=("second",)),
        stage.job("second", parents=("first",), value_template=0, **options),
    ]


async def test_each_job_of_a_diamond_is_released_when_its_last_parent_ends(stage):
    await stage.broker.intake.submit(diamond(stage))
    assert await stage.run("a") == "top"
    left, right = await stage.claim(), await stage.claim()
    assert await stage.claim() is None
    await stage.end(right, "c")
    assert await stage.state("bottom") is State.PENDING
    assert await stage.claim() is None
    await stage.end(left, "b")
    bottom = await stage.claim()
    assert bottom.job.id == "bottom"
    assert await stage.keys("dep:", "m:") == []


@pytest.mark.reads_bytes
async def test_values_of_parents_come_in_order_before_the_jobs_own_arguments(stage):
    await stage.broker.intake.submit(diamond(stage))
    await stage.run("a")
    deliveries = {d.job.id: d for d in (await stage.claim(), await stage.claim())}
    left, right = deliveries["left"], deliveries["right"]
    assert parent_results.arguments(PLAIN_ARGUMENTS, left.job, left.values) == (["a"], {})
    assert (right.job.value_template, right.values) == (None, b"")
    await stage.end(right, "c")
    await stage.end(left, "b")
    bottom = await stage.claim()
    assert parent_results.arguments(PLAIN_ARGUMENTS, bottom.job, bottom.values) == ([["b", "c"], 7], {})


@pytest.mark.one_shard
async def test_a_failure_ends_all_dependents_at_once_and_names_the_failed_member(stage):
    await stage.broker.intake.submit(diamond(stage))
    await stage.run()
    first = await stage.claim()
    await stage.end(first, b"failure", wire.FAILED)
    bottom = await stage.ended("bottom")
    assert (bottom.letter, bottom.payload, bottom.member) == (wire.FAILED, b"failure", (first.job.id, "t"))
    assert bottom.attempts == 0
    second = await stage.claim()
    await stage.end(second)
    assert await stage.claim() is None
    assert await stage.keys("dep:", "m:") == []


@pytest.mark.one_shard
async def test_dependents_get_the_short_form_of_a_long_failure(make_app, raw):
    """Each job that waited keeps the failure, and there may be ten thousand. The failed job keeps the long
    form.
    """
    received: list[Any] = []
    async with make_app(result_extended=True) as app:

        @app.task
        async def bad(_: str) -> None:
            raise ValueError("no" * 100_000) from ValueError("above" * 100_000)

        @app.task
        async def after(_: Any) -> None: ...

        @app.task
        async def callback(id_: str, error: Exception, trace: str) -> None:
            received.append((id_, error, trace))

        async with Worker(app):
            first = bad.s("x" * 100_000)
            first = first.link_error(callback.s())
            last = await (first | asyncq.group(after.s(), after.s())).delay()
            errors = [await member.get(propagate=False) for member in last.results]
            parent = last.parent
            await until(lambda: received, "the callback was called")
        shard = app.sessions.current().broker.shards[0]
        sizes = [len(await raw.get(shard.records + member.id)) for member in last.results]
        assert max(sizes) < 9_000
        assert all(isinstance(error, ValueError) for error in (*errors, received[0][1]))
        assert (received[0][0], len(str(received[0][1])) < 2_000) == (parent.id, True)
        assert len(str(await parent.get(propagate=False))) > 8_000


@pytest.mark.one_shard
async def test_the_first_failed_member_is_named_in_all_dependents_however_deep(stage):
    chain = [stage.job("0", dependents=("1",))]
    chain += [
        stage.job(str(n), parents=(str(n - 1),), value_template=0, dependents=(str(n + 1),))
        for n in range(1, 9)
    ]
    chain += [stage.job("9", parents=("8",), value_template=0)]
    await stage.broker.intake.submit(chain)
    await stage.run()
    await stage.end(await stage.claim(), b"failure", wire.FAILED)
    assert {(await stage.ended(str(n))).member for n in range(2, 10)} == {("1", "t")}


async def test_revoking_a_waiting_job_ends_its_dependents_and_not_its_parents(stage):
    await stage.broker.intake.submit(diamond(stage))
    assert await stage.broker.revoke("left", signal="c", outcome=b"") == "revoked"
    assert (await stage.ended("bottom")).member == ("left", "")
    assert await stage.state("right") is State.PENDING
    assert await stage.run() == "top"
    assert await stage.run() == "right"
    assert await stage.claim() is None
    assert await stage.keys("dep:", "m:") == []


@pytest.mark.reads_bytes
@pytest.mark.parametrize("letter", "SCEFX")
@pytest.mark.one_shard
async def test_an_error_callback_runs_if_its_parent_fails_and_is_dropped_if_not(stage, letter):
    await stage.broker.intake.submit(
        [
            stage.job("parent", dependents=("callback",)),
            stage.job("callback", parents=("parent",), value_template="e", on_error=True),
        ]
    )
    failure = failures.encode(ValueError("no"))
    await stage.end(await stage.claim(), failure if letter == "F" else b"", letter)
    if letter in "SCE":
        assert await stage.state("callback") is None
        assert await stage.keys("dep:", "m:") == []
        return
    callback = await stage.claim()
    assert callback.job.id == "callback"
    [parent, error, _], _ = parent_results.arguments(PLAIN_ARGUMENTS, callback.job, callback.values)
    assert (parent, type(error).__name__) == ("parent", "ValueError" if letter == "F" else "WorkerLost")
    await stage.end(callback)


@pytest.mark.reads_bytes
@pytest.mark.parametrize("failing", ["first", "second", "none"])
async def test_an_error_callback_of_several_jobs_runs_once_and_ends_with_the_last_of_them(stage, failing):
    """A job that never ran calls no callback. The callback ends with the last job that could
    have called it.
    """
    await stage.broker.intake.submit(
        [
            stage.job("first", dependents=("second", "all")),
            stage.job("second", parents=("first",), value_template=0, dependents=("all", "own")),
            stage.job("all", parents=("first", "second"), value_template="e", on_error=True),
            stage.job("own", parents=("second",), value_template="e", on_error=True),
        ]
    )
    failure = failures.encode(ValueError("no"))
    for name in ("first", "second"):
        job = await stage.claim()
        assert job.job.id == name
        if name == failing:
            await stage.end(job, failure, wire.FAILED)
            break
        await stage.end(job)
    free = {}
    while (callback := await stage.claim()) is not None:
        free[callback.job.id] = parent_results.arguments(PLAIN_ARGUMENTS, callback.job, callback.values)[0]
        await stage.end(callback)
    assert sorted(free) == {"first": ["all"], "second": ["all", "own"], "none": []}[failing]
    assert [(received, str(error)) for received, error, _ in free.values()] == [("second", "no")] * len(free)
    assert await stage.state("all") is (State.SUCCESS if failing != "none" else None)
    assert await stage.keys("dep:", "m:") == []


@pytest.mark.reads_bytes
async def test_a_job_fails_if_the_workflow_that_replaces_it_fails(stage):
    await stage.broker.intake.submit(
        [
            stage.job("job", dependents=("after", "callback")),
            stage.job("after", parents=("job",), value_template=0, dependents=("late",)),
            stage.job("callback", parents=("job",), value_template="e", on_error=True),
            stage.job("late", parents=("after",), value_template="e", on_error=True),
        ]
    )
    claimed = await stage.claim()
    instead = [stage.job("step", dependents=("job",)), stage.job("job", parents=("step",), value_template=0)]
    assert await stage.worker.claims.replace(claimed, instead) == 1
    await stage.end(await stage.claim(), failures.encode(ValueError("no")), wire.FAILED)
    callback = await stage.claim()
    assert (callback.job.id, await stage.claim()) == ("callback", None)
    [received, error, _], _ = parent_results.arguments(PLAIN_ARGUMENTS, callback.job, callback.values)
    assert (received, str(error)) == ("job", "no")
    assert (await stage.ended("after")).member == ("step", "t")
    assert await stage.state("late") is None


@pytest.mark.reads_bytes
async def test_a_dependent_gets_the_value_of_a_job_whose_result_is_ignored(stage):
    await stage.broker.intake.submit(
        [
            stage.job("first", dependents=("second",), ignore_result=True),
            stage.job("second", parents=("first",), value_template=0),
        ]
    )
    await stage.run("value")
    second = await stage.claim()
    assert parent_results.arguments(PLAIN_ARGUMENTS, second.job, second.values) == (["value"], {})


@pytest.mark.one_shard
@pytest.mark.reads_bytes
async def test_values_of_parents_survive_a_retry_a_hand_back_and_the_death_of_the_worker(stage):
    await stage.broker.intake.submit(pair(stage))
    await stage.run("value")
    delivery = await stage.claim()
    assert await stage.worker.claims.retry(delivery, 0, 1, b"failure") == 1
    await stage.worker.promote(stage.broker.shards[0])
    delivery = await stage.claim()
    assert await stage.worker.claims.release(delivery.stream, [(delivery.entry, "second")]) == [1]
    delivery = await stage.claim()
    await stage.successor.find_levels()
    assert await take(stage.successor, delivery.stream, stage.worker.name, "1") == (1, 0, False)
    delivery = await stage.claim(stage.successor)
    assert (delivery.crashes, delivery.retries) == (1, 1)
    assert parent_results.arguments(PLAIN_ARGUMENTS, delivery.job, delivery.values) == (["value"], {})


@pytest.mark.one_shard
async def test_a_countdown_starts_when_the_parents_have_ended(stage):
    await stage.broker.intake.submit(pair(stage, wait=60_000))
    await stage.run("value")
    assert await stage.state("second") is State.SCHEDULED


async def test_all_jobs_of_a_workflow_are_accepted_or_none(stage):
    await stage.broker.intake.submit([stage.job("left")])
    jobs = diamond(stage)
    for job, _ in jobs:
        job.request_id = "other"
    with pytest.raises(ValueError, match="'left'"):
        await stage.broker.intake.submit(jobs)
    assert await stage.state("top") is None
    assert await stage.state("bottom") is None


@pytest.mark.one_shard
async def test_a_workflow_that_is_sent_again_exists_once(stage):
    jobs = diamond(stage)
    await stage.broker.intake.submit(jobs)
    await stage.run()
    await stage.broker.intake.submit(jobs)
    assert {(await stage.claim()).job.id for _ in range(2)} == {"left", "right"}
    assert await stage.claim() is None


@pytest.mark.one_shard
@pytest.mark.reads_bytes
async def test_a_workflow_that_replaces_a_job_takes_over_its_waiters_and_dependents(stage):
    await stage.broker.intake.submit(pair(stage))
    delivery = await stage.claim()
    instead = [
        stage.job("a", dependents=("b",)),
        stage.job("b", parents=("a",), value_template=0, dependents=("first",)),
        stage.job("first", parents=("b",), value_template=0),
    ]
    assert await stage.worker.claims.replace(delivery, instead) == 1
    assert await stage.worker.claims.replace(delivery, instead) == 0
    assert [await stage.run(name) for name in "xyz"] == ["a", "b", "first"]
    assert (await stage.ended("first")).payload == dumps("z")
    second = await stage.claim()
    assert parent_results.arguments(PLAIN_ARGUMENTS, second.job, second.values) == (["z"], {})


async def test_a_job_that_was_asked_to_end_is_not_replaced(stage):
    await stage.broker.intake.submit([stage.job("first")])
    delivery = await stage.claim()
    assert await stage.broker.revoke("first", signal="t", outcome=b"") == "signalled"
    assert await stage.worker.claims.replace(delivery, [stage.job("a"), stage.job("first")]) == 2
    assert await stage.state("first") is State.REVOKED
    assert await stage.state("a") is None


async def test_ten_thousand_jobs_are_enqueued_in_one_call_and_end_in_one_job(stage):
    parents = tuple(f"p{n}" for n in range(9_999))
    jobs = [stage.job(name, dependents=("body",)) for name in parents]
    await stage.broker.intake.submit(
        [*jobs, stage.job("body", parents=parents, value_template=list(range(9_999)))]
    )
    assert await stage.state("body") is State.PENDING
    assert await stage.broker.revoke("p0", signal="c", outcome=b"") == "revoked"
    assert (await stage.ended("body")).member == ("p0", "")
    await stage.raw.delete(
        *[key async for key in stage.raw.scan_iter(match=f"{stage.broker.shards[0].key_prefix}*")]
    )


async def test_a_job_fails_if_the_values_of_its_parents_are_too_large_for_a_message(stage):
    parents = tuple(f"p{n}" for n in range(18))
    jobs = [stage.job(name, dependents=("body",)) for name in parents]
    await stage.broker.intake.submit(
        [*jobs, stage.job("body", parents=parents, value_template=list(range(18)))]
    )
    for _ in parents:
        await stage.run(b"x" * 1_000_000)
    body = await stage.claim()
    with pytest.raises(PayloadTooLarge, match="18 jobs"):
        parent_results.arguments(PLAIN_ARGUMENTS, body.job, body.values)
    await stage.end(body)


@pytest.mark.one_shard
async def test_a_revoked_dependent_is_not_mistaken_for_a_later_job_with_its_id(stage):
    await stage.broker.intake.submit(pair(stage))
    assert await stage.broker.revoke("second", signal="c", outcome=b"") == "revoked"
    await stage.raw.delete(stage.broker.shards[0].records + "second")  # it has expired
    later, _ = stage.job("second", parents=("other",), value_template=0)
    later.request_id = "another call"
    await stage.broker.intake.submit(
        [stage.job("other", dependents=("second",)), (later, wire.encode_job(later))]
    )
    assert [await stage.run(), await stage.state("second")] == ["first", State.PENDING]
    assert await stage.claim() is not None
    assert await stage.claim() is None, "it waits for its own parent"
    await stage.broker.revoke("second", signal="c", outcome=b"")


async def test_a_workflow_that_contains_an_id_twice_is_refused(stage):
    with pytest.raises(ValueError, match="'first'"):
        await stage.broker.intake.submit([stage.job("first"), *pair(stage)])
    assert await stage.state("first") is None


@pytest.mark.parametrize("others", [("taken",), ("new", "new"), ("first",)])
async def test_a_job_is_not_replaced_by_a_workflow_whose_ids_are_in_use(stage, others):
    await stage.broker.intake.submit([stage.job("first")])
    delivery = await stage.claim()
    await stage.broker.intake.submit([stage.job("taken")])
    instead = [*(stage.job(name) for name in others), stage.job("first")]
    for job, _ in instead:
        job.request_id = "other"
    assert await stage.worker.claims.replace(delivery, instead) == -1
    await stage.end(delivery)
    assert await stage.run() == "taken"
    assert await stage.claim() is None


async def test_a_parent_can_end_though_the_message_of_its_dependent_is_missing(stage):
    await stage.broker.intake.submit(pair(stage))
    await stage.raw.delete(f"{stage.broker.shards[0].key_prefix}m:second")
    assert await stage.run() == "first"
    assert await stage.broker.revoke("second", signal="c", outcome=b"") == "revoked"


async def test_a_replacement_whose_ids_are_in_use_fails_the_job_with_a_clear_error(app):
    @app.task
    async def first() -> None:
        jobs = [
            wire.Job(id_, "first", QUEUE, b"", "n", "", 0, 100_000) for id_ in ("taken", asyncq.current().id)
        ]
        raise Replaced([(job, wire.encode_job(job)) for job in jobs])

    await first.options(task_id="taken", queue="elsewhere").delay()
    async with Worker(app, queues=[QUEUE]):
        with pytest.raises(ValueError, match="'taken'"):
            await first.call()
    await app.AsyncResult("taken").revoke()


async def test_a_job_that_started_in_time_does_not_expire_when_a_workflow_replaces_it(stage):
    job, message = stage.job("first", expires=1)
    job.request_id = "n~1"
    message = wire.encode_job(job)
    await stage.broker.intake.submit([(job, message)])
    delivery = await stage.claim()
    instead = [stage.job("a", dependents=("first",)), stage.job("first", parents=("a",), value_template=0)]
    instead[1][0].request_id = job.request_id  # as a plan does it
    assert await stage.worker.claims.replace(delivery, instead) == 1
    assert await stage.broker.expire("first") == "running"
    assert await stage.broker.intake.enqueue_many([(job, message)]) == [], "the same call, sent again late"
    assert [await stage.run(name) for name in "xy"] == ["a", "first"]


async def test_a_workflow_that_is_sent_again_after_its_job_was_replaced_is_recognised(stage):
    first, _ = stage.job("first")
    first.request_id = "call~9999999999999"
    jobs = [(first, wire.encode_job(first))]
    await stage.broker.intake.submit(jobs)
    assert await stage.worker.claims.replace(await stage.claim(), [stage.job("a"), stage.job("first")]) == 1
    await stage.broker.intake.submit(jobs)
    assert {await stage.run(), await stage.run()} == {"a", "first"}
    assert await stage.claim() is None


@pytest.mark.parametrize("way", ENDS)
async def test_every_kind_of_end_of_a_job_ends_or_releases_its_dependents(make_app, raw, way):
    end, letter = ENDS[way]
    async with make_app(max_crashes=1) as app, Steps(app.sessions.current().broker, raw) as stage:
        await stage.broker.intake.submit(
            [
                stage.job("parent", dependents=("child", "callback")),
                stage.job("child", parents=("parent",), value_template=0, dependents=("grandchild",)),
                stage.job("callback", parents=("parent",), value_template="e", on_error=True),
                stage.job("grandchild", parents=("child",), value_template=0),
            ]
        )
        await end(stage)
        free = await stage.claim(stage.successor)
        if letter in "CE":
            assert free is None
        else:
            values = [(id_, how) for id_, how, _ in wire.split_notification(free.values)]
            assert (values, await stage.claim(stage.successor)) == ([("parent", letter)], None)
        if letter == "S":
            assert free.job.id == "child"
            assert await stage.state("callback") is None
            assert await stage.state("grandchild") is State.PENDING
        else:
            assert await stage.state("callback") is (None if letter in "CE" else State.STARTED)
            for id_ in ("child", "grandchild"):
                below = await stage.ended(id_)
                assert (below.letter, below.member[0]) == (letter, "parent")
            assert await stage.keys("dep:", "m:") == []
        if free is not None:
            await stage.end(free, by=stage.successor)
        for _ in range(letter == "S"):
            await stage.end(await stage.claim(stage.successor), by=stage.successor)
        assert await stage.keys("dep:", "m:") == []
