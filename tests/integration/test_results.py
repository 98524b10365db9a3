"""The handle: its states, every way to wait, to ask, to revoke and to forget; and how it is compared and
pickled.
"""

from __future__ import annotations

import asyncio
import copy
import pickle
import re
import statistics
import subprocess
import sys
import threading
import time
from datetime import UTC, datetime, timedelta

import pytest
from helpers.figures import report
from helpers.jobs import job_of
from helpers.stopwatch import Stopwatch
from helpers.waiting import until, until_state

from asyncq import (
    AsyncResult,
    GroupResult,
    Outcome,
    ResultNotFound,
    ResultSet,
    ResultTimeout,
    State,
    TaskRevoked,
    Worker,
    result_from_tuple,
    wire,
)

pytestmark = pytest.mark.anyio


@pytest.fixture
def fail(app):
    @app.task
    async def fail() -> None:
        raise ValueError("no", 3)

    return fail


@pytest.fixture
def thread_nap(app):
    @app.task
    def thread_nap(seconds: float) -> float:
        time.sleep(seconds)
        return seconds

    return thread_nap


# -- states ----------------------------------------------------------------------------------------


async def test_a_handle_from_an_id_is_unknown_before_its_first_query_and_one_from_delay_is_pending(app, nap):
    result = await nap.delay(0)
    assert (result.state, result.status) == (State.PENDING, "PENDING")
    rebuilt = app.AsyncResult("made-up")
    assert (rebuilt.state, await rebuilt.refresh(), rebuilt.state) == ("UNKNOWN", "UNKNOWN", "UNKNOWN")
    assert (rebuilt.result, rebuilt.traceback, rebuilt.date_done, rebuilt.worker, rebuilt.children) == (
        None,
    ) * 5


async def test_a_handle_from_another_app_sees_pending_started_and_the_end(make_app, app, nap):
    async with make_app() as elsewhere:
        result = await nap.delay(0.3)
        handle = elsewhere.AsyncResult(result.id)
        assert handle.state == "UNKNOWN"
        assert await handle.refresh() == "PENDING"
        assert handle.queue == "default"
        async with Worker(app, name="the-worker"):
            before = datetime.now(UTC)
            await until_state(handle, "STARTED")
            assert handle.worker == "the-worker"
            assert abs(handle.date_started - before) < timedelta(seconds=1)
            started = handle.date_started
            assert not await handle.ready()
            assert await handle.get(timeout=30) == 0.3
    assert (handle.state, handle.worker, handle.name, handle.queue) == (
        "SUCCESS",
        "the-worker",
        nap.name,
        "default",
    )
    assert abs(handle.date_started - started) < timedelta(seconds=0.2)
    assert timedelta(seconds=0.25) < handle.date_done - handle.date_started < timedelta(seconds=1)
    assert handle.retries == 0


async def test_a_pushed_outcome_updates_every_handle_so_that_polling_the_property_ends(app, nap):
    async with Worker(app):
        first = await nap.delay(0.05)
        second = app.AsyncResult(first.id)
        await second.refresh()
        await until(lambda: first.state == "SUCCESS", "the property to change without any call")
        assert second.state == "SUCCESS"
        assert (first.result, first.info) == (0.05, 0.05)


async def test_final_states_never_change(app, nap, fail):
    async with Worker(app):
        good, bad = await nap.delay(0), await fail.delay()
        await good.get(timeout=30)
        await bad.outcome(timeout=30)
        for result, state in ((good, "SUCCESS"), (bad, "FAILURE")):
            record = await app.sessions.current().broker.state(result.id)
            assert await result.revoke(terminate=True, wait=True) == state
            assert await app.AsyncResult(result.id).revoke(terminate=True) == state
            assert await app.sessions.current().broker.state(result.id) == record


async def test_ready_successful_and_failed_answer_for_each_state(app, nap, fail):
    queued = await nap.delay(0)
    for answer in (queued.ready(), queued.successful(), queued.failed()):
        assert await answer is False
    async with Worker(app):
        good, bad = await nap.delay(0), await fail.delay()
        await good.outcome(timeout=30)
        await bad.outcome(timeout=30)
        answers = [(await r.ready(), await r.successful(), await r.failed()) for r in (good, bad)]
    assert answers == [(True, True, False), (True, False, True)]
    gone = app.AsyncResult("nobody")
    assert [await gone.ready(), await gone.successful(), await gone.failed(), await gone.exists()] == [
        False
    ] * 4


# -- waiting ---------------------------------------------------------------------------------------


async def test_awaiting_a_handle_gives_the_same_value_as_get(app, nap):
    async with Worker(app):
        result = await nap.delay(0)
        assert await result == await result.get() == await result.wait(timeout=1) == 0.0


async def test_a_timeout_ends_the_wait_and_not_the_job(app, nap):
    async with Worker(app):
        result = await nap.delay(0.3)
        stopwatch = Stopwatch()
        with pytest.raises(ResultTimeout) as caught:
            await result.get(timeout=0.05)
        assert isinstance(caught.value, TimeoutError)
        assert stopwatch.took < 0.3
        assert await result.get(timeout=timedelta(seconds=5)) == 0.3


async def test_a_timeout_of_zero_queries_the_server_once(app, nap):
    result = await nap.delay(0)
    with pytest.raises(ResultTimeout):
        await result.get(timeout=0)
    async with Worker(app):
        await result.get(timeout=60)
        assert await app.AsyncResult(result.id).get(timeout=0) == 0


@pytest.mark.parametrize("bad", [-1, float("nan"), "soon"])
async def test_a_timeout_that_is_not_a_duration_is_refused(app, nap, bad):
    with pytest.raises(ValueError, match="not a duration"):
        await app.AsyncResult("x").get(timeout=bad)


async def test_a_timeout_error_that_the_task_raises_is_not_a_result_timeout(app):
    @app.task
    async def late() -> None:
        raise TimeoutError("mine")

    async with Worker(app):
        with pytest.raises(TimeoutError, match="mine") as caught:
            await late.call()
    assert not isinstance(caught.value, ResultTimeout)


async def test_without_propagation_the_exception_is_the_value(app, nap, fail):
    async with Worker(app):
        error = await (await fail.delay()).get(timeout=30, propagate=False)
        assert (type(error), error.args) == (ValueError, ("no", 3))
        assert await (await nap.delay(0)).get(timeout=30, propagate=False) == 0


async def test_the_callback_of_a_get_receives_id_and_value(app, nap):
    received = []
    async with Worker(app):
        result = await nap.delay(0)
        await result.get(timeout=30, callback=lambda id_, value: received.append((id_, value)))
    assert received == [(result.id, 0)]


async def test_every_get_gives_a_fresh_value_and_a_fresh_exception(app, fail):
    @app.task
    async def make() -> list:
        return [1]

    async with Worker(app):
        result = await make.delay()
        (await result.get(timeout=30)).append(2)
        assert await result.get() == [1]
        bad = await fail.delay()
        errors = [await bad.get(timeout=30, propagate=False) for _ in range(2)]
        assert errors[0] is not errors[1]


async def test_cancelling_one_wait_disturbs_no_other(app, nap):
    async with Worker(app):
        result = await nap.delay(0.2)
        waits = [asyncio.create_task(result.get(timeout=60)) for _ in range(3)]
        await asyncio.sleep(0.02)
        waits[0].cancel()
        assert await asyncio.gather(*waits[1:]) == [0.2, 0.2]
        assert waits[0].cancelled()


async def test_outcome_returns_all_details_and_never_raises_the_error_of_the_task(app, nap, fail):
    async with Worker(app, name="w"):
        good = await (await nap.delay(0.05)).outcome(timeout=30)
        bad = await (await fail.delay()).outcome(timeout=30)
    assert isinstance(good, Outcome)
    assert (good.state, good.value, good.error, good.traceback, good.attempts) == (
        "SUCCESS",
        0.05,
        None,
        None,
        1,
    )
    assert (good.worker, good.queue, good.name) == ("w", "default", nap.name)
    assert good.enqueued_at <= good.started_at <= good.finished_at
    assert 0.04 < good.runtime < 1
    assert (bad.state, bad.value, type(bad.error)) == ("FAILURE", None, ValueError)
    assert "raise ValueError" in bad.traceback
    assert "ValueError" in repr(bad)
    assert good.unwrap() == 0.05
    with pytest.raises(ValueError, match="no"):
        bad.unwrap()


async def test_unknown_forgotten_and_expired_ids_raise_at_once(app, nap, raw):
    async with Worker(app):
        forgotten, expired = await nap.delay(0), await nap.delay(0)
        for result in (forgotten, expired):
            await result.get(timeout=30)
        await forgotten.forget()
        await raw.delete(app.sessions.shards[0].records + expired.id)
        expired = app.AsyncResult(expired.id)
        stopwatch = Stopwatch()
        for handle in (app.AsyncResult("unknown"), forgotten, app.AsyncResult(forgotten.id)):
            for wait in (handle.get(), handle.get(timeout=0), handle.outcome(timeout=30)):
                with pytest.raises(ResultNotFound) as caught:
                    await wait
                assert isinstance(caught.value, LookupError)
        assert stopwatch.took < 1


@pytest.mark.usefixtures("leaves_keys")
@pytest.mark.one_shard
async def test_the_result_of_a_job_whose_record_has_expired_is_not_found(app, nap, raw):
    result = await nap.delay(0)
    await raw.delete(app.sessions.shards[0].records + result.id)
    assert not await result.exists()
    with pytest.raises(ResultNotFound):
        await app.AsyncResult(result.id).get(timeout=30)


# -- existing and forgetting -----------------------------------------------------------------------


async def test_a_job_exists_from_delay_until_it_is_forgotten(app, nap):
    result = await nap.delay(0)
    assert await result.exists()
    async with Worker(app):
        await result.get(timeout=30)
        assert await result.exists()
        await result.forget()
        assert not await result.exists()
        assert not await app.AsyncResult(result.id).exists()
        assert (result.state, result.result) == ("UNKNOWN", None)
        await result.forget()


async def test_forgetting_a_running_job_keeps_no_value_and_its_waiters_still_get_it(app, nap):
    async with Worker(app):
        result = await nap.delay(0.2)
        await until_state(result, "STARTED")
        waiting = asyncio.create_task(result.get(timeout=60))
        await asyncio.sleep(0.02)
        await app.AsyncResult(result.id).forget()
        assert not await result.exists()
        assert await waiting == 0.2
        assert not await app.AsyncResult(result.id).exists()


async def test_forgetting_also_forgets_the_parents(app, nap):
    async with Worker(app):
        parent, child = await nap.delay(0), await nap.delay(0)
        await parent.get(timeout=30)
        await child.get(timeout=30)
        child.parent = parent
        await child.forget()
        assert not await parent.exists()


# -- revoking --------------------------------------------------------------------------------------


async def test_a_queued_job_that_is_revoked_never_starts_and_its_waiters_wake(app):
    started = []

    @app.task
    async def note(text: str) -> None:
        started.append(text)

    revoked = await note.delay("revoked")
    waiting = asyncio.create_task(revoked.get(timeout=60))
    await asyncio.sleep(0)
    assert await revoked.revoke(reason="not needed") == "REVOKED"
    with pytest.raises(TaskRevoked, match="not needed"):
        await waiting
    async with Worker(app):
        await note.call("other")
    assert started == ["other"]
    assert await app.AsyncResult(revoked.id).revoke() == "REVOKED", "a second revoke is no error"
    assert revoked.date_done is not None


async def test_a_revoke_without_terminate_lets_a_running_job_end(app, nap):
    async with Worker(app):
        result = await nap.delay(0.2)
        await until_state(result, "STARTED")
        assert await result.revoke() == "STARTED"
        assert await result.revoke(wait=True, timeout=30) == "SUCCESS"


async def test_a_running_coroutine_is_cancelled_by_push(app):
    cancelled = []

    @app.task
    async def forever() -> None:
        try:
            await asyncio.sleep(60)
        except asyncio.CancelledError:
            cancelled.append(time.perf_counter())
            raise

    took = []
    async with Worker(app):
        for number in range(20):
            result = await forever.delay()
            await until_state(result, "STARTED")
            start = time.perf_counter()
            assert await result.revoke(terminate=True, wait=True, timeout=30) == "REVOKED"
            await until(lambda n=number: len(cancelled) == n + 1, "the coroutine to see the cancellation")
            took.append(cancelled[-1] - start)
            with pytest.raises(TaskRevoked):
                await result.get(timeout=1)
    report(
        f"terminate: median {statistics.median(took) * 1000:.2f} ms (promise: 50), "
        f"worst {max(took) * 1000:.2f} ms"
    )
    assert statistics.median(took) < 0.5, "by push, not by the next heartbeat"
    assert result.date_started is not None


async def test_a_terminated_coroutine_that_ignores_its_cancellation_ends_as_revoked(app):
    @app.task
    async def stubborn() -> str:
        for _ in range(10):
            try:
                await asyncio.sleep(0.03)
            except asyncio.CancelledError:
                continue
        return "done"

    async with Worker(app, concurrency=1) as worker:
        result = await stubborn.delay()
        await until_state(result, "STARTED")
        assert await result.revoke(terminate=True, wait=True, timeout=30) == "REVOKED"
        await asyncio.sleep(0.35)
        assert await app.AsyncResult(result.id).refresh() == "REVOKED"
        assert worker.done == 1


async def test_the_waiter_of_a_terminated_thread_wakes_at_once_and_the_thread_keeps_its_slot(app, thread_nap):
    gate = threading.Event()

    @app.task
    def thread_wait() -> None:
        gate.wait(30)

    async with Worker(app, concurrency=1):
        result = await thread_wait.delay()
        await until_state(result, "STARTED")
        next_one = await thread_nap.delay(0)
        stopwatch = Stopwatch()
        assert await result.revoke(terminate=True, wait=True, timeout=30) == "REVOKED"
        assert stopwatch.took < 0.3
        with pytest.raises(ResultTimeout):  # the slot is taken until the thread returns
            await next_one.get(timeout=0.3)
        gate.set()
        await next_one.get(timeout=30)
        assert await app.AsyncResult(result.id).refresh() == "REVOKED"


async def test_a_terminated_job_that_waits_for_a_thread_never_starts(make_app):
    started = []
    async with make_app(threads=1) as app:

        @app.task
        def nap(name: str, seconds: float) -> None:
            started.append(name)
            time.sleep(seconds)

        async with Worker(app):
            first, second = await nap.delay("first", 0.3), await nap.delay("second", 0)
            await until_state(first, "STARTED")
            await second.revoke(terminate=True, wait=True, timeout=30)
            await first.get(timeout=30)
            await nap.call("third", 0)
    assert started == ["first", "third"]


async def test_revoking_an_unknown_job_returns_unknown_and_waiting_for_its_end_raises(app):
    handle = app.AsyncResult("nobody")
    assert await handle.revoke() == "UNKNOWN"
    with pytest.raises(ResultNotFound):
        await handle.revoke(wait=True, timeout=1)


async def test_another_client_can_revoke_a_job_though_no_worker_runs(make_app, app, nap):
    result = await nap.delay(0)
    async with make_app() as elsewhere:
        assert await elsewhere.AsyncResult(result.id).revoke() == "REVOKED"
    with pytest.raises(TaskRevoked):
        await result.get(timeout=30)


# -- then ------------------------------------------------------------------------------------------


async def test_then_calls_the_right_callback_before_and_after_the_end(app, nap, fail):
    called = []
    async with Worker(app):
        good, bad = await nap.delay(0.05), await fail.delay()
        assert good.then(lambda r: called.append(("good", r.id))) is good
        bad.then(lambda r: called.append(("wrong", r.id)), on_error=lambda r: called.append(("bad", r.id)))
        await until(lambda: len(called) == 2, "both callbacks")
        good.then(lambda r: called.append(("again", r.id)))
        await until(lambda: len(called) == 3, "the callback of an ended job")
        bad.then(lambda r: called.append(("only", r.id)))
        await until(lambda: len(called) == 4, "one callback for every end")
    assert sorted(called) == sorted(
        [("good", good.id), ("bad", bad.id), ("again", good.id), ("only", bad.id)]
    )


async def test_then_runs_a_coroutine_and_keeps_the_handle_alive(app, nap):
    done = asyncio.Event()

    async def callback(result) -> None:
        await asyncio.sleep(0)
        assert await result.get() == 0.1
        done.set()

    async with Worker(app):
        (await nap.delay(0.1)).then(callback)
        await asyncio.wait_for(done.wait(), 30)


async def test_an_error_of_a_callback_goes_to_the_loops_handler_and_stops_no_other_callback(app, nap):
    received, problems = [], []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: problems.append(context["exception"]))
    async with Worker(app):
        result = await nap.delay(0.05)
        result.then(lambda _: 1 / 0)
        result.then(lambda _: received.append(1))
        assert await result.get(timeout=30) == 0.05
        await until(lambda: received and problems, "both callbacks")
    assert isinstance(problems[0], ZeroDivisionError)


# -- result sets -----------------------------------------------------------------------------------


async def test_a_result_set_gives_values_in_order_with_one_deadline(app, nap):
    async with Worker(app):
        results = await nap.map([(0.1,), (0.0,), (0.05,)])
        assert await results.get(timeout=30) == await results.join() == [0.1, 0.0, 0.05]
        assert [r.id for r in results] == [results[i].id for i in range(len(results))]
        late = await nap.map([(0.6,), (0.6,), (0.6,)])
        stopwatch = Stopwatch()
        with pytest.raises(ResultTimeout):
            await late.get(timeout=0.2)
        assert stopwatch.took < 0.5


async def test_a_result_set_raises_the_first_failure_in_order_or_returns_it_in_the_list(app, nap, fail):
    async with Worker(app):
        results = await app.submit([nap.s(0.05), fail.s(), nap.s(0)])
        with pytest.raises(ValueError, match="no"):
            await results.get(timeout=30)
        values = await results.get(timeout=30, propagate=False)
    assert (values[0], type(values[1]), values[2]) == (0.05, ValueError, 0)


async def test_an_empty_result_set_is_done(app):
    assert await app.ResultSet([]).get(timeout=1) == []
    assert len(app.ResultSet([])) == 0


# -- as a value ------------------------------------------------------------------------------------


async def test_a_handle_is_equal_to_its_id_and_to_another_handle_of_it(app, nap):
    result = await nap.delay(0)
    same = app.AsyncResult(result.id)
    assert result == same == result.id
    assert result != app.AsyncResult("other")
    assert result != 5
    assert hash(result) == hash(same) == hash(result.id)
    assert (str(result), result.task_id) == (result.id, result.id)
    assert len({result, same}) == 1
    assert result.id in repr(result)
    assert "PENDING" in repr(result)


@pytest.mark.parametrize("bad", ["", None, 5])
def test_a_handle_needs_an_id(make_app, bad):
    with pytest.raises(ValueError, match="id"):
        make_app().AsyncResult(bad)


async def test_a_copy_of_a_handle_shares_the_known_state(app, nap):
    result = await nap.delay(0.05)
    copies = [copy.copy(result), copy.deepcopy(result)]
    async with Worker(app):
        assert await result.get(timeout=30) == 0.05
    for other in copies:
        assert (other == result, other.state, other.args, other.kwargs) == (True, "SUCCESS", (0.05,), {})


async def test_tuples_and_lists_name_the_parents(app):
    child, parent = app.AsyncResult("child"), app.AsyncResult("parent")
    child.parent = parent
    assert child.as_tuple() == (("child", (("parent", None), None)), None)
    assert child.as_list() == ["child", "parent"]
    rebuilt = result_from_tuple(child.as_tuple(), app)
    assert (rebuilt, rebuilt.parent, rebuilt.parent.parent) == (child, parent, None)
    listed = [["child", [["parent", None], None]], None]
    assert result_from_tuple(listed, app).as_tuple() == child.as_tuple(), "also after a way through JSON"
    for bad in (None, "x", ("a", "b", "c"), 5):
        with pytest.raises(ValueError, match="as_tuple"):
            result_from_tuple(bad, app)


@pytest.mark.parametrize("protocol", range(2, pickle.HIGHEST_PROTOCOL + 1))
def test_a_pickled_handle_keeps_parents_of_every_kind(make_app, protocol):
    app = make_app()
    first = AsyncResult("first", app)
    group = GroupResult("header", [AsyncResult("a", app), AsyncResult("b", app)], parent=first, app=app)
    child = AsyncResult("body", app)
    child.parent = group
    same = pickle.loads(pickle.dumps(child, protocol))
    assert (type(same), type(same.parent), type(same.parent.parent)) == (
        AsyncResult,
        GroupResult,
        AsyncResult,
    )
    assert same.as_tuple() == child.as_tuple()
    assert same.parent == group


async def test_a_known_outcome_is_returned_without_opening_a_closed_app(make_app, nap, app):
    async with Worker(app), make_app() as elsewhere:
        known, unknown = elsewhere.AsyncResult((await nap.delay(0)).id), elsewhere.AsyncResult("unknown")
        assert await known.get(timeout=30) == 0
    assert await known == 0
    assert (await known.outcome()).state == "SUCCESS"
    assert (await known.ready(), await known.successful(), await known.failed()) == (True, True, False)
    assert not elsewhere.sessions.is_any_open
    with pytest.raises(ResultNotFound):
        await unknown.get(timeout=30)
    assert elsewhere.sessions.is_any_open
    await elsewhere.close()


async def test_an_unpickled_handle_works_in_a_process_with_one_app_and_else_raises_with_a_hint(
    app, nap, server_url, namespace
):
    async with Worker(app):
        result = await nap.delay(0)
        await result.get(timeout=30)
        program = (
            "import asyncio, pickle, sys, asyncq\n"
            "result = pickle.loads(bytes.fromhex(sys.argv[1]))\n"
            "same = asyncq.AsyncResult(result.id)\n"
            "try:\n    result.app\nexcept RuntimeError as error:\n    print('none:', error)\n"
            "app = asyncq.AsyncQ(sys.argv[2], namespace=sys.argv[3])\n"
            "async def main():\n"
            "    async with app:\n        print(await result.get(timeout=30), await same.get(timeout=30))\n"
            "asyncio.run(main())\n"
            "other = asyncq.AsyncQ(sys.argv[2])\n"
            "try:\n    asyncq.AsyncResult('x').app\nexcept RuntimeError as error:\n    print('two:', error)\n"
        )
        arguments = [sys.executable, "-c", program, pickle.dumps(result).hex(), server_url, namespace]
        process = await asyncio.to_thread(
            subprocess.run, arguments, capture_output=True, text=True, timeout=100
        )
    lines = process.stdout.splitlines()
    assert lines[1] == "0 0", process.stderr
    assert lines[0].startswith("none: there is no AsyncQ app")
    assert lines[2].startswith("two: there are 2 AsyncQ apps")
    assert "app=app" in lines[2]


def test_public_classes_name_the_package_as_their_module():
    assert AsyncResult.__module__.startswith("asyncq")
    assert ResultSet.__module__.startswith("asyncq")


# -- a job that never ran because one before it failed ---------------------------------------------


async def test_the_error_of_a_failed_parent_is_raised_or_on_request_named(app, fail, nap):
    first, _ = job_of(fail)
    second, _ = job_of(nap, 0)
    second.parents = (first.id,)
    first.dependents = (second.id,)
    await app.sessions.current().broker.intake.submit(
        [(first, wire.encode_job(first)), (second, wire.encode_job(second))]
    )
    result = app.AsyncResult(second.id)
    async with Worker(app):
        with pytest.raises(ValueError, match="no"):
            await result.get(timeout=30)
        with pytest.raises(TaskRevoked, match=rf"{first.id} \({re.escape(fail.name)}\)"):
            await result.get(timeout=30, follow_parents=False)
        given = await result.get(timeout=30, follow_parents=False, propagate=False)
        assert isinstance(given, TaskRevoked)
        with pytest.raises(ValueError, match="no"):
            await app.AsyncResult(first.id).get(timeout=30, follow_parents=False)
