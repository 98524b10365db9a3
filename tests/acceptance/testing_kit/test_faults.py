"""A harness kills workers, cuts connections and slows the server down."""

from __future__ import annotations

import asyncio
import time

import pytest
from helpers.waiting import until

from asyncq import ResultTimeout
from asyncq.testing import harness

pytestmark = pytest.mark.anyio


@pytest.fixture
def attempts(app):
    """The attempts of `second_time`, whose first attempt does not end."""
    return []


@pytest.fixture
def second_time(app, attempts):
    @app.task
    async def second_time() -> int:
        attempts.append(len(attempts) + 1)
        if len(attempts) == 1:
            await asyncio.Event().wait()
        return len(attempts)

    return second_time


async def test_the_job_of_a_worker_that_is_killed_runs_again_at_once(app, second_time, attempts):
    async with harness(app) as t:
        result = await second_time.delay()
        await until(lambda: attempts, "the job to begin")
        began = time.monotonic()
        await t.kill_worker()
        assert await result.get(timeout=5) == 2
        assert time.monotonic() - began < app.settings.lease / 2, "nobody waited for the lease"
        outcome = await result.outcome()
        assert outcome.attempts == 2


async def test_a_worker_dies_before_the_call_is_awaited(app, second_time, attempts):
    async with harness(app) as t:
        result = await second_time.delay()
        await until(lambda: attempts, "the job to begin")
        t.kill_worker()
        assert await result.get(timeout=5) == 2


async def test_what_a_dead_worker_held_waits_for_the_next_worker(app, second_time, attempts):
    async with harness(app, worker=False) as t:
        result = await second_time.delay()
        async with t.worker():
            await until(lambda: attempts, "the job to begin")
            await t.kill_worker()
        assert not await result.ready()
        async with t.worker():
            assert await result.get(timeout=5) == 2


async def test_one_of_several_workers_is_killed(app, second_time, attempts):
    async with harness(app, worker=False) as t, t.worker():
        async with t.worker() as victim:
            result = await second_time.delay()
            await until(lambda: attempts, "the job to begin")
            if not victim.counts.done and (await result.refresh()) == "STARTED":
                await t.kill_worker(victim)
            await asyncio.sleep(0)
        if len(attempts) == 1:  # the other worker had it
            await t.kill_worker()
            async with t.worker():
                assert await result.get(timeout=5) == 2
        else:
            assert await result.get(timeout=5) == 2


async def test_a_worker_that_does_not_run_cannot_be_killed(app):
    async with harness(app, worker=False) as t:
        with pytest.raises(RuntimeError, match="no such worker runs"):
            await t.kill_worker()


async def test_connections_that_are_cut_are_made_anew(app, add):
    async with harness(app) as t:
        first = await t._connected.connections()
        assert len(first) >= 3
        result = await add.options(countdown=60).delay(1)
        await t.drop_connections()
        assert await add.options(wait=10).call(1, 2) == 3
        t.drop_connections()
        assert await add.options(wait=10).call(3, 4) == 7
        await t.advance(60)
        assert result.state == "SUCCESS"


async def test_a_slow_server_answers_late_as_long_as_the_block_lasts(app, add):
    async with harness(app) as t:
        async with t.delay_server(0.15):
            with pytest.raises(ResultTimeout):
                await add.options(wait=0.1).call(1, 1)
            await add.options(wait=20).call(1, 1)  # by now the connections are there
            began = time.monotonic()
            # Many commands are late at the same time, and not one after the other.
            results = await asyncio.gather(*(add.delay(number) for number in range(20)))
            assert 0.15 <= time.monotonic() - began < 1.5
            for result in results:
                await result.get(timeout=20)
        began = time.monotonic()
        for _ in range(5):
            await add.options(wait=10).call(1, 2)
        assert time.monotonic() - began < 5 * 0.15
