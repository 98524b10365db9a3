"""`asyncq.testing.sync_harness`: plain tests, with the worker in a thread."""

from __future__ import annotations

import asyncio
import threading

import pytest
from helpers.waiting import until_sync

from asyncq import SyncInAsyncContext
from asyncq.testing import LeakError, sync_harness


def test_a_plain_test_enqueues_drains_and_asserts(app, add):
    with sync_harness(app) as t:
        result = add.delay_sync(1, 2)
        t.drain()
        assert result.state == "SUCCESS"
        assert add.options(wait=5).call_sync(4, 4) == 8
        job = t.assert_enqueued(add, 1, 2)
        assert job.made_at is not None
        assert "test_sync_harness.py:" in job.made_at
        t.assert_not_enqueued("another")
        assert len(t.jobs) == 2
        assert t.url.startswith("unix://")


@pytest.mark.parametrize("inline", [False, True])
def test_a_plain_with_of_the_async_harness_names_the_other_fixture(app, add, asyncq_harness, inline):
    with (
        pytest.raises(TypeError, match=r"needs `async with`.*`with asyncq_harness_sync\(app\) as t`"),
        asyncq_harness(app, inline=inline),
    ):
        pytest.fail("the block was entered")
    with sync_harness(app):  # nothing was begun
        assert add.options(wait=5).call_sync(4, 4) == 8


def test_time_is_advanced(app, add):
    with sync_harness(app) as t:
        result = add.options(countdown=3600).delay_sync(1)
        t.advance(3599)
        assert result.state == "SCHEDULED"
        t.advance(1)
        assert result.state == "SUCCESS"


def test_plain_functions_and_loops_of_the_test_reach_the_worker(app, add):
    @app.task
    def parent(x: int) -> int:
        return threading.get_ident() and x

    with sync_harness(app) as t:
        assert parent.options(wait=5).call_sync(3) == 3
        assert asyncio.run(add.options(wait=5).call(1, 2)) == 3
        with app:
            add.delay_sync(1)
        t.drain()


def test_faults_and_workers_are_there_too(app, add, hold):
    attempts = []

    @app.task
    async def second_time() -> int:
        attempts.append(1)
        if len(attempts) == 1:
            await asyncio.Event().wait()
        return len(attempts)

    with sync_harness(app) as t:
        result = second_time.delay_sync()
        until_sync(lambda: attempts, "the job to begin")
        t.kill_worker()
        assert result.get_sync(timeout=5) == 2
        t.drop_connections()
        assert add.options(wait=10).call_sync(1, 2) == 3
        with t.delay_server(0.02):
            assert add.options(wait=10).call_sync(1, 2) == 3
        with t.worker(concurrency=1) as worker:
            assert worker.concurrency == 1


def test_what_a_plain_test_leaves_behind_fails_it(app, hold):
    def body() -> None:
        with sync_harness(app):
            hold.delay_sync()

    with pytest.raises(
        LeakError, match=r"hold\(\) \(job .*, enqueued at .*test_sync_harness.py:\d+\), which runs"
    ):
        body()


def test_the_error_of_the_block_comes_out(app, hold):
    def body() -> None:
        with sync_harness(app):
            hold.delay_sync()
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        body()
    assert app.settings.namespace == "own"
    assert not [thread for thread in threading.enumerate() if thread.name == "asyncq-loop"]


def test_it_is_refused_where_a_loop_runs(app):
    async def body() -> None:
        with pytest.raises(SyncInAsyncContext, match="async with harness"), sync_harness(app):
            pass

    asyncio.run(body())


def test_inline_has_no_server_to_slow_down(app):
    with sync_harness(app, inline=True) as t:
        with pytest.raises(RuntimeError, match="inline=True has no server"):
            t.kill_worker()
        t.advance(60)
