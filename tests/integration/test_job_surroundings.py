"""What surrounds a job: when it was enqueued, and a block around all that it calls on a thread."""

from __future__ import annotations

import threading
from collections.abc import Iterator  # noqa: TC003  asyncq reads the annotations
from contextlib import contextmanager
from typing import TYPE_CHECKING

import pytest
from helpers.waiting import until

import asyncq
from asyncq import AsyncQ, Depends, Worker
from asyncq.execution.executors import surround_threads

if TYPE_CHECKING:
    from collections.abc import Callable

pytestmark = pytest.mark.anyio


async def test_a_job_knows_when_it_was_enqueued(app: AsyncQ) -> None:
    @app.task
    async def when() -> str:
        return str(asyncq.current().enqueued_at)

    async with app, Worker(app):
        result = await when.delay()
        outcome = await result.outcome(timeout=20)
    assert outcome.value == str(outcome.enqueued_at)


@pytest.fixture
def notes() -> Iterator[list[tuple[str, int]]]:
    found = []

    @contextmanager
    def block() -> Iterator[None]:
        found.append(("in", threading.get_ident()))
        yield
        found.append(("out", threading.get_ident()))

    surround_threads(block)
    yield found
    surround_threads(None)


def plain() -> int:
    return threading.get_ident()


def yielding() -> Iterator[int]:
    yield threading.get_ident()


def injected(thread: int = Depends(plain), other: int = Depends(yielding)) -> int:
    assert thread == other == threading.get_ident()
    return thread


async def on_loop(thread: int = Depends(plain), other: int = Depends(yielding)) -> int:
    assert thread == other
    return thread


@pytest.mark.parametrize("function", [plain, injected, on_loop])
async def test_a_block_surrounds_what_a_job_calls_on_a_thread(
    app: AsyncQ, notes: list[tuple[str, int]], function: Callable[..., int]
) -> None:
    task = app.task(name="work")(function)

    async with app, Worker(app):
        thread = await task.options(wait=20).call()
    # The thread leaves the block a moment after it has passed its result on.
    await until(lambda: notes == [("in", thread), ("out", thread)], "the block to end")


async def test_a_block_surrounds_a_generator(app: AsyncQ, notes: list[tuple[str, int]]) -> None:
    task = app.task(name="work")(yielding)

    async with app, Worker(app):
        [thread] = [item async for item in (await task.delay()).stream()]
    assert notes == [("in", thread), ("out", thread)]


async def test_a_coroutine_that_needs_no_thread_has_no_block(
    app: AsyncQ, notes: list[tuple[str, int]]
) -> None:
    @app.task
    async def work() -> int:
        return 1

    async with app, Worker(app):
        assert await work.options(wait=20).call() == 1
    assert notes == []
