"""Scenarios of workflows: what it costs that jobs wait for other jobs."""

import statistics
from dataclasses import dataclass
from time import perf_counter

from scenario import Measured, Scenario
from system import System, worker


@dataclass(frozen=True)
class Chain(Scenario):
    """Measures a chain of ten jobs from `delay` to the last value. Each job gets the value of
    the one before.
    """

    rounds: int
    length: int = 10
    features = True

    async def run(self, system: System, url: str) -> Measured:
        times = []
        async with worker(system, url), system.open(url):
            from adapters.asyncq_features import echo

            from asyncq import chain

            steps = chain(*(echo.s(1) if n == 0 else echo.s() for n in range(self.length)))
            for _ in range(self.rounds + 20):
                start = perf_counter()
                result = await steps.delay()
                if await result.get(timeout=10) != 1:
                    raise RuntimeError("the chain lost its value")
                times.append(perf_counter() - start)
        return Measured({"chain10.p50_ms": round(statistics.median(times[20:]) * 1000, 3)})


@dataclass(frozen=True)
class FanIn(Scenario):
    """Measures a thousand jobs and one job that gets the list of their values, in turn with a thousand plain
    jobs.
    """

    rounds: int
    width: int = 1000
    features = True

    async def run(self, system: System, url: str) -> Measured:
        plain, joined = [], []
        async with worker(system, url), system.open(url):
            from adapters.asyncq_features import count, echo

            from asyncq import chord, group

            for _ in range(self.rounds + 2):
                start = perf_counter()
                handles = await echo.map([(n,) for n in range(self.width)])
                await handles.get(timeout=30)
                plain.append(perf_counter() - start)
                start = perf_counter()
                result = await chord(group(echo.s(n) for n in range(self.width)), count.s()).delay()
                if await result.get(timeout=30) != self.width:
                    raise RuntimeError("values were lost on the way in")
                joined.append(perf_counter() - start)
        ratios = [a / b for a, b in zip(joined[2:], plain[2:], strict=True)]
        return Measured(
            {
                "fanin1000.ms": round(statistics.median(joined[2:]) * 1000, 1),
                "fanin1000.to_plain": round(statistics.median(ratios), 2),
            }
        )
