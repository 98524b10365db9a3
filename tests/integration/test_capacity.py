"""A worker takes no more jobs than it has slots, threads and processes for. Other jobs wait in an executor
queue and not in the worker's memory.
"""

from __future__ import annotations

import asyncio
import threading
import time
from typing import TYPE_CHECKING, Any

import pytest
from helpers import process_bodies
from helpers.claiming import ClaimingConsumer
from helpers.waiting import until

from asyncq import QueueFull, Retry, TaskRevoked, TimeLimitExceeded, Worker
from asyncq.broker.consumer import Consumer
from asyncq.execution.executors import JobControl, until_thread
from asyncq.execution.slots import Slots
from asyncq.worker.worker_session import WorkerSession

if TYPE_CHECKING:
    from collections.abc import Awaitable

    from asyncq import AsyncQ

pytestmark = pytest.mark.anyio


class Gate:
    """Bodies in threads that wait for `opened`, and the order in which they started."""

    def __init__(self) -> None:
        self.opened = threading.Event()
        self.started: list[tuple[str, int]] = []

    def register(self, app: AsyncQ, worker: str, **options: Any) -> Any:
        @app.task(name="block", **options)
        def block(number: int) -> int:
            self.started.append((worker, number))
            self.opened.wait(20)
            return number

        return block


@pytest.fixture
def gate():
    gate = Gate()
    yield gate
    gate.opened.set()


async def _equals(number: Awaitable[int], expected: int) -> bool:
    return await number == expected


def _quick(app: AsyncQ) -> Any:
    @app.task(name="quick")
    async def quick() -> str:
        return "done"

    return quick


@pytest.mark.parametrize("shards", [1, 2])
async def test_jobs_without_a_free_thread_wait_in_the_executor_queue_and_delay_no_coroutine(
    make_app, gate, raw, namespace, shards
):
    one, two = make_app(threads=2, shards=shards), make_app(threads=2, shards=shards)
    block, quick = gate.register(one, "one"), _quick(one)
    gate.register(two, "two"), _quick(two)
    executor_queues = [f"{{{namespace}:{shard}}}:q:default^t" for shard in range(shards)]

    async def in_executor_queues(*, taken: bool = False) -> int:
        """Returns how many jobs are in executor queues; with `taken`, how many of them a worker holds."""
        if taken:
            pending = [
                await raw.xpending_range(executor_queue, "g", "-", "+", 10)
                for executor_queue in executor_queues
                if await raw.exists(executor_queue)
            ]
            return sum(map(len, pending))
        return sum([await raw.xlen(executor_queue) for executor_queue in executor_queues])

    async with Worker(one):
        jobs = await block.map([(number,) for number in range(7)])
        assert await quick.call() == "done", "it does not wait behind jobs that wait for a thread"
        # A worker reads one shard after the other, so this takes a while.
        await until(
            lambda: _equals(in_executor_queues(), 5), "all jobs without a thread to be in the executor queue"
        )
        async with Worker(two):
            await until(
                lambda: len(gate.started) == 4, "the idle worker to claim as many jobs as it has threads"
            )
            assert await quick.call() == "done"
            assert await in_executor_queues() == 5, "two of them are pending entries of the other worker"
            assert await in_executor_queues(taken=True) == 2
            gate.opened.set()
            assert await jobs.get(timeout=20) == list(range(7))
    assert sorted(number for _, number in gate.started[:4]) == [0, 1, 2, 3]
    assert sorted(number for _, number in gate.started) == list(range(7)), "each job started once"
    assert {worker for worker, _ in gate.started[:4]} == {"one", "two"}


@pytest.mark.one_shard
async def test_jobs_in_the_executor_queue_start_in_order_after_those_with_a_higher_priority(
    make_app, gate, raw, namespace
):
    async with make_app(threads=1) as app:
        block = gate.register(app, "one")
        _quick(app)  # otherwise the queue itself would be the executor queue
        urgent = block.options(priority=5)
        executor_queue, queue_above = (f"{{{namespace}:0}}:q:default^{level}t" for level in ("", 5))
        async with Worker(app):
            first = await block.delay(0)
            await until(lambda: gate.started, "the thread to be in use")
            rest = [await block.delay(number) for number in (1, 2, 3)]
            await until(lambda: _equals(raw.xlen(executor_queue), 3), "the jobs to be in the executor queue")
            sooner = [await urgent.delay(number) for number in (10, 11)]
            await until(lambda: _equals(raw.xlen(queue_above), 2), "the jobs to be in the executor queue")
            gate.opened.set()
            for each in (first, *rest, *sooner):
                await each.get(timeout=20)
    assert [number for _, number in gate.started] == [0, 10, 11, 1, 2, 3]


@pytest.mark.one_shard
async def test_a_job_that_arrives_when_a_thread_becomes_free_starts_after_the_executor_queue(
    make_app, gate, raw, namespace, monkeypatch
):
    may_read, reads = asyncio.Event(), []
    read_separately = Consumer.read_separately

    async def late(*given: Any) -> Any:
        reads.append(given)
        await may_read.wait()
        return await read_separately(*given)

    monkeypatch.setattr(Consumer, "read_separately", late)
    async with make_app(threads=1) as app:
        block, quick = gate.register(app, "one"), _quick(app)
        urgent = block.options(priority=5)
        async with Worker(app):
            jobs = [await block.delay(0)]
            await until(lambda: gate.started, "the thread to be in use")
            jobs += [await urgent.delay(number) for number in (1, 2)]
            await until(
                lambda: _is_empty(raw, f"{{{namespace}:0}}:q:default^5"),
                "the jobs to be moved to the executor queue",
            )
            assert await quick.call() == "done"
            gate.opened.set()
            await until(lambda: reads, "the worker to read the executor queue")
            jobs.append(await block.delay(3))
            assert await quick.call() == "done"
            may_read.set()
            for job in jobs:
                await job.get(timeout=20)
    assert [number for _, number in gate.started] == [0, 1, 2, 3]


@pytest.mark.one_shard
async def test_without_coroutine_tasks_no_job_goes_into_an_executor_queue(make_app, gate, raw, namespace):
    async with make_app(threads=2) as app:
        block = gate.register(app, "one")
        async with Worker(app):
            jobs = await block.map([(number,) for number in range(6)])
            await until(lambda: len(gate.started) == 2, "the threads to be in use")
            assert len(await raw.xpending_range(f"{{{namespace}:0}}:q:default", "g", "-", "+", 10)) == 2
            gate.opened.set()
            assert await jobs.get(timeout=20) == list(range(6))
        assert not await raw.exists(f"{{{namespace}:0}}:lv:default")


@pytest.mark.one_shard
async def test_jobs_in_an_executor_queue_count_towards_the_limit_of_their_queue(
    make_app, gate, raw, namespace
):
    async with make_app(threads=1, max_length=4) as app:
        block, quick = gate.register(app, "one"), _quick(app)
        urgent = block.options(priority=3)
        async with Worker(app):
            first = await block.map([(number,) for number in range(3)])
            assert await quick.call() == "done"
            assert await raw.xlen(f"{{{namespace}:0}}:q:default^t") == 2
            await block.delay(3)
            with pytest.raises(QueueFull, match="max_length=4"):
                await block.delay(4)
            with pytest.raises(QueueFull, match="max_length=4"):
                await (block.s(5) | quick.si()).delay()
            jobs = await urgent.map([(number,) for number in range(10, 14)])
            await until(
                lambda: _is_empty(raw, f"{{{namespace}:0}}:q:default^3"),
                "the jobs to be moved to the executor queue",
            )
            with pytest.raises(QueueFull, match="max_length=4"):
                await urgent.delay(14)
            gate.opened.set()
            assert await first.get(timeout=20) == [0, 1, 2]
            assert await jobs.get(timeout=20) == [10, 11, 12, 13]


async def _is_empty(raw: Any, stream: str) -> bool:
    return not await raw.xlen(stream)


@pytest.mark.one_shard
async def test_entries_claimed_by_a_parallel_read_are_known_before_unknown_entries_are_listed(make_app):
    async with make_app() as app:
        quick = _quick(app)
        commands = app.sessions.current().broker.commands
        reader = ClaimingConsumer(commands, "reader", ["default"])
        await reader.make_groups()
        await quick.delay()
        [stream] = reader.served.streams
        assert await reader.unknown_entries(stream, []) == [], "its connection is there"
        # Commands behind this one on the same connection wait at the server.
        commands.post(reader.served.keys[stream], ("BLPOP", "nothing", "0.3"), None)
        separate_read = asyncio.create_task(reader.read_separately(stream, 1))
        await asyncio.sleep(0)
        separate_read.cancel()
        assert len(await reader.unknown_entries(stream, [])) == 1, "its worker was asked to stop meanwhile"
        reader.close()


@pytest.mark.one_shard
async def test_entries_lost_by_an_executor_queue_read_during_a_search_for_unknown_entries_are_found(
    make_app, monkeypatch
):
    searches, unknown_entries = [], Consumer.unknown_entries

    async def unknown_entries_while_a_read_fails(consumer: Consumer, stream: str, held: Any) -> Any:
        found = await unknown_entries(consumer, stream, held)
        searches.append(stream)
        if len(searches) == 1:
            fetcher._executor_queues.may_have_lost_a_reply |= set(fetcher._consumer.served.streams)
        return found

    async with make_app() as app:
        quick = _quick(app)
        async with Worker(app) as worker:
            fetcher = worker._session.fetchers[0]
            monkeypatch.setattr(Consumer, "unknown_entries", unknown_entries_while_a_read_fails)
            fetcher._executor_queues.may_have_lost_a_reply |= set(fetcher._consumer.served.streams)
            assert [await quick.call() for _ in "123"] == ["done"] * 3
            streams = [*fetcher._consumer.served.streams, *fetcher._consumer.served.last_attempt_queues]
            assert searches == streams * 2


async def test_a_job_in_an_executor_queue_is_revoked_like_any_waiting_job(make_app, gate):
    async with make_app(threads=1) as app:
        block, quick = gate.register(app, "one"), _quick(app)
        async with Worker(app):
            first, second = await block.delay(0), await block.delay(1)
            assert await quick.call() == "done"
            assert await second.revoke() == "REVOKED"
            with pytest.raises(TaskRevoked):
                await second.get(timeout=10)
            gate.opened.set()
            assert await first.get(timeout=10) == 0
    assert gate.started == [("one", 0)]


@pytest.mark.one_shard
async def test_a_job_from_an_executor_queue_is_retried_in_the_executor_queue(
    make_app, gate, raw, namespace, monkeypatch
):
    # The worker that makes an executor queue reads from it, even if the message about it does not arrive.
    monkeypatch.setattr(WorkerSession, "_on_level", lambda *_: None)
    async with make_app(threads=1) as app:
        quick, tries = _quick(app), []
        block = gate.register(app, "one")

        @app.task(retry=Retry(max_retries=1, on=(ValueError,), backoff=0))
        def fails_once() -> str:
            tries.append(1)
            if len(tries) == 1:
                raise ValueError("not yet")
            return "done"

        async with Worker(app):
            await block.delay(0)
            await until(lambda: gate.started, "the thread to be in use")
            result = await fails_once.delay()
            assert await quick.call() == "done"
            assert await raw.xlen(f"{{{namespace}:0}}:q:default^t") == 1
            gate.opened.set()
            assert await result.get(timeout=20) == "done"


@pytest.mark.one_shard
async def test_processes_are_counted_separately_and_a_stopping_worker_starts_no_job(
    make_app, tmp_path, raw, namespace
):
    log, gate = tmp_path / "log", tmp_path / "gate"
    async with make_app(processes=1) as app:
        hold = app.task(name="hold", executor="process")(process_bodies.hold)
        quick = _quick(app)
        executor_queue = f"{{{namespace}:0}}:q:default^p"
        async with Worker(app, grace=20) as worker:
            jobs = await hold.map([(str(log), str(gate))] * 2)
            assert await quick.call() == "done"
            assert await raw.xlen(executor_queue) == 1
            # The process for the first job is still starting.
            worker.stop()
        assert worker.handed_back == 1
        assert not log.exists(), "no job has started"
        gate.touch()
        async with Worker(app):
            await jobs.get(timeout=30)


async def test_a_job_that_waits_for_a_thread_ends_at_its_deadline():
    threads = Slots(1)
    await threads.take()
    with pytest.raises(TimeLimitExceeded, match="no thread was free"):
        await until_thread(JobControl(), threads, int(time.time() * 1000) + 30)
    waits = asyncio.create_task(
        until_thread(claim := JobControl(), threads, int(time.time() * 1000) + 10_000)
    )
    await asyncio.sleep(0)
    threads.give()
    await waits
    assert claim.threads is threads
