"""Every verb of the broker that the client uses, and what is published meanwhile."""

from __future__ import annotations

import asyncio
import time

import pytest
from helpers.hand_worker import hand_worker
from helpers.waiting import until, until_state

from asyncq import QueueFull, ResultNotFound, State, TaskExpired, TaskRevoked, failures, wire
from asyncq.broker.schema.keys import result_ttl_ms
from asyncq.serializers import PLAIN_VALUE

pytestmark = pytest.mark.anyio

REVOKED = wire.encode_ended(wire.Ended(wire.REVOKED))


async def flags_of(broker, id_: str) -> str:
    [status] = await broker.fetch_status([id_])
    assert isinstance(status, str)
    return status


# -- enqueue --


async def test_a_new_job_is_accepted_and_queued(broker, make_job):
    job, message = make_job("a", 1, "x")
    assert await broker.intake.enqueue(job, message) is True
    assert await flags_of(broker, "a") == "L---"
    state = await broker.state("a")
    assert (state.state, state.queue, state.worker) == (State.PENDING, "default", None)
    kept, values = await broker.message("a")
    assert (kept.id, kept.name, kept.body, values) == ("a", "task", job.body, b"")


async def test_an_enqueue_that_is_sent_again_makes_no_second_job(broker, make_job, hand):
    for _ in range(2):
        assert await broker.intake.enqueue(*make_job("a")) is True
    assert [job.id for job in await hand.take_all()] == ["a"]


async def test_another_call_with_the_id_of_a_job_is_refused(broker, make_job, hand):
    await broker.intake.enqueue(*make_job("a"))
    assert await broker.intake.enqueue(*make_job("a", request_id="other")) is False
    assert len(await hand.take_all()) == 1


async def test_a_call_with_a_key_finds_the_existing_job_of_an_equal_call_and_its_status(
    broker, make_job, hand
):
    first, second = make_job("a", request_id="abc.1"), make_job("a", request_id="abc.2")
    assert await broker.intake.enqueue(*first) is True
    assert await broker.intake.enqueue(*second) == "L---"
    assert await broker.intake.enqueue(*make_job("a", request_id="def.1")) is False
    await (await hand.take()).succeed(5)
    ended = await broker.intake.enqueue(*second)
    assert (ended.state, PLAIN_VALUE.loads(ended.payload)) == (State.SUCCESS, 5)


async def test_an_equal_call_with_the_key_of_a_forgotten_result_makes_a_new_job(broker, make_job, hand):
    await broker.intake.enqueue(*make_job("a", request_id="abc.1"))
    await (await hand.take()).succeed(5)
    assert await broker.forget("a") == "forgotten"
    assert await broker.intake.enqueue(*make_job("a", request_id="abc.2")) is True
    assert (await hand.take()).id == "a"


async def test_a_batch_reports_for_each_refused_job_which_job_was_found(broker, make_job):
    await broker.intake.enqueue(*make_job("taken"))
    await broker.intake.enqueue(*make_job("equal", request_id="abc.1"))
    jobs = [make_job("new"), make_job("taken", request_id="other"), make_job("equal", request_id="abc.2")]
    answers = await broker.intake.enqueue_many(jobs)
    assert [(job.id, answer) for job, answer in answers] == [("taken", False), ("equal", "L---")]


async def test_jobs_enqueued_in_one_loop_turn_keep_their_order_in_several_queues(broker, make_job, app):
    jobs = [make_job(f"{queue}{n}", queue=queue) for n in range(3) for queue in ("one", "two")]
    assert await asyncio.gather(*(broker.intake.enqueue(*job) for job in jobs)) == [True] * 6
    async with hand_worker(app, "one", "two") as worker:
        assert [job.id for job in await worker.take_all()] == ["one0", "one1", "one2", "two0", "two1", "two2"]


async def test_each_higher_priority_has_its_own_stream(broker, make_job, hand):
    for id_, priority in (("low", -3), ("plain", 0), ("high", 5)):
        await broker.intake.enqueue(*make_job(id_, priority=priority))
    assert (await broker.state("high")).queue == "default"
    await hand.consumer.find_levels()
    assert [job.id for job in await hand.take_all()] == ["high", "plain", "low"]


async def test_a_delayed_job_is_scheduled_until_its_time_comes(broker, make_job, hand):
    await broker.intake.enqueue(*make_job("later", 8, wait=60_000))
    assert await flags_of(broker, "later") == "D---"
    assert (await broker.state("later")).state == State.SCHEDULED
    assert (await broker.message("later"))[0].id == "later"
    await broker.intake.enqueue(*make_job("a", 7, wait=50))
    await asyncio.sleep(0.06)
    await hand.promote()
    assert [job.args for job in await hand.take_all()] == [[7]]


async def test_a_full_queue_accepts_all_jobs_of_a_batch_or_none(make_app, namespace):
    async with make_app(max_length=2, full_wait=0) as app:
        task = app.task(name="task")(_nothing)
        await task.delay()
        with pytest.raises(QueueFull):
            await task.map([(), ()])
        await task.delay()
        with pytest.raises(QueueFull, match=r"queue 'default' holds max_length=2 jobs already"):
            await task.delay()
        await task.options(countdown=60).delay()
        await task.options(queue="other").delay()


async def _nothing() -> None:
    """A task's body that nobody runs."""


# -- workflows --


@pytest.mark.reads_bytes
async def test_all_jobs_of_a_workflow_are_accepted_and_the_last_one_starts_with_the_values(
    broker, make_job, hand
):
    jobs = [
        make_job("a", dependents=("c",)),
        make_job("b", dependents=("c",)),
        make_job("c", parents=("a", "b"), value_template=[0, 1]),
    ]
    await broker.intake.submit(jobs)
    assert [await flags_of(broker, id_) for id_ in "abc"] == ["L--d", "L--d", "W---"]
    first, second = await hand.take_all()
    await first.succeed(1)
    assert await hand.take_all() == []
    assert (await broker.message("c"))[0].id == "c"
    await second.succeed(2)
    (last,) = await hand.take_all()
    framed = [
        (id_, PLAIN_VALUE.loads(wire.decode_ended(how, outcome).payload))
        for id_, how, outcome in wire.split_notification(last.delivery.values)
    ]
    assert framed == [("a", 1), ("b", 2)]


async def test_a_workflow_with_an_id_that_is_in_use_enqueues_nothing(broker, make_job, hand):
    await broker.intake.enqueue(*make_job("b"))
    jobs = [
        make_job("a", dependents=("b",)),
        make_job("b", request_id="other", parents=("a",), value_template=0),
    ]
    with pytest.raises(ValueError, match="'b' exist already and are other calls"):
        await broker.intake.submit(jobs)
    assert await broker.fetch_status(["a"]) == [None]
    assert [job.id for job in await hand.take_all()] == ["b"]


async def test_a_workflow_that_is_sent_again_changes_nothing(broker, make_job, hand):
    jobs = [make_job("a", dependents=("b",)), make_job("b", parents=("a",), value_template=0)]
    for _ in range(2):
        await broker.intake.submit(jobs)
    assert [job.id for job in await hand.take_all()] == ["a"]


async def test_a_dependent_of_a_failed_job_fails_with_the_same_error(broker, make_job, hand):
    await broker.intake.submit(
        [make_job("a", dependents=("b",)), make_job("b", parents=("a",), value_template=0)]
    )
    await (await hand.take()).fail(ValueError("no"))
    ended = await broker.state("b")
    assert (ended.state, ended.member) == (State.FAILURE, ("a", "task"))
    assert str(failures.decode(ended.payload).rebuild()) == "no"


async def test_an_error_callback_runs_after_a_failure_and_is_dropped_after_a_success(broker, make_job, hand):
    for parent, mender in (("a", "b"), ("c", "d")):
        mend = make_job(mender, parents=(parent,), on_error=True, value_template="e")
        await broker.intake.submit([make_job(parent, dependents=(mender,)), mend])
    first, second = await hand.take_all()
    await first.fail(ValueError("no"))
    await second.succeed(1)
    assert [job.id for job in await hand.take_all()] == ["b"]
    assert await broker.fetch_status(["d"]) == [None]


async def test_a_workflow_over_several_shards_runs_as_in_one_shard(make_app):
    async with make_app(shards=4) as app, hand_worker(app) as hand:
        task = app.task(name="task")(_nothing)
        first = task.si().set(task_id="a" * 24 + ".0")
        second = task.si().set(task_id="a" * 24 + ".1")
        third = task.si().set(task_id="a" * 24 + ".3")
        result = await (first | second | third).delay()
        for _ in range(3):
            (job,) = await until(hand.take_all, "the next job of the chain")
            await job.succeed(job.id[-1])
        assert await result.get(timeout=30) == "3"


# -- queries --


async def test_a_query_for_many_jobs_returns_the_status_of_each(broker, make_job, hand):
    for id_ in ("ended", "queued"):
        await broker.intake.enqueue(*make_job(id_))
    await (await hand.take()).succeed([1, {"x": b"\x00"}])
    ended, queued, unknown = await broker.fetch_status(["ended", "queued", "unknown"])
    assert (ended.state, ended.worker, ended.name, ended.attempts) == (State.SUCCESS, "by-hand", "task", 1)
    assert PLAIN_VALUE.loads(ended.payload) == [1, {"x": b"\x00"}]
    assert (queued, unknown) == ("L---", None)


async def test_the_status_of_a_running_job_names_its_worker_and_its_start_time(broker, make_job, hand):
    await broker.intake.enqueue(*make_job("a"))
    before = int(time.time() * 1000)
    await hand.take()
    state = await broker.state("a")
    assert (state.state, state.worker) == (State.STARTED, "by-hand")
    assert before - 1000 <= state.started <= int(time.time() * 1000) + 1000


async def test_a_running_job_whose_start_is_not_tracked_is_not_shown_as_started(broker, make_job, hand):
    await broker.intake.enqueue(*make_job("a", request_id=f"n{wire.UNTRACKED}"))
    await hand.take()
    assert (await broker.state("a")).state == State.PENDING


async def test_a_job_that_waits_for_its_next_attempt_shows_its_last_failure(broker, make_job, hand):
    await broker.intake.enqueue(*make_job("a", 3))
    await (await hand.take()).retry(ValueError("once"))
    state = await broker.state("a")
    assert (state.state, state.retries) == (State.RETRY, 1)
    assert str(failures.decode(state.failure).rebuild()) == "once"
    await asyncio.sleep(0.002)
    await hand.promote()
    again = await hand.take()
    assert (again.delivery.attempt, again.args) == (2, [3])


async def test_the_last_report_of_a_job_is_shown_until_its_attempt_ends(broker, make_job, hand):
    await broker.intake.enqueue(*make_job("a"))
    job = await hand.take()
    await job.report("RENDERING", {"page": 3})
    state = await broker.state("a")
    assert (state.state, PLAIN_VALUE.loads(state.report.meta)) == ("RENDERING", {"page": 3})
    await job.release()
    await hand.take()
    assert (await broker.state("a")).state == State.STARTED


async def test_the_server_knows_nothing_about_an_unknown_id(broker):
    assert await broker.state("a") is None
    assert await broker.message("a") is None
    assert await broker.revoke("a", signal="t", outcome=REVOKED) == "unknown"
    assert await broker.expire("a") == "unknown"
    assert await broker.forget("a") == "unknown"


async def test_an_ended_job_has_no_message(broker, make_job, hand):
    await broker.intake.enqueue(*make_job("a"))
    await (await hand.take()).succeed()
    assert await broker.message("a") is None


# -- push --


async def test_an_outcome_is_pushed_to_the_client_that_enqueued_the_job_and_to_one_that_queried_it(
    app, make_app, hand
):
    task = app.task(name="task")(_nothing)
    result = await task.delay()
    async with make_app() as elsewhere:
        handle = elsewhere.AsyncResult(result.id)
        waiting = asyncio.create_task(handle.get(timeout=30))
        await asyncio.sleep(0.05)  # it usually waits by then; otherwise its query finds the outcome
        await hand.succeed(result, 9)
        assert await waiting == 9
        await until(lambda: result.state == "SUCCESS", "the push to the client that enqueued the job")


async def test_an_outcome_that_is_too_large_for_a_push_is_fetched(app, hand):
    task = app.task(name="task")(_nothing)
    result = await task.delay()
    waiting = asyncio.create_task(result.get(timeout=30))
    await asyncio.sleep(0)
    value = "x" * (2 * wire.PUSH_LIMIT)
    await hand.succeed(result, value)
    assert await waiting == value


# -- revoke, expire, forget --


async def test_a_queued_job_is_revoked_at_once_and_waiters_are_notified(app, broker, hand):
    task = app.task(name="task")(_nothing)
    result = await task.delay()
    waiting = asyncio.create_task(result.get(timeout=30))
    await asyncio.sleep(0)
    outcome = wire.encode_ended(wire.Ended(wire.REVOKED, b"why"))
    assert await broker.revoke(result.id, signal="t", outcome=outcome) == "revoked"
    with pytest.raises(TaskRevoked, match="why"):
        await waiting
    assert await hand.take_all() == []
    assert await broker.revoke(result.id, signal="t", outcome=outcome) == "ended"


async def test_a_delayed_job_is_revoked_at_once(broker, make_job, hand):
    await broker.intake.enqueue(*make_job("a", wait=1))
    assert await broker.revoke("a", signal="c", outcome=REVOKED) == "revoked"
    await asyncio.sleep(0.005)
    await hand.promote()
    assert await hand.take_all() == []
    assert (await broker.state("a")).state == State.REVOKED


async def test_a_running_job_gets_the_revocation_signal_and_no_further_attempt(broker, make_job, hand):
    await broker.intake.enqueue(*make_job("a"))
    job = await hand.take()
    assert await broker.revoke("a", signal="t", outcome=REVOKED) == "signalled"
    assert await flags_of(broker, "a") == "Lt--"
    await job.retry(ValueError("once"))
    assert (await broker.state("a")).state == State.REVOKED


async def test_a_weaker_revocation_signal_does_not_replace_a_stronger_one(broker, make_job, hand):
    await broker.intake.enqueue(*make_job("a"))
    await hand.take()
    for signal, shown in (("t", "t"), ("c", "t"), ("k", "k")):
        assert await broker.revoke("a", signal=signal, outcome=REVOKED) == "signalled"
        assert await flags_of(broker, "a") == f"L{shown}--"


async def test_the_revocation_of_a_parent_revokes_its_dependents(broker, make_job):
    await broker.intake.submit(
        [make_job("a", dependents=("b",)), make_job("b", parents=("a",), value_template=0)]
    )
    assert await broker.revoke("a", signal="t", outcome=REVOKED) == "revoked"
    assert (await broker.state("b")).state == State.REVOKED


async def test_a_job_that_no_worker_starts_in_time_expires(broker, make_job, hand):
    soon = int(time.time() * 1000) + 60_000
    await broker.intake.enqueue(*make_job("a", request_id=f"n~{soon}", expires=soon))
    await broker.intake.enqueue(*make_job("b", request_id=f"m~{soon}", expires=soon))
    assert await broker.fetch_status(["a"]) == [f"L--- {soon}"]
    job = await hand.take()
    assert await broker.expire("a") == "running"
    assert await broker.expire("b") == "revoked"
    assert (await broker.fetch_status(["b"]))[0].letter == wire.EXPIRED
    await job.succeed()


async def test_waiters_of_an_expired_job_are_notified_without_any_worker(app):
    task = app.task(name="task")(_nothing)
    result = await task.options(expires=0.05).delay()
    with pytest.raises(TaskExpired):
        await result.get(timeout=30)


async def test_the_result_of_an_ended_job_is_forgotten_at_once(broker, make_job, hand):
    await broker.intake.enqueue(*make_job("a"))
    await (await hand.take()).succeed(1)
    assert await broker.forget("a") == "forgotten"
    assert await broker.fetch_status(["a"]) == [None]
    assert await broker.state("a") is None
    assert await broker.forget("a") == "unknown"


async def test_the_result_of_a_live_job_is_forgotten_when_it_ends(app, broker, hand):
    task = app.task(name="task")(_nothing)
    result = await task.delay()
    assert await broker.forget(result.id) == "flagged"
    waiting = asyncio.create_task(result.get(timeout=30))
    await asyncio.sleep(0)
    await hand.succeed(result, 1)
    assert await waiting == 1
    assert await broker.fetch_status([result.id]) == [None]


async def test_a_job_with_an_ignored_result_leaves_no_outcome(broker, make_job, hand, app):
    await broker.intake.enqueue(*make_job("a", ignore_result=True))
    assert await flags_of(broker, "a") == "L-i-"
    with pytest.raises(ResultNotFound):
        await app.AsyncResult("a").get(timeout=30)
    await (await hand.take()).succeed(1)
    assert await broker.fetch_status(["a"]) == [None]


async def test_a_result_is_kept_for_its_configured_time(broker, make_job, hand):
    await broker.intake.enqueue(*make_job("a", result_ttl=30))
    await (await hand.take()).succeed(1)

    async def gone() -> bool:
        return await broker.fetch_status(["a"]) == [None]

    await until(gone, "the result to expire")


# -- groups --


async def test_the_description_of_a_group_is_kept_until_it_is_deleted(broker):
    assert await broker.restore_group("g") is None
    await broker.save_group("g", b"\x00one")
    await broker.save_group("g", b"\x00two")
    assert await broker.restore_group("g") == b"\x00two"
    for _ in range(2):
        await broker.delete_group("g")
    assert await broker.restore_group("g") is None
    assert result_ttl_ms(broker.settings.result_ttl) > 0


# -- waits --


async def test_a_wait_that_completes_a_wait_cycle_gets_the_path_of_the_cycle(broker, make_job, hand):
    for id_ in "abc":
        await broker.intake.enqueue(*make_job(id_))
    entries = {job.id: job.delivery.entry for job in await hand.take_all()}
    block = broker.waits.block
    assert await block("a", entries["a"], "m1", ["b"], 5) == []
    assert await block("b", entries["b"], "m2", ["c"], 5) == []
    assert await block("c", entries["c"], "m3", ["a"], 5) == ["a", "b", "c"]
    broker.waits.unblock("a", entries["a"], "m1", ["b"])

    async def goes() -> bool:
        return await block("c", entries["c"], "m4", ["a"], 5) == []

    await until(goes, "the wait to be removed")


async def test_a_job_may_not_wait_for_itself(broker, make_job, hand):
    await broker.intake.enqueue(*make_job("a"))
    job = await hand.take()
    assert await broker.waits.block("a", job.delivery.entry, "m", ["a"], 5) == ["a"]


# -- events --


async def test_a_reader_of_events_receives_the_reports_the_retry_and_the_end_of_a_job(app, hand):
    task = app.task(name="task")(_nothing)
    result = await task.delay()
    seen: list[tuple[str, object]] = []

    async def follow() -> None:
        async for event in result.events(timeout=30):
            seen.append((event.state, event.info))  # noqa: PERF401  each event is checked at once

    following = asyncio.create_task(follow())
    await until(lambda: seen, "the first event")
    job = await hand.take()
    await job.report("RENDERING", {"page": 3})
    await until(lambda: ("RENDERING", {"page": 3}) in seen, "the report")
    await job.retry(ValueError("once"))
    await until(lambda: "RETRY" in [state for state, _ in seen], "the retry")
    await asyncio.sleep(0.002)
    await hand.promote()
    await (await hand.take()).succeed(5)
    await following
    assert seen[-1] == ("SUCCESS", 5)


async def test_a_reader_receives_earlier_items_and_new_items_as_they_arrive(app, hand):
    result = await app.task(name="task")(_nothing).delay()
    job = await hand.take()
    await job.give("one", "two")
    stream = result.stream()
    assert [await anext(stream), await anext(stream)] == ["one", "two"]
    reading = asyncio.create_task(anext(stream))
    await asyncio.sleep(0.02)
    await job.give("three")
    assert await reading == "three"
    await job.give("x" * (2 * wire.PUSH_LIMIT))
    assert len(await anext(stream)) == 2 * wire.PUSH_LIMIT
    await job.succeed(None)
    with pytest.raises(StopAsyncIteration):
        await anext(stream)
    assert [item async for item in result.stream(after=1)][:2] == ["two", "three"]


async def test_a_queue_is_served_while_a_worker_sends_heartbeats(broker, hand):
    assert not await broker.listened_to("default")
    await hand.beat()
    await hand.consumer.read(list(hand.consumer.served.streams), 1, block=False)
    assert await broker.listened_to("default")
    assert not await broker.listened_to("other")


async def test_an_operator_sees_and_ends_the_jobs_of_a_queue(app, broker, make_job, hand):
    for name in ("a", "b", "c", "d"):
        await broker.intake.enqueue(*make_job(name))
    later = await app.task(name="task")(_nothing).options(countdown=60).delay()
    assert (await hand.take()).id == "a"
    (queue,) = await app.control.queues()
    assert (queue.name, queue.waiting, queue.running, queue.paused) == ("default", 3, 1, False)
    page = await app.control.jobs(limit=3)
    assert [(job.id, job.state, job.task) for job in page] == [
        *(("a", "STARTED", "task"), ("b", "PENDING", "task"), ("c", "PENDING", "task"))
    ]
    rest = await app.control.jobs(limit=3, cursor=page.cursor)
    assert [job.id for job in rest] == ["d", later.id]
    assert [job.id for job in await app.control.active()] == ["a"]
    assert (await app.control.stats()).delayed == 1
    await app.control.pause("default")
    assert (await app.control.queues())[0].paused
    assert (await app.control.why("b")).reasons[0].kind == "paused"
    await app.control.resume("default")
    waits = asyncio.create_task(app.AsyncResult("b").outcome(timeout=30))
    assert await app.control.purge("default") == 3
    assert (await waits).state == "REVOKED"
    assert await flags_of(broker, "a") == "L---"
    await later.revoke()


async def test_a_handle_shows_each_state_after_a_refresh(app, make_app, hand):
    result = await app.task(name="task")(_nothing).options(countdown=0.01).delay()
    handle = app.AsyncResult(result.id)
    assert await handle.refresh() == "SCHEDULED"
    await asyncio.sleep(0.02)
    await hand.promote()
    await until_state(handle, "PENDING")
    job = await hand.take()
    await until_state(handle, "STARTED")
    await job.succeed()
    assert await handle.refresh() == "SUCCESS"
