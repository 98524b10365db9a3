"""Whether a job may wait for others: a wait that would never end is refused, and any other gives the job's
slot back.

`check_join` is asked before every wait: is waiting allowed here, and is it for the job itself or for one
above it? `Wait` is one wait inside a task, on the loop of the app: it gives the slot back, and is refused
where it would close a cycle of waits. Outside a task nothing of this happens.
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
"""Seconds that the server may take to look for a cycle of waits. A slow check must not fail a job."""

GONE = 0.25
"""Seconds between two looks whether the worker that was asked is still there."""


def check_join(
    what: str | Callable[[], str], handles: Iterable[Handle] = (), *, disable_sync_subtasks: bool = True
) -> None:
    """The deadlock guard: every call that waits for another job passes here before it waits.

    Args:
        what: the call, as the error names it; a function is called only where there is an error.
        handles: of the jobs to wait for; not looked at outside a task.
        disable_sync_subtasks: False lets this one call wait whatever the flag says.

    Raises:
        WouldDeadlock: waiting is denied here; or it is for the job itself or for one above it, whatever the
            flag says.
    """
    job = current_job.get()
    if job is not None:
        _check_line(what, job, handles)
    if not disable_sync_subtasks or joining.get():
        return
    where = f"task {job.name} (job {job.id})" if job is not None else "a denied_join_result() block"
    named = what if isinstance(what, str) else what()
    raise WouldDeadlock(
        f"{named} inside {where} waits for another job: with every worker slot waiting like this, nobody "
        "would be left to run it. Return the handle's id and let the caller wait, or allow it here with "
        "get(disable_sync_subtasks=False) or `with asyncq.allow_join_result():`"
    )


def _check_line(what: str | Callable[[], str], job: Context, handles: Iterable[Handle]) -> None:
    """A job above may itself wait for this one, now or later: nothing tells."""
    above = job.ancestors
    for handle in handles:
        id_ = handle.id
        if id_ != job.id and id_ not in above and id_ != job.root_id:
            continue
        if not job.is_of(handle.app):
            continue  # another app's job of the same name
        names = {id_: handle.name, job.id: job.name}
        what = what if isinstance(what, str) else what()
        if id_ == job.id:
            raise WouldDeadlock(
                f"{what} inside task {job.name} (job {job.id}) waits for that job itself, which would never "
                f"end: {path((id_, id_), names)}"
            )
        between = above[: above.index(id_)] if id_ in above else (*above, "...")
        raise WouldDeadlock(
            f"{what} inside task {job.name} (job {job.id}) waits for a job that started it; if that one "
            f"waits for it, too, none of them ends: {path((id_, *reversed(between), job.id, id_), names)}"
        )


def path(ids: Iterable[str], names: Mapping[str, str | None]) -> str:
    """Who waits for whom, as an error shows it: `fib:1 -> 2 -> fib:1`, with the names that are known."""
    return " -> ".join(f"{name}:{id_}" if (name := names.get(id_)) else id_ for id_ in ids)


@contextmanager
def allow_join_result() -> Iterator[None]:
    """Let the code inside the block wait for other jobs, also inside a task.

    Such a task gives its slot back for the wait and takes one again before it goes on, also after a time-out:
    it goes on when one is free. Blocks may stand inside each other; leaving one restores what was before.

    Waits that would never end are refused all the same, with `WouldDeadlock`: for the task's own job, for a
    job above it, or for one that waits for it; and when `max_parked` jobs of the worker wait already.

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
    """Make every wait for a job inside the block raise `WouldDeadlock`, also outside tasks."""
    token = joining.set(False)
    try:
        yield
    finally:
        joining.reset(token)


class Wait:
    """A wait of a job for others: `async with Wait(...)` around it. Lives on the loop of the app.

    Args:
        job: the one that waits.
        app: which the wait asks.
        handles: of the jobs that it waits for.
        timeout: seconds that the whole wait may take; None for ever.
        all_of_them: whether it goes on only when each has ended. If one is enough, a cycle through another is
            no deadlock, and is not looked for.

    Raises:
        BrokerUnavailable: the app was closed.
        WouldDeadlock: too many jobs of this worker wait already; or one of the jobs waits, itself or through
            others, for this one.
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
        # Names this wait in what the server notes: another wait of the job may be for the same target.
        self._wait_token = ""
        # Only the server whose job this is knows for whom it waits.
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
            if self._broker.commands.is_closed:  # meanwhile: nobody would wake who begins to wait now
                raise BrokerUnavailable("the app was closed while a result was waited for")
        except BaseException:
            await self._go_on()
            raise

    async def __aexit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self._go_on()

    async def _note_wait(self) -> None:
        """Notes for which jobs the job waits, and looks for a cycle, in one step. Of two jobs that begin to
        wait for each other, the second gets the error.
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
    """Takes a step on the worker's loop, which is not that of the app. The caller must know whether
    the job has its slot, so a cancellation is passed on after the step has begun, and raised here when it is
    done.
    """
    loop, task = link.loop, None
    assert loop is not None, "who asks has a loop"
    answer: concurrent.futures.Future[None] = concurrent.futures.Future()

    def begin() -> None:
        nonlocal task
        task = loop.create_task(step)
        task.add_done_callback(lambda done: _hand_on(done, answer))

    def cancel() -> None:
        assert task is not None  # `begin` came before
        loop.call_soon(task.cancel)  # and after its first step

    cancelled: asyncio.CancelledError | None = None
    if not _posted(begin, loop):
        step.close()
    else:
        here = asyncio.wrap_future(answer)
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
    """Has the worker's loop make a call; False if the worker is gone, and its slots with it."""
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
        log.warning("cycles of waits between jobs cannot be looked for (%s); waiting all the same", error)
