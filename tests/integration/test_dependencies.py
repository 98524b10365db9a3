"""Dependencies are made for each attempt and cleaned up after it, for every kind of task and of end."""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import sqlite3
import sys
import threading
import time
import traceback
from typing import TYPE_CHECKING, Any

import anyio
import pytest
from helpers.inside import session_of
from helpers.waiting import until

import asyncq
from asyncq import (
    Context,
    Depends,
    Retry,
    RetryLater,
    SoftTimeLimitExceeded,
    TaskRevoked,
    TimeLimitExceeded,
    Worker,
    current,
)
from asyncq.execution import instances
from asyncq.execution.job_thread import JobThread

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterator

pytestmark = pytest.mark.anyio

KINDS = ("loop", "thread", "async items", "items")


class Log(list[str]):
    """What happened to the dependencies of a test, in order, and what they were given at their `yield`."""

    def on_loop(self, name: str, *below: Any) -> Callable[..., Any]:
        """Returns a dependency that is an async generator."""
        inner = Depends(below[0]) if below else None

        async def get(inner: Any = inner) -> AsyncIterator[str]:
            self.append(f"{name} +")
            try:
                yield name
            except BaseException as error:
                self.append(f"{name} {type(error).__name__}")
                raise
            finally:
                await asyncio.sleep(0)
                self.append(f"{name} -")

        return get

    def plain(self, name: str, *below: Any) -> Callable[..., Any]:
        """Returns a dependency that is a plain generator."""
        inner = Depends(below[0]) if below else None

        def get(inner: Any = inner) -> Iterator[str]:
            self.append(f"{name} +")
            try:
                yield name
            except BaseException as error:
                self.append(f"{name} {type(error).__name__}")
                raise
            finally:
                self.append(f"{name} -")

        return get


@pytest.fixture
def log() -> Log:
    return Log()


def task_of(app: asyncq.AsyncQ, kind: str, do: Callable[[], None], get: Any, **options: Any) -> Any:
    """Returns a task of a kind that has one dependency. `do` is called in it; `sleep` waits."""
    if kind == "loop":

        async def body(x: float, it: str = Depends(get)) -> str:
            do()
            await asyncio.sleep(x)
            return it

    elif kind == "thread":

        def body(x: float, it: str = Depends(get)) -> str:
            do()
            _sleep(x)
            return it

    elif kind == "async items":

        async def body(x: float, it: str = Depends(get)) -> AsyncIterator[str]:
            do()
            yield it
            await asyncio.sleep(x)

    else:

        def body(x: float, it: str = Depends(get)) -> Iterator[str]:
            do()
            yield it
            _sleep(x)

    return app.task(name="body", **options)(body)


def _sleep(seconds: float) -> None:
    """Sleeps in a thread, in short pieces, and ends when the job is to end."""
    ends = time.monotonic() + seconds
    while time.monotonic() < ends and not current().cancelled:
        time.sleep(0.01)


def _nothing() -> None:
    """A body that does nothing more."""


async def _is(result: Any, state: str) -> bool:
    return await result.refresh() == state


# -- every kind of task, every kind of end --


@pytest.mark.parametrize("kind", KINDS)
async def test_instances_are_made_in_order_and_cleaned_up_in_reverse(app, log, kind):
    get = log.on_loop("outer", log.plain("inner", log.on_loop("innermost")))
    task = task_of(app, kind, lambda: log.append("body"), get)
    async with Worker(app):
        result = await task.delay(0)
        if "items" in kind:
            assert [item async for item in result.stream()] == ["outer"]
            await result.get(timeout=20)
        else:
            assert await result.get(timeout=20) == "outer"
    assert log == [
        *("innermost +", "inner +", "outer +"),
        "body",
        *("outer -", "inner -", "innermost -"),
    ]


@pytest.mark.parametrize("kind", KINDS)
async def test_the_failure_of_the_body_is_raised_in_each_generator(app, log, kind):
    def fail() -> None:
        raise ValueError("no luck")

    task = task_of(app, kind, fail, log.on_loop("outer", log.plain("inner")))
    async with Worker(app):
        outcome = await (await task.delay(0)).outcome(timeout=20)
    assert str(outcome.error) == "no luck"
    assert "in fail" in outcome.traceback
    assert log == ["inner +", "outer +", "outer ValueError", "outer -", "inner ValueError", "inner -"]


@pytest.mark.parametrize("kind", ["loop", "thread"])
async def test_each_attempt_has_instances_of_its_own(app, log, kind):
    def fail_once() -> None:
        if current().attempt == 1:
            raise OSError("first")
        if current().attempt == 2:
            raise RetryLater(countdown=0.01)

    retry = Retry(max_retries=3, backoff=0.01)
    task = task_of(app, kind, fail_once, log.on_loop("outer", log.plain("inner")), retry=retry)
    async with Worker(app):
        assert await task.call(0) == "outer"
    each = ["inner +", "outer +", "outer {}", "outer -", "inner {}", "inner -"]
    expected = [line.format(error) for error in ("OSError", "RetryLater") for line in each]
    assert log == [*expected, "inner +", "outer +", "outer -", "inner -"]


@pytest.mark.parametrize("kind", KINDS)
async def test_a_time_limit_is_raised_in_the_generators_and_the_clean_up_has_time_of_its_own(app, log, kind):
    inner = log.plain("inner")

    async def slow_to_close(it: str = Depends(inner)) -> AsyncIterator[str]:
        try:
            yield it
        finally:
            await asyncio.sleep(0.5)
            log.append("closed")

    task = task_of(app, kind, _nothing, slow_to_close, timeout=0.2)
    async with Worker(app):
        with pytest.raises(TimeLimitExceeded, match=r"longer than its timeout of 0\.2 s"):
            await task.call(30)
        await until(lambda: "inner -" in log, "the clean-up")
    assert log == ["inner +", "closed", "inner TimeLimitExceeded", "inner -"]


@pytest.mark.parametrize("kind", KINDS)
async def test_a_job_that_is_terminated_is_cleaned_up(app, log, kind):
    task = task_of(app, kind, lambda: log.append("body"), log.on_loop("outer", log.plain("inner")))
    async with Worker(app) as worker:
        result = await task.delay(60)
        await until(lambda: "body" in log, "the body to begin")
        await result.revoke(terminate=True)
        with pytest.raises(TaskRevoked):
            await result.get(timeout=20)
        await until(lambda: "inner -" in log, "the clean-up")
        await until(lambda: not session_of(worker).held.slots.busy, "the slot to be free")
        assert not session_of(worker).held.cleaning_up
    cancelled = "CancelledError"
    expected = ["body", f"outer {cancelled}", "outer -", f"inner {cancelled}", "inner -"]
    assert log == ["inner +", "outer +", *expected]


@pytest.mark.parametrize("kind", ["loop", "thread"])
async def test_a_worker_that_stops_cleans_up_what_it_hands_back(app, log, kind):
    task = task_of(app, kind, lambda: log.append("body"), log.on_loop("outer", log.plain("inner")))
    async with Worker(app, grace=0.1):
        result = await task.delay(1.5 if kind == "thread" else 60)
        await until(lambda: "body" in log, "the body to begin")
    cancelled = "CancelledError"
    expected = ["body", f"outer {cancelled}", "outer -", f"inner {cancelled}", "inner -"]
    assert log == ["inner +", "outer +", *expected]
    assert await result.refresh() == "PENDING", "it was handed back"


async def test_a_clean_up_may_take_longer_than_the_worker_waits_for_cancelled_bodies(app, log, caplog):
    async def slow() -> AsyncIterator[int]:
        try:
            yield 1
        finally:
            await asyncio.sleep(2)
            log.append("closed")

    task = task_of(app, "loop", lambda: log.append("body"), slow)
    async with Worker(app, grace=0.1):
        result = await task.delay(60)
        await until(lambda: "body" in log, "the body to begin")
    assert log == ["body", "closed"]
    assert "still run" not in caplog.text
    assert await result.refresh() == "PENDING", "it was handed back"


# -- errors --


@pytest.mark.parametrize("kind", ["loop", "thread"])
async def test_an_error_in_the_set_up_is_the_failure_of_the_attempt(app, log, kind):
    below = log.plain("inner")

    async def breaks(it: str = Depends(below)) -> str:
        if current().attempt < 3:
            raise ConnectionError("no database")
        return "made"

    task = task_of(app, kind, lambda: log.append("body"), breaks)
    again = task_of_again(app, kind, breaks, retry=Retry(max_retries=5, on=(ConnectionError,), backoff=0.01))
    async with Worker(app):
        with pytest.raises(ConnectionError, match="no database"):
            await task.call(0)
        assert log == ["inner +", "inner ConnectionError", "inner -"], "the body does not run"
        assert await again.call(0) == "made"


def task_of_again(app: asyncq.AsyncQ, kind: str, get: Any, *, name: str = "again", **options: Any) -> Any:
    """Returns another task with a dependency, which does nothing more."""

    async def on_loop(x: float, it: str = Depends(get)) -> str:
        return it

    def in_thread(x: float, it: str = Depends(get)) -> str:
        return it

    return app.task(name=name, **options)(on_loop if kind == "loop" else in_thread)


@pytest.mark.parametrize("kind", ["loop", "thread"])
@pytest.mark.parametrize("is_plain", [False, True])
async def test_an_error_in_the_clean_up_fails_a_body_that_has_ended_well(app, log, kind, is_plain):
    below = log.on_loop("inner")

    async def commit(it: str = Depends(below)) -> AsyncIterator[str]:
        yield it
        raise OSError("the commit failed")

    def commit_plain(it: str = Depends(below)) -> Iterator[str]:
        yield it
        raise OSError("the commit failed")

    task = task_of(app, kind, _nothing, commit_plain if is_plain else commit)
    async with Worker(app):
        with pytest.raises(OSError, match="the commit failed"):
            await task.call(0)
    assert log == ["inner +", "inner OSError", "inner -"], "the others are cleaned up, and see the error"


@pytest.mark.parametrize("kind", ["loop", "thread"])
@pytest.mark.parametrize("is_plain", [False, True])
async def test_a_clean_up_may_replace_the_failure_and_cannot_hide_it(app, kind, is_plain):
    async def translates() -> AsyncIterator[int]:
        try:
            yield 1
        except KeyError as error:
            raise LookupError("translated") from error
        except ValueError:
            return  # caught

    def translates_plain() -> Iterator[int]:
        try:
            yield 1
        except KeyError as error:
            raise LookupError("translated") from error
        except ValueError:
            return

    errors: list[Exception] = []

    def fail() -> None:
        raise errors[-1]

    task = task_of(app, kind, fail, translates_plain if is_plain else translates)
    async with Worker(app):
        for error, expected in (
            (KeyError("k"), "translated"),
            (ValueError("caught"), "caught"),
            (RuntimeError("as it is"), "as it is"),
        ):
            errors.append(error)
            outcome = await (await task.delay(0)).outcome(timeout=20)
            assert str(outcome.error) == expected


@pytest.mark.parametrize("is_plain", [False, True])
async def test_a_generator_must_yield_once(app, is_plain):
    if is_plain:

        def never() -> Iterator[int]:
            return
            yield

        def twice() -> Iterator[int]:
            yield 1
            yield 2

    else:

        async def never() -> AsyncIterator[int]:
            return
            yield

        async def twice() -> AsyncIterator[int]:
            yield 1
            yield 2

    async with Worker(app):
        for get, text in ((never, "did not yield anything"), (twice, "yielded twice")):
            task = task_of_again(app, "loop", get, name=text)
            with pytest.raises(RuntimeError, match=text):
                await task.call(0)


async def test_a_clean_up_that_hangs_ends_after_its_time_and_the_others_are_cleaned_up(app, log, monkeypatch):
    monkeypatch.setattr(instances, "CLEAN_UP", 0.2)
    below = log.on_loop("inner")

    async def hangs(it: str = Depends(below)) -> AsyncIterator[str]:
        yield it
        await asyncio.Event().wait()

    task = task_of(app, "loop", _nothing, hangs)
    async with Worker(app):
        with pytest.raises(TimeLimitExceeded, match=r"hangs did not end within 0\.2 s"):
            await task.call(0)
    assert log == ["inner +", "inner TimeLimitExceeded", "inner -"]


async def test_a_clean_up_in_a_thread_that_hangs_ends_the_job_after_its_time(app, monkeypatch):
    monkeypatch.setattr(instances, "CLEAN_UP", 0.2)
    go_on = threading.Event()

    def hangs() -> Iterator[int]:
        yield 1
        go_on.wait(30)

    task = task_of(app, "thread", _nothing, hangs)
    async with Worker(app):
        with pytest.raises(TimeLimitExceeded, match=r"hangs did not end within 0\.2 s"):
            await task.call(0)
        go_on.set()


async def test_a_set_up_that_hangs_is_ended_by_the_time_limit_and_by_a_revocation(app, log):
    below = log.on_loop("inner")

    async def hangs(it: str = Depends(below)) -> str:
        log.append("hangs")
        await asyncio.Event().wait()
        return it

    task = task_of(app, "loop", _nothing, hangs)
    async with Worker(app):
        with pytest.raises(TimeLimitExceeded):
            await task.options(timeout=0.1).call(0)
        assert log == ["inner +", "hangs", "inner TimeLimitExceeded", "inner -"]
        log.clear()
        result = await task.delay(0)
        await until(lambda: "hangs" in log, "the set-up to begin")
        await result.revoke(terminate=True)
        with pytest.raises(TaskRevoked):
            await result.get(timeout=20)
        await until(lambda: "inner -" in log, "the clean-up")
    assert log == ["inner +", "hangs", "inner CancelledError", "inner -"]


@pytest.mark.parametrize("kind", ["loop", "thread"])
async def test_a_set_up_that_hangs_in_a_thread_does_not_keep_whoever_waits(app, kind):
    go_on, opened = threading.Event(), []

    def hangs() -> Iterator[int]:
        go_on.wait(30)
        opened.append("+")
        try:
            yield 1
        finally:
            opened.append("-")

    task = task_of(app, kind, lambda: opened.append("body"), hangs)
    async with Worker(app):
        began = time.monotonic()
        with pytest.raises(TimeLimitExceeded):
            await task.options(timeout=0.1).call(0)
        assert time.monotonic() - began < 10
        go_on.set()
        await until(lambda: len(opened) == 2, "the late set-up to be cleaned up")
    assert opened == ["+", "-"]


async def test_a_soft_time_limit_may_come_in_the_set_up(app):
    async def slow() -> str:
        try:
            await asyncio.sleep(30)
        except SoftTimeLimitExceeded:
            return "soft"
        return "hard"

    task = task_of(app, "loop", _nothing, slow, soft_timeout=0.1)
    async with Worker(app):
        assert await task.call(0) == "soft"


async def test_a_workflow_in_the_place_of_the_job_is_no_failure(app, log, add):
    @app.task(name="swaps")
    async def swaps(it: str = Depends(log.on_loop("it"))) -> int:
        await current().replace(add.s(1, 2))

    async with Worker(app):
        assert await swaps.call() == 3
    assert log == ["it +", "it -"]


# -- where they run --


async def test_plain_dependencies_of_a_plain_task_are_on_the_thread_of_the_body(app):
    main = threading.current_thread()

    def connection() -> Iterator[sqlite3.Connection]:
        with contextlib.closing(sqlite3.connect(":memory:")) as connection:
            yield connection  # of this thread only

    def cursor(connection: sqlite3.Connection = Depends(connection)) -> sqlite3.Cursor:
        assert threading.current_thread() is not main
        return connection.cursor()

    @app.task(name="query")
    def query(cursor: sqlite3.Cursor = Depends(cursor)) -> int:
        return cursor.execute("SELECT 7").fetchone()[0]

    @app.task(name="on loop")
    async def on_loop(cursor: sqlite3.Cursor = Depends(cursor)) -> bool:
        return threading.current_thread() is main

    async with Worker(app):
        assert await query.call() == 7
        assert await on_loop.call() is True


async def test_what_a_dependency_holds_is_left_in_the_task_that_entered_it(app):
    variable: contextvars.ContextVar[str] = contextvars.ContextVar("variable", default="unset")
    running: list[str] = []

    async def group() -> AsyncIterator[anyio.abc.TaskGroup]:
        token = variable.set("by group")
        async with anyio.create_task_group() as group, asyncio.timeout(60):
            yield group
            group.cancel_scope.cancel()
        variable.reset(token)
        running.append("left")

    def plain() -> Iterator[str]:
        token = variable.set("by plain")
        yield variable.get()
        variable.reset(token)
        running.append("reset")

    @app.task(name="loop")
    async def on_loop(group: anyio.abc.TaskGroup = Depends(group)) -> str:
        group.start_soon(asyncio.sleep, 60)
        return variable.get()

    @app.task(name="thread")
    def in_thread(text: str = Depends(plain)) -> list[str]:
        return [text, variable.get()]

    async with Worker(app):
        assert await on_loop.call() == "by group"
        assert await in_thread.call() == ["by plain", "by plain"]
    assert running == ["left", "reset"]


async def test_the_context_and_functions_of_contextlib_are_dependencies(app):
    @contextlib.asynccontextmanager
    async def opened(job: Context = Depends(current)) -> AsyncIterator[str]:
        yield job.id

    @contextlib.contextmanager
    def opened_plain() -> Iterator[str]:
        yield "plain"

    @app.task(name="body")
    async def body(
        job: Context = Depends(current), id_: str = Depends(opened), plain: str = Depends(opened_plain)
    ) -> bool:
        return job is current() and id_ == job.id and plain == "plain"

    async with Worker(app):
        assert await body.call() is True
    assert await asyncio.to_thread(lambda: body.apply().result) is True


async def test_one_instance_serves_all_parameters_of_an_attempt_and_all_calls_of_a_batch(app, log):
    below = log.on_loop("inner")

    class Both:
        def __init__(self, it: str = Depends(below)) -> None:
            self.it = it

    @app.task(name="body")
    async def body(x: int, first: str = Depends(below), both: Both = Depends(Both)) -> bool:
        return first is both.it

    @app.task(name="plain")
    def plain(x: int, first: str = Depends(below), *rest: int) -> list[Any]:
        return [x, first, *rest]

    async with Worker(app):
        assert await body.call(1) is True
        assert log == ["inner +", "inner -"]
        log.clear()
        assert await body.starmap([(1,), (2,)]).call() == [True, True]
        assert await plain.starmap([(1,), (2, 3)]).call() == [[1, "inner"], [2, "inner", 3]]
        assert log == ["inner +", "inner -"] * 2
        assert await (body.s(1) | plain.s()).call() == [True, "inner"]
        assert await (await plain.map([(1,), (2, 3)])).get(timeout=20) == [[1, "inner"], [2, "inner", 3]]


# -- for a worker --


async def test_an_instance_for_the_worker_is_made_once_and_closed_before_the_lifespan(make_app, log):
    @contextlib.asynccontextmanager
    async def lifespan(app: asyncq.AsyncQ) -> AsyncIterator[None]:
        log.append("enter")
        yield
        log.append("leave")

    async def pool() -> AsyncIterator[object]:
        with pytest.raises(LookupError):
            current()
        log.append("pool +")
        await asyncio.sleep(0.05)
        async with anyio.create_task_group():
            yield object()
        log.append("pool -")

    def client(pool: object = Depends(pool, scope="worker")) -> Iterator[list[Any]]:
        log.append("client +")
        thread = threading.current_thread()
        yield [pool, thread]
        assert threading.current_thread() is thread
        log.append("client -")

    app = make_app(lifespan=lifespan)
    seen: list[object] = []  # it keeps them, so that no other object gets the same id

    @app.task(name="loop")
    async def on_loop(
        pool: object = Depends(pool, scope="worker"), client: list[Any] = Depends(client, scope="worker")
    ) -> bool:
        seen.append(pool)
        return client[0] is pool

    @app.task(name="thread")
    def in_thread(pool: object = Depends(pool, scope="worker")) -> bool:
        seen.append(pool)
        return True

    async with app:
        for _ in range(2):
            async with Worker(app):
                assert log == ["enter"]
                results = await app.submit([on_loop.s() for _ in range(10)] + [in_thread.s()] * 10)
                assert await results.get(timeout=20) == [True] * 20
            assert log == ["enter", "pool +", "client +", "client -", "pool -", "leave"]
            log.clear()
        assert len({id(pool) for pool in seen}) == 2


async def test_a_failed_set_up_for_the_worker_fails_its_jobs_and_the_next_job_tries_again(app):
    calls: list[int] = []

    async def pool() -> str:
        calls.append(1)
        await asyncio.sleep(0.05)
        if len(calls) == 1:
            raise ConnectionError("not yet")
        return "pool"

    task = task_of(app, "loop", _nothing, pool)

    @app.task(name="shared")
    async def shared(it: str = Depends(pool, scope="worker")) -> str:
        return it

    async with Worker(app):
        results = await app.submit([shared.s(), shared.s()])
        assert [str((await one.outcome(timeout=20)).error) for one in results] == ["not yet"] * 2
        assert await shared.call() == "pool"
        assert await shared.call() == "pool"
        assert len(calls) == 2
        assert await task.call(0) == "pool", "the same function with the scope of a job is another instance"
        assert len(calls) == 3


async def test_a_job_that_is_revoked_does_not_end_the_set_up_for_the_others(app):
    go_on, calls = asyncio.Event(), []

    async def pool() -> AsyncIterator[str]:
        calls.append("+")
        await go_on.wait()
        yield "pool"
        calls.append("-")

    @app.task(name="shared")
    async def shared(it: str = Depends(pool, scope="worker")) -> str:
        return it

    async with Worker(app):
        first = await shared.delay()
        await until(lambda: calls, "the set-up to begin")
        second = await shared.delay()
        await first.revoke(terminate=True)
        with pytest.raises(TaskRevoked):
            await first.get(timeout=20)
        go_on.set()
        assert await second.get(timeout=20) == "pool"
    assert calls == ["+", "-"]


async def test_errors_in_the_clean_up_for_a_worker_are_logged(app, caplog, log):
    async def good() -> AsyncIterator[int]:
        yield 1
        log.append("good -")

    async def bad(it: int = Depends(good, scope="worker")) -> AsyncIterator[int]:
        yield 1
        raise OSError("cannot close")

    @app.task(name="shared")
    async def shared(it: int = Depends(bad, scope="worker")) -> int:
        return it

    async with Worker(app):
        assert await shared.call() == 1
    assert "bad of this worker failed: OSError: cannot close" in caplog.text
    assert log == ["good -"]


# -- in tests of users --


async def test_overrides_hold_for_the_jobs_of_a_worker_in_this_process(app, log):
    get = log.on_loop("real")
    task = task_of(app, "loop", _nothing, get)

    @app.task(name="shared")
    def shared(it: str = Depends(get, scope="worker")) -> str:
        return it

    async def fake() -> AsyncIterator[str]:
        yield "fake"
        log.append("fake -")

    async with Worker(app):
        assert await shared.call() == "real"
        with app.override({get: fake}):
            assert await task.call(0) == "fake"
            assert await shared.call() == "fake"
        assert await task.call(0) == "real"
        assert await shared.call() == "real"
    assert log.count("fake -") == 2


async def test_middleware_surrounds_the_dependencies(app, log):
    class Around(asyncq.Middleware):
        async def on_run(self, job: Context, call_next: Any) -> Any:
            log.append("begins")
            try:
                return await call_next(job)
            finally:
                log.append("ends")

    app.add_middleware(Around())
    task = task_of(app, "thread", lambda: log.append("body"), log.on_loop("it"))
    async with Worker(app):
        assert await task.call(0) == "it"
    assert log == ["begins", "it +", "body", "it -", "ends"]


async def test_a_dependency_that_is_sent_by_the_name_of_the_task_fails_the_job(app, make_app, log):
    task = task_of(app, "loop", lambda: log.append("body"), log.on_loop("it"))
    async with Worker(app):
        with pytest.raises(TypeError, match="it: the worker fills what has Depends"):
            await (await app.send(task.name, (0,), {"it": "mine"})).get(timeout=20)
        async with make_app() as other:  # it does not know the task
            with pytest.raises(TypeError, match="it was sent, but the worker fills it"):
                await (await other.send(task.name, (0,), {"it": "mine"})).get(timeout=20)
    assert log == ["it +", "it TypeError", "it -"]


async def test_no_thread_is_left_behind(app, log):
    task = task_of(app, "loop", _nothing, log.plain("it"))
    async with Worker(app):
        await (await task.map([(0.0,)] * 50)).get(timeout=20)
        await until(lambda: not _threads_of_jobs(), "the threads of the jobs to end")
    assert log.count("it -") == 50


def _threads_of_jobs() -> int:
    """Returns how many threads of jobs there are."""
    code = JobThread._work.__code__
    return sum(
        any(frame.f_code is code for frame, _ in traceback.walk_stack(top))
        for top in sys._current_frames().values()
    )
