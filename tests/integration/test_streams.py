"""The items of a generator task reach every reader: each item once, in order, whatever happens."""

from __future__ import annotations

import asyncio
import copy
import gc
import pickle
import signal
import time
from collections.abc import AsyncIterator, Iterator  # noqa: TC003  read at run time, for the items' type
from dataclasses import dataclass
from types import SimpleNamespace

import pytest
from helpers import worker_jobs
from helpers.inside import be_the_only_app, drop_subscription
from helpers.notes import lines
from helpers.own_server import own_server
from helpers.stopwatch import Stopwatch
from helpers.waiting import until, until_state
from helpers.worker_process import worker_process

import asyncq
from asyncq import (
    AsyncQ,
    PayloadTooLarge,
    QueueFull,
    ResultNotFound,
    Retry,
    StreamResult,
    TaskRevoked,
    TimeLimitExceeded,
    Worker,
    WouldDeadlock,
    group,
)
from asyncq.broker.commands import Commands

pytestmark = pytest.mark.anyio


@dataclass
class Point:
    x: int
    y: int


def _register(app: AsyncQ) -> SimpleNamespace:
    """Generator tasks, with a gate between any two items for those that ask for it."""
    gate: asyncio.Queue[object] = asyncio.Queue()
    yielded: list[int] = []
    closed = asyncio.Event()

    @app.task(name="count")
    async def count(n: int, size: int = 0) -> AsyncIterator[int | str]:
        for i in range(1, n + 1):
            yield "x" * size if size else i

    @app.task(name="stepwise")
    async def stepwise(n: int) -> AsyncIterator[int]:
        try:
            for i in range(1, n + 1):
                await gate.get()
                yielded.append(i)
                yield i
            await gate.get()
        finally:
            closed.set()

    @app.task(name="endless")
    async def endless() -> AsyncIterator[int]:
        try:
            i = 0
            while True:
                i += 1
                yielded.append(i)
                yield i
        finally:
            closed.set()

    def step(times: int = 1) -> None:
        for _ in range(times):
            gate.put_nowait(None)

    return SimpleNamespace(
        count=count,
        stepwise=stepwise,
        endless=endless,
        step=step,
        yielded=yielded,
        closed=closed,
    )


def _register_plain(app: AsyncQ):
    @app.task(name="plain")
    def plain(n: int) -> Iterator[int]:
        yield from range(1, n + 1)

    return plain


@pytest.fixture
def tasks(app):
    return _register(app)


async def _all(result, after=None, limit=20.0) -> list:
    async with asyncio.timeout(limit):
        return [item async for item in result.stream(after)]


async def test_items_are_read_as_they_are_yielded_and_the_value_of_the_job_is_none(app, tasks):
    async with Worker(app):
        result = await tasks.stepwise.delay(3)
        assert isinstance(result, StreamResult)
        stream = result.stream()
        assert stream.offset == 0
        for n in (1, 2, 3):
            tasks.step()
            assert await anext(stream) == n
            assert stream.offset == n
        tasks.step()
        assert await anext(stream, "end") == "end"
        assert await anext(stream, "end") == "end"
        assert await result is None


@pytest.mark.parametrize(("n", "size"), [(0, 0), (1, 0), (499, 0), (5000, 0), (300, 1000), (12, 300_000)])
async def test_early_and_late_readers_get_every_item_once_and_in_order(app, make_app, tasks, n, size):
    expected = ["x" * size] * n if size else list(range(1, n + 1))
    async with make_app() as elsewhere, Worker(app):
        result = await tasks.count.delay(n, size)
        other = elsewhere.AsyncResult(result.id)
        early = await asyncio.gather(_all(result), _all(result), _all(other))
        assert early == [expected] * 3
        assert await _all(result) == expected, "read later, by the handle that knows the end"
        assert await _all(elsewhere.AsyncResult(result.id), after=n - 1 if n else 0) == expected[-1:]
        assert await _all(result, after=n + 10) == []


async def test_a_reader_can_start_behind_an_offset(app, tasks):
    async with Worker(app):
        result = await tasks.count.delay(100)
        stream = result.stream()
        async for item in stream:
            if item == 40:
                break
        assert await _all(result, after=stream.offset) == list(range(41, 101))
        with pytest.raises(ValueError, match="after"):
            result.stream(after=-1)


async def test_items_have_the_type_that_the_task_declares(app):
    @app.task(name="points")
    async def points(n: int) -> AsyncIterator[Point]:
        for i in range(n):
            yield Point(i, -i)

    async with Worker(app):
        result = await points.delay(2)
        assert await _all(result) == [Point(0, 0), Point(1, -1)]
        assert await _all(points.AsyncResult(result.id)) == [Point(0, 0), Point(1, -1)]


async def test_a_plain_generator_runs_in_a_thread_and_is_read_from_another(app):
    plain = _register_plain(app)
    async with Worker(app):
        result = await plain.delay(2500)
        items = await asyncio.to_thread(lambda: list(result.stream_sync()))
        assert items == list(range(1, 2501))
        stream = await asyncio.to_thread(result.stream_sync, 2498)
        assert await asyncio.to_thread(list, stream) == [2499, 2500]
        assert stream.offset == 2500


async def test_a_failure_is_raised_after_the_last_item(app):
    @app.task(name="broken")
    async def broken(n: int) -> AsyncIterator[int]:
        for i in range(1, n + 1):
            yield i
        raise KeyError("after all of them")

    async with Worker(app):
        result = await broken.delay(7)
        seen = []
        with pytest.raises(KeyError, match="after all of them"):
            await _into(seen, result.stream())
        assert seen == list(range(1, 8))
        with pytest.raises(KeyError):
            await result


async def _into(seen: list, stream) -> None:
    async with asyncio.timeout(20):
        async for item in stream:
            seen.append(item)  # noqa: PERF401  keeps what came before the exception


async def test_an_exceeded_time_limit_is_raised_after_the_last_item(app):
    @app.task(name="slow", timeout=0.1)
    async def slow() -> AsyncIterator[int]:
        yield 1
        await asyncio.Event().wait()

    async with Worker(app):
        seen = []
        with pytest.raises(TimeLimitExceeded):
            await _into(seen, (await slow.delay()).stream())
        assert seen == [1]


async def test_an_attempt_that_yields_the_same_items_again_adds_none_twice(app):
    @app.task(name="flaky", retry=Retry(max_retries=2, backoff=0.01, jitter=False))
    async def flaky() -> AsyncIterator[int]:
        for i in range(1, 11):
            if i == 4 * asyncq.current().attempt:
                raise OSError
            yield i

    async with Worker(app):
        assert await _all(await flaky.delay()) == list(range(1, 11))


async def test_a_revocation_reaches_readers_and_closes_the_generator(app, tasks):
    async with Worker(app):
        result = await tasks.stepwise.delay(10)
        tasks.step(2)
        stream = result.stream()
        assert [await anext(stream), await anext(stream)] == [1, 2]
        await result.revoke(terminate=True)
        with pytest.raises(TaskRevoked):
            await anext(stream)
        await asyncio.wait_for(tasks.closed.wait(), 30)


async def test_a_generator_in_a_thread_that_goes_on_after_its_time_is_stopped_at_its_next_item(app):
    gone = []

    @app.task(name="overtime", timeout=0.1)
    def overtime() -> Iterator[int]:
        try:
            while True:
                time.sleep(0.01)
                yield 1
        finally:
            gone.append(True)

    async with Worker(app):
        with pytest.raises(TimeLimitExceeded):
            await _into([], (await overtime.delay()).stream())
        await until(lambda: gone, "the thread to close its generator")


@pytest.mark.parametrize("timeout", [None, 0.3])
@pytest.mark.one_shard
async def test_items_of_a_thread_that_cannot_be_stopped_are_kept_as_long_as_its_result(
    make_app, raw, namespace, timeout
):
    gone = []
    async with make_app(stream_window=10) as app:

        @app.task(name="ahead", timeout=timeout)
        def ahead() -> Iterator[int]:
            try:
                while True:
                    yield 1
            finally:
                gone.append(True)

        async with Worker(app):
            result = await ahead.delay()
            stream = result.stream()
            assert await anext(stream) == 1
            channel = f"{{{namespace}:0}}:ev:{result.id}"
            await until(
                lambda: (
                    len(app.sessions.current().broker.listener.subscription._handlers.get(channel, ())) == 2
                ),
                "the generator to wait for its reader",
            )
            if timeout is None:
                await result.revoke(terminate=True)
            await until(lambda: gone, "the thread to close its generator")
        left = await raw.pttl(f"{{{namespace}:0}}:s:{result.id}")
        assert 0 < left <= 3600 * 1000


async def test_a_job_that_has_ended_is_not_ended_again_because_it_has_no_reader(app):
    ended = []

    @app.task(name="quick")
    async def quick() -> int:
        running = asyncq.current().link

        def abandon(_task: object) -> None:
            running.abandon("nobody reads it")
            ended.append(True)

        asyncio.current_task().add_done_callback(abandon)
        return 1

    async with Worker(app) as worker:
        assert await quick.call() == 1
        assert ended
        assert worker.done == 1


@pytest.mark.one_shard
async def test_items_of_a_dead_worker_are_kept_as_long_as_the_result_of_a_job_revoked_without_a_worker(
    app, tasks, raw, namespace
):
    result = await tasks.count.delay(3)
    items = f"{{{namespace}:0}}:s:{result.id}"
    await raw.xadd(items, {"v": b"\x01"}, id="1-0")
    await raw.expire(items, 86_400)  # as the worker leaves them
    await result.revoke()
    assert 0 < await raw.pttl(items) <= 3600 * 1000


async def test_two_asyncio_tasks_may_read_one_stream(app, tasks):
    async with Worker(app):
        result = await tasks.stepwise.delay(2)
        stream = result.stream()
        both = [asyncio.create_task(anext(stream)) for _ in range(2)]
        tasks.step(3)
        assert sorted(await asyncio.gather(*both)) == [1, 2]
        assert await anext(stream, "end") == "end"


async def test_a_revocation_stops_a_thread_between_two_items(app):
    turns, gone = [], []

    @app.task(name="ticking")
    def ticking() -> Iterator[int]:
        try:
            while True:
                turns.append(len(turns))
                yield turns[-1]
                time.sleep(0.005)
        finally:
            gone.append(True)

    async with Worker(app):
        result = await ticking.delay()
        stream = result.stream()
        assert await anext(stream) == 0
        await result.revoke(terminate=True)
        await until(lambda: gone, "the thread to close its generator")
        with pytest.raises(TaskRevoked):
            await _into([], stream)


async def test_a_generator_does_not_run_far_ahead_of_its_reader(make_app):
    async with make_app(stream_window=50) as app:
        tasks = _register(app)
        async with Worker(app, grace=0):
            result = await tasks.endless.delay()
            stream = result.stream()
            for n in range(1, 501):
                assert await anext(stream) == n
                if n % 100 == 0:
                    await asyncio.sleep(0.05)
                # One turn of items may be on its way before the first answer shows the reader's position.
                assert n < 400 or tasks.yielded[-1] - n <= 50 + 25 + 100
            stopped = tasks.yielded[-1]
            await asyncio.sleep(0.2)
            assert tasks.yielded[-1] <= stopped + 100, "it waits"
            await result.revoke(terminate=True, wait=True)


async def test_the_furthest_reader_sets_the_pace(make_app):
    async with make_app(stream_window=50) as app:
        tasks = _register(app)
        async with Worker(app, grace=0):
            result = await tasks.endless.delay()
            slow, quick = result.stream(), result.stream()
            assert await anext(slow) == 1
            async with asyncio.timeout(10):
                while await anext(quick) < 3000:
                    pass
            assert [await anext(slow) for _ in range(10)] == list(range(2, 12))
            await result.revoke(terminate=True, wait=True)


async def test_without_a_reader_a_generator_runs_to_its_end(make_app):
    async with make_app(stream_window=10) as app:
        tasks = _register(app)
        async with Worker(app):
            result = await tasks.count.delay(3000)
            assert await result.get(timeout=30) is None
            assert len(await _all(result)) == 3000


async def test_a_reader_that_left_delays_neither_the_generator_nor_other_readers(make_app, monkeypatch):
    from asyncq.broker import broker
    from asyncq.worker import stream_readers

    monkeypatch.setattr(broker, "READER_AWAY_MS", 300)
    monkeypatch.setattr(stream_readers, "READER_AWAY_MS", 300)
    async with make_app(stream_window=10) as app:
        tasks = _register(app)
        async with Worker(app):
            result = await tasks.count.delay(5000)
            stream = result.stream()
            assert await anext(stream) == 1
            await stream.aclose()
            assert await anext(stream, "end") in {2, "end"}
            stopwatch = Stopwatch()
            assert await result.get(timeout=30) is None
            assert stopwatch.took < 5


async def test_a_job_with_too_many_items_fails_with_a_clear_error(make_app):
    async with make_app(stream_limit=30) as app:
        tasks = _register(app)
        async with Worker(app):
            assert len(await _all(await tasks.count.delay(30))) == 30
            seen = []
            with pytest.raises(PayloadTooLarge, match="stream_limit=30"):
                await _into(seen, (await tasks.count.delay(31)).stream())
            assert seen == list(range(1, 31))


async def test_a_job_fails_if_an_item_is_too_large(make_app):
    async with make_app(max_payload=1000) as app:
        tasks = _register(app)
        async with Worker(app):
            with pytest.raises(PayloadTooLarge, match="item 1 of count"):
                await _all(await tasks.count.delay(2, 2000))


async def test_a_job_fails_if_the_server_is_full_and_the_items_stored_before_are_readable(tmp_path):
    with own_server(tmp_path) as server:
        async with AsyncQ(server.url) as app:
            tasks = _register(app)
            async with Worker(app):
                result = await tasks.stepwise.delay(5)
                tasks.step()
                stream = result.stream()
                assert await anext(stream) == 1
                server.do("CONFIG", "SET", "maxmemory", "1")
                tasks.step(6)
                with pytest.raises(QueueFull, match="memory"):
                    await _into([], stream)


async def test_a_generator_that_nobody_reads_is_ended(make_app):
    async with make_app(stream_idle=0.4) as app:
        tasks = _register(app)
        async with Worker(app):
            result = await tasks.stepwise.delay(5)
            tasks.step(2)
            stopwatch = Stopwatch()
            with pytest.raises(TaskRevoked, match="nobody has read"):
                await result.get(timeout=30)
            assert 0.4 <= stopwatch.took < 3
            assert tasks.closed.is_set()


async def test_a_generator_that_is_read_is_not_idle_however_slow_it_is(make_app):
    async with make_app(stream_idle=0.4) as app:
        tasks = _register(app)
        async with Worker(app):
            result = await tasks.stepwise.delay(1)
            stream = result.stream()
            waiting = asyncio.create_task(anext(stream))
            await asyncio.sleep(1.2)
            tasks.step(2)
            assert await waiting == 1
            assert await anext(stream, "end") == "end"


@pytest.mark.one_shard
async def test_a_stream_is_kept_as_long_as_the_result_and_is_deleted_with_it(app, tasks, raw):
    async with Worker(app):
        result = await tasks.count.options(result_ttl=120).delay(3)
        assert await _all(result) == [1, 2, 3]
        key = app.sessions.shards[0].items + result.id

        async def short() -> bool:
            return 100 < await raw.ttl(key) <= 120

        await until(short, "the stream to live as long as the result")
        await result.forget()
        assert not await raw.exists(key, app.sessions.shards[0].reader_positions + result.id)
        with pytest.raises(ResultNotFound):
            await _all(app.AsyncResult(result.id))


async def test_a_live_stream_whose_result_is_forgotten_is_kept_no_longer_than_its_tombstone(app, tasks, raw):
    async with Worker(app):
        result = await tasks.stepwise.delay(1)
        tasks.step()
        stream = result.stream()
        assert await anext(stream) == 1
        await result.forget()
        tasks.step()
        await result.get(timeout=30)
        for key in (app.sessions.shards[0].items, app.sessions.shards[0].reader_positions):
            assert await raw.ttl(key + result.id) <= 60


@pytest.mark.one_shard
async def test_a_live_stream_is_kept_for_a_day(app, tasks, raw):
    async with Worker(app):
        result = await tasks.stepwise.delay(1)
        tasks.step()
        stream = result.stream()
        assert await anext(stream) == 1
        for key in (app.sessions.shards[0].items, app.sessions.shards[0].reader_positions):
            assert 80_000 < await raw.ttl(key + result.id) <= 86_400
        tasks.step()
        assert await anext(stream, "end") == "end"


async def test_readers_receive_all_items_though_their_subscription_is_cut_again_and_again(app, make_app, raw):
    @app.task(name="drip")
    async def drip(n: int) -> AsyncIterator[int]:
        for i in range(1, n + 1):
            await asyncio.sleep(0.002)
            yield i

    async with make_app() as elsewhere, Worker(app):
        result = await drip.delay(300)
        reading = asyncio.gather(_all(elsewhere.AsyncResult(result.id)), _all(result))
        while not await result.ready():
            await raw.execute_command("CLIENT", "KILL", "TYPE", "pubsub")
            await asyncio.sleep(0.05)
        assert await reading == [list(range(1, 301))] * 2


async def test_an_item_that_was_pushed_while_the_subscription_was_down_is_read(app, make_app, tasks):
    async with make_app() as elsewhere, Worker(app):
        result = await tasks.stepwise.delay(2)
        stream = elsewhere.AsyncResult(result.id).stream()
        tasks.step()
        assert await anext(stream) == 1
        drop_subscription(elsewhere)
        tasks.step()
        stopwatch = Stopwatch()
        assert await anext(stream) == 2
        assert stopwatch.took < 2, "at the reconnection, not by the slow poll"
        tasks.step()
        assert await anext(stream, "end") == "end"


async def test_no_item_is_lost_when_one_call_fails_and_the_next_one_succeeds(app, monkeypatch):
    @app.task(name="turns")
    async def turns(n: int) -> AsyncIterator[int]:
        for i in range(1, n + 1):
            yield i
            await asyncio.sleep(0)

    build, calls = Commands.build, []

    def first_fails(self, shard, name, *rest):
        command = build(self, shard, name, *rest)
        if name == "append_items":
            calls.append(command)
        return ("EVALSHA", "0" * 40, *command[2:]) if calls == [command] else command

    monkeypatch.setattr(Commands, "build", first_fails)
    async with Worker(app):
        assert await _all(await turns.delay(200)) == list(range(1, 201))
    assert len(calls) > 2


async def test_no_item_is_lost_when_the_workers_connections_are_cut(app, make_app, raw, tasks):
    async with make_app() as elsewhere, Worker(app):
        result = await tasks.count.delay(4000)
        reading = asyncio.create_task(_all(elsewhere.AsyncResult(result.id)))
        while not await result.ready():
            await raw.execute_command("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes")
            await asyncio.sleep(0.1)
        assert await reading == list(range(1, 4001))


async def test_no_item_is_read_twice_after_a_worker_is_killed_in_the_middle(
    app, server_url, namespace, tmp_path
):
    tasks = worker_jobs.register(app)
    log = str(tmp_path / "log")
    with worker_process(server_url, namespace) as first, worker_process(server_url, namespace) as second:
        result = await tasks.numbers.delay(log, 100, 0.01)
        items = []
        async for item in result.stream():
            items.append(item)
            if item == 30:
                [start] = lines(tmp_path / "log")
                victim = first if str(first.pid) in start else second
                victim.send(signal.SIGKILL)
        assert items == list(range(1, 101))
        assert len(lines(tmp_path / "log")) == 2, "it was run twice"


async def test_reading_a_stream_inside_a_task_must_be_allowed(app, tasks):
    @app.task(name="nosy")
    async def nosy(id: str) -> list[int]:
        with pytest.raises(WouldDeadlock):
            app.AsyncResult(id).stream()
        with asyncq.allow_join_result():
            return await _all(app.AsyncResult(id))

    async with Worker(app):
        result = await tasks.count.delay(3)
        assert await nosy.options(wait=30).call(result.id) == [1, 2, 3]


async def test_the_streams_of_unknown_ids_and_of_jobs_that_yield_nothing(app, tasks):
    @app.task(name="add")
    async def add(x: int, y: int) -> int:
        return x + y

    with pytest.raises(ResultNotFound):
        await _all(app.AsyncResult("nobody"))
    ignored = await tasks.count.options(ignore_result=True).delay(1)
    with pytest.raises(ResultNotFound):
        await _all(ignored)
    async with Worker(app):
        assert await _all(await add.delay(1, 2)) == []


@pytest.mark.one_shard
async def test_dropping_a_stream_unsubscribes(app, tasks, raw):
    result = await tasks.count.delay(1)
    channel = app.sessions.shards[0].events + result.id

    async def is_subscribed() -> bool:
        return bool((await raw.pubsub_numsub(channel))[0][1])

    stream = result.stream()
    waiting = asyncio.create_task(anext(stream))
    await until(is_subscribed, "the subscription")
    waiting.cancel()
    await asyncio.wait([waiting])
    del stream, waiting
    gc.collect()

    async def nobody() -> bool:
        return not await is_subscribed()

    await until(nobody, "the subscription to end")
    await result.revoke()


async def test_one_job_can_report_progress_and_yield_items(app):
    @app.task(name="both")
    async def both() -> AsyncIterator[int]:
        for i in (1, 2):
            await asyncq.current().progress(i, 2)
            yield i

    async with Worker(app):
        result = await both.delay()
        events = asyncio.create_task(_states(result))
        assert await _all(result) == [1, 2]
        assert (await events)[-1] == "SUCCESS"


async def _states(result) -> list[str]:
    return [str(event.state) async for event in result.events(timeout=30)]


async def test_a_generator_lets_other_jobs_of_its_queue_run(app, tasks):
    @app.task(name="quick")
    async def quick() -> int:
        return 1

    async with Worker(app, grace=0):
        result = await tasks.endless.delay()
        await until_state(result, "STARTED")
        stopwatch = Stopwatch()
        assert await quick.options(wait=30).call() == 1
        assert stopwatch.took < 2
        await result.revoke(terminate=True, wait=True)


def test_a_local_call_of_a_generator_task_has_its_items():
    app = AsyncQ("memory://")

    @app.task(name="here")
    async def here(n: int) -> AsyncIterator[Point]:
        for i in range(n):
            yield Point(i, i)

    @app.task(name="plainly")
    def plainly(n: int) -> Iterator[int]:
        yield from range(n)
        raise KeyError(n)

    assert list(here.apply(args=(2,)).stream_sync()) == [Point(0, 0), Point(1, 1)]
    assert list(here.apply(args=(2,)).stream_sync(after=1)) == [Point(1, 1)]
    items = plainly.apply(args=(2,)).stream_sync()
    assert [next(items), next(items)] == [0, 1]
    with pytest.raises(KeyError):
        next(items)


def test_a_workflow_that_ran_locally_has_the_items_of_its_generators():
    app = AsyncQ("memory://")

    @app.task(name="two")
    def two(n: int, scale: int = 1) -> Iterator[Point]:
        yield from (Point(n, scale), Point(n, -scale))

    @app.task(name="becomes")
    async def becomes(n: int) -> None:
        await asyncq.current().replace(two.s(n))

    @app.task(name="one")
    def one(n: int) -> int:
        return n

    workflow = (one.s(5) | two.s(3)).apply()
    assert (workflow.get_sync(), list(workflow.stream_sync())) == (None, [Point(5, 3), Point(5, -3)])
    first, second = group(two.s(1), two.s(2)).apply()
    assert [item.x for item in (*first.stream_sync(), *second.stream_sync(after=1))] == [1, 1, 2]
    assert [item["x"] for item in becomes.apply((7,)).stream_sync()] == [7, 7]


async def test_every_way_to_enqueue_a_generator_task_returns_a_stream_handle(app, tasks):
    call, plain = tasks.count.s(2), _register_plain(app)
    async with Worker(app):
        handles = [
            await tasks.count.delay(2),
            await tasks.count.apply_async((2,)),
            await tasks.count.options(expires=30).delay(2),
            await call.delay(),
            await tasks.count.si(2).apply_async(),
            await plain.apply_async((2,)),
            *(await tasks.count.map([(2,)])),
            *(await app.submit([call])),
            *(await group(call, call).delay()),
            await (tasks.count.si(1) | tasks.count.si(2)).delay(),
        ]
        assert {type(handle) for handle in handles} == {StreamResult}
        for handle in handles:
            assert [item async for item in handle.stream()] == [1, 2]
    assert type(handles[-1].parent) is StreamResult


@pytest.mark.parametrize("duplicate", [copy.copy, copy.deepcopy, lambda it: pickle.loads(pickle.dumps(it))])
async def test_a_copy_of_a_stream_handle_is_a_stream_handle(make_app, duplicate, monkeypatch):
    app = make_app()
    be_the_only_app(monkeypatch, app)
    tasks = _register(app)
    async with Worker(app):
        result = duplicate(await (tasks.count.si(1) | tasks.count.si(2)).delay())
        assert (type(result), type(result.parent)) == (StreamResult, StreamResult)
        assert [item async for item in result.stream()] == [1, 2]
        assert repr(result) == f"<StreamResult {result.id} count SUCCESS>"


async def test_a_saved_group_of_streams_is_restored_with_stream_handles(app, tasks):
    results = await group(tasks.count.s(1), tasks.count.s(2)).delay()
    await results.save()
    assert {type(one) for one in await app.GroupResult.restore(results.id)} == {StreamResult}


async def test_calls_of_a_generator_task_do_not_share_one_job(app, tasks):
    for several in (tasks.count.starmap, tasks.count.xmap, lambda calls: tasks.count.chunks(calls, 2)):
        with pytest.raises(TypeError, match=r"generator task.* use map"):
            several([(1,)])


async def test_a_direct_call_of_a_generator_task_returns_its_generator(app, tasks):
    assert [item async for item in tasks.count(3)] == [1, 2, 3]
    assert list(_register_plain(app)(3)) == [1, 2, 3]
