"""A handle: its properties, each way to wait for its job, and revocation. The tests end the jobs by hand."""

from __future__ import annotations

import asyncio
import contextvars
import gc
import pickle
import weakref
from datetime import timedelta

import pytest
from helpers.waiting import until

from asyncq import (
    AsyncResult,
    ResultNotFound,
    ResultTimeout,
    State,
    TaskExpired,
    TaskRevoked,
    WorkerLost,
)

pytestmark = pytest.mark.anyio


async def begin_wait(waiting: asyncio.Task[object]) -> asyncio.Task[object]:
    """Lets a task begin to wait."""
    for _ in range(5):
        await asyncio.sleep(0)
    assert not waiting.done()
    return waiting


# -- states ------------------------------------------------------------------------------------------------


async def test_refresh_shows_each_state_of_a_job(app, add, hand):
    result = await add.delay(1, 2)
    assert (result.state, result.queue, result.name) == ("PENDING", "default", add.name)
    handle = app.AsyncResult(result.id)
    assert handle.state == "UNKNOWN"
    assert await handle.refresh() == "PENDING"
    job = await hand.take()
    assert await handle.refresh() == "STARTED"
    assert (handle.worker, handle.date_started is not None, handle.date_done) == ("by-hand", True, None)
    await job.report("RENDERING", {"page": 3})
    assert await handle.refresh() == "RENDERING"
    assert handle.info == {"page": 3}
    await job.retry(KeyError("x"), after=60)
    assert await handle.refresh() == "RETRY"
    assert (handle.retries, repr(handle.result)) == (1, "KeyError('x')")


async def test_a_scheduled_job_is_shown_as_scheduled_from_the_start(app, add):
    result = await add.options(countdown=60).delay(1, 2)
    assert result.state == "SCHEDULED"
    assert await app.AsyncResult(result.id).refresh() == "SCHEDULED"


async def test_success_shows_everything_about_the_run(add, hand):
    result = await add.delay(1, 2)
    await hand.succeed(result, 3)
    assert await result.get() == 3
    assert (result.state, result.result, result.info, result.worker, result.retries) == (
        State.SUCCESS,
        *(3, 3, "by-hand", 0),
    )
    assert (result.traceback, result.children) == (None, [])
    assert result.date_started <= result.date_done


async def test_failure_shows_the_exception_and_does_not_raise_it(add, hand):
    result = await add.delay(1, 2)
    await hand.fail(result, ValueError("no", 3))
    outcome = await result.outcome()
    assert (outcome.state, repr(outcome.error), outcome.value) == ("FAILURE", "ValueError('no', 3)", None)
    assert (result.state, repr(result.result)) == ("FAILURE", "ValueError('no', 3)")


async def test_a_push_updates_every_handle_of_the_job_without_a_query(app, add, hand, server):
    first = await add.delay(1, 2)
    second = app.AsyncResult(first.id)
    await second.refresh()
    server.calls.clear()
    await hand.succeed(first, 3)
    await until(lambda: first.state == "SUCCESS", "the push")
    assert second.state == "SUCCESS"
    assert not server.calls["fetch_status"] + server.calls["state"]


async def test_final_states_never_change(add, hand):
    result = await add.delay(1, 2)
    await hand.succeed(result, 3)
    await result.get()
    assert await result.revoke(terminate=True) == "SUCCESS"
    assert (await result.refresh(), result.state) == ("SUCCESS", "SUCCESS")


async def test_ready_successful_and_failed_answer_before_and_after_the_end(app, add, hand):
    good, bad, live = [await add.delay(1, n) for n in range(3)]
    await hand.succeed(good, 1)
    await hand.fail(bad, ValueError("no"))
    answers = [
        (await handle.ready(), await handle.successful(), await handle.failed())
        for handle in (app.AsyncResult(result.id) for result in (good, bad, live))
    ]
    assert answers == [(True, True, False), (True, False, True), (False, False, False)]


async def test_a_job_exists_until_it_is_forgotten(app, add):
    assert not await app.AsyncResult("made-up").exists()
    result = await add.delay(1, 2)
    assert await result.exists()


async def test_the_children_are_handles_of_the_jobs_that_it_started(add, hand):
    result = await add.delay(1, 2)
    await (await hand.take()).succeed(3, children=("one", "two"))
    await result.get()
    assert result.children == ["one", "two"]
    assert all(type(child) is AsyncResult for child in result.children)


# -- get ---------------------------------------------------------------------------------------------------


async def test_a_push_ends_a_wait_without_a_query(add, hand, server):
    result = await add.delay(1, 2)
    waiting = await begin_wait(asyncio.create_task(result.get()))
    server.calls.clear()
    await hand.succeed(result, 3)
    assert await waiting == 3
    assert not server.calls["fetch_status"]


async def test_a_value_too_large_for_a_push_is_fetched_at_once(add, hand, server):
    result = await add.delay(1, 2)
    waiting = await begin_wait(asyncio.create_task(result.get(timeout=3)))
    server.calls.clear()
    await hand.succeed(result, "x" * 20_000)
    assert len(await waiting) == 20_000
    assert server.calls["fetch_status"] == 1


async def test_a_handle_can_be_awaited_several_times(add, hand):
    result = await add.delay(1, 2)
    await hand.succeed(result, {"list": [1]})
    first, second = await result, await result
    assert first == second == {"list": [1]}
    assert first is not second


async def test_a_timeout_ends_the_wait_and_not_the_job(add, hand):
    result = await add.delay(1, 2)
    with pytest.raises(ResultTimeout, match=r"did not end within 0\.01 s"):
        await result.get(timeout=0.01)
    with pytest.raises(TimeoutError):
        await result.get(timeout=timedelta(milliseconds=1))
    await hand.succeed(result, 3)
    assert await result.get(timeout=30) == 3


async def test_a_timeout_of_zero_polls_once(app, add, hand, server):
    result = await add.delay(1, 2)
    handle = app.AsyncResult(result.id)
    with pytest.raises(ResultTimeout):
        await handle.get(timeout=0)
    with server.lose_messages():
        await hand.succeed(result, 3)
    assert await handle.get(timeout=0) == 3


@pytest.mark.parametrize("bad", [-1, float("nan"), "soon", True])
async def test_a_value_that_is_not_a_duration_is_refused(add, bad):
    result = await add.delay(1, 2)
    with pytest.raises((TypeError, ValueError)):
        await result.get(timeout=bad)


async def test_without_propagation_get_returns_the_exception(add, hand):
    result = await add.delay(1, 2)
    await hand.fail(result, ValueError("no"))
    error = await result.get(propagate=False)
    assert repr(error) == "ValueError('no')"


async def test_each_get_raises_an_exception_of_its_own(add, hand):
    result = await add.delay(1, 2)
    await hand.fail(result, ValueError("no"))
    errors = []
    for _ in range(2):
        with pytest.raises(ValueError, match="no") as caught:
            await result.get()
        errors.append(caught.value)
    assert errors[0] is not errors[1]


async def test_a_timeout_error_of_the_task_is_not_a_result_timeout(add, hand):
    result = await add.delay(1, 2)
    await hand.fail(result, TimeoutError("mine"))
    with pytest.raises(TimeoutError, match="mine") as caught:
        await result.get()
    assert not isinstance(caught.value, ResultTimeout)


async def test_the_callback_of_get_receives_id_and_value(add, hand):
    received = []
    result = await add.delay(1, 2)
    await hand.succeed(result, 3)
    assert await result.get(callback=lambda *args: received.append(args)) == 3
    assert received == [(result.id, 3)]


async def test_a_cancelled_wait_does_not_affect_other_waits(add, hand):
    result = await add.delay(1, 2)
    first, second = (asyncio.create_task(result.get()) for _ in range(2))
    await begin_wait(second)
    first.cancel()
    await hand.succeed(result, 3)
    assert await second == 3
    assert first.cancelled()


@pytest.mark.parametrize("how", ["timeout", "cancel"])
async def test_an_abandoned_wait_revokes_the_job_if_asked_to(add, hand, how):
    result = await add.delay(1, 2)
    if how == "timeout":
        with pytest.raises(ResultTimeout, match="is being revoked"):
            await result.get(timeout=0.01, revoke_on_abandon=True)
    else:
        waiting = await begin_wait(asyncio.create_task(result.get(revoke_on_abandon=True)))
        waiting.cancel()
    with pytest.raises(TaskRevoked, match="the wait for it was abandoned"):
        await result.get(timeout=30)
    assert await hand.take_all() == []


async def test_a_wait_without_a_reference_is_not_garbage_collected(add, hand):
    found = []

    async def wait() -> None:
        found.append(await (await add.delay(1, 2)).get())

    gone = weakref.ref(asyncio.create_task(wait()))
    await asyncio.sleep(0.01)
    gc.collect()
    assert gone() is not None
    await (await hand.take()).succeed(3)
    await until(lambda: found, "the value")


# -- unknown, forgotten, ignored ---------------------------------------------------------------------------


async def test_get_of_an_unknown_id_raises_at_once_and_works_after_the_job_is_enqueued(app, add, hand):
    handle = app.AsyncResult("order-17")
    with pytest.raises(ResultNotFound):
        await handle.get(timeout=30)
    await add.options(task_id="order-17").delay(1, 2)
    await (await hand.take()).succeed(3)
    assert await handle.get(timeout=30) == 3


@pytest.mark.parametrize("bad", ["", None, "white space", "\ud800", "x" * 501])
async def test_an_invalid_id_is_refused(app, bad):
    with pytest.raises(ValueError, match="id"):
        app.AsyncResult(bad)


async def test_a_forgotten_result_is_not_found_by_any_handle(app, add, hand):
    result = await add.delay(1, 2)
    handle = app.AsyncResult(result.id)
    await hand.succeed(result, 3)
    await handle.get()
    await result.forget()
    assert (result.state, handle.state) == ("UNKNOWN", "UNKNOWN")
    with pytest.raises(ResultNotFound):
        await handle.get(timeout=30)


async def test_the_waiters_of_a_live_job_that_is_forgotten_get_the_value(app, add, hand):
    result = await add.delay(1, 2)
    waiting = await begin_wait(asyncio.create_task(result.get()))
    await app.AsyncResult(result.id).forget()
    await hand.succeed(result, 3)
    assert await waiting == 3
    assert not await app.AsyncResult(result.id).exists()


async def test_a_countdown_of_zero_does_not_delay_the_job(add, hand):
    for options in ({"countdown": 0}, {"countdown": 0.0001}, {"eta": 0}):
        result = await add.options(**options).delay(1, 2)
        assert result.state == "PENDING"
        assert await result.refresh() == "PENDING"
        assert (await hand.take()).id == result.id
    line = await (add.s(1, 2) | add.s(3)).options(countdown=0).delay()
    assert (await hand.take()).id == line.parent.id


async def test_a_wait_that_times_out_reports_the_state_of_the_job_at_the_server(app, add, hand):
    result = await add.delay(1, 2)
    job = await hand.take()
    for wait in (result.get, result.outcome, lambda timeout: result.revoke(wait=True, timeout=timeout)):
        with pytest.raises(ResultTimeout, match="state: STARTED"):
            await wait(timeout=0.01)
    await job.report("RENDERING")
    with pytest.raises(ResultTimeout, match="state: RENDERING"):
        await result.get(timeout=0.01, on_event=lambda _: None)
    late = await add.delay(3, 4)
    with pytest.raises(ResultTimeout, match="state: PENDING"):
        await late.get(timeout=0.01)


async def test_a_wait_polls_once_more_before_it_times_out(app, add, hand, server):
    """The outcome is stored, and its push was lost."""
    result = await add.delay(1, 2)
    waiting = await begin_wait(asyncio.create_task(result.get(timeout=0.2)))
    app.sessions.current().listener.subscription._on_outcomes = lambda _data: None
    await hand.succeed(result, 3)
    assert await waiting == 3


async def test_a_query_that_finds_nothing_keeps_the_value_that_a_handle_has(make_app, app, add, hand):
    result = await add.delay(1, 2)
    waiting = app.AsyncResult(result.id)
    await hand.succeed(result, 3)
    assert await result == 3
    async with make_app() as other:
        await other.AsyncResult(result.id).forget()
    assert not await result.exists()
    assert (result.state, await result.get(timeout=1), await waiting.get(timeout=1)) == ("SUCCESS", 3, 3)
    assert await result.ready()
    await result.forget()
    with pytest.raises(ResultNotFound):
        await result.get(timeout=1)


async def test_a_result_that_has_expired_is_not_found(app, add, hand, server):
    result = await add.options(result_ttl=60).delay(1, 2)
    id_ = result.id
    await hand.succeed(result, 3)
    del result  # this handle knows the value from the push
    server.advance(61)
    with pytest.raises(ResultNotFound):
        await app.AsyncResult(id_).get(timeout=30)


async def test_an_ignored_result_is_not_waited_for(add, server):
    result = await add.options(ignore_result=True).delay(1, 2)
    server.calls.clear()
    with pytest.raises(ResultNotFound, match="ignore_result=True"):
        await result.get()
    assert not server.calls


# -- ends without a value ----------------------------------------------------------------------------------


async def test_the_waiters_of_a_queued_job_that_is_revoked_get_the_reason(add, hand):
    result = await add.delay(1, 2)
    waiting = await begin_wait(asyncio.create_task(result.get()))
    assert await result.revoke(reason="not needed") == "REVOKED"
    with pytest.raises(TaskRevoked, match="not needed"):
        await waiting
    assert await hand.take_all() == []


async def test_a_revocation_that_waits_ends_when_the_running_job_is_revoked(add, hand):
    result = await add.delay(1, 2)
    job = await hand.take()
    assert await result.revoke() == "STARTED"
    ending = await begin_wait(asyncio.create_task(result.revoke(terminate=True, wait=True, timeout=30)))
    await job.revoke("told to")
    assert await ending == "REVOKED"


async def test_revoke_of_an_unknown_job_returns_unknown(app):
    assert await app.AsyncResult("made-up").revoke() == "UNKNOWN"


async def test_a_job_that_expires_in_the_queue_ends_its_wait_without_a_worker(add):
    result = await add.options(expires=0.02).delay(1, 2)
    with pytest.raises(TaskExpired):
        await result.get(timeout=30)


async def test_get_of_a_job_whose_worker_is_lost_raises_worker_lost(app, add, hand):
    result = await add.delay(1, 2)
    job = await hand.take()
    await job.lose()
    with pytest.raises(WorkerLost):
        await result.get(timeout=30)


# -- then --------------------------------------------------------------------------------------------------


async def test_then_calls_the_callback_with_the_handle_after_the_end(add, hand):
    called: asyncio.Queue[object] = asyncio.Queue()
    result = await add.delay(1, 2)
    assert result.then(called.put_nowait) is result
    await hand.succeed(result, 3)
    assert await called.get() is result
    result.then(called.put_nowait)
    assert await called.get() is result


async def test_then_calls_the_error_callback_after_a_failure_or_a_revocation(add, hand):
    called: asyncio.Queue[object] = asyncio.Queue()
    failed, revoked = await add.delay(1, 2), await add.delay(1, 2)
    for result in (failed, revoked):
        result.then(lambda _: called.put_nowait("good"), lambda one: called.put_nowait(one.state))
    await hand.fail(failed, ValueError("no"))
    assert await called.get() == "FAILURE"
    await revoked.revoke()
    assert await called.get() == "REVOKED"


async def test_then_runs_a_coroutine_function_in_the_context_of_its_call(add, hand):
    user = contextvars.ContextVar("user", default="nobody")
    called: asyncio.Queue[object] = asyncio.Queue()

    async def note(result: AsyncResult[int]) -> None:
        called.put_nowait((user.get(), await result))

    result = await add.delay(1, 2)
    user.set("me")
    result.then(note)
    user.set("somebody else")
    await hand.succeed(result, 3)
    assert await called.get() == ("me", 3)


async def test_then_keeps_the_handle_alive(add, hand):
    called: asyncio.Queue[object] = asyncio.Queue()
    (await add.delay(1, 2)).then(lambda result: called.put_nowait(result.state))
    gc.collect()
    await (await hand.take()).succeed(3)
    assert await called.get() == "SUCCESS"


async def test_an_exception_of_a_callback_goes_to_the_exception_handler_of_the_loop(add, hand):
    received: asyncio.Queue[object] = asyncio.Queue()
    asyncio.get_running_loop().set_exception_handler(lambda _, context: received.put_nowait(context))

    def broken(_: object) -> None:
        raise KeyError("mine")

    result = await add.delay(1, 2)
    result.then(broken)
    await hand.succeed(result, 3)
    assert repr((await received.get())["exception"]) == "KeyError('mine')"


# -- following ---------------------------------------------------------------------------------------------


async def test_events_start_with_the_current_state_and_end_with_the_final_one(add, hand):
    result = await add.delay(1, 2)
    job = await hand.take()
    await job.report("ONE", 1)
    await job.report("TWO", 2)
    events = result.events(timeout=30)
    first = await anext(events)
    assert (first.state, first.info, first.final) == ("TWO", 2, False)
    await job.succeed(3)
    rest = [(event.state, event.info, event.final) async for event in events]
    assert rest == [("SUCCESS", 3, True)]


async def test_events_of_an_ended_job_are_only_its_final_state(app, add, hand):
    result = await add.delay(1, 2)
    await hand.succeed(result, 3)
    assert [event.state async for event in app.AsyncResult(result.id).events()] == ["SUCCESS"]


async def test_events_time_out_and_the_job_continues(add, hand):
    result = await add.delay(1, 2)
    with pytest.raises(ResultTimeout):
        async for _ in result.events(timeout=0.01):
            pass
    await hand.succeed(result, 3)
    assert await result == 3


async def test_get_passes_each_event_to_on_event(add, hand):
    seen = []
    result = await add.delay(1, 2)
    job = await hand.take()
    waiting = await begin_wait(
        asyncio.create_task(result.get(on_event=lambda event: seen.append(event.state)))
    )
    await until(lambda: seen, "the first event")
    await job.report("RENDERING")
    await until(lambda: "RENDERING" in seen, "the report")
    await job.succeed(3)
    assert await waiting == 3
    assert seen[-1] == "SUCCESS"


async def test_a_stream_yields_stored_and_new_items_and_ends_with_the_job(app, hand):
    @app.task
    async def numbers():
        yield 1

    result = await numbers.delay()
    job = await hand.take()
    await job.give("a", "b")
    stream = result.stream()
    assert [await anext(stream), await anext(stream), stream.offset] == ["a", "b", 2]
    await job.give("c")
    await job.succeed()
    assert [item async for item in stream] == ["c"]
    assert [item async for item in result.stream(after=2)] == ["c"]


async def test_a_stream_of_a_failed_job_yields_its_items_and_then_raises(app, hand):
    @app.task
    async def numbers():
        yield 1

    result = await numbers.delay()
    job = await hand.take()
    await job.give("a")
    await job.fail(ValueError("no"))
    stream = result.stream()
    assert await anext(stream) == "a"
    with pytest.raises(ValueError, match="no"):
        await anext(stream)


# -- as a value --------------------------------------------------------------------------------------------


async def test_a_handle_is_equal_to_its_id_and_to_another_handle_of_the_job(app, add):
    result = await add.delay(1, 2)
    assert result == result.id == app.AsyncResult(result.id)
    assert len({result, app.AsyncResult(result.id)}) == 1
    assert str(result) == result.id


async def test_a_pickled_handle_is_equal_to_the_original(add):
    result = await (add.s(1, 2) | add.s(3)).delay()
    again = pickle.loads(pickle.dumps(result))
    assert (again, again.parent) == (result, result.parent)


async def test_a_known_outcome_needs_no_open_app(make_app, hand, app, add):
    result = await add.delay(1, 2)
    await hand.succeed(result, 3)
    await result.get()
    await app.close()
    assert await result.get() == 3
