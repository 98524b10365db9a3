"""The protocol's crash table, row by row. A process dies, or is stopped past its lease (SIGSTOP), just
before or just after a step.

`order` is a failpoint and an action, such as `finish.send=kill`: see `asyncq.failpoints`.
"""

from __future__ import annotations

import asyncio
import signal

from helpers.waiting import until

from chaos.fleet import WorkerProcess
from chaos.report import Report
from chaos.stage import Stage

STEPS = ("enqueue", "read", "finish", "beat", "take", "release")
POINTS = ("send", "answered")
WITHOUT_EFFECT = {"read.send"}  # a read that was not sent changes nothing
KILLS = [
    f"{step}.{point}=kill" for step in STEPS for point in POINTS if f"{step}.{point}" not in WITHOUT_EFFECT
]
STOPPED = (
    "read.answered",
    "finish.send",
    "finish.answered",
    "beat.send",
    "beat.answered",
    "take.send",
    "take.answered",
)
STOPS = [f"{point}=stop" for point in STOPPED]
HIT = 4


async def crash_table(scale: float, seed: int, lease: float = 5.0) -> Report:
    """Kill -9, or a pause past the lease, at every step of the protocol."""
    report = Report("crash table")
    for order in KILLS + STOPS:
        report.figures += (await one_crash(order, seed, min(lease, 1.0))).figures
    return report


async def one_crash(order: str, seed: int = 1, lease: float = 1.0) -> Report:
    """Runs one row: a failpoint acts in one process, and a second worker continues with the jobs."""
    point, _, action = order.partition("=")
    step = point.partition(".")[0]
    hit = 1 if step in {"take", "release"} else HIT
    async with Stage(f"{point} {action}", seed=seed, lease=lease, concurrency=8, grace=0) as stage:
        armed = f"{order}@{hit}"
        if step == "enqueue":
            struck = await _client_that_dies(stage, armed)
        else:
            struck = await _worker_with_failpoint(stage, armed, step)
        name = stage.report.trial
        if action == "kill":
            stage.report.equal(f"{name}: died by", struck.process.returncode, -signal.SIGKILL)
        journals = await stage.judge()
        # The client died in an enqueue, so nobody knows whether it was accepted. The job may run once, or
        # not.
        runs = {number for runs in journals.runs.values() for number in (run.number for run in runs)}
        stage.report.below(
            f"{name}: jobs that ran and were not noted as accepted", len(runs) - len(journals.accepted), 1
        )
        stage.report.figures = [figure for figure in stage.report.figures if figure.limit]
        return stage.report


async def _worker_with_failpoint(stage: Stage, armed: str, step: str) -> WorkerProcess:
    victim = await stage.fleet.add() if step == "take" else None
    struck = await stage.fleet.add(failpoints=armed)
    stage.fleet.expect_exit(struck)
    calls = [stage.begin(number, 0.2 * (number % 8), 40) for number in range(60)]
    if step in {"take", "release"}:
        await asyncio.sleep(stage.lease * 0.7)
    if victim is not None:
        calls += [stage.begin(number, stage.lease * 2, 40) for number in range(60, 70)]
        await asyncio.sleep(0.3)
        await stage.fleet.kill(victim)
        await asyncio.sleep(stage.lease * 1.7)  # the worker with the failpoint is the only observer
    elif step == "release":
        calls += [stage.begin(number, stage.lease * 2, 40) for number in range(60, 66)]
        await asyncio.sleep(0.3)
        stage.fleet.lost(struck)
        struck.send(signal.SIGTERM)
    else:
        await until(lambda: not struck.alive or struck.stopped, "the failpoint to act", every=0.05)
    stage.fleet.lost(struck)
    await stage.fleet.add()
    await until(lambda: not struck.alive or struck.stopped, "the failpoint to act", every=0.05)
    if struck.alive:
        await asyncio.sleep(stage.lease * 2.5)
        struck.send(signal.SIGCONT)
    await asyncio.wait(calls, timeout=45)
    return struck


async def _client_that_dies(stage: Stage, armed: str) -> WorkerProcess:
    await stage.fleet.add()
    client = WorkerProcess(
        stage.url, stage.folder, stage.fleet.settings, armed, ("chaos.client", "1000", "20")
    )
    await asyncio.to_thread(client.process.wait, 20)
    client.end()
    stream = stage.app.sessions.shards[0].stream("default")
    await until(lambda: stage.server.do("XLEN", stream) == 0, "the queue to be empty", every=0.05)
    await stage.await_accepted()
    return client
