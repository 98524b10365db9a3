"""A namespace in several shards: users notice no difference, and messages between shards survive crashes."""

from __future__ import annotations

import asyncio
import itertools
from collections import Counter
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest
import redis
from helpers import outboxes, servers
from helpers.claiming import ClaimingConsumer
from helpers.inside import outbox_tasks_of
from helpers.own_server import OwnServer, free_port
from helpers.waiting import until, until_state

import asyncq
from asyncq import AsyncQ, BrokerUnavailable, Worker, allow_join_result, chain, chord, group
from asyncq.broker.consumer import Consumer
from asyncq.broker.schema.shards import Shards
from asyncq.broker.transport import supported_servers

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from asyncq.broker.entry_reader import Entry

pytestmark = pytest.mark.anyio

COUNT = 3
_SHARDS = Shards("any", COUNT)
_NUMBERS = itertools.count()


def named(shard: int, like: str = "job") -> str:
    """Returns an id, as a user might choose it, that lies in a shard."""
    ids = (f"{like}-{next(_NUMBERS)}" for _ in itertools.count())
    return next(id_ for id_ in ids if _SHARDS.number(id_) == shard)


@pytest.fixture
async def app(make_app: Any) -> AsyncIterator[AsyncQ]:
    async with make_app(shards=COUNT, lease=1.0) as app:
        yield app


def make_tasks(app: AsyncQ) -> Any:
    @app.task(name="add")
    async def add(x: int, y: int) -> int:
        return x + y

    @app.task(name="total")
    async def total(numbers: list[int]) -> int:
        return sum(numbers)

    @app.task(name="fail")
    async def fail(why: str) -> None:
        raise ValueError(why)

    @app.task(name="where")
    async def where() -> list[str]:
        inside = await add.delay(1, 1)
        return [asyncq.current().id, inside.id]

    return SimpleNamespace(add=add, total=total, fail=fail, where=where)


async def test_jobs_of_all_shards_run_and_their_handles_find_them(app):
    tasks = make_tasks(app)
    async with Worker(app):
        results = await tasks.add.map([(n, n) for n in range(300)])
        assert await results.get(timeout=30) == [2 * n for n in range(300)]
        assert set(Counter(app.sessions.shards.number(result.id) for result in results)) == {0, 1, 2}
        again = app.ResultSet([app.AsyncResult(result.id) for result in results])
        assert await again.get(timeout=30) == [2 * n for n in range(300)]


@pytest.mark.one_server("one reader takes its shards in turn; on a Cluster each shard has a reader")
async def test_no_shard_waits_while_another_shard_always_has_work(app):
    order: list[int] = []

    @app.task
    async def note(shard: int) -> None:
        order.append(shard)

    for shard in range(COUNT):
        await asyncio.gather(*(note.options(task_id=named(shard)).delay(shard) for _ in range(20)))
    async with Worker(app, concurrency=2):
        await until(lambda: len(order) == 20 * COUNT, "all jobs to run")
    assert {Counter(order[:30])[shard] for shard in range(COUNT)} == {10}


async def test_children_are_created_in_the_shard_of_their_parent(app):
    tasks = make_tasks(app)
    async with Worker(app):
        for shard in range(COUNT):
            ids = await tasks.where.options(task_id=named(shard)).call()
            assert [app.sessions.shards.number(id_) for id_ in ids] == [shard, shard]


async def test_all_jobs_of_a_workflow_are_in_one_shard(app):
    tasks = make_tasks(app)
    async with Worker(app):
        result = await chord([tasks.add.s(n, n) for n in range(100)], tasks.total.s()).delay()
        assert await result.get(timeout=30) == 9900
        assert len({app.sessions.shards.number(one.id) for one in [result, *result.parent]}) == 1


async def test_a_chain_runs_through_all_shards(app):
    tasks = make_tasks(app)
    steps = [tasks.add.s(1).set(task_id=named(n % COUNT)) for n in range(9)]
    async with Worker(app):
        result = await chain(tasks.add.s(0, 0).set(task_id=named(1)), *steps).delay()
        assert await result.get(timeout=30) == 9


async def test_a_chord_gathers_values_from_all_shards_in_order(app):
    tasks = make_tasks(app)

    @app.task
    async def same(values: list[int]) -> list[int]:
        return values

    async with Worker(app):
        for shard in range(COUNT):
            header = group(tasks.add.s(n, 0).set(task_id=named(n % COUNT)) for n in range(30))
            result = await (header | same.s().set(task_id=named(shard))).delay()
            assert await result.get(timeout=30) == list(range(30))


async def test_a_failure_is_forwarded_from_shard_to_shard_with_the_id_of_the_failed_member(app):
    tasks = make_tasks(app)
    first = named(0, "first")
    flow = chain(
        tasks.fail.si("broken").set(task_id=first),
        tasks.add.s(1).set(task_id=named(1)),
        tasks.add.s(1).set(task_id=named(2)),
        tasks.add.s(1).set(task_id=named(0)),
    )
    async with Worker(app):
        result = await flow.delay()
        with pytest.raises(ValueError, match="broken") as caught:
            await result.get(timeout=30)
    assert first in "".join(caught.value.__notes__)


async def test_an_error_callback_in_another_shard_is_called(app):
    tasks = make_tasks(app)
    received: asyncio.Future[str] = asyncio.get_running_loop().create_future()

    @app.task
    async def note(id: str, error: Exception, traceback: str) -> None:
        received.set_result(f"{id} {error}")

    id_ = named(0)
    async with Worker(app):
        await tasks.fail.s("oh").set(task_id=id_, link_error=note.s().set(task_id=named(2))).delay()
        assert await asyncio.wait_for(received, 30) == f"{id_} oh"


async def test_a_job_is_replaced_by_one_that_depends_on_jobs_in_all_shards(app):
    tasks = make_tasks(app)

    @app.task
    async def spread() -> int:
        members = group(tasks.add.s(n, 0).set(task_id=named(n % COUNT)) for n in range(9))
        await asyncq.current().replace(members | tasks.total.s())
        raise AssertionError

    async with Worker(app):
        result = await (spread.s().set(task_id=named(1)) | tasks.add.s(1).set(task_id=named(2))).delay()
        assert await result.get(timeout=30) == 37


async def test_revoking_a_workflow_revokes_its_jobs_in_all_shards(app):
    tasks = make_tasks(app)
    steps = [tasks.add.s(1).set(task_id=named(n % COUNT)) for n in range(6)]
    result = await chain(tasks.add.s(0, 0).set(task_id=named(2)), *steps).delay()
    await result.revoke()
    handle: Any = result
    while handle is not None:
        await until_state(app.AsyncResult(handle.id), "REVOKED")
        handle = handle.parent


async def test_a_workflow_is_refused_if_one_of_its_ids_is_in_use_in_another_shard(app):
    tasks = make_tasks(app)
    taken = await tasks.add.options(task_id=named(2)).delay(1, 1)
    mine = named(0)
    flow = chain(
        tasks.add.s(0, 0).set(task_id=mine),
        tasks.add.s(1).set(task_id=named(0)),
        tasks.add.s(1).set(task_id=taken.id),
    )
    with pytest.raises(ValueError, match=taken.id):
        await flow.delay()
    assert not await app.AsyncResult(mine).exists()


async def test_a_wait_that_completes_a_wait_cycle_across_shards_is_refused(app):
    first, second = named(0), named(2)
    ready = asyncio.Event()

    @app.task(name="waits")
    async def waits(id: str) -> str:
        with allow_join_result():
            if id == first:
                ready.set()
            return await app.AsyncResult(id).get(timeout=30)

    async with Worker(app):
        one = await waits.options(task_id=first).delay(second)
        two = await waits.options(task_id=second).delay(first)
        with pytest.raises(asyncq.WouldDeadlock, match=r"first|waits"):
            await asyncq.gather(one, two)


async def test_dead_letters_of_all_shards_are_listed_replayed_and_deleted(app):
    tasks = make_tasks(app)

    @app.task(name="dies", retry=asyncq.Retry(max_retries=1, backoff=0.01))
    async def dies(n: int) -> None:
        raise ValueError(n)

    async with Worker(app):
        for shard in range(COUNT):
            with pytest.raises(ValueError, match=str(shard)):
                await dies.options(task_id=named(shard)).call(shard)
        letters = await app.control.dead.list()
        assert [letter.error.args for letter in letters] == [(2,), (1,), (0,)]
        again = await app.control.dead.replay(letters[1].id)
        with pytest.raises(ValueError, match="1"):
            await again.get(timeout=30)
        letters = await app.control.dead.list()
        assert await app.control.dead.delete([letter.id for letter in letters]) == 3
        assert await app.control.dead.list() == []
    assert tasks


async def test_delayed_jobs_of_all_shards_start_in_time(app):
    tasks = make_tasks(app)
    async with Worker(app):
        calls = [tasks.add.options(task_id=named(n), countdown=0.05).delay(n, n) for n in range(COUNT)]
        results = await asyncio.gather(*calls)
        assert await asyncq.gather(*results, timeout=60) == (0, 2, 4)


async def test_a_running_job_in_any_shard_can_be_revoked_can_report_and_can_yield_items(app):
    @app.task
    async def numbers(n: int) -> AsyncIterator[int]:
        for number in range(n):
            yield number

    @app.task
    async def works() -> None:
        await asyncq.current().progress(1, 2)
        await asyncio.sleep(60)

    async with Worker(app):
        for shard in range(COUNT):
            stream = await numbers.options(task_id=named(shard)).delay(5)
            assert [item async for item in stream.stream()] == [0, 1, 2, 3, 4]
            result = await works.options(task_id=named(shard)).delay()
            async for event in result.events(timeout=30):
                if event.state == "PROGRESS":
                    break
            assert await result.revoke(terminate=True, wait=True, timeout=30)
            assert await result.refresh() == "REVOKED"


@pytest.mark.one_shard
async def test_an_app_with_another_number_of_shards_is_refused(app, make_app):
    other = make_app(shards=2, namespace=app.settings.namespace)
    with pytest.raises(asyncq.BrokerNotConfigured, match=r"has 3 shards .* says shards=2"):
        await other.open()
    single = make_app(namespace=app.settings.namespace)
    with pytest.raises(asyncq.BrokerNotConfigured, match="shards=1"):
        await single.open()


@pytest.mark.one_shard
async def test_a_namespace_whose_workers_have_one_shard_is_not_split(make_app):
    async with make_app() as app, Worker(app):
        with pytest.raises(asyncq.BrokerNotConfigured, match=r"has 1 shards .* says shards=3"):
            await make_app(shards=3).open()


async def test_a_worker_forwards_the_outbox_entries_of_a_client_that_died(app, raw, monkeypatch):
    tasks = make_tasks(app)

    async def is_too_late(_: object) -> None:
        raise BrokerUnavailable("died")

    monkeypatch.setattr(app.sessions.current().broker.commands.forwarder, "deliver", is_too_late)
    last = named(2)
    result = await chain(
        tasks.add.s(1, 1).set(task_id=named(0)),
        tasks.add.s(1).set(task_id=named(0)),
        tasks.add.s(1).set(task_id=last),
    ).delay()
    assert await raw.xlen(app.sessions.shards[0].outbox) == 1
    assert not await raw.exists(app.sessions.shards[2].records + last)
    monkeypatch.undo()
    async with Worker(app):
        assert await result.get(timeout=30) == 4
        await until(lambda: outboxes.are_empty(raw, app), "the outboxes to be empty")


async def test_no_script_touches_two_shards_which_a_cluster_would_refuse(tmp_path, monkeypatch):
    """A cluster with all slots on one node. Like any node, it refuses a call that touches two slots."""
    server = OwnServer(tmp_path, port=free_port()).start(cluster_enabled="yes", cluster_port=free_port())

    read = Consumer.read

    async def each_by_itself(
        consumer: Consumer, streams: Any, count: int, *, block: bool, **_: Any
    ) -> list[Entry]:
        # A blocking read names the streams of all shards. A cluster would refuse this.
        for stream in streams:
            if entries := await read(consumer, (stream,), count, block=False):
                return entries
        if block:
            await asyncio.sleep(0.01)
        return []

    monkeypatch.setattr(Consumer, "read", each_by_itself)
    monkeypatch.setattr(
        supported_servers, "problem", lambda *_: None
    )  # an app refuses a cluster's node at once
    try:
        server.do("CLUSTER", "ADDSLOTSRANGE", 0, 16383)
        await until(lambda: b"cluster_state:ok" in server.do("CLUSTER", "INFO"), "the cluster to be up")
        with pytest.raises(redis.exceptions.ResponseError, match="same slot"):
            server.do("MGET", "{any:0}:r:1", "{any:1}:r:1")
        async with AsyncQ(server.url, shards=COUNT) as app, Worker(app, concurrency=10):
            await _use_everything(app)
    finally:
        server.kill()


async def _use_everything(app: AsyncQ) -> None:
    tasks = make_tasks(app)

    @app.task
    async def items(n: int) -> AsyncIterator[int]:
        for number in range(n):
            yield number

    @app.task
    async def waits(id: str) -> int:
        with allow_join_result():
            return await app.AsyncResult(id).get(timeout=30)

    for first_shard in range(COUNT):
        ids = [named((first_shard + n) % COUNT) for n in range(12)]
        header = group(tasks.add.s(n, n).set(task_id=id_) for n, id_ in enumerate(ids))
        flow = header | tasks.total.s().set(task_id=named(first_shard)) | tasks.add.s(1).set(countdown=0.01)
        assert await (await flow.delay()).get(timeout=30) == 133
        failing = chain(
            tasks.fail.si("no").set(task_id=named(first_shard)),
            tasks.add.s(1).set(task_id=named((first_shard + 1) % COUNT)),
        )
        with pytest.raises(ValueError, match="no"):
            await (await failing.delay()).get(timeout=30)
        stream = await items.options(task_id=named(first_shard)).delay(3)
        assert [item async for item in stream.stream()] == [0, 1, 2]
        assert await waits.options(task_id=named(first_shard)).call(ids[0]) == 0
        queued = await tasks.add.options(countdown=60, task_id=named(first_shard)).delay(1, 1)
        await queued.revoke()
        assert await queued.refresh() == "REVOKED"
        await queued.forget()
    results = await tasks.add.map([(n, n) for n in range(200)])
    assert await results.get(timeout=30) == [2 * n for n in range(200)]


async def test_a_call_after_the_outbox_task_has_just_ended_starts_another_one(app, server_url):
    forwarder, shard = (
        app.sessions.current().broker.commands.forwarder,
        app.sessions.current().broker.shards[0],
    )
    word = {"to": 1, "i": named(1), "e": "0 x", "p": named(0), "h": "S", "w": "1"}
    with servers.client(server_url) as blocking:
        for ask in (forwarder.call, forwarder.delivered):
            forwarder.call(shard)
            task = outbox_tasks_of(forwarder)[0].task
            while not task.done():  # noqa: ASYNC110  no event is set before the callbacks
                await asyncio.sleep(0)
            # The task ended in this turn of the loop, and its callbacks have not run yet.
            blocking.xadd(shard.outbox, word)
            if waiting := ask(shard):
                await waiting
                assert not blocking.xlen(shard.outbox)
            await until(lambda: not blocking.xlen(shard.outbox), "the outbox to be empty", 1.0)


@pytest.mark.parametrize("shard", range(COUNT))
async def test_a_worker_that_is_busy_with_a_high_level_of_one_shard_is_shown_as_serving(app, raw, shard):
    result = await app.send("elsewhere", priority=9, task_id=named(shard))
    busy = ClaimingConsumer(app.sessions.current().broker.commands, "busy", ["default"])
    await busy.make_groups()
    await busy.find_levels()
    assert not await app.sessions.current().broker.listened_to("default")
    for keys in app.sessions.current().broker.shards:
        await raw.hset(keys.beats, busy.name, 1)
    ((stream, entry, _),) = await busy.read(list(busy.served.streams), 1, block=False)
    assert await app.sessions.current().broker.listened_to("default")
    assert await busy.claims.release(stream, [(entry, result.id)]) == [1]
    await result.revoke()
    assert await busy.unregister()
    busy.close()


async def test_closing_the_app_ends_a_wait_for_an_outbox_task_that_has_not_started(make_app):
    app = make_app(shards=COUNT)
    async with app:
        forwarder = app.sessions.current().broker.commands.forwarder
        wait = asyncio.ensure_future(forwarder.delivered(app.sessions.current().broker.shards[0]))
        while not outbox_tasks_of(forwarder):  # noqa: ASYNC110  before the first step of its task
            await asyncio.sleep(0)
        closing = asyncio.ensure_future(app.close())
    await closing
    await asyncio.wait_for(wait, 1.0)


async def test_the_last_worker_forwards_the_outbox_entries_of_its_last_job_before_it_ends(make_app, app):
    started = asyncio.Event()
    async with make_app(shards=COUNT, namespace=app.settings.namespace) as other:

        @other.task
        async def fail_late() -> None:
            started.set()
            await asyncio.sleep(0.02)
            raise ValueError("the last")

        steps = [make_tasks(other).add.si(1, 1).set(task_id=named((n + 1) % COUNT)) for n in range(12)]
        result = await chain(fail_late.s().set(task_id=named(0)), *steps).delay()
        async with Worker(other):
            await started.wait()
    with pytest.raises(ValueError, match="the last"):
        await app.AsyncResult(result.id).get(timeout=30)
