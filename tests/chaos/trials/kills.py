"""Workers and servers that die or are stopped under load."""

from __future__ import annotations

import asyncio
import contextlib
import time
from typing import TYPE_CHECKING

import redis.exceptions
from helpers.waiting import until

from chaos import oracle
from chaos.jobs import POISONS
from chaos.stage import Stage, beside

if TYPE_CHECKING:
    from chaos.report import Report


async def kill_workers(scale: float, seed: int, lease: float = 5.0) -> Report:
    """100,000 jobs, 4 workers x 64, 50 random kill -9."""
    async with Stage("kill -9 of workers", scale=scale, seed=seed, lease=lease) as stage:
        total, kills = stage.count(100_000), stage.count(50)
        await stage.workers(4)

        async def killer() -> None:
            for _ in range(kills):
                await asyncio.sleep(stage.random.uniform(0.4, 1.2))
                await stage.fleet.replace_random()

        await asyncio.gather(stage.drive(total, rate=total / (kills * 1.2 + 1), seconds=0.1), killer())
        await stage.all_answered()
        stage.report.fact("kills", kills)
        await stage.judge()
        await stage.nothing_left()
        return stage.report


async def kill_everything(scale: float, seed: int, lease: float = 5.0) -> Report:
    """The same with 5 server kills (appendfsync always), CLIENT KILL every 0.5 s, 20 SIGSTOPs of 8 s."""
    async with Stage(
        "kill -9 of workers and server", scale=scale, seed=seed, lease=lease, durable=True
    ) as stage:
        total, kills, stops = stage.count(100_000), stage.count(50), stage.count(20)
        crashes = stage.count(5)
        # The stops take two or three of four workers away, so the calls come at a pace that one worker can
        # keep up with: 64 slots / 0.05 s = 1,280 jobs a second. At 1,560 a second a queue of 16,000 built up,
        # and the jobs of dead workers, which go to its end each time, waited a minute.
        length = max(kills * 2, stops * lease)
        await stage.workers(4)
        faults = [
            _every(length / kills, kills, stage.fleet.replace_random),
            _every(length / stops, stops, lambda: _stop_random_for(stage, lease * 1.6)),
            _every(length / crashes, crashes, lambda: _crash_server(stage)),
        ]
        async with beside(_cut_connections(stage)):
            await asyncio.gather(stage.drive(total, rate=total / length, seconds=0.1), *faults)
        await stage.all_answered()
        stage.report.fact("kills / stops / server crashes", f"{kills} / {stops} / {crashes}")
        await stage.judge()
        await stage.nothing_left()
        return stage.report


async def _every(seconds, times, action) -> None:
    running = []
    for _ in range(times):
        await asyncio.sleep(seconds)
        running.append(asyncio.create_task(action()))
    await asyncio.gather(*running)


async def _stop_random_for(stage: Stage, seconds: float) -> None:
    running = [worker for worker in stage.fleet.workers if worker.stopped_at is None and worker.alive]
    if len(running) > 1:
        await stage.fleet.stop_for(stage.random.choice(running), seconds)


async def _crash_server(stage: Stage) -> None:
    await asyncio.to_thread(stage.server.kill)
    await asyncio.sleep(0.3)
    await asyncio.to_thread(stage.server.start)


async def _cut_connections(stage: Stage) -> None:
    """Closes a random connection by CLIENT KILL every half second, whenever the server is there."""
    while True:
        await asyncio.sleep(0.5)
        with contextlib.suppress(redis.exceptions.ConnectionError):
            # There is none just after the server has started again.
            if numbers := await asyncio.to_thread(stage.server.connections):
                await asyncio.to_thread(stage.server.cut, stage.random.choice(numbers))


async def redelivery(scale: float, seed: int, lease: float = 5.0) -> Report:
    """kill -9 with 200 long jobs running, 30 times: each starts again within 1.33 x lease + 1 s."""
    async with Stage(
        "long jobs of a killed worker", scale=scale, seed=seed, lease=lease, concurrency=250
    ) as stage:
        rounds, jobs = stage.count(30), max(20, stage.count(200))
        delays: list[float] = []
        for turn in range(rounds):
            delays += await _one_redelivery(stage, range(turn * jobs, (turn + 1) * jobs))
        delays.sort()
        stage.report.fact("rounds x jobs", f"{rounds} x {jobs}")
        stage.report.equal("started again", len(delays), rounds * jobs)
        stage.report.fact("median delay, s", delays[len(delays) // 2])
        stage.report.below("longest delay", delays[-1], stage.bound, " s")
        return stage.report


async def _one_redelivery(stage: Stage, numbers: range) -> list[float]:
    victim = await stage.fleet.add()
    handles = await asyncio.gather(*(stage.tasks.hang_once.delay(number) for number in numbers))
    await until(lambda: _started(stage, handles) == len(handles), "all jobs to start", every=0.05)
    successor = await stage.fleet.add()
    # After this time, the successor has observed the other workers at least once.
    await asyncio.sleep(stage.lease * stage.random.uniform(0.34, 1.0))
    killed = time.monotonic()
    await stage.fleet.kill(victim)
    await asyncio.gather(*(handle.get(timeout=stage.bound + 20) for handle in handles))
    await asyncio.to_thread(successor.end, 15)
    stage.fleet.workers.remove(successor)
    journals = oracle.Journals.read(stage.folder)
    return [journals.runs[handle.id][1].started - killed for handle in handles]


def _started(stage: Stage, handles: list) -> int:
    runs = oracle.Journals.read(stage.folder).runs
    return sum(handle.id in runs for handle in handles)


async def dead_behind_live(scale: float, seed: int, lease: float = 5.0) -> Report:
    """10 dead jobs behind 5,000 live ones: all 10 back within 1.33 x lease + 1 s."""
    async with Stage("dead jobs behind live ones", scale=scale, seed=seed, lease=lease) as stage:
        live = stage.count(5000, least=200)
        await stage.fleet.add(concurrency=live)
        live_handles = await asyncio.gather(*(stage.tasks.hang_once.delay(number) for number in range(live)))
        await until(
            lambda: _started(stage, live_handles) == live,
            "the jobs of the live worker to start",
            60,
            every=0.5,
        )
        victim = await stage.fleet.add(concurrency=10)
        dead_handles = await asyncio.gather(
            *(stage.tasks.hang_once.delay(live + number) for number in range(10))
        )
        await until(lambda: _started(stage, dead_handles) == 10, "the ten jobs to start", every=0.2)
        await stage.fleet.add(concurrency=10)
        await asyncio.sleep(stage.lease * stage.random.uniform(0.34, 1.0))
        killed = time.monotonic()
        await stage.fleet.kill(victim)
        await asyncio.wait(
            [asyncio.create_task(handle.get(timeout=stage.bound + 20)) for handle in dead_handles],
            timeout=stage.bound + 21,
        )
        journals = oracle.Journals.read(stage.folder)
        delays = [
            journals.runs[handle.id][1].started - killed
            for handle in dead_handles
            if len(journals.runs[handle.id]) > 1
        ]
        stage.report.fact("live jobs", live)
        stage.report.equal("jobs of the dead worker that started again", len(delays), 10)
        stage.report.below("longest delay", max(delays, default=999), stage.bound, " s")
        stage.report.equal(
            "jobs of live workers that started again",
            sum(len(journals.runs[h.id]) - 1 for h in live_handles),
            0,
        )
        return stage.report


async def poison(scale: float, seed: int, lease: float = 5.0) -> Report:
    """5 kinds of poison among 2,000 good jobs, worker concurrency 64."""
    async with Stage("poison", scale=scale, seed=seed, lease=lease, last_tries=4) as stage:
        good = stage.count(2000)
        await stage.workers(2)
        bad = {}
        async with beside(stage.fleet.keep_up(frozen_after=lease * 1.6)):
            load = asyncio.create_task(stage.drive(good, rate=good / 5, seconds=0.2, timeout=180))
            for number, kind in enumerate(POISONS):
                bad[kind] = await stage.tasks.poison.delay(1_000_000 + number, kind)
                await asyncio.sleep(0.5)
            await load
            ends = {kind: await _end_of(handle) for kind, handle in bad.items()}
            await stage.all_answered(180)
        journals = oracle.Journals.read(stage.folder)
        for kind, handle in bad.items():
            stage.report.below(f"runs of {kind}", len(journals.runs[handle.id]), 3)
            stage.report.equal(f"end of {kind}", ends[kind], "WorkerLost")
            del journals.runs[handle.id]
        stage.report.equal("good jobs that succeeded", journals.answer_kinds()["ok"], good)
        return stage.report


async def _end_of(handle) -> str:
    try:
        await handle.get(timeout=120)
    except Exception as error:
        return type(error).__name__
    return "ok"
