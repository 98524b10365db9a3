"""What a client does if messages, replies or connections are lost, or if the server refuses a command."""

from __future__ import annotations

import asyncio

import pytest
from helpers.hand_worker import hand_worker
from helpers.inside import connection_of, keep_from_subscribing
from helpers.waiting import until

from asyncq import BrokerUnavailable, QueueFull, ResultNotFound
from asyncq.broker import waiters

pytestmark = pytest.mark.anyio


async def test_a_waiter_that_missed_a_push_polls_when_its_subscription_is_back(add, hand, server):
    result = await add.delay(1, 2)
    waiting = asyncio.create_task(result.get(timeout=120))
    await asyncio.sleep(0.005)
    with server.lose_messages():
        await hand.succeed(result, 3)
    server.cut("asyncq-sub")
    assert await _long_before_its_timeout(waiting) == 3


async def test_the_waiter_of_a_job_that_was_accepted_without_a_subscription_asks_first_when_it_is_back(
    make_app, server, monkeypatch
):
    monkeypatch.setattr(waiters, "POLL", 1000)
    monkeypatch.setattr(waiters, "SPREAD", 1000)
    async with make_app() as app, hand_worker(app) as hand:
        subscription = app.sessions.current().listener.subscription
        may_subscribe = keep_from_subscribing(monkeypatch, app, 0)
        server.cut("asyncq-sub")
        await until(lambda: subscription.epoch == 0, "the client to miss its subscription")
        result = await app.task(name="task")(_nothing).delay()
        before = server.calls["fetch_status"]
        waiting = asyncio.create_task(result.get(timeout=120))
        await until(lambda: server.calls["fetch_status"] > before, "the first look")
        await hand.succeed(result, 3)
        may_subscribe.set()
        assert await _long_before_its_timeout(waiting) == 3


async def test_a_waiter_that_missed_a_push_finds_the_outcome_by_polling(make_app, server, monkeypatch):
    monkeypatch.setattr(waiters, "POLL", 0.1)
    async with make_app() as app, hand_worker(app) as hand:
        result = await app.task(name="task")(_nothing).delay()
        waiting = asyncio.create_task(result.get(timeout=120))
        await asyncio.sleep(0.005)
        with server.lose_messages():
            await hand.succeed(result, 3)
        assert await _long_before_its_timeout(waiting) == 3


async def test_an_enqueue_whose_reply_is_lost_is_sent_again_and_makes_one_job(add, hand, server):
    server.lose_reply("enqueue")
    result = await add.delay(1, 2)
    assert server.calls["enqueue"] == 2
    assert [job.id for job in await hand.take_all()] == [result.id]


async def test_a_workflow_whose_reply_is_lost_is_sent_again_and_makes_one_workflow(add, hand, server):
    server.lose_reply("submit")
    result = await (add.s(1, 2) | add.s(3)).delay()
    assert server.calls["submit"] == 2
    assert [job.id for job in await hand.take_all()] == [result.parent.id]


async def test_scripts_that_the_server_has_lost_are_loaded_again(add, hand, server):
    server.forget_scripts()
    result = await add.delay(1, 2)
    assert [job.id for job in await hand.take_all()] == [result.id]


@pytest.mark.parametrize(
    "error", ["LOADING the data", "TRYAGAIN later", "READONLY a replica", "BUSY a script"]
)
async def test_an_enqueue_is_repeated_until_a_temporary_error_ends(add, hand, server, error):
    server.refuse("enqueue", error)
    result = await add.delay(1, 2)
    assert [job.id for job in await hand.take_all()] == [result.id]


async def test_an_enqueue_raises_queue_full_when_the_server_is_out_of_memory(add, server):
    server.refuse("enqueue", "OOM command not allowed when used memory > 'maxmemory'.", times=2)
    with pytest.raises(QueueFull, match="out of memory"):
        await add.delay(1, 2)


async def test_a_call_waits_for_a_server_that_is_away_for_a_short_time(add, hand, server):
    server.stop()
    sending = asyncio.create_task(add.delay(1, 2))
    await asyncio.sleep(0.02)
    server.start()
    result = await sending
    assert [job.id for job in await hand.take_all()] == [result.id]


async def test_a_call_gives_up_after_its_timeout_and_its_id_can_be_queried(make_app, server):
    # On a busy machine, opening the app alone takes a tenth of a second and more.
    async with make_app(operation_timeout=1) as app:
        task = app.task(name="task")(_nothing)
        server.stop()
        with pytest.raises(BrokerUnavailable):
            await task.options(task_id="order-17").delay()
        server.start()
        await until(lambda: len(server.sessions) >= 1, "the new connections")
        assert await app.AsyncResult("order-17").refresh() == "UNKNOWN"


async def test_the_id_of_a_cancelled_enqueue_can_still_be_awaited(app, add, hand, server):
    named = add.options(task_id="order-17")
    server.lose_reply("enqueue")
    sending = asyncio.create_task(named.delay(1, 2))
    await asyncio.sleep(0.005)
    sending.cancel()
    await asyncio.wait([sending])
    (job,) = await hand.take_all()
    await job.succeed(3)
    assert await app.AsyncResult("order-17").get(timeout=30) == 3


async def test_a_waiter_for_the_id_of_a_cancelled_enqueue_gets_result_not_found(app, add, server):
    connection = connection_of(app.sessions.current().broker.commands)
    server.stop()
    # Else the enqueue could leave on the old connection, and is sent again then, although it is cancelled.
    await until(lambda: connection.current is None, "the client to miss its connection")
    sending = asyncio.create_task(add.options(task_id="order-17").delay(1, 2))
    await asyncio.sleep(0.005)
    waiting = asyncio.create_task(app.AsyncResult("order-17").get(timeout=20))
    await asyncio.sleep(0.005)
    sending.cancel()
    await asyncio.wait([sending])
    server.start()
    with pytest.raises(ResultNotFound):
        await waiting
    assert server.calls["enqueue"] == 0, "the call was cancelled before the server could have it"


async def test_a_call_may_wait_until_the_queue_has_room(make_app, server):
    async with make_app(max_length=1, full_wait=60) as app, hand_worker(app) as hand:
        task = app.task(name="task")(_nothing)
        await task.delay()
        waiting = asyncio.create_task(task.delay())
        await until(lambda: server.calls["enqueue"] >= 3, "another try")
        assert not waiting.done()
        await (await hand.take()).succeed()
        assert (await waiting).state == "PENDING"


async def test_an_id_that_is_taken_is_refused_and_its_job_can_be_awaited(app, add, hand):
    named = add.options(task_id="order-17")
    await named.delay(1, 2)
    with pytest.raises(ValueError, match="order-17"):
        await named.delay(3, 4)
    await (await hand.take()).succeed(3)
    assert await app.AsyncResult("order-17").get(timeout=30) == 3


async def test_waits_survive_when_every_connection_is_cut(add, hand, server):
    results = await add.map([(1, n) for n in range(20)])
    waiting = asyncio.create_task(results.get(timeout=60))
    await asyncio.sleep(0.005)
    jobs = await hand.take_all()
    server.cut("asyncq-sub")
    server.cut("asyncq:")
    for n, job in enumerate(jobs):
        await job.succeed(n)
    assert await waiting == list(range(20))


async def test_invalid_messages_on_the_reply_channel_are_ignored(app, add, hand, server):
    result = await add.delay(1, 2)
    waiting = asyncio.create_task(result.get(timeout=30))
    await asyncio.sleep(0.005)
    channel = app.sessions.current().channel
    for invalid in (b"\xff", b"x S 5\n", b"a b c d\n"):
        server.do("PUBLISH", channel, invalid)
    await hand.succeed(result, 3)
    assert await waiting == 3


async def _long_before_its_timeout(waiting):
    """Returns the value. A wait that nobody wakes asks once more when its time is over."""
    async with asyncio.timeout(20):
        return await waiting


async def _nothing() -> None:
    """The body of a task. No worker runs it."""
