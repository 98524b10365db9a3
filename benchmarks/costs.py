"""Scenarios that measure what one job and an idle worker cost: commands, memory, and the time until a new
worker has run its first job.
"""

import asyncio
import statistics
import time
from dataclasses import dataclass

import redis
from scenario import Measured, Scenario
from server import Usage, sent_within
from system import System, insist_equal, rss_mib, worker


@dataclass(frozen=True)
class LoneJob(Scenario):
    """Counts the commands that the server runs for a single job, including those inside scripts."""

    jobs: int

    async def run(self, system: System, url: str) -> Measured:
        async with worker(system, url), system.open(url) as client:
            for _ in range(50):
                await client.value(await client.delay())
            with redis.Redis.from_url(url) as observer:
                observer.ping()  # connects, so that the commands of the connection are not counted
                before = Usage.read(observer)
                for number in range(self.jobs):
                    insist_equal(number, await client.value(await client.delay(number)))
                spent = Usage.read(observer).since(before)
        figures = {
            "lone.commands_per_job": round(spent.commands.total() / self.jobs, 2),
            "lone.server_us_per_job": round(spent.cpu / self.jobs * 1e6, 1),
        }
        return Measured(figures, notes={"commands": dict(spent.commands.most_common(12))})


@dataclass(frozen=True)
class Idle(Scenario):
    """Measures a worker without work, after its first job: the commands that it sends, and its memory.

    Once, for two leases of asyncq: whatever one of its workers sends comes at least once in that time.
    """

    seconds: float
    once = True

    async def run(self, system: System, url: str) -> Measured:
        async with worker(system, url) as process:
            async with system.open(url) as client:
                insist_equal(1, await client.value(await client.delay(1)))
            sent = sent_within(url, self.seconds)
            memory = rss_mib(process)
        figures = {
            "idle.commands_per_s": round(sent.total() / self.seconds, 2),
            "idle.rss_mib": round(memory, 1),
        }
        return Measured(figures, notes={"commands": dict(sent)})


@dataclass(frozen=True)
class Start(Scenario):
    """Measures the time from the start of a worker's process to the value of a job that waited for it."""

    starts: int

    async def run(self, system: System, url: str) -> Measured:
        times = []
        for _ in range(self.starts):
            async with system.open(url) as client:
                handle = await client.delay(7)
                start = time.perf_counter()
                async with worker(system, url):
                    value = await asyncio.wait_for(client.value(handle), 30)
                    times.append(time.perf_counter() - start)
                    insist_equal(7, value)
        return Measured({"start.first_job_s": round(statistics.median(times), 3)})
