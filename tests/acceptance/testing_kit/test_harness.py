"""`asyncq.testing.harness`: a private server and a worker, what was enqueued, and `drain`."""

from __future__ import annotations

import asyncio
import dataclasses
import threading
from unittest.mock import ANY

import pytest
from helpers.waiting import until

import asyncq
from asyncq import AsyncQ, group
from asyncq.testing import harness

pytestmark = pytest.mark.anyio


async def test_a_harness_gives_the_app_a_server_and_a_worker_and_takes_them_back(app, add):
    sessions, settings = app.sessions, app.settings
    async with harness(app) as t:
        assert t.app is app
        assert app.settings.url == t.url
        assert app.settings.namespace.startswith("test-")
        assert await add.options(wait=5).call(4, 4) == 8
    assert app.sessions is sessions
    assert app.settings == settings


async def test_every_harness_begins_with_an_empty_server(app, add):
    async with harness(app, worker=False) as t:
        first = await add.delay(1)
        assert [job.id for job in t.jobs] == [first.id]
    async with harness(app, worker=False) as t:
        assert t.jobs == []
        assert not await app.AsyncResult(first.id).exists()


async def test_an_app_whose_own_server_is_in_use_can_be_tested(make_app, server_url):
    app = make_app()

    @app.task
    async def double(x: int) -> int:
        return 2 * x

    async with app:
        own = await double.delay(1)
        async with harness(app) as t:
            assert await double.options(wait=5).call(2) == 4
            assert app.settings.url == t.url != server_url
        assert app.settings.url == server_url
        assert await own.exists()
        await own.revoke()


async def test_two_apps_are_tested_at_once_each_on_a_server_of_its_own(app, add):
    other = AsyncQ("redis://127.0.0.1:1/0")
    async with harness(app) as t, harness(other) as u:
        assert await add.options(wait=5).call(1, 2) == 3
        assert t.url != u.url
        assert len(t.jobs) == 1
        assert u.jobs == []


async def test_an_app_is_under_test_once_at_a_time(app):
    async with harness(app):
        with pytest.raises(RuntimeError, match="is under test already"):
            async with harness(app):
                pass


async def test_settings_that_are_given_hold_during_the_test_alone(app):
    async with harness(app, worker=False, concurrency=1, result_ttl=120):
        assert (app.settings.concurrency, app.settings.result_ttl) == (1, 120)
    assert (app.settings.concurrency, app.settings.result_ttl) == (100, 3600)
    with pytest.raises(ValueError, match="unknown option"):
        async with harness(app, colour="red"):
            pass
    assert app.settings.url == "redis://127.0.0.1:1/0"


async def test_the_jobs_are_shown_in_order_with_what_the_worker_gets(app, add):
    @app.task(queue="mail")
    async def send(to: str, *, copies: int = 1) -> None: ...

    async with harness(app, worker=False) as t:
        first = await send.options(headers={"tenant": "a"}).delay("ada", copies=2)
        later = await add.options(countdown=60).delay(1, 2)
        one, other = t.jobs

        assert (one.task, one.args, one.kwargs) == (send.name, ("ada",), {"copies": 2})
        assert (one.id, one.headers, one.queue, one.due) == (first.id, {"tenant": "a"}, "mail", None)
        assert one.made_at is not None
        assert "test_harness.py:" in one.made_at
        assert one.result == first
        assert (other.id, other.args) == (later.id, (1, 2))
        assert 58 < (other.due - t.now).total_seconds() <= 60


async def test_jobs_of_batches_workflows_threads_and_other_jobs_are_shown(app, add):
    @app.task
    def parent(x: int) -> str:
        return add.delay_sync(x, x).id

    async with harness(app) as t:
        await add.map([(1, 1), (2, 2)])
        await (add.s(3) | add.s(4)).delay(5)
        await group(add.s(6), add.s(7)).delay()
        await asyncio.to_thread(add.delay_sync, 8)
        await parent.delay(9)
        await t.drain()

        assert [job.args for job in t.jobs] == [
            *((1, 1), (2, 2)),
            *((5, 3), (4,)),
            *((6,), (7,)),
            (8,),
            (9,),
            (9, 9),
        ]
        assert [job.task for job in t.jobs[-2:]] == [parent.name, add.name]
        assert all(job.made_at and "test_harness.py:" in job.made_at for job in t.jobs if job.args != (8,))


async def test_a_workflow_that_replaces_a_job_is_shown(app, add):
    @app.task
    async def swap() -> int:
        await asyncq.current().replace(add.s(1, 2) | add.s(4))

    async with harness(app) as t:
        assert await swap.options(wait=5).call() == 7
        assert [job.task for job in t.jobs] == [swap.name, add.name, add.name]


async def test_a_call_that_was_refused_is_not_shown(app, add):
    async with harness(app, worker=False) as t:
        await add.options(task_id="one").delay(1)
        with pytest.raises(ValueError, match="exists already"):
            await add.options(task_id="one").delay(2)
        await add.options(key="k").delay(3)
        await add.options(key="k").delay(3)  # gets the handle of the first

        assert [job.args for job in t.jobs] == [(1,), (3,)]


async def test_assert_enqueued_compares_calls_and_not_spellings(app, add):
    @dataclasses.dataclass
    class Point:
        x: int

    @app.task
    async def draw(point: Point, color: str = "red") -> None: ...

    async with harness(app, worker=False) as t:
        first = await add.delay(4, y=4)
        await draw.delay(Point(1))

        assert t.assert_enqueued(add, 4, 4).id == first.id
        t.assert_enqueued(add, x=4, y=4)
        t.assert_enqueued(add, ANY, 4)
        t.assert_enqueued(add)
        t.assert_enqueued(add.name, 4, 4)
        t.assert_enqueued(draw, Point(1), color="red")
        t.assert_not_enqueued("another.task")


async def test_assert_enqueued_says_what_was_enqueued_instead(app, add, hold):
    async with harness(app, worker=False) as t:
        with pytest.raises(AssertionError, match="nothing was enqueued"):
            t.assert_enqueued(add)
        await hold.delay()
        result = await add.delay(1, 2)
        with pytest.raises(AssertionError) as caught:
            t.assert_enqueued(add, 2, 1)
        lines = str(caught.value).splitlines()
        assert lines[0] == f"{add.name}(2, 1) was not enqueued; what was enqueued:"
        assert lines[1].startswith(f"  {add.name}(1, 2) (job {result.id}, enqueued at ")
        assert lines[2].startswith(f"  {hold.name}() ")
        with pytest.raises(AssertionError, match="was enqueued:\n"):
            t.assert_not_enqueued(add)
        with pytest.raises(TypeError, match="too many positional arguments"):
            t.assert_enqueued(add, 1, 2, 3)
        with pytest.raises(TypeError, match="name a task"):
            t.assert_enqueued(len)  # type: ignore[arg-type]
        with pytest.raises(AssertionError, match="the app has no such task"):
            t.assert_enqueued("addd")


async def test_drain_waits_for_jobs_and_for_those_that_they_start(app, add):
    done = []

    @app.task
    async def count(left: int) -> None:
        await asyncio.sleep(0.01)
        done.append(left)
        if left:
            await count.delay(left - 1)

    async with harness(app) as t:
        first = await count.delay(3)
        chained = await (add.s(1) | add.s(2)).delay(1)
        await t.drain()

        assert sorted(done) == [0, 1, 2, 3]
        assert first.state == chained.state == "SUCCESS", "handles know it without a question to the server"
        assert chained.result == 4


async def test_drain_waits_for_the_rate_limit_of_a_task_and_for_its_permits(app):
    @app.task(rate_limit="50/s")
    async def limited() -> None: ...

    @app.task(concurrency=1)
    async def alone() -> None:
        await asyncio.sleep(0.01)

    async with harness(app) as t:
        await limited.map([()] * 5)
        await alone.map([()] * 5)
        await t.drain()
        assert {job.result.state for job in t.jobs} == {"SUCCESS"}


async def test_an_app_of_several_shards_is_drained(app, add):
    async with harness(app, shards=3) as t:
        results = [await (add.s(1) | add.s(2)).delay(number) for number in range(8)]
        await group(add.s(1), add.s(2)).delay()
        await t.drain()
        assert [result.result for result in results] == [number + 3 for number in range(8)]


async def test_the_result_of_an_enqueued_job_shows_what_became_of_it(app, add):
    async with harness(app) as t:
        await add.delay(1, 2)
        job = t.assert_enqueued(add)
        await t.drain()
        assert (job.result.state, job.result.result, job.result.args) == ("SUCCESS", 3, (1, 2))


async def test_drain_does_not_wait_for_jobs_whose_time_has_not_come(app, add):
    async with harness(app) as t:
        later = await add.options(countdown=60).delay(1)
        await t.drain(timeout=1)
        assert later.state == "SCHEDULED"


async def test_drain_looks_once_or_waits_for_ever(app, add, hold):
    async with harness(app) as t:
        await t.drain(timeout=0)
        result = await hold.delay()
        with pytest.raises(TimeoutError):
            await t.drain(timeout=0)
        draining = asyncio.create_task(t.drain(timeout=None))
        await result.revoke(terminate=True, wait=True)
        await draining


async def test_drain_names_the_jobs_that_have_not_ended(app, add, hold):
    async with harness(app) as t:
        result = await hold.delay()
        with pytest.raises(TimeoutError) as caught:
            await t.drain(timeout=0.1)
        assert str(caught.value).startswith("drain(): these jobs have not ended within 0.1 s:\n")
        assert f"{hold.name}() (job {result.id}, enqueued at" in str(caught.value)
        assert str(caught.value).endswith("which runs")
        await result.revoke(terminate=True, wait=True)
    async with harness(app, worker=False) as t:
        await add.delay(1)
        with pytest.raises(TimeoutError, match=r"no worker runs:\n.*which is queued"):
            await t.drain(timeout=0.05)


async def test_drain_shows_outcomes_to_the_handles_of_other_threads(app, add):
    async with harness(app) as t:
        result = await asyncio.to_thread(add.delay_sync, 1, 2)
        await t.drain()
        assert result.state == "SUCCESS"


async def test_calls_of_other_loops_and_threads_reach_the_private_server(app, add):
    async with harness(app) as t:
        found: list[int] = []

        def run() -> None:
            found.append(asyncio.run(add.options(wait=5).call(1, 2)))
            found.append(add.options(wait=5).call_sync(3, 4))

        thread = threading.Thread(target=run)
        thread.start()
        await until(lambda: len(found) == 2, "both calls to return")
        thread.join()
        assert found == [3, 7]
        assert len(t.jobs) == 2


async def test_a_workers_concurrency_can_be_chosen(app):
    running = most = 0

    @app.task
    async def busy() -> None:
        nonlocal running, most
        running += 1
        most = max(most, running)
        await asyncio.sleep(0.02)
        running -= 1

    async with harness(app, worker=False) as t:
        for _ in range(3):
            await busy.delay()
        async with t.worker(concurrency=1) as worker:
            assert worker.concurrency == 1
            await t.drain()
    assert most == 1
