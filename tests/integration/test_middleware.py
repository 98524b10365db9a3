"""Middleware runs around every enqueue and every attempt, whatever brings a job in and wherever it runs."""

from __future__ import annotations

import asyncio
import contextvars
import time
import weakref
from typing import TYPE_CHECKING, Any

import pytest
from helpers import process_bodies
from helpers.waiting import until

import asyncq
from asyncq import Middleware, Retry, Worker, app as app_module, chain, group

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from asyncq import Call, Context

pytestmark = pytest.mark.anyio


class Noting(Middleware):
    """Notes each call and each attempt, and puts a number into the headers of each call."""

    def __init__(self) -> None:
        self.calls: list[Call] = []
        self.answers: list[Any] = []
        self.runs: list[tuple[str, dict[str, Any]]] = []
        self.ends: list[Any] = []

    async def on_enqueue(self, call: Call, call_next: Callable[[Call], Awaitable[bool]]) -> bool:
        call.headers["number"] = len(self.calls)
        self.calls.append(call)
        try:
            answer = await call_next(call)
        except Exception as error:
            self.answers.append(error)
            raise
        self.answers.append(answer)
        return answer

    async def on_run(self, job: Context, call_next: Callable[[Context], Awaitable[Any]]) -> Any:
        assert asyncq.current() is job
        self.runs.append((job.name, dict(job.headers)))
        try:
            value = await call_next(job)
        except BaseException as error:
            self.ends.append(error)
            raise
        self.ends.append(value)
        return value

    @property
    def tasks(self) -> list[str]:
        return [call.task for call in self.calls]

    def clear(self) -> None:
        for noted in (self.calls, self.answers, self.runs, self.ends):
            noted.clear()


@pytest.fixture
def noting(app) -> Noting:
    noting = Noting()
    app.add_middleware(noting)
    return noting


@pytest.fixture
def tell(app):
    @app.task(name="tell")
    async def tell(*_: Any) -> Any:
        return dict(asyncq.current().headers)

    return tell


# -- around each enqueue --


async def test_what_on_enqueue_puts_into_the_headers_arrives_by_every_way_in(app, noting, tell):
    @app.task(name="swaps")
    async def swaps() -> Any:
        await asyncq.current().replace(tell.s(1))

    @app.task(name="fails", retry=Retry(max_retries=1, backoff=0.01))
    async def fails() -> None:
        raise ValueError("no")

    async with Worker(app):
        assert await tell.call(1) == {"number": 0}
        assert await (await tell.delay(1)).get(timeout=20) == {"number": 1}
        assert await (await app.send("tell", (1,))).get(timeout=20) == {"number": 2}
        assert await (await tell.map([(1,), (2,)])).get(timeout=20) == [{"number": 3}, {"number": 4}]
        assert await (await tell.apply_async((1,))).get(timeout=20) == {"number": 5}
        noting.clear()
        results = await app.submit([tell.s(1), tell.s(1) | tell.si(2), group(tell.s(1), tell.s(2))])
        assert await results.get(timeout=20) == [{"number": 0}, {"number": 2}, [{"number": 3}, {"number": 4}]]
        noting.clear()
        assert await chain(tell.s(1), tell.si(2)).call() == {"number": 1}
        assert await tell.options(link=tell.s()).call(1) == {"number": 2}
        noting.clear()
        assert await swaps.call() == {"number": 1}
        assert noting.tasks == ["swaps", "tell"]
        noting.clear()
        outcome = await (await fails.options(headers={"from": "test"}).delay()).outcome(timeout=20)
        assert outcome.state == "FAILURE"
        assert noting.tasks == ["fails"], "a retry is no new job"
        assert noting.runs == [("fails", {"from": "test", "number": 0})] * 2
        [letter] = await app.control.dead.list()
        await (await app.control.dead.replay(letter.id)).outcome(timeout=20)
        assert noting.tasks == ["fails", "fails"]
        assert noting.runs[-1] == ("fails", {"from": "test", "number": 1})


async def test_the_blocking_twins_run_on_enqueue_on_the_loop_of_the_app_in_the_context_of_the_caller(
    app, tell
):
    tenant: contextvars.ContextVar[str] = contextvars.ContextVar("tenant", default="nobody")

    class Tenant(Middleware):
        async def on_enqueue(self, call: Call, call_next: Callable[[Call], Awaitable[bool]]) -> bool:
            await asyncio.sleep(0)
            call.headers["tenant"] = tenant.get()
            return await call_next(call)

    app.add_middleware(Tenant())

    def in_thread(name: str) -> list[Any]:
        tenant.set(name)
        calls: list[Any] = [tell.call_sync(1), tell.delay_sync(1).get_sync(timeout=20)]
        calls += tell.map_sync([(1,), (2,)]).get_sync(timeout=20)
        calls += [app.send_sync("tell", (1,)).get_sync(timeout=20), (tell.s(1) | tell.si(1)).call_sync()]
        return calls

    async with Worker(app):
        both = await asyncio.gather(asyncio.to_thread(in_thread, "a"), asyncio.to_thread(in_thread, "b"))
    assert both == [[{"tenant": "a"}] * 6, [{"tenant": "b"}] * 6]


async def test_a_call_shows_what_it_is(app, noting, add):
    def positional(x: int, y: int = 2, *, z: list[int]) -> None: ...

    task = app.task(name="positional")(positional)
    task = task.options(queue="other", priority=3, countdown=60, timeout=5, task_id="mine", deadline=90)
    await task.options(ignore_result=True, retry=Retry(max_retries=7)).delay(1, z=[3])
    [call] = noting.calls
    assert (call.task, call.id, call.queue) == ("positional", "mine", "other")
    assert (call.args, call.kwargs) == ((1,), {"z": [3]})
    found = dict(call.options)
    assert found.pop("deadline").timestamp() == pytest.approx(time.time() + 90, abs=20)
    retry = found.pop("retry")
    assert found == {
        "priority": 3, "countdown": 60, "timeout": 5, "ignore_result": True, "result_ttl": 3600
    }  # fmt: skip
    assert retry["max_retries"] == 7
    assert "mine of positional" in repr(call)
    for name in ("task", "id", "args", "queue"):
        with pytest.raises(AttributeError):
            setattr(call, name, "other")
    noting.clear()
    await (add.s(1, 2) | add.s(3)).delay()
    assert [call.args for call in noting.calls] == [(1, 2), (3,)], "the first value is not there yet"


async def test_headers_of_the_caller_are_not_changed_in_place(app, add):
    class Deep(Middleware):
        async def on_enqueue(self, call: Call, call_next: Callable[[Call], Awaitable[bool]]) -> bool:
            call.headers["list"].append(2)
            return await call_next(call)

    app.add_middleware(Deep())
    headers = {"list": [1]}
    result = await add.options(headers=headers).delay(1, 2)
    assert headers == {"list": [1]}

    @app.task(name="shows")
    async def shows() -> Any:
        return asyncq.current().headers

    async with Worker(app):
        assert await shows.options(headers=headers).call() == {"list": [1, 2]}
        await result.get(timeout=20)


@pytest.mark.one_shard
async def test_a_message_is_the_same_where_no_middleware_changes_the_headers(app, add, raw):
    class Looks(Middleware):
        async def on_enqueue(self, call: Call, call_next: Callable[[Call], Awaitable[bool]]) -> bool:
            return await call_next(call)

    async def size() -> int:
        result = await add.delay(1, 2)
        record = await raw.get(f"{{{app.settings.namespace}:0}}:r:{result.id}")
        entry = record.split(b" ")[1]
        [(_, fields)] = await raw.xrange(f"{{{app.settings.namespace}:0}}:q:default", entry, entry)
        return len(fields[b"m"])

    before = await size()
    app.add_middleware(Looks())
    assert await size() == before


async def test_the_first_middleware_is_the_outermost(app, add):
    order: list[str] = []

    class Named(Middleware):
        def __init__(self, name: str) -> None:
            self.name = name

        async def on_enqueue(self, call: Call, call_next: Callable[[Call], Awaitable[bool]]) -> bool:
            order.append(f"{self.name} in")
            answer = await call_next(call)
            order.append(f"{self.name} out")
            return answer

        async def on_run(self, job: Context, call_next: Callable[[Context], Awaitable[Any]]) -> Any:
            order.append(f"{self.name} begins")
            value = await call_next(job)
            order.append(f"{self.name} ends")
            return value

    app.add_middleware(Named("outer"))
    app.add_middleware(Named("inner"))
    result = await add.delay(1, 2)
    assert order == ["outer in", "inner in", "inner out", "outer out"]
    order.clear()
    async with Worker(app):
        await result.get(timeout=20)
    assert order == ["outer begins", "inner begins", "inner ends", "outer ends"]


class Refusing(Middleware):
    """Refuses calls whose first argument is a given one."""

    def __init__(self, argument: Any) -> None:
        self.argument = argument
        self.passed: list[Any] = []

    async def on_enqueue(self, call: Call, call_next: Callable[[Call], Awaitable[bool]]) -> bool:
        if call.args[0] == self.argument:
            raise PermissionError(f"not {self.argument}")
        answer = await call_next(call)
        self.passed.append(call.args[0])
        return answer


@pytest.mark.parametrize("number", [2, 700])
async def test_one_refused_call_of_a_batch_keeps_all_of_it_out(app, add, number):
    refusing = Refusing(number - 1)
    app.add_middleware(refusing)
    with pytest.raises(PermissionError, match="not "):
        await add.map([(index, 1) for index in range(number)])
    with pytest.raises(PermissionError):
        await app.submit([add.s(0, 1) | add.s(1), add.s(number - 1, 1)])
    with pytest.raises(PermissionError):
        await group(add.s(index, 1) for index in range(number)).delay()
    assert refusing.passed == []
    async with Worker(app):
        await add.call(-1, 0)
        [queue] = [await app.sessions.current().broker.listened_to("default")]
        assert queue
    assert refusing.passed == [-1]
    assert (await add.options(task_id="x").delay(-5, 0)).id == "x"


async def test_a_refused_call_is_not_in_its_scope_and_does_not_exist(app, add):
    app.add_middleware(Refusing(1))
    async with app.scope() as scope:
        with pytest.raises(PermissionError):
            await add.options(task_id="refused").delay(1, 1)
        assert "0 jobs" in repr(scope)
    assert not await app.AsyncResult("refused").exists()


async def test_call_next_tells_a_new_job_from_the_job_of_an_equal_key(app, noting, add):
    keyed = add.options(key="one")
    first = await keyed.delay(1, 2)
    assert (await keyed.delay(1, 2)).id == first.id
    assert noting.answers == [True, False]
    with pytest.raises(ValueError, match="other arguments"):
        await keyed.delay(2, 3)
    assert isinstance(noting.answers[-1], ValueError)
    with pytest.raises(ValueError, match="exists already"):
        await add.options(task_id=first.id).delay(9, 9)


async def test_an_error_of_the_enqueue_goes_through_the_middleware(make_app):
    app = make_app(max_length=1)
    noting = Noting()
    app.add_middleware(noting)

    @app.task(name="fills")
    async def fills() -> None: ...

    async with app:
        await fills.delay()
        with pytest.raises(asyncq.QueueFull):
            await fills.delay()
        with pytest.raises(asyncq.QueueFull):
            await fills.map([(), ()])
        with pytest.raises(asyncq.QueueFull):
            await (fills.s() | fills.si()).delay()
    assert [type(answer) for answer in noting.answers] == [bool, *[asyncq.QueueFull] * 5]


async def test_a_middleware_cannot_hide_that_a_call_was_not_sent(make_app):
    app = make_app(max_length=1)

    class Hides(Middleware):
        async def on_enqueue(self, call: Call, call_next: Callable[[Call], Awaitable[bool]]) -> Any:
            try:
                return await call_next(call)
            except Exception:
                return None

    class Drops(Middleware):
        async def on_enqueue(self, call: Call, call_next: Callable[[Call], Awaitable[bool]]) -> Any:
            return True

    @app.task(name="fills")
    async def fills() -> None: ...

    app.add_middleware(Hides())
    async with app:
        await fills.delay()
        with pytest.raises(asyncq.QueueFull):
            await fills.delay()
        with pytest.raises(asyncq.QueueFull):
            await fills.map([(), ()])
        app.add_middleware(Drops())
        with pytest.raises(RuntimeError, match="must await call_next"):
            await fills.delay()


async def test_what_a_middleware_raises_after_the_send_goes_to_the_caller_and_the_job_exists(app, add):
    class Late(Middleware):
        async def on_enqueue(self, call: Call, call_next: Callable[[Call], Awaitable[bool]]) -> Any:
            await call_next(call)
            raise LookupError("late")

    app.add_middleware(Late())
    with pytest.raises(LookupError, match="late"):
        await add.options(task_id="late").delay(1, 2)
    with pytest.raises(LookupError, match="late"):
        await app.submit([add.options(task_id="later").s(1, 2), add.s(1, 2)])
    assert await app.AsyncResult("late").exists()
    assert await app.AsyncResult("later").exists()


async def test_wrong_uses_of_call_next_and_of_headers_are_errors(app, add):
    wrong: list[Any] = []

    class Wrong(Middleware):
        async def on_enqueue(self, call: Call, call_next: Callable[[Call], Awaitable[bool]]) -> Any:
            return await wrong[-1](call, call_next)

    async def twice(call: Call, call_next: Any) -> Any:
        await call_next(call)
        return await call_next(call)

    async def another(call: Call, call_next: Any) -> Any:
        return await call_next("another")

    async def objects(call: Call, call_next: Any) -> Any:
        call.headers["object"] = object()
        return await call_next(call)

    async def large(call: Call, call_next: Any) -> Any:
        call.headers["large"] = "x" * 2_000_000
        return await call_next(call)

    app.add_middleware(Wrong())
    for use, error, text in (
        (twice, RuntimeError, "twice"),
        (another, TypeError, "takes the call"),
        (objects, asyncq.SerializationError, "cannot travel"),
        (large, asyncq.PayloadTooLarge, "max_payload"),
    ):
        wrong.append(use)
        with pytest.raises(error, match=text):
            await add.options(task_id=f"wrong-{use.__name__}").delay(1, 2)
        with pytest.raises(error, match=text):
            await add.map([(1, 2), (3, 4)])
        assert await app.AsyncResult(f"wrong-{use.__name__}").exists() is (use is twice)


async def test_a_cancelled_enqueue_cancels_its_middleware_and_sends_nothing(app, add):
    waits = asyncio.Event()
    ended: list[str] = []

    class Waits(Middleware):
        async def on_enqueue(self, call: Call, call_next: Callable[[Call], Awaitable[bool]]) -> Any:
            waits.set()
            try:
                await asyncio.Event().wait()
            finally:
                ended.append(call.id)
            return await call_next(call)

    app.add_middleware(Waits())
    for calls in ([add.options(task_id="a").s(1, 1)], [add.options(task_id=id_).s(1, 1) for id_ in "bc"]):
        waits.clear()
        submitting = asyncio.create_task(app.submit(calls))
        await waits.wait()
        submitting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await submitting
    assert sorted(ended) == ["a", "b", "c"]
    assert not any([await app.AsyncResult(id_).exists() for id_ in "abc"])


async def test_a_middleware_that_refuses_a_replacement_fails_the_attempt(app, tell):
    attempts: list[int] = []

    class Grumpy(Middleware):
        async def on_enqueue(self, call: Call, call_next: Callable[[Call], Awaitable[bool]]) -> Any:
            if call.task == "tell" and len(attempts) < 2:
                raise PermissionError("not yet")
            return await call_next(call)

    app.add_middleware(Grumpy())

    async def body() -> Any:
        attempts.append(asyncq.current().attempt)
        await asyncq.current().replace(tell.s(1) | tell.si(2))

    again = app.task(name="again", retry=Retry(max_retries=1, backoff=0.01))(body)
    once = app.task(name="once")(body)
    async with Worker(app):
        with pytest.raises(PermissionError, match="not yet"):
            await once.call()
        attempts.clear()
        assert await again.call() == {}
        assert attempts == [1, 2]


# -- around each attempt --


async def test_on_run_surrounds_every_kind_of_task(app, noting):
    @app.task(name="loop")
    async def on_loop(x: int) -> int:
        return x + 1

    @app.task(name="thread")
    def in_thread(x: int) -> int:
        return x + 2

    @app.task(name="async items")
    async def async_items(x: int):
        for index in range(x):
            yield index

    @app.task(name="items")
    def items(x: int):
        yield from range(x)

    in_process = app.task(name="process", executor="process")(process_bodies.double)
    async with Worker(app):
        assert await on_loop.call(1) == 2
        assert await in_thread.call(1) == 3
        assert [item async for item in (await async_items.delay(3)).stream()] == [0, 1, 2]
        assert [item async for item in (await items.delay(3)).stream()] == [0, 1, 2]
        assert await in_process.call([2]) == [4]
        assert await on_loop.starmap([(1,), (2,)]).call() == [2, 3]
        await until(lambda: len(noting.ends) == 6, "all to end")
    assert [name for name, _ in noting.runs] == ["loop", "thread", "async items", "items", "process", "loop*"]
    assert noting.ends == [2, 3, None, None, [4], [2, 3]]


async def test_on_run_may_change_the_value_and_the_failure_of_every_kind_of_task(app):
    class Changes(Middleware):
        async def on_run(self, job: Context, call_next: Callable[[Context], Awaitable[Any]]) -> Any:
            try:
                return await call_next(job) * 10
            except ValueError as error:
                raise KeyError(str(error)) from error

    app.add_middleware(Changes())

    @app.task(name="loop")
    async def on_loop(x: int) -> int:
        if x < 0:
            raise ValueError("negative")
        return x

    @app.task(name="thread")
    def in_thread(x: int) -> int:
        if x < 0:
            raise ValueError("negative")
        return x

    in_process = app.task(name="process", executor="process")(process_bodies.double)
    fails = app.task(name="fails", executor="process")(process_bodies.fail)
    async with Worker(app):
        for task in (on_loop, in_thread):
            assert await task.call(3) == 30
            with pytest.raises(KeyError, match="negative"):
                await task.call(-1)
        assert await in_process.call([1]) == [2] * 10
        with pytest.raises(KeyError, match="a text"):
            await fails.call("a text")


async def test_a_failure_in_a_process_passes_through_the_middleware_with_its_traceback(app, noting):
    task = app.task(name="fails", executor="process")(process_bodies.fail)
    async with Worker(app):
        outcome = await (await task.delay("a text")).outcome(timeout=20)
    assert isinstance(outcome.error, ValueError)
    assert "process_bodies.py" in outcome.traceback
    assert isinstance(noting.ends[0], ValueError)


@pytest.mark.parametrize("kind", ["loop", "thread"])
async def test_on_run_is_called_for_each_attempt_and_sees_time_limits_and_retries(app, noting, kind):
    runs: list[int] = []

    async def coroutine() -> int:
        runs.append(1)
        if len(runs) == 1:
            raise ValueError("first")
        if len(runs) == 2:
            await asyncio.sleep(30)
        return 3

    def plain() -> int:
        runs.append(1)
        if len(runs) == 1:
            raise ValueError("first")
        if len(runs) == 2:
            time.sleep(0.5)
        return 3

    options: dict[str, Any] = {"timeout": 0.2, "retry": Retry(max_retries=2, backoff=0.01)}
    task = app.task(name="again", **options)(coroutine if kind == "loop" else plain)
    async with Worker(app):
        assert await task.call() == 3
    assert [type(end) for end in noting.ends] == [ValueError, asyncq.TimeLimitExceeded, int]


async def test_on_run_sees_the_cancellation_of_a_job_that_is_terminated(app, noting, nap):
    async with Worker(app):
        result = await nap.delay(60)
        await until(lambda: noting.runs, "it to begin")
        await result.revoke(terminate=True)
        with pytest.raises(asyncq.TaskRevoked):
            await result.get(timeout=20)
        await until(lambda: noting.ends, "it to end")
    assert [type(end) for end in noting.ends] == [asyncio.CancelledError]


async def test_a_job_whose_middleware_hangs_can_be_revoked_and_is_handed_back(app, add):
    began = asyncio.Event()

    class Hangs(Middleware):
        async def on_run(self, job: Context, call_next: Callable[[Context], Awaitable[Any]]) -> Any:
            began.set()
            if job.attempt == 1 and not add_may_run:
                await asyncio.Event().wait()
            return await call_next(job)

    add_may_run: list[bool] = []
    app.add_middleware(Hangs())
    async with Worker(app):
        result = await add.delay(1, 2)
        await began.wait()
        await result.revoke(terminate=True)
        with pytest.raises(asyncq.TaskRevoked):
            await result.get(timeout=20)
        began.clear()
        result = await add.delay(1, 2)
        await began.wait()
    add_may_run.append(True)
    async with Worker(app):
        assert await result.get(timeout=20) == 3


async def test_an_error_in_on_run_is_the_failure_of_the_attempt_and_is_tried_again(app):
    attempts: list[int] = []

    class Raises(Middleware):
        async def on_run(self, job: Context, call_next: Callable[[Context], Awaitable[Any]]) -> Any:
            attempts.append(job.attempt)
            if job.attempt < 3:
                raise OSError("no database")
            return await call_next(job)

    app.add_middleware(Raises())
    ran: list[int] = []

    @app.task(name="once")
    async def once() -> None:
        ran.append(1)

    @app.task(name="again", retry=Retry(max_retries=5, on=(OSError,), backoff=0.01))
    async def again() -> int:
        return 7

    async with Worker(app):
        with pytest.raises(OSError, match="no database"):
            await once.call()
        assert not ran
        assert await again.call() == 7
    assert attempts == [1, 1, 2, 3]


async def test_wrong_uses_of_call_next_fail_the_job(app):
    uses: list[Any] = []
    ran: list[int] = []

    class Wrong(Middleware):
        async def on_run(self, job: Context, call_next: Callable[[Context], Awaitable[Any]]) -> Any:
            return await uses[-1](job, call_next)

    async def twice(job: Context, call_next: Any) -> Any:
        await call_next(job)
        return await call_next(job)

    async def another(job: Context, call_next: Any) -> Any:
        return await call_next(3)

    app.add_middleware(Wrong())

    @app.task(name="body")
    async def body() -> None:
        ran.append(1)

    async with Worker(app):
        uses.append(twice)
        with pytest.raises(RuntimeError, match="call_next twice"):
            await body.call()
        assert ran == [1]
        uses.append(another)
        with pytest.raises(TypeError, match="takes the job"):
            await body.call()
        assert ran == [1]


async def test_contextvars_of_a_middleware_reach_the_body_in_a_thread_and_on_the_loop(app):
    tenant: contextvars.ContextVar[str] = contextvars.ContextVar("tenant", default="nobody")

    class Tenant(Middleware):
        async def on_run(self, job: Context, call_next: Callable[[Context], Awaitable[Any]]) -> Any:
            token = tenant.set(job.headers["tenant"])
            try:
                return await call_next(job)
            finally:
                tenant.reset(token)

    app.add_middleware(Tenant())

    @app.task(name="loop")
    async def on_loop() -> str:
        return tenant.get()

    @app.task(name="thread")
    def in_thread() -> str:
        return tenant.get()

    async with Worker(app):
        for task in (on_loop, in_thread):
            assert await task.options(headers={"tenant": "a"}).call() == "a"


def test_apply_runs_on_run_and_the_body_of_a_plain_function_on_the_thread_of_the_caller(make_app):
    import threading

    app = make_app()
    noting = Noting()
    tenant: contextvars.ContextVar[str] = contextvars.ContextVar("tenant", default="nobody")

    class Waits(Middleware):
        async def on_run(self, job: Context, call_next: Callable[[Context], Awaitable[Any]]) -> Any:
            await asyncio.sleep(0.001)
            tenant.set("set")
            value = await call_next(job)
            await asyncio.sleep(0.001)
            return value

    app.add_middleware(noting)
    app.add_middleware(Waits())

    @app.task(name="thread", retry=Retry(max_retries=2))
    def in_thread() -> tuple[bool, str]:
        if asyncq.current().attempt == 1:
            raise ValueError("again")
        return threading.current_thread() is here, tenant.get()

    @app.task(name="loop")
    async def on_loop() -> str:
        return tenant.get()

    @app.task(name="items")
    def items():
        yield tenant.get()

    @app.task(name="interrupted")
    def interrupted() -> None:
        raise KeyboardInterrupt

    here = threading.current_thread()
    assert in_thread.apply().get_sync() == (True, "set")
    assert on_loop.apply().get_sync() == "set"
    assert list(items.apply().stream_sync()) == ["set"]
    assert noting.calls == [], "nothing is enqueued"
    assert [name for name, _ in noting.runs] == ["thread", "thread", "loop", "items"]
    assert isinstance(noting.ends[0], ValueError)
    with pytest.raises(KeyboardInterrupt):
        interrupted.apply()
    assert tenant.get() == "nobody"


async def test_apply_of_a_plain_function_works_inside_a_running_loop(app, noting):
    @app.task(name="thread")
    def in_thread(x: int) -> int:
        return x + 1

    assert await in_thread.apply((1,)) == 2
    assert [name for name, _ in noting.runs] == ["thread"]


def test_what_is_no_middleware_is_refused(make_app):
    app = make_app()

    class Neither(Middleware):
        pass

    class Plain(Middleware):
        def on_run(self, job: Context, call_next: Any) -> Any:  # type: ignore[override]
            return None

    class Duck:
        async def on_run(self, job: Context, call_next: Any) -> Any:
            return await call_next(job)

    for wrong, text in (
        (Noting, r"write add_middleware\(Noting\(\)\)"),
        (Neither(), "neither on_enqueue nor on_run"),
        (Plain(), "async def on_run"),
        (Duck(), "derives from asyncq.Middleware"),
    ):
        with pytest.raises(TypeError, match=text):
            app.add_middleware(wrong)


# -- what a middleware learns of its apps --


async def test_on_add_gets_the_app_and_may_register_hooks_and_its_error_refuses_the_middleware(app, tell):
    class Following(Noting):
        ended: list[str] = []  # noqa: RUF012  of the one that is made here

        def on_add(self, app: Any) -> None:
            app.on_success(self.note)

        async def note(self, event: asyncq.JobEvent) -> None:
            self.ended.append(event.task)
            assert event.enqueued_at is not None
            assert abs(event.enqueued_at.timestamp() - time.time()) < 20

    class Refusing(Noting):
        def on_add(self, app: Any) -> None:
            raise LookupError("not this app")

    following = Following()
    app.add_middleware(following)
    with pytest.raises(LookupError):
        app.add_middleware(Refusing())
    async with Worker(app):
        assert await tell.call() == {"number": 0}
    assert following.ended == ["tell"]
    assert len(app.run_hooks) == 1


async def test_a_middleware_of_every_app_is_the_outermost_of_those_that_exist_and_of_later_ones(
    app, make_app, monkeypatch
):
    monkeypatch.setattr(app_module, "_of_every_app", [])
    monkeypatch.setattr(app_module, "_apps", weakref.WeakSet([app]))
    inner, outer = Noting(), Noting()
    app.add_middleware(inner)
    app_module.add_to_every_app(outer)
    later = make_app()
    later.add_middleware(inner)
    for each in (app, later):
        assert each.run_hooks == [outer.on_run, inner.on_run]
        assert each.sessions.on_enqueue == [outer.on_enqueue, inner.on_enqueue]
    with pytest.raises(TypeError):
        app_module.add_to_every_app(Noting)
    assert len(make_app().run_hooks) == 1
