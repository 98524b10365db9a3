"""The server's cost when workers observe each other, and which worker finds the jobs of a dead one."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections import Counter
from typing import TYPE_CHECKING

import pytest
from helpers.claiming import ClaimingConsumer
from helpers.figures import report
from helpers.own_server import own_server
from helpers.waiting import until

from asyncq import AsyncQ, Worker
from asyncq.broker.consumer import SeenBefore
from asyncq.broker.transport import scripts
from asyncq.worker.job_log import JobLog
from asyncq.worker.recovery import Reclaimer

if TYPE_CHECKING:
    from asyncq.broker.claims import Taken
    from asyncq.broker.consumer import CheckIn

pytestmark = [pytest.mark.anyio, pytest.mark.usefixtures("leaves_keys")]

WORKERS, QUEUES = 1000, 20
LEASE = 0.6


@pytest.fixture
async def join(make_app):
    """Makes consumers of some queues. They observe other workers only when the test asks for it."""
    consumers = []
    apps = {lease: make_app(lease=lease) for lease in (LEASE, 3600)}
    async with apps[LEASE], apps[3600]:

        async def join(name, *queues, lease=LEASE) -> ClaimingConsumer:
            consumer = ClaimingConsumer(apps[lease].sessions.current().broker.commands, name, queues)
            consumers.append(consumer)
            await consumer.make_groups()
            await consumer.beat(consumer.shards[0])
            return consumer

        yield join
        for consumer in consumers:
            consumer.close()


def reclaimer_of(consumer: ClaimingConsumer, status=None) -> Reclaimer:
    """Returns the part of a worker that observes the other workers."""
    return Reclaimer(
        *(consumer, consumer.claims, consumer.shards[0], LEASE),
        *(lambda: None, lambda *_: None, JobLog(consumer.name), status),
    )


async def spent(raw, call) -> int:
    """Returns the server's microseconds for a call: the smallest of some, because the machine may be busy."""
    costs = []
    for _ in range(20):
        before = await raw.info("commandstats")
        await call()
        after = await raw.info("commandstats")
        costs.append(after["cmdstat_evalsha"]["usec"] - before["cmdstat_evalsha"]["usec"])
    return min(costs)


@pytest.mark.one_shard
async def test_a_heartbeat_and_an_observation_cost_the_same_however_many_workers_there_are(join, raw):
    queues = [f"q{n}" for n in range(QUEUES)]
    first, second = [await join(name, *queues, lease=3600) for name in ("first", "second")]
    keys = first.shards[0]
    assert (await first.check_in(keys)).watched == first.served.streams_in(keys)

    async def third_of_a_lease() -> None:
        """Does what a worker that watches no stream does three times a lease."""
        await second.beat(keys, 2)
        assert (await second.check_in(keys, SeenBefore(1, 1, ()))).watched == []

    alone = await spent(raw, third_of_a_lease)
    async with raw.pipeline(transaction=False) as pipe:
        for n in range(WORKERS):
            pipe.hset(keys.beats, f"worker-{n:016x}", 1)
            pipe.zadd(keys.beat_observations, {f"worker-{n:016x}": 1 << 50})
            for stream in first.served.streams:
                pipe.xgroup_createconsumer(stream, "g", f"worker-{n:016x}")
        await pipe.execute()
    many = await spent(raw, third_of_a_lease)
    share = many * WORKERS / 5 / 1e4
    cost = f"{many} us of the server for each third of a lease, of a core {share:.1f} %"
    report(f"{WORKERS} workers on {QUEUES} queues: {cost}")
    assert many < 2 * alone + 50
    assert share < 5


@pytest.mark.one_shard
async def test_a_worker_of_thousands_of_queues_and_with_thousands_of_others_checks_in(join, raw):
    one = await join("one", "a")
    keys = one.shards[0]
    others = [f"worker-{n:016x}" for n in range(2500)]
    async with raw.pipeline(transaction=False) as pipe:
        for name in others:
            pipe.xgroup_createconsumer(keys.stream("a"), "g", name)
        for name in (others[999], others[1000], others[-1]):
            pipe.hset(keys.beats, name, 1)
        for name in (others[0], others[1001]):
            pipe.zadd(keys.beat_observations, {name: -1})
        await pipe.execute()
    (absent,) = (await one.check_in(keys, listed=[keys.stream("a")])).absent
    found = await one.check_in(keys, listed=[keys.stream("a")] * 32)
    assert found.absent == [absent] * 32
    assert absent.keys() == set(others) - {others[999], others[1000], others[-1]}
    assert {name for name, was_taken in absent.items() if was_taken} == {others[0], others[1001]}

    many = ClaimingConsumer(one._commands, "many", [f"q{n}" for n in range(4500)])
    paused = many.served.all_queues()[4321]
    await raw.set(keys.paused + paused, 1)
    found = await many.check_in(keys)
    assert found.watched == many.served.streams_in(keys)
    assert keys.stream(paused) not in many.served.open_streams
    assert len(many.served.open_streams) == 4499
    await raw.delete(keys.paused + paused)
    many.close()


async def test_an_idle_worker_sends_a_heartbeat_and_a_check_in_each_third_of_a_lease_and_little_else(
    tmp_path,
):
    names = {script.sha: name for name, script in scripts.load().items()}
    sent: Counter[str] = Counter()
    with own_server(tmp_path, durable=False) as server, contextlib.closing(server.client()) as client:
        app = AsyncQ(server.url, lease=LEASE)
        async with app, Worker(app):

            def watch() -> None:
                with client.monitor() as monitor:
                    while sent["check_in"] < 2 or sent["beat"] < 2:  # from here on, the worker is idle
                        note(monitor.next_command())
                    sent.clear()
                    while sent["check_in"] < 12:
                        note(monitor.next_command())

            def note(seen: dict[str, str]) -> None:
                if seen["client_type"] != "lua":  # what a script runs is not sent
                    command, *arguments = seen["command"].split()
                    sent[names.get(arguments[0], command) if arguments else command] += 1

            await asyncio.to_thread(watch)
    assert 10 <= sent["beat"] <= 14
    # These do not depend on the lease, but one: `unknown_entries` is asked for two streams every two leases.
    assert sent.keys() - {"check_in", "beat"} <= {
        "PING",
        "XREADGROUP",
        "unknown_entries",
        "promote",
        "due_schedules",
    }
    assert sent["unknown_entries"] <= 6


async def test_another_worker_watches_a_stream_after_its_watcher_paused_for_two_thirds_of_a_lease(join, raw):
    first, second = [await join(name, "a", "b") for name in ("first", "second")]
    keys = first.shards[0]
    await first.check_in(keys)
    assert (await second.check_in(keys)).watched == []
    watcher = keys.watchers + "b"
    assert 0 < await raw.pttl(watcher) <= LEASE * 1000 * 2 / 3
    await raw.delete(watcher)
    assert (await second.check_in(keys)).watched == [keys.stream("b")]
    assert keys.stream("b") not in (await first.check_in(keys)).watched


async def test_a_damaged_watcher_key_keeps_no_worker_from_watching(join, raw):
    first = await join("first", "a")
    keys = first.shards[0]
    for damage in (b"", b"\xff", b"somebody many", f"{first.name} \xb2".encode("latin-1")):
        await raw.set(keys.watchers + "a", damage, px=60_000)
        assert not (await first.check_in(keys)).last_tries
    await raw.delete(keys.watchers + "a")


async def test_damaged_keys_keep_no_worker_from_all_else_that_a_check_in_does(join, raw, caplog):
    caplog.set_level(logging.WARNING, "asyncq")
    one = await join("one", "a")
    keys = one.shards[0]
    queue, last_attempts = one.served.streams_in(keys)
    await raw.delete(last_attempts)
    damaged = [keys.announcements + one.name, keys.outbox, keys.levels + "a", last_attempts]
    for key in damaged:
        await raw.set(key, "of another type")
    await raw.set(keys.paused + "a", 1)  # as if the message about it was lost
    found = await one.check_in(keys, listed=[last_attempts, queue], status=b"status")
    assert (found.watched, found.levels, found.last_tries) == ([queue, last_attempts], [], 0)
    assert found.absent == [{}, {}]
    assert found.observation.number > 1
    assert not one.served.open_streams
    assert "a part of a check-in at the server failed (WRONGTYPE" in caplog.text
    await until(lambda: "could not be forwarded (WRONGTYPE" in caplog.text, "the forwarder to find it")
    found = await one.check_in(keys, listed=[last_attempts, keys.stream("nosuch")] * 6)
    assert found.absent == [{}] * 12
    await raw.delete(*damaged, keys.paused + "a")


async def test_all_streams_of_a_dead_worker_are_recovered_at_once_though_no_worker_serves_them_all(join, raw):
    dead, one, another = await join("dead", "a", "b"), await join("one", "a"), await join("another", "b")
    keys = dead.shards[0]
    for queue in ("a", "b"):
        await raw.xgroup_createconsumer(keys.stream(queue), "g", dead.name)
    reclaimers = [reclaimer_of(consumer) for consumer in (one, another)]

    async def observe_all() -> None:
        for consumer, reclaimer in zip((one, another), reclaimers, strict=True):
            await consumer.beat(keys, 2)
            await reclaimer._observe()

    await observe_all()
    since = time.monotonic()
    while dead.name.encode() in await raw.hgetall(keys.beats):
        await asyncio.sleep(LEASE / 3)
        await observe_all()
    assert time.monotonic() - since >= LEASE
    # In the same turn the second worker learned that the first one had taken over the dead session.
    assert [await raw.xinfo_consumers(keys.stream(queue), "g") for queue in ("a", "b")] == [[], []]
    assert set(await raw.hgetall(keys.beats)) == {one.name.encode(), another.name.encode()}


async def test_a_worker_checks_in_during_a_takeover_that_takes_long(join, raw, monkeypatch):
    one, dead = await join("one", "a"), await join("dead", "a")
    steps = iter(range(30))
    take, check_in = one.claims.take, one.check_in
    statuses: list[bytes] = []

    async def take_in_steps(*args) -> Taken:
        await asyncio.sleep(LEASE / 15)
        taken = await take(*args)
        return taken._replace(has_more=next(steps, None) is not None)

    async def noted(*args, status: bytes = b"", **options) -> CheckIn:
        statuses.append(status)
        return await check_in(*args, status=status, **options)

    monkeypatch.setattr(one.claims, "take", take_in_steps)
    monkeypatch.setattr(one, "check_in", noted)
    reclaimer = reclaimer_of(one, status=lambda: b"status")
    await reclaimer.take_over(dead.name)
    assert len(statuses) >= 4
    assert set(statuses) == {b"status"}
    assert (await raw.hget(one.shards[0].announcements + one.name, "i")).endswith(b" status")


async def test_a_session_with_a_heartbeat_but_no_valid_number_or_the_reverse_is_dead_a_lease_later(join, raw):
    one = await join("one", "a")
    keys = one.shards[0]
    gone = [await join(name, "a") for name in ("unnoted", "far ahead", "taken before", "alive")]
    without_number, ahead, before, alive = [consumer.name.encode() for consumer in gone]
    await raw.zrem(keys.beat_observations, without_number)
    await raw.zadd(keys.beat_observations, {ahead: 2**52, before: -5, alive: 2**51, "nobody": 7})
    reclaimer = reclaimer_of(one)
    since = time.monotonic()
    while len(left := await raw.hkeys(keys.beats)) > 2:
        assert time.monotonic() - since < 20, left
        for consumer in (one, gone[-1]):
            await consumer.beat(keys, 2)
        await reclaimer._observe()
        await asyncio.sleep(LEASE / 3)
    assert set(left) == {one.name.encode(), alive}
    assert await raw.zcount(keys.beat_observations, 1, "+inf") == 2


async def test_a_server_that_lost_the_numbers_of_observations_does_not_assign_them_again(join, raw):
    one = await join("one", "a")
    keys = one.shards[0]
    for damage in (None, b"", b"many", b"nan", b"inf", b"-1", b"1e300", b"12.5"):
        await (raw.delete(keys.observations) if damage is None else raw.set(keys.observations, damage))
        assert await one.beat(keys, 2) == []
        seconds, microseconds = await raw.time()
        first, second = [(await one.check_in(keys)).observation.number for _ in range(2)]
        assert seconds * 1000 + microseconds // 1000 <= first < second < 1 << 52


async def test_workers_that_are_constantly_replaced_still_find_a_dead_worker(join, raw):
    """No worker observes for a whole lease. Each continues from the observations of the one before."""
    dead, alive = await join("dead", "a"), await join("alive", "a")
    keys = dead.shards[0]
    start = time.monotonic()
    while dead.name.encode() in await raw.hkeys(keys.beats):
        assert time.monotonic() - start < 20
        reclaimer = reclaimer_of(alive)
        for _ in range(2):
            await alive.beat(keys, 2)
            await reclaimer._observe()
            await asyncio.sleep(LEASE / 3)
    assert time.monotonic() - start >= LEASE
    assert await raw.hkeys(keys.beats) == [alive.name.encode()]


async def test_damaged_ages_of_observations_are_dropped_and_logged(join, raw, caplog):
    one = await join("one", "a")
    keys = one.shards[0]
    for damage in (
        b"",
        b"\xff",
        b"many",
        b"5 6",
        b"5 6:x",
        b"5 6:-7",
        b"5 :7",
        b"9" * 40,
        b"5 " + b"6:7 " * 99_999,
    ):
        await raw.set(keys.observation_ages, damage, px=60_000)
        assert len((await one.check_in(keys)).observation.ages) < 20, damage[:20]
    assert caplog.text.count("the ages of the observations of other workers are dropped") == 1
    await raw.delete(keys.observation_ages)
    await raw.hset(keys.observation_ages, "not", "text")
    reclaimer = reclaimer_of(one)
    for _ in range(3):
        await reclaimer._observe()
    assert (await raw.get(keys.observation_ages)).count(b":") == 2
