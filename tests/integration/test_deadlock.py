"""The deadlock guard: inside a task, no call waits for another job unless that is allowed."""

from __future__ import annotations

import asyncio

import pytest

import asyncq
from asyncq import AsyncQError, Worker, WouldDeadlock, allow_join_result, denied_join_result

pytestmark = pytest.mark.anyio


def _caught(error: BaseException) -> list[str]:
    assert isinstance(error, RuntimeError)
    assert isinstance(error, AsyncQError)
    return [type(error).__name__, str(error)]


@pytest.mark.one_shard
async def test_every_waiting_call_in_a_coroutine_task_is_refused_and_call_enqueues_nothing(app, add, raw):
    @app.task
    async def waits(id_: str) -> list:
        handle = app.AsyncResult(id_)
        waits = (
            ("get", handle.get),
            ("wait", handle.wait),
            ("outcome", handle.outcome),
            ("await", lambda: handle),
            ("set.get", app.ResultSet([handle]).get),
            ("set.join", app.ResultSet([handle]).join),
            ("call", lambda: add.call(1, 2)),
            ("apply_async.get", lambda: handle.get(timeout=0)),
        )
        output = []
        for name, wait in waits:
            try:
                await wait()
            except WouldDeadlock as error:
                output.append([name, *_caught(error)])
        return output

    async with Worker(app, queues=["default"]):
        done = await add.delay(1, 2)
        await done.get(timeout=30)
        output = await waits.call(done.id)
        entries = await raw.xinfo_stream(app.sessions.shards[0].stream("default"))
    assert [name for name, *_ in output] == [
        "get", "wait", "outcome", "await", "set.get", "set.join", "call", "apply_async.get",
    ]  # fmt: skip
    assert all("allow_join_result" in text and waits.name in text for *_, text in output)
    assert entries["entries-added"] == 2, "the refused call was not enqueued"


async def test_every_blocking_variant_in_a_thread_task_is_refused(app, add):
    @app.task
    def waits(id_: str) -> list:
        handle = app.AsyncResult(id_)
        output = []
        for name, wait in (
            ("get", handle.get_sync),
            ("wait", handle.wait_sync),
            ("outcome", handle.outcome_sync),
            ("set", app.ResultSet([handle]).get_sync),
            ("call", lambda: add.call_sync(1, 2)),
        ):
            try:
                wait()
            except WouldDeadlock as error:
                output.append([name, *_caught(error)])
        return output

    async with Worker(app):
        done = await add.delay(1, 2)
        await done.get(timeout=30)
        output = await waits.call(done.id)
    assert [name for name, *_ in output] == ["get", "wait", "outcome", "set", "call"]


async def test_the_guard_also_applies_in_asyncio_tasks_and_threads_that_a_task_starts(app, add):
    @app.task
    async def waits(id_: str) -> list:
        handle = app.AsyncResult(id_)
        output = []
        for waiting in (asyncio.create_task(handle.get(timeout=1)), asyncio.to_thread(handle.get_sync, 1)):
            try:
                await waiting
            except WouldDeadlock:
                output.append("refused")
        return output

    async with Worker(app):
        done = await add.delay(1, 2)
        await done.get(timeout=30)
        assert await waits.call(done.id) == ["refused", "refused"]


async def test_enqueueing_and_refreshing_are_allowed_inside_a_task(app, add):
    @app.task
    async def sends() -> list:
        handle = await add.delay(1, 2)
        return [
            handle.id,
            await handle.exists(),
            await handle.ready() in {True, False},
            handle.state != "UNKNOWN",
        ]

    @app.task
    def sends_from_a_thread() -> list:
        handle = add.delay_sync(3, 4)
        return [handle.id, handle.exists_sync(), True, True]

    async with Worker(app):
        for task, expected in ((sends, 3), (sends_from_a_thread, 7)):
            id_, *answers = await task.call()
            assert answers == [True, True, True]
            assert await app.AsyncResult(id_).get(timeout=30) == expected


async def test_a_wait_may_be_allowed_for_one_call_or_for_a_block(app, add):
    @app.task
    async def allowed() -> list:
        one = await (await add.delay(1, 2)).get(timeout=30, disable_sync_subtasks=False)
        many = await (await add.map([(1, 1), (2, 2)])).get(timeout=30, disable_sync_subtasks=False)
        with allow_join_result():
            block = [
                await add.call(2, 2),
                await (await add.delay(3, 3)),
                (await (await add.delay(4, 4)).outcome()).value,
            ]
        try:
            await add.call(5, 5)
        except WouldDeadlock:
            return [one, many, block, "denied again"]
        return []

    @app.task
    def allowed_in_a_thread() -> list:
        with allow_join_result():
            return [add.call_sync(1, 2), add.delay_sync(2, 2).get_sync(timeout=30)]

    async with Worker(app):
        assert await allowed.call() == [3, [2, 4], [4, 6, 8], "denied again"]
        assert await allowed_in_a_thread.call() == [3, 4]


async def test_a_wait_can_be_denied_anywhere(app, add):
    async with Worker(app):
        result = await add.delay(1, 2)
        with denied_join_result():
            with pytest.raises(WouldDeadlock, match="denied_join_result"):
                await result.get(timeout=30)
            with allow_join_result():
                assert await result.get(timeout=30) == 3
        assert await result.get(timeout=30) == 3


async def test_the_guard_does_not_apply_to_other_code_in_the_process_of_a_worker(app, add):
    @app.task
    def in_thread() -> int:
        return 1

    async with Worker(app):
        assert [await add.call(1, 2), await in_thread.call(), await add.call(3, 4)] == [3, 1, 7]
        with pytest.raises(LookupError):
            asyncq.current()


async def test_two_tasks_that_run_at_the_same_time_each_see_their_own_job(app):
    @app.task
    async def own_id() -> str:
        first = asyncq.current().id
        await asyncio.sleep(0.02)
        assert asyncq.current().id == first
        return first

    @app.task
    def own_id_in_a_thread() -> str:
        return asyncq.current().id

    async with Worker(app):
        results = [*(await own_id.map([()] * 20)), *(await own_id_in_a_thread.map([()] * 20))]
        assert [await r.get(timeout=30) for r in results] == [r.id for r in results]


async def test_waiting_for_the_end_of_a_revocation_inside_a_task_is_refused(app, add):
    @app.task
    async def revokes(id_: str) -> str:
        try:
            return await app.AsyncResult(id_).revoke(wait=True, timeout=1)
        except WouldDeadlock:
            return "refused"

    @app.task
    async def nap() -> None:
        await asyncio.sleep(0.5)

    async with Worker(app):
        result = await nap.delay()
        assert await revokes.call(result.id) == "refused"
