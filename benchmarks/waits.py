"""Scenarios of handles: waiting for many jobs at once, and revoking a running job."""

import asyncio
import statistics
from dataclasses import dataclass
from time import perf_counter

from scenario import Measured, Scenario
from system import System, worker

SIZES = (1, 100, 10_000)


@dataclass(frozen=True)
class Waits(Scenario):
    """Measures one `get` of the values of n jobs: of jobs enqueued here, from `map` to the last value; and of
    ended jobs, by another app of this process that knows only their ids.
    """

    rounds: int
    features = True

    async def run(self, system: System, url: str) -> Measured:
        figures: dict[str, float] = {}
        async with worker(system, url), system.open(url) as client:
            from adapters.asyncq_features import app, noop

            from asyncq import AsyncQ

            await client.value(await client.delay())
            async with AsyncQ(url) as other:
                for size in SIZES:
                    live, ended = [], []
                    for _ in range(self.rounds if size > 1 else 50 * self.rounds):
                        start = perf_counter()
                        handles = await noop.map([()] * size)
                        await handles.get(timeout=30)
                        live.append(perf_counter() - start)
                        known = other.ResultSet([other.AsyncResult(handle.id) for handle in handles])
                        start = perf_counter()
                        await known.get(timeout=30)
                        ended.append(perf_counter() - start)
                    figures[f"waits.live_{size}_ms"] = round(statistics.median(live) * 1000, 3)
                    figures[f"waits.ended_{size}_ms"] = round(statistics.median(ended) * 1000, 3)
            assert app.sessions.is_on_app_loop()
        return Measured(figures)


@dataclass(frozen=True)
class Revocation(Scenario):
    """Measures the time from `revoke(terminate=True)` of a running coroutine until its waiter wakes."""

    rounds: int
    features = True

    async def run(self, system: System, url: str) -> Measured:
        times = []
        async with worker(system, url), system.open(url):
            from adapters.asyncq_features import sleep

            for _ in range(self.rounds):
                result = await sleep.delay(60)
                while await result.refresh() != "STARTED":  # noqa: ASYNC110  another process starts it
                    await asyncio.sleep(0.001)
                waiter = asyncio.create_task(result.outcome(timeout=10))
                await asyncio.sleep(0)
                start = perf_counter()
                await result.revoke(terminate=True)
                if (await waiter).state != "REVOKED":
                    raise RuntimeError("the job was revoked, but ended in another way")
                times.append(perf_counter() - start)
        return Measured({"revoke.p50_ms": round(statistics.median(times) * 1000, 3)})
