"""Scenarios of growth: a worker that serves many queues, and many workers that serve one queue."""

import asyncio
import random
import subprocess
import time
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any

import redis
import server
from curves import curve
from histogram import Histogram
from scenario import Measured, Scenario
from server import Usage, empty, sent_within
from system import Client, System, insist_equal, worker

PER_PROCESS = 25
"""Most workers of one process."""


@dataclass(frozen=True)
class _Lone:
    """Some jobs that ran one after the other.

    Attributes:
        histogram: the time from `delay` to the value of each.
        server_us: microseconds of the server's CPU per job.
    """

    histogram: Histogram
    server_us: float

    @classmethod
    async def measure(
        cls, client: Client, observer: redis.Redis, jobs: int, delay: Callable[[int], Awaitable[Any]]
    ) -> "_Lone":
        """Runs jobs one after the other. A tenth as many run before that."""
        for number in range(max(5, jobs // 10)):
            insist_equal(number, await client.value(await delay(number)))
        histogram, before = Histogram(), Usage.read(observer)
        for number in range(jobs):
            start = time.perf_counter_ns()
            value = await client.value(await delay(number))
            histogram.record(time.perf_counter_ns() - start)
            insist_equal(number, value)
        spent = Usage.read(observer).since(before)
        return cls(histogram, round(spent.cpu / jobs * 1e6, 1))


def _delay_in_any(client: Any, chance: random.Random, queues: Sequence[str], number: int) -> Awaitable[Any]:
    """Enqueues a job into any one of the queues."""
    delayed: Awaitable[Any] = client.delay_in(chance.choice(queues), number)
    return delayed


def _curves(key: str, x: str, lone: dict[int, _Lone]) -> list[dict[str, Any]]:
    """Returns the curves of a lone job."""
    p50 = [(size, each.histogram.ms(0.5)) for size, each in lone.items()]
    p99 = [(size, each.histogram.ms(0.99)) for size, each in lone.items()]
    cpu = [(size, each.server_us) for size, each in lone.items()]
    return [
        curve(f"{key}.lone_p50", "a lone job, `delay` to value: p50", x, "ms", p50),
        curve(f"{key}.lone_p99", "a lone job, `delay` to value: p99", x, "ms", p99),
        curve(f"{key}.lone_server", "a lone job: CPU of the server", x, "us per job", cpu),
    ]


@dataclass(frozen=True)
class ServedQueues(Scenario):
    """Measures the time from `delay` to the value of a lone job, on a worker that serves so many queues. Each
    job goes into any one of them, by a fixed seed.

    Args:
        counts: how many queues, the smallest number first.
        jobs: how many jobs run one after the other.
    """

    counts: Sequence[int]
    jobs: int
    ours = True
    once = True

    async def run(self, system: System, url: str) -> Measured:
        lone: dict[int, _Lone] = {}
        with redis.Redis.from_url(url) as observer:
            for count in self.counts:
                empty(observer)
                queues = [f"q{number}" for number in range(count)]
                system.worker_of(url, queues)  # before anything is started: whether the system can do it
                async with worker(system, url, queues), system.open(url) as client:
                    into = partial(_delay_in_any, client, random.Random(count), queues)
                    lone[count] = await _Lone.measure(client, observer, self.jobs, into)
        first, last = lone[self.counts[0]].histogram, lone[self.counts[-1]].histogram
        figures = {
            "grow_queues.lone_one_p50_ms": first.ms(0.5),
            "grow_queues.lone_p50_ms": last.ms(0.5),
            "grow_queues.lone_p99_ms": last.ms(0.99),
        }
        curves = _curves("grow_queues", "queues that one worker serves", lone)
        return Measured(figures, {"grow_queues": last}, curves=curves)


@dataclass(frozen=True)
class ManyWorkers(Scenario):
    """Measures so many workers that serve one queue: commands that an idle one sends, CPU and memory of the
    server, and the time from `delay` to the value of a lone job.

    The workers are sessions, at most 25 in a process, see `hosted_workers.py`. The memory is what each
    further worker adds: the first ones also bring what there is once, such as the scripts.

    Args:
        counts: how many workers, the smallest number first.
        jobs: how many jobs run one after the other.
        seconds: how long the idle workers are watched: a lease, or what they do seldom counts too much.
        pause: how long they are left alone before. A worker that begins asks once for all others.
    """

    counts: Sequence[int]
    jobs: int
    seconds: float
    pause: float = 3.0
    ours = True
    once = True
    limit = 150.0

    async def run(self, system: System, url: str) -> Measured:
        sent: list[tuple[int, float]] = []
        memory: list[tuple[int, float]] = []
        cpu: list[tuple[int, float]] = []
        lone: dict[int, _Lone] = {}
        running = 0
        with redis.Redis.from_url(url) as observer, ExitStack() as stack:
            for count in self.counts:
                used, more = _memory(observer), count - running
                for first in range(running, count, PER_PROCESS):
                    stack.enter_context(_hosted(system, url, min(PER_PROCESS, count - first)))
                running = count
                await asyncio.sleep(self.pause)
                before, start = Usage.read(observer), time.perf_counter()
                commands = sent_within(url, self.seconds)
                spent = Usage.read(observer).since(before).cpu / (time.perf_counter() - start)
                sent.append((count, round(commands.total() / self.seconds / count, 2)))
                cpu.append((count, round(spent * 1e3, 2)))
                if count > self.counts[0]:
                    memory.append((count, round((_memory(observer) - used) / more / 1024, 1)))
                async with system.open(url) as client:
                    lone[count] = await _Lone.measure(client, observer, self.jobs, client.delay)
        x = "workers of one queue"
        curves = [
            curve("grow_workers.commands", "commands that an idle worker sends", x, "commands per s", sent),
            curve("grow_workers.cpu", "CPU of the server for idle workers", x, "ms per s", cpu),
            curve("grow_workers.memory", "memory of the server for a worker", x, "KiB", memory),
            *_curves("grow_workers", x, lone),
        ]
        last = lone[self.counts[-1]].histogram
        figures = {
            "grow_workers.commands_per_s": sent[-1][1],
            "grow_workers.kib_each": memory[-1][1],
            "grow_workers.lone_one_p50_ms": lone[self.counts[0]].histogram.ms(0.5),
            "grow_workers.lone_p50_ms": last.ms(0.5),
            "grow_workers.lone_p99_ms": last.ms(0.99),
        }
        return Measured(figures, {"grow_workers": last}, {"commands": dict(commands)}, curves)


@contextmanager
def _hosted(system: System, url: str, count: int) -> Iterator[None]:
    """Runs so many workers in one process. The block begins when all of them can run jobs."""
    process = subprocess.Popen(
        system.hosted(url, count),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        preexec_fn=server.die_with_parent,  # noqa: PLW1509  there are no threads yet
    )
    assert process.stdout is not None
    try:
        if process.stdout.readline() != b"ready\n":
            raise RuntimeError(f"the workers of {system.name} ended with exit code {process.wait(10)}")
        yield
        if process.poll() is not None:
            raise RuntimeError(f"the workers of {system.name} ended by themselves: {process.returncode}")
    finally:
        server.stop(process)
        process.stdout.close()


def _memory(observer: redis.Redis) -> int:
    memory: dict[str, Any] = observer.info("memory")
    return int(memory["used_memory"])
