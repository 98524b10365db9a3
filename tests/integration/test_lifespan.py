"""Each worker enters the lifespan of its app before its first job, and leaves it after its last one."""

from __future__ import annotations

import asyncio
import contextlib
from contextlib import asynccontextmanager
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import anyio
import pytest
from helpers import process_bodies
from helpers.waiting import until

import asyncq
from asyncq import AsyncQ, AsyncQError, JobEvent, Worker

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

pytestmark = pytest.mark.anyio


@pytest.fixture
def log() -> list[str]:
    return []


@pytest.fixture
def lifespan(log) -> Callable[[AsyncQ], contextlib.AbstractAsyncContextManager[Any]]:
    @asynccontextmanager
    async def lifespan(app: AsyncQ) -> AsyncIterator[SimpleNamespace]:
        log.append("enter")
        async with anyio.create_task_group() as group:  # must be left in the task that entered it
            yield SimpleNamespace(app=app, group=group)
        await asyncio.sleep(0)
        log.append("leave")

    return lifespan


async def test_jobs_of_every_kind_see_what_the_lifespan_has_yielded(make_app, lifespan, log):
    app = make_app(lifespan=lifespan)

    @app.task(name="loop")
    async def on_loop() -> bool:
        return asyncq.current().state.app is app

    @app.task(name="thread")
    def in_thread() -> bool:
        return asyncq.current().state.app is app

    @app.task(name="items")
    async def items():
        yield asyncq.current().state.app is app

    in_process = app.task(name="process", executor="process")(process_bodies.state)

    @app.on_success
    async def hook(event: JobEvent) -> None:
        await asyncio.sleep(0.05)
        log.append(event.task)

    async with app:
        assert log == [], "a client does not enter it"
        async with Worker(app):
            assert await on_loop.call() is True
            assert await in_thread.call() is True
            assert [item async for item in (await items.delay()).stream()] == [True]
            assert await in_process.call() is None, "a process does not enter it"
        assert log[0] == "enter"
        assert log[-1] == "leave", "after the hooks"
        assert sorted(log[1:-1]) == ["items", "loop", "process", "thread"]


async def test_the_state_is_none_without_a_lifespan_and_in_apply(make_app, lifespan, log, app):
    def body() -> Any:
        return asyncq.current().state

    task = app.task(name="plain")(body)
    async with Worker(app):
        assert await task.call() is None
    assert await make_app(lifespan=lifespan).task(name="plain")(body).apply() is None
    assert log == []


async def test_it_is_entered_before_the_first_job_and_left_after_the_last(make_app, log):
    may_enter = asyncio.Event()

    @asynccontextmanager
    async def slow(app: AsyncQ) -> AsyncIterator[None]:
        await may_enter.wait()
        log.append("enter")
        yield
        log.append("leave")

    app = make_app(lifespan=slow)

    @app.task(name="body")
    async def body() -> None:
        log.append("begin")
        await asyncio.sleep(0.3)
        log.append("end")

    async with app:
        result = await body.delay()
        worker = Worker(app)
        running = asyncio.create_task(worker.run())
        assert await result.refresh() == "PENDING"
        may_enter.set()
        await until(lambda: "begin" in log, "the job to begin")
        worker.stop()
        await running
    assert log == ["enter", "begin", "end", "leave"]


async def test_an_error_on_entering_ends_the_worker_with_one_line(make_app):
    @asynccontextmanager
    async def broken(app: AsyncQ) -> AsyncIterator[None]:
        raise ConnectionError("no database\nmore of it")
        yield

    app = make_app(lifespan=broken)
    async with app:
        with pytest.raises(AsyncQError) as caught:
            async with Worker(app):
                pass
    text = "the lifespan of the app failed when it was entered: ConnectionError: no database"
    assert str(caught.value) == text
    assert isinstance(caught.value.__cause__, ConnectionError)


async def test_an_error_on_leaving_is_raised_when_all_jobs_have_ended(make_app):
    @asynccontextmanager
    async def broken(app: AsyncQ) -> AsyncIterator[None]:
        yield
        raise ConnectionError("no database")

    app = make_app(lifespan=broken)
    started = asyncio.Event()

    @app.task(name="body")
    async def body() -> int:
        started.set()
        await asyncio.sleep(0.1)
        return 1

    async with app:
        result = await body.delay()
        worker = Worker(app)
        running = asyncio.create_task(worker.run())
        await asyncio.wait_for(started.wait(), 20)
        worker.stop()
        with pytest.raises(AsyncQError, match="when it was left: ConnectionError"):
            await running
        assert await result.get(timeout=20) == 1


async def test_a_worker_whose_lifespan_breaks_in_the_middle_stops_and_says_so(make_app):
    breaks = asyncio.Event()

    @asynccontextmanager
    async def fragile(app: AsyncQ) -> AsyncIterator[None]:
        async def watch() -> None:
            await breaks.wait()
            raise OSError("the connection is gone")

        async with anyio.create_task_group() as group:
            group.start_soon(watch)
            yield

    app = make_app(lifespan=fragile)

    @app.task(name="body")
    async def body() -> int:
        breaks.set()
        await asyncio.sleep(0.2)
        return 1

    async with app:
        result = await body.delay()
        with pytest.raises(AsyncQError, match="lifespan of the app failed"):
            await asyncio.wait_for(Worker(app).run(), 20)
        assert await result.get(timeout=20) == 1, "its jobs had the grace"


async def test_a_worker_can_be_stopped_and_cancelled_while_its_lifespan_is_entered(make_app, log):
    entering = asyncio.Event()

    @asynccontextmanager
    async def endless(app: AsyncQ) -> AsyncIterator[None]:
        entering.set()
        try:
            await asyncio.Event().wait()
        finally:
            log.append("cancelled")
        yield

    app = make_app(lifespan=endless)
    async with app:
        worker = Worker(app)
        running = asyncio.create_task(worker.run())
        await entering.wait()
        worker.stop()
        await asyncio.wait_for(running, 10)
        entering.clear()
        running = asyncio.create_task(Worker(app).run())
        await entering.wait()
        running.cancel()
        with pytest.raises(asyncio.CancelledError):
            await asyncio.wait_for(running, 10)
    assert log == ["cancelled", "cancelled"]


async def test_it_is_left_when_the_worker_is_cancelled_and_a_second_stop_cuts_it_short(make_app, log):
    leaving = asyncio.Event()

    @asynccontextmanager
    async def slow(app: AsyncQ) -> AsyncIterator[None]:
        yield
        leaving.set()
        try:
            await asyncio.sleep(0.05 if not log else 60)
        finally:
            log.append("left")

    app = make_app(lifespan=slow)
    async with app:
        worker = Worker(app)
        running = asyncio.create_task(worker.run())
        await worker.started.wait()
        running.cancel()
        with pytest.raises(asyncio.CancelledError):
            await running
        assert log == ["left"]
        leaving.clear()
        worker = Worker(app)
        running = asyncio.create_task(worker.run())
        await worker.started.wait()
        worker.stop()
        await leaving.wait()
        worker.stop()
        await asyncio.wait_for(running, 10)
    assert log == ["left", "left"]


def test_what_is_no_lifespan_is_refused(make_app):
    async def generator(app: AsyncQ):
        yield

    with pytest.raises(TypeError, match="decorate it with @contextlib"):
        make_app(lifespan=generator)
    with pytest.raises(TypeError, match="do not call it"):
        make_app(lifespan=3)
