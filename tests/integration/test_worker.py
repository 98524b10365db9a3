"""A worker in this process: order, concurrency, rubbish in the queue, cut connections, and graceful stops."""

from __future__ import annotations

import asyncio
import time

import msgpack
import pytest
from helpers.inside import session_of
from helpers.stopwatch import Stopwatch
from helpers.waiting import until, until_state

import asyncq
from asyncq import BrokerUnavailable, DecodeError, Worker, wire

pytestmark = pytest.mark.anyio


@pytest.fixture
def ran(app):
    return []


@pytest.fixture
def note(app, ran):
    @app.task
    async def note(text: str, seconds: float = 0.0) -> str:
        ran.append(text)
        await asyncio.sleep(seconds)
        return text

    return note


@pytest.mark.one_shard
async def test_jobs_of_one_queue_start_in_the_order_of_their_enqueue(app, note, ran):
    results = await note.map([(str(i),) for i in range(300)])
    async with Worker(app, concurrency=1):
        await results.get(timeout=30)
    assert ran == [str(i) for i in range(300)]


async def test_a_worker_serves_the_first_queue_in_its_list_first(app, note, ran):
    for queue in ("low", "default", "high"):
        await note.options(queue=queue).map([(f"{queue}{i}",) for i in range(5)])
    async with Worker(app, concurrency=1, queues=["high", "default", "low"]):
        await until(lambda: len(ran) == 15, "all fifteen")
    assert ran == [f"{queue}{i}" for queue in ("high", "default", "low") for i in range(5)]


async def test_a_worker_without_queue_names_serves_the_default_queue_and_those_of_its_tasks(app, note, ran):
    @app.task(queue="mail")
    async def send(text: str) -> None:
        ran.append(text)

    async with Worker(app) as worker:
        assert worker.queues == ["default", "mail"]
        await note.call("a")
        await send.call("b")
    assert ran == ["a", "b"]


async def test_a_worker_does_not_read_other_queues(app, note, ran):
    other = await note.options(queue="other").delay("other")
    async with Worker(app, queues=["default"]):
        await note.call("mine")
        assert await other.refresh() == "PENDING"
    assert ran == ["mine"]


@pytest.mark.parametrize("bad", ["default", ["a b"], ["ok", ""]])
def test_invalid_queue_names_are_refused(make_app, bad):
    with pytest.raises((ValueError, TypeError)):
        Worker(make_app(), queues=bad)


@pytest.mark.parametrize("concurrency", [1, 3, 10])
async def test_no_more_jobs_run_at_once_than_the_concurrency(app, concurrency):
    now = most = 0

    @app.task
    async def count() -> None:
        nonlocal now, most
        now += 1
        most = max(most, now)
        await asyncio.sleep(0.01)
        now -= 1

    async with Worker(app, concurrency=concurrency):
        await (await count.map([()] * 40)).get(timeout=30)
    assert most == concurrency


async def test_jobs_that_a_worker_cannot_run_yet_stay_in_the_queue_for_other_workers(
    make_app, app, note, ran
):
    async with Worker(app, concurrency=1):
        first = await note.delay("first", 0.4)
        await until_state(first, "STARTED")
        second = await note.delay("second")
        assert await second.refresh() == "PENDING"
        async with Worker(app, concurrency=1):
            await second.get(timeout=30)
            assert not await first.ready()
        await first.get(timeout=30)


async def test_the_number_of_threads_of_a_worker_is_bounded(make_app):
    import threading

    now = most = 0
    lock = threading.Lock()
    async with make_app(threads=2) as app:

        @app.task
        def count() -> None:
            nonlocal now, most
            with lock:
                now += 1
                most = max(most, now)
            time.sleep(0.02)
            with lock:
                now -= 1

        async with Worker(app):
            await (await count.map([()] * 12)).get(timeout=30)
    assert most == 2


async def test_a_worker_whose_loop_is_blocked_longer_than_the_lease_is_not_taken_for_dead(
    make_app, server_url, namespace
):
    from helpers.worker_process import worker_process

    async with make_app(lease=0.6) as app:

        @app.task
        async def blocks() -> int:
            time.sleep(1.5)  # noqa: ASYNC251  the test blocks the loop
            return asyncq.current().attempt

        with worker_process(server_url, namespace, lease=0.6, queues=("default",)) as _:
            # The other worker observes this one. It does not know the task, and must not take over the job.
            async with Worker(app, queues=["mine"]):
                assert await blocks.options(queue="mine").call() == 1


# -- rubbish ---------------------------------------------------------------------------------------

GOOD = [wire.SCHEMA, "no.task", b"\x92\x90\x80", "request", "", 1, 60_000, None]
RUBBISH: dict[str, dict] = {
    "not ours at all": {"hello": "world"},
    "no message": {"i": "junk"},
    "no id": {"m": b"x"},
    "not msgpack": {"i": "junk", "m": b"\xc1\xff"},
    "empty": {"i": "junk", "m": b""},
    "a number": {"i": "junk", "m": msgpack.packb(7)},
    "too short": {"i": "junk", "m": msgpack.packb([1, "x"])},
    "another schema": {"i": "junk", "m": msgpack.packb([99, *GOOD[1:]])},
    "a name that is no text": {"i": "junk", "m": msgpack.packb([1, 5, *GOOD[2:]])},
    "a body that is no bytes": {"i": "junk", "m": msgpack.packb([1, "x", "text", *GOOD[3:]])},
    "a life of nothing": {"i": "junk", "m": msgpack.packb([*GOOD[:6], 0, None])},
    "options that are no map": {"i": "junk", "m": msgpack.packb([*GOOD[:7], [1]])},
    "an expiry that is no time": {"i": "junk", "m": msgpack.packb([*GOOD[:7], {"x": "soon"}])},
    "headers that are no map": {"i": "junk", "m": msgpack.packb([*GOOD[:7], {"h": 5}])},
    "a parent that is no id": {"i": "junk", "m": msgpack.packb([*GOOD[:7], {"p": 5}])},
    "an id that is no text": {"i": b"\xff\xfe", "m": msgpack.packb(GOOD)},
    "a count that is no number": {"i": "junk", "m": msgpack.packb(GOOD), "c": "many"},
    "more than a stream should hold": {"i": "junk", "m": b"z" * 3_000_000},
    "nested beyond reason": {"i": "junk", "m": b"\x91" * 5000 + b"\x00"},
    "many fields": {f"f{i}": "x" for i in range(500)},
}


async def test_rubbish_in_the_queue_is_quarantined_and_counted_and_disturbs_no_job(app, note, raw):
    stream = app.sessions.shards[0].stream("default")
    async with Worker(app, concurrency=4) as worker:
        await note.call("before")
        for fields in RUBBISH.values():
            await raw.xadd(stream, fields)
        assert await note.options(wait=30).call("after") == "after"
        await until(
            lambda: worker.malformed >= len(RUBBISH), f"{len(RUBBISH)} quarantined, not {worker.malformed}", 5
        )
        assert worker.malformed == len(RUBBISH)
        await until_empty(raw, stream)
    letters = await raw.xrange(app.sessions.shards[0].dead)
    assert len(letters) == len(RUBBISH)
    assert all(letter[b"why"] and letter[b"raw"] for _, letter in letters)


async def until_empty(raw, stream) -> None:
    async def empty() -> bool:
        return await raw.xlen(stream) == 0 and (await raw.xpending(stream, "g"))["pending"] == 0

    await until(empty, f"{stream} to be empty")


@pytest.mark.one_shard
async def test_a_job_whose_message_was_broken_fails_and_its_waiter_is_notified(app, note, raw):
    stream = app.sessions.shards[0].stream("default")
    result = await note.delay("x")
    waiting = asyncio.create_task(result.get(timeout=60))
    ((entry, fields),) = await raw.xrange(stream)
    await raw.xdel(stream, entry)
    again = await raw.xadd(stream, {"i": fields[b"i"], "m": b"broken"})
    key = app.sessions.shards[0].records + result.id
    await raw.set(key, (await raw.get(key)).replace(entry, again))
    async with Worker(app) as worker:
        with pytest.raises(DecodeError):
            await waiting
        assert worker.malformed == 1
    assert result.state == "FAILURE"


async def test_a_job_fails_if_its_arguments_cannot_be_decoded(app, note, raw):
    job = wire.Job("job", note.name, "default", b"\xc1", "request", app.sessions.channel(), 1, 60_000)
    await app.sessions.current().broker.intake.enqueue_many([(job, wire.encode_job(job))])
    async with Worker(app) as worker:
        outcome = await app.AsyncResult("job").outcome(timeout=30)
        assert (outcome.state, worker.malformed) == ("FAILURE", 0)


@pytest.mark.reads_bytes
async def test_an_entry_without_a_record_is_run_and_leaves_nothing(app, note, ran, raw):
    # The server may have evicted the record. The message is complete, so the job runs.
    job = wire.Job("orphan", note.name, "default", note.arguments.dumps(("orphan",), {}), "n", "", 1, 60_000)
    stream = app.sessions.shards[0].stream("default")
    await raw.xadd(stream, {"i": "orphan", "m": wire.encode_job(job)})
    async with Worker(app):
        await until(lambda: ran == ["orphan"], "the orphan to run")
        await until_empty(raw, stream)
    assert await raw.get(app.sessions.shards[0].records + "orphan") is None


# -- cuts ------------------------------------------------------------------------------------------


async def test_no_job_is_lost_while_every_connection_is_cut_again_and_again(app, note, ran, raw):
    async with Worker(app, concurrency=20):
        results = []

        async def send() -> None:
            for i in range(40):
                results.extend(await note.map([(f"{i}.{n}", 0.005) for n in range(10)]))
                await asyncio.sleep(0.02)

        sending = asyncio.create_task(send())
        for _ in range(10):
            await asyncio.sleep(0.08)
            for client in await raw.client_list():
                if client["name"].startswith("asyncq"):
                    await raw.client_kill_filter(_id=client["id"])
        await asyncio.wait_for(sending, 30)
        values = await asyncio.gather(*(result.get(timeout=30) for result in results))
    assert values == [f"{i}.{n}" for i in range(40) for n in range(10)]
    assert len(ran) == 400, "and none ran twice: a cut is no crash"
    await until_empty(raw, app.sessions.shards[0].stream("default"))


@pytest.mark.reads_bytes
@pytest.mark.parametrize("queues", [["default"], ["other", "default"]])
@pytest.mark.one_server("its plain client cannot read in a transaction of a Cluster")
async def test_a_job_whose_delivery_was_lost_with_the_connection_is_found_at_once(make_app, raw, queues):
    async with make_app(lease=20) as app:
        ran = asyncio.Event()

        @app.task
        async def note() -> None:
            ran.set()

        @app.task(queue="other")
        async def long() -> None:
            await asyncio.sleep(30)

        stream = app.sessions.shards[0].stream("default")
        async with Worker(app, queues=queues) as worker:
            entry = "*"
            if len(queues) > 1:
                beside = await long.delay()
                await until_state(beside, "STARTED")
                # Each stream numbers its entries itself, so two jobs in different queues may have the same
                # entry id.
                record = await raw.get(app.sessions.shards[0].records + beside.id)
                entry = record.split(b" ")[1]
            name = session_of(worker).consumer.name

            async def readers() -> list[str]:
                found = [each for each in await raw.client_list() if each["name"] == f"asyncq-read:{name}"]
                return [each["id"] for each in found if "b" in each["flags"]]

            blocked = await until(readers, "the worker's read to wait at the server")
            job = wire.Job("unknown", note.name, "default", note.arguments.dumps((), {}), "n", "", 1, 60_000)
            # The server delivers the job to the worker, and the reply never arrives.
            async with raw.pipeline(transaction=True) as both:
                both.xadd(stream, {"i": "unknown", "m": wire.encode_job(job)}, id=entry)
                both.xreadgroup("g", name, {stream: ">"}, count=1)
                await both.execute()
            for reader in blocked:
                await raw.client_kill_filter(_id=reader)
            await asyncio.wait_for(ran.wait(), 30)
            await until_empty(raw, stream)
            if len(queues) > 1:
                await beside.revoke(terminate=True)


async def test_a_worker_creates_the_consumer_group_again_after_the_server_lost_it(app, note, raw):
    async with Worker(app):
        await note.call("before")
        await raw.delete(app.sessions.shards[0].stream("default"))
        assert await note.options(wait=30).call("after") == "after"


async def test_a_worker_loads_its_scripts_again_after_the_server_lost_them(app, note, raw):
    async with Worker(app):
        await note.call("before")
        await raw.script_flush()
        assert await note.options(wait=30).call("after") == "after"


async def test_a_worker_that_cannot_reach_its_server_raises_at_its_start(make_app, tmp_path):
    app = make_app(f"unix://{tmp_path}/nobody", operation_timeout=1.2)
    with pytest.raises(BrokerUnavailable, match="nobody"):
        await Worker(app).run()


# -- the end ---------------------------------------------------------------------------------------


async def test_a_stopping_worker_takes_no_new_jobs_and_lets_running_jobs_end(app, note, ran):
    async with Worker(app, grace=5) as worker:
        running = await note.delay("running", 0.2)
        await until(lambda: ran, "the body to start")
        worker.stop()
        late = await note.delay("late")
    assert await running.get(timeout=30) == "running"
    assert await late.refresh() == "PENDING"
    assert ran == ["running"]


async def test_a_job_that_does_not_end_within_the_grace_returns_to_the_queue(app, note, ran):
    async with Worker(app, grace=0.05) as worker:
        coroutine = await note.delay("job", 30)
        await until_state(coroutine, "STARTED")
    assert worker.handed_back == 1
    assert await coroutine.refresh() == "PENDING"
    await coroutine.revoke()


async def test_a_second_stop_hands_jobs_back_at_once(app, note):
    stopwatch = Stopwatch()
    async with Worker(app, grace=20) as worker:
        result = await note.delay("job", 30)
        await until_state(result, "STARTED")
        worker.stop()
        worker.stop()
    assert stopwatch.took < 3
    assert await result.refresh() == "PENDING"


async def test_a_cancelled_worker_hands_its_jobs_back_at_once(app, note):
    worker = Worker(app, grace=20)
    running = asyncio.create_task(worker.run())
    await worker.started.wait()
    result = await note.delay("job", 30)
    await until_state(result, "STARTED")
    stopwatch = Stopwatch()
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running
    assert stopwatch.took < 3
    assert await result.refresh() == "PENDING"


async def test_a_job_revoked_while_it_is_handed_back_never_starts_again(app, note, ran):
    async with Worker(app, grace=0.2):
        result = await note.delay("job", 30)
        await until_state(result, "STARTED")
        await result.revoke()
    assert await result.refresh() == "REVOKED"


@pytest.mark.one_shard
async def test_a_worker_leaves_nothing_behind(app, note, raw):
    async with Worker(app):
        await note.call("x")
    left = {key async for key in raw.scan_iter(match=f"{app.sessions.shards[0].tag}*")}
    ending = {key for key in left if await raw.pttl(key) > 0}  # the record, and the name of the watcher
    keys = app.sessions.shards[0]
    queue = {keys.stream("default").encode(), keys.stream("default!").encode()}
    assert left - ending <= queue | {keys.known_queues.encode()}
    assert await raw.xinfo_consumers(app.sessions.shards[0].stream("default"), "g") == []


@pytest.mark.parametrize("bad", [0, -3])
def test_a_worker_with_a_concurrency_below_one_is_refused(make_app, bad):
    with pytest.raises(ValueError, match="at least 1"):
        Worker(make_app(), concurrency=bad)


@pytest.mark.parametrize("step", range(40))
async def test_a_worker_that_is_cancelled_while_it_starts_leaves_nothing_open(make_app, step):
    app = make_app()
    running = asyncio.create_task(Worker(app).run())
    await asyncio.sleep(step * 0.00015)  # stops at some point within 6 ms
    running.cancel()
    await asyncio.wait([running])
    assert not app.sessions.is_any_open


@pytest.mark.parametrize("step", range(20))
async def test_a_block_that_is_cancelled_while_its_worker_starts_leaves_no_worker_behind(make_app, step):
    app = make_app()
    worker = Worker(app)

    async def block() -> None:
        async with worker:
            await asyncio.Event().wait()

    running = asyncio.create_task(block())
    await asyncio.sleep(step * 0.0003)  # stops at some point within 6 ms
    running.cancel()
    await asyncio.wait([running])
    assert running.cancelled()
    assert not app.sessions.is_any_open
