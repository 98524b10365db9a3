"""At the end of its block, a harness fails the test that has left something behind, and says what."""

from __future__ import annotations

import asyncio
import threading

import pytest
import redis
from helpers.waiting import until

from asyncq import AsyncQ
from asyncq.testing import LeakError, harness

pytestmark = pytest.mark.anyio


def line_of(error: pytest.ExceptionInfo[LeakError], what: str) -> str:
    lines = str(error.value).splitlines()
    assert lines[0] == "the test ended and left behind:"
    [line] = [line for line in lines if what in line]
    return line


async def test_a_test_that_ends_while_a_job_runs_fails_and_names_the_job(app, hold):
    result = None

    async def body() -> None:
        nonlocal result
        async with harness(app):
            result = await hold.delay()

    with pytest.raises(LeakError) as caught:
        await body()
    line = line_of(caught, result.id)
    assert line.startswith(f"  {hold.name}() (job {result.id}, enqueued at ")
    assert "test_leaks.py:" in line
    assert line.endswith(", which runs")
    assert len(str(caught.value).splitlines()) == 2


async def test_a_job_that_waits_behind_another_is_named_too(app, add, hold):
    async def body() -> None:
        async with harness(app, concurrency=1):
            await hold.delay()
            await add.delay(1)

    with pytest.raises(LeakError) as caught:
        await body()
    assert line_of(caught, add.name).endswith(", which is queued")


async def test_jobs_that_end_by_themselves_or_wait_for_their_time_are_no_leaks(app, add):
    async with harness(app):
        await add.delay(1)
        await add.options(countdown=60).delay(2)
    async with harness(app, worker=False):
        await add.delay(1)


async def test_a_task_that_goes_on_is_named_with_the_line_that_made_it(app, add):
    async def listen() -> None:
        await asyncio.Event().wait()

    task = None

    async def body() -> None:
        nonlocal task
        async with harness(app):
            task = asyncio.create_task(listen())
            await add.options(wait=5).call(1)

    with pytest.raises(LeakError) as caught:
        await body()
    line = line_of(caught, "asyncio task")
    assert "listen(), created at " in line
    assert "test_leaks.py:" in line
    assert task.cancelled(), "it does not disturb the next test"


async def test_a_wait_that_nobody_awaits_is_a_task_that_was_left(app, add):
    task = None

    async def body() -> None:
        nonlocal task
        async with harness(app):
            result = await add.options(countdown=60).delay(1)
            task = asyncio.create_task(result.get())
            await asyncio.sleep(0)

    with pytest.raises(LeakError, match=r"asyncio task of AsyncResult.get\(\), created at .*test_leaks.py:"):
        await body()
    assert task.done()


async def test_tasks_of_before_are_not_the_tests(app, add):
    before = asyncio.create_task(asyncio.Event().wait())
    async with harness(app):
        await add.options(wait=5).call(1)
    before.cancel()


async def test_an_app_that_was_left_open_is_named_with_the_line_that_opened_it(app, add):
    async def body() -> None:
        async with harness(app):
            await app.open()
            async with app:
                await add.options(wait=5).call(1)

    with pytest.raises(LeakError) as caught:
        await body()
    line = line_of(caught, "an open app")
    assert "opened at " in line
    assert "test_leaks.py:" in line
    async with harness(app):
        assert await add.options(wait=5).call(1) == 2


async def test_an_app_that_is_open_on_another_loop_is_a_leak(app, add):
    opened, close = threading.Event(), threading.Event()

    async def keep_open() -> None:
        async with app:
            opened.set()
            await asyncio.to_thread(close.wait)

    thread = threading.Thread(target=lambda: asyncio.run(keep_open()))

    async def body() -> None:
        async with harness(app):
            thread.start()
            await until(opened.is_set, "the app to be open")

    with pytest.raises(LeakError, match=r"an open app, opened at .*test_leaks.py:"):
        await body()
    close.set()
    thread.join()


async def test_the_session_of_blocking_calls_is_closed_by_the_harness(app, add):
    async with harness(app):
        await asyncio.to_thread(add.delay_sync, 1)

        def block() -> None:
            with app:
                add.options(wait=5).call_sync(1)

        await asyncio.to_thread(block)


async def test_a_connection_of_the_tests_own_is_a_leak(app):
    client = None

    async def body() -> None:
        nonlocal client
        async with harness(app, worker=False) as t:
            client = redis.Redis.from_url(t.url, client_name="mine")
            client.ping()

    with pytest.raises(LeakError, match="a connection to the server, named 'mine'"):
        await body()
    client.close()


async def test_what_the_block_raised_comes_out_and_not_what_it_left(app, hold):
    async def body() -> None:
        async with harness(app):
            await hold.delay()
            asyncio.get_running_loop().call_soon(print)
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        await body()
    async with harness(app) as t:
        assert t.jobs == []


async def test_the_loop_has_its_task_factory_back(app):
    loop = asyncio.get_running_loop()
    made = []

    def factory(loop, coroutine, **options):
        made.append(coroutine)
        return asyncio.Task(coroutine, loop=loop, **options)

    loop.set_task_factory(factory)
    try:
        async with harness(app, worker=False):
            await asyncio.create_task(asyncio.sleep(0))
        assert made
        assert loop.get_task_factory() is factory
    finally:
        loop.set_task_factory(None)


async def test_many_harnesses_leave_no_server_behind(app, add):
    urls = set()
    for _ in range(3):
        async with harness(app) as t:
            urls.add(t._connected.server.url)
            assert await add.options(wait=5).call(1) == 2
    assert len(urls) == 1
    async with harness(AsyncQ("redis://127.0.0.1:1/0")) as t:
        assert t._connected.server.url in urls
