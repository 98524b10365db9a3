"""Waits inside tasks: which are refused, what the job releases for a wait, and wait cycles."""

from __future__ import annotations

import asyncio
import re

import pytest

import asyncq
from asyncq import ResultSet, Worker, WouldDeadlock

pytestmark = pytest.mark.anyio

WAITS = {
    "get": lambda handle, _: handle.get(),
    "outcome": lambda handle, _: handle.outcome(),
    "await": lambda handle, _: _awaited(handle),
    "set": lambda handle, _: ResultSet([handle]).get(),
    "gather": lambda handle, _: asyncq.gather(handle),
    "wait": lambda handle, _: asyncq.wait([handle]),
    "as_completed": lambda handle, _: anext(asyncq.as_completed([handle])),
    "events": lambda handle, _: anext(handle.events()),
    "call": lambda _, add: add.call(1, 2),
    "revoke": lambda handle, _: handle.revoke(wait=True),
}


async def _awaited(handle):
    return await handle


@pytest.fixture
async def worker(app):
    """Runs the bodies on the test's own loop, one at a time."""
    async with Worker(app, concurrency=1) as worker:
        yield worker


@pytest.mark.parametrize("which", WAITS)
async def test_a_wait_inside_a_task_is_refused_and_the_error_says_how_to_allow_it(
    app, worker, add, server, which
):
    @app.task
    async def waits(id_: str) -> str:
        enqueued = server.calls["enqueue"]
        with pytest.raises(WouldDeadlock) as caught:
            await WAITS[which](app.AsyncResult(id_), add)
        assert server.calls["enqueue"] == enqueued
        return str(caught.value)

    text = await waits.call((await add.delay(1, 2)).id)
    assert "allow_join_result" in text
    assert waits.name in text


async def test_a_task_may_enqueue_query_and_revoke_jobs(app, worker, add):
    @app.task
    async def works() -> list[object]:
        handle = await add.delay(1, 2)
        states = [await handle.refresh(), await handle.revoke()]
        return [await handle.exists(), await handle.ready(), *(state.value for state in states)]

    assert await works.call() == [True, True, "PENDING", "REVOKED"]


async def test_a_job_that_waits_releases_its_slot_for_the_job_that_it_waits_for(app, worker, add):
    @app.task
    async def parent(n: int) -> int:
        with asyncq.allow_join_result():
            return await add.call(n, 1) + await (await add.delay(n, 2)).get(timeout=30)

    assert await asyncq.gather(*[await parent.delay(n) for n in range(3)], timeout=60) == (3, 5, 7)


async def test_one_wait_is_allowed_by_its_own_option(app, worker, add):
    @app.task
    async def parent() -> int:
        return await (await add.delay(1, 2)).get(disable_sync_subtasks=False)

    assert await parent.call() == 3


async def test_a_wait_can_be_denied_outside_of_tasks(add):
    result = await add.delay(1, 2)
    with asyncq.denied_join_result():
        with pytest.raises(WouldDeadlock, match=re.escape("denied_join_result()")):
            await result.get()
        with asyncq.allow_join_result(), pytest.raises(asyncq.ResultTimeout):
            await result.get(timeout=0)


async def test_a_wait_of_a_job_for_itself_or_for_its_parent_is_refused(app, worker):
    @app.task
    async def child(id_: str) -> str:
        with asyncq.allow_join_result(), pytest.raises(WouldDeadlock, match="job that started it") as caught:
            await app.AsyncResult(id_).get()
        return str(caught.value)

    @app.task
    async def parent() -> list[str]:
        job = asyncq.current()
        with asyncq.allow_join_result():
            with pytest.raises(WouldDeadlock, match="itself"):
                await app.AsyncResult(job.id).get()
            return [job.id, await child.call(job.id)]

    id_, text = await parent.call()
    assert id_ in text


async def test_the_wait_that_would_close_a_cycle_is_refused(app):
    @app.task
    async def waits(other: str) -> str:
        with asyncq.allow_join_result():
            try:
                return f"saw {await app.AsyncResult(other).get(timeout=60)}"
            except WouldDeadlock as error:
                return "refused" if "would wait for a job that waits for it" in str(error) else str(error)

    one = waits.options(task_id="one")
    two = waits.options(task_id="two")
    async with app, Worker(app, concurrency=2):
        results = await asyncio.gather(one.delay("two"), two.delay("one"))
        values = set(await asyncq.gather(*results, timeout=60))
    assert values == {"refused", "saw refused"}


async def test_jobs_started_inside_a_task_are_its_children(app, worker, add):
    @app.task
    async def parent() -> str:
        return (await add.delay(1, 2)).id

    result = await parent.delay()
    child = await result
    assert result.children == [child]
