"""Ticks of schedules, while workers are killed around them."""

from __future__ import annotations

import asyncio
import time
from contextlib import suppress
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import redis
from helpers.waiting import NotWithinError, until

from chaos.stage import Stage

if TYPE_CHECKING:
    from chaos.report import Report

WORKERS = 4
SCHEDULES = 20
MOMENTS = ("tick.send", "tick.answered")
PATIENCE = 10.0
"""Seconds that a worker has to come to its moment."""


async def ticks(scale: float, seed: int, lease: float = 5.0) -> Report:
    """20 schedules that tick every second, 4 workers, 200 kill -9 around ticks: none is lost, none doubled.

    Each other worker is killed by a timer within 20 ms of a tick. The others kill themselves right before or
    right after the script that makes the job of one of their next ticks, or are killed if they come to none.
    """
    async with Stage(
        "ticks", scale=scale, seed=seed, lease=lease, max_crashes=1000, result_ttl=7200
    ) as stage:
        kills = stage.count(200, least=8)
        schedules = [f"pulse-{number}" for number in range(SCHEDULES)]
        for number, name in enumerate(schedules):
            await stage.app.schedules.add(name, stage.tasks.echo.s(number), every=1, overlap=True)
        first = {name: (await stage.app.schedules.get(name)).next_at for name in schedules}
        await stage.workers(WORKERS - 1)
        by_timer = by_themselves = 0
        for turn in range(kills):
            if turn % 2:
                by_timer += 1
                moment = int(time.time()) + 1 + stage.random.uniform(-0.02, 0.02)
                await asyncio.sleep(moment - time.time())
                await stage.fleet.replace_random()
                continue
            point = f"{stage.random.choice(MOMENTS)}=kill@{stage.random.randint(1, 8)}"
            worker = await stage.fleet.add(failpoints=point)
            stage.fleet.expect_exit(worker)
            # Any worker may make the jobs of a tick, so it may be that others make them all.
            with suppress(NotWithinError):
                await until(lambda worker=worker: not worker.alive, "the worker to kill itself", PATIENCE)
            if worker.alive:
                by_timer += 1
            else:
                by_themselves += 1
            await stage.fleet.kill(worker)
        killed_until = time.time()
        await until(lambda: time.time() > killed_until + 12, "the last ticks to come", 30)
        report = stage.report
        report.fact("kills by a timer / by themselves", f"{by_timer} / {by_themselves}")
        lost = doubled = made = 0
        for name in schedules:
            found = await asyncio.to_thread(_ticks_of, stage, name)
            begin = first[name]
            assert begin is not None
            # The last seconds may still be under way.
            expected = range(int(begin.timestamp()), int(killed_until) - 1)
            made += len(found)
            lost += len(set(expected) - set(found))
            doubled += len(found) - len(set(found))
            await stage.app.schedules.remove(name)
        report.fact("ticks", made)
        report.equal("lost ticks", lost, 0)
        report.equal("ticks with two jobs", doubled, 0)
        stage.fleet.note_unexpected_exits()
        report.equal("workers that ended by themselves", stage.fleet.unexpected_exits, [])
        await stage.nothing_left()
        return report


def _ticks_of(stage: Stage, name: str) -> list[int]:
    """Returns the tick of every job that a schedule has made, in seconds since the epoch."""
    prefix = f"{stage.app.sessions.shards.of(name).records}{name}:"
    with redis.Redis.from_url(stage.server.url) as client:
        pattern = prefix.replace("[", "\\[") + "*"
        ids = [key.decode().removeprefix(prefix) for key in client.scan_iter(match=pattern, count=10_000)]
    return [int(datetime.strptime(id_[:16], "%Y%m%dT%H%M%SZ").replace(tzinfo=UTC).timestamp()) for id_ in ids]
