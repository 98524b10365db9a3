"""The server's bad days: it restarts, refuses, hangs or forgets. No job is lost, no process ends, and none
loops without a pause.

Each function in `DAYS` does one thing to the server or to the connections. `one_day` runs one of them between
calls that must succeed.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import TYPE_CHECKING

from helpers import meter
from helpers.stopwatch import Stopwatch
from helpers.waiting import until

from chaos import oracle
from chaos.report import Report
from chaos.stage import Stage

if TYPE_CHECKING:
    import redis

HEALED_WITHIN = 5.0
MOST_CPU = 20.0
"""Percent of a core that a worker may use while it cannot work. A loop without a pause uses 100."""

Day = Callable[[Stage], Awaitable[None]]


async def bad_days(scale: float, seed: int, lease: float = 5.0) -> Report:
    """Restarts, LOADING, READONLY, OOM, NOSCRIPT, NOGROUP, CLIENT KILL, DEBUG SLEEP, passwords and more."""
    report = Report("bad days")
    for day in DAYS:
        report.figures += (await one_day(day, seed, min(lease, 2.0))).figures
    return report


async def one_day(day: Day, seed: int = 1, lease: float = 1.0) -> Report:
    """Runs one bad day. The same worker and the same client must work before and after it."""
    name = day.__name__.replace("_", " ")
    async with Stage(name, seed=seed, lease=lease, durable=day in DURABLE, proxied=day in PROXIED) as stage:
        worker = await stage.fleet.add()
        await stage.call(0)
        calls = [stage.begin(number, 0.3 * (number % 10)) for number in range(1, 31)]
        await until(
            lambda: len(oracle.Journals.read(stage.folder).runs) >= 20, "20 jobs to start", every=0.05
        )
        began, cost = time.monotonic(), meter.cpu(worker.pid)
        await day(stage)
        since_fault = Stopwatch()
        await stage.call(31, timeout=30)
        stage.report.below(f"{name}: next call ended after", since_fault.took, HEALED_WITHIN, " s")
        await asyncio.gather(*calls, return_exceptions=True)
        spent = (meter.cpu(worker.pid) - cost) / (time.monotonic() - began) * 100 if worker.alive else 0.0
        stage.report.below(f"{name}: CPU of the worker", spent, MOST_CPU, " %")
        stage.report.equal(f"{name}: the worker is alive", worker.alive, expected=True)
        if not worker.alive:
            stage.report.fact(f"{name}: the end of its log", worker.log().strip().splitlines()[-1][:160])
        await _judge(stage, name, day)
        return stage.report


async def _judge(stage: Stage, name: str, day: Day) -> None:
    journals = oracle.Journals.read(stage.folder)
    report = stage.report
    report.equal(f"{name}: wrong values", len(journals.wrong()), 0)
    report.equal(f"{name}: enqueues that made two jobs", len(journals.duplicated_jobs()), 0)
    if day in LOSES_DATA:
        # The jobs may be lost with the data, but each waiter must get `ResultNotFound`.
        wrong_answers = [
            kind for kind in journals.answer_kinds() if kind not in {"ok", "other:ResultNotFound"}
        ]
        report.equal(f"{name}: waiters without an outcome or ResultNotFound", wrong_answers, [])
        report.equal(f"{name}: waits that did not end", len(journals.accepted) - len(journals.answers), 0)
        return
    stored = await stage.stored(list(journals.accepted))
    report.equal(f"{name}: lost jobs", len(set(journals.accepted) - set(stored)), 0)
    report.equal(f"{name}: waits without an answer", journals.never_answered(), [])
    report.equal(f"{name}: jobs with two outcomes", len(journals.contradicted(stored)), 0)
    report.below(f"{name}: extra runs", journals.extra_runs(), EXTRA_RUNS.get(day, 0))


@contextlib.asynccontextmanager
async def _config(stage: Stage, option: str, value: object, restored: object) -> AsyncIterator[redis.Redis]:
    """Sets an option of the server for the block. Yields a connection that was made before."""
    with contextlib.closing(stage.server.client()) as client:
        client.config_set(option, value)
        try:
            yield client
        finally:
            client.config_set(option, restored)


async def _error_of_enqueue(stage: Stage) -> str:
    """Returns the name of the error that a client gets when it enqueues."""
    try:
        await asyncio.wait_for(stage.tasks.work.delay(-1), 3)
    except TimeoutError:
        return "nothing"
    except Exception as error:
        return type(error).__name__
    return "accepted"


# -- the days --


async def restart_with_data(stage: Stage) -> None:
    await asyncio.to_thread(stage.server.kill)
    await asyncio.sleep(1.0)
    await asyncio.to_thread(stage.server.start)


async def restart_without_data(stage: Stage) -> None:
    await asyncio.to_thread(stage.server.kill)
    stage.server.wipe()
    await asyncio.sleep(0.5)
    await asyncio.to_thread(stage.server.start)


async def flush(stage: Stage) -> None:
    stage.server.do("FLUSHALL")


async def loading(stage: Stage) -> None:
    with contextlib.closing(stage.server.client()) as client:
        client.mset({f"ballast{n}": "x" for n in range(400)})
        client.execute_command("SAVE")
    await asyncio.to_thread(stage.server.kill)
    # 400 keys of 5 ms each: for two seconds the server answers LOADING to everything.
    slow = {"key_load_delay": 5000, "loading_process_events_interval_bytes": 1024}
    await asyncio.to_thread(stage.server.start, until="listening", **slow)
    await until(lambda: not stage.server.loading(), "the server to have read its data", every=0.05)


async def readonly(stage: Stage) -> None:
    stage.server.do("REPLICAOF", "127.0.0.1", "1")
    await asyncio.sleep(2.0)
    stage.server.do("REPLICAOF", "NO", "ONE")


async def out_of_memory(stage: Stage) -> None:
    async with _config(stage, "maxmemory", 1, 0):
        stage.report.equal("out of memory: an enqueue raises", await _error_of_enqueue(stage), "QueueFull")
        stage.report.above(
            "out of memory: outcomes that were stored", len(await _answered_meanwhile(stage)), 5
        )


async def _answered_meanwhile(stage: Stage) -> list[str]:
    """Returns which of the running jobs get their answers while the memory is full."""
    before = set(oracle.Journals.read(stage.folder).answers)
    await asyncio.sleep(3.0)
    return sorted(set(oracle.Journals.read(stage.folder).answers) - before)


async def scripts_flushed(stage: Stage) -> None:
    stage.server.do("SCRIPT", "FLUSH")


async def scripts_flushed_and_connections_cut(stage: Stage) -> None:
    for _ in range(10):
        stage.server.do("SCRIPT", "FLUSH")
        await connections_killed(stage)


async def group_destroyed(stage: Stage) -> None:
    stage.server.do("XGROUP", "DESTROY", stage.app.sessions.shards[0].stream("default"), "g")


async def group_destroyed_while_out_of_memory(stage: Stage) -> None:
    async with _config(stage, "maxmemory", 1, 0):
        stage.server.do("XGROUP", "DESTROY", stage.app.sessions.shards[0].stream("default"), "g")
        await asyncio.sleep(2.0)


async def connections_killed(stage: Stage) -> None:
    """Closes all connections of asyncq, one after the other."""
    for number in stage.server.connections():
        stage.server.cut(number)
        await asyncio.sleep(0.02)


async def paused(stage: Stage) -> None:
    stage.server.do("CLIENT", "PAUSE", "3000", "ALL")
    await asyncio.sleep(3.0)


async def asleep(stage: Stage) -> None:
    """Lets the server sleep longer than every timeout."""
    sleeping = asyncio.to_thread(stage.server.do, "DEBUG", "SLEEP", "12", timeout=30.0)
    await asyncio.gather(sleeping, asyncio.sleep(12.0))


async def frozen_beyond_the_lease(stage: Stage) -> None:
    stage.server.freeze()
    await asyncio.sleep(stage.lease * 2)
    stage.server.thaw()


async def half_open(stage: Stage) -> None:
    assert stage.proxy is not None
    stage.proxy.half_open()
    await asyncio.sleep(10.0)


async def sliced_and_slow(stage: Stage) -> None:
    assert stage.proxy is not None
    stage.proxy.slices, stage.proxy.latency = 7, (0.0, 0.005)
    await asyncio.gather(*(stage.call(number, 0.1) for number in range(100, 150)))
    stage.proxy.slices, stage.proxy.latency = 0, (0.0, 0.0)


async def lost_requests(stage: Stage) -> None:
    assert stage.proxy is not None
    stage.proxy.drop_requests = 0.2
    await asyncio.gather(*(stage.call(number, 0.1) for number in range(100, 150)))
    stage.proxy.drop_requests = 0.0


async def no_more_clients(stage: Stage) -> None:
    async with _config(stage, "maxclients", 1, 10_000) as client:
        await asyncio.to_thread(stage.server.cut_all, client)
        await asyncio.sleep(2.0)


async def password_changed(stage: Stage) -> None:
    """Changes the password, so that nobody can connect until it is changed back."""
    async with _config(stage, "requirepass", "changed", "") as client:
        await asyncio.to_thread(stage.server.cut_all, client)
        await asyncio.sleep(3.0)


async def password_changed_and_worker_lost_its_lease(stage: Stage) -> None:
    """A new worker session begins while nobody can connect."""
    with contextlib.closing(stage.server.client()) as client:
        client.delete(stage.app.sessions.shards[0].beats)
    await password_changed(stage)


async def out_of_memory_and_worker_lost_its_lease(stage: Stage) -> None:
    """A new worker session begins while the server refuses to create keys."""
    async with _config(stage, "maxmemory", 1, 0):
        stage.server.do("DEL", stage.app.sessions.shards[0].beats)
        await asyncio.sleep(stage.lease * 2)


DAYS: list[Day] = [
    restart_with_data,
    restart_without_data,
    flush,
    loading,
    readonly,
    out_of_memory,
    scripts_flushed,
    scripts_flushed_and_connections_cut,
    group_destroyed,
    group_destroyed_while_out_of_memory,
    connections_killed,
    paused,
    asleep,
    frozen_beyond_the_lease,
    half_open,
    sliced_and_slow,
    lost_requests,
    no_more_clients,
    password_changed,
    password_changed_and_worker_lost_its_lease,
    out_of_memory_and_worker_lost_its_lease,
]
DURABLE = {restart_with_data, loading}
PROXIED = {half_open, sliced_and_slow, lost_requests}
LOSES_DATA = {restart_without_data, flush}
"""The days after which the jobs that had not ended may be lost."""
RUNNING = 30
EXTRA_RUNS: dict[Day, int] = {
    # The pending list is gone, so the jobs that ran are delivered again.
    group_destroyed: RUNNING,
    group_destroyed_while_out_of_memory: RUNNING,
    # A worker that begins a new session drops the jobs that it ran.
    password_changed_and_worker_lost_its_lease: RUNNING,
    out_of_memory_and_worker_lost_its_lease: RUNNING,
}
