"""Which session serves a call: blocks on several loops and threads, the background session, and handles that
are used with several sessions.
"""

from __future__ import annotations

import asyncio
import threading
from typing import TYPE_CHECKING

import pytest
from helpers.hand_worker import hand_worker
from helpers.waiting import until

import asyncq
from asyncq import BrokerUnavailable, ResultNotFound, ResultTimeout, SyncInAsyncContext, Worker

if TYPE_CHECKING:
    from collections.abc import Callable

THREADS = 8


@pytest.fixture
def closed(make_app):
    """An app that is not open."""
    app = make_app()

    @app.task(name="add")
    async def add(x: int, y: int) -> int:
        return x + y

    app.add = add
    return app


def names(server) -> list[str]:
    """Returns the names of the server's connections, without the parts that differ between processes."""
    return sorted(session.name.partition(":")[0] for session in server.sessions)


ONE_SESSION = ["asyncq", "asyncq-sub"]


async def end_next_job(app, value: object) -> None:
    async with app, hand_worker(app) as hand:
        await (await hand.take()).succeed(value)


def in_threads(call: Callable[[int], object]) -> list[object]:
    """Makes a call in several threads at once, and returns all results."""
    values: list[object] = [None] * THREADS

    def body(n: int) -> None:
        try:
            values[n] = call(n)
        except BaseException as error:
            values[n] = error

    running = [threading.Thread(target=body, args=(n,)) for n in range(THREADS)]
    for each in running:
        each.start()
    for each in running:
        each.join()
    return values


# -- blocks ------------------------------------------------------------------------------------------------


@pytest.mark.anyio
async def test_a_block_has_two_connections_and_leaves_none(closed, server):
    async with closed:
        await closed.add.delay(1, 2)
        assert names(server) == ONE_SESSION
    assert names(server) == []


@pytest.mark.anyio
async def test_nested_blocks_on_one_loop_share_a_session(closed, server):
    async with closed:
        async with closed:
            await closed.add.delay(1, 2)
            assert names(server) == ONE_SESSION
        await closed.add.delay(1, 2)
        assert names(server) == ONE_SESSION


def test_blocks_in_several_threads_have_sessions_of_their_own(closed, server):
    barrier, seen = threading.Barrier(THREADS), []

    async def block(n: int) -> str:
        async with closed:
            result = await closed.add.delay(n, 1)
            barrier.wait(30)
            seen.append(len(names(server)))
            barrier.wait(30)
            return result.id

    ids = in_threads(lambda n: asyncio.run(block(n)))
    assert len({*ids}) == THREADS
    assert seen == [2 * THREADS] * THREADS
    assert names(server) == []


@pytest.mark.anyio
async def test_a_session_that_could_not_be_opened_can_be_opened_later(make_app, server):
    app = make_app(operation_timeout=1)
    server.stop()
    with pytest.raises(BrokerUnavailable, match="redis://fake:6379/0"):
        await app.open()
    server.start()
    async with app:
        assert names(server) == ONE_SESSION


@pytest.mark.anyio
async def test_a_process_that_was_stopped_while_it_connected_connects_again(make_app, server, monkeypatch):
    """The loop stood still for longer than `operation_timeout`, and its connections were cut meanwhile."""
    loop, execute, stopped = asyncio.get_running_loop(), server.execute, []
    clock = loop.time

    def stop_at_the_first(session, command):
        answer = execute(session, command)
        if command[0] == b"SUBSCRIBE" and not stopped:
            stopped.append(100.0)
            server.cut()
        return answer

    monkeypatch.setattr(loop, "time", lambda: clock() + sum(stopped))
    monkeypatch.setattr(server, "execute", stop_at_the_first)
    async with make_app(operation_timeout=4):
        assert names(server) == ONE_SESSION
    assert stopped


@pytest.mark.anyio
async def test_the_end_of_a_block_ends_the_waits_in_it(closed):
    async with closed:
        result = await closed.add.delay(1, 2)
        waiting = asyncio.create_task(result.get())
        await asyncio.sleep(0.01)
    with pytest.raises(BrokerUnavailable, match="closed"):
        await waiting


@pytest.mark.anyio
async def test_open_and_close_do_what_a_block_does(closed, server):
    await closed.open()
    assert names(server) == ONE_SESSION
    await closed.close()
    assert names(server) == []


@pytest.mark.anyio
async def test_a_worker_uses_the_session_of_its_loop_and_leaves_it_open(closed, server):
    async with closed:
        async with Worker(closed):
            assert await closed.add.call(1, 2) == 3
            assert len([name for name in names(server) if name == "asyncq"]) == 1
        assert names(server) == ONE_SESSION


# -- the background session --------------------------------------------------------------------------------


@pytest.mark.anyio
async def test_a_call_on_a_loop_without_a_block_is_served_in_the_background(closed, server):
    result = await closed.add.delay(1, 2)
    assert names(server) == ONE_SESSION
    await end_next_job(closed, 3)
    assert await result.get(timeout=30) == 3
    await closed.close()
    assert names(server) == []


def test_threads_with_and_without_loops_share_the_background_session(closed, server):
    def call(n: int) -> str:
        if n % 2:
            return closed.add.delay_sync(n, 1).id
        return asyncio.run(closed.add.delay(n, 1)).id

    assert len({*in_threads(call)}) == THREADS
    assert names(server) == ONE_SESSION
    closed.close_sync()
    assert names(server) == []


def test_a_blocking_call_does_not_depend_on_a_loop_that_is_idle(closed):
    loop = asyncio.new_event_loop()
    loop.run_until_complete(closed.open())
    result = loop.run_until_complete(closed.add.delay(1, 2))
    with pytest.raises(ResultTimeout):
        result.get_sync(timeout=0.02)
    loop.run_until_complete(end_next_job(closed, 3))
    assert result.get_sync(timeout=30) == 3
    loop.run_until_complete(closed.close())
    loop.close()


@pytest.mark.anyio
async def test_a_blocking_call_on_a_running_loop_is_refused(closed):
    with pytest.raises(SyncInAsyncContext, match="await"):
        closed.add.delay_sync(1, 2)


def test_the_last_of_nested_blocking_blocks_ends_the_background_thread(closed, server):
    before = threading.active_count()
    with closed:
        with closed:
            closed.add.delay_sync(1, 2)
        assert names(server) == ONE_SESSION
    assert (names(server), threading.active_count()) == ([], before)


def test_a_loop_that_is_closed_inside_a_block_does_not_break_later_calls(closed, caplog):
    asyncio.run(closed.open())
    assert closed.add.delay_sync(1, 2).id
    assert "was left open when its event loop closed" in caplog.text


# -- handles that are used with several sessions -----------------------------------------------------------


def test_a_handle_of_one_loop_can_be_awaited_on_other_loops(closed):
    async def send():
        async with closed:
            return await closed.add.delay(1, 2)

    async def receive(result) -> int:
        async with closed:
            return await result.get(timeout=30)

    result = asyncio.run(send())
    asyncio.run(end_next_job(closed, 3))
    assert in_threads(lambda _: asyncio.run(receive(result))) == [3] * THREADS
    assert (result.state, result.result) == ("SUCCESS", 3)


@pytest.mark.anyio
async def test_a_handle_shows_an_outcome_that_any_of_its_sessions_has_seen(closed):
    async with closed, hand_worker(closed) as hand:
        result = await closed.add.delay(1, 2)

        async def time_out() -> None:
            async with closed:
                with pytest.raises(ResultTimeout):
                    await result.get(timeout=0.01)

        await asyncio.to_thread(lambda: asyncio.run(time_out()))
        await hand.succeed(result, 3)
        await until(lambda: result.state == "SUCCESS", "the push to the session that made it")


@pytest.mark.anyio
async def test_a_session_does_not_fetch_an_outcome_that_another_session_knows(closed, server):
    async with closed, hand_worker(closed) as hand:
        result = await closed.add.delay(1, 2)
        await hand.succeed(result, 3)
        await result.get()

        async def elsewhere() -> object:
            async with closed:
                server.calls.clear()
                return await asyncq.wait([result])

        assert await asyncio.to_thread(lambda: asyncio.run(elsewhere())) == ({result}, set())
        assert not server.calls["fetch_status"]


@pytest.mark.anyio
async def test_a_result_that_is_forgotten_in_one_session_is_unknown_in_all(closed):
    async with closed, hand_worker(closed) as hand:
        result = await closed.add.delay(1, 2)
        await hand.succeed(result, 3)
        await result.get()
        await asyncio.to_thread(result.forget_sync)
        assert result.state == "UNKNOWN"
        with pytest.raises(ResultNotFound):
            await result.get(timeout=3)  # at once, and not by the poll


@pytest.mark.anyio
async def test_a_callback_runs_on_the_loop_that_registered_it(closed):
    async with closed, hand_worker(closed) as hand:
        result = await closed.add.delay(1, 2)
        asked, called = threading.Event(), []

        async def ask() -> None:
            done = asyncio.Event()
            result.then(lambda _: (called.append(threading.current_thread()), done.set()))
            await asyncio.sleep(0.05)
            asked.set()
            await done.wait()
            called.append(threading.current_thread())

        asking = asyncio.create_task(asyncio.to_thread(lambda: asyncio.run(ask())))
        await asyncio.to_thread(asked.wait)
        await hand.succeed(result, 3)
        await asking
        assert called[0] is called[1]


@pytest.mark.anyio
async def test_two_apps_on_one_server_see_each_others_jobs_and_another_namespace_does_not(make_app, closed):
    async with closed, make_app() as same, make_app(namespace="other") as other, hand_worker(closed) as hand:
        result = await closed.add.delay(1, 2)
        await hand.succeed(result, 3)
        assert await same.AsyncResult(result.id).get(timeout=30) == 3
        with pytest.raises(ResultNotFound):
            await other.AsyncResult(result.id).get(timeout=30)


@pytest.mark.anyio
async def test_an_app_with_another_number_of_shards_is_refused(make_app):
    async with make_app(shards=4):
        with pytest.raises(Exception, match=r"has 4 shards .* but this app says shards=2"):
            await make_app(shards=2).open()
