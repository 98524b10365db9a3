"""`task.apply` runs a call at once in this process, without a server,
and refuses what a worker would refuse.
"""

from __future__ import annotations

import asyncio
import copy
import inspect
import pickle
import threading
from datetime import UTC, datetime

import pytest

import asyncq
from asyncq import (
    AsyncQ,
    AsyncResult,
    EagerResult,
    IncompleteStream,
    PayloadTooLarge,
    RemoteError,
    ResultNotFound,
    ResultSet,
    Retry,
    SerializationError,
    SyncInAsyncContext,
    TaskExpired,
    TaskRevoked,
    TimeLimitExceeded,
)


@pytest.fixture
def app():
    return AsyncQ("redis://127.0.0.1:1/0")  # no server listens there, and none is needed


@pytest.fixture
def add(app):
    @app.task
    async def add(x: int, y: int = 0) -> int:
        await asyncio.sleep(0)
        return x + y

    return add


@pytest.fixture
def fail(app):
    @app.task
    def fail(text: str) -> None:
        raise ValueError(text, 3)

    return fail


def test_apply_runs_a_coroutine_function_and_returns_its_value(add):
    result = add.apply((4, 4))
    assert isinstance(result, AsyncResult)
    assert (result.get_sync(), result.wait_sync(1), result.state, result.result) == (8, 8, "SUCCESS", 8)
    assert (result.name, result.retries, result.worker) == (add.name, 0, "eager")
    assert (result.args, result.kwargs) == ((4, 4), {})
    assert (result.ready_sync(), result.successful_sync(), result.failed_sync()) == (True, True, False)
    assert (result.refresh_sync(), result.exists_sync(), result.revoke_sync()) == ("SUCCESS", True, "SUCCESS")
    assert result.outcome_sync().value == 8
    assert add.apply(args=[1], kwargs={"y": 2}, task_id="mine").id == "mine"


def test_apply_runs_a_plain_function_on_the_calling_thread(app):
    @app.task
    def where() -> int:
        return threading.get_ident()

    assert where.apply().get_sync() == threading.get_ident()


def test_current_is_the_job_inside_the_body_and_unset_in_the_caller(app):
    @app.task
    def about(x: int) -> list:
        job = asyncq.current()
        return [job.name, list(job.args), job.attempt, job.headers["a"]]

    assert about.apply((5,), headers={"a": 1}).get_sync() == [about.name, [5], 1, 1]
    with pytest.raises(LookupError):
        asyncq.current()


def test_the_body_may_apply_another_task_and_read_it(app):
    @app.task
    def outer(x: int) -> int:
        return inner.apply((x,)).get_sync() * 2

    @app.task
    def inner(x: int) -> int:
        return x + 1

    assert outer.apply((1,)).get_sync() == 4


def test_the_body_may_not_wait_for_a_queue(app):
    @app.task
    async def waits() -> None:
        await asyncq.gather(app.AsyncResult("x"))

    with pytest.raises(asyncq.WouldDeadlock):
        waits.apply().get_sync()


def test_get_raises_the_exception_again_with_its_traceback(fail):
    result = fail.apply(("no",))
    assert (result.state, result.failed_sync()) == ("FAILURE", True)
    for _ in range(2):
        with pytest.raises(ValueError, match="no") as caught:
            result.get_sync()
        assert caught.value.args == ("no", 3)
        assert "raise ValueError(text, 3)" in str(caught.value.__cause__)
    assert "raise ValueError(text, 3)" in result.traceback
    assert isinstance(result.get_sync(propagate=False), ValueError)
    with pytest.raises(ValueError, match="no"):
        fail.apply(("no",), throw=True)


def test_an_exception_that_cannot_be_rebuilt_is_a_remote_error_as_in_production(app):
    class Local(Exception):
        pass

    @app.task
    def raises_local() -> None:
        raise Local("x")

    with pytest.raises(RemoteError, match="x"):
        raises_local.apply().get_sync()


def test_apply_refuses_what_production_refuses(app, add):
    @app.task
    def returns(size: int) -> object:
        return object() if size == 0 else b"x" * size

    with pytest.raises(TypeError, match="missing"):
        add.apply()
    with pytest.raises(SerializationError):
        add.apply((object(),))
    with pytest.raises(SerializationError):
        returns.apply((0,)).get_sync()
    with pytest.raises(PayloadTooLarge):
        returns.apply((app.settings.max_payload + 1,)).get_sync()
    with pytest.raises(ValueError, match="nonsense"):
        add.apply((1,), queue="non sense!nonsense")


def test_apply_returns_a_tuple_as_a_worker_would_return_it(app):
    @app.task
    def pair():
        return {"a": (1, 2)}

    value = pair.apply().get_sync()
    from asyncq.serializers import ValueCodec

    codec = ValueCodec.of_result(pair.function)
    assert value == codec.loads(codec.dumps({"a": (1, 2)}))


def test_retries_are_made_at_once(app):
    tries = []

    @app.task(retry=Retry(max_retries=3, on=(OSError,), backoff=600))
    def flaky(good: int) -> int:
        tries.append(asyncq.current().attempt)
        if len(tries) < good:
            raise OSError("down")
        return len(tries)

    result = flaky.apply((3,))
    assert (result.get_sync(), result.retries, tries) == (3, 2, [1, 2, 3])
    tries.clear()
    with pytest.raises(OSError, match="down"):
        flaky.apply((99,)).get_sync()
    assert len(tries) == 4


def test_limits_and_expiry_hold(app):
    @app.task
    async def nap() -> None:
        await asyncio.sleep(30)

    with pytest.raises(TimeLimitExceeded):
        nap.apply(timeout=0.02).get_sync()
    with pytest.raises(TaskExpired):
        nap.apply(expires=datetime(2020, 1, 1, tzinfo=UTC)).get_sync()


def test_an_ignored_result_is_ignored(app):
    @app.task(ignore_result=True)
    def quiet() -> int:
        return 1

    with pytest.raises(ResultNotFound, match="ignores"):
        quiet.apply().get_sync()


def test_apply_raises_a_keyboard_interrupt_to_its_caller(app):
    @app.task
    def interrupted() -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted.apply()


@pytest.mark.anyio
async def test_apply_of_a_coroutine_function_is_refused_inside_a_loop(add):
    with pytest.raises(SyncInAsyncContext, match=r"use `await add\(4, y='4x*\.\.\.x*'\)`"):
        add.apply((4,), {"y": "4" + "x" * 100})


@pytest.mark.anyio
async def test_inside_a_loop_apply_runs_a_plain_function_and_its_result_can_be_awaited(app, fail):
    @app.task
    def double(x: int) -> int:
        return 2 * x

    result = double.apply((2,))
    seen = []
    assert (await result, await result.get(timeout=0), await result.outcome()) != ()
    assert await result.get(callback=lambda *output: seen.append(output)) == 4
    assert seen == [(result.id, 4)]
    assert [await r for r in (result.ready(), result.successful(), result.exists())] == [True] * 3

    async def late(given: AsyncResult) -> None:
        seen.append(given.state)

    result.then(late)
    fail.apply(("no",)).then(late, lambda given: seen.append(repr(given)))
    for _ in range(3):
        await asyncio.sleep(0)
    assert seen[1] == "<EagerResult " + seen[1].split()[1] + f" {fail.name} FAILURE>"
    assert seen[2:] == ["SUCCESS"]


@pytest.mark.anyio
async def test_a_set_of_eager_results_needs_no_server(app, fail):
    @app.task
    def double(x: int) -> int:
        return 2 * x

    results = ResultSet([double.apply((x,)) for x in range(3)])
    assert await results.get(timeout=0) == [0, 2, 4]
    assert await asyncq.gather(*results) == (0, 2, 4)
    assert [r.result async for r in results.as_completed()] == [0, 2, 4]
    assert (await results.ready(), await results.completed_count()) == (True, 3)
    results.add(fail.apply(("no",)))
    assert await results.failed()
    with pytest.raises(ValueError, match="no"):
        await results.get()


def test_a_set_of_eager_results_can_be_read_without_a_loop(app, fail):
    results = ResultSet([EagerResult("a", 1, "SUCCESS"), EagerResult("b", 2, "SUCCESS")])
    assert results.get_sync() == [1, 2]
    assert [r.id for r in results.as_completed_sync()] == ["a", "b"]
    assert results.revoke_sync(terminate=True, wait=True) == ["SUCCESS", "SUCCESS"]
    results.forget_sync()
    assert not results.ready_sync()


def test_an_eager_result_made_by_hand_returns_what_it_was_made_of():
    class Local(Exception):
        pass

    value, error = object(), Local("no")
    assert EagerResult("a", value, "SUCCESS").get_sync() is value
    failed = EagerResult("b", error, "FAILURE", "Traceback ...", name="shop.add")
    with pytest.raises(Local) as caught:
        failed.get_sync()
    assert caught.value is error is failed.result
    assert (failed.traceback, failed.name, failed == "b") == ("Traceback ...", "shop.add", True)
    with pytest.raises(TaskRevoked):
        EagerResult("c", None, "REVOKED").get_sync()
    for bad in ((1, "PENDING"), (1, "FAILURE"), (1, "nonsense")):
        with pytest.raises(ValueError, match="state="):
            EagerResult("d", *bad)


def test_an_eager_result_that_was_forgotten_does_not_exist(add):
    result = add.apply((1, 2))
    copied = copy.copy(result)
    result.forget_sync()
    assert (result.exists_sync(), result.ready_sync(), result.state) == (False, False, "UNKNOWN")
    with pytest.raises(ResultNotFound, match="forgotten"):
        result.get_sync()
    assert (copied.get_sync(), copied == result) == (3, True)
    with pytest.raises(TypeError, match="this process"):
        pickle.dumps(copied)


def test_the_job_tree_of_a_forgotten_eager_result_is_incomplete_and_no_server_is_asked(app, add):
    result = add.apply((1, 2))
    result.forget_sync()
    with pytest.raises(IncompleteStream, match="does not exist"):
        list(result.iterdeps_sync())
    assert list(result.iterdeps_sync(intermediate=True)) == [(None, result)]
    assert not app.sessions.is_any_open


def test_the_deadlock_guard_allows_waits_for_eager_results(app):
    @app.task
    def letters():
        yield from "ab"

    @app.task
    def asks() -> list:
        result = letters.apply()
        state = result.revoke_sync(wait=True)
        [event] = result.events_sync()
        return [list(result.stream_sync()), str(event.state), str(state)]

    assert asks.apply().get_sync() == [["a", "b"], "SUCCESS", "SUCCESS"]


def test_a_copy_of_an_eager_result_keeps_parent_and_items_when_the_original_is_forgotten(app):
    @app.task
    def letters():
        yield from "ab"

    result = letters.apply()
    result.parent = EagerResult("before", 1, "SUCCESS")
    copied = copy.deepcopy(result)
    result.forget_sync()
    assert result.parent.state == "UNKNOWN", "those before it are forgotten with it"
    assert (list(copied.stream_sync()), copied.parent) == (["a", "b"], "before")
    with pytest.raises(ResultNotFound, match="forgotten"):
        list(result.stream_sync())


def test_the_blocking_methods_call_the_methods_of_the_eager_result():
    for name in ("get", "wait", "outcome", "refresh", "exists", "revoke", "forget"):
        assert getattr(EagerResult, f"{name}_sync").__wrapped__ is getattr(EagerResult, name)
        mine, base = getattr(EagerResult, name), getattr(AsyncResult, name)
        assert list(inspect.signature(mine).parameters) == list(inspect.signature(base).parameters)
