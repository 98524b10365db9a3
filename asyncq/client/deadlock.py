"""The deadlock guard: refuses a wait inside a task that would never end. Other waits release the job's slot.

Every call that waits for a job first asks `check_join`: is waiting allowed here, and is the wait for the job
itself or for a job above it? `Wait` surrounds one wait inside a task, on the app's loop: it releases the
slot, has the server look for a wait cycle, and reacquires a slot at the end. The worker's half, on the
worker's loop, is in `worker.wait_slots`. Outside of tasks `Wait` is not used.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import logging
import os
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, TypeVar

from asyncq.context import current_job, joining
from asyncq.errors import AsyncQError, BrokerUnavailable, WouldDeadlock

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Iterable, Iterator, Mapping, Sequence
    from types import TracebackType

    from asyncq.client.application import App
    from asyncq.context import Context, Handle, Link

R = TypeVar("R")

log: logging.Logger = logging.getLogger(__name__)

CYCLE_CHECK_TIMEOUT = 1.0
"""How many seconds the server may take to look for a wait cycle. A slow check must not fail a job."""

GONE = 0.25
"""How many seconds pass between two checks that the worker's loop is not closed."""


def check_join(
    what: str | Callable[[], str], handles: Iterable[Handle] = (), *, disable_sync_subtasks: bool = True
) -> None:
    """Refuses a wait that is not allowed. Every call that waits for a job calls this before it waits.

    Args:
        what: the call, as the error names it; a function is called only if there is an error.
        handles: of the jobs to wait for; ignored outside of tasks.
        disable_sync_subtasks: False lets this one call wait also where waiting is denied.

    Raises:
        WouldDeadlock: waiting is denied here; or the wait is for the job itself or for a job above it, which
            is refused everywhere.
    """
    job = current_job.get()
    if job is not None:
        _check_ancestors(what, job, handles)
    if not disable_sync_subtasks or joining.get():
        return
    where = f"task {job.name} (job {job.id})" if job is not None else "a denied_join_result() block"
    named = what if isinstance(what, str) else what()
    raise WouldDeadlock(
        f"{named} inside {where} waits for another job: if all jobs of all workers waited like this, no slot "
        "would be left to run that job. Return the handle's id and let the caller wait, or allow the wait "
        "with get(disable_sync_subtasks=False) or `with asyncq.allow_join_result():`"
    )


def _check_ancestors(what: str | Callable[[], str], job: Context, handles: Iterable[Handle]) -> None:
    """Refuses a wait for the job itself, or for a job above it: that one may wait for this job, now or later,
    and nothing here shows whether it does.
    """
    above = job.ancestors
    for handle in handles:
        id_ = handle.id
        if id_ != job.id and id_ not in above and id_ != job.root_id:
            continue
        if not job.is_of(handle.app):
            continue  # a job of another app, which has the same id
        names = {id_: handle.name, job.id: job.name}
        what = what if isinstance(what, str) else what()
        if id_ == job.id:
            raise WouldDeadlock(
                f"{what} inside task {job.name} (job {job.id}) waits for that job itself, which would never "
                f"end: {path((id_, id_), names)}"
            )
        between = above[: above.index(id_)] if id_ in above else (*above, "...")
        raise WouldDeadlock(
            f"{what} inside task {job.name} (job {job.id}) waits for a job that started it; if that job "
            "also waits for this one, neither of them ends: "
            f"{path((id_, *reversed(between), job.id, id_), names)}"
        )


def path(ids: Iterable[str], names: Mapping[str, str | None]) -> str:
    """Formats who waits for whom, as an error shows it: `fib:1 -> 2 -> fib:1`, with the known names."""
    return " -> ".join(f"{name}:{id_}" if (name := names.get(id_)) else id_ for id_ in ids)


@contextmanager
def allow_join_result() -> Iterator[None]:
    """Lets the code inside the block wait for other jobs, also inside a task.

    Such a task releases its slot for the wait. Before it goes on it reacquires a slot, also after a timeout,
    and may have to wait for a free one. Blocks may be nested; the end of a block restores the setting before.

    A wait that would never end is refused all the same, with `WouldDeadlock`: for the task's own job, for a
    job above it, or for a job that waits for it. So is a wait when `max_parked` jobs of the worker wait.

    Example:
        ```python
        with asyncq.allow_join_result():
            total = await (await add.delay(1, 2))
        ```
    """
    token = joining.set(True)
    try:
        yield
    finally:
        joining.reset(token)


@contextmanager
def denied_join_result() -> Iterator[None]:
    """Makes every wait for a job inside the block raise `WouldDeadlock`, also outside of tasks.

    Example:
        ```python
        with asyncq.denied_join_result():
            await handle_request()  # finds code that would wait
        ```
    """
    token = joining.set(False)
    try:
        yield
    finally:
        joining.reset(token)


class Wait:
    """The wait of a job for other jobs: `async with Wait(...)` around it. Runs on the app's loop, which may
    be another one than the worker's.

    Args:
        job: the job that waits.
        app: the app through whose session it waits.
        handles: of the jobs that it waits for.
        timeout: how many seconds the whole wait may take; None is for ever.
        all_of_them: whether the job goes on only when each of them has ended. If one is enough, a cycle
            through another one is no deadlock, and the server is not asked.

    Raises:
        BrokerUnavailable: the app was closed.
        WouldDeadlock: too many jobs of this worker wait already; or one of the jobs waits for this one,
            itself or through others.
    """

    def __init__(
        self,
        job: Context,
        app: App,
        handles: Sequence[Handle],
        timeout: float | None,
        *,
        all_of_them: bool = True,
    ) -> None:
        self._job = job
        self._broker = app.sessions.current().broker
        self._timeout = CYCLE_CHECK_TIMEOUT if timeout is None else min(CYCLE_CHECK_TIMEOUT, timeout)
        self._awaited: list[Handle] = []
        # Tells this wait, in what the server notes, from another wait of the job for the same target.
        self._wait_token = ""
        # Only the server that holds the waiting job notes for which jobs it waits.
        if all_of_them and job.entry and job.is_of(app):
            self._awaited = [handle for handle in handles if handle.app is app]
            self._wait_token = os.urandom(6).hex()

    async def __aenter__(self) -> None:
        link = self._job.link
        if link is not None:
            await _release_slot(link)
        try:
            if self._awaited:
                await self._note_wait()
            if self._broker.commands.is_closed:  # closed meanwhile: nothing would wake a wait that begins now
                raise BrokerUnavailable("the app was closed during the wait for a result")
        except BaseException:
            await self._go_on()
            raise

    async def __aexit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self._go_on()

    async def _note_wait(self) -> None:
        """Notes at the server for which jobs the job waits, and looks for a cycle.

        Within a shard this is one step: of two jobs that begin to wait for each other, the second gets the
        error. Through several shards it is two steps, and both may get it.
        """
        job = self._job
        ids = [handle.id for handle in self._awaited]
        try:
            way = await self._broker.waits.block(job.id, job.entry, self._wait_token, ids, self._timeout)
        except AsyncQError as error:
            _warn_once(error)
            return
        if not way:
            return
        names = {handle.id: handle.name for handle in self._awaited}
        raise WouldDeadlock(
            f"task {job.name} (job {job.id}) would wait for a job that waits for it, and none of them would "
            f"ever end: {path((job.id, *way), {**names, job.id: job.name})}"
        )

    async def _go_on(self) -> None:
        if self._awaited:
            job = self._job
            self._broker.waits.unblock(
                job.id, job.entry, self._wait_token, [handle.id for handle in self._awaited]
            )
        if self._job.link is not None:
            await _reacquire_slot(self._job.link)


async def _release_slot(link: Link) -> None:
    wait = asyncio.current_task()
    if link.loop is asyncio.get_running_loop():
        await link.release_slot(wait)
        return
    try:
        await _at_the_workers(link.release_slot(wait), link)
    except asyncio.CancelledError:
        await _reacquire_slot(link)
        raise


async def _reacquire_slot(link: Link) -> None:
    wait = asyncio.current_task()
    if link.loop is asyncio.get_running_loop():
        await link.reacquire_slot(wait)
    else:
        await _at_the_workers(link.reacquire_slot(wait), link)


async def _at_the_workers(step: Coroutine[Any, Any, None], link: Link) -> None:
    """Runs a step on the worker's loop, which is not that of the app.

    The caller must know whether the job has its slot. So a cancellation is passed to the step only after the
    step has begun, and it is raised here only when the step has ended.
    """
    loop, task = link.loop, None
    assert loop is not None, "who asks has a loop"
    answer: concurrent.futures.Future[None] = concurrent.futures.Future()

    def begin() -> None:
        nonlocal task
        task = loop.create_task(step)
        task.add_done_callback(lambda done: _hand_on(done, answer))

    def cancel() -> None:
        assert task is not None  # `begin` was posted before
        loop.call_soon(task.cancel)  # after its first step: cancelled before that, it would run nothing

    cancelled: asyncio.CancelledError | None = None
    if not _posted(begin, loop):
        step.close()
    else:
        here = asyncio.wrap_future(answer)
        # A worker's loop that is closed meanwhile never answers, so each round checks for that.
        while not here.done() and not loop.is_closed():
            try:
                await asyncio.wait({here}, timeout=GONE)
            except asyncio.CancelledError as error:
                cancelled = error
                _posted(cancel, loop)
        if here.done():
            here.result()
    if cancelled is not None:
        raise cancelled


def _posted(call: Callable[[], None], loop: asyncio.AbstractEventLoop) -> bool:
    """Has the worker's loop make a call. Returns False if that loop is closed, and the worker gone."""
    try:
        loop.call_soon_threadsafe(call)
    except RuntimeError:
        return False
    return True


def _hand_on(done: asyncio.Task[None], answer: concurrent.futures.Future[None]) -> None:
    error = None if done.cancelled() else done.exception()
    if error is None:
        answer.set_result(None)
    else:
        answer.set_exception(error)


_has_warned = False


def _warn_once(error: Exception) -> None:
    global _has_warned  # noqa: PLW0603  once a process: every wait of every job would say it
    if not _has_warned:
        _has_warned = True
        log.warning(
            "the server cannot check waits between jobs for cycles (%s); the jobs wait unchecked", error
        )
