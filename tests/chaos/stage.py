"""The surroundings of a trial: a server, perhaps a proxy before it, workers, a client, and the journals.

A trial runs on one event loop: `async with Stage(...)`. The client calls jobs and waits for them here; server
and workers are processes. At the end, `judge` reads all journals and reports which promises held.
"""

from __future__ import annotations

import asyncio
import random
import signal
import tempfile
import time
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from helpers import leftovers
from helpers.own_server import OwnServer, free_port
from helpers.sentinel_trio import SentinelTrio
from helpers.server_cluster import ServerCluster

from asyncq import AsyncQ, BrokerUnavailable, QueueFull, ResultTimeout, WorkerLost
from chaos import jobs, oracle
from chaos.fleet import Fleet
from chaos.proxy import Proxy
from chaos.report import Report

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Coroutine

NAMESPACE = "chaos"


class Stage:
    """The surroundings of one trial. Everything random in it comes from the seed.

    Args:
        trial: its name, for the report.
        scale: 1 for the full figures; a trial multiplies its counts by it.
        seed: of everything random.
        lease: of the workers, in seconds.
        durable: whether the server keeps what it has acknowledged, also when it is killed by SIGKILL.
        proxied: whether client and workers reach the server through a proxy.
        concurrency: of each worker.
        watched: whether the server is the master of a trio of Sentinels, with a replica.
        cluster: the node timeout, in ms, of a Cluster of three primaries with a replica each, which is the
            server then; 0 for none.

    Attributes:
        task_of: returns the task for the call of a number; `work` unless a trial sets another function.
        bound: within how many seconds the jobs of a dead worker must start again.
    """

    def __init__(
        self,
        trial: str,
        *,
        scale: float = 1.0,
        seed: int = 1,
        lease: float = 5.0,
        durable: bool = False,
        proxied: bool = False,
        concurrency: int = 64,
        watched: bool = False,
        cluster: int = 0,
        **settings: Any,
    ) -> None:
        self.report = Report(trial)
        self.scale = scale
        self.seed = seed
        self.lease = lease
        self.random = random.Random(seed)
        self._durable = durable
        self._proxied = proxied
        self._watched = watched
        self._node_timeout = cluster
        # One child for last tries at a time: where a worker dies each second, four children of each of four
        # workers keep two cores busy with starting Python, and thousands of waits end too late.
        self._settings = {
            "namespace": NAMESPACE,
            "lease": lease,
            "concurrency": concurrency,
            "last_tries": 1,
            **settings,
        }
        self._stack = AsyncExitStack()
        self._waits: set[asyncio.Task[None]] = set()
        self.bound = lease * 1.33 + 1.0

    def count(self, full: int, least: int = 1) -> int:
        """Returns a full count, reduced to this scale."""
        return max(least, round(full * self.scale))

    async def __aenter__(self) -> Self:
        stack = self._stack
        self.root = Path(
            stack.enter_context(tempfile.TemporaryDirectory(prefix="chaos-", ignore_cleanup_errors=True))
        )
        self.folder = self.root / "journals"
        self.folder.mkdir()
        self.server = OwnServer(self.root / "data", durable=self._durable, port=free_port())
        stack.callback(self.server.kill)
        await asyncio.to_thread(self.server.start)
        self.proxy = (
            await stack.enter_async_context(Proxy(self.server.port, self.seed)) if self._proxied else None
        )
        self.url = self.direct_url = self.server.url
        if self.proxy:
            self.url = self.proxy.url
        if self._watched:
            self.trio = SentinelTrio(self.root / "trio")
            stack.callback(self.trio.close)
            await asyncio.to_thread(self.trio.start)
            self.url = self.direct_url = self.trio.url
        if self._node_timeout:
            self.cluster = ServerCluster(
                self.root / "cluster", node_timeout=self._node_timeout, divisible=True
            )
            stack.callback(self.cluster.close)
            await asyncio.to_thread(self.cluster.start)
            self.url = self.direct_url = self.cluster.url
        self.fleet = Fleet(self.url, self.folder, self._settings, self.seed)
        stack.push_async_callback(self.fleet.close)
        self.app = self.make_app()
        self.tasks = jobs.register(self.app)
        self.task_of: Callable[[int], Any] = lambda _: self.tasks.work
        await stack.enter_async_context(self.app)
        self.journal = oracle.Journal(self.folder)
        stack.callback(self.journal.close)
        return self

    async def __aexit__(self, *_: object) -> None:
        for wait in list(self._waits):
            wait.cancel()
        await asyncio.gather(*self._waits, return_exceptions=True)
        await self._stack.aclose()

    def make_app(self, url: str | None = None, **settings: Any) -> AsyncQ:
        return AsyncQ(url or self.url, **{**self._settings, **settings})

    async def workers(self, count: int) -> None:
        await asyncio.gather(*(self.fleet.add() for _ in range(count)))

    # -- the client --

    async def call(self, number: int, seconds: float = 0.0, timeout: float = 60.0) -> None:
        """Enqueues a job, as often as it takes, and waits for it. Notes the acceptance and the answer in the
        journal.
        """
        id_ = f"job-{number}"
        result = await self._accepted(id_, number, seconds)
        started = time.monotonic()
        kind, value, run = await outcome_of(result, timeout)
        overrun = time.monotonic() - started - timeout
        self.journal.note(oracle.ANSWERED, id_, kind, value, run, round(overrun, 3))

    def begin(self, number: int, seconds: float = 0.0, timeout: float = 60.0) -> asyncio.Task[None]:
        """Starts a call in the background. It is cancelled when the trial ends."""
        return self.background(self.call(number, seconds, timeout))

    def background(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        """Starts a wait, for `waiting` and `all_answered`. It is cancelled when the trial ends."""
        wait = asyncio.create_task(work)
        self._waits.add(wait)
        wait.add_done_callback(self._waits.discard)
        return wait

    async def _accepted(self, id_: str, number: int, seconds: float) -> Any:
        while True:
            try:
                result = await self.task_of(number).options(task_id=id_).delay(number, seconds)
            except (BrokerUnavailable, QueueFull):
                continue  # it may have been accepted or not: another enqueue with the same id shows which
            except ValueError as error:
                if id_ not in str(error):
                    raise
                result = self.app.AsyncResult(id_)  # the id is taken, so the job was accepted before
            self.journal.note(oracle.ACCEPTED, id_, number)
            return result

    async def drive(self, total: int, rate: float, seconds: float, timeout: float = 60.0) -> None:
        """Starts `total` calls at a rate, with bodies of random lengths up to `seconds`."""
        started = time.monotonic()
        done = 0
        while done < total:
            due = min(total, int((time.monotonic() - started) * rate) + 1)
            for number in range(done, due):
                self.begin(number, self.random.uniform(0, seconds), timeout)
            done = due
            await asyncio.sleep(0.01)

    def waiting(self) -> list[asyncio.Task[None]]:
        """Returns the calls in the background that have not ended."""
        return [wait for wait in self._waits if not wait.done()]

    async def all_answered(self, timeout: float = 120.0) -> None:
        """Waits until every call has its answer, and cancels those that have none in time. The judge finds
        these in the journals.
        """
        if self._waits:
            _, pending = await asyncio.wait(list(self._waits), timeout=timeout)
            for wait in pending:
                wait.cancel()

    # -- the judgement --

    async def await_accepted(self) -> None:
        """Waits for the jobs of other clients that were accepted. It knows only their ids."""
        for id_ in oracle.Journals.read(self.folder).accepted:
            kind, value, run = await outcome_of(self.app.AsyncResult(id_), 10.0)
            self.journal.note(oracle.ANSWERED, id_, kind, value, run, 0)

    async def stored(self, ids: list[str]) -> dict[str, tuple[str, int, str]]:
        """Returns how jobs have ended by the server's records, those that have."""
        return {id_: o for id_, o in (await self.ends(ids)).items() if o[0] in {"ok", "WorkerLost"}}

    async def ends(self, ids: list[str]) -> dict[str, tuple[str, int, str]]:
        """Returns what the server's records say of jobs. A new client asks, which knows only their ids."""
        found = {}
        app = self.make_app(self.direct_url)
        jobs.register(app)
        async with app:
            for start in range(0, len(ids), 2000):
                batch = ids[start : start + 2000]
                outcomes = await asyncio.gather(*(outcome_of(app.AsyncResult(id_), 2.0) for id_ in batch))
                found.update(dict(zip(batch, outcomes, strict=True)))
        return found

    async def judge(self, *, extra_at_most: float | None = None) -> oracle.Journals:
        """Reads the journals, and reports the figures that every trial must keep.

        Args:
            extra_at_most: how many extra runs are allowed; None allows each one that a loss explains.
        """
        self.fleet.note_unexpected_exits()
        journals = oracle.Journals.read(self.folder)
        stored = await self.stored(list(journals.accepted))
        report = self.report
        report.fact("jobs accepted", len(journals.accepted))
        report.equal("lost jobs", len(set(journals.accepted) - set(stored)), 0)
        report.equal("wrong values", len(journals.wrong()), 0)
        report.equal("jobs with two outcomes", len(journals.contradicted(stored)), 0)
        report.equal("waits without an answer", len(journals.never_answered()), 0)
        report.equal("waits that ended later than timeout + 1 s", len(journals.late(1.0)), 0)
        report.equal("enqueues that made two jobs", len(journals.duplicated_jobs()), 0)
        report.equal("dead-lettered before the third crash", len(journals.dead_lettered_too_early()), 0)
        if extra_at_most is None:
            report.fact("extra runs", journals.extra_runs())
            unexplained = journals.unexplained_runs(self.fleet.losses, self.fleet.resumptions)
            report.equal("extra runs that no kill or stop explains", unexplained[:5], [])
        else:
            report.below("extra runs", journals.extra_runs(), extra_at_most)
        report.equal("workers that ended by themselves", self.fleet.unexpected_exits, [])
        return journals

    async def nothing_left(self) -> None:
        """Stops the workers gracefully, and reports keys that are left without owner or TTL."""
        await self.fleet.close(signal.SIGTERM)
        left = await asyncio.to_thread(leftovers.find, self.server.url, NAMESPACE)
        self.report.equal("keys left over", left, [])


@asynccontextmanager
async def beside(work: Coroutine[Any, Any, None]) -> AsyncIterator[None]:
    """Runs endless work beside the block. If the work raised, the end of the block raises, too."""
    task = asyncio.create_task(work)
    try:
        yield
        if task.done():
            task.result()
    finally:
        task.cancel()
        await asyncio.wait([task])


async def outcome_of(result: Any, timeout: float) -> tuple[str, int, str]:
    """Returns how a job ended, as the journal writes it: kind, value, run."""
    try:
        value, run, *_ = await result.get(timeout=timeout)
    except (WorkerLost, ResultTimeout, BrokerUnavailable) as error:
        return type(error).__name__, 0, "-"
    except Exception as error:
        return f"other:{type(error).__name__}", 0, "-"
    return "ok", value, run
