"""Scenarios that measure single design decisions, each beside its alternative. The documentation and comments
give these figures; here they can be measured again.
"""

import asyncio
import statistics
import timeit
import weakref
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, make_dataclass
from time import perf_counter

import anyio
import redis
from scenario import Measured, Scenario
from system import System, worker


@dataclass(frozen=True)
class Micro(Scenario):
    """Measures decisions that need no worker: outcomes, waiters, scripts, and asyncio tasks."""

    times: int
    features = True

    async def run(self, system: System, url: str) -> Measured:  # noqa: ARG002  every scenario gets a system
        figures = {**self._outcomes(), **self._waiters(), **self._scripts(url)}
        figures["micro.own_task_us"] = await self._per_task(_own_tasks)
        figures["micro.group_task_us"] = await self._per_task(_task_group)
        return Measured(figures)

    def _outcomes(self) -> dict[str, float]:
        from asyncq.wire import Ended

        frozen = make_dataclass("Frozen", Ended._fields, frozen=True, slots=True)
        given = ("S", b"", 1, 2, 1, "worker", "name", "queue", 1, (), b"", None)
        return {
            "micro.outcome_ns": self._ns(lambda: Ended(*given)),
            "micro.outcome_dataclass_ns": self._ns(lambda: frozen(*given)),
        }

    def _waiters(self) -> dict[str, float]:
        from asyncq.broker.waiters import Waiter, Waiters

        kept, weak = Waiters(), weakref.WeakValueDictionary[str, Waiter]()

        def both(put: Callable[[Waiter], None]) -> float:
            return self._ns(lambda: put(Waiter("id", None)))

        def put_weakly(waiter: Waiter) -> None:
            weak[waiter.id] = waiter

        made = self._ns(lambda: Waiter("id", None))
        return {
            "micro.waiter_kept_ns": round(both(kept.put) - made, 1),
            "micro.waiter_weak_dict_ns": round(both(put_weakly) - made, 1),
        }

    def _ns(self, call: Callable[[], object]) -> float:
        return round(min(timeit.repeat(call, number=self.times, repeat=5)) / self.times * 1e9, 1)

    def _scripts(self, url: str) -> dict[str, float]:
        """Measures the server time of a `finish` that ends nothing: with only the functions that it calls,
        and with all shared functions.
        """
        from asyncq.broker.transport import scripts

        texts = scripts.texts()
        shared = "\n".join(texts[f"_{name}"] for name in ("record", "workflow"))
        chosen, text = scripts.load()["finish"].source, texts["finish"]
        head = chosen.split("\n-- ", 1)[0]
        figures = {}
        with redis.Redis.from_url(url) as server:
            server.xgroup_create("s", "g", mkstream=True)
            for name, source in (("called", chosen), ("all", f"{head}\n{shared}\n{text}")):
                sha = server.script_load(source)
                server.config_resetstat()
                call = (sha, 1, "s", "t:", "q", "g", "me", 0, 1000, "k", "1-1", "id", "n", "c", "S", 9, b"")
                for _ in range(self.times // 10):
                    server.evalsha(*call)
                per_call = server.info("commandstats")["cmdstat_evalsha"]["usec_per_call"]
                figures[f"micro.script_{name}_us"] = round(float(per_call), 1)
        return figures

    async def _per_task(self, run_tasks: Callable[[int], Awaitable[None]]) -> float:
        times = []
        for _ in range(5):
            start = perf_counter()
            await run_tasks(self.times)
            times.append(perf_counter() - start)
        return round(min(times) / self.times * 1e6, 2)


async def _nothing() -> None:
    """A coroutine that ends at once."""


async def _own_tasks(count: int) -> None:
    held: set[asyncio.Task[None]] = set()
    for _ in range(count):
        task = asyncio.create_task(_nothing())
        held.add(task)
        task.add_done_callback(held.discard)
    while held:  # noqa: ASYNC110  nothing else is to do meanwhile
        await asyncio.sleep(0)


async def _task_group(count: int) -> None:
    async with anyio.create_task_group() as group:
        for _ in range(count):
            group.start_soon(_nothing)


@dataclass(frozen=True)
class Kinds(Scenario):
    """Measures the time from `delay` to the value of jobs that do nothing, one at a time: on the loop, in a
    thread and in a process.
    """

    jobs: int
    features = True

    async def run(self, system: System, url: str) -> Measured:
        figures = {}
        async with worker(system, url), system.open(url):
            from adapters.asyncq_features import in_process, in_thread, noop

            await noop.call()
            start = perf_counter()
            await in_process.call()
            figures["kinds.first_process_ms"] = round((perf_counter() - start) * 1000, 1)
            p50 = {}
            for name, task in (("coroutine", noop), ("thread", in_thread), ("process", in_process)):
                times = []
                for _ in range(self.jobs):
                    start = perf_counter()
                    await task.call()
                    times.append(perf_counter() - start)
                p50[name] = statistics.median(times) * 1e6
        figures["kinds.thread_more_us"] = round(p50["thread"] - p50["coroutine"])
        figures["kinds.process_more_us"] = round(p50["process"] - p50["coroutine"])
        return Measured(figures)


@dataclass(frozen=True)
class WideGroups(Scenario):
    """Measures a group of jobs after a group of as many, from `delay` to the last value. Once with the one
    barrier job that asyncq puts between them, and once with each job of the second group waiting for each of
    the first.
    """

    width: int
    features = True

    async def run(self, system: System, url: str) -> Measured:
        async with worker(system, url), system.open(url):
            between = await self._once()
            async with _every_edge():
                direct = await self._once()
        return Measured(
            {"groups.with_one_between_s": round(between, 3), "groups.each_after_each_s": round(direct, 2)}
        )

    async def _once(self) -> float:
        from adapters.asyncq_features import count, echo

        from asyncq import group

        start = perf_counter()
        workflow = group(echo.s(n) for n in range(self.width)) | group(count.s() for _ in range(self.width))
        values = await (await workflow.delay()).get(timeout=60)
        if values != [self.width] * self.width:
            raise RuntimeError("values were lost on the way")
        return perf_counter() - start


@asynccontextmanager
async def _every_edge() -> AsyncIterator[None]:
    from asyncq.tasks import planning

    edges, planning.EDGES = planning.EDGES, 10**9
    try:
        yield
    finally:
        planning.EDGES = edges
