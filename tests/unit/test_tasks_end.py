"""The ends of asyncio tasks that nobody needs any more."""

from __future__ import annotations

import asyncio

import pytest

from asyncq.system.tasks import cancel_and_wait, read_error

pytestmark = pytest.mark.anyio


async def fail() -> None:
    raise ValueError("lost")


async def test_a_task_is_over_when_cancel_and_wait_returns():
    steps = []

    async def run() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            await asyncio.sleep(0)
            steps.append("cleaned up")

    task = asyncio.create_task(run())
    await asyncio.sleep(0)
    await cancel_and_wait(task)
    assert task.cancelled()
    assert steps == ["cleaned up"]


async def test_the_error_of_a_task_that_fails_instead_of_being_cancelled_is_dropped():
    async def run() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            await fail()

    task = asyncio.create_task(run())
    await asyncio.sleep(0)
    await cancel_and_wait(task)
    assert task.done()  # and `no_exception_is_lost` finds nothing


async def test_a_task_that_is_done_keeps_its_result():
    task = asyncio.create_task(asyncio.sleep(0, "value"))
    assert await task == "value"
    await cancel_and_wait(task)
    assert task.result() == "value"


async def test_whoever_waits_for_a_task_gets_an_error_that_was_marked_as_read():
    task = asyncio.create_task(fail())
    task.add_done_callback(read_error)
    with pytest.raises(ValueError, match="lost"):
        await task


async def test_a_task_that_was_cancelled_has_no_error_to_read():
    task = asyncio.create_task(asyncio.Event().wait())
    task.add_done_callback(read_error)
    task.cancel()
    await asyncio.wait([task])
    assert task.cancelled()
