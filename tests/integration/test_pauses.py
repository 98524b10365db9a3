"""Paused queues and quiet workers: what they take, what goes on, and what outlives a restart."""

from __future__ import annotations

import asyncio
import signal
import time

import pytest
from helpers.inside import drop_subscription, is_for_reads, session_of
from helpers.own_server import own_server
from helpers.waiting import until, until_state
from helpers.worker_jobs import register
from helpers.worker_process import worker_process

from asyncq import AsyncQ, Retry, Worker
from asyncq.broker.transport.reconnect import ReconnectingConnection
from asyncq.cli.worker_limits import EndLimits, until_limit

pytestmark = pytest.mark.anyio


async def until_paused(worker, raw) -> None:
    """Waits until a worker knows that its queues are paused, and the server has dropped its last read."""
    consumer = session_of(worker).consumer
    await until(lambda: not consumer.served.open_streams, "the worker to know of the pause")

    async def none_reads() -> bool:
        clients = await raw.client_list()
        return not any("b" in one["flags"] and consumer.name in one["name"] for one in clients)

    await until(none_reads, "the server to drop the read")


async def runs(result, timeout: float = 30) -> bool:
    """Returns whether a job has ended well."""
    await result.get(timeout=timeout)
    return True


async def test_a_worker_that_waits_for_jobs_takes_none_of_a_queue_that_is_paused_and_runs_them_afterwards(
    app, add
):
    async with Worker(app) as worker:
        assert await add.call(1, 1) == 2
        await app.control.pause("default")
        assert not session_of(worker).consumer.served.open_streams
        waiting = [await add.delay(n, n) for n in range(3)]
        assert [await result.refresh() for result in waiting] == ["PENDING"] * 3
        (info,) = await app.control.queues()
        assert (info.name, info.waiting, info.running, info.paused) == ("default", 3, 0, True)
        began = time.monotonic()
        await app.control.resume("default")
        assert await app.ResultSet(waiting).get(timeout=30) == [0, 2, 4]
        assert time.monotonic() - began < 1
        assert not (await app.control.queues())[0].paused


async def test_no_job_that_is_enqueued_after_a_pause_has_returned_is_taken(app, add):
    async with Worker(app):
        for _ in range(20):
            await app.control.pause("default")
            result = await add.delay(1, 1)
            assert await result.refresh() == "PENDING"
            await app.control.resume("default")
            assert await result.get(timeout=30) == 2


async def test_a_pause_that_comes_while_a_worker_connects_for_its_first_read_leaves_the_jobs_alone(
    app, add, monkeypatch
):
    connect, connecting, go_on = ReconnectingConnection.pipe, asyncio.Event(), asyncio.Event()

    async def connect_slowly(connection):
        if is_for_reads(connection):
            connecting.set()
            await go_on.wait()
        return await connect(connection)

    monkeypatch.setattr(ReconnectingConnection, "pipe", connect_slowly)
    async with Worker(app, queues=["a", "b"]):
        await asyncio.wait_for(connecting.wait(), 30)
        await app.control.pause("a")
        waiting = await add.options(queue="a").delay(1, 1)
        go_on.set()
        assert await add.options(queue="b").call(2, 2) == 4
        assert await waiting.refresh() == "PENDING"
        await app.control.resume("a")
        assert await waiting.get(timeout=30) == 2


async def test_a_pause_returns_in_time_when_a_worker_does_not_answer(app, server_url, namespace):
    with worker_process(server_url, namespace) as worker:
        worker.send(signal.SIGSTOP)
        began = time.monotonic()
        await app.control.pause("default")
        assert 1 <= time.monotonic() - began < 3
        worker.send(signal.SIGCONT)
    await app.control.resume("default")


async def test_what_runs_when_its_queue_is_paused_runs_to_its_end_and_a_retry_of_it_waits(app):
    go = asyncio.Event()

    @app.task(retry=Retry(max_retries=1, backoff=0))
    async def fails_once() -> int:
        await go.wait()
        if not failed:
            failed.append(1)
            raise KeyError
        return 7

    failed: list[int] = []
    async with Worker(app):
        result = await fails_once.delay()
        await until_state(result, "STARTED")
        await app.control.pause("default")
        go.set()

        async def waits_again() -> bool:
            (queue,) = await app.control.queues()
            return bool(failed) and queue.waiting == 1

        await until(waits_again, "the retry to be in its queue")
        await app.control.resume("default")
        assert await result.get(timeout=30) == 7


async def test_other_queues_of_a_worker_go_on_while_one_is_paused(app, add):
    async with Worker(app, queues=["a", "b"]) as worker:
        await app.control.pause("a")
        assert set(session_of(worker).consumer.served.open_streams.values()) == {"b"}
        stuck = await add.options(queue="a").delay(1, 1)
        urgent = await add.options(queue="a", priority=9).delay(1, 2)
        for n in range(20):
            assert await add.options(queue="b").call(n, 1) == n + 1
        assert [await result.refresh() for result in (stuck, urgent)] == ["PENDING", "PENDING"]
        await app.control.resume("a")
        assert await app.ResultSet([stuck, urgent]).get(timeout=30) == [2, 3]


async def test_a_pause_is_known_to_workers_that_start_later_and_outlives_the_restart_of_the_server(tmp_path):
    with own_server(tmp_path / "server", durable=True) as server:
        async with AsyncQ(server.url, lease=2) as app:
            jobs = register(app)
            await app.control.pause("default")
            server.kill()
            server.start()
            with worker_process(server.url, "asyncq"):
                waiting = await jobs.add.delay(1, 2)
                await until(app.control.workers, "a worker to be there")
                assert await waiting.refresh() == "PENDING"
            with worker_process(server.url, "asyncq"):
                assert await waiting.refresh() == "PENDING"
                assert (await app.control.queues())[0].paused
                await app.control.resume("default")
                assert await waiting.get(timeout=30) == 3


async def test_a_worker_finds_a_pause_of_which_no_message_came(raw, make_app):
    async with make_app(lease=0.6) as app:
        jobs = register(app)
        async with Worker(app) as worker:
            key = f"{app.sessions.shards[0].paused}default"
            await raw.set(key, "1")
            await until_paused(worker, raw)
            waiting = await jobs.add.delay(1, 1)
            await raw.delete(key)
            assert await waiting.get(timeout=30) == 2


async def test_a_worker_learns_of_a_pause_that_began_while_its_subscription_was_away(app, add, raw):
    async with Worker(app) as worker:
        drop_subscription(app)
        await app.control.pause("default")
        await until_paused(worker, raw)
        waiting = await add.delay(1, 1)
        await app.control.resume("default")
        assert await waiting.get(timeout=30) == 2


async def test_jobs_of_a_paused_queue_that_wait_for_a_thread_start_when_it_goes_on(app):
    release = asyncio.Event()
    loop = asyncio.get_running_loop()

    @app.task
    def blocks(number: int) -> int:
        asyncio.run_coroutine_threadsafe(release.wait(), loop).result(30)
        return number

    @app.task
    async def quick() -> None: ...

    async with Worker(app, concurrency=50):
        results = [await blocks.delay(n) for n in range(20)]
        await app.control.pause("default")
        release.set()
        running = [result for result in results if await result.refresh() != "PENDING"]
        await asyncio.gather(*map(runs, running))
        await app.control.resume("default")
        assert await app.ResultSet(results).get(timeout=30) == list(range(20))


async def test_jobs_of_all_shards_wait_while_their_queue_is_paused(make_app, raw):
    async with make_app(shards=3) as app:

        @app.task
        async def double(number: int) -> int:
            return 2 * number

        async with Worker(app) as worker:
            await app.control.pause("default")
            await until_paused(worker, raw)
            results = [await double.options(task_id=f"job-{n}").delay(n) for n in range(12)]
            (info,) = await app.control.queues()
            assert (info.waiting, info.paused) == (12, True)
            await app.control.resume("default")
            assert await app.ResultSet(results).get(timeout=30) == [2 * n for n in range(12)]


async def test_a_quiet_worker_takes_no_jobs_and_another_one_does(app, make_app, add, nap):
    async with make_app() as other:
        other.task(name=add.name)(add.function)
        other.task(name=nap.name)(nap.function)
        async with Worker(app, name="one") as first:
            running = await nap.delay(0.5)
            await until_state(running, "STARTED")
            await app.control.quiet("one")
            assert first.is_quiet
            waiting = await add.delay(1, 1)
            assert await running.get(timeout=30) == 0.5
            assert await waiting.refresh() == "PENDING"
            (info,) = await app.control.workers()
            await until(lambda: first.done == 1, "the running job to end")
            assert (info.name, info.quiet) == ("one", True)
            async with Worker(other, name="two"):
                assert await waiting.get(timeout=30) == 2
                assert first.done == 1
            again = await add.delay(2, 2)
            await app.control.quiet("one", on=False)
            assert await again.get(timeout=30) == 4


async def test_a_burst_does_not_wait_for_the_jobs_of_a_paused_queue(app, add):
    await app.control.pause("a")
    await add.options(queue="a").delay(1, 1)
    async with Worker(app, queues=["a", "b"]) as worker:
        result = await add.options(queue="b").delay(1, 1)
        limits = EndLimits(burst=True, max_jobs=None, max_memory=None)
        assert await asyncio.wait_for(until_limit(worker, limits), 30) == "no jobs left (--burst)"
        assert await result.refresh() == "SUCCESS"
    assert await app.control.purge("a") == 1
    await app.control.resume("a")


async def test_pausing_twice_and_resuming_what_is_not_paused_change_nothing(app, raw):
    key = f"{app.sessions.shards[0].paused}mail"
    await app.control.pause("mail")
    since = await raw.get(key)
    await app.control.pause("mail")
    assert await raw.get(key) == since
    await app.control.resume("mail")
    await app.control.resume("mail")
    assert await raw.get(key) is None
    with pytest.raises(ValueError, match="cannot be a name"):
        await app.control.pause("no name")
