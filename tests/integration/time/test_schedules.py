"""Schedules: each tick is one job, whoever and however many workers there are, and whatever dies."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
import time
from contextlib import AsyncExitStack
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from typing import TYPE_CHECKING, Any
from unittest.mock import ANY

import pytest
import redis.asyncio
from helpers.forked import TESTS
from helpers.notes import lines
from helpers.waiting import until
from helpers.worker_process import WorkerProcess, worker_process

import asyncq
from asyncq import AsyncQ, Worker
from asyncq.broker.schedule_store import Change
from asyncq.schedules.entry import Entry
from asyncq.schedules.schedule_progress import step

if TYPE_CHECKING:
    from collections.abc import Callable

pytestmark = pytest.mark.anyio

MODULE = "helpers.schedule_jobs"


def tick_of(id_: str) -> int:
    """Returns the tick in the id of a job, in seconds since the epoch."""
    return int(datetime.strptime(id_.split(":")[1][:16], "%Y%m%dT%H%M%SZ").replace(tzinfo=UTC).timestamp())


async def jobs_of(app: AsyncQ, raw: Any, name: str) -> list[str]:
    """Returns the ids of all jobs that a schedule has made, in the order of their ticks."""
    keys = app.sessions.shards.of(name)
    prefix = f"{keys.records}{name}:".encode()
    found = [key async for key in raw.scan_iter(match=prefix + b"*", count=1000)]
    return sorted(key.decode().removeprefix(keys.records) for key in found)


def assert_each_tick_once(ids: list[str], every: int = 1) -> None:
    """Fails unless the jobs are those of ticks that follow each other, each once."""
    ticks = [tick_of(id_) for id_ in ids]
    assert [later - tick for tick, later in pairwise(ticks)] == [every] * (len(ticks) - 1), ids


@pytest.fixture
def record(app):
    """A task that keeps the id, the headers and the arguments of each of its jobs."""
    seen: list[tuple[str, dict[str, Any], Any]] = []

    @app.task(name="record")
    async def record(value: Any = None) -> Any:
        job = asyncq.current()
        seen.append((job.id, dict(job.headers or {}), value))
        return value

    record.seen = seen
    return record


# -- ticks -----------------------------------------------------------------------------------------


async def test_each_tick_of_a_schedule_is_one_job_with_its_arguments_and_the_time_in_its_headers(app, record):
    schedule = await app.schedules.add("pulse", record.s("eu"), every=1)
    assert schedule.next_at is not None
    async with Worker(app):
        await until(lambda: len(record.seen) >= 3, "three ticks to run")
    ids = [id_ for id_, _, _ in record.seen]
    assert_each_tick_once(ids)
    assert ids[0] == f"pulse:{schedule.next_at:%Y%m%dT%H%M%SZ}"
    assert all(value == "eu" for _, _, value in record.seen)
    assert record.seen[0][1] == {"schedule": "pulse", "scheduled_for": schedule.next_at.isoformat()}
    assert await app.AsyncResult(ids[0]).get(timeout=5) == "eu"


async def test_a_schedule_in_code_runs_under_the_name_of_its_task_while_a_worker_declares_it(make_app, raw):
    app = make_app()

    @app.task(name="tidy", every=1)
    async def tidy() -> str:
        return "done"

    async with app:
        assert await app.schedules.list() == []
        async with Worker(app):
            ids = await until(lambda: _at_least(app, raw, "tidy", 2), "two ticks")
            schedule = await app.schedules.get("tidy")
            assert (schedule.source, schedule.rule, schedule.task) == ("code", "every 1s", "tidy")
            assert await app.AsyncResult(ids[0]).get(timeout=5) == "done"
        await app.schedules.pause("tidy")
    assert_each_tick_once(ids)


async def _at_least(app: AsyncQ, raw: Any, name: str, count: int) -> list[str]:
    ids = await jobs_of(app, raw, name)
    return ids if len(ids) >= count else []


async def test_many_workers_make_one_job_of_each_tick(
    make_app, server_url, namespace, raw, monkeypatch, tmp_path
):
    log = tmp_path / "log"
    monkeypatch.setenv(
        "SCHEDULES", json.dumps({"tidy": {"every": 1}, "sweep": {"every": 2, "overlap": True}})
    )
    monkeypatch.setenv("SCHEDULE_LOG", str(log))
    app = make_app()
    async with AsyncExitStack() as stack:
        for _ in range(4):
            stack.enter_context(worker_process(server_url, namespace, module=MODULE))
        await stack.enter_async_context(app)
        ids = await until(lambda: _at_least(app, raw, "tidy", 5), "five ticks")
        await until(lambda: len(lines(log)) >= 7, "their jobs to run")
        assert_each_tick_once(ids)
        assert_each_tick_once(await jobs_of(app, raw, "sweep"), every=2)
    ran = [line.split()[0] for line in lines(log)]
    assert len(ran) == len(set(ran)), "no tick ran twice"


async def test_a_cron_text_and_one_time_tick(app, record):
    await app.schedules.add("minutely", record.s("cron"), cron="* * * * *", tz="Europe/Paris")
    await app.schedules.add("once", record.s("at"), at=1)
    schedule = await app.schedules.get("minutely")
    assert schedule.next_at is not None
    assert schedule.tz == "Europe/Paris"
    assert schedule.next_at.tzname() in {"CET", "CEST"}
    await _shift(app, "minutely", timedelta(seconds=schedule.next_at.timestamp() - time.time()))
    async with Worker(app):
        await until(
            lambda: {value for _, _, value in record.seen} == {"cron", "at"}, "both to tick", timeout=70
        )
        once = await until(lambda: _ended(app, "once"), "the schedule to end")
    assert once.runs == 1
    assert once.last_at is not None


async def _ended(app: AsyncQ, name: str) -> Any:
    schedule = await app.schedules.get(name)
    return schedule if schedule.next_at is None else None


async def _shift(app: AsyncQ, name: str, by: timedelta) -> None:
    """Makes the server look at a schedule sooner; its ticks stay. A worker must not be led astray by that."""
    store = app.sessions.current().broker.schedules
    keys = store.shards.of(name)
    await store._commands.send(keys, "ZINCRBY", keys.schedules_due, -int(by.total_seconds() * 1000), name)


async def test_a_schedule_of_the_shard_of_its_name_makes_jobs_that_are_found_by_their_ids(make_app, raw):
    app = make_app(shards=4)

    @app.task(name="record")
    async def record() -> str:
        return asyncq.current().id

    async with app:
        names = [f"pulse-{n}" for n in range(6)]
        for name in names:
            await app.schedules.add(name, record.s(), every=1)
        assert [one.name for one in await app.schedules.list()] == names
        async with Worker(app):
            for name in names:
                first, *_ = await until(lambda name=name: _at_least(app, raw, name, 1), "a tick")
                assert await app.AsyncResult(first).get(timeout=5) == first
        for name in names:
            await app.schedules.remove(name)


# -- changes ---------------------------------------------------------------------------------------


async def test_a_schedule_can_be_listed_read_and_removed(app, record):
    await app.schedules.add("b", record.s("x"), every=60)
    await app.schedules.add("a", record.s(value=2), cron="0 3 * * *", tz="America/New_York", overlap=True)
    a, b = await app.schedules.list()
    assert (a.name, a.rule, a.tz, a.args, a.kwargs) == (
        "a",
        "0 3 * * *",
        "America/New_York",
        (),
        {"value": 2},
    )
    assert (b.name, b.rule, b.args, b.paused, b.source, b.last_at) == (
        "b",
        "every 60s",
        ("x",),
        False,
        "runtime",
        None,
    )
    assert await app.schedules.get("a") == a
    await app.schedules.remove("a")
    assert [one.name for one in await app.schedules.list()] == ["b"]
    for call in (app.schedules.get, app.schedules.remove, app.schedules.pause, app.schedules.resume):
        with pytest.raises(LookupError, match="there is no schedule 'a'"):
            await call("a")
    for more in (app.schedules.preview, app.schedules.run_now):
        with pytest.raises(LookupError, match="there is no schedule 'a'"):
            await more("a")


async def test_the_blocking_twins_do_the_same(make_app):
    app = make_app()

    @app.task(name="record")
    async def record() -> None: ...

    def work() -> list[str]:
        app.schedules.add_sync("a", record.s(), every=60)
        assert app.schedules.pause_sync("a").paused
        assert not app.schedules.resume_sync("a").paused
        assert len(app.schedules.preview_sync("a", 3)) == 3
        assert app.schedules.get_sync("a").name == "a"
        found = [one.name for one in app.schedules.list_sync()]
        app.schedules.remove_sync("a")
        return found

    assert await asyncio.to_thread(work) == ["a"]
    await app.close()


async def test_the_same_name_again_replaces_the_schedule_and_with_the_same_rule_its_next_tick_stays(
    app, record
):
    first = await app.schedules.add("a", record.s(1), every=3600)
    again = await app.schedules.add("a", record.s(2), every=3600, max_runs=5)
    assert again.next_at == first.next_at
    assert again.args == (2,)
    other = await app.schedules.add("a", record.s(2), every=1800)
    assert other.next_at != first.next_at


async def test_calls_that_add_one_schedule_at_once_make_one(app, record):
    await asyncio.gather(*(app.schedules.add("a", record.s(n), every=60) for n in range(10)))
    assert len(await app.schedules.list()) == 1


async def test_a_paused_schedule_makes_no_job_until_it_is_resumed_and_none_for_the_pause(app, raw, record):
    await app.schedules.add("pulse", record.s(), every=1)
    async with Worker(app):
        await until(lambda: record.seen, "a tick")
        assert (await app.schedules.pause("pulse")).paused
        assert (await app.schedules.add("pulse", record.s("new"), every=1)).paused, "a pause stays"
        paused_at, count = time.time(), len(await jobs_of(app, raw, "pulse"))
        await until(lambda: time.time() > paused_at + 2.5, "some ticks to pass")
        assert len(await jobs_of(app, raw, "pulse")) == count
        resumed_at = time.time()
        schedule = await app.schedules.resume("pulse")
        assert schedule.next_at is not None
        assert schedule.next_at.timestamp() > resumed_at - 1
        await until(lambda: record.seen[-1][2] == "new", "a tick after the pause")
    assert not [id_ for id_ in await jobs_of(app, raw, "pulse") if paused_at < tick_of(id_) < int(resumed_at)]


async def test_run_now_makes_a_job_beside_the_ticks(app, record):
    await app.schedules.add("nightly", record.s("eu"), cron="0 3 * * *", max_runs=1)
    before = await app.schedules.get("nightly")
    async with Worker(app):
        result = await app.schedules.run_now("nightly")
        assert await result.get(timeout=5) == "eu"
    assert record.seen[0][1]["schedule"] == "nightly"
    assert await app.schedules.get("nightly") == before, "it counts for nothing"


async def test_preview_shows_the_next_ticks_up_to_the_end(app, record):
    until_ = datetime.now(UTC) + timedelta(days=2, hours=12)
    await app.schedules.add("nightly", record.s(), cron="0 3 * * *", tz="Asia/Tokyo", until=until_)
    times = await app.schedules.preview("nightly")
    assert len(times) in {2, 3}
    assert all((time.hour, time.minute, time.tzname()) == (3, 0, "JST") for time in times)
    await app.schedules.add("few", record.s(), every=60, max_runs=2)
    assert len(await app.schedules.preview("few", 10)) == 2


async def test_max_runs_ends_a_schedule_and_it_is_dropped_later(make_app, raw):
    app = make_app(schedule_ttl=1)

    @app.task(name="record")
    async def record() -> None: ...

    async with app:
        await app.schedules.add("twice", record.s(), every=1, max_runs=2)
        async with Worker(app):
            ended = await until(lambda: _ended(app, "twice"), "its last run")
            assert ended.runs == 2
            await until(lambda: _is_gone(app, "twice"), "it to be dropped")
        assert len(await jobs_of(app, raw, "twice")) == 2


async def _is_gone(app: AsyncQ, name: str) -> bool:
    return all(one.name != name for one in await app.schedules.list())


@pytest.mark.parametrize("overlap", [False, True])
async def test_a_tick_is_left_out_while_the_job_before_has_not_ended_unless_they_may_overlap(
    app, raw, overlap
):
    gate = asyncio.Event()

    @app.task(name="slow")
    async def slow() -> None:
        await gate.wait()

    await app.schedules.add("slow", slow.s(), every=1, overlap=overlap)
    async with Worker(app):
        if overlap:
            assert_each_tick_once(await until(lambda: _at_least(app, raw, "slow", 3), "three jobs"))
        else:
            await until(lambda: _left_out(app, "slow", 2), "two ticks to be left out")
            assert len(await jobs_of(app, raw, "slow")) == 1
        gate.set()
        if not overlap:
            await until(lambda: _at_least(app, raw, "slow", 2), "the next tick to run")
        await app.schedules.remove("slow")


async def _left_out(app: AsyncQ, name: str, count: int) -> bool:
    return (await app.schedules.get(name)).left_out >= count


async def test_a_job_of_another_call_under_the_id_of_a_tick_does_not_stop_the_tick(app, raw, record):
    schedule = await app.schedules.add("pulse", record.s("tick"), every=1)
    assert schedule.next_at is not None
    taken = f"pulse:{schedule.next_at:%Y%m%dT%H%M%SZ}"
    await record.options(task_id=taken).delay("other")
    async with Worker(app):
        await until(lambda: len(record.seen) >= 3, "both to run")
        await app.schedules.remove("pulse")
    assert {id_: value for id_, _, value in record.seen}[taken] == "other"
    assert {id_: value for id_, _, value in record.seen}[f"{taken}.2"] == "tick"


async def test_options_of_the_call_hold_for_each_job(app, record):
    call = record.s("x").set(expires=30, priority=5, queue="urgent", headers={"tenant": "a"})
    await app.schedules.add("pulse", call, every=1)
    async with Worker(app, queues=["urgent"]):
        await until(lambda: record.seen, "a tick")
        await app.schedules.remove("pulse")
    assert record.seen[0][1]["tenant"] == "a"
    assert record.seen[0][1]["schedule"] == "pulse"


async def test_middleware_is_called_when_a_schedule_is_added_or_declared_and_its_headers_are_kept(make_app):
    app, seen, calls = make_app(), [], []

    class Tenants(asyncq.Middleware):
        async def on_enqueue(self, call, call_next):
            calls.append(call.task)
            if call.headers.get("refused") or call.task == "refused":
                raise PermissionError("no such tenant")
            call.headers["tenant"] = "a"
            return await call_next(call)

    app.add_middleware(Tenants())

    async def body() -> None:
        seen.append(asyncq.current().headers)

    app.task(name="refused", every=1)(body)
    app.task(name="tidy", every=1)(body)
    record = app.task(name="record")(body)
    async with app:
        with pytest.raises(PermissionError):
            await app.schedules.add("pulse", record.s().set(headers={"refused": True}), every=1)
        assert await app.schedules.list() == []
        await app.schedules.add("pulse", record.s(), every=1)
        async with Worker(app):
            await until(lambda: {one["schedule"] for one in seen} == {"pulse", "tidy"}, "both to tick")
            await until(lambda: len(seen) >= 5, "more ticks")
            await app.schedules.remove("pulse")
            await app.schedules.pause("tidy")
    assert {one["tenant"] for one in seen} == {"a"}
    assert sorted(calls) == ["record", "record", "refused", "tidy"], "ticks do not call it"


# -- deaths ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("moment", ["tick.send", "tick.answered"])
async def test_a_worker_that_dies_around_a_tick_loses_none_and_doubles_none(
    make_app, server_url, namespace, raw, moment
):
    app = make_app()

    async with app:
        await app.schedules.add("pulse", app.task_named("note").s(), every=1, overlap=True)
        for _ in range(2):
            environ = {"PYTHONPATH": str(TESTS), "ASYNCQ_URL": server_url, "ASYNCQ_NAMESPACE": namespace}
            environ |= {"ASYNCQ_LEASE": "2", "ASYNCQ_FAILPOINTS": f"{moment}=kill"}
            command = (sys.executable, "-m", MODULE)
            quiet, own = asyncio.subprocess.DEVNULL, {**os.environ, **environ}
            dying = await asyncio.create_subprocess_exec(*command, env=own, stdout=quiet)
            assert await asyncio.wait_for(dying.wait(), 60) == -signal.SIGKILL
        with worker_process(server_url, namespace, module=MODULE):
            ids = await until(lambda: _at_least(app, raw, "pulse", 6), "six ticks")
        await app.schedules.remove("pulse")
    assert_each_tick_once(ids)


async def test_workers_that_are_killed_again_and_again_lose_no_tick_and_double_none(
    make_app, server_url, namespace, raw
):
    app = make_app()
    async with app:
        await app.schedules.add("pulse", app.task_named("note").s(), every=1, overlap=True)
        workers = [WorkerProcess(server_url, namespace, module=MODULE) for _ in range(3)]
        try:
            for worker in workers:
                await asyncio.to_thread(worker.wait_until_ready)
            for turn in range(8):
                # Around the tick: the first is killed a little before, the next a little after it.
                tick = int(time.time()) + 1 + (turn % 4 - 2) * 0.004
                await until(lambda tick=tick: time.time() >= tick, "the time of the kill", every=0.001)
                await asyncio.to_thread(workers.pop(0).kill)
                workers.append(WorkerProcess(server_url, namespace, module=MODULE))
            ids = await until(lambda: _at_least(app, raw, "pulse", 9), "nine ticks")
        finally:
            for worker in workers:
                worker.kill()
        await app.schedules.remove("pulse")
    assert_each_tick_once(ids)


async def test_after_a_time_without_a_worker_the_latest_tick_runs_once(app, raw, record):
    await app.schedules.add("pulse", record.s(), every=1)
    await _live_in_the_past(app, "pulse", 3600)
    async with Worker(app):
        await until(lambda: len(record.seen) >= 2, "two ticks")
        await app.schedules.remove("pulse")
    first, second = (tick_of(id_) for id_, _, _ in record.seen[:2])
    assert second - first == 1
    assert abs(first - time.time()) < 30


async def test_with_all_each_missed_tick_runs_in_order_also_if_they_overlap(app, record):
    await app.schedules.add("pulse", record.s(), every=1, catch_up="all")
    await _live_in_the_past(app, "pulse", 60)
    async with Worker(app):
        await until(lambda: len(record.seen) >= 60, "the ticks of a minute")
        await app.schedules.remove("pulse")
    assert_each_tick_once(sorted(id_ for id_, _, _ in record.seen))


async def _live_in_the_past(app: AsyncQ, name: str, seconds: int) -> None:
    """Changes a schedule as if no worker had looked at it for so long."""
    store = app.sessions.current().broker.schedules
    _, (stored,) = await store.read([name])
    entry = Entry.parse(stored)
    progress = type(entry.progress)(entry.progress.anchor - seconds, entry.progress.after - seconds)
    change = entry.reviewed(progress)
    assert change is not None
    await store.put(change)


async def test_a_worker_that_stops_before_a_tick_gives_back_what_it_was_handed_out(app, raw, record):
    keys = app.sessions.shards.of("pulse")
    await app.schedules.add("pulse", record.s(), every=3)
    async with Worker(app):
        await until(lambda: _is_handed_out(raw, keys), "the schedule to be handed out", every=0.005)
    await until(lambda: _is_due_at_its_tick(raw, keys), "the schedule to be given back", timeout=0.4)


async def _is_handed_out(raw: Any, keys: Any) -> bool:
    return not await _is_due_at_its_tick(raw, keys)


async def _is_due_at_its_tick(raw: Any, keys: Any) -> bool:
    due = await raw.hget(keys.schedules + "pulse", "u")
    return int(await raw.zscore(keys.schedules_due, "pulse")) == int(due)


async def test_the_job_of_a_tick_is_never_made_before_its_time(app, raw, record):
    await app.schedules.add("pulse", record.s(), every=60)
    store = app.sessions.current().broker.schedules
    now_ms, (stored,) = await store.read(["pulse"])
    done = step(Entry.parse(stored).definition, Entry.parse(stored).progress, 0, now_ms, ahead_ms=60_000)
    change = Entry.parse(stored).moved(done, now_ms, 60)
    assert change.tick is not None
    assert (await store.put(change)).tag == b"early"
    assert await store.read(["pulse"]) == (ANY, [stored])
    assert await jobs_of(app, raw, "pulse") == []
    in_time = replace(change, tick=replace(change.tick, not_before=now_ms))
    assert (await store.put(in_time)).tag == b"accepted"


@pytest.mark.usefixtures("leaves_keys")
async def test_a_schedule_that_nobody_may_run_does_not_keep_workers_from_a_new_one(app, raw, record):
    store = app.sessions.current().broker.schedules
    fields = {"s": "code", "f": "f" * 16}  # which no worker here declares
    await store.put(Change(name="left", version="", due_at=int(time.time() * 1000), fields=fields))
    await app.schedules.add("first", record.s(), at=1)
    async with Worker(app):
        await until(lambda: _ended(app, "first"), "the worker to sleep")
        await app.schedules.add("pulse", record.s(), every=1)
        await until(lambda: len(record.seen) >= 2, "the new schedule to tick", timeout=5)
        await app.schedules.remove("pulse")


# -- deployments -----------------------------------------------------------------------------------


async def test_a_rolling_deployment_changes_one_schedule_and_drops_another(
    make_app, server_url, namespace, raw, monkeypatch
):
    app = make_app()
    async with app, AsyncExitStack() as stack:
        start = _starter(stack, server_url, namespace, monkeypatch)
        old = start({"tidy": {"every": 1}, "gone": {"every": 1}})
        await until(lambda: _at_least(app, raw, "gone", 1), "the old version to tick")
        new = start({"tidy": {"every": 2}})
        await until(lambda: _has_rule(app, "tidy", "every 2s"), "the newest declaration to win")
        count = len(await jobs_of(app, raw, "gone"))
        await until(lambda: _at_least(app, raw, "gone", count + 1), "the old version to go on with its own")
        start({"tidy": {"every": 1}, "gone": {"every": 1}})  # a process of the old version is started anew
        await until(lambda: _has_rule(app, "tidy", "every 1s"), "the newest process to win")
        start({"tidy": {"every": 2}})
        await until(lambda: _has_rule(app, "tidy", "every 2s"), "the newest declaration to win again")
        old.send(signal.SIGTERM)
        new.send(signal.SIGTERM)
        await app.schedules.pause("tidy")


def _starter(
    stack: AsyncExitStack, server_url: str, namespace: str, monkeypatch: pytest.MonkeyPatch
) -> Callable[..., WorkerProcess]:
    def start(schedules: dict[str, Any], **settings: Any) -> WorkerProcess:
        monkeypatch.setenv("SCHEDULES", json.dumps(schedules))
        worker = WorkerProcess(server_url, namespace, module=MODULE, schedule_ttl=3, **settings)
        stack.callback(worker.kill)
        return worker.wait_until_ready()

    return start


async def _has_rule(app: AsyncQ, name: str, rule: str) -> bool:
    return any((one.name, one.rule) == (name, rule) for one in await app.schedules.list())


async def test_a_schedule_in_code_that_no_worker_declares_any_more_is_dropped(
    make_app, server_url, namespace, raw, monkeypatch
):
    app = make_app()
    async with app, AsyncExitStack() as stack:
        start = _starter(stack, server_url, namespace, monkeypatch)
        old = start({"tidy": {"every": 1}, "gone": {"every": 1}})
        start({"tidy": {"every": 1}})
        await until(lambda: _at_least(app, raw, "gone", 1), "a tick")
        old.kill()
        count = len(await jobs_of(app, raw, "gone"))
        await until(lambda: _is_gone(app, "gone"), "the schedule to be dropped")
        assert len(await jobs_of(app, raw, "gone")) <= count + 1
        after = len(await jobs_of(app, raw, "tidy"))
        await until(lambda: _at_least(app, raw, "tidy", after + 1), "the other schedule to go on")


async def test_a_newer_version_that_is_taken_back_leaves_the_schedule_to_the_older_one(
    make_app, server_url, namespace, raw, monkeypatch
):
    app = make_app()
    async with app, AsyncExitStack() as stack:
        start = _starter(stack, server_url, namespace, monkeypatch)
        start({"tidy": {"every": 1}})
        new = start({"tidy": {"every": 2}})
        await until(lambda: _has_rule(app, "tidy", "every 2s"), "the newest declaration to win")
        new.kill()
        await until(lambda: _has_rule(app, "tidy", "every 1s"), "the older version to take it back")
        after = len(await jobs_of(app, raw, "tidy"))
        await until(lambda: _at_least(app, raw, "tidy", after + 2), "its ticks to go on")


async def test_a_schedule_in_code_stays_paused_over_restarts_and_cannot_be_removed_or_replaced(
    make_app, server_url, namespace, raw, monkeypatch, record
):
    app = make_app()
    async with app, AsyncExitStack() as stack:
        start = _starter(stack, server_url, namespace, monkeypatch)
        worker = start({"tidy": {"every": 1}})
        await until(lambda: _has_rule(app, "tidy", "every 1s"), "the declaration")
        with pytest.raises(ValueError, match="declared in code"):
            await app.schedules.remove("tidy")
        with pytest.raises(ValueError, match="a schedule in code has the name 'tidy'"):
            await app.schedules.add("tidy", app.task_named("note").s(), every=5)
        await app.schedules.pause("tidy")
        worker.kill()
        start({"tidy": {"every": 2}})
        await until(lambda: _has_rule(app, "tidy", "every 2s"), "the new declaration")
        assert (await app.schedules.get("tidy")).paused


# -- the server's clock ------------------------------------------------------------------------


@pytest.mark.one_shard
async def test_after_the_servers_clock_was_set_back_every_goes_on_within_one_interval(app, raw, record):
    await app.schedules.add("pulse", record.s(), every=2)
    await app.schedules.add("nightly", record.s("cron"), cron="0 3 * * *")
    before = await app.schedules.get("nightly")
    await _live_in_the_past(app, "pulse", -3600)
    keys = app.sessions.shards[0]
    # What the server remembers of a clock that was an hour ahead.
    await raw.set(keys.schedules_clock, int((time.time() + 3600) * 1000), px=60_000)
    started = time.time()
    async with Worker(app):
        await until(lambda: len(record.seen) >= 2, "two ticks")
        assert time.time() - started < 10
        await app.schedules.remove("pulse")
    assert tick_of(record.seen[1][0]) - tick_of(record.seen[0][0]) == 2
    assert await app.schedules.get("nightly") == before
    assert int(await raw.get(keys.schedules_clock)) < (time.time() + 60) * 1000


# -- damaged data, costs ------------------------------------------------------------------------


@pytest.mark.usefixtures("leaves_keys")
@pytest.mark.one_shard
async def test_a_damaged_schedule_does_not_stop_the_others(app, raw, record):
    keys = app.sessions.shards[0]
    await app.schedules.add("good", record.s(), every=1)
    await app.schedules.add("bad", record.s("bad"), every=1)
    await raw.hset(keys.schedules + "bad", "d", b"garbage")
    await raw.set(keys.schedules + "worse", "a text")
    await raw.zadd(keys.schedules_due, {"worse": 1, "missing": 1})
    async with Worker(app):
        await until(lambda: len(record.seen) >= 2, "the good one to tick")
    assert [one.name for one in await app.schedules.list()] == ["good"]
    assert await raw.zscore(keys.schedules_due, "missing") is None


@pytest.mark.usefixtures("server_url")  # loads the client library outside of the loop
@pytest.mark.one_shard
async def test_a_thousand_idle_schedules_cost_less_than_two_commands_a_second():
    app = AsyncQ("memory://", lease=3)

    @app.task(name="record")
    async def record() -> None: ...

    async with app, Worker(app):
        server = app.sessions.current().server
        assert server is not None
        async with redis.asyncio.Redis.from_url(server.url) as raw:

            async def scripts_in(seconds: float) -> int:
                """Counts the scripts that are sent: an idle ticker sends nothing else."""

                async def count() -> int:
                    return int((await raw.info("commandstats"))["cmdstat_evalsha"]["calls"])

                before, began = await count(), time.monotonic()
                await until(lambda: time.monotonic() >= began + seconds, "the time to pass", every=0.2)
                return await count() - before

            without = await scripts_in(6)
            await asyncio.gather(*(app.schedules.add(f"s{n}", record.s(), every=86_400) for n in range(1000)))
            assert await scripts_in(6) - without <= 2 * 6


async def test_many_schedules_tick_soon_after_their_time(app, raw, record):
    names = [f"s{n}" for n in range(200)]
    await asyncio.gather(*(app.schedules.add(name, record.s(), every=2) for name in names))
    async with Worker(app):
        await until(lambda: len(record.seen) >= 400, "two ticks of each")
        for name in names:
            await app.schedules.remove(name)
    late = []
    for id_, _, _ in record.seen:
        record_of_job = await raw.get(app.sessions.shards.of(id_).records + id_)
        entry = record_of_job.split()[1].decode()
        late.append(int(entry.partition("-")[0]) / 1000 - tick_of(id_))
    assert min(late) >= 0
    assert sorted(late)[len(late) // 2] < 0.2


# -- what is refused ------------------------------------------------------------------------------


async def test_what_does_not_fit_is_refused_and_nothing_is_added(app, record):
    @app.task(name="needs")
    async def needs(a: int) -> None: ...

    add = app.schedules.add
    soon = datetime.now(UTC) + timedelta(hours=1)
    for error, match, call in (
        (ValueError, "cannot be a name", lambda: add("a b", record.s(), every=5)),
        (TypeError, "one of every=, cron= and at=, and nothing", lambda: add("a", record.s())),
        (TypeError, "every= and cron= was given", lambda: add("a", record.s(), every=5, cron="* * * * *")),
        (
            ValueError,
            "every=0.5: a schedule ticks every whole second",
            lambda: add("a", record.s(), every=0.5),
        ),
        (ValueError, "every=1.5", lambda: add("a", record.s(), every=1.5)),
        (ValueError, "'61' is no minute", lambda: add("a", record.s(), cron="61 * * * *")),
        (ValueError, "is no time zone", lambda: add("a", record.s(), cron="* * * * *", tz="Mars/Base")),
        (TypeError, "tz= says how a cron text is read", lambda: add("a", record.s(), every=5, tz="UTC")),
        (ValueError, 'use "latest", "all" or "none"', lambda: add("a", record.s(), every=5, catch_up="some")),
        (ValueError, "max_runs=", lambda: add("a", record.s(), every=5, max_runs=0)),
        (ValueError, "has no time zone", lambda: add("a", record.s(), at=datetime(2030, 1, 1))),  # noqa: DTZ001
        (
            ValueError,
            "start= is after until=",
            lambda: add("a", record.s(), every=5, start=soon, until=soon - timedelta(1)),
        ),
        (TypeError, "a schedule makes one call", lambda: add("a", record.s() | record.s(), every=5)),
        (TypeError, "missing a required argument: 'a'", lambda: add("a", needs.s(), every=5)),
        (
            ValueError,
            "countdown= is none of the options",
            lambda: add("a", record.s().set(countdown=5), every=5),
        ),
        (
            ValueError,
            "task_id= is none of the options",
            lambda: add("a", record.s().set(task_id="x"), every=5),
        ),
        (
            ValueError,
            "expires= is one time for all ticks",
            lambda: add("a", record.s().set(expires=soon), every=5),
        ),
    ):
        with pytest.raises(error, match=match):
            await call()
    assert await app.schedules.list() == []


def test_a_wrong_schedule_in_code_is_refused_at_registration():
    app = AsyncQ("memory://")
    for error, match, options, body in (
        (
            ValueError,
            r"'25' is no hour: it may be 0 to 23\n  0 25 \* \* \*\n    \^\^",
            {"cron": "0 25 * * *"},
            _nothing,
        ),
        (ValueError, "is no time zone", {"cron": "0 2 * * *", "tz": "Europe/Pari"}, _nothing),
        (TypeError, "every= calls the task without arguments", {"every": 5}, _with_argument),
        (TypeError, "every= and cron= was given", {"every": 5, "cron": "* * * * *"}, _nothing),
        (ValueError, "every=0.2", {"every": 0.2}, _nothing),
    ):
        with pytest.raises(error, match=match):
            app.task(name="tidy", **options)(body)
    assert not app.tasks


async def _nothing() -> None: ...


async def _with_argument(a: int) -> None: ...


async def test_a_change_from_an_old_version_of_a_schedule_is_refused(app, record):
    await app.schedules.add("a", record.s(), every=60)
    store = app.sessions.current().broker.schedules
    _, (stored,) = await store.read(["a"])
    change = Change(name="a", version=stored.version, due_at=None, fields={})
    assert (await store.put(change)).tag == b"accepted"
    assert (await store.put(change)).tag == b"refused"
