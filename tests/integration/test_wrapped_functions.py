"""An async function inside a plain wrapper is awaited, wherever the wrapper runs."""

from __future__ import annotations

import asyncio
import functools
import time
from typing import TYPE_CHECKING, Any

import pytest
from helpers import wrapped_bodies
from helpers.waiting import until_state

import asyncq
from asyncq import AsyncQ, Retry, SoftTimeLimitExceeded, TaskRevoked, TimeLimitExceeded, Worker

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

pytestmark = pytest.mark.anyio


@pytest.fixture
async def app(make_app) -> AsyncIterator[AsyncQ]:
    async with make_app(processes=1) as app:
        yield app


@pytest.fixture(params=["loop", "thread", "process"])
def register(app, request) -> Callable[..., Any]:
    """Registers a function of `wrapped_bodies`. On the loop, a coroutine function wraps it that does not
    await it.
    """

    def make(function: Callable[..., Any], **options: Any) -> Any:
        name = function.__name__
        if request.param != "loop":
            return app.task(name=name, executor=request.param, **options)(function)

        async def forgets_to_await(*args: Any) -> Any:
            return function(*args)

        return app.task(name=name, **options)(functools.wraps(function)(forgets_to_await))

    make.executor = request.param  # type: ignore[attr-defined]
    return make


async def test_the_value_errors_and_retries_of_a_wrapped_function_are_those_of_a_coroutine(app, register):
    adds, fails = register(wrapped_bodies.adds), register(wrapped_bodies.fails)
    retried = register(wrapped_bodies.retried, retry=Retry(backoff=0.01, on=(wrapped_bodies.OutOfStock,)))
    exits = register(wrapped_bodies.exits)
    async with Worker(app):
        result = await adds.delay(1, 2)
        assert await result.get(timeout=30) == (3, result.id)
        several = await adds.starmap([(1, 2), (3, 4)]).delay()
        assert await several.get(timeout=30) == [(3, several.id), (7, several.id)]
        with pytest.raises(wrapped_bodies.OutOfStock, match="tea"):
            await fails.options(wait=30).call("tea")
        assert await retried.options(wait=30).call() == 2
        with pytest.raises(Exception, match="SystemExit"):
            await exits.options(wait=30).call()


async def test_jobs_that_a_wrapped_function_starts_are_its_children(app, register):
    register(wrapped_bodies.adds)
    enqueues = register(wrapped_bodies.enqueues)
    async with Worker(app):
        result = await enqueues.delay(1)
        _, child = await result.get(timeout=30)
        assert (await result.outcome()).children == [child]


async def test_the_time_limit_of_a_wrapped_function_includes_what_is_awaited(app, register):
    sleeps = register(wrapped_bodies.sleeps, timeout=1)
    async with Worker(app):
        start = time.monotonic()
        with pytest.raises(TimeLimitExceeded):
            await sleeps.options(wait=30).call()
        assert time.monotonic() - start < 20


async def test_the_soft_time_limit_of_a_wrapped_function_is_raised_where_it_waits(app, register):
    if register.executor == "thread":
        with pytest.raises(ValueError, match="soft_timeout"):
            register(wrapped_bodies.sleeps, soft_timeout=1)
        return
    sleeps = register(wrapped_bodies.sleeps, soft_timeout=1)
    async with Worker(app):
        with pytest.raises(SoftTimeLimitExceeded):
            await sleeps.options(wait=30).call()


async def test_a_revocation_ends_a_wrapped_function(app, register):
    sleeps = register(wrapped_bodies.sleeps)
    async with Worker(app):
        result = await sleeps.delay()
        await until_state(result, "STARTED")
        assert await result.revoke(terminate=True, wait=True, timeout=20) == "REVOKED"
        with pytest.raises(TaskRevoked):
            await result.get(timeout=20)


async def test_a_plain_wrapper_of_an_async_generator_function_yields_items(app):
    counts = app.task(name="counts")(wrapped_bodies.counts)
    async with Worker(app):
        result = await counts.delay(3)
        assert [item async for item in result.stream()] == [0, 1, 2]


async def test_a_plain_wrapper_with_its_own_loop_runs_in_a_thread(app):
    own_loop = app.task(name="own_loop")(wrapped_bodies.own_loop)
    async with Worker(app):
        assert await own_loop.options(wait=30).call(1) == 2


async def test_a_handle_that_a_plain_function_returns_is_not_awaited(app):
    @app.task
    def returns_a_handle() -> Any:
        return asyncq.AsyncResult("some-id", app=app)

    async with Worker(app):
        error = await (await returns_a_handle.delay()).get(timeout=10, propagate=False)
        assert type(error).__name__ == "SerializationError"


async def test_a_callable_object_and_a_partial_run_according_to_their_kind(app):
    class Adds:
        async def __call__(self, x: int, y: int) -> int:
            await asyncio.sleep(0)
            return x + y

    on_loop = app.task(name="object")(Adds())
    bound = app.task(name="partial")(functools.partial(Adds(), 1))
    async with Worker(app):
        assert await on_loop.options(wait=30).call(1, 2) == 3
        assert await bound.options(wait=30).call(2) == 3
