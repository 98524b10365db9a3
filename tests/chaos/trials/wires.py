"""Faults between client and server: lost replies and notifications, cancelled calls, networks that drop
everything.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from typing import TYPE_CHECKING

from helpers import meter
from helpers.inside import connection_of, waiters_of
from helpers.stopwatch import Stopwatch
from helpers.waiting import until

from asyncq import BrokerUnavailable, ResultTimeout
from chaos import jobs, oracle
from chaos.stage import Stage, beside

if TYPE_CHECKING:
    from random import Random

    from chaos.report import Report


async def lost_replies(scale: float, seed: int, lease: float = 5.0) -> Report:
    """5 % of all replies dropped after execution, 20,000 jobs: exactly 20,000 jobs, extra runs <= 0.1 %."""
    async with Stage("lost replies", scale=scale, seed=seed, lease=lease, proxied=True) as stage:
        total = stage.count(20_000)
        await stage.workers(2)
        assert stage.proxy is not None
        stage.proxy.drop_replies = 0.05
        # 50 connections are cut each second, so the rate must leave time to make new ones.
        await stage.drive(total, rate=min(500.0, total / 4), seconds=0.02, timeout=90)
        await stage.all_answered(200)
        lost = stage.proxy.counts["lost reply"]
        stage.proxy.drop_replies = 0.0
        # A fifth of the mean, because the count varies in a short trial. This only proves that replies were
        # lost.
        stage.report.above("replies dropped", lost, 0.01 * stage.proxy.counts["reply"])
        journals = await stage.judge(extra_at_most=total * 0.001)
        stage.report.equal("jobs that ran", len(journals.runs), total)
        await stage.nothing_left()
        return stage.report


class _Cancellations:
    """Decides which calls to cancel and when, so that half of all calls are cancelled, at random times
    within 3 ms. A call that is answered before its time is not cancelled, and how many are depends on the
    machine.
    """

    def __init__(self, random: Random) -> None:
        self._random = random
        self._window = 0.003
        self._chance = 0.5
        self._planned = 0
        self.cancelled = 0

    def adjust(self, before: int, count: int) -> None:
        """Adapts chance and window before the next calls.

        Args:
            before: how many calls were made so far.
            count: how many calls are next.
        """
        hits = (self.cancelled + 1) / (self._planned + 1)
        due = (before + count) / 2 - self.cancelled
        self._chance = due / count / hits
        self._window = min(0.003, self._window * (0.95 if self._chance > 1 else 1.05))

    def next_delay(self) -> float | None:
        """Returns after how many seconds the next call must be cancelled; None if it must not."""
        if self._random.random() >= self._chance:
            return None
        self._planned += 1
        return self._random.uniform(0, self._window)


async def cancelled_calls(scale: float, seed: int, lease: float = 5.0) -> Report:
    """100,000 calls, half of them cancelled at a random time within 3 ms."""
    async with Stage("cancelled calls", scale=scale, seed=seed, lease=lease) as stage:
        total = stage.count(100_000)
        await stage.workers(1)
        await stage.tasks.echo.call(-1)
        before, sizes, wrong = _connected(stage), set(), []
        cancellations = _Cancellations(stage.random)

        async def one(number: int) -> None:
            call = asyncio.create_task(stage.tasks.echo.call(number))
            if (delay := cancellations.next_delay()) is not None:
                asyncio.get_running_loop().call_later(delay, call.cancel)
            try:
                if await call != number:
                    wrong.append(number)
            except asyncio.CancelledError:
                cancellations.cancelled += 1

        for start in range(0, total, 50):
            batch = range(start, min(total, start + 50))
            cancellations.adjust(start, len(batch))
            await asyncio.gather(*map(one, batch))
            if start % 5000 == 0:
                sizes.add(await asyncio.to_thread(_connected, stage))
        await stage.tasks.echo.call(-1)
        stage.report.fact("calls / cancelled", f"{total} / {cancellations.cancelled}")
        stage.report.above("share cancelled", cancellations.cancelled / total, 0.45)
        stage.report.below("share cancelled", cancellations.cancelled / total, 0.55)
        stage.report.equal("replies that reached the wrong caller", wrong, [])
        stage.report.equal("connections, during and after", sizes | {_connected(stage)}, {before})
        await stage.nothing_left()
        return stage.report


def _connected(stage: Stage) -> int:
    return len(stage.server.connections())


async def black_hole(scale: float, seed: int, lease: float = 5.0) -> Report:
    """A black hole of 60 s before a client that is idle, one that is busy, and a worker."""
    async with Stage("black hole", scale=scale, seed=seed, lease=lease, proxied=True) as stage:
        length = max(14.0, 60.0 * scale)
        await stage.fleet.add(url=stage.server.url)
        for name, busy in (("idle", False), ("busy", True)):
            await _hole_before_client(stage, name, length, busy=busy)
        await stage.fleet.close()
        await stage.fleet.add()  # this one behind the proxy, as the client is
        await _hole_before_worker(stage, length)
        return stage.report


async def _hole_before_client(stage: Stage, name: str, length: float, *, busy: bool) -> None:
    assert stage.proxy is not None
    report, broker = stage.report, stage.app.sessions.current().broker
    await stage.tasks.echo.call(0)
    first = 1_000_000 if busy else 0
    waiting = [stage.begin(first + number, 3.0, length + 60) for number in range(50)]
    await asyncio.sleep(0.5)
    before = meter.rss()
    async with meter.lag() as lag, beside(_call_on(stage)) if busy else contextlib.nullcontext():
        stage.proxy.hold()
        began, found = time.monotonic(), Stopwatch()
        await until(
            lambda: (
                not broker.listener.subscription.epoch
                and (not busy or connection_of(broker.commands).current is None)
            ),
            "both connections to be given up",
            every=0.02,
        )
        report.below(f"{name}: found after", found.took, 10.0, " s")
        await asyncio.sleep(max(0.0, began + length - time.monotonic()))
        stage.proxy.heal()
        since_fault = Stopwatch()
        _, late = await asyncio.wait(waiting, timeout=60)
        report.equal(f"{name}: waiters without an answer", len(late), 0)
        report.below(f"{name}: waiters answered after", since_fault.took, 12.0, " s")
    report.below(f"{name}: loop lag", lag.worst * 1000, 250, " ms")
    report.below(f"{name}: RSS growth", meter.rss() - before, 20, " MB")


async def _call_on(stage: Stage) -> None:
    """Makes calls for ever, ten at a time, also when calls fail."""

    async def calls() -> None:
        while True:
            with contextlib.suppress(BrokerUnavailable):
                await stage.tasks.echo.call(1)
            await asyncio.sleep(0.01)

    await asyncio.gather(*(calls() for _ in range(10)))


async def _hole_before_worker(stage: Stage, length: float) -> None:
    assert stage.proxy is not None
    report = stage.report
    worker = stage.fleet.workers[0]
    async with stage.make_app(stage.server.url) as app:  # the client of this part is not behind the proxy
        tasks = jobs.register(app)
        results = [await tasks.work.delay(2_000_000 + number, 2.0) for number in range(50)]
        await until(
            lambda: len(oracle.Journals.read(stage.folder).runs) >= 150, "150 jobs to start", every=0.2
        )
        cost, memory = meter.cpu(worker.pid), meter.rss(worker.pid)
        stage.proxy.hold()
        await asyncio.sleep(length)
        report.below("worker: CPU during the hole", (meter.cpu(worker.pid) - cost) / length * 100, 20, " %")
        report.below("worker: RSS growth", meter.rss(worker.pid) - memory, 20, " MB")
        late = await tasks.work.delay(2_000_100)
        stage.proxy.heal()
        since_fault = Stopwatch()
        await asyncio.gather(*(result.get(timeout=60) for result in [*results, late]))
        report.below("worker: jobs answered after", since_fault.took, 12.0, " s")
        report.equal("worker: is alive", worker.alive, expected=True)


async def memory(scale: float, seed: int, lease: float = 5.0) -> Report:
    """200,000 handles dropped, 200,000 awaited."""
    async with Stage("memory", scale=scale, seed=seed, lease=lease, concurrency=200, result_ttl=60) as stage:
        total = stage.count(200_000)
        await stage.workers(1)
        await _drop(stage, total // 4)
        await _await(stage, total // 4)  # memory that the allocator takes once is not a leak
        await until(lambda: _all_expired(stage), "all results to expire", 120, every=1.0)
        server, subscribed = stage.server.used_memory(), stage.server.calls("subscribe")
        base = meter.rss()
        await _drop(stage, total)
        await until(lambda: _queue_empty(stage), "the queue to be empty", 120, every=0.2)
        dropped = meter.rss()
        await _await(stage, total)
        awaited = meter.rss()
        per = 100_000 / total
        stage.report.below("client RSS per 100,000 dropped", (dropped - base) * per, 5.0, " MB")
        stage.report.below("client RSS per 100,000 awaited", (awaited - dropped) * per, 5.0, " MB")
        stage.report.equal("SUBSCRIBEs for these jobs", stage.server.calls("subscribe") - subscribed, 0)
        await until(lambda: _all_expired(stage), "all results to expire", 120, every=1.0)
        stage.report.below("server memory kept", (stage.server.used_memory() - server) / 1e6, 1.0, " MB")
        stage.report.equal("waiters kept", len(waiters_of(stage.app)), 0)
        return stage.report


async def _drop(stage: Stage, count: int) -> None:
    for start in range(0, count, 200):
        await asyncio.gather(*(stage.tasks.echo.delay(number) for number in range(start, start + 200)))


async def _await(stage: Stage, count: int) -> None:
    for start in range(0, count, 200):
        await asyncio.gather(*(stage.tasks.echo.call(number) for number in range(start, start + 200)))


def _all_expired(stage: Stage) -> bool:
    # A few keys stay: those of streams (a returned queue among them) and heartbeats. None is a result.
    return stage.server.do("DBSIZE") < 15 and not stage.server.do("KEYS", "*:r:*")


def _queue_empty(stage: Stage) -> bool:
    return stage.server.do("XLEN", stage.app.sessions.shards[0].stream("default")) == 0


async def hung_server(scale: float, seed: int, lease: float = 5.0) -> Report:
    """`get(timeout=t)` ends by t + 0.25 s when the server is stopped."""
    async with Stage("hung server", scale=scale, seed=seed, lease=lease) as stage:
        known = await stage.tasks.work.delay(1)
        unknown = stage.app.AsyncResult("stranger")
        stage.server.freeze()
        try:
            for name, handle in (("known id", known), ("unknown id", unknown)):
                for timeout in (0.0, 0.5, 1.0):
                    started = Stopwatch()
                    with contextlib.suppress(ResultTimeout, ConnectionError):
                        await asyncio.wait_for(handle.get(timeout=timeout), 11)
                    stage.report.below(
                        f"get(timeout={timeout:g}) of a {name} overruns by",
                        float(started.took) - timeout,
                        0.25,
                        " s",
                    )
        finally:
            stage.server.thaw()
        return stage.report


async def lost_enqueue(scale: float, seed: int, lease: float = 5.0) -> Report:
    """An enqueue whose reply was lost exists once."""
    async with Stage("enqueue without a reply", scale=scale, seed=seed, lease=lease, proxied=True) as stage:
        assert stage.proxy is not None
        rounds = stage.count(50, least=5)
        for _ in range(rounds):
            stage.proxy.drop_replies = 1.0
            sending = asyncio.create_task(stage.tasks.work.delay(1))
            before = stage.proxy.counts["lost reply"]
            await until(
                lambda seen=before: stage.proxy.counts["lost reply"] > seen, "a reply to be lost", every=0.001
            )
            stage.proxy.drop_replies = 0.0
            await sending
        stage.report.equal(
            "jobs", stage.server.do("XLEN", stage.app.sessions.shards[0].stream("default")), rounds
        )
        return stage.report


async def dead_idle_connection(scale: float, seed: int, lease: float = 5.0) -> Report:
    """The connection of an idle client dies silently (a NAT forgets it): the next call still succeeds."""
    async with Stage("dead idle connection", scale=scale, seed=seed, lease=lease, proxied=True) as stage:
        assert stage.proxy is not None
        await stage.fleet.add(url=stage.server.url)
        await stage.tasks.echo.call(1)
        stage.proxy.half_open()
        # A random time, so that it is not in step with any watchdog.
        await asyncio.sleep(stage.random.uniform(12.0, 16.0))
        began = Stopwatch()
        stage.report.equal("answer to the next call", await stage.tasks.echo.call(2), 2)
        stage.report.below("its duration", began.took, 10.0, " s")
        return stage.report


async def lost_pushes(scale: float, seed: int, lease: float = 5.0) -> Report:
    """Every notification is lost, the subscription stays: waits end within a poll (5 s)."""
    async with Stage("lost notifications", scale=scale, seed=seed, lease=lease, proxied=True) as stage:
        assert stage.proxy is not None
        total = stage.count(300, least=60)
        await stage.fleet.add(url=stage.server.url)
        await stage.call(0)
        stage.proxy.drop_pushes = 1.0
        calls = []
        for number in range(1, total + 1):
            calls.append(stage.begin(number, stage.random.uniform(0.0, 0.5), 60))
            await asyncio.sleep(stage.random.uniform(0.0, 6.0 / total))
        await asyncio.wait(calls)
        journals = await stage.judge()
        ended = {id_: run.ended for id_, runs in journals.runs.items() for run in runs if id_ != "job-0"}
        delays = [journals.answers[id_][0].when - end for id_, end in ended.items()]
        stage.report.above("notifications lost", stage.proxy.counts["lost push"], 10)
        stage.report.below("longest wait after the end", max(delays), 5.5, " s")
        return stage.report
