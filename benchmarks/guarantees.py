"""Scenario of a killed worker: what becomes of the jobs that it ran, found by killing it."""

import asyncio
import os
import signal
import statistics
import subprocess
import tempfile
import time
from collections import defaultdict
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import server
from scenario import Measured, Scenario
from system import CONCURRENCY, Client, System, family, start_worker


@dataclass(frozen=True)
class Kill(Scenario):
    """Enqueues jobs of 50 ms and starts a worker. When a third of the jobs has ended, SIGKILL ends the worker
    and all its children, as the kernel does when memory is short. Another worker starts at once. The jobs
    themselves write down when they began and ended, outside of Redis.

    Lost are jobs that have not ended when the time is up; some systems might still have run them. Interrupted
    are jobs that had begun and not ended at the kill; when such a job begins again, it was redelivered. It is
    no fault that those begin twice. Run twice are jobs that ended more than once; that is a fault only of a
    system that promises more than at least once, because a job can end just before its result is stored.
    """

    most: float = 130.0  # seconds
    jobs_per_slot: int = 6
    after: float = 2.0  # seconds in which a job could still run once more
    once = True
    limit = 220.0
    environment: ClassVar[Mapping[str, str]] = {"BENCH_KILL": "1"}

    async def run(self, system: System, url: str) -> Measured:
        jobs = max(60, self.jobs_per_slot * system.slots)
        while True:
            try:
                return await self._run(system, url, jobs)
            except _AllEndedError:
                if jobs >= 8 * self.jobs_per_slot * system.slots:
                    raise
                jobs *= 2  # the machine was too busy to kill the worker in time

    async def _run(self, system: System, url: str, jobs: int) -> Measured:
        with tempfile.NamedTemporaryFile("r") as journal:
            os.environ["BENCH_JOURNAL"] = journal.name
            async with system.open(url, CONCURRENCY) as client:
                handles = await client.map(range(jobs), "nap")
                killed_at = await self._kill_in_the_middle(system, url, jobs, Path(journal.name))
                deadline = killed_at + min(self.most, system.recovers_within)
                second = start_worker(system, url)
                try:
                    await self._until_ended(client, jobs, Path(journal.name), deadline, second)
                    await asyncio.sleep(self.after)
                finally:
                    server.stop(second)
                stored = await _results(client, [handle.id for handle in handles])
            return _judge(jobs, stored, _read(Path(journal.name)), killed_at)

    async def _kill_in_the_middle(self, system: System, url: str, jobs: int, journal: Path) -> float:
        first = start_worker(system, url)
        deadline = time.monotonic() + 40
        most = 0
        while True:
            times = _read(journal)
            ended = len(times["ended"])
            running = len(times["began"]) - ended
            most = max(most, running)
            # Between two batches, next to nothing runs: then the kill would show nothing.
            if ended >= jobs / 3 and running and running >= most / 2:
                killed_at = _kill_if_busy(first, journal)
                if killed_at is not None:
                    return killed_at
            if ended == jobs:
                server.stop(first)
                raise _AllEndedError("all jobs had ended before the worker was killed")
            if first.poll() is not None:
                raise RuntimeError(f"the worker ended by itself: exit code {first.returncode}")
            if time.monotonic() > deadline:
                raise TimeoutError("after 40 s, the worker had not run a third of the jobs")
            await asyncio.sleep(0.002)

    async def _until_ended(
        self, client: Client, jobs: int, journal: Path, deadline: float, process: subprocess.Popen[bytes]
    ) -> None:
        next_job = time.monotonic()
        while len(_read(journal)["ended"]) < jobs and (now := time.monotonic()) < deadline:
            if process.poll() is not None:
                raise RuntimeError(f"the second worker ended by itself: exit code {process.returncode}")
            # A queue in use gets jobs all the time, and some systems look for lost ones only then.
            if now > next_job:
                await client.delay(0)
                next_job = now + 0.5
            await asyncio.sleep(0.05)


class _AllEndedError(RuntimeError):
    """The worker was not killed in time."""


def _kill_if_busy(process: subprocess.Popen[bytes], journal: Path) -> float | None:
    """Kills a worker and its children if a job runs now. Returns when, by the monotonic clock in seconds, or
    None if no job ran.

    The processes are stopped while the journal is read: without that, jobs end between the look and the kill,
    and a worker that runs its jobs in batches may have none left.
    """
    pids = list(family(process.pid))
    _signal(pids, signal.SIGSTOP)
    stopped_at = time.monotonic()
    times = _read(journal)
    if len(times["began"]) == len(times["ended"]):
        _signal(pids, signal.SIGCONT)
        return None
    _signal(pids, signal.SIGKILL)
    process.wait(5)
    return stopped_at


def _signal(pids: Sequence[int], number: signal.Signals) -> None:
    for pid in pids:
        with suppress(ProcessLookupError):  # a child may have ended
            os.kill(pid, number)


def _read(journal: Path) -> dict[str, dict[int, list[float]]]:
    """Returns when each job began and ended, in seconds of the monotonic clock."""
    times: dict[str, dict[int, list[float]]] = {"began": defaultdict(list), "ended": defaultdict(list)}
    for line in journal.read_text().splitlines():
        what, number, ns = line.split()
        times[what][int(number)].append(int(ns) / 1e9)
    return times


def _judge(jobs: int, stored: int, times: dict[str, dict[int, list[float]]], killed_at: float) -> Measured:
    began, ended = times["began"], times["ended"]

    def before(found: Sequence[float]) -> int:
        return sum(at < killed_at for at in found)

    interrupted = [number for number in began if before(began[number]) > before(ended.get(number, ()))]
    if not interrupted:
        raise RuntimeError("no job was running when the worker was killed")
    again = [
        min(at for at in began[number] if at > killed_at) - killed_at
        for number in interrupted
        if max(began[number]) > killed_at
    ]
    figures = {
        "kill.lost": float(jobs - len(ended)),
        "kill.run_twice": float(sum(len(found) > 1 for found in ended.values())),
        "kill.no_result": float(len(ended) - min(stored, len(ended))),
    }
    if again:
        figures["kill.redelivered_s"] = round(statistics.median(again), 2)
        figures["kill.last_redelivered_s"] = round(max(again), 2)
    return Measured(figures, notes={"jobs": jobs, "interrupted": len(interrupted), "redelivered": len(again)})


async def _results(client: Client, ids: Sequence[str]) -> int:
    """Returns how many jobs have a result, after a moment in which the last ones may come."""
    stored = 0
    for _ in range(20):
        if (stored := await client.stored(ids)) == len(ids):
            break
        await asyncio.sleep(0.1)
    return stored
