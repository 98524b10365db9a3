"""`harness(app, inline=True)` gives the calls their dependencies, as a worker does."""

from __future__ import annotations

import asyncio
import contextvars
import sqlite3
import threading
from collections.abc import AsyncIterator, Iterator  # noqa: TC003  asyncq reads the annotations

import pytest

import asyncq
from asyncq import Depends, Retry, group
from asyncq.testing import harness, sync_harness

pytestmark = pytest.mark.anyio

tenant = contextvars.ContextVar("tenant", default="nobody")


class Log(list):
    """What has happened, in order."""


@pytest.fixture
def log() -> Log:
    return Log()


@pytest.fixture
def session(log: Log):
    """A dependency whose clean-up shows whether the body has failed."""

    async def session() -> AsyncIterator[str]:
        log.append("open")
        try:
            yield "session"
        except BaseException as error:
            log.append(f"roll back: {type(error).__name__}")
            raise
        log.append("commit")

    return session


@pytest.fixture
def connection(log: Log):
    """A plain dependency that may be used on its own thread alone."""

    def connection() -> Iterator[sqlite3.Connection]:
        opened = sqlite3.connect(":memory:")
        log.append(threading.get_ident())
        try:
            yield opened
        finally:
            opened.close()
            log.append(threading.get_ident())

    return connection


async def test_a_coroutine_gets_its_dependencies_and_they_are_cleaned_up(app, log, session):
    @app.task
    async def work(number: int, session: str = Depends(session)) -> str:
        log.append("body")
        return f"{session} {number}"

    async with harness(app, inline=True) as t:
        assert await work.call(1) == "session 1"
        assert log == ["open", "body", "commit"]
        t.assert_enqueued(work, 1)
        assert t.jobs[0].args == (1,)
        assert t.jobs[0].kwargs == {}


async def test_a_failure_of_the_body_reaches_the_dependencies(app, log, session):
    @app.task
    async def fail(session: str = Depends(session)) -> None:
        raise ValueError("no")

    async with harness(app, inline=True):
        result = await fail.delay()
        assert result.state == "FAILURE"
        assert log == ["open", "roll back: ValueError"]
        with pytest.raises(ValueError, match="no"):
            await result


async def test_a_dependency_that_cannot_be_made_fails_the_job_without_its_body(app, log, session):
    def broken() -> str:
        raise ConnectionError("no database")

    @app.task
    async def work(session: str = Depends(session), other: str = Depends(broken)) -> None:
        log.append("body")

    async with harness(app, inline=True):
        with pytest.raises(ConnectionError, match="no database"):
            await work.call()
    assert log == ["open", "roll back: ConnectionError"]


async def test_a_clean_up_that_fails_fails_the_job(app):
    async def strict() -> AsyncIterator[str]:
        yield "strict"
        raise ConnectionError("the commit failed")

    @app.task
    async def work(strict: str = Depends(strict)) -> str:
        return strict

    async with harness(app, inline=True):
        with pytest.raises(ConnectionError, match="the commit failed"):
            await work.call()


async def test_a_plain_function_has_its_dependencies_on_one_thread_beside_the_loop(app, log, connection):
    @app.task
    def select(connection: sqlite3.Connection = Depends(connection)) -> list[int]:
        return [connection.execute("SELECT 1").fetchone()[0], threading.get_ident()]

    async with harness(app, inline=True):
        value, thread = await select.call()
    assert value == 1
    assert log == [thread, thread]
    assert thread != threading.get_ident()


def test_a_blocking_call_has_its_plain_dependencies_on_its_own_thread(app, log, connection, session):
    @app.task
    def select(
        connection: sqlite3.Connection = Depends(connection), session: str = Depends(session)
    ) -> list[object]:
        return [connection.execute("SELECT 1").fetchone()[0], session, threading.get_ident(), tenant.get()]

    token = tenant.set("ada")
    here = threading.get_ident()
    with sync_harness(app, inline=True):
        assert select.delay_sync().get_sync() == [1, "session", here, "ada"]
    tenant.reset(token)
    assert log == [here, "open", "commit", here]


def test_a_blocking_call_of_a_coroutine_has_its_dependencies_on_the_loop_of_its_body(app, log):
    async def loop() -> AsyncIterator[int]:
        yield id(asyncio.get_running_loop())
        log.append(id(asyncio.get_running_loop()))

    @app.task
    async def same(loop: int = Depends(loop)) -> bool:
        log.append(id(asyncio.get_running_loop()))
        return loop == id(asyncio.get_running_loop())

    with sync_harness(app, inline=True):
        assert same.call_sync()
    assert log[0] == log[1]


@pytest.mark.parametrize("is_plain", [True, False])
@pytest.mark.parametrize("is_blocking", [True, False])
async def test_each_try_gets_new_instances(app, log, is_plain: bool, is_blocking: bool):
    def number() -> int:
        log.append("made")
        return len(log)

    def body(number: int = Depends(number)) -> int:
        if number < 3:
            raise ValueError(f"no {number}")
        return number

    async def body_on_loop(number: int = Depends(number)) -> int:
        return body(number)

    task = app.task(name="work", retry=Retry(max_retries=5))(body if is_plain else body_on_loop)

    def call() -> int:
        with sync_harness(app, inline=True):
            return task.call_sync()

    if is_blocking:
        assert await asyncio.to_thread(call) == 3
    else:
        async with harness(app, inline=True):
            async with asyncio.timeout(20):
                assert await task.call() == 3
    assert log == ["made"] * 3


async def test_an_instance_of_the_worker_is_made_for_each_call_and_closed_after_it(app, log):
    async def pool() -> AsyncIterator[str]:
        log.append("open")
        yield "pool"
        log.append("close")

    def session(pool: str = Depends(pool, scope="worker")) -> str:
        return f"session of {pool}"

    @app.task
    async def work(session: str = Depends(session), pool: str = Depends(pool, scope="worker")) -> list[str]:
        return [session, pool]

    async with harness(app, inline=True):
        assert await work.call() == ["session of pool", "pool"]
        assert log == ["open", "close"]
        await work.call()
    assert log == ["open", "close"] * 2, "there is no worker that could keep it"


@pytest.mark.parametrize("is_plain", [True, False])
async def test_other_functions_stand_for_dependencies(app, session, log, is_plain: bool):
    def plain(session: str = Depends(session)) -> str:
        return session

    async def on_loop(session: str = Depends(session)) -> str:
        return session

    work = app.task(name="work")(plain if is_plain else on_loop)

    async with harness(app, inline=True):
        with app.override({session: lambda: "fake"}):
            assert await work.call() == "fake"
        assert log == []
        assert await work.call() == "session"


async def test_a_dependency_gets_the_context_of_the_job(app):
    def request_id(job: asyncq.Context = Depends(asyncq.current)) -> str:
        return f"{job.headers['tenant']} {job.id} {job.attempt}"

    @app.task
    async def work(request_id: str = Depends(request_id)) -> str:
        return request_id

    async with harness(app, inline=True):
        assert await work.options(headers={"tenant": "ada"}, task_id="j").call() == "ada j 1"


async def test_the_middleware_is_around_the_dependencies(app, log, session):
    class Note(asyncq.Middleware):
        async def on_run(self, job, call_next):
            log.append("before")
            try:
                return await call_next(job)
            finally:
                log.append("after")

    @app.task
    async def work(session: str = Depends(session)) -> None:
        log.append("body")

    app.add_middleware(Note())
    async with harness(app, inline=True):
        await work.delay()
    assert log == ["before", "open", "body", "commit", "after"]


async def test_a_dependency_is_no_part_of_the_call(app, session):
    @app.task
    async def work(number: int, session: str = Depends(session)) -> None: ...

    async with harness(app, inline=True) as t:
        with pytest.raises(TypeError, match="session"):
            await work.delay(1, session="mine")  # type: ignore[call-arg]
        with pytest.raises(TypeError):
            await work.delay(1, "mine")  # type: ignore[call-arg]
        assert t.jobs == []


async def test_workflows_and_batches_have_dependencies(app, log, session):
    @app.task
    async def add(x: int, y: int, session: str = Depends(session)) -> int:
        return x + y

    @app.task
    def total(values: list[int], session: str = Depends(session)) -> int:
        return sum(values)

    async with harness(app, inline=True):
        assert await (add.s(1, 2) | add.s(3)).call() == 6
        assert await (group(add.s(1, 2), add.s(3, 4)) | total.s()).call() == 10
        assert await (await add.map([(1, 1), (2, 2)])).get() == [2, 4]
    assert log == ["open", "commit"] * 7


def test_blocking_workflows_have_dependencies(app, log, session):
    @app.task
    def add(x: int, y: int, session: str = Depends(session)) -> int:
        return x + y

    with sync_harness(app, inline=True):
        assert (add.s(1, 2) | add.s(3)).call_sync() == 6
    assert log == ["open", "commit"] * 2


async def test_a_dependency_and_a_body_may_make_calls(app, add, log):
    async def base() -> int:
        return await (await add.delay(1, 2))

    def plain_base() -> int:
        return add.delay_sync(1, 2).get_sync()

    @app.task
    async def work(base: int = Depends(base), plain: int = Depends(plain_base)) -> int:
        return await (await add.delay(base, plain))

    @app.task
    def plain_work(base: int = Depends(base), plain: int = Depends(plain_base)) -> int:
        return add.delay_sync(base, plain).get_sync()

    def blocking() -> list[int]:
        with sync_harness(app, inline=True):
            return [work.call_sync(), plain_work.call_sync()]

    async with harness(app, inline=True) as t:
        assert await work.call() == 6
        assert await plain_work.call() == 6
        assert [job.task for job in t.jobs] == [work.name, *[add.name] * 3, plain_work.name, *[add.name] * 3]
    assert await asyncio.to_thread(blocking) == [6, 6]


async def test_generator_tasks_have_dependencies(app, log, session, connection):
    @app.task
    async def numbers(count: int, session: str = Depends(session)) -> AsyncIterator[int]:
        for number in range(count):
            yield number

    @app.task
    def rows(connection: sqlite3.Connection = Depends(connection)) -> Iterator[int]:
        for (value,) in connection.execute("VALUES (1), (2)"):
            yield value

    async with harness(app, inline=True):
        assert [item async for item in (await numbers.delay(3)).stream()] == [0, 1, 2]
        assert log == ["open", "commit"]
        assert [item async for item in (await rows.delay()).stream()] == [1, 2]


async def test_a_call_that_is_cancelled_cleans_up(app, log, session):
    @app.task
    async def wait(session: str = Depends(session)) -> None:
        await asyncio.Event().wait()

    async with harness(app, inline=True):
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.05):
                await wait.delay()
    assert log == ["open", "roll back: CancelledError"]


async def test_a_time_limit_cleans_up(app, log, session):
    @app.task(timeout=0.05)
    async def wait(session: str = Depends(session)) -> None:
        await asyncio.Event().wait()

    async with harness(app, inline=True):
        with pytest.raises(asyncq.TimeLimitExceeded):
            await wait.call()
    assert log == ["open", "roll back: TimeLimitExceeded"]


async def test_a_workflow_that_takes_the_place_of_the_job_is_no_failure(app, add, log, session):
    @app.task
    async def swapped(session: str = Depends(session)) -> int:
        await asyncq.current().replace(add.s(1, 2))

    async with harness(app, inline=True):
        assert await swapped.call() == 3
    assert log == ["open", "commit"]
