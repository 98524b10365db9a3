"""Outcome hooks are called once for each outcome that counted, when it is stored, and change nothing."""

from __future__ import annotations

import asyncio
import logging
import time
from typing import TYPE_CHECKING, Any

import pytest
from helpers import process_bodies
from helpers.waiting import until
from helpers.worker_jobs import register
from helpers.worker_process import worker_process

import asyncq
from asyncq import JobEvent, Retry, TaskRevoked, Worker, WorkerLost
from asyncq.worker import held_jobs, outcome_events

if TYPE_CHECKING:
    from collections.abc import Callable

pytestmark = pytest.mark.anyio


class Seen(list[tuple[str, JobEvent]]):
    """The events that the hooks of an app got, with the name of the hook."""

    def follow(self, app: asyncq.AsyncQ) -> Seen:
        for name in ("success", "failure", "retry", "revoked"):
            getattr(app, f"on_{name}")(self._hook(name))
        return self

    def _hook(self, name: str) -> Callable[[JobEvent], Any]:
        async def hook(event: JobEvent) -> None:
            self.append((name, event))

        return hook

    @property
    def names(self) -> list[tuple[str, str]]:
        return [(name, event.task) for name, event in self]


@pytest.fixture
def seen(app) -> Seen:
    return Seen().follow(app)


async def test_each_outcome_calls_its_hooks_once_with_what_happened(app, seen):
    @app.task(name="works")
    async def works(x: int) -> int:
        return x + 1

    @app.task(name="fails")
    async def fails() -> None:
        raise ValueError("no luck")

    @app.task(name="second", retry=Retry(max_retries=1, backoff=0.01))
    def second() -> int:
        if asyncq.current().attempt == 1:
            raise OSError("first")
        return 2

    @app.task(name="gives up", retry=Retry(max_retries=1, backoff=0.01))
    async def gives_up() -> None:
        raise KeyError("again")

    async with Worker(app) as worker:
        assert await works.options(headers={"a": 1}, queue="default").call(1) == 2
        for task in (fails, gives_up):
            assert (await (await task.delay()).outcome(timeout=20)).state == "FAILURE"
        assert await second.call() == 2
        await until(lambda: len(seen) == 6, "all hooks to be called")
    by_task = {(name, event.task): event for name, event in seen}
    event = by_task["success", "works"]
    assert (event.state, event.value, event.error, event.traceback) == ("SUCCESS", 2, None, None)
    assert (event.queue, event.attempt, event.worker, event.headers) == ("default", 1, worker.name, {"a": 1})
    assert event.duration is not None
    assert 0 <= event.duration < 20
    event = by_task["failure", "fails"]
    assert (event.state, event.value, str(event.error)) == ("FAILURE", None, "no luck")
    assert "test_outcome_hooks.py" in event.traceback
    event = by_task["retry", "second"]
    assert (event.state, str(event.error), event.attempt) == ("RETRY", "first", 1)
    assert "test_outcome_hooks.py" in event.traceback
    assert event.duration is not None
    assert by_task["success", "second"].attempt == 2
    assert by_task["failure", "gives up"].attempt == 2
    assert sorted(seen.names) == sorted(by_task)


async def test_a_hook_is_called_after_the_outcome_is_stored_and_belongs_to_no_job(app, add):
    found: list[Any] = []

    @app.on_success
    async def look(event: JobEvent) -> None:
        if event.task != add.name or found:
            return
        found.append(await app.AsyncResult(event.id).ready())
        with pytest.raises(LookupError):
            asyncq.current()
        found.append(await add.call(10, 20))

    async with Worker(app, concurrency=1):
        result = await add.delay(1, 2)
        assert await result.get(timeout=20) == 3
        await until(lambda: len(found) == 2, "the hook to end")
        outcome = await result.outcome()
    assert found == [True, 30]
    assert outcome.children == []


async def test_values_and_failures_of_every_kind_of_task_reach_the_hooks(app, seen):
    @app.task(name="thread")
    def in_thread() -> tuple[int, ...]:
        return (1, 2)

    @app.task(name="items")
    async def items():
        yield 1

    double = app.task(name="process", executor="process")(process_bodies.double)
    fail = app.task(name="process fails", executor="process")(process_bodies.fail)
    async with Worker(app):
        await in_thread.call()
        await (await items.delay()).get(timeout=20)
        await double.call([2])
        await (await fail.delay("a text")).outcome(timeout=20)
        await until(lambda: len(seen) == 4, "all hooks to be called")
    values = {event.task: event.value for _, event in seen}
    assert values == {"thread": (1, 2), "items": None, "process": [4], "process fails": None}
    [error] = [event.error for _, event in seen if event.error is not None]
    assert isinstance(error, ValueError)


async def test_jobs_that_have_started_call_on_revoked_and_jobs_in_the_queue_do_not(app, seen, nap):
    @app.task(name="thread")
    def in_thread() -> None:
        while not asyncq.current().cancelled:
            time.sleep(0.01)

    expired = await nap.options(expires=0.001).delay(1)
    queued = await nap.options(queue="other").delay(1)
    assert await queued.revoke(wait=True) == "REVOKED"
    async with Worker(app, queues=["default"]):
        with pytest.raises(asyncq.TaskExpired):
            await expired.get(timeout=20)
        for task, args in ((nap, (60,)), (in_thread, ())):
            result = await task.delay(*args)
            await until(lambda result=result: _is(result, "STARTED"), "it to begin")
            await result.revoke(terminate=True, reason="enough")
            with pytest.raises(TaskRevoked):
                await result.get(timeout=20)
        await until(lambda: len(seen) == 2, "both hooks to be called")
    assert seen.names == [("revoked", nap.name), ("revoked", "thread")]
    assert all(event.state == "REVOKED" for _, event in seen)
    assert "enough" in str(seen[0][1].error)


async def _is(result: asyncq.AsyncResult[Any], state: str) -> bool:
    return await result.refresh() == state


async def test_a_job_that_is_revoked_between_two_tries_calls_on_revoked(app, seen):
    @app.task(name="again", retry=Retry(max_retries=5, backoff=60))
    async def again() -> None:
        await asyncq.current().progress(1, 2)
        while not asyncq.current().cancelled:  # noqa: ASYNC110  nothing else tells of a revocation
            await asyncio.sleep(0.01)
        raise ValueError("first")

    async with Worker(app):
        result = await again.delay()
        await until(lambda: _is(result, "PROGRESS"), "it to begin")
        await result.revoke()
        with pytest.raises(TaskRevoked):
            await result.get(timeout=20)
        await until(lambda: seen, "the hook to be called")
    assert seen.names == [("revoked", "again")]


async def test_the_worker_that_finds_a_lost_job_calls_on_failure(make_app, server_url, namespace, tmp_path):
    app = make_app(max_crashes=1)
    jobs = register(app)
    seen = Seen().follow(app)
    async with app:
        with worker_process(server_url, namespace) as victim:
            result = await jobs.wait_for_file.delay(str(tmp_path / "log"), "lost", str(tmp_path / "gate"))
            await until(lambda: _is(result, "STARTED"), "it to begin")
            victim.kill()
        async with Worker(app):
            with pytest.raises(WorkerLost):
                await result.get(timeout=30)
            await until(lambda: seen, "the hook to be called")
    [(name, event)] = seen
    assert (name, event.task, event.id, event.headers) == ("failure", "wait_for_file", result.id, {})
    assert isinstance(event.error, WorkerLost)
    assert event.duration is None


async def test_what_a_hook_raises_is_logged_and_changes_nothing(app, add, caplog):
    called: list[str] = []

    @app.on_success
    async def breaks(event: JobEvent) -> None:
        called.append("breaks")
        raise ValueError("a fault")

    @app.on_success
    async def works(event: JobEvent) -> None:
        called.append("works")

    async with Worker(app):
        assert await add.call(1, 2) == 3
        assert await add.call(2, 2) == 4
        await until(lambda: len(called) == 4, "all hooks to be called")
    assert called == ["breaks", "works"] * 2
    records = [record for record in caplog.records if "breaks failed" in record.getMessage()]
    assert len(records) == 2
    assert records[0].levelno == logging.ERROR
    assert "a fault" in caplog.text
    assert records[0].task == add.name


async def test_a_hook_that_never_ends_is_cancelled_after_its_time(app, add, caplog, monkeypatch):
    monkeypatch.setattr(outcome_events, "HOOK_TIMEOUT", 0.05)

    @app.on_success
    async def hangs(event: JobEvent) -> None:
        await asyncio.Event().wait()

    async with Worker(app):
        assert await add.call(1, 2) == 3
        await until(lambda: "hangs did not end within 0.05 s" in caplog.text, "the hook to be cancelled")


async def test_slow_hooks_stop_the_worker_from_reading_until_some_of_them_have_ended(app, add, monkeypatch):
    monkeypatch.setattr(held_jobs, "MOST_HOOKS", 3)
    go_on = asyncio.Event()
    running: list[str] = []

    @app.on_success
    async def slow(event: JobEvent) -> None:
        running.append(event.id)
        await go_on.wait()

    async with Worker(app, concurrency=1):
        results = await add.map([(index, 1) for index in range(20)])
        await until(lambda: len(running) >= 3, "three hooks to run")
        await asyncio.sleep(0)
        assert len(running) < 12
        assert not await results.ready()
        go_on.set()
        assert await results.get(timeout=20) == [index + 1 for index in range(20)]
        await until(lambda: len(running) == 20, "all hooks to be called")


async def test_a_worker_that_stops_waits_for_its_hooks_within_its_grace(app, add, caplog):
    ended: list[str] = []

    @app.on_success
    async def slow(event: JobEvent) -> None:
        await asyncio.sleep(0.3)
        ended.append(event.id)

    async with Worker(app, grace=20):
        result = await add.delay(1, 2)
        await result.get(timeout=20)
    assert ended == [result.id]

    @app.on_success
    async def endless(event: JobEvent) -> None:
        await asyncio.Event().wait()

    began = time.monotonic()
    async with Worker(app, grace=0.6):
        result = await add.delay(1, 2)
        await result.get(timeout=20)
    assert time.monotonic() - began < 10
    assert ended[-1] == result.id
    assert "endless" in caplog.text
    assert "did not end before their worker did" in caplog.text


async def test_a_second_stop_does_not_wait_for_hooks(app, add):
    began = asyncio.Event()

    @app.on_success
    async def endless(event: JobEvent) -> None:
        began.set()
        await asyncio.Event().wait()

    worker = Worker(app, grace=60)
    running = asyncio.create_task(worker.run())
    await add.delay(1, 2)
    await began.wait()
    worker.stop()
    worker.stop()
    await asyncio.wait_for(running, 10)


async def test_hooks_that_are_registered_while_a_worker_runs_are_called(app, add):
    async with Worker(app):
        assert await add.call(1, 2) == 3
        seen = Seen().follow(app)
        assert await add.call(1, 3) == 4
        await until(lambda: seen, "the hook to be called")
    assert [event.value for _, event in seen] == [4]


def test_a_hook_must_be_a_coroutine_function(make_app):
    app = make_app()

    def plain(event: JobEvent) -> None: ...

    with pytest.raises(TypeError, match="async def hook"):
        app.on_failure(plain)

    @app.on_retry
    async def hook(event: JobEvent) -> None: ...

    assert hook.__name__ == "hook"
