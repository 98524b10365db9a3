"""`harness(app, inline=True)`: each call runs where it is made, without a server."""

from __future__ import annotations

import asyncio
import contextvars
import threading

import pytest

import asyncq
from asyncq import (
    EagerResult,
    PayloadTooLarge,
    ResultNotFound,
    Retry,
    SerializationError,
    SyncInAsyncContext,
    WouldDeadlock,
    chord,
    group,
)
from asyncq.testing import harness, private_servers, sync_harness

pytestmark = pytest.mark.anyio

user = contextvars.ContextVar("user", default="nobody")


async def test_a_call_has_ended_when_delay_returns(app, add):
    async with harness(app, inline=True) as t:
        result = await add.delay(4, 4)
        assert isinstance(result, EagerResult)
        assert (result.state, result.result, await result) == ("SUCCESS", 8, 8)
        assert await add.call(1, 2) == 3
        t.assert_enqueued(add, 4, 4)
        assert [job.args for job in t.jobs] == [(4, 4), (1, 2)]


async def test_no_server_is_started(app, add, monkeypatch):
    monkeypatch.setattr(private_servers.embedded, "private", None)
    async with harness(app, inline=True):
        assert await add.call(1, 2) == 3
    assert in_thread(app, lambda: add.call_sync(1, 2)) == 3


def in_thread(app, function):
    """Calls a function inline in a thread, for the test's own thread has a loop."""
    found = []

    def run() -> None:
        with sync_harness(app, inline=True):
            found.append(function())

    thread = threading.Thread(target=run)
    thread.start()
    thread.join()
    return found[0]


async def test_a_coroutine_runs_on_this_loop_and_sees_the_context_of_the_call(app):
    @app.task
    async def where() -> list[object]:
        return [id(asyncio.get_running_loop()), user.get()]

    token = user.set("ada")
    async with harness(app, inline=True):
        assert await where.call() == [id(asyncio.get_running_loop()), "ada"]
    user.reset(token)


async def test_a_plain_function_runs_in_a_thread_where_it_may_block(app, add):
    @app.task
    def nested() -> list[int]:
        assert user.get() == "ada"
        return [threading.get_ident(), add.delay_sync(1, 2).get_sync()]

    token = user.set("ada")
    async with harness(app, inline=True) as t:
        thread, value = await nested.call()
        assert thread != threading.get_ident()
        assert value == 3
        assert [job.task for job in t.jobs] == [nested.name, add.name]
    user.reset(token)


def test_a_blocking_call_runs_on_its_own_thread(app, add):
    @app.task
    def where() -> int:
        return threading.get_ident()

    with sync_harness(app, inline=True) as t:
        assert where.delay_sync().get_sync() == threading.get_ident()
        assert add.delay_sync(1, 2).get_sync() == 3, "a coroutine gets a loop of its own"
        assert (add.s(1) | add.s(2)).call_sync(3) == 6
        assert [result.get_sync() for result in add.map_sync([(1, 1), (2, 2)])] == [2, 4]
        assert app.send_sync(add.name, (5, 5)).get_sync() == 10
        t.assert_enqueued(add, 5, 5)
        t.drain()


async def test_what_cannot_travel_fails_here_too(app, add):
    class Unknown:
        pass

    @app.task
    async def returns_unknown() -> object:
        return Unknown()

    async with harness(app, inline=True, max_payload=1000) as t:
        with pytest.raises(SerializationError):
            await add.delay(Unknown())  # type: ignore[arg-type]
        with pytest.raises(PayloadTooLarge):
            await add.delay("x" * 2000)  # type: ignore[arg-type]
        with pytest.raises(TypeError, match="too many positional"):
            await add.delay(1, 2, 3)  # type: ignore[call-arg]
        assert t.jobs == []
        result = await returns_unknown.delay()
        assert result.state == "FAILURE"
        with pytest.raises(SerializationError):
            await result


async def test_arguments_are_copies_as_at_a_worker(app):
    @app.task
    async def append(items: list[int]) -> list[int]:
        items.append(1)
        return items

    async with harness(app, inline=True):
        items = [0]
        assert await append.call(items) == [0, 1]
        assert items == [0]


async def test_a_failure_is_raised_by_the_wait_and_not_by_the_call(app):
    tries = []

    @app.task(retry=Retry(max_retries=2, backoff=100))
    async def fail() -> None:
        tries.append(asyncq.current().attempt)
        raise ValueError("no")

    async with harness(app, inline=True):
        result = await fail.delay()
        assert result.state == "FAILURE"
        with pytest.raises(ValueError, match="no"):
            await result.get(timeout=1)
        assert tries == [1, 2, 3], "its retries follow without their pauses"


async def test_workflows_run_with_their_callbacks(app, add):
    notes = []

    @app.task
    async def total(values: list[int]) -> int:
        return sum(values)

    @app.task
    async def note(value: int) -> None:
        notes.append(value)

    @app.task
    async def fail() -> int:
        raise ValueError("no")

    @app.task
    async def on_error(id: str, error: object, traceback: str) -> None:
        notes.append(str(error))

    async with harness(app, inline=True) as t:
        assert await (add.s(1) | add.s(2)).call(3) == 6
        members = await group(add.s(1), add.s(2)).delay()
        assert await members.get() == [2, 3]
        assert await chord([add.s(1), add.s(2)], total.s()).call() == 5
        await add.options(link=note.s()).delay(1, 2)
        await fail.options(link_error=on_error.s()).delay()
        results = await app.submit([add.s(1, 1), add.s(2, 2) | add.s(1)])
        assert await results.get() == [2, 5]
        assert await asyncq.gather(*(await add.map([(1, 1), (2, 2)]))) == (2, 4)
        assert notes == [3, "no"]
        assert len(t.jobs) == 2 + 2 + 3 + 2 + 2 + 3 + 2


async def test_a_task_that_calls_others_runs_them_at_once(app, add):
    @app.task
    async def parent() -> list[object]:
        child = await add.delay(1, 2)
        return [str(child.state), await child, asyncq.current().id]

    @app.task
    async def swapped() -> int:
        await asyncq.current().replace(add.s(1, 2) | add.s(4))

    @app.task
    async def waits() -> int:
        return await add.call(1, 2)

    async with harness(app, inline=True) as t:
        state, value, id_ = await parent.call()
        assert (state, value, id_) == ("SUCCESS", 3, t.jobs[0].id)
        assert await swapped.call() == 7
        with pytest.raises(WouldDeadlock):
            await waits.call()


async def test_generators_and_progress_work_as_with_a_worker(app):
    @app.task
    async def numbers(count: int):
        for number in range(count):
            await asyncq.current().progress(number, count)
            yield number

    @app.task
    def letters():
        yield from "ab"

    async with harness(app, inline=True):
        assert [item async for item in (await numbers.delay(3)).stream()] == [0, 1, 2]
        assert [item async for item in (await letters.delay()).stream()] == ["a", "b"]


async def test_a_handle_that_is_made_from_the_id_finds_the_outcome(app, add):
    async with harness(app, inline=True):
        result = await add.options(task_id="order-1").delay(1, 2)
        found = app.AsyncResult("order-1")
        assert (found.state, await found, found.name) == ("SUCCESS", 3, add.name)
        assert await add.AsyncResult("order-1").exists()
        assert not await app.AsyncResult("order-2").exists()
        with pytest.raises(ResultNotFound):
            await app.AsyncResult("order-2").get()
        await result.forget()
        assert not await app.AsyncResult("order-1").exists()


async def test_calls_with_one_key_are_one_job(app, add):
    async with harness(app, inline=True) as t:
        first = await add.options(key="k").delay(1, 2)
        assert (await add.options(key="k").delay(1, 2)).id == first.id
        assert len(t.jobs) == 1
        with pytest.raises(ValueError, match="belongs to a call with other arguments"):
            await add.options(key="k").delay(2, 2)
        await add.options(task_id="one").delay(1)
        with pytest.raises(ValueError, match="exists already"):
            await add.options(task_id="one").delay(1)


async def test_hooks_are_called_as_before_an_enqueue(app, add):
    seen = []

    class Note(asyncq.Middleware):
        async def on_enqueue(self, call, call_next):
            await asyncio.sleep(0)
            seen.append(call.task)
            return await call_next(call)

    app.add_middleware(Note())
    async with harness(app, inline=True):
        await add.delay(1)
    in_thread(app, lambda: add.delay_sync(1))
    assert seen == [add.name] * 2


async def test_blocks_of_the_app_open_nothing(app, add):
    async with harness(app, inline=True):
        async with app, app.lifespan():
            assert await add.call(1, 2) == 3
        await app.open()
        await app.close()
        async with app.scope():
            await add.delay(1)
        with pytest.raises(SyncInAsyncContext):
            add.delay_sync(1)


async def test_what_needs_a_server_says_so(app, add):
    async with harness(app, inline=True):
        with pytest.raises(RuntimeError, match="needs a server"):
            await app.control.dead.list()
        with pytest.raises(RuntimeError, match="needs a server"):
            async with asyncq.Worker(app):
                pass


async def test_a_cancelled_call_cancels_its_body(app):
    ended = []

    @app.task
    async def wait() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            ended.append(True)

    async with harness(app, inline=True):
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.05):
                await wait.delay()
        assert ended == [True]


async def test_the_clock_can_be_advanced(app, add):
    async with harness(app, inline=True) as t:
        before = t.now
        await t.advance(3600)
        assert 3599 < (t.now - before).total_seconds() < 3601
        assert await add.options(countdown=60).call(1, 2) == 3, "there is nothing that would wait"
        await t.drain()
