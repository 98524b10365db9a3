"""The harness of a test: it gives an app a private server, a namespace of its own, and a worker on this loop.

    async with harness(app) as t:
        await signup("ada@example.com")
        t.assert_enqueued(send_mail, "ada@example.com")
        await t.drain()

While the block is open, `app.sessions` are those of the test, and the app's settings name the private server.
So code under test needs no change, whether it calls `delay`, `delay_sync` or a workflow, on whatever thread.
All of a `Harness` runs on the loop of the test; `SyncHarness` makes one on a loop of its own.
"""

from __future__ import annotations

import asyncio
import os
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import TYPE_CHECKING, Any, Literal, NoReturn, overload

from asyncq import config
from asyncq.testing.base_harness import BaseHarness
from asyncq.testing.enqueued_jobs import Journal
from asyncq.testing.inline_sessions import InlineSessions
from asyncq.testing.leaks import GRACE, TaskWatch, connections_left, leak_error
from asyncq.testing.live_jobs import POLL, LiveJobs, described
from asyncq.testing.private_servers import HarnessServer
from asyncq.testing.recording_sessions import RecordingSessions
from asyncq.testing.running_workers import RunningWorkers
from asyncq.testing.slow_server import SlowServer
from asyncq.testing.virtual_clock import ProcessClock, VirtualClock
from asyncq.worker import Worker

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Coroutine
    from datetime import timedelta
    from types import TracebackType

    from asyncq.app import AsyncQ
    from asyncq.client.sessions import Sessions
    from asyncq.config import Settings

_PATIENCE = 1.0
"""Seconds for which `advance` waits for jobs that ran before it was called."""
_STEP = 0.001
"""Seconds by which the clock advances at least, so that rounding cannot keep a due job from being due."""


class Harness(BaseHarness):
    """An app under test, with its private server and its workers. `harness` makes it.

    Attributes:
        app: the app.

    Example:
        ```python
        async with harness(app) as t:
            await signup("ada@example.com")
            await t.drain()
            assert [job.task for job in t.jobs] == ["shop.send_mail"]
        ```
    """

    def __init__(
        self, app: AsyncQ, journal: Journal, connected: HarnessServer, sessions: RecordingSessions
    ) -> None:
        super().__init__(app, journal)
        self._connected = connected
        self._sessions = sessions
        self._clock = VirtualClock(connected, sessions.shards)
        self._live = LiveJobs(connected, journal, sessions)
        self._workers = RunningWorkers(app)
        self._faults: set[asyncio.Task[None]] = set()

    @property
    def url(self) -> str:
        """The URL of the private server."""
        return self._connected.url

    # -- time --

    async def drain(self, timeout: float | timedelta | None = 5) -> None:
        """Waits until all jobs that are due have ended, also those that they start. A job that waits for its
        time (`countdown`, `eta`, the pause before a retry) is not waited for: see `advance`.

        Afterwards each handle in this process shows the outcome: `result.state` needs no `await`.

        Args:
            timeout: how long to wait, in seconds; None waits for ever, 0 looks once.

        Raises:
            TimeoutError: jobs have not ended by then. The message names them.

        Example:
            ```python
            await signup("ada@example.com")
            await t.drain()
            assert sent == ["ada@example.com"]
            ```
        """
        await self._until_ended("drain()", timeout, is_limit_due=True)
        await self._live.learn_states()

    async def _until_ended(
        self,
        what: str,
        timeout: float | timedelta | None,
        exempt: frozenset[str] = frozenset(),
        *,
        is_limit_due: bool = False,
    ) -> None:
        limit = None if timeout is None else config.seconds(timeout)
        if await self._live.until_idle(limit, exempt, is_limit_due=is_limit_due):
            return
        lines = await self._live.described(exempt, is_limit_due=is_limit_due)
        hint = "" if self._workers else "; no worker runs"
        after = config.shown(limit or 0.0)
        raise TimeoutError("\n".join([f"{what}: these jobs have not ended within {after}{hint}:", *lines]))

    async def advance(self, seconds: float | timedelta, *, timeout: float | timedelta | None = 5) -> None:
        """Sets the virtual clock ahead, and returns when what fell due has ended.

        Time goes ahead from one due time to the next, so a job that fails and is tried again after 1, 2 and 4
        seconds runs four times within `advance(7)`. It moves `countdown`, `eta`, retries, `expires`,
        `deadline` of jobs that have not begun, schedules, rate limits, and the lives of results. It does not
        move what goes by other clocks: `time.time()` and `asyncio.sleep` in your code, `timeout=` of bodies
        and waits, heartbeats and leases. `t.now` tells the virtual time.

        A job that was due before the call is waited for, too, but for a second at most: it may be waiting
        for what the test does next. Without a worker, nothing is waited for.

        Args:
            seconds: by how much.
            timeout: how long to wait for the jobs at each step, in seconds of the machine's clock; None waits
                for ever.

        Raises:
            ValueError: the time is negative.
            TimeoutError: jobs that fell due have not ended. The message names them.

        Example:
            ```python
            await remind.options(countdown=3600).delay("ada")
            await t.advance(3600)
            ```
        """
        target = self._clock.ahead + config.seconds(seconds)
        exempt = await self._live.due_after(_PATIENCE) if self._workers else frozenset()
        while True:
            await self._after_step(timeout, exempt)
            due = await self._live.next_due()
            if due is None or due > target - self._clock.ahead:
                break
            await self._clock.set_ahead(min(target, self._clock.ahead + max(due, _STEP)))
        await self._clock.set_ahead(target)
        await self._after_step(timeout, exempt)
        await self._live.learn_states()

    async def _after_step(self, timeout: float | timedelta | None, exempt: frozenset[str]) -> None:
        """Ends what has expired, and waits for what is due."""
        await self._live.expire()
        if self._workers:
            await self._until_ended("advance()", timeout, exempt)

    # -- workers and faults --

    @asynccontextmanager
    async def worker(self, concurrency: int | None = None, **options: Any) -> AsyncIterator[Worker]:
        """Runs another worker on this loop, as long as the block lasts.

        Args:
            concurrency: how many jobs it runs at the same time (default: the app's setting).
            options: those of `Worker`.

        Example:
            ```python
            async with harness(app, worker=False) as t, t.worker(concurrency=1):
                ...
            ```
        """
        worker = Worker(self.app, concurrency, **options)
        await self._workers.start(worker)
        try:
            yield worker
        finally:
            await self._workers.stop(worker)

    def kill_worker(self, worker: Worker | None = None) -> asyncio.Future[None]:
        """Kills a worker, as `kill -9` would kill its process: what it ran is not reported, and counts as a
        crash. The worker dies at once; await the call to know that its jobs were taken back.

        The jobs start again at once, and not when the lease is over, if another worker runs, or as soon as
        one does. The harness's own worker is replaced by a new one. Coroutines are cancelled, so their
        `finally` runs, as it would not in a process that dies; threads go on.

        Args:
            worker: a worker that `worker()` gave (default: the harness's own, else the one that was started
                last).

        Raises:
            RuntimeError: no such worker runs.

        Example:
            ```python
            result = await render.delay(20)
            await t.kill_worker()
            assert await result.get(timeout=5) == "report.pdf"  # it ran again
            ```
        """
        return self._begin(self._workers.kill(worker))

    def drop_connections(self) -> asyncio.Future[None]:
        """Closes all connections to the server, as a restart of a proxy would. They are made anew, and what
        was under way is sent again. Await the call to know that they were closed.
        """
        return self._begin(self._connected.drop_connections())

    def delay_server(self, seconds: float | timedelta) -> AbstractAsyncContextManager[None]:
        """Makes each answer of the server come later by so many seconds, as long as the block lasts.
        Connections are made anew when it begins and when it ends.

        Example:
            ```python
            async with t.delay_server(0.2):
                with pytest.raises(asyncq.ResultTimeout):
                    await add.options(wait=0.1).call(1, 2)
            ```
        """
        return SlowServer(self._connected, config.seconds(seconds))

    def _begin(self, coroutine: Coroutine[Any, Any, None]) -> asyncio.Future[None]:
        fault = asyncio.create_task(coroutine)
        self._faults.add(fault)
        # Shielded: the job that calls `kill_worker` is cancelled by it.
        return asyncio.shield(fault)

    # -- the block --

    async def begin(self, *, worker: bool) -> None:
        """Opens the app and starts the worker; for `harness`."""
        await self._clock.start()
        await self._sessions.hold()
        if worker:
            await self._workers.start_own()

    async def jobs_left(self) -> list[str]:
        """Returns the jobs that a worker has not ended, one line each; for `harness`."""
        for fault in self._faults:
            await fault
        if not self._workers:
            return []
        end = asyncio.get_running_loop().time() + GRACE
        while jobs := await self._live.unended():
            if asyncio.get_running_loop().time() > end:
                return described(jobs, self.journal.by_id())
            await asyncio.sleep(POLL)
        return []

    async def end(self) -> None:
        """Stops the workers and closes what the harness has opened; for `harness`."""
        for fault in self._faults:
            fault.cancel()
        if self._faults:
            await asyncio.wait(self._faults)
        await self._workers.stop_all()
        await self._sessions.release()
        self._clock.stop()


class InlineHarness(BaseHarness):
    """An app under test whose calls run where they are made. `harness(app, inline=True)` makes it.

    Attributes:
        app: the app.
    """

    def __init__(self, app: AsyncQ, journal: Journal) -> None:
        super().__init__(app, journal)
        self._clock = ProcessClock()

    async def drain(self, timeout: float | timedelta | None = 5) -> None:
        """Returns at once: every job ends within its call."""

    async def advance(
        self,
        seconds: float | timedelta,
        *,
        timeout: float | timedelta | None = 5,  # noqa: ARG002  nothing waits
    ) -> None:
        """Sets the virtual clock ahead, by which `expires`, `deadline` and `t.now` go. Nothing waits for it.

        Raises:
            ValueError: the time is negative.
        """
        await self._clock.set_ahead(self._clock.ahead + config.seconds(seconds))

    async def begin(self) -> None:
        """Begins to use the clock; for `harness`."""
        await self._clock.start()

    def end(self) -> None:
        """Gives the clock back; for `harness`."""
        self._clock.stop()


@overload
def harness(
    app: AsyncQ, *, inline: Literal[False] = False, worker: bool = True, **settings: Any
) -> AbstractAsyncContextManager[Harness]: ...


@overload
def harness(
    app: AsyncQ, *, inline: Literal[True], **settings: Any
) -> AbstractAsyncContextManager[InlineHarness]: ...


def harness(
    app: AsyncQ, *, inline: bool = False, worker: bool = True, **settings: Any
) -> AbstractAsyncContextManager[Any]:
    """Gives an app a private server, a namespace of its own, and a worker on this loop, for one block.

    The app and its tasks are used as they are, and have their own server again afterwards. The server is a
    real one. It starts in some 35 ms, and later tests of the process use it again, emptied.

    When the block ends, jobs that still run or wait in a queue, blocks of the app that are open, asyncio
    tasks that were started in the block, and connections that nobody has closed raise `LeakError`, which
    names them and the lines that made them. What has gone after half a second is no leak. Jobs that wait for
    their time are none either.

    Args:
        app: the app under test.
        inline: whether each call runs where it is made, without a server and a worker: at once, to its end,
            and through the same encoding. `countdown` and `eta` change nothing then, a retry follows without
            its pause, and the handle is an `EagerResult`. Celery calls this `task_always_eager`.
        worker: whether to run a worker. Without one, jobs stay in their queues, unless `t.worker()` runs one.
        settings: other settings of the app during the test, such as `concurrency=1` or `lease=2`.

    Raises:
        LeakError: at the end of the block, unless the block raised: the test has left something behind.
        RuntimeError: the app is under test already.
        BrokerNotConfigured: there is no server program, or it cannot start here; see the extra `embedded`.
        ValueError: an unknown setting or a value that does not fit.

    Example:
        ```python
        async def test_signup():
            async with harness(app) as t:
                await signup("ada@example.com")
                t.assert_enqueued(send_mail, "ada@example.com")
        ```
    """
    if isinstance(app.sessions, RecordingSessions | InlineSessions):
        problem = f"{app!r} is under test already: end that harness first"
        raise RuntimeError(problem)  # noqa: TRY004  the app is of the right type, and in the wrong state
    return _HarnessBlock(_inline(app, settings) if inline else _with_server(app, settings, worker=worker))


class _HarnessBlock(AbstractAsyncContextManager[Any]):
    """The block of a harness. `with` instead of `async with` is refused with a word about the other one."""

    def __init__(self, block: AbstractAsyncContextManager[Any]) -> None:
        self._block = block

    async def __aenter__(self) -> Any:
        return await self._block.__aenter__()

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> bool | None:
        return await self._block.__aexit__(kind, error, trace)

    def __enter__(self) -> NoReturn:
        raise TypeError(
            "this harness needs `async with`. In a test that is no coroutine function, use the fixture "
            "asyncq_harness_sync (or asyncq.testing.sync_harness): `with asyncq_harness_sync(app) as t`"
        )

    def __exit__(self, *error: object) -> None:
        """Is never called: `with` asks for it before it calls `__enter__`."""


@asynccontextmanager
async def _with_server(app: AsyncQ, settings: dict[str, Any], *, worker: bool) -> AsyncIterator[Harness]:
    own, before = app.sessions, app.settings
    journal = Journal(app)
    watch = TaskWatch(journal.sites)
    connected = await HarnessServer.open()
    app.sessions = sessions = RecordingSessions(app, journal, own)
    leaks: list[str] = []
    try:
        namespace = f"test-{os.urandom(6).hex()}"
        # The server of a test has no replicas.
        app.reconfigure(**{"url": connected.url, "namespace": namespace, "replicas": 0, **settings})
        t = Harness(app, journal, connected, sessions)
        journal.sites.install(asyncio.get_running_loop())
        try:
            await t.begin(worker=worker)
            yield t
            leaks += await t.jobs_left()
            leaks += await watch.left()
        finally:
            await t.end()
            journal.sites.uninstall()
        leaks += sessions.blocks_left()
        await sessions.close_left()
        leaks += [] if leaks else await connections_left(connected)
    finally:
        _give_back(app, own, before)
        await connected.close()
    if leaks:
        raise leak_error(leaks)


@asynccontextmanager
async def _inline(app: AsyncQ, settings: dict[str, Any]) -> AsyncIterator[InlineHarness]:
    own, before = app.sessions, app.settings
    journal = Journal(app)
    watch = TaskWatch(journal.sites)
    app.sessions = InlineSessions(app, journal, own)
    t = InlineHarness(app, journal)
    try:
        app.reconfigure(**settings)
        journal.sites.install(asyncio.get_running_loop())
        await t.begin()
        yield t
    finally:
        t.end()
        journal.sites.uninstall()
        _give_back(app, own, before)
    if leaks := await watch.left():
        raise leak_error(leaks)


def _give_back(app: AsyncQ, sessions: Sessions, settings: Settings) -> None:
    """Gives an app the sessions and settings back that it had before the test."""
    app.sessions, app.settings = sessions, settings
    app.policy.trust_models = settings.trust_models
    for task in app.tasks.values():
        task.builder.resolve()
