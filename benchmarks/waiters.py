"""Scenario of waiting: what a thousand and ten thousand waits of one client cost, and when they wake."""

import asyncio
import os
import time
from dataclasses import dataclass
from typing import Any

import redis
from histogram import Histogram
from scenario import Measured, Scenario
from system import Client, Skipped, System, rss_kib, worker


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


def _connections(observer: Any) -> int:
    return int(observer.info("clients")["connected_clients"])
