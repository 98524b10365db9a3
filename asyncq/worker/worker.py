"""A worker: runs one session after the other, each with its loops in a task group. To leave it is to stop.

    Worker.run
    ├─ lifespan           of the app, in an asyncio task of its own
    ├─ outcome_events     a task for each outcome hook
    └─ one session after the other (a new one whenever the lease was lost)
       ├─ heartbeat       a thread that sends the beats
       ├─ delayed_jobs    moves jobs into their queues when they are due
       ├─ recovery        checks in: finds dead workers, and takes their jobs back
       ├─ announcer       says which tasks the worker knows
       ├─ fetcher         reads entries and starts an asyncio task for each job
       ├─ last_tries      makes jobs on their last try run
       ├─ attempts        one for each job; each ends in an outcome
       └─ claims          stores outcomes in batches
    └─ processes.pool     runs jobs in processes; it outlives a session, so the processes stay warm

All of it runs on the loop that called `Worker.run`, except for the heartbeat and the bodies in threads. Every
job is one asyncio task, started and kept by hand and not in a task group: an anyio group takes several times
as long, and asyncio's own group cancels the other jobs when one fails. The coroutine of a job lets no
exception out, see `attempt`.
"""

from __future__ import annotations

import asyncio
import logging
import os
import re
import signal
import socket
from typing import TYPE_CHECKING, Any

import anyio

from asyncq import config, logs
from asyncq.broker.transport.background import unexpected
from asyncq.broker.transport.server_error import ServerError, Unfit
from asyncq.client.scoped_jobs import unscoped
from asyncq.errors import BrokerNotConfigured, BrokerUnavailable
from asyncq.system import forks
from asyncq.system.tasks import cancel_and_wait
from asyncq.worker.outcome_writer import Counts
from asyncq.worker.resources import Resources
from asyncq.worker.shutdown import StopRequest
from asyncq.worker.worker_session import WorkerSession

if TYPE_CHECKING:
    from collections.abc import Coroutine, Sequence
    from datetime import timedelta
    from types import TracebackType

    from asyncq.app import AsyncQ

log: logging.Logger = logging.getLogger(__name__)


class Worker:
    """Runs the jobs of an app's queues in this process.

    Args:
        app: the app whose tasks to run.
        concurrency: how many jobs run at the same time (default: the app's setting, 100).
        queues: which queues to serve, the most urgent first (default: the default queue and those named at
            registration).
        grace: seconds (or a timedelta) that running jobs get when the worker stops. Jobs that have not ended
            then are handed back (default: the app's setting, 25).
        name: the name of the worker, as results show it (default: `<host>-<pid>`).
        target: `module:attribute` of the app. Child processes import it: those that run jobs on their last
            try, and those of tasks with `executor="process"`. Without it, the worker looks for a module that
            has the app, for jobs on their last try. If there is none, or one of the tasks stands in no
            module, such jobs run here after a warning, one at a time beside the others. A process of
            `executor="process"` finds each task by its module.
        only_last_tries: makes this worker such a child process: it runs jobs on their last try, one at a
            time, and ends when there are none.

    Example:
        ```python
        async with Worker(app, concurrency=10):  # runs beside this code, ends with the block
            assert await add.call(4, 4) == 8

        await Worker(app).run()  # or: runs until it is stopped
        ```
    """

    def __init__(
        self,
        app: AsyncQ,
        concurrency: int | None = None,
        queues: Sequence[str] | None = None,
        *,
        grace: float | timedelta | None = None,
        name: str | None = None,
        target: str | None = None,
        only_last_tries: bool = False,
    ) -> None:
        self.app = app
        try:
            slots = app.settings.concurrency if concurrency is None else concurrency
            self.concurrency: int = config.count(slots)
        except ValueError as error:
            raise ValueError(f"concurrency={error}") from None
        if isinstance(queues, str):
            raise TypeError(f"queues={queues!r} is one string; write queues=[{queues!r}]")
        self.queues: list[str] = [config.name(queue) for queue in queues] if queues else app.queues()
        self.grace: float = app.settings.grace if grace is None else config.duration("grace", grace)
        # It is part of the consumer's name and of outcomes, where a space begins the next field.
        self.name: str = default_name() if name is None else checked_name(name)
        self.target = target
        self.only_last_tries = only_last_tries
        self.counts: Counts = Counts()
        self.started: asyncio.Event = asyncio.Event()
        self._stop = StopRequest()
        self._task: asyncio.Task[None] | None = None
        self._session: WorkerSession | None = None

    @property
    def done(self) -> int:
        """How many jobs have ended here, with success, with a failure or by a revocation."""
        return self.counts.done

    @property
    def failed(self) -> int:
        """How many jobs have failed here."""
        return self.counts.failed

    @property
    def retried(self) -> int:
        """How many attempts have failed here whose jobs are tried again."""
        return self.counts.retried

    @property
    def malformed(self) -> int:
        """How many entries had no readable message."""
        return self.counts.malformed

    @property
    def handed_back(self) -> int:
        """How many jobs went back into their queues for other workers."""
        return self.counts.handed_back

    async def run(self) -> None:
        """Runs until `stop` is called. Then running jobs get the grace; what has not ended is handed back.

        If the call is cancelled, everything is handed back at once.

        Raises:
            TypeError: at the start: an annotation of a task uses a name that is defined nowhere, or a union
                whose arms cannot be told apart.
            ValueError: at the start: a task has `executor="process"`, and another process would not find its
                function.
            RuntimeError: at the start: the import of the app has started this worker, in a process that is to
                run jobs.
            BrokerUnavailable: at the start only. Later the worker waits until the server is back.
            AsyncQError: the lifespan of the app has raised, at the start or at the end.

        Example:
            ```python
            worker = Worker(app, queues=["urgent", "default"])
            worker.stop_on_signals()
            await worker.run()
            ```
        """
        logs.enable_loggers()
        forks.guard_signals()
        check_annotations(self.app)
        with unscoped():
            resources = Resources(self, self._stop)
            resources.pool.check()
            async with self.app:
                try:
                    if await self._unless_stopped(resources.lifespan.enter()):
                        await self._serve(resources)
                finally:
                    # Shielded: a worker that is cancelled must still end its processes.
                    with anyio.CancelScope(shield=True):
                        await resources.close(is_cancelled=_is_cancelled())

    async def _serve(self, resources: Resources) -> None:
        """Runs one session after the other until the worker is to stop."""
        while not self._stop.made.is_set():
            session = self._session = WorkerSession(self, resources, self._stop.made)
            try:
                if await self._unless_stopped(session.begin()):
                    await session.run()
            except Exception as error:
                if not self.started.is_set():
                    if isinstance(error, Unfit):
                        raise BrokerNotConfigured(str(error)) from error
                    if isinstance(error, ServerError):
                        where = session.broker.address.safe_url
                        raise BrokerUnavailable(f"{where} refuses: {error}") from error
                    raise
                log.warning(
                    "a new session could not begin (%s); trying again", error, exc_info=unexpected(error)
                )
                await asyncio.sleep(1.0)
            finally:
                # Shielded: a worker that is cancelled must still hand back its jobs and leave the server.
                with anyio.CancelScope(shield=True):
                    await session.end(0.0 if _is_cancelled() else self.grace, self._stop.stops_at_once)

    async def _unless_stopped(self, step: Coroutine[Any, Any, None]) -> bool:
        """Runs a step that may wait for the server for ever. Returns False if the worker was stopped first,
        and cancels the step then.
        """
        task = asyncio.create_task(step)
        stopped = asyncio.create_task(self._stop.made.wait())
        try:
            await asyncio.wait({task, stopped}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            stopped.cancel()
            if not task.done():
                await cancel_and_wait(task)
        if task.cancelled():
            return False
        task.result()
        return True

    def stop(self) -> None:
        """Asks the worker to stop: it reads no more jobs, and running jobs may end within the grace.

        Returns at once. A second call hands running jobs back at once.
        """
        self._stop.make()

    def kill(self) -> str | None:
        """Ends the worker as a crash of its process would, for tests: no outcome of a running job is stored,
        and nothing is handed back. Other workers take the jobs when its lease is over, or by
        `WorkerSession.take_over`.

        Coroutines are cancelled and processes are killed. A thread goes on, and its result is refused.

        Returns:
            The id of the session that died; None if the worker has not begun one.
        """
        self._stop.make()
        self._stop.stops_at_once.set()
        if self._session is None:
            return None
        self._session.is_lost.set()
        return self._session.consumer.name

    @property
    def session(self) -> WorkerSession | None:
        """The session that runs now, or ran last; None before the first one. For asyncq's own modules."""
        return self._session

    def drain(self) -> None:
        """Asks the worker to stop, as the first call of `stop` does. A second call changes nothing."""
        self._stop.make_once()

    def quiet(self, *, on: bool = True) -> None:
        """Makes the worker take no more jobs, or take jobs again. What it runs goes on.

        Returns at once; the read that is under way may still bring jobs. A second call changes nothing.
        """
        if on != self._stop.is_quiet:
            log.info("this worker is quiet: it takes no more jobs" if on else "this worker takes jobs again")
        self._stop.is_quiet = on
        if self._session is not None:
            self._session.consumer.be_quiet(on=on)

    @property
    def is_quiet(self) -> bool:
        """Whether it was asked to take no more jobs."""
        return self._stop.is_quiet

    @property
    def born(self) -> int:
        """When it was made, in ms since the epoch."""
        return self._stop.born

    @property
    def stopping_since(self) -> float | None:
        """When it was asked to stop, by the clock of its loop; None before."""
        return self._stop.asked_at if self._stop.made.is_set() else None

    async def __aenter__(self) -> Worker:
        self._task = asyncio.create_task(self.run(), name="asyncq-worker")
        started = asyncio.create_task(self.started.wait())
        try:
            await asyncio.wait({self._task, started}, return_when=asyncio.FIRST_COMPLETED)
        except asyncio.CancelledError:
            # Nobody calls `__aexit__` now, so the worker would run on for ever.
            await cancel_and_wait(self._task)
            raise
        finally:
            started.cancel()
        if self._task.done():
            await self._task
        return self

    async def __aexit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        # Not `stop`: if the worker is stopping already, a second call would not wait for running jobs.
        self._stop.make_once()
        assert self._task is not None
        await self._task

    def stop_on_signals(self) -> None:
        """Makes SIGINT and SIGTERM stop the worker: the first drains, the second hands back at once."""
        loop = asyncio.get_running_loop()
        for number in (signal.SIGINT, signal.SIGTERM):
            loop.add_signal_handler(number, self.stop)


def check_annotations(app: AsyncQ) -> None:
    """Checks that the annotations of all tasks can be resolved: otherwise jobs of the task would fail.

    What was resolved is kept, so neither a second check nor the first job pays for it.

    Raises:
        TypeError: the annotations of a task cannot be resolved. The message says which name is missing, or
            which arms of a union cannot be told apart.
    """
    for task in app.tasks.values():
        task.resolve()


def default_name() -> str:
    """Returns the name of a worker that was given none: `<host>-<pid>`."""
    host = socket.gethostname().split(".")[0]
    return f"{re.sub(r'[^A-Za-z0-9_.-]', '-', host)[:60]}-{os.getpid()}"


def checked_name(name: str) -> str:
    """Checks the name of a worker, and returns it.

    Raises:
        ValueError: as `config.name`.
    """
    try:
        return config.name(name)
    except ValueError as error:
        raise ValueError(f"name={name!r} of a worker: {error}") from None


def _is_cancelled() -> bool:
    task = asyncio.current_task()
    return task is not None and task.cancelling() > 0
