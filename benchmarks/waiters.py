"""Scenarios of waiting: what many waits of one client cost, and when they wake.

As a script, it measures so many waits in a process of its own, and prints the results as JSON:
`python waiters.py SYSTEM URL COUNT SECONDS`.
"""

import asyncio
import json
import os
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import redis
import system as systems
import uvloop
from curves import curve
from histogram import Histogram
from scenario import Measured, Scenario
from server import empty
from system import Client, Skipped, System, rss_kib, worker

FEW = 100
"""Of fewer waits, the memory of a process does not show what each needs."""


@dataclass(frozen=True)
class Waiters(Scenario):
    """Enqueues jobs, and waits for all of them at once while there is no worker: that shows how many
    connections and how much memory the waits need. Then a worker starts. Each job returns the clock, which
    all processes share, and the waiter reads it when it wakes: that is the time from the body's end to the
    waiter, with the storing of the result on the way.
    """

    count: int
    wait: float = 1.0  # seconds in which the waits become what they stay

    async def run(self, system: System, url: str) -> Measured:
        if system.waiters < self.count:
            raise Skipped(f"one client of this system waits for at most {system.waiters:,} jobs at once")
        name = f"waiters{self.count}"
        with redis.Redis.from_url(url) as observer:
            connections = _connections(observer)
            async with system.open(url, self.count) as client:
                handles: list[Any] = []
                for first in range(0, self.count, 1000):
                    size = min(1000, self.count - first)
                    handles += await client.map(range(size), "clock")
                memory = rss_kib(os.getpid())
                histogram = Histogram()
                waits = [asyncio.create_task(self._one(client, handle, histogram)) for handle in handles]
                await asyncio.sleep(self.wait)
                figures = {
                    f"{name}.connections": float(_connections(observer) - connections),
                    f"{name}.kib_each": round((rss_kib(os.getpid()) - memory) / self.count, 2),
                }
                async with worker(system, url):
                    await asyncio.wait_for(asyncio.gather(*waits), 60)
        figures[f"{name}.wake_p50_ms"] = histogram.ms(0.5)
        figures[f"{name}.wake_p99_ms"] = histogram.ms(0.99)
        return Measured(figures, {name: histogram})

    async def _one(self, client: Client, handle: Any, histogram: Histogram) -> None:
        returned = await client.value(handle)
        now = time.monotonic_ns()
        if not isinstance(returned, int) or not 0 < returned <= now:
            raise RuntimeError(f"a job returned {returned!r}, and not the clock")
        histogram.record(now - returned)


@dataclass(frozen=True)
class WaiterGrowth(Scenario):
    """Measures `Waiters` for several numbers of waits. Each runs in a client process of its own, because a
    process keeps the memory that it has once needed.

    Args:
        counts: how many waits, the smallest number first.
        wait: as in `Waiters`.
    """

    counts: Sequence[int]
    wait: float = 1.0
    ours = True
    once = True

    async def run(self, system: System, url: str) -> Measured:
        x, measured = "jobs that one client waits for", {}
        with redis.Redis.from_url(url) as observer:
            for count in self.counts:
                empty(observer)
                measured[count] = _in_a_process(system, url, count, self.wait)
        figures = {count: tree["figures"] for count, tree in measured.items()}
        curves = []
        for name, title, unit, least in (
            ("kib_each", "memory of the client for a wait", "KiB", FEW),
            ("connections", "connections of the waiting client", "connections", 0),
            ("wake_p50_ms", "end of the body to the waiter, p50", "ms", 0),
            ("wake_p99_ms", "end of the body to the waiter, p99", "ms", 0),
        ):
            points = [
                (count, each[f"waiters{count}.{name}"]) for count, each in figures.items() if count >= least
            ]
            curves.append(curve(f"grow_waiters.{name.removesuffix('_ms')}", title, x, unit, points))
        most = self.counts[-1]
        histogram = Histogram.from_json(measured[most]["histograms"][f"waiters{most}"])
        return Measured(
            {f"grow_{name.replace(str(most), '')}": value for name, value in figures[most].items()},
            {"grow_waiters": histogram},
            curves=curves,
        )


def _in_a_process(system: System, url: str, count: int, wait: float) -> dict[str, Any]:
    argv = [sys.executable, __file__, system.name, url, str(count), str(wait)]
    done = subprocess.run(argv, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, timeout=80, check=True)
    tree: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return tree


def _connections(observer: Any) -> int:
    return int(observer.info("clients")["connected_clients"])


def main() -> None:
    name, url, count, wait = sys.argv[1:]
    systems.raise_on_sigterm()
    scenario = Waiters(int(count), float(wait))
    json.dump(uvloop.run(scenario.run(systems.load(name), url)).to_json(), sys.stdout)


if __name__ == "__main__":
    main()
