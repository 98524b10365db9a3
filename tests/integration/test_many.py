"""Many handles: sets, groups, gather, wait, as_completed. They have one deadline, need few commands, and
leave nothing behind.
"""

from __future__ import annotations

import asyncio
import copy
import inspect
import json
import pickle
import time
import uuid
from contextlib import asynccontextmanager
from datetime import timedelta
from typing import TYPE_CHECKING

import pytest
from helpers.figures import report
from helpers.inside import waiters_of
from helpers.stopwatch import Stopwatch
from helpers.waiting import until
from helpers.worker_process import worker_process

import asyncq
from asyncq import (
    AsyncQ,
    BrokerUnavailable,
    DecodeError,
    EagerResult,
    GroupResult,
    ResultNotFound,
    ResultSet,
    ResultTimeout,
    TaskRevoked,
    Worker,
    WouldDeadlock,
    result_from_tuple,
    wire,
)
from asyncq.serializers import PLAIN_VALUE

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

pytestmark = pytest.mark.anyio


@pytest.fixture
def fail(app):
    @app.task
    async def fail(text: str) -> None:
        raise ValueError(text)

    return fail


def _waiter_count(app: AsyncQ) -> int:
    """Returns how many waits this process has open."""
    return sum(len(waiter.futures or ()) + len(waiter.callbacks or ()) for waiter in waiters_of(app))


async def _calls(raw, *names: str) -> int:
    stats = await raw.info("commandstats")
    return sum(stats.get(f"cmdstat_{name}", {}).get("calls", 0) for name in names)


# -- get -------------------------------------------------------------------------------------------


async def test_the_first_failure_is_raised_without_waiting_for_the_rest(app, nap, fail):
    async with Worker(app, grace=0):
        results = await app.submit([nap.s(20), fail.s("no")])
        stopwatch = Stopwatch()
        with pytest.raises(ValueError, match="no"):
            await results.get(timeout=30)
        assert stopwatch.took < 5
        assert _waiter_count(app) == 0
        await results.revoke(terminate=True, wait=True, timeout=30)


async def test_the_first_in_order_of_several_failures_is_raised(app, add, fail):
    async with Worker(app):
        results = await app.submit([add.s(1, 1), fail.s("one"), fail.s("two")])
        assert len(await results.get(timeout=30, propagate=False)) == 3
    rebuilt = app.ResultSet([app.AsyncResult(r.id) for r in reversed(list(results))])
    with pytest.raises(ValueError, match="two"):
        await rebuilt.get(timeout=30)


async def test_one_timeout_applies_to_the_set_and_a_timed_out_wait_leaves_nothing(app, nap):
    async with Worker(app):
        results = await nap.map([(1.0,), (1.0,), (0,)])
        await results[2].get(timeout=30)
        stopwatch = Stopwatch()
        with pytest.raises(ResultTimeout, match=r"2 of 3 jobs did not end within 0\.1 s"):
            await results.get(timeout=timedelta(milliseconds=100))
        assert stopwatch.took < 0.5
        assert _waiter_count(app) == 0
        assert await results.get(timeout=30) == [1.0, 1.0, 0]


async def test_a_timeout_of_zero_queries_the_server_once(app, add, nap):
    async with Worker(app):
        results = await add.map([(1, 2), (3, 4)])
        await results.get(timeout=30)
        by_id = ResultSet([app.AsyncResult(r.id) for r in results])
        assert await by_id.get(timeout=0) == [3, 7]
        late = await nap.delay(0.2)
        with pytest.raises(ResultTimeout):
            await app.ResultSet([late, app.AsyncResult(results[0].id)]).get(timeout=0)


async def test_a_cancelled_wait_leaves_nothing_and_another_goes_on(app, nap):
    async with Worker(app):
        results = await nap.map([(0.3,)] * 10)
        stays = asyncio.create_task(results.get(timeout=60))
        goes = asyncio.create_task(results.get(timeout=60))
        await until(lambda: _waiter_count(app) == 20, "both jobs to wait")
        goes.cancel()
        with pytest.raises(asyncio.CancelledError):
            await goes
        assert _waiter_count(app) == 10
        assert await stays == [0.3] * 10


async def test_closing_the_app_ends_the_wait(make_app):
    app = make_app()
    async with app:
        handle = await app.send("nobody.knows")
        wait = asyncio.create_task(app.ResultSet([handle]).get())
        await until(lambda: _waiter_count(app) == 1, "the wait")
    with pytest.raises(BrokerUnavailable, match="closed"):
        await wait


async def test_unknown_ids_are_reported_at_once_and_listed_on_request(app, add):
    async with Worker(app):
        known = await add.delay(1, 2)
        results = app.ResultSet([known, app.AsyncResult("nobody"), app.AsyncResult("none")])
        with pytest.raises(ResultNotFound, match="nobody"):
            await results.get(timeout=30)
        values = await results.get(timeout=30, propagate=False)
    assert (values[0], [type(value) for value in values[1:]]) == (3, [ResultNotFound] * 2)


async def test_a_callback_receives_each_result_in_order(app, nap):
    notified = []
    async with Worker(app):
        results = await nap.map([(0.05,), (0,)])
        await results.get(timeout=30, callback=lambda *output: notified.append(output))
    assert notified == [(results[0].id, 0.05), (results[1].id, 0)]


async def test_an_expired_job_ends_the_wait_though_no_worker_runs(app, make_app, add):
    handle = await add.options(expires=0.2).delay(1, 2)
    async with make_app() as other:
        for results in (other.ResultSet([other.AsyncResult(handle.id)]), app.ResultSet([handle])):
            stopwatch = Stopwatch()
            with pytest.raises(asyncq.TaskExpired):
                await results.get(timeout=30)
            assert stopwatch.took < 3  # by its own timer, not by the poll


@pytest.mark.trial
async def test_ten_thousand_ended_jobs_are_joined_with_twenty_queries(app, make_app, add, raw):
    count = 10_000
    async with Worker(app, concurrency=500):
        ids = [r.id for r in await add.map([(i, 0) for i in range(count)])]
        await app.ResultSet(map(app.AsyncResult, ids)).get(timeout=50)
    async with make_app() as other:
        before = await _calls(raw, "evalsha"), await _calls(raw, "get", "mget")
        start = time.perf_counter()
        values = await other.ResultSet([other.AsyncResult(id_) for id_ in ids]).get(timeout=30)
        seconds = time.perf_counter() - start
        after = await _calls(raw, "evalsha"), await _calls(raw, "get", "mget")
    assert values == list(range(count))
    report(f"{count:,} ended handles joined in {seconds:.3f} s with {after[0] - before[0]} commands")
    assert after[0] - before[0] <= count / 500 + 2
    assert after[1] - before[1] <= count / 4 + 2


# -- one by one ------------------------------------------------------------------------------------


async def test_as_completed_gives_handles_as_their_jobs_end(app, nap, fail):
    async with Worker(app):
        results = await app.submit([nap.s(0.3), nap.s(0.1), fail.s("no"), nap.s(0.2)])
        received = [
            r.state if r.state == "FAILURE" else await r async for r in results.as_completed(timeout=30)
        ]
    assert received == ["FAILURE", 0.1, 0.2, 0.3]
    assert _waiter_count(app) == 0


async def test_a_job_that_ended_in_time_is_given_before_the_timeout(app, nap):
    received = []
    async with Worker(app):
        results = await nap.map([(0.5,), (0,)])

        async def collect() -> None:
            async for result in results.as_completed(timeout=0.2):
                received.append(await result)  # noqa: PERF401  keeps what came before the error

        with pytest.raises(ResultTimeout, match="1 of 2"):
            await collect()
        assert (received, _waiter_count(app)) == ([0], 0)
        await results.get(timeout=60)


async def test_leaving_the_loop_early_leaves_no_wait_behind(app, nap):
    async with Worker(app):
        results = await nap.map([(0,), (0.3,), (0.3,)])
        waits = results.as_completed()
        assert await anext(waits) is results[0]
        await waits.aclose()
        assert _waiter_count(app) == 0
        await results.get(timeout=30)


async def test_as_completed_works_on_another_loop(app, nap):
    def elsewhere() -> list:
        async def main() -> list:
            return [await r async for r in results.as_completed(timeout=30)]

        return asyncio.run(main())

    async with Worker(app):
        results = await nap.map([(0.2,), (0.1,)])
        assert await asyncio.to_thread(elsewhere) == [0.1, 0.2]
        again = await nap.map([(0.2,), (0.1,)])
        assert await asyncio.to_thread(lambda: [r.id for r in again.as_completed_sync(5)]) == [
            again[1].id,
            again[0].id,
        ]
        third = await nap.map([(0,), (0.5,)])
        first = await asyncio.to_thread(lambda: next(iter(third.as_completed_sync(5))))
        assert first is third[0]
        await until(lambda: _waiter_count(app) == 0, "the wait that was left early to end", timeout=0.4)


# -- status, revocation, callbacks -----------------------------------------------------------------


async def test_status_methods_return_how_many_jobs_of_the_set_ended(app, make_app, add, nap, fail, raw):
    async with Worker(app), make_app() as other:
        good, long = await add.map([(1, 2)] * 600), await nap.delay(0.5)
        await good.get(timeout=30)
        results = other.ResultSet([other.AsyncResult(r.id) for r in [*good, long]])
        before = await _calls(raw, "mget")
        assert (await results.ready(), await results.successful(), await results.failed()) == (False,) * 3
        queries = await _calls(raw, "mget") - before
        # The scripts read four records at a time. Jobs that are known to have ended are not asked for again.
        # The worker reads notes now and then.
        assert 0 <= queries - ((500 / 4 + 26) + 1 + 1) < 10
        assert (await results.waiting(), await results.completed_count()) == (True, 600)
        await results.maybe_throw()
        assert await long.get(timeout=30) == 0.5
        assert (await results.ready(), await results.successful(), await results.waiting()) == (
            True,
            True,
            False,
        )
        results.add(await fail.delay("no"))
        await results.get(timeout=30, propagate=False)
        assert (await results.failed(), await results.successful()) == (True, False)
        notified = []
        with pytest.raises(ValueError, match="no"):
            await results.maybe_throw(lambda *output: notified.append(output))
        assert len(notified) == 601
        await results.maybe_throw(lambda *output: notified.append(output), propagate=False)
        assert type(notified[-1][1]) is ValueError


async def test_all_jobs_of_a_set_are_revoked_and_forgotten_together(app, nap):
    results = await nap.map([(20,)] * 3)
    assert await results.revoke(wait=True, timeout=30) == ["REVOKED"] * 3
    with pytest.raises(TaskRevoked):
        await results.get(timeout=30)
    await results.forget()
    assert [await result.exists() for result in results] == [False] * 3


async def test_then_calls_once_when_all_have_ended(app, nap, fail):
    received = []

    async def good(results) -> None:
        received.append([r.result for r in results])

    async with Worker(app):
        results = (await nap.map([(0.1,), (0,)])).then(good, lambda _: received.append("bad"))
        await until(lambda: received, "the callback")
        assert received == [[0.1, 0]]
        mixed = await app.submit([nap.s(0), fail.s("no")])
        mixed.then(good, lambda given: received.append(given is mixed))
        await until(lambda: len(received) == 2, "the other callback")
        app.ResultSet([]).then(good)
        await until(lambda: len(received) == 3, "the callback of the empty set")
    assert received[1:] == [True, []]
    assert len(results) == 2


# -- as a list -------------------------------------------------------------------------------------


async def test_a_set_is_a_list_without_duplicates(app):
    a, b, c = (app.AsyncResult(id_) for id_ in "abc")
    results = app.ResultSet([a, b])
    results.add(a)
    results.update([b, c, app.AsyncResult("c")])
    assert [r.id for r in results] == ["a", "b", "c"]
    assert (len(results), results[-1], results[1:] == ResultSet([b, c])) == (3, c, True)
    assert isinstance(results[1:], ResultSet)
    results.remove("b")
    results.discard(b)
    with pytest.raises(KeyError):
        results.remove(b)
    assert results == app.ResultSet([a, c])
    results.clear()
    assert list(results) == []


# -- groups ----------------------------------------------------------------------------------------


async def test_a_saved_group_is_restored_elsewhere_with_its_nested_groups(app, make_app, add):
    async with Worker(app):
        inner = GroupResult("inner", await add.map([(1, 2), (3, 4)]))
        group = GroupResult(results=[await add.delay(0, 1), inner, await add.delay(5, 5)])
        group.parent = await add.delay(9, 9)
        await group.save()
        async with make_app() as other:
            same = await other.GroupResult.restore(group.id)
            assert same == group == group.id
            assert (same.parent, same.children[1].id, len(same)) == (group.parent, "inner", 3)
            assert await same.get(timeout=30) == [1, [3, 7], 10]
            assert await same.completed_count() == 4
            assert sorted([await r async for r in same.as_completed(5)]) == [1, 3, 7, 10]
            notified = []
            await same.join(callback=lambda *output: notified.append(output))
            assert notified[1] == ("inner", [3, 7])
            await same.delete()
            await same.delete()
            assert await other.GroupResult.restore(group.id) is None
            assert await GroupResult.restore(group.id, other) is None


@pytest.mark.one_shard
@pytest.mark.reads_bytes
async def test_a_saved_group_expires_with_its_time(app, raw):
    group = app.GroupResult("g", [app.AsyncResult("a")])
    await group.save()
    key = app.sessions.shards[0].groups + "g"
    assert 0 < await raw.pttl(key) <= app.settings.result_ttl * 1000
    assert await raw.get(key) == b'[["a",null,null,""],["g",null,[0],"g"]]'
    for rubbish in (b"rubbish", b"5", b'[["a",null],null]', b'[["g",null],5]', b"[" * 100_000):
        await raw.set(key, rubbish)
        with pytest.raises(DecodeError, match="'g'"):
            await app.GroupResult.restore("g")
    await group.delete()


async def test_groups_are_compared_and_pickled_by_value(app):
    group = GroupResult("g", [app.AsyncResult("a"), GroupResult("h", [app.AsyncResult("b")])])
    assert group.as_tuple() == (("g", None), [(("a", None), None), (("h", None), [(("b", None), None)])])
    assert result_from_tuple(json.loads(json.dumps(group.as_tuple())), app) == group
    assert pickle.loads(pickle.dumps(group)) == group
    assert (hash(group), str(group), bool(GroupResult("e"))) == (hash("g"), "g", True)
    assert group != GroupResult("g", [app.AsyncResult("a")])
    assert GroupResult().id != GroupResult().id
    for wrong in (5, "g", [1], (("g", None), 5), (("", None), [])):
        with pytest.raises(ValueError, match=r"as_tuple|members|needs"):
            result_from_tuple(wrong, app)


@pytest.mark.parametrize("duplicate", [copy.copy, copy.deepcopy])
async def test_a_copy_of_a_set_has_its_own_list_and_shares_the_app_and_known_outcomes(app, add, duplicate):
    other_app = AsyncQ("memory://")  # with two apps, a handle without its app finds none
    async with Worker(app):
        results = await add.map([(1, 2), (3, 4)])
        await results.get(timeout=30)
        group = GroupResult("g", list(results), parent=results[0], app=app)
        for whole in (results, group):
            other = duplicate(whole)
            assert (type(other), other, other.app) == (type(whole), whole, app)
            assert [handle.result for handle in other] == [3, 7]
            assert all(handle.app is app for handle in other)
            other.clear()
            assert len(whole) == 2
    del other_app


async def test_a_set_is_pickled_as_its_ids(app):
    results = app.ResultSet([app.AsyncResult("a"), app.AsyncResult("b")])
    again = pickle.loads(pickle.dumps(results))
    assert (type(again), [handle.id for handle in again]) == (ResultSet, ["a", "b"])


async def test_each_member_of_a_restored_group_fails_with_its_own_error(app, add, fail):
    async with Worker(app):
        group = app.GroupResult(
            results=[app.GroupResult(results=[await fail.delay("in")]), await add.delay(1, 1)]
        )
        with pytest.raises(ValueError, match="in"):
            await group.get(timeout=30)
        values = await group.get(timeout=30, propagate=False)
    assert (type(values[0][0]), values[1]) == (ValueError, 2)


# -- gather, wait, as_completed --------------------------------------------------------------------


async def test_gather_gives_a_tuple_in_order_and_fails_fast(app, add, nap, fail):
    async with Worker(app, grace=0):
        handles = await nap.delay(0.1), await add.delay(1, 2)
        assert await asyncq.gather(*handles, timeout=30) == (0.1, 3)
        assert await asyncq.gather() == ()
        long, bad = await nap.delay(20), await fail.delay("no")
        with pytest.raises(ValueError, match="no"):
            await asyncq.gather(long, bad, timeout=19)
        got = await asyncq.gather(bad, handles[1], app.AsyncResult("none"), return_exceptions=True)
        assert [type(value) for value in got] == [ValueError, int, ResultNotFound]
        with pytest.raises(ResultTimeout):
            await asyncq.gather(long, timeout=0.05)
        await long.revoke(terminate=True)


async def test_wait_gives_two_sets_and_raises_no_error_of_a_job(app, nap, fail):
    async with Worker(app, grace=0):
        quick, bad, long = await nap.delay(0), await fail.delay("no"), await nap.delay(20)
        await quick
        done, pending = await asyncq.wait([long, quick], return_when=asyncio.FIRST_COMPLETED)
        assert (done, pending) == ({quick}, {long})
        done, pending = await asyncq.wait([long, bad], return_when=asyncio.FIRST_EXCEPTION, timeout=30)
        assert (done, pending) == ({bad}, {long})
        assert await asyncq.wait([quick, bad], timeout=30) == ({quick, bad}, set())
        assert await asyncq.wait([long], timeout=0.05) == (set(), {long})
        assert await asyncq.wait([]) == (set(), set())
        with pytest.raises(ValueError, match="FIRST_COMPLETED"):
            await asyncq.wait([long], return_when="soon")
        await long.revoke(terminate=True)
        assert _waiter_count(app) == 0


async def test_as_completed_accepts_all_handles_even_eager_ones(app, nap):
    async with Worker(app):
        handles = [await nap.delay(0.1), await nap.delay(0), EagerResult("e", 5.0, "SUCCESS")]
        assert [await r async for r in asyncq.as_completed(handles, timeout=30)] == [5.0, 0, 0.1]


@asynccontextmanager
async def _opened_elsewhere(url: str) -> AsyncIterator[AsyncQ]:
    """Opens an app on the loop of another thread."""
    app = AsyncQ(url, namespace=f"t{uuid.uuid4().hex[:12]}", lease=2)
    await asyncio.to_thread(app.__enter__)
    yield app
    await asyncio.to_thread(app.__exit__, None, None, None)


async def test_handles_of_two_apps_are_gathered_together(app, add, server_url):
    async with _opened_elsewhere(server_url) as other, Worker(app):
        theirs = await other.send("nobody.knows")
        ours = await add.delay(1, 2)
        done, pending = await asyncq.wait([theirs, ours], return_when=asyncio.FIRST_COMPLETED, timeout=30)
        assert (done, pending) == ({ours}, {theirs})
        await theirs.revoke()
        with pytest.raises(TaskRevoked):
            await asyncq.gather(ours, theirs, timeout=5)


async def test_the_error_names_an_argument_that_is_no_handle(add):
    with pytest.raises(TypeError, match=r"gather\(\) takes handles, not <coroutine"):
        await asyncq.gather(add.delay(1, 2))
    with pytest.raises(TypeError, match=r"as_completed\(\) takes handles"):
        asyncq.as_completed(["id"])
    with pytest.raises(TypeError, match=r"wait\(\) takes handles"):
        await asyncq.wait([ResultSet()])
    with pytest.raises(TypeError, match=r"gather\(\) takes .* has `get` and `as_completed` of its own"):
        await asyncq.gather(GroupResult())
    with pytest.raises(TypeError, match=r"write wait\(\[result\]\)"):
        await asyncq.wait(add.AsyncResult("id"))
    with pytest.raises(TypeError, match=r"not of <coroutine .*: `await task\.delay"):
        ResultSet([add.AsyncResult("id"), add.delay(1, 2)])
    results = ResultSet([add.AsyncResult("id")])
    with pytest.raises(TypeError, match="not of 'text'"):
        results.add("text")
    with pytest.raises(TypeError, match="not of 'text'"):
        results.update([add.AsyncResult("other"), "text"])
    assert results == ResultSet([add.AsyncResult("id")])


async def test_inside_a_task_every_wait_for_many_is_refused_unless_allowed(app, add):
    @app.task
    async def waits(id_: str) -> list:
        handle = app.AsyncResult(id_)
        results = app.ResultSet([handle])
        tries = {
            "get": results.get,
            "gather": lambda: asyncq.gather(handle),
            "wait": lambda: asyncq.wait([handle]),
            "as_completed": lambda: anext(asyncq.as_completed([handle])),
            "set.as_completed": lambda: anext(results.as_completed()),
            "revoke": lambda: results.revoke(wait=True),
        }
        refused = []
        for name, call in tries.items():
            try:
                await call()
            except WouldDeadlock:
                refused.append(name)
        with asyncq.allow_join_result():
            value = await asyncq.gather(handle)
        return [refused, value[0], await results.get(disable_sync_subtasks=False)]

    async with Worker(app):
        done = await add.delay(1, 2)
        await done
        assert await waits.call(done.id) == [
            ["get", "gather", "wait", "as_completed", "set.as_completed", "revoke"],
            3,
            [3],
        ]


# -- blocking --------------------------------------------------------------------------------------

AWAITED = (
    "get", "join", "ready", "successful", "failed", "waiting", "completed_count", "revoke", "forget",
    "maybe_throw",
)  # fmt: skip


@pytest.mark.parametrize("name", AWAITED)
def test_every_awaited_method_of_a_set_has_a_blocking_variant_with_its_parameters(name):
    variant, method = getattr(ResultSet, f"{name}_sync"), getattr(ResultSet, name)
    assert inspect.signature(variant) == inspect.signature(method)
    assert variant.__doc__


@pytest.mark.parametrize("name", ["save", "delete", "restore"])
def test_a_group_has_blocking_variants(name):
    for owner in (GroupResult, asyncq.results.groupresult.GroupResults):
        variant, method = getattr(owner, f"{name}_sync"), getattr(owner, name)
        assert inspect.signature(variant) == inspect.signature(method)


def test_the_blocking_variants_wait_for_many_jobs(make_app, server_url, namespace):
    app = make_app()
    from helpers.worker_jobs import register

    add = register(app).add
    with worker_process(server_url, namespace), app:
        results = add.map_sync([(1, 2), (3, 4)])
        assert results.get_sync(timeout=30) == results.join_sync() == [3, 7]
        assert (results.ready_sync(), results.completed_count_sync(), results.waiting_sync()) == (
            True,
            2,
            False,
        )
        assert sorted(r.result for r in results.as_completed_sync(timeout=60)) == [3, 7]
        group = app.GroupResult(results=results)
        group.save_sync()
        assert app.GroupResult.restore_sync(group.id).get_sync(timeout=30) == [3, 7]
        assert GroupResult.restore_sync(group.id, app) == group
        group.delete_sync()
        assert app.GroupResult.restore_sync(group.id) is None
        results.maybe_throw_sync()
        results.forget_sync()
        assert not results[0].exists_sync()


async def test_a_set_can_be_awaited_like_a_handle(app, nap):
    async with Worker(app):
        assert await (await nap.map([(0.0,)] * 3)) == [0.0] * 3


@pytest.mark.parametrize("calls", [[3], ["x.s(1)"]])
async def test_submit_names_an_argument_that_is_no_call(app, nap, calls):
    with pytest.raises(TypeError, match=r"is not a call: write submit\(\[task\.s"):
        await app.submit(calls)
    with pytest.raises(TypeError, match=r"^<coroutine .* is not a call"):
        await app.submit([nap.delay(0.0)])
    with pytest.raises(TypeError, match=r"submit\(\[task\.s"):
        await app.submit(nap.s(0.0))


@pytest.mark.one_shard
@pytest.mark.reads_bytes
async def test_large_outcomes_are_fetched_some_megabytes_at_a_time(app, add, raw):
    keys, count, size = app.sessions.shards[0], 24, 1_000_000
    async with raw.pipeline(transaction=False) as pipe:
        for n in range(count):
            outcome = wire.Ended("S", PLAIN_VALUE.dumps("x" * size), 1, 2, 1, "w", add.name, "default", 0)
            record = b"S--- 1-0 w n " + wire.encode_ended(outcome)
            pipe.set(f"{keys.records}large.{n}", record, px=60_000)
        await pipe.execute()
    ids = [f"large.{n}" for n in range(count)]
    before = await raw.info("commandstats")
    answers = await app.sessions.current().broker.fetch_status([*ids[:12], "unknown", *ids[12:]])
    after = await raw.info("commandstats")
    assert [answer is None for answer in answers] == [n == 12 for n in range(count + 1)]
    assert all(len(answer.payload) > size for answer in answers if answer is not None)
    calls = after["cmdstat_evalsha"]["calls"] - before["cmdstat_evalsha"]["calls"]
    assert calls >= 4, "at most 4 MiB and three outcomes more in each"
    results = app.ResultSet([app.AsyncResult(id_) for id_ in ids])
    assert [len(value) for value in await results.get(timeout=60)] == [size] * count
