"""Calls with a key are one job, whoever calls and however often, until its outcome is deleted."""

from __future__ import annotations

import asyncio
import threading

import pytest
from helpers.jobs import job_of
from helpers.stopwatch import Stopwatch
from helpers.waiting import until, until_state

from asyncq import QueueFull, ResultNotFound, TaskExpired, TaskRevoked, Worker
from asyncq.broker import waiters
from asyncq.sync_bridge import wait

pytestmark = pytest.mark.anyio


@pytest.fixture
def runs(app):
    """The arguments that the task was run with."""
    return []


@pytest.fixture
def charge(app, runs):
    @app.task(name="charge")
    async def charge(order: int, cents: int = 100) -> int:
        runs.append((order, cents))
        if cents < 0:
            raise ValueError("negative", cents)
        return cents

    return charge


@pytest.fixture
def gated(app):
    """A task that runs until the test lets it end."""

    @app.task(name="gated")
    async def gated(x: int) -> int:
        await gate.wait()
        return x

    gate = asyncio.Event()
    gated.open = gate.set
    return gated


@pytest.fixture
def no_poll(monkeypatch):
    """Makes the poll so slow that only a push wakes a waiter during a test."""
    monkeypatch.setattr(waiters, "POLL", 10_000.0)


async def length(app, raw, queue="default") -> int:
    return await raw.xlen(app.sessions.shards[0].stream(queue))


@pytest.mark.one_shard
async def test_a_second_call_with_a_key_returns_the_handle_of_the_first_job(app, charge, runs, raw):
    keyed = charge.options(key="order-17")
    first, second = await keyed.delay(17), await keyed.delay(17)
    assert first == second
    assert (second.state, second.args, await length(app, raw)) == ("PENDING", (17,), 1)
    async with Worker(app):
        assert [await first.get(timeout=30), await second.get(timeout=30)] == [100, 100]
        third = await keyed.delay(17)
        assert third == first
        assert third.state == "SUCCESS", "a stored outcome is part of the answer"
        assert await third.get(timeout=30) == 100
    assert runs == [(17, 100)]


@pytest.mark.one_shard
async def test_arguments_by_name_and_other_options_do_not_make_a_different_call(app, charge, runs, raw):
    keyed = charge.options(key="k")
    handles = [
        await keyed.delay(1, 2),
        await keyed.delay(order=1, cents=2),
        await keyed.delay(cents=2, order=1),
        await keyed.options(queue="other", headers={"a": 1}).delay(1, 2),
        await keyed.options(countdown=100, expires=200).delay(1, 2),
        await keyed.apply_async((1,), {"cents": 2}),
        await charge.apply_async((1, 2), key="k"),
        await app.send("charge", (1, 2), key="k"),
    ]
    assert len({handle.id for handle in handles}) == 1
    assert (await length(app, raw), await length(app, raw, "other")) == (1, 0)
    async with Worker(app):
        assert {await handle.get(timeout=30) for handle in handles} == {2}
    assert runs == [(1, 2)]


async def test_another_key_or_another_task_makes_another_job(app, charge, runs):
    @app.task(name="refund")
    async def refund(order: int) -> int:
        return -order

    async with Worker(app):
        assert await charge.options(key="a").call(1) == 100
        assert await charge.options(key="b").call(1) == 100
        assert await refund.options(key="a").call(1) == -1
        assert await charge.call(1) == 100
    assert runs == [(1, 100)] * 3


@pytest.mark.parametrize("ended", [False, True])
async def test_other_arguments_with_the_same_key_are_refused_and_nothing_is_enqueued(
    app, charge, runs, raw, ended
):
    keyed = charge.options(key="order ü\n17")
    first = await keyed.delay(17)
    async with Worker(app) if ended else asyncio.Lock():
        if ended:
            await first.get(timeout=30)
        before = await raw.get(app.sessions.shards[0].records + first.id), await length(app, raw)
        with pytest.raises(ValueError, match=r"order ü\\n17.*other arguments.*another key.*forget") as caught:
            await keyed.delay(18)
        assert first.id in str(caught.value)
        assert before == (await raw.get(app.sessions.shards[0].records + first.id), await length(app, raw))
    async with Worker(app):
        assert await first.get(timeout=30) == 100
    assert runs == [(17, 100)]


@pytest.mark.one_shard
async def test_a_hundred_clients_at_once_make_one_job(make_app, app, charge, runs, raw, no_poll):
    """Two apps are enough instead of two processes: each is a client with its own connections and channel."""
    others = [make_app() for _ in range(9)]

    async def of(client, count):
        task = client.tasks.get("charge") or client.task_named("charge")
        keyed = task.options(key="all")
        return await asyncio.gather(*(keyed.delay(1, 2) for _ in range(count)))

    try:
        handles = [h for some in await asyncio.gather(*(of(a, 10) for a in [app, *others])) for h in some]
        assert len(handles) == 100
        assert len(set(handles)) == 1
        assert await length(app, raw) == 1
        waiting = [asyncio.ensure_future(handle.get(timeout=30)) for handle in handles]
        await asyncio.sleep(0)
        async with Worker(app):
            assert await asyncio.gather(*waiting) == [2] * 100
    finally:
        for other in others:
            await other.close()
    assert runs == [(1, 2)]


async def test_a_client_that_found_the_existing_job_is_notified_by_push(make_app, app, gated, raw, no_poll):
    first = await gated.options(key="k").delay(1)
    async with Worker(app), make_app() as other:
        await until_state(first, "STARTED")
        second = await other.task_named("gated").options(key="k").delay(1)
        calls_before = (await raw.info("commandstats"))["cmdstat_evalsha"]["calls"]
        waiting = asyncio.ensure_future(second.get(timeout=30))
        await asyncio.sleep(0.05)
        assert (await raw.info("commandstats"))["cmdstat_evalsha"]["calls"] - calls_before <= 3, (
            "no query was needed"
        )
        gated.open()
        stopwatch = Stopwatch()
        assert await waiting == 1
        assert stopwatch.took < 2


async def test_the_existing_job_may_end_before_the_second_call_gets_its_answer(app, charge, no_poll):
    async with Worker(app):
        for n in range(50):
            keyed = charge.options(key=f"k{n}")
            handles = await asyncio.gather(*(keyed.delay(n) for _ in range(4)))
            assert [await handle.get(timeout=30) for handle in handles] == [100] * 4


async def test_later_calls_get_a_stored_failure_until_it_is_forgotten(app, charge, runs):
    keyed = charge.options(key="k")
    async with Worker(app):
        for _ in range(2):
            with pytest.raises(ValueError, match="negative"):
                await keyed.call(1, -5)
        assert runs == [(1, -5)]
        await (await keyed.delay(1, -5)).forget()
        with pytest.raises(ValueError, match="negative"):
            await keyed.call(1, -5)
        assert runs == [(1, -5)] * 2


async def test_the_key_of_a_forgotten_result_may_be_used_with_any_arguments(app, charge, runs):
    keyed = charge.options(key="k")
    async with Worker(app):
        first = await keyed.delay(1)
        await first.get(timeout=30)
        await first.forget()
        with pytest.raises(ResultNotFound):
            await first.get(timeout=1)
        second = await keyed.delay(2, 7)
        assert second == first
        assert await second.get(timeout=30) == 7
    assert runs == [(1, 100), (2, 7)]


async def test_the_next_job_with_a_key_does_not_show_the_items_of_the_job_before(app):
    runs = []

    @app.task(name="count")
    async def count(to: int):
        runs.append(to)
        for number in range(to):
            yield f"run {len(runs)}: {number}"

    keyed = count.options(key="k", ignore_result=True)
    async with Worker(app):
        for run in (1, 2):
            result = await keyed.delay(3)
            await until(lambda run=run: len(runs) == run, "the job to run")

            async def gone(result=result) -> bool:
                return not await result.exists()

            await until(gone, "the job to end")
        last = await count.options(key="k").delay(2)
        assert [item async for item in last.stream()] == ["run 3: 0", "run 3: 1"]


@pytest.mark.one_shard
async def test_a_key_is_free_after_the_result_has_expired(app, charge, runs, raw):
    keyed = charge.options(key="k")
    async with Worker(app):
        first = await keyed.delay(1)
        await first.get(timeout=30)
        await raw.delete(app.sessions.shards[0].records + first.id)  # as the server does when it expires
        assert await keyed.call(1) == 100
    assert runs == [(1, 100)] * 2


async def test_a_call_that_is_sent_again_late_finds_its_tombstone(app, charge, runs):
    job, message = job_of(charge.options(key="k"), 1)
    again, other = job_of(charge.options(key="k"), 1)
    assert (job.id, job.request_id.partition(".")[0]) == (again.id, again.request_id.partition(".")[0])
    broker = app.sessions.current().broker
    async with Worker(app):
        assert await broker.intake.enqueue(job, message) is True
        handle = app.AsyncResult(job.id)
        await handle.get(timeout=30)
        await handle.forget()
        assert await broker.intake.enqueue(job, message) is True
        assert not await handle.exists()
        assert runs == [(1, 100)]
        assert await broker.intake.enqueue(again, other) is True, "another call makes a new job"
        await app.AsyncResult(job.id).get(timeout=30)
    assert runs == [(1, 100)] * 2


@pytest.mark.one_shard
async def test_a_call_with_an_expiry_that_is_sent_again_is_the_same_call(app, charge, raw):
    job, message = job_of(charge.options(key="k", expires=60), 1)
    broker = app.sessions.current().broker
    assert [await broker.intake.enqueue(job, message) for _ in range(2)] == [True, True]
    later, other = job_of(charge.options(key="k", expires=90), 1)
    assert await broker.intake.enqueue(later, other) == f"L--- {job.expires}"
    assert await length(app, raw) == 1


async def test_a_later_call_does_not_change_the_expiry_of_the_existing_job(make_app, app, charge, runs):
    first = await charge.options(key="k").delay(1)
    async with make_app() as other:
        second = await other.task_named("charge").options(key="k", expires=0.05).delay(1)
        waiting = asyncio.ensure_future(second.get(timeout=30))
        await asyncio.sleep(0.2)
        assert await first.refresh() == "PENDING"
        async with Worker(app):
            assert await waiting == 100

    first = await charge.options(key="l", expires=0.2).delay(1)
    second = await charge.options(key="l").delay(1)
    with pytest.raises(TaskExpired):
        await second.get(timeout=30)
    assert runs == [(1, 100)]


async def test_a_refused_call_does_not_change_the_expiry_of_the_existing_job(app, charge):
    first = await charge.options(key="k").delay(1)
    with pytest.raises(ValueError, match="other arguments"):
        await charge.options(key="k", expires=0.05).delay(2)
    waiting = asyncio.ensure_future(first.get(timeout=30))
    await asyncio.sleep(0.15)
    async with Worker(app):
        assert await waiting == 100


async def test_a_key_finds_a_delayed_job(app, charge, runs, raw):
    first = await charge.options(key="k", countdown=0.2).delay(1)
    second = await charge.options(key="k").delay(1)
    assert (first, second.state, await length(app, raw)) == (second, "SCHEDULED", 0)
    async with Worker(app):
        assert await second.get(timeout=30) == 100
    assert runs == [(1, 100)]


async def test_later_calls_with_a_key_find_the_revoked_job(app, charge, runs):
    keyed = charge.options(key="k")
    first = await keyed.delay(1)
    await first.revoke(reason="out of stock")
    with pytest.raises(TaskRevoked, match="out of stock"):
        await (await keyed.delay(1)).get(timeout=30)
    assert runs == []


@pytest.mark.one_shard
async def test_a_key_finds_a_job_whose_result_is_ignored_until_it_ends(app, charge, runs, raw):
    ignoring = charge.options(key="k", ignore_result=True)
    first = await ignoring.delay(1)
    second = await charge.options(key="k").delay(1)
    assert await length(app, raw) == 1
    with pytest.raises(ResultNotFound):
        await asyncio.wait_for(second.get(), 30)
    async with Worker(app):
        await until(lambda: runs == [(1, 100)], "the job to run")

        async def ended() -> bool:
            return not await first.exists()

        await until(ended, "the job to end")
        assert await charge.options(key="k").call(1) == 100, "nothing was kept, so the key is free"
    assert runs == [(1, 100)] * 2


async def test_a_caller_that_ignores_the_result_does_not_take_it_from_other_callers(app, charge):
    first = await charge.options(key="k").delay(1)
    second = await charge.options(key="k", ignore_result=True).delay(1)
    assert second.ignored
    async with Worker(app):
        assert await first.get(timeout=30) == 100


async def test_key_and_task_id_cannot_be_used_together(charge):
    for options in ({"key": "a", "task_id": "b"}, {"key": ""}, {"key": "x" * 513}, {"key": 7}):
        with pytest.raises(ValueError, match="key="):
            charge.options(**options)
    with pytest.raises(ValueError, match="give one of them"):
        charge.options(task_id="b").options(key="a")


async def test_map_accepts_no_key(app, charge, raw):
    with pytest.raises(ValueError, match=r"app\.submit"):
        await charge.options(key="k").map([(1,), (2,)])
    assert await length(app, raw) == 0


@pytest.mark.one_shard
async def test_a_key_in_a_batch_finds_earlier_jobs_inside_and_outside_the_batch(app, charge, runs, raw):
    await charge.options(key="old").delay(0)
    calls = [charge.options(key=key).s(order) for key, order in (("old", 0), ("a", 1), ("b", 2), ("a", 1))]
    results = await app.submit([*calls, charge.s(3)])
    assert results[1] == results[3]
    assert len(set(results)) == 4
    assert await length(app, raw) == 4
    async with Worker(app):
        assert await results.get(timeout=30) == [100] * 5
    assert sorted(runs) == [(n, 100) for n in range(4)]


async def test_a_batch_with_a_different_call_under_a_used_key_is_refused_and_the_call_is_named(app, charge):
    await charge.options(key="old").delay(0)
    with pytest.raises(ValueError, match=r"'old'.*other arguments"):
        await app.submit([charge.options(key="a").s(1), charge.options(key="old").s(2)])
    with pytest.raises(ValueError, match=r"'twice'.*other arguments"):
        await app.submit([charge.options(key="twice").s(1), charge.options(key="twice").s(2)])


@pytest.mark.one_shard
async def test_a_full_queue_does_not_refuse_a_call_that_finds_its_existing_job(make_app, raw):
    async with make_app(max_length=1, full_wait=0) as app:

        @app.task
        async def nothing(x: int) -> None: ...

        first = await nothing.options(key="a").delay(1)
        assert await nothing.options(key="a").delay(1) == first
        with pytest.raises(QueueFull):
            await nothing.options(key="b").delay(1)
        await first.revoke()
        await first.forget()
        await nothing.delay(1)
        with pytest.raises(QueueFull):
            await nothing.options(key="a").delay(1)


async def test_the_job_of_a_key_is_a_child_of_both_tasks_that_called_it(app, charge, runs):
    @app.task
    async def parent(n: int) -> str:
        return (await charge.options(key="shared").delay(1)).id

    async with Worker(app):
        first, second = await parent.delay(1), await parent.delay(2)
        assert await first.get(timeout=30) == await second.get(timeout=30)
        assert first.children == second.children
        assert await first.children[0].get(timeout=30) == 100
    assert runs == [(1, 100)]


async def test_a_job_id_given_by_the_user_is_not_mistaken_for_a_key(app, charge):
    keyed = charge.options(key="k")
    job, _ = job_of(keyed, 1)
    mine = await charge.options(task_id=job.id).delay(1)
    with pytest.raises(ValueError, match="key 'k'"):
        await keyed.delay(1)
    await mine.revoke()
    with pytest.raises(ValueError, match="exists already"):
        await charge.options(task_id=job.id).delay(1)


async def test_a_handle_that_found_no_job_queries_the_server_again_at_the_next_wait(make_app, app, charge):
    job, _ = job_of(charge.options(key="k"), 1)
    handle = app.AsyncResult(job.id)
    with pytest.raises(ResultNotFound):
        await handle.get(timeout=30)
    async with Worker(app), make_app() as other:
        await other.task_named("charge").options(key="k").delay(1)
        assert await handle.get(timeout=30) == 100


async def test_a_call_while_the_old_result_is_forgotten_gets_the_result_of_the_new_job(make_app, app, charge):
    async with Worker(app), make_app() as other:
        first = await charge.options(key="k").delay(1)
        await first.get(timeout=30)
        handle = other.AsyncResult(first.id)
        forgetting = asyncio.ensure_future(handle.forget())
        await asyncio.sleep(0)
        second = await other.task_named("charge").options(key="k").delay(1)
        await forgetting
        assert await other.ResultSet([second]).get(timeout=30) == [100]


def test_blocking_callers_in_many_threads_make_one_job(make_app):
    app = make_app()
    runs = []

    @app.task
    def work(x: int) -> int:
        runs.append(x)
        return x

    ids: set[str] = set()

    def call() -> None:
        ids.add(work.options(key="k").delay_sync(1).id)

    with app:
        threads = [threading.Thread(target=call) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        [id_] = ids

        async def run() -> int:
            async with Worker(app):
                return await app.AsyncResult(id_).get(timeout=30)

        assert wait(app.sessions, run()) == 1
    assert runs == [1]


def test_a_local_call_accepts_a_key(make_app):
    app = make_app()

    @app.task
    def work(x: int) -> int:
        return x

    first, second = (work.options(key="k").apply((1,)) for _ in range(2))
    assert (first.id, first.get_sync()) == (second.id, 1)
