"""Waiting for many jobs at once: result sets, groups, `gather`, `wait`, `as_completed`, and scopes."""

from __future__ import annotations

import asyncio

import pytest
from helpers.waiting import until

import asyncq
from asyncq import GroupResult, QueueFull, ResultSet, ResultTimeout, TaskRevoked
from asyncq.broker import waiters

pytestmark = pytest.mark.anyio


@pytest.fixture
async def three(add):
    """Enqueues three jobs, and returns their handles."""
    return list(await add.map([(1, n) for n in range(3)]))


# -- sets --------------------------------------------------------------------------------------------------


async def test_a_batch_is_enqueued_in_one_round_trip(add, hand, server):
    server.calls.clear()
    results = await add.map([(1, n) for n in range(100)])
    assert server.calls == {"enqueue": 1}
    jobs = await hand.take_all()
    assert [job.id for job in jobs] == [result.id for result in results]
    assert [job.args for job in jobs] == [[1, n] for n in range(100)]


async def test_calls_of_one_iteration_of_the_loop_are_enqueued_in_one_round_trip(add, server):
    server.calls.clear()
    results = await asyncio.gather(*(add.delay(1, n) for n in range(20)))
    assert server.calls == {"enqueue": 1}
    assert len({result.id for result in results}) == 20


async def test_a_set_returns_its_values_in_order_whichever_job_ends_first(add, hand):
    results = await add.map([(1, n) for n in range(3)])
    for n, job in reversed(list(enumerate(await hand.take_all()))):
        await job.succeed(n)
    assert await results.get() == [0, 1, 2]
    assert await results == [0, 1, 2]


async def test_a_set_raises_the_first_failure_in_order_or_returns_it(three, hand):
    jobs = await hand.take_all()
    await jobs[2].fail(KeyError("last"))
    await jobs[1].fail(ValueError("first"))
    await jobs[0].succeed(0)
    results = ResultSet(three)
    with pytest.raises(ValueError, match="first"):
        await results.get()
    assert [repr(value) for value in await results.get(propagate=False)] == [
        "0",
        "ValueError('first')",
        "KeyError('last')",
    ]


async def test_the_timeout_of_a_set_is_for_all_its_jobs_together(three, hand):
    await (await hand.take()).succeed(0)
    with pytest.raises(ResultTimeout):
        await ResultSet(three).get(timeout=0.01)


async def test_the_callback_of_a_set_receives_each_value_in_order(three, hand):
    received = []
    for n, job in enumerate(await hand.take_all()):
        await job.succeed(n)
    await ResultSet(three).get(callback=lambda id_, value: received.append((id_, value)))
    assert received == [(result.id, n) for n, result in enumerate(three)]


async def test_an_empty_set_is_done(app):
    results = ResultSet([], app=app)
    assert (await results.get(), await results.ready(), await results.successful()) == ([], True, True)


async def test_a_set_fetches_the_states_of_its_jobs_in_one_query(three, hand, server):
    results = ResultSet(three)
    first, second, _ = await hand.take_all()
    with server.lose_messages():
        await first.succeed(0)
        await second.fail(ValueError("no"))
    server.calls.clear()
    assert await results.completed_count() == 1
    assert server.calls == {"fetch_status": 1}
    assert (await results.ready(), await results.failed(), await results.waiting()) == (False, True, True)
    with pytest.raises(ValueError, match="no"):
        await results.maybe_throw()


async def test_as_completed_yields_each_handle_once_when_its_job_ends(three, hand):
    jobs = await hand.take_all()
    given = []
    completed = ResultSet(three).as_completed(timeout=30)
    for n in (2, 0, 1):
        await jobs[n].succeed(n)
        given.append(await (await anext(completed)))
    assert given == [2, 0, 1]
    with pytest.raises(StopAsyncIteration):
        await anext(completed)


async def test_as_completed_yields_failed_jobs_too_and_times_out_for_the_rest(three, hand):
    await (await hand.take()).fail(ValueError("no"))
    completed = asyncq.as_completed(three, timeout=0.05)
    assert (await anext(completed)).state == "FAILURE"
    with pytest.raises(ResultTimeout):
        await anext(completed)


async def test_a_set_calls_its_callback_when_the_last_job_has_ended(three, hand):
    called: asyncio.Queue[object] = asyncio.Queue()
    results = ResultSet(three)
    results.then(lambda _: called.put_nowait("good"), lambda _: called.put_nowait("bad"))
    first, *others = await hand.take_all()
    await first.fail(ValueError("no"))
    await asyncio.sleep(0.01)
    assert called.empty()
    for job in others:
        await job.succeed()
    assert await called.get() == "bad"


async def test_revoke_of_a_set_revokes_each_job_and_returns_each_state(three, hand):
    await (await hand.take()).succeed()
    await hand.take()
    assert await ResultSet(three).revoke(reason="no") == ["SUCCESS", "STARTED", "REVOKED"]


async def test_forget_of_a_set_forgets_each_job(three, hand):
    for job in await hand.take_all():
        await job.succeed()
    await ResultSet(three).get()
    await ResultSet(three).forget()
    assert [await result.exists() for result in three] == [False] * 3


async def test_a_set_is_a_list_without_duplicates(three, app):
    first, second, third = three
    results = ResultSet([first, second])
    results.add(first)
    results.update([third, second])
    assert [*results] == three
    results.remove(second.id)
    with pytest.raises(KeyError):
        results.remove(second)
    results.discard(second)
    assert (len(results), results[1], results[:1]) == (2, third, ResultSet([first]))
    results.clear()
    assert len(results) == 0


# -- groups ------------------------------------------------------------------------------------------------


async def test_a_saved_group_is_restored_with_its_members_and_their_values(app, three, hand):
    saved = app.GroupResult("order-17", three)
    await saved.save()
    for n, job in enumerate(await hand.take_all()):
        await job.succeed(n)
    restored = await app.GroupResult.restore("order-17")
    assert isinstance(restored, GroupResult)
    assert (restored, await restored.get()) == (saved, [0, 1, 2])
    await saved.delete()
    assert await app.GroupResult.restore("order-17") is None


async def test_a_saved_group_expires_after_its_result_ttl(make_app, server):
    async with make_app(result_ttl=60) as app:
        await app.GroupResult("g", [app.AsyncResult("a")]).save()
        server.advance(61)
        assert await app.GroupResult.restore("g") is None


# -- gather, wait ------------------------------------------------------------------------------------------


async def test_gather_returns_values_in_order(three, hand):
    for n, job in enumerate(await hand.take_all()):
        await job.succeed(n)
    assert await asyncq.gather(*three) == (0, 1, 2)
    assert await asyncq.gather() == ()


async def test_gather_raises_the_first_failure_at_once_and_the_other_jobs_continue(three, hand):
    gathering = asyncio.create_task(asyncq.gather(*three))
    first, second, _ = await hand.take_all()
    await second.fail(ValueError("no"))
    with pytest.raises(ValueError, match="no"):
        await gathering
    await first.succeed(1)
    assert await three[0] == 1


async def test_gather_returns_exceptions_on_request(three, hand):
    for n, job in enumerate(await hand.take_all()):
        await (job.fail(ValueError("no")) if n == 1 else job.succeed(n))
    values = await asyncq.gather(*three, return_exceptions=True)
    assert [repr(value) for value in values] == ["0", "ValueError('no')", "2"]


@pytest.mark.parametrize(
    ("return_when", "ends", "expected"),
    [
        (asyncio.FIRST_COMPLETED, ["good"], {0}),
        (asyncio.FIRST_EXCEPTION, ["good", "bad"], {0, 1}),
        (asyncio.ALL_COMPLETED, ["good", "bad", "good"], {0, 1, 2}),
    ],
)
async def test_wait_returns_as_return_when_says(three, hand, return_when, ends, expected):
    waiting = asyncio.create_task(asyncq.wait(three, return_when=return_when))
    for end, job in zip(ends, await hand.take_all(), strict=False):
        assert not waiting.done()
        await (job.succeed() if end == "good" else job.fail(ValueError("no")))
        await asyncio.sleep(0.005)
    done, pending = await waiting
    assert done == {three[n] for n in expected}
    assert done | pending == set(three)


async def test_wait_returns_the_jobs_that_have_ended_when_its_timeout_is_over(three, hand):
    await (await hand.take()).succeed()
    done, pending = await asyncq.wait(three, timeout=0.05)
    assert (done, pending) == ({three[0]}, {*three[1:]})


async def test_ignored_results_count_as_done_without_a_query(add, server):
    ignored = await add.options(ignore_result=True).delay(1, 2)
    server.calls.clear()
    assert await asyncq.wait([ignored]) == ({ignored}, set())
    assert not server.calls


async def test_a_value_that_is_not_a_handle_is_refused_by_name(add):
    with pytest.raises(TypeError, match="gather"):
        await asyncq.gather(add.delay(1, 2))
    with pytest.raises(TypeError, match=r"wait\(\) takes several handles"):
        await asyncq.wait(await add.delay(1, 2))


async def test_many_waits_send_no_commands(add, hand, server, monkeypatch):
    monkeypatch.setattr(waiters, "POLL", 600)  # a wait of more than four seconds would poll
    results = await add.map([(1, n) for n in range(500)])
    waiting = asyncio.create_task(results.get())
    await asyncio.sleep(0.01)
    server.calls.clear()
    for n, job in enumerate(await hand.take_all()):
        await job.succeed(n)
    assert await waiting == list(range(500))
    assert not server.calls["fetch_status"] + server.calls["state"] + server.calls["SUBSCRIBE"]


async def test_a_batch_that_does_not_fit_into_the_queue_is_refused_as_a_whole(make_app, server):
    async with make_app(max_length=2, full_wait=0) as app:
        task = app.task(name="task")(_nothing)
        with pytest.raises(QueueFull):
            await task.map([()] * 3)
        assert server.keys(":r:") == []


async def _nothing() -> None:
    """The body of a task. No worker runs it."""


# -- scopes ------------------------------------------------------------------------------------------------


async def test_a_scope_revokes_jobs_that_have_not_ended_except_kept_ones(app, add, hand):
    async with app.scope() as scope:
        ended = await add.delay(1, 2)
        await hand.succeed(ended, 3)
        await ended
        kept = scope.keep(await add.delay(1, 2))
        left = await add.delay(1, 2)
    with pytest.raises(TaskRevoked, match="scope"):
        await left.get(timeout=30)
    assert [job.id for job in await hand.take_all()] == [kept.id]
    assert await ended == 3


async def test_a_scope_that_raises_revokes_and_raises(app, add):
    left = []

    async def work() -> None:
        async with app.scope():
            left.append(await add.delay(1, 2))
            raise KeyError("mine")

    with pytest.raises(KeyError, match="mine"):
        await work()
    assert await left[0].refresh() == "REVOKED"


async def test_scopes_nest_and_a_job_belongs_to_the_innermost(app, add):
    async with app.scope():
        outer = await add.delay(1, 2)
        async with app.scope():
            inner = await add.delay(1, 2)
        assert await inner.refresh() == "REVOKED"
        assert await outer.refresh() == "PENDING"
    assert await outer.refresh() == "REVOKED"


async def test_a_scope_does_not_revoke_an_existing_job_that_a_key_found(app, add):
    first = await add.options(key="order").delay(1, 2)
    async with app.scope():
        second = await add.options(key="order").delay(1, 2)
        assert second == first
    assert await first.refresh() == "PENDING"


async def test_a_scope_that_is_cancelled_revokes_in_the_background(app, add):
    left = []

    async def work() -> None:
        async with app.scope():
            left.append(await add.delay(1, 2))
            await asyncio.Event().wait()

    working = asyncio.create_task(work())
    await until(lambda: left, "the job")
    working.cancel()
    with pytest.raises(TaskRevoked):
        await left[0].get(timeout=30)
