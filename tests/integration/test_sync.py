"""Blocking code, other loops and other threads: one app works wherever it is called from."""

from __future__ import annotations

import asyncio
import gc
import inspect
import threading
import warnings
from concurrent.futures import ThreadPoolExecutor

import pytest
from helpers.worker_process import worker_process

import asyncq
from asyncq import BrokerUnavailable, ResultTimeout, SyncInAsyncContext, TaskRevoked, Worker
from asyncq.client.sessions import Sessions

WITHOUT_A_BLOCKING_VARIANT = {
    "AsyncQ.lifespan": "with app:",
    "Worker.run": "asyncq worker",
    "Stream.aclose": "SyncStream.close",
    "Middleware.on_enqueue": "nothing: asyncq calls it",
    "Middleware.on_run": "nothing: asyncq calls it",
}
"""Awaited methods without a blocking variant, and what blocking code uses instead."""


@pytest.fixture
def worker(server_url, namespace):
    with worker_process(server_url, namespace) as worker:
        yield worker


@pytest.fixture
def blocking_app(make_app):
    app = make_app()
    from helpers.worker_jobs import register

    app.jobs = register(app)
    return app


def _classes(app):
    """Returns the public classes, and the classes of an app's attributes, such as `app.control.dead`."""
    found = {value for name in asyncq.__all__ if inspect.isclass(value := getattr(asyncq, name))}
    hosts = [app, app.control, app.schedules]  # the last two are made when they are first used
    while hosts:
        for name, value in getattr(hosts.pop(), "__dict__", {}).items():
            kind = type(value)
            if kind is Sessions:
                continue  # not for users: it runs their calls on other loops
            if not name.startswith("_") and kind.__module__.startswith("asyncq.") and kind not in found:
                found.add(kind)
                hosts.append(value)
    return sorted(found, key=lambda kind: kind.__name__)


def _awaited(owner):
    """Yields the names of the methods that are used with `await` or `async for`."""
    for name, method in inspect.getmembers(owner):
        if name.startswith("_") or not callable(method):
            continue
        inner = inspect.unwrap(method)
        returned = getattr(inner, "__annotations__", {}).get("return", "")
        if (
            inspect.iscoroutinefunction(inner)
            or inspect.isasyncgenfunction(inner)
            or str(returned).startswith(("AsyncIterator", "AsyncGenerator"))
        ) and not name.endswith("_sync"):
            yield name


def _signature(method):
    """Returns the signature of a method, without the difference between `async for` and `for`."""
    signature = inspect.signature(method)
    return signature.replace(return_annotation=str(signature.return_annotation).removeprefix("Async"))


def test_every_awaited_method_has_a_blocking_variant_with_its_parameters(blocking_app):
    seen = set()
    for owner in _classes(blocking_app):
        for name in _awaited(owner):
            full = f"{owner.__name__}.{name}"
            seen.add(full)
            variant = getattr(owner, f"{name}_sync", None)
            if full in WITHOUT_A_BLOCKING_VARIANT:
                assert variant is None, f"{full} has a blocking variant"
                continue
            assert variant is not None, f"{full} has no blocking variant"
            assert _signature(variant) == _signature(getattr(owner, name)), full
            assert variant.__doc__, full
    assert set(WITHOUT_A_BLOCKING_VARIANT) <= seen
    assert {"Task.delay", "AsyncResult.get", "ResultSet.as_completed", "DeadLetters.replay"} <= seen


def test_the_blocking_variants_do_the_same_as_the_awaited_methods(blocking_app, worker, tmp_path):
    add, logged = blocking_app.jobs.add, blocking_app.jobs.logged
    with blocking_app:
        result = add.delay_sync(1, 2)
        assert result.get_sync(timeout=30) == 3
        assert result.wait_sync(5) == 3
        assert result.outcome_sync(timeout=30).value == 3
        assert (result.ready_sync(), result.successful_sync(), result.failed_sync()) == (True, True, False)
        assert (result.exists_sync(), result.refresh_sync()) == (True, "SUCCESS")
        result.forget_sync()
        assert not result.exists_sync()
        assert add.call_sync(2, 2) == 4
        assert add.apply_async_sync((1, 1)).get_sync(timeout=30) == 2
        assert add.map_sync([(1, 1), (2, 2)]).get_sync(timeout=30) == [2, 4]
        assert blocking_app.submit_sync([add.s(1, 5)]).join_sync(timeout=30) == [6]
        assert blocking_app.send_sync("add", (3, 4)).get_sync(timeout=30) == 7
        slow = logged.delay_sync(str(tmp_path / "log"), "x", 30)
        with pytest.raises(ResultTimeout):
            slow.get_sync(timeout=0.05)
        while slow.refresh_sync() != "STARTED":
            pass
        assert slow.revoke_sync(terminate=True, wait=True, timeout=30) == "REVOKED"
        with pytest.raises(TaskRevoked):
            slow.get_sync(timeout=30)


def test_blocking_calls_open_the_app_by_themselves_and_it_can_be_closed_and_opened_again(
    blocking_app, worker
):
    for _ in range(3):
        assert blocking_app.jobs.add.call_sync(1, 2) == 3
        with blocking_app:
            assert blocking_app.jobs.add.call_sync(1, 2) == 3
    assert not [thread for thread in threading.enumerate() if thread.name == "asyncq-loop"]


def test_open_sync_and_close_sync_count_users_and_the_last_ends_the_thread(make_app):
    app = make_app()

    def loop_threads():
        return [thread for thread in threading.enumerate() if thread.name == "asyncq-loop"]

    app.close_sync()  # closing a closed app does nothing
    assert not loop_threads()
    app.open_sync()
    app.open_sync()
    app.close_sync()
    assert app.sessions.is_any_open
    assert loop_threads()
    app.close_sync()
    assert not app.sessions.is_any_open
    assert not loop_threads()


def test_no_thread_is_left_if_the_background_session_could_never_be_opened(make_app):
    app = make_app("redis://127.0.0.1:1", operation_timeout=0.2)

    def loop_threads():
        return [thread for thread in threading.enumerate() if thread.name == "asyncq-loop"]

    with pytest.raises(BrokerUnavailable), app:
        pass
    assert not loop_threads(), "a block that was not entered is not left either"
    with pytest.raises(BrokerUnavailable):
        app.AsyncResult("job").refresh_sync()
    assert loop_threads(), "the next call tries again"
    app.close_sync()
    assert not loop_threads()


def test_many_threads_share_one_app(blocking_app, worker):
    with blocking_app, ThreadPoolExecutor(16) as pool:
        values = list(pool.map(lambda n: blocking_app.jobs.add.call_sync(n, n), range(200)))
    assert values == [2 * n for n in range(200)]


def test_a_result_outlives_the_app_that_was_closed_and_opened_again(blocking_app, worker):
    with blocking_app:
        result = blocking_app.jobs.add.delay_sync(1, 2)
    with blocking_app:
        assert result.get_sync(timeout=30) == 3
    assert (result.get_sync(), result.ready_sync()) == (3, True)
    assert not blocking_app.sessions.is_any_open, "a known outcome needs no connection"


@pytest.mark.anyio
async def test_a_blocking_call_on_a_running_loop_is_refused_at_once_with_a_hint(app):
    @app.task
    async def add(x: int, y: int) -> int:
        return x + y

    result = await add.delay(1, 2)
    calls = (
        ("delay", lambda: add.delay_sync(1, 2)),
        ("call", lambda: add.call_sync(1, 2)),
        ("map", lambda: add.map_sync([(1, 2)])),
        ("get", result.get_sync),
        ("outcome", result.outcome_sync),
        ("revoke", result.revoke_sync),
        ("get", app.ResultSet([result]).get_sync),
        ("send", lambda: app.send_sync("x")),
        ("open", app.open_sync),
        ("close", app.close_sync),
    )
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # such as a coroutine that was never awaited
        for name, call in calls:
            with pytest.raises(SyncInAsyncContext, match=f"await .*{name}\\("):
                call()
        with pytest.raises(SyncInAsyncContext, match="async with app"):
            app.__enter__()


@pytest.mark.anyio
async def test_blocking_calls_of_an_async_programs_threads_share_one_background_loop(app):
    @app.task
    async def add(x: int, y: int) -> int:
        return x + y

    def blocking() -> int:
        return add.delay_sync(1, 2).get_sync(timeout=30) + add.call_sync(3, 4)

    async with Worker(app):
        assert await asyncio.gather(*(asyncio.to_thread(blocking) for _ in range(8))) == [10] * 8
    assert len([thread for thread in threading.enumerate() if thread.name == "asyncq-loop"]) == 1


@pytest.mark.anyio
async def test_calls_from_other_loops_are_served_by_the_background_session(app):
    @app.task
    async def add(x: int, y: int) -> int:
        return x + y

    async def on_another_loop() -> int:
        result = await add.delay(1, 2)
        same = app.AsyncResult(result.id)
        results = await add.map([(1, 1), (2, 2)])
        return await result + await same.get(timeout=30) + sum(await results.get(timeout=30))

    async with Worker(app):
        assert (
            await asyncio.gather(
                *(asyncio.to_thread(lambda: asyncio.run(on_another_loop())) for _ in range(4))
            )
            == [12] * 4
        )


@pytest.mark.anyio
async def test_then_calls_its_callback_on_the_loop_where_it_was_registered(app):
    @app.task
    async def nap() -> None:
        await asyncio.sleep(0.05)

    async def on_another_loop() -> bool:
        called = asyncio.get_running_loop().create_future()
        result = await nap.delay()
        result.then(lambda _: called.set_result(asyncio.get_running_loop()))
        return await asyncio.wait_for(called, 30) is asyncio.get_running_loop()

    async with Worker(app):
        assert await asyncio.to_thread(lambda: asyncio.run(on_another_loop()))


def test_one_app_can_be_used_on_several_loops_one_after_the_other(blocking_app, worker):
    async def once() -> int:
        async with blocking_app:
            return await blocking_app.jobs.add.call(1, 2)

    assert [asyncio.run(once()) for _ in range(3)] == [3, 3, 3]
    assert blocking_app.jobs.add.call_sync(2, 2) == 4
    with blocking_app:
        pass
    assert asyncio.run(once()) == 3


def test_a_handle_from_one_loop_works_on_the_next(blocking_app, worker):
    async def send():
        async with blocking_app:
            return await blocking_app.jobs.add.delay(1, 2)

    async def receive(result):
        async with blocking_app:
            return await result.get(timeout=30)

    result = asyncio.run(send())
    assert asyncio.run(receive(result)) == 3


def test_a_block_that_its_closed_loop_left_open_is_logged_and_disturbs_nobody(blocking_app, worker, caplog):
    async def careless() -> int:
        await blocking_app.__aenter__()
        return await blocking_app.jobs.add.call(1, 2)

    async def careful() -> int:
        async with blocking_app:
            return await blocking_app.jobs.add.call(1, 2)

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)  # asyncio's own, of the transports
        assert asyncio.run(careless()) == 3
        assert asyncio.run(careful()) == 3
        assert blocking_app.jobs.add.call_sync(2, 2) == 4
        gc.collect()
    assert caplog.text.count("was left open when its event loop closed") == 1


@pytest.mark.anyio
async def test_a_worker_inside_an_open_app_leaves_it_open(app):
    @app.task
    async def add(x: int, y: int) -> int:
        return x + y

    for _ in range(2):
        async with Worker(app):
            assert await add.call(1, 2) == 3
    assert await (await add.delay(1, 2)).exists()
