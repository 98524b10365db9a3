"""Results are pushed: one subscription serves any number of waiters, and no wake-up is lost."""

from __future__ import annotations

import asyncio
import gc
import os
import time
import tracemalloc

import pytest
from helpers import servers
from helpers.figures import report
from helpers.inside import drop_subscription, waiters_of
from helpers.stopwatch import Stopwatch
from helpers.waiting import until

from asyncq import BrokerUnavailable, ResultNotFound, Worker

pytestmark = pytest.mark.anyio


@pytest.fixture
def nap(app):
    @app.task
    async def nap(seconds: float, size: int = 0) -> str:
        await asyncio.sleep(seconds)
        return "x" * size

    return nap


async def connections(raw, app) -> dict[str, int]:
    """Returns the numbers of this process's connections, by kind. Their names contain its process id."""
    names = [
        client["name"].partition(":")[0]
        for client in await raw.client_list()
        if str(os.getpid()) in client["name"]
    ]
    return {kind: names.count(kind) for kind in sorted(set(names))}


async def test_a_client_has_two_connections_to_a_server_however_many_jobs_it_waits_for(app, nap, raw):
    results = await nap.map([(0.0,)] * 50)
    waits = [asyncio.create_task(result.get(timeout=20)) for result in results for _ in range(3)]
    waits += [asyncio.create_task(app.AsyncResult(result.id).get(timeout=20)) for result in results]
    await asyncio.sleep(0.05)
    nodes = servers.NODES
    assert await connections(raw, app) == {"asyncq": nodes, "asyncq-sub": nodes}
    async with Worker(app):
        await asyncio.gather(*waits)
        assert await connections(raw, app) == {
            "asyncq": nodes,
            "asyncq-beat": nodes,
            "asyncq-read": app.sessions.shards.count if servers.IS_CLUSTER else 1,
            "asyncq-sub": nodes,
        }


async def test_a_small_outcome_arrives_in_the_notification_and_nothing_is_fetched(app, nap, raw):
    async with Worker(app):
        await nap.options(wait=30).call(0.0)
        before = await raw.info("commandstats")
        for _ in range(20):
            await nap.options(wait=30).call(0.0)
        after = await raw.info("commandstats")
    # One script enqueues and one finishes. There is no third one that polls.
    scripts = after["cmdstat_evalsha"]["calls"] - before["cmdstat_evalsha"]["calls"]
    assert scripts <= 2 * 20 + 5


@pytest.mark.parametrize("size", [8_000, 8_300, 900_000])
async def test_an_outcome_of_any_size_arrives_at_once(app, make_app, nap, size):
    async with make_app() as elsewhere, Worker(app):
        stopwatch = Stopwatch()
        result = await nap.delay(0.05, size)
        other = elsewhere.AsyncResult(result.id)
        values = await asyncio.gather(result.get(timeout=30), other.get(timeout=30))
        assert [len(value) for value in values] == [size, size]
        assert stopwatch.took < 2, "by push, not by the poll"


async def test_handles_made_from_the_id_in_another_process_wake_by_push(app, make_app, nap):
    async with make_app() as elsewhere, Worker(app):
        results = await nap.map([(0.1,)] * 20)
        stopwatch = Stopwatch()
        handles = [elsewhere.AsyncResult(result.id) for result in results]
        await asyncio.gather(*(handle.get(timeout=30) for handle in handles))
        assert stopwatch.took < 1.5, "by push, not by the poll"


async def test_no_waiter_is_lost_when_the_subscription_is_cut_again_and_again(app, nap, raw):
    async with Worker(app):
        results = await nap.map([(0.02 * i,) for i in range(60)])
        waits = [asyncio.create_task(result.get(timeout=60)) for result in results]
        for _ in range(8):
            await raw.execute_command("CLIENT", "KILL", "TYPE", "pubsub")
            await asyncio.sleep(0.13)
        stopwatch = Stopwatch()
        assert await asyncio.gather(*waits) == [""] * 60
        assert stopwatch.took < 5


async def test_an_outcome_whose_notification_was_lost_arrives_after_the_reconnection(app, nap, raw):
    result = await nap.delay(0)
    waiting = asyncio.create_task(result.get(timeout=60))
    await asyncio.sleep(0.05)
    stopwatch = Stopwatch()
    drop_subscription(app)
    async with Worker(app):
        assert await waiting == ""
    assert stopwatch.took < 2, "it did not wait for the poll"


async def test_rubbish_on_the_channel_harms_nobody(app, nap, raw):
    async with Worker(app):
        result = await nap.delay(0.2)
        waiting = asyncio.create_task(result.get(timeout=60))
        for rubbish in (
            b"",
            b"x",
            b"\xff\xfe",
            b"a b c\n",
            b"id S 5\nxx",
            f"{result.id} Q 0\n".encode(),
            b"a S -1\n",
        ):
            await raw.publish(app.sessions.channel(), rubbish)
        await raw.publish(app.sessions.channel(), f"{result.id} S 3\nxyz".encode())
        assert await waiting == ""


@pytest.mark.usefixtures("leaves_keys")
@pytest.mark.one_shard
async def test_a_waiter_wakes_when_another_client_forgets_the_result(app, make_app, nap, raw):
    result = await nap.delay(0)
    await raw.delete(app.sessions.shards[0].records + result.id)
    async with make_app() as elsewhere:
        with pytest.raises(ResultNotFound):
            await asyncio.wait_for(elsewhere.AsyncResult(result.id).get(), 1)


async def test_closing_the_app_ends_every_wait(make_app):
    app = make_app()

    @app.task
    async def never() -> None: ...

    async with app:
        result = await never.delay()
        waiting = asyncio.create_task(result.get())
        await asyncio.sleep(0.02)
    with pytest.raises(BrokerUnavailable, match="closed"):
        await asyncio.wait_for(waiting, 30)


@pytest.mark.trial
async def test_thousands_of_waiters_need_one_subscription_and_two_kib_each(app, nap, raw):
    count = 3_000
    tracemalloc.start()
    try:
        bare = await _cost_of_bare_tasks(count)
        await _wait_and_drop(app, nap, count)  # tables grow, and keep their size
        before = _allocated()
        waiting, idle = await _wait_and_drop(app, nap, count, raw)
        # A poll that is under way, and replies that are not read yet, hold some memory for a short time.
        await until(lambda: _allocated() - before < 5 * count, "dropped handles to leave nothing behind")
        left = _allocated() - before
    finally:
        tracemalloc.stop()
    waiting, idle = (waiting - before) / count, (idle - before) / count
    report(
        f"{count} waiters: {waiting:.0f} B each, of it {bare:.0f} for a bare asyncio task; "
        f"a handle {idle:.0f} B; {left} B left in all"
    )
    assert waiting - bare <= 2048
    assert len(waiters_of(app)) <= 1, "the poll may keep the last one that it queried"


async def _cost_of_bare_tasks(count: int) -> float:
    """Returns the memory that asyncio itself needs for a task that waits."""
    before = _allocated()
    gates = [asyncio.get_running_loop().create_future() for _ in range(count)]

    async def wait(gate: asyncio.Future) -> None:
        await gate

    tasks = [asyncio.create_task(wait(gate)) for gate in gates]
    await asyncio.sleep(0)
    cost = (_allocated() - before) / count
    for gate in gates:
        gate.set_result(None)
    await asyncio.gather(*tasks)
    return cost


async def _wait_and_drop(app, nap, count, raw=None) -> tuple[int, int]:
    """Returns the allocated bytes while all handles are awaited, and while they are only kept."""
    results = await nap.map([(0.0,)] * count)
    futures = [asyncio.ensure_future(result.get()) for result in results]
    await asyncio.sleep(0)
    waiting = _allocated()
    if raw is not None:
        assert await connections(raw, app) == {"asyncq": 1, "asyncq-sub": 1}
    for future in futures:
        future.cancel()
    await asyncio.gather(*futures, return_exceptions=True)
    del futures, future
    await asyncio.sleep(0)  # the wake-up of this task still holds the result of gather
    return waiting, _allocated()


def _allocated() -> int:
    gc.collect()
    return tracemalloc.get_traced_memory()[0]


async def test_waiters_of_a_job_share_its_known_state_and_wake_together(app, nap):
    async with Worker(app):
        result = await nap.delay(0.05)
        handles = [result, *(app.AsyncResult(result.id) for _ in range(5))]
        await asyncio.gather(*(handle.get(timeout=30) for handle in handles for _ in range(20)))
        assert {handle.state for handle in handles} == {"SUCCESS"}


@pytest.mark.one_shard
async def test_the_poll_finds_an_outcome_that_no_push_delivered(app, nap, raw):
    # The subscription works and gets no message: the record does not name its channel any more.
    result = await nap.delay(0)
    record = (await raw.get(app.sessions.shards[0].records + result.id)).decode()
    await raw.set(
        app.sessions.shards[0].records + result.id, record.replace(app.sessions.channel(), "elsewhere")
    )
    stopwatch = Stopwatch()
    async with Worker(app):
        waiting = asyncio.create_task(result.get(timeout=60))
        assert await waiting == ""
    report(f"found by the poll after {stopwatch.took:.1f} s")
    assert stopwatch.took < 9


async def test_a_timeout_is_kept_while_the_server_is_away(app, nap, raw):
    result = await nap.delay(0)
    await raw.client_pause(1500)
    stopwatch = Stopwatch()
    with pytest.raises(TimeoutError):
        await result.get(timeout=0.3)
    assert stopwatch.took < 0.55, "t + 0.25 s"
    await raw.client_unpause()
    async with Worker(app):
        await until(lambda: result.state == "SUCCESS", "the end of the pause")


async def test_a_subscription_waits_for_its_own_confirmation_only(app, monkeypatch):
    monkeypatch.setattr("asyncq.broker.subscription.REPLY_TIMEOUT", 0.5)
    subscription = app.sessions.current().broker.listener.subscription
    epoch = subscription.epoch
    tasks = []
    end = time.monotonic() + 1.0
    while time.monotonic() < end:  # there is always one more request on its way
        tasks.append(
            asyncio.create_task(
                subscription.subscribe(f"{app.sessions.shards[0].key_prefix}{len(tasks)}", len)
            )
        )
        await asyncio.sleep(0)
    await asyncio.gather(*tasks)
    assert subscription.epoch == epoch, "the connection was kept"


async def test_a_process_that_was_stopped_while_it_subscribed_gives_the_server_time_to_answer(
    app, raw, monkeypatch
):
    monkeypatch.setattr("asyncq.broker.subscription.REPLY_TIMEOUT", 1.0)
    subscription = app.sessions.current().broker.listener.subscription
    epoch = subscription.epoch
    await raw.client_pause(1250)
    asyncio.get_running_loop().call_soon(time.sleep, 1.05)  # before the writes of this turn leave
    await subscription.subscribe(f"{app.sessions.shards[0].key_prefix}some", len)
    assert subscription.epoch == epoch, "the connection is the same"
