"""A job that has started in time and failed does not expire between two attempts.
It ends with its own failure.
"""

from __future__ import annotations

import asyncio
import time

import pytest
from helpers.waiting import until

from asyncq import Retry, Worker

pytestmark = pytest.mark.anyio


@pytest.mark.parametrize("option", ["expires", "deadline"])
@pytest.mark.parametrize("ended_by", ["no next attempt fits", "its waiter", "its worker"])
async def test_a_job_that_has_started_in_time_ends_with_its_own_failure(app, option, ended_by):
    pause = 30 if ended_by == "no next attempt fits" else 0.1
    tries: list[float] = []
    gate = asyncio.Event()

    @app.task
    async def hold() -> None:
        await gate.wait()

    @app.task(retry=Retry(max_retries=9, backoff=pause, max_backoff=pause, jitter=False))
    async def pay() -> None:
        tries.append(time.monotonic())
        raise ConnectionError("the bank does not answer")

    async with Worker(app, concurrency=1):
        result = await pay.options(**{option: 0.4}).delay()
        await until(lambda: tries, "the first attempt")
        if ended_by == "its worker":
            await hold.delay()
            await asyncio.sleep(max(0.0, tries[0] + 0.5 - time.monotonic()))
            gate.set()
        if ended_by != "its waiter":
            outcome = await app.AsyncResult(result.id).outcome(timeout=30)
    if ended_by == "its waiter":
        outcome = await result.outcome(timeout=30)
    assert (outcome.state, repr(outcome.error)) == (
        "FAILURE",
        "ConnectionError('the bank does not answer')",
    )
    assert outcome.attempts >= 1
    assert "the bank does not answer" in (outcome.traceback or "")
