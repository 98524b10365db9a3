"""Jobs that a worker has fetched before it has slots for them: when they begin, and what shows that they have
not begun.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest
from helpers.inside import session_of
from helpers.notes import lines
from helpers.waiting import until
from helpers.worker_ahead import MOST, AlwaysShort
from helpers.worker_jobs import register
from helpers.worker_process import worker_process

import asyncq
from asyncq import Worker, WorkerLost
from asyncq.broker.transport.pipe import PipeBroken
from asyncq.worker import body_times, read_ahead
from asyncq.worker.body_times import BodyTimes

if TYPE_CHECKING:
    from asyncq.worker.read_ahead import ReadAhead

pytestmark = pytest.mark.anyio


@pytest.fixture
def always_ahead(monkeypatch):
    """Makes workers of this process always fetch ahead, and never give jobs back because they wait."""
    monkeypatch.setattr(read_ahead, "BodyTimes", AlwaysShort)
    monkeypatch.setattr(read_ahead, "LONGEST_WAIT", 600.0)


class Gate:
    """A task that holds its slot until the gate is open."""

    def __init__(self, app) -> None:
        self.open = asyncio.Event()
        self.task = app.task(name="gate")(self.wait)

    async def wait(self) -> None:
        await self.open.wait()


@pytest.fixture
async def gate(app) -> Gate:
    """The gate is the first job in the queue."""
    gate = Gate(app)
    await gate.task.delay()
    return gate


def ahead_of(worker: Worker) -> ReadAhead:
    return session_of(worker).attempts.ahead


async def until_ahead(worker: Worker, count: int) -> None:
    await until(lambda: ahead_of(worker).count == count, f"{count} jobs to be fetched ahead")


# -- when they begin --


@pytest.mark.one_shard
async def test_jobs_that_are_fetched_ahead_begin_in_order_and_never_more_than_there_are_slots(
    app, order, always_ahead
):
    running = most_running = most_ahead = 0

    @app.task
    async def body(number: str) -> None:
        nonlocal running, most_running, most_ahead
        running += 1
        most_running = max(most_running, running)
        most_ahead = max(most_ahead, ahead_of(worker).count)
        order.append(number)
        await asyncio.sleep(0)
        running -= 1

    results = [await body.delay(f"{number}") for number in range(200)]
    worker = Worker(app, concurrency=3)
    async with worker:
        await app.ResultSet(results).get(timeout=30)
    assert order == [f"{number}" for number in range(200)]
    assert most_running == 3
    assert 0 < most_ahead <= MOST


async def test_a_job_of_a_higher_level_begins_before_those_that_were_fetched_ahead(
    app, order, gate, always_ahead
):
    @app.task
    async def say(word: str) -> None:
        order.append(word)
        await asyncio.sleep(0.02)

    low = [await say.delay(f"low {number}") for number in range(20)]
    async with Worker(app, concurrency=1) as worker:
        await until_ahead(worker, 20)
        high = await say.options(priority=5).delay("high")
        await until(
            lambda: "default^5" in session_of(worker).consumer.served.streams.values(),
            "the worker to know the level",
        )
        gate.open.set()
        await app.ResultSet([*low, high]).get(timeout=30)
    # It is read when a slot has become free: until then, another worker may have one.
    assert order.index("high") < 10
    order.remove("high")
    assert order == [f"low {number}" for number in range(20)]


async def test_a_job_that_waits_for_another_one_gives_its_slot_to_a_job_that_was_fetched_ahead(
    app, say, always_ahead
):
    @app.task
    async def parent() -> str:
        with asyncq.allow_join_result():
            return await say.call("child")

    first = await parent.delay()
    others = [await say.delay(word) for word in "abc"]
    async with Worker(app, concurrency=1):
        assert await app.ResultSet([first, *others]).get(timeout=30) == ["child", "a", "b", "c"]


async def test_a_worker_with_short_bodies_fetches_ahead_and_one_with_long_bodies_does_not(app, monkeypatch):
    monkeypatch.setattr(body_times, "SHORT", 0.05)  # on a busy machine, more than one in a hundred takes 1 ms
    seen = {"short": 0, "long": 0}

    @app.task
    async def body(kind: str, seconds: float) -> None:
        seen[kind] = max(seen[kind], ahead_of(worker).count)
        await asyncio.sleep(seconds)

    worker = Worker(app, concurrency=20)
    async with worker:
        await app.ResultSet(await body.map([("long", 0.06)] * 1_000)).get(timeout=60)
        await app.ResultSet(await body.map([("short", 0)] * 3_000)).get(timeout=60)
    assert seen["long"] == 0
    assert seen["short"] > 0


@pytest.mark.one_shard
async def test_a_worker_that_fetches_ahead_goes_on_as_long_as_the_queue_is_full(app, monkeypatch):
    monkeypatch.setattr(body_times, "SHORT", 60.0)  # however busy the machine is
    monkeypatch.setattr(read_ahead, "LONGEST_WAIT", 600.0)
    reads: list[bool] = []
    add_read = BodyTimes.add_read

    def add_and_note(times: BodyTimes, *, is_full: bool) -> None:
        reads.append(is_full)
        add_read(times, is_full=is_full)

    monkeypatch.setattr(BodyTimes, "add_read", add_and_note)
    most_ahead = 0

    @app.task
    async def body() -> None:
        nonlocal most_ahead
        most_ahead = max(most_ahead, ahead_of(worker).count)

    results = await body.map([()] * 3000)
    worker = Worker(app, concurrency=50)
    async with worker:
        await results.get(timeout=60)
    assert most_ahead, "the worker fetched ahead"
    while not reads[-1]:
        reads.pop()  # the queue was empty then
    assert all(reads), "each read got what it had asked for, while there was a backlog"


async def test_a_job_for_a_thread_is_not_held_ahead_without_a_thread(app, always_ahead, say):
    """It goes into the executor queue, as without fetching ahead."""
    go = asyncio.Event()

    @app.task
    def in_thread(number: int) -> int:
        asyncio.run_coroutine_threadsafe(go.wait(), loop).result()
        return number

    loop = asyncio.get_running_loop()
    app_threads = app.settings.threads
    async with Worker(app, concurrency=2 * app_threads) as worker:
        results = [await in_thread.delay(number) for number in range(app_threads + 3)]
        await until(
            lambda: any("^t" in name for name in session_of(worker).consumer.served.streams.values()),
            "jobs to be moved into the executor queue",
        )
        assert await (await say.delay("not held up")).get(timeout=30) == "not held up"
        go.set()
        assert await app.ResultSet(results).get(timeout=30) == list(range(app_threads + 3))


# -- that they have not begun --


async def test_revoke_ends_a_job_that_was_fetched_ahead_and_its_body_never_starts(
    app, say, order, gate, always_ahead
):
    results = [await say.delay(word) for word in "abc"]
    async with Worker(app, concurrency=1) as worker:
        await until_ahead(worker, 3)
        assert await results[1].revoke(wait=True) == "REVOKED"
        gate.open.set()
        assert await results[2].get(timeout=30) == "c"
        assert await results[0].get(timeout=30) == "a"
    assert order == ["a", "c"]
    assert await results[1].refresh() == "REVOKED"


@pytest.mark.one_shard
async def test_a_stopping_worker_hands_back_at_once_what_it_has_fetched_ahead(
    app, say, order, gate, raw, always_ahead
):
    results = [await say.delay(word) for word in "abc"]
    async with Worker(app, concurrency=1, grace=60) as worker:
        await until_ahead(worker, 3)
        results.append(await say.delay("d"))
        worker.stop()

        async def all_returned() -> bool:
            names = [keys.stream("default^r") for keys in app.sessions.shards]
            queues = [keys.stream("default") for keys in app.sessions.shards]
            # The last job was read, too, if the server served its enqueue before a read that was under way.
            # (The server itself knows no number of these while the last job that was read is deleted.)
            read = [(await raw.xinfo_groups(queue))[0]["last-delivered-id"] for queue in queues]
            pairs = zip(queues, read, strict=True)
            unread = sum([len(await raw.xrange(queue, b"(" + last)) for queue, last in pairs])
            return sum([await raw.xlen(name) for name in names]) == 4 - unread

        await until(all_returned, "the jobs to be handed back while the gate holds its slot")
        gate.open.set()
    assert order == []
    async with Worker(app, concurrency=1):
        await app.ResultSet(results).get(timeout=30)
    if app.sessions.shards.is_one:
        assert order == ["a", "b", "c", "d"]


async def test_jobs_that_wait_behind_a_long_body_go_back_to_the_front_of_their_queue(
    app, say, order, gate, monkeypatch
):
    monkeypatch.setattr(read_ahead, "BodyTimes", AlwaysShort)
    results = [await say.delay(word) for word in "abc"]
    async with Worker(app, concurrency=1) as first:
        await until(lambda: not ahead_of(first).times.most, "the worker to give the jobs back")
        await until(lambda: len(session_of(first).held) == 1, "the server to have them")
        results.append(await say.delay("d"))
        async with Worker(app, concurrency=1):
            await app.ResultSet(results).get(timeout=30)
        gate.open.set()
    if app.sessions.shards.is_one:
        assert order == ["a", "b", "c", "d"]
    assert {(await result.outcome()).attempts for result in results} == {1}


@pytest.mark.one_shard
async def test_no_crash_counts_for_a_job_that_was_fetched_ahead(
    make_app, server_url, namespace, tmp_path, raw
):
    """With `max_crashes=1`, a job for which a crash counts is lost."""
    log, opened = tmp_path / "log", tmp_path / "gate"
    settings = {"lease": 1, "max_crashes": 1, "concurrency": 1}
    app = make_app(**settings)
    jobs = register(app)
    async with app:
        await jobs.wait_for_file.options(task_id="holds").delay(str(log), "holds", str(opened))
        bad = await jobs.poison.options(task_id="bad").delay(str(log))
        behind = [await jobs.logged.options(task_id=f"behind-{n}").delay(str(log), f"{n}") for n in range(3)]

        async def has_all() -> bool:
            groups = [
                await raw.xpending(keys.stream("default"), "g")
                for keys in app.sessions.shards
                if await raw.exists(keys.stream("default"))
            ]
            return sum(group["pending"] for group in groups) == 5

        with worker_process(server_url, namespace, module="helpers.worker_ahead", **settings) as victim:
            await until(has_all, "the worker to fetch all jobs")
            await until(lambda: lines(log) == ["start holds 1"], "the first job to begin")
            opened.touch()
            await until(lambda: victim.process.poll() is not None, "the job to kill its worker")
        assert not any(line.startswith("start") for line in lines(log)[1:]), "no job behind it has begun"
        async with Worker(app):
            assert [await result.get(timeout=30) for result in behind] == ["0", "1", "2"]
            with pytest.raises(WorkerLost):
                await bad.get(timeout=30)
    assert [line for line in lines(log) if line.startswith("poison")] == ["poison 1 default"]


async def test_the_server_keeps_no_note_of_a_stream_when_the_worker_fetches_ahead_no_more(
    app, say, raw, always_ahead
):
    async with Worker(app, concurrency=1) as worker:
        session = session_of(worker)
        assert await (await say.delay("noted")).get(timeout=30) == "noted"

        async def notes() -> list[bytes]:
            found = [await raw.hkeys(keys.started + session.consumer.name) for keys in app.sessions.shards]
            return [name for names in found for name in names]

        await until(notes, "the worker to note what has begun")
        ahead_of(worker).times.most = 0
        assert await (await say.delay("last")).get(timeout=30) == "last"

        async def is_empty() -> bool:
            return not await notes()

        await until(is_empty, "the note to be removed")
        # The worker forgets it only after the answer of the server, whose state the test may see before that.
        await until(lambda: not ahead_of(worker).notes.streams, "the worker to forget the note")


# -- when the note does not reach the server --


async def test_nothing_begins_until_the_server_has_the_note(app, say, order, gate, always_ahead, monkeypatch):
    results = [await say.delay(word) for word in "abc"]
    async with Worker(app, concurrency=1) as worker:
        await until_ahead(worker, 3)
        consumer = session_of(worker).consumer
        send, failures = consumer.post_note, []

        def fails(keys, notes):
            failures.append(list(order))
            reply = asyncio.get_running_loop().create_future()
            reply.set_result(PipeBroken("no connection"))
            return reply

        monkeypatch.setattr(consumer, "post_note", fails)
        gate.open.set()
        await until(lambda: len(failures) >= 3, "the note to be sent again")
        assert order == []
        monkeypatch.setattr(consumer, "post_note", send)
        await app.ResultSet(results).get(timeout=30)
    assert order == ["a", "b", "c"]
    assert failures == [[]] * len(failures)


async def test_jobs_begin_in_order_while_connections_break(app, say, order, always_ahead):
    async with Worker(app, concurrency=2):
        commands = app.sessions.current().broker.commands
        results = []
        for number in range(300):
            results.append(await say.delay(f"{number}"))
            if number % 60 == 59:
                commands.reconnect()
        await app.ResultSet(results).get(timeout=60)
    assert sorted(order, key=int) == [f"{number}" for number in range(300)]
