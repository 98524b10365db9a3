"""Every job is enqueued, run and ended by one function each, and these functions call the hooks."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from helpers.inside import session_of
from helpers.waiting import until

import asyncq
from asyncq import Retry, Worker, group
from asyncq.broker.claims import Way
from asyncq.context import current_job

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from asyncq import Call, Context
    from asyncq.broker.claims import ClaimEnd

pytestmark = pytest.mark.anyio


@pytest.fixture
async def app(make_app):
    async with make_app() as app:
        yield app


@pytest.fixture
def enqueued(app) -> list[list[str]]:
    """The names of the jobs of each enqueue."""
    seen: list[list[str]] = []
    together: dict[str, list[str]] = {}

    async def hook(call: Call, call_next: Callable[[Call], Awaitable[bool]]) -> bool:
        job = current_job.get()
        where = "" if job is None else job.id
        if where not in together:
            # Noted when it begins: a worker may begin to run a job before its client has the answer.
            together[where] = []
            seen.append(together[where])
        together[where].append(call.task)
        answer = await call_next(call)
        together.pop(where, None)  # the first that goes on: all calls of this enqueue have waited together
        return answer

    app.sessions.on_enqueue.append(hook)
    return seen


async def test_an_enqueue_hook_is_called_for_each_way_to_enqueue(app, enqueued):
    @app.task(name="add")
    async def add(x: int, y: int) -> int:
        return x + y

    @app.task(name="fails")
    async def fails() -> None:
        raise ValueError("no")

    @app.task(name="swaps")
    async def swaps() -> int:
        await asyncq.current().replace(add.s(1, 1) | add.s(2))

    retried = fails.options(retry=Retry(max_retries=1, backoff=0.01))
    async with Worker(app):
        assert await add.call(1, 2) == 3
        assert await app.send("add", (1, 2)) is not None
        assert await (await add.map([(1, 1), (2, 2)])).get(timeout=20) == [2, 4]
        assert await group(add.s(1, 1), add.s(1, 2)).call() == [2, 3]
        assert await (add.s(1, 1) | add.s(1)).call() == 3
        assert enqueued == [["add"], ["add"], ["add", "add"], ["add", "add"], ["add", "add"]]
        enqueued.clear()
        assert await swaps.call() == 4
        assert enqueued == [["swaps"], ["add", "add"]]
        enqueued.clear()
        assert (await (await retried.delay()).outcome(timeout=20)).state == "FAILURE"
        [letter] = await app.control.dead.list()
        await (await app.control.dead.replay(letter.id)).outcome(timeout=20)
        assert enqueued == [["fails"], ["fails"]], "a retry is no new job"


async def test_an_error_of_a_hook_ends_the_enqueue(app, enqueued):
    async def refuse(call: Call, call_next: Callable[[Call], Awaitable[bool]]) -> bool:
        raise PermissionError("not now")

    @app.task
    async def nothing() -> None:
        pass

    app.sessions.on_enqueue.append(refuse)
    with pytest.raises(PermissionError, match="not now"):
        await nothing.options(task_id="refused").delay()
    assert not await app.AsyncResult("refused").exists()


async def test_run_hooks_enclose_the_body_wherever_it_runs(app):
    @app.task(name="on the loop")
    async def on_the_loop(x: int) -> int:
        return x

    @app.task(name="in a thread")
    def in_a_thread(x: int) -> int:
        return x

    @app.task(name="fails")
    async def fails(x: int) -> int:
        raise ValueError(x)

    seen: list[tuple[str, str, Any]] = []

    def hook(which: str) -> Callable[[Context, Callable[[Context], Awaitable[Any]]], Awaitable[Any]]:
        async def around(context: Context, call_next: Callable[[Context], Awaitable[Any]]) -> Any:
            seen.append((which, "begins", context.name))
            try:
                value = await call_next(context)
            except ValueError as error:
                seen.append((which, "fails", error.args[0]))
                raise
            seen.append((which, "ends", value))
            return value + 1

        return around

    async with Worker(app) as worker:
        session_of(worker).attempts.runner.hooks += [hook("outer"), hook("inner")]
        for task in (on_the_loop, in_a_thread):
            assert await task.call(1) == 3, "the value is what the outermost hook returns"
            assert seen == [
                ("outer", "begins", task.name),
                ("inner", "begins", task.name),
                ("inner", "ends", 1),
                ("outer", "ends", 2),
            ]
            seen.clear()
        assert (await (await fails.delay(7)).outcome(timeout=20)).state == "FAILURE"
    assert seen[2:] == [("inner", "fails", 7), ("outer", "fails", 7)]


async def test_a_body_never_runs_if_a_hook_does_not_proceed(app):
    ran = []

    @app.task
    async def body() -> int:
        ran.append(1)
        return 1

    async def instead(context: Context, call_next: Callable[[Context], Awaitable[Any]]) -> Any:
        return 2

    async with Worker(app) as worker:
        session_of(worker).attempts.runner.hooks.append(instead)
        assert await body.call() == 2
    assert not ran


async def test_a_hook_is_called_at_the_end_of_each_claim(app):
    runs = []

    @app.task(name="twice", retry=Retry(max_retries=1, backoff=0.01))
    async def twice() -> None:
        runs.append(1)
        if len(runs) == 1:
            raise ValueError("once")

    ends: list[ClaimEnd] = []
    async with Worker(app) as worker:
        session_of(worker).attempts.outcomes.claims.hooks.append(ends.append)
        await twice.call()
        await until(lambda: len(ends) == 2, "both ends to be seen")
    assert [end.way for end in ends] == [Way.RETRIED, Way.FINISHED]
