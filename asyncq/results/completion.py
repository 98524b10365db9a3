"""Waiting for many jobs: their handles in the order in which they end.

Every wait for several jobs is made of this. It lives on the loop of the session that serves the call; only
`close` may be called from any thread. Each handle is registered once, and is completed once.
"""

from __future__ import annotations

import asyncio
import time
from functools import partial
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from asyncq import config
from asyncq.client.deadlock import Wait
from asyncq.context import current_job
from asyncq.errors import DecodeError, ResultNotFound, ResultTimeout
from asyncq.results.server_job import STATUS_TIMEOUT, ServerJob
from asyncq.results.view import View, job_of
from asyncq.states import State
from asyncq.sync_bridge import running_loop

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence
    from datetime import timedelta

    from asyncq.broker.waiters import Listener
    from asyncq.client.application import App
    from asyncq.results.known_job import KnownJob

R = TypeVar("R")
H = TypeVar("H", bound=View[Any])


class Completions(Generic[H]):
    """Waits for many jobs under one deadline.

    Each handle is registered once, however often the caller waits: to ask all that are still pending for each
    that ends would be a hundred million steps for ten thousand. No coroutine is needed for each of them.

    Args:
        handles: of the jobs.
        app: the app whose listener reports their ends; None if this process ran all of them.
        timeout: in seconds from now; None waits for ever, 0 looks once.

    Attributes:
        handles: as given.
        ended: the handles of which nothing more will come (ended, unknown or ignored), in the order of their
            ends.
        failed: whether one of those has no value.
    """

    def __init__(self, handles: Sequence[H], app: App | None, timeout: float | timedelta | None) -> None:
        self.handles: Sequence[H] = handles
        self.ended: list[H] = []
        self.failed: bool = False
        self._app = app
        self._given = 0
        self._limit = None if timeout is None else config.seconds(timeout)
        self._end = None if self._limit is None else time.monotonic() + self._limit
        self._started = False
        self._loop: asyncio.AbstractEventLoop | None = None
        self._listener: Listener | None = None
        self._leave: dict[int, Callable[[], object]] = {}
        self._error: BaseException | None = None
        self._changed = asyncio.Event()

    @property
    def complete(self) -> bool:
        """Whether nothing is left to wait for."""
        return len(self.ended) == len(self.handles)

    async def next_ended(self) -> list[H]:
        """Waits until a job has ended that this method has not given yet, and returns the handles of all
        those.

        Raises:
            ResultTimeout: the time is over.
        """
        if not await self.until(lambda: len(self.ended) > self._given, all_of_them=False):
            raise self.too_late()
        ended = self.ended[self._given :]
        self._given += len(ended)
        return ended

    @property
    def are_all_given(self) -> bool:
        """Whether `next_ended` has given every handle."""
        return self._given == len(self.handles)

    def first_failure(self) -> Exception:
        """Returns what the first in order of those that have failed by now raised. There must be one."""
        ended = set(self.ended)
        values = (value_or_error(handle) for handle in self.handles if handle in ended)
        return next(value for value in values if isinstance(value, Exception))

    def too_late(self) -> ResultTimeout:
        """Returns the error that names those which did not end in time."""
        ended = set(self.ended)
        late = [handle.id for handle in self.handles if handle not in ended]
        shown = ", ".join(late[:3]) + (", ..." if len(late) > 3 else "")
        return ResultTimeout(
            f"{len(late)} of {len(self.handles)} jobs did not end within {config.shown(self._limit)} "
            f"(they go on): {shown}"
        )

    async def until(self, enough: Callable[[], bool], *, all_of_them: bool = True) -> bool:
        """Waits until `enough` returns true; returns False if the time is over first.

        Args:
            enough: whether the caller can go on; called after each completion.
            all_of_them: whether the caller can go on only when all have ended. If one is enough, a cycle of
                waits is no deadlock.

        Raises:
            BrokerUnavailable: the app was closed meanwhile; or the timeout is 0 and no answer came.
            WouldDeadlock: inside a task: see `deadlock.Wait`.
        """
        if not self._started:
            await self._begin()
        job = current_job.get()
        app = self._app
        if job is None or app is None or self._limit == 0 or enough():
            return await self._until(enough)
        left = [self.handles[index] for index in self._leave]
        async with Wait(job, app, left, self._left(), all_of_them=all_of_them or len(left) == 1):
            return await self._until(enough)

    def _left(self) -> float | None:
        return None if self._end is None else max(0.0, self._end - time.monotonic())

    async def _until(self, enough: Callable[[], bool]) -> bool:
        while not enough():
            if self._error is not None:
                raise self._error
            left = self._left()
            if left == 0:
                return False
            self._changed.clear()
            try:
                async with asyncio.timeout(left):
                    await self._changed.wait()
            except TimeoutError:
                continue  # what ended just before the timeout counts
        return True

    async def _begin(self) -> None:
        self._started = True
        self._loop = running_loop()  # none where all are eager and the caller blocks
        if self._limit == 0:
            await fetch_states(self.handles, self._app, STATUS_TIMEOUT)
        for index, handle in enumerate(self.handles):
            job = job_of(handle)
            if job.is_resolved():
                self._complete(handle, job)
            elif self._limit != 0:
                self._attend(index, handle, job)

    def _attend(self, index: int, handle: H, job: KnownJob[Any]) -> None:
        on_change = partial(self._on_change, index, handle, job)
        app = self._app
        if app is None or job.app is not app or not isinstance(job, ServerJob):
            # The app of this job may be open on another loop. So the job is waited for as anybody waits for
            # it.
            task = asyncio.create_task(_until_ended(job))
            task.add_done_callback(on_change)
            self._leave[index] = task.cancel
            return
        listener = app.sessions.current().listener if self._listener is None else self._listener
        self._listener = listener
        waiter = job.waiter(listener)
        if waiter.ended is not None or waiter.gone:
            self._complete(handle, job)
        else:
            self._leave[index] = listener.attend(waiter, on_change)

    def _on_change(self, index: int, handle: H, job: KnownJob[Any], future: asyncio.Future[None]) -> None:
        error = None if future.cancelled() else future.exception()
        leave = self._leave.pop(index, None)
        if leave is None:
            return
        leave()
        if error is not None:
            self._error = error
            self._changed.set()
        elif job.is_resolved():
            self._complete(handle, job)
        else:
            self._attend(index, handle, job)  # the job goes on: this was news of it, such as when it expires

    def _complete(self, handle: H, job: KnownJob[Any]) -> None:
        self.ended.append(handle)
        self.failed = self.failed or job.is_ignored or job.state is not State.SUCCESS
        self._changed.set()

    def close(self) -> None:
        """Stops waiting. From any thread; the app may be closed, and its loop gone."""
        loop = self._loop
        if loop is None or loop.is_closed() or not self._leave:
            return
        if running_loop() is loop:
            self._leave_all()
        else:
            loop.call_soon_threadsafe(self._leave_all)

    def _leave_all(self) -> None:
        leaves, self._leave = self._leave, {}
        for leave in leaves.values():
            leave()


async def fetch_states(handles: Iterable[View[Any]], app: App | None, timeout: float | None = None) -> None:
    """Fetches the states of all jobs whose outcome is not known yet, 500 in each command.

    Args:
        handles: of the jobs.
        app: the app of most of them; None if this process ran all of them.
        timeout: in seconds, for each answer; None for the operation timeout.

    Raises:
        BrokerUnavailable: no answer in time.
    """
    listener = None if app is None else app.sessions.current().listener
    waiters, others = [], []
    for handle in handles:
        job = job_of(handle)
        if not isinstance(job, ServerJob):
            continue
        if job.app is not app:
            others.append(job)
            continue
        waiter = job.waiter(listener)
        if waiter.ended is None and waiter.accepted:
            waiters.append(waiter)
    if listener is not None and waiters:
        await listener.fetch_all(waiters, timeout)
    if others:
        await asyncio.gather(*(job.refresh() for job in others))


def value_or_error(handle: View[R]) -> R | Exception:
    """Returns what the `get` of a handle that has ended would return, or raise."""
    job = job_of(handle)
    outcome = None if job.is_ignored else job.known()
    if outcome is None:
        return ResultNotFound(
            f"no result under the id {job.id!r}: unknown, forgotten, expired (result_ttl), or its task "
            "ignores results"
        )
    error = outcome.error
    if error is not None:
        return error
    try:
        return outcome.unwrap()
    except DecodeError as unread:
        return unread


async def _until_ended(job: KnownJob[Any]) -> None:
    job.check_join("AsyncResult.get()", disable_sync_subtasks=False)
    try:
        if job.at_hand() is None:
            await job.outcome(None)
    except ResultNotFound:
        return  # the job knows it now, and raises it to whoever reads the handle
