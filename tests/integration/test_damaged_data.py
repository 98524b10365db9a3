"""Damaged or forged data at the server: a real worker and a real client quarantine or drop it,
log it once, and go on with all other jobs.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import random
from typing import TYPE_CHECKING, Any

import msgpack
import pytest
from helpers import outboxes
from helpers.inside import log_damage_again, session_of
from helpers.waiting import until, until_state

import asyncq
from asyncq import DecodeError, ResultNotFound, ResultTimeout, Worker, wire
from asyncq.serializers import PLAIN_ARGUMENTS

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator

    import redis.asyncio

    from asyncq import AsyncQ
    from asyncq.broker.schema.keys import Keys

pytestmark = [pytest.mark.anyio, pytest.mark.usefixtures("leaves_keys")]

RUBBISH = (
    b"",
    b" ",
    b"x",
    b"\xff\xfe",
    b"-1",
    b"1e30",
    b"9" * 30,
    b"9223372036854775808",
    b"nan",
    b"0 0 0 0",
    b"L---",
    b"L--- 1-0",
    b"L--- 1-0 default n {",
    b"L\xff\xff\xff 1-0 default n~" + b"9" * 5000,
    b"D--- 0 default n~99999999999999999999",
    b"S--- 1-0 w n \xc1",
    b"F--- 1-0 w n ",
    b"a S -5\n",
    b"a S -9\nb S 1\n",
    b"a S 99999999999999999999\n",
    b"id S 5\nxx",
    b"p1-0 1 99999999999999999999 RUNNING \xc0",
    b"p1-0 1 1 SUCCESS \xc0",
    b"p1-0 1 1 RUNNING \xc1",
    b"r1-0 1 \xc1",
    b"i1 -5 5\n",
    b"i0 0\n",
    b"n" + b"9" * 30,
    b"k",
    b"c\xff",
    b"zid reason",
    b"default^\xff",
    b"default^99",
    b"\x91" * 2000,
)
"""Data that a stranger may publish, or write into any key."""


class Stage:
    """A worker, a client, and the keys of their server.

    Args:
        app: open on this loop.
        worker: a worker of this app.
        raw: writes data that asyncq would not write.
        chance: chooses which data is damaged, and how.
    """

    def __init__(self, app: AsyncQ, worker: Worker, raw: redis.asyncio.Redis, chance: random.Random) -> None:
        self.app = app
        self.worker = worker
        self.raw = raw
        self.chance = chance
        self.keys: Keys = app.sessions.shards[0]
        self.gate = asyncio.Event()
        register(app, self.gate)

    @property
    def session_id(self) -> str:
        """The session id of the worker."""
        return session_of(self.worker).consumer.name

    def task(self, name: str) -> Any:
        """Returns one of the tasks of `register`."""
        return self.app.tasks[name]

    def damaged(self, data: bytes, count: int = 8) -> Iterator[bytes]:
        """Returns variants of data in which bytes are cut out, inserted or changed."""
        for _ in range(count):
            at = self.chance.randrange(len(data) + 1)
            rest = data[min(len(data), at + self.chance.choice((0, 1, 1, 4))) :]
            yield (
                data[:at]
                + self.chance.choice((b"", b" ", b"\xff", b"9" * 25, b"-", self.chance.randbytes(3)))
                + rest
            )

    async def is_well(self) -> None:
        """Checks that worker and client still do everything that they should."""
        wait = 20.0
        assert await self.task("add").options(wait=wait).call(1, 2) == 3
        assert await self.task("add").options(countdown=0.001, wait=wait).call(2, 2) == 4
        limited, chained = (
            await self.task("limited").delay(),
            await (self.task("add").s(1, 1) | self.task("add").s(2)).delay(),
        )
        stream = await self.task("count").delay(3)
        running = await self.task("stay").delay()
        await until_state(running, "PROGRESS")
        assert await chained.get(timeout=wait) == 4
        assert await limited.get(timeout=wait) == "limited"
        assert [item async for item in stream.stream()] == [0, 1, 2]
        assert await running.revoke(terminate=True, wait=True, timeout=wait) == "REVOKED"


def register(app: AsyncQ, gate: asyncio.Event) -> None:
    """Registers tasks of every kind that leaves its own data at the server."""

    @app.task(name="add")
    async def add(x: int, y: int) -> int:
        return x + y

    @app.task(name="limited", concurrency=1, rate_limit=1000)
    async def limited() -> str:
        return "limited"

    @app.task(name="count")
    async def count(number: int):
        for n in range(number):
            yield n

    @app.task(name="stay")
    async def stay() -> None:
        await asyncq.current().progress(1, 2)
        await gate.wait()


@pytest.fixture
async def stage(make_app, raw, monkeypatch) -> AsyncIterator[Stage]:
    log_damage_again(monkeypatch)
    app = make_app(lease=1.5)
    async with app:
        worker = Worker(app, concurrency=20, queues=["default"])
        stage = Stage(app, worker, raw, random.Random(13))
        async with worker:
            yield stage
            stage.gate.set()


# -- each kind of data that is read ----------------------------------------------------------------


async def in_published_messages(stage: Stage) -> None:
    followed = await stage.task("stay").delay()
    events = stage.app.AsyncResult(followed.id).events(timeout=20)
    assert (await anext(events)).state in {"PENDING", "STARTED", "PROGRESS"}
    keys = stage.keys
    channels = (
        stage.app.sessions.channel(),
        keys.signals + stage.session_id,
        keys.wake,
        keys.new_levels,
        keys.events + followed.id,
    )
    for channel in channels:
        for data in RUBBISH:
            await stage.raw.publish(channel, data)
    await followed.revoke(terminate=True)
    async for event in events:
        assert event.state in {"STARTED", "PROGRESS", "REVOKED"}


async def in_heartbeats_and_notes(stage: Stage) -> None:
    for data in RUBBISH:
        await stage.raw.hset(stage.keys.beats, data, data)
        await stage.raw.hset(stage.keys.signals + stage.session_id, data, data)
        await stage.raw.sadd(stage.keys.levels + "default", data)


async def among_readers(stage: Stage) -> None:
    job = await stage.task("add").options(queue="elsewhere").delay(1, 1)
    stream = stage.keys.stream("default")
    for name in (b"\xff\xfe", b"x" * 500, b"a b"):
        await stage.raw.xgroup_createconsumer(stream, "g", name)
    await job.revoke()


async def among_delayed_jobs(stage: Stage) -> None:
    keys = stage.keys
    for data in RUBBISH:
        await stage.raw.zadd(keys.delayed, {data: 0})
    lost = await stage.task("add").options(countdown=3600).delay(1, 1)
    await stage.raw.delete(keys.messages + lost.id)
    other = await stage.task("add").options(countdown=3600).delay(1, 1)
    await stage.raw.delete(keys.messages + other.id)
    await stage.raw.set(keys.messages + other.id, b"no hash")
    full = await stage.task("add").options(countdown=3600).delay(2, 3)
    await stage.raw.hset(keys.messages + full.id, mapping={f"f{n}": "x" for n in range(9000)})
    await stage.raw.zadd(keys.delayed, {lost.id: 1, other.id: 1, full.id: 1})
    await stage.raw.publish(keys.wake, 1)
    for result in (lost, other):
        with pytest.raises(DecodeError, match="was due, and could not be run"):
            await result.get(timeout=20)
    assert await full.get(timeout=20) == 5


async def among_records(stage: Stage) -> None:
    keys, raw = stage.keys, stage.raw
    ended = await stage.task("add").delay(1, 1)
    await ended.get(timeout=20)
    waiting = await stage.task("add").options(queue="nobody").delay(1, 1)
    delayed = await stage.task("add").options(countdown=3600).delay(1, 1)
    good = await stage.task("add").options(queue="nobody").delay(1, 1)
    asked = []
    for result in (ended, waiting, delayed):
        record = await raw.get(keys.records + result.id)
        for n, data in enumerate((*RUBBISH, *stage.damaged(record, 12))):
            id_ = f"damaged.{result.id}.{n}"
            await raw.set(keys.records + id_, data, px=60_000)
            asked.append(stage.app.AsyncResult(id_))
    # All are read in one command, and the good job must not suffer from the others.
    asked.insert(len(asked) // 2, stage.app.AsyncResult(good.id))
    waits = [asyncio.create_task(wait_for_end(result)) for result in asked]
    assert await good.revoke() == "REVOKED"
    assert await asyncio.wait_for(stage.app.AsyncResult(good.id).outcome(timeout=20), 20)
    for result in asked:
        if result.id != good.id:
            await result.refresh()
            await result.revoke()
            await result.forget()
    await asyncio.gather(*waits)
    await waiting.revoke()
    await delayed.revoke()


async def wait_for_end(result: Any) -> None:
    with contextlib.suppress(ResultNotFound, ResultTimeout, DecodeError):
        await result.outcome(timeout=1.0)


async def among_entries(stage: Stage) -> None:
    stream, raw = stage.keys.stream("default"), stage.raw
    job = wire.Job("made.up", "add", "default", PLAIN_ARGUMENTS.dumps((1, 1), {}), "n", "", 1, 60_000)
    message = wire.encode_job(job)
    entries = [
        {"i": f"made.up.{n}", "m": data} for n, data in enumerate((*RUBBISH, *stage.damaged(message, 30)))
    ]
    for data in RUBBISH:
        entries += [{"i": "made.up", "m": message, name: data} for name in "cavg"]
        entries.append({"i": data, "m": message})
    shaped = [*msgpack.unpackb(message)[:7]]
    for more in (
        {"v": [0]},
        {"v": "e"},
        {"v": 10**9},
        {"x": 2**63},
        {"d": 2**63},
        {"t": 2**63},
        {"c": [5]},
        {"y": [1] * 9},
    ):
        for values in (b"", b"a S -9\n", b"a S 99999999999\n", *RUBBISH):
            entries.append({"i": "made.up", "m": msgpack.packb([*shaped, more]), "v": values})
    for ttl in (2**63, 2**63 - 1, 2**40 * 1000):
        entries.append({"i": "made.up", "m": msgpack.packb([*shaped[:6], ttl, None])})
    entries.append({"i": "made.up", "m": message, **{f"f{n}": "x" for n in range(9000)}})
    for fields in entries:
        await raw.xadd(stream, fields)

    async def empty() -> bool:
        return await raw.xlen(stream) == 0 and (await raw.xpending(stream, "g"))["pending"] == 0

    await until(empty, "the entries to be run or quarantined", 30)
    assert len(await stage.app.control.dead.list(1000)) > 100


async def in_output_of_a_job(stage: Stage) -> None:
    keys, raw = stage.keys, stage.raw
    running = await stage.task("stay").delay()
    await until_state(running, "PROGRESS")
    entry = (await raw.get(keys.records + running.id)).split(b" ")[1]
    report = await raw.get(keys.latest + running.id)
    for data in (*RUBBISH, *stage.damaged(report, 20), entry + b" 1 1 SUCCESS \xc0", entry + b" 1 1 X \xc1"):
        await raw.set(keys.latest + running.id, data, px=60_000)
        assert await running.refresh() not in {"SUCCESS", "FAILURE"}
        assert running.info is None or isinstance(running.info, (str, int, dict, list, bool))
        await raw.delete(keys.reader_positions + running.id, keys.blocks + running.id)
        await raw.set(keys.reader_positions + running.id, data)
        await raw.sadd(keys.blocks + running.id, data, entry + b" \xff\xff mark")
    await running.revoke(terminate=True, wait=True, timeout=20)


async def among_limits(stage: Stage) -> None:
    keys, raw = stage.keys, stage.raw
    for data in RUBBISH:
        await raw.hset(keys.permits_held + "limited", data, data)
        await raw.zadd(keys.permits_waiting + "limited", {data: 0})
    for data in (*RUBBISH[:4], b"nan nan 1000", b"inf inf 1000", b"1e300 1e300 1000"):
        await raw.set(keys.clock_offset, data)
        await raw.set(keys.rates + "limited", data)
        assert await stage.task("limited").options(wait=20).call() == "limited"
    # A permit in the name of a live worker, which that worker finds and releases.
    await raw.hset(keys.permits_held + "limited", b"\xff", stage.session_id)


async def among_dead_letters(stage: Stage) -> None:
    for data in RUBBISH:
        letter = await stage.raw.xadd(
            stage.keys.dead, {"q": data, "i": data, "m": data, "o": data, "c": data, b"\xff": data}
        )
        with pytest.raises((ValueError, LookupError)):
            await stage.app.control.dead.replay(letter.decode())
    assert len(await stage.app.control.dead.list(1000)) >= len(RUBBISH)


async def among_dependents(stage: Stage) -> None:
    keys, raw, add = stage.keys, stage.raw, stage.task("add")
    first = await add.options(countdown=1.0, task_id="first").delay(1, 1)
    del first
    results = []
    for name in ("t", "n", "p", "s", "w", "k"):
        for data in RUBBISH[:12]:
            chain = await (add.options(queue="held").s(1, 1) | add.s(1)).delay()
            await raw.hset(keys.messages + chain.id, name, data)
            await raw.hset(keys.dependents + chain.parent.id, data, data)
            results.append(chain)
    gone = await (add.options(queue="held").s(1, 1) | add.s(1)).delay()
    await raw.delete(keys.messages + gone.id)
    await raw.set(keys.messages + gone.id, b"no hash")
    results.append(gone)
    async with Worker(stage.app, queues=["held"], concurrency=200):
        for chain in results:
            assert await chain.parent.get(timeout=20) == 2
        for chain in results:
            await wait_for_end(chain)
    with pytest.raises(DecodeError, match="damaged"):
        await gone.get(timeout=20)


DAMAGES = (
    in_published_messages,
    in_heartbeats_and_notes,
    among_readers,
    among_delayed_jobs,
    among_records,
    among_entries,
    in_output_of_a_job,
    pytest.param(among_limits, marks=pytest.mark.trial),
    among_dead_letters,
    among_dependents,
)


@pytest.mark.parametrize("damage_data", DAMAGES, ids=lambda damage_data: damage_data.__name__)
@pytest.mark.one_shard
async def test_damaged_data_stops_neither_worker_nor_client(stage, damage_data, caplog):
    caplog.set_level(logging.WARNING, "asyncq")
    await damage_data(stage)
    await stage.is_well()
    assert not [line for line in caplog.messages if "unexpected error" in line]


@pytest.mark.one_shard
async def test_damage_of_one_kind_is_logged_once_a_minute(stage, caplog):
    caplog.set_level(logging.WARNING, "asyncq")
    await in_published_messages(stage)
    await stage.is_well()
    for kind in ("a notification on", "a revocation signal could not be read", "an event of job"):
        assert sum(line.startswith(kind) for line in caplog.messages) == 1


async def test_damaged_entries_of_an_outbox_are_dropped_and_those_behind_them_are_forwarded(make_app, raw):
    async with make_app(lease=1.5, shards=2) as app:
        gate = asyncio.Event()
        register(app, gate)
        add = app.tasks["add"]
        there = next(f"there.{n}" for n in range(99) if app.sessions.shards.number(f"there.{n}") == 1)
        here = next(f"here.{n}" for n in range(99) if app.sessions.shards.number(f"here.{n}") == 0)
        for keys in app.sessions.shards:
            for data in RUBBISH:
                await raw.xadd(keys.outbox, {"x": data})
                await raw.xadd(keys.outbox, {"to": data, "b": data})
                await raw.xadd(keys.outbox, {"to": b"1", "b": data})
                await raw.xadd(
                    keys.outbox, {"to": b"0", "c": data, "p": data, "n": data, "h": data, "w": data}
                )
            word = {"to": b"0", "c": b"x 0 n", "p": b"p", "n": b"n", "h": b"S", "w": b""}
            await raw.xadd(keys.outbox, word)
        async with Worker(app):
            first = add.options(task_id=there).s(1, 1)
            assert await (await (first | add.options(task_id=here).s(1)).delay()).get(timeout=30) == 3
            await until(lambda: outboxes.are_empty(raw, app), "the outboxes to be empty")
