"""Handles in the order in which their jobs end: what every wait for many jobs is made of."""

from __future__ import annotations

import asyncio
import time
from functools import partial
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from asyncq import config
from asyncq.client.deadlock import Wait
from asyncq.context import current_job
from asyncq.errors import DecodeError, ResultNotFound
from asyncq.states import State
from asyncq.sync_bridge import running_loop

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence
    from datetime import timedelta

    from asyncq.broker.waiters import Listener
    from asyncq.client.application import App
    from asyncq.results.handle import AsyncResult

R = TypeVar("R")


class Completions(Generic[R]):
    """Waits for many jobs under one deadline. Lives on the loop of the app, which must be open there.

    Each handle is registered once, however often is waited: asking all that are still pending for each that
    ends would be a hundred million steps for ten thousand. And it takes no coroutine for each of them.

    Args:
        handles: of the jobs.
        app: its listener reports their ends; None if all of them are eager.
        timeout: seconds from now; None waits for ever, 0 looks once.

    Attributes:
        ended: those of which nothing more will come, in order: ended, unknown or ignored.
        failed: whether one of those has no value.
    """

    def __init__(
        self, handles: Sequence[AsyncResult[R]], app: App | None, timeout: float | timedelta | None
    ) -> None:
        self.handles = handles
        self.ended: list[AsyncResult[R]] = []
        self.failed: bool = False
        self._app = app
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

    async def until(self, enough: Callable[[], bool], *, all_of_them: bool = True) -> bool:
        """Waits until `enough` returns true, which is asked after each completion; False if the time is over
        first.

        Args:
            enough: whether to go on.
            all_of_them: whether that needs every one of them, as far as the guard is concerned.

        Raises:
            BrokerUnavailable: the app was closed meanwhile, or, with a timeout of 0, no answer came.
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
            # Short, for this is no wait, also when the server hangs.
            await fetch_states(self.handles, self._app, timeout=0.2)
        for index, handle in enumerate(self.handles):
            if handle.is_settled():
                self._complete(handle)
            elif self._limit != 0:
                self._attend(index)

    def _attend(self, index: int) -> None:
        handle = self.handles[index]
        on_change = partial(self._on_change, index)
        app = self._app
        if app is None or handle.app is not app:
            # Another app may be open on another loop, so it is asked as anybody asks it.
            task = asyncio.create_task(_follow(handle))
            task.add_done_callback(on_change)
            self._leave[index] = task.cancel
            return
        listener = app.sessions.current().listener if self._listener is None else self._listener
        self._listener = listener
        waiter = handle.waiter(listener)
        if waiter.ended is not None or waiter.gone:
            self._complete(handle)
        else:
            self._leave[index] = listener.attend(waiter, on_change)

    def _on_change(self, index: int, future: asyncio.Future[None]) -> None:
        error = None if future.cancelled() else future.exception()
        leave = self._leave.pop(index, None)
        if leave is None:
            return
        leave()
        if error is not None:
            self._error = error
            self._changed.set()
        elif self.handles[index].is_settled():
            self._complete(self.handles[index])
        else:
            self._attend(index)  # news of a live job, such as when it expires

    def _complete(self, handle: AsyncResult[R]) -> None:
        self.ended.append(handle)
        self.failed = self.failed or handle.ignored or handle.state is not State.SUCCESS
        self._changed.set()

    def close(self) -> None:
        """Stops listening. From any thread; the app may be closed, and its loop gone."""
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


async def fetch_states(
    handles: Iterable[AsyncResult[Any]], app: App | None, timeout: float | None = None
) -> None:
    """Fetches the states of all jobs whose end is not known yet, 500 in each command.

    Args:
        handles: whose state is brought up to date.
        app: the app of most of them; None if all of them are eager.
        timeout: seconds to wait for each answer; None for the operation timeout.

    Raises:
        BrokerUnavailable: no answer in time.
    """
    listener = None if app is None else app.sessions.current().listener
    waiters, others = [], []
    for handle in handles:
        if handle.is_local:
            continue
        if handle.app is not app:
            others.append(handle)
            continue
        waiter = handle.waiter(listener)
        if waiter.ended is None and waiter.accepted:
            waiters.append(waiter)
    if listener is not None and waiters:
        await listener.fetch_all(waiters, timeout)
    if others:
        await asyncio.gather(*(handle.refresh() for handle in others))


def value_or_error(handle: AsyncResult[R]) -> R | Exception:
    """What the `get` of a handle that has ended would return, or raise."""
    outcome = None if handle.ignored else handle.known()
    if outcome is None:
        return ResultNotFound(
            f"no result under the id {handle.id!r}: unknown, forgotten, expired (result_ttl), or its task "
            "ignores results"
        )
    error = outcome.error
    if error is not None:
        return error
    try:
        return outcome.unwrap()
    except DecodeError as unread:
        return unread


async def _follow(handle: AsyncResult[Any]) -> None:
    try:
        await handle.get(propagate=False, disable_sync_subtasks=False)
    except (ResultNotFound, DecodeError):
        return  # known by now; who reads the handle gets the error
