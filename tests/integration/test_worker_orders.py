"""Orders to workers: ping, quiet, stop and stacks, and what a listing shows of each worker."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import threading
import time
from datetime import UTC, datetime, timedelta

import pytest
from helpers.inside import drop_subscription
from helpers.waiting import until, until_state
from helpers.worker_jobs import register
from helpers.worker_process import worker_process

from asyncq import Worker

pytestmark = pytest.mark.anyio


async def test_workers_are_listed_with_what_they_say_of_themselves(app, add):
    @app.task
    async def fails() -> None:
        raise KeyError

    before = datetime.now(UTC) - timedelta(seconds=1)
    async with Worker(app, name="w1", concurrency=7, queues=["b", "a"]) as worker:
        assert await add.options(queue="a").call(1, 1) == 2
        with pytest.raises(KeyError):
            await fails.options(queue="b").call()

        async def counted():
            (info,) = await app.control.workers()
            return info if info.done == 2 else None

        info = await until(counted, "the worker to report two jobs")
        assert (info.name, info.host, info.pid) == ("w1", socket.gethostname(), os.getpid())
        assert (info.queues, info.concurrency, info.busy, info.failed) == (["b", "a"], 7, 0, 1)
        assert info.version
        assert not info.quiet
        assert before < info.started < info.last_seen < datetime.now(UTC) + timedelta(seconds=1)
        assert worker.done == 2
    assert await app.control.workers() == []


async def test_every_worker_answers_a_ping(app, server_url, namespace, make_app):
    with worker_process(server_url, namespace), worker_process(server_url, namespace):
        async with make_app() as other, Worker(app, name="one"), Worker(other, name="one"):
            answers = await app.control.ping(timeout=5)
            assert len(answers) == 4
            assert all(0 < seconds < 5 for seconds in answers.values())
            assert sum(name.startswith("one-") for name in answers) == 2, "two of one name are told apart"


async def test_a_stopped_worker_does_not_answer_a_ping_and_the_call_ends_in_time(app, server_url, namespace):
    with worker_process(server_url, namespace) as worker:
        assert len(await app.control.ping(timeout=5)) == 1
        worker.send(signal.SIGSTOP)
        began = time.monotonic()
        assert await app.control.ping(timeout=0.3) == {}
        assert 0.3 <= time.monotonic() - began < 2
        worker.send(signal.SIGCONT)
        assert len(await app.control.ping(timeout=5)) == 1


async def test_a_ping_without_workers_returns_at_once(app):
    began = time.monotonic()
    assert await app.control.ping(timeout=30) == {}
    assert time.monotonic() - began < 5


async def test_an_order_is_sent_again_until_it_is_answered(app, server_url, namespace):
    with worker_process(server_url, namespace) as worker:
        (info,) = await app.control.workers()
        worker.send(signal.SIGSTOP)
        order = asyncio.create_task(app.control.quiet(info.name))
        await asyncio.sleep(0)
        drop_subscription(app)  # what is answered meanwhile is lost
        worker.send(signal.SIGCONT)
        await asyncio.wait_for(order, 30)

        async def is_quiet():
            return (await app.control.workers())[0].quiet

        await until(is_quiet, "the worker to report that it is quiet")


async def test_stop_lets_a_worker_end_its_jobs_and_a_second_one_changes_nothing(
    app, server_url, namespace, tmp_path
):
    jobs = register(app)
    log, gate = str(tmp_path / "log"), tmp_path / "gate"
    with worker_process(server_url, namespace) as worker:
        result = await jobs.wait_for_file.delay(log, "a", str(gate))
        await until_state(result, "STARTED")
        (info,) = await app.control.workers()
        await app.control.stop(info.name)
        await app.control.stop(info.name)
        late = await jobs.add.delay(1, 1)
        assert worker.process.poll() is None
        gate.touch()
        assert await result.get(timeout=30) == f"a by {worker.pid}"
        assert await asyncio.to_thread(worker.process.wait, 30) == 0
        assert await late.refresh() == "PENDING"
        assert await app.control.workers() == []
        with pytest.raises(LookupError, match="no worker"):
            await app.control.stop(info.name)
    await app.control.purge("default")


async def test_stacks_show_where_each_job_waits_and_what_its_thread_executes(app):
    go, in_thread, sleeping = asyncio.Event(), threading.Event(), threading.Event()

    async def deep_inside() -> None:
        await go.wait()

    @app.task(name="waits")
    async def waits() -> None:
        await deep_inside()

    @app.task(name="sleeps")
    def sleeps() -> None:
        sleeping.set()
        in_thread.wait(30)

    async with Worker(app, name="w1"):
        results = [await waits.delay(), await sleeps.delay()]
        for result in results:
            await until_state(result, "STARTED")
        await until(sleeping.is_set, "the thread to run the job")
        text = await app.control.stacks("w1")
        go.set()
        in_thread.set()
        await asyncio.gather(*(result.get(timeout=30) for result in results))
    for result, task in zip(results, ("waits", "sleeps"), strict=True):
        assert f"{task} {result.id}: attempt 1, " in text, text
    assert "in deep_inside" in text, text
    assert "await go.wait()" in text
    assert "in_thread.wait(30)" in text
    first = next(line for line in text.splitlines() if "File" in line)
    assert "/asyncq/" not in first, "frames above the body are left out"


async def test_stacks_of_many_jobs_come_in_parts(app):
    go = asyncio.Event()

    @app.task(name="waits")
    async def waits() -> None:
        await go.wait()

    async with Worker(app, name="w1", concurrency=200):
        results = [await waits.delay() for _ in range(200)]
        await until(lambda: _all_started(results), "all jobs to run")
        text = await app.control.stacks("w1")
        go.set()
        await app.ResultSet(results).get(timeout=30)
    assert len(text) > 20_000
    assert all(result.id in text for result in results)


async def _all_started(results) -> bool:
    return {await result.refresh() for result in results} == {"STARTED"}


async def test_a_worker_whose_loop_is_blocked_is_named_in_the_error(app, make_app, monkeypatch):
    from asyncq.control import workers

    monkeypatch.setattr(workers, "ANSWER_TIMEOUT", 0.5)
    async with Worker(app, name="w1"):
        keys = app.sessions.shards[0]
        async with make_app() as other:
            # A worker session that nobody answers for: its process is gone.
            send = other.sessions.current().broker.commands.send
            await send(keys, "HSET", keys.beats, "gone-0123456789abcdef", "1")
            with pytest.raises(TimeoutError, match=r"worker 'gone' has not answered within 0.5 s"):
                await other.control.quiet("gone")
            await send(keys, "HDEL", keys.beats, "gone-0123456789abcdef")


@pytest.mark.parametrize(
    "message", [b"!", b"!ping", b"!ping elsewhere", b"!dance {asyncq:0}:c:1", b"!\xff \xff"]
)
async def test_an_order_that_cannot_be_read_is_dropped(app, raw, add, message):
    async with Worker(app, name="w1"):
        keys = app.sessions.shards[0]
        (session_id,) = await raw.hkeys(keys.beats)
        await raw.publish(keys.signals.encode() + session_id, message)
        assert await add.call(1, 1) == 2
        assert list(await app.control.ping(timeout=5)) == ["w1"]


async def test_a_status_that_cannot_be_read_leaves_the_worker_in_the_list(app, raw):
    async with Worker(app, name="w1"):
        keys = app.sessions.shards[0]
        (session_id,) = await raw.hkeys(keys.beats)
        await raw.hset(keys.announcements.encode() + session_id, "i", b"12 nonsense")
        (info,) = await app.control.workers()
        assert (info.name, info.pid) == ("w1", 0)
