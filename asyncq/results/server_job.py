"""A job at the server: what this process has seen of it, waits for it, status queries, and its revocation.

The `Waiter` of the job holds what is known, and pushes keep it up to date. What is known may be read on any
thread; `waiter` and all that asks the server run on the loop of the session that serves the call, and
`on_app_loop` takes the public coroutines there. A handle may be used on several loops: it then goes from
waiter to waiter, one in each session, and shows what any of them has seen.
"""

from __future__ import annotations

import asyncio
import contextvars
import logging
import time
from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar

from asyncq import config, failures, sync_bridge, wire
from asyncq.broker.schema.records import Flags
from asyncq.client.deadlock import Wait, check_join
from asyncq.context import current_job
from asyncq.errors import AsyncQError, ResultNotFound, ResultTimeout
from asyncq.execution import parent_results
from asyncq.outcome import Outcome
from asyncq.results.events import EventFollower
from asyncq.results.known_job import KnownJob
from asyncq.results.streams import Reader
from asyncq.serializers import PLAIN_ARGUMENTS, PLAIN_VALUE
from asyncq.short_repr import brief
from asyncq.states import State
from asyncq.sync_bridge import on_app_loop
from asyncq.system import clock

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from datetime import timedelta

    from asyncq.broker.waiters import Listener, Waiter
    from asyncq.client.application import App, Runnable
    from asyncq.context import Context
    from asyncq.serializers import ValueCodec
    from asyncq.sync_bridge import LoopOwner
    from asyncq.wire import Signal

STATUS_TIMEOUT = 0.2
"""Seconds that `get(timeout=0)` gives the server to answer: it is no wait, also where the server hangs."""

LAST_FETCH_TIMEOUT = 0.1
"""Seconds that a wait gives the server at its end to answer with the job's status."""

R_co = TypeVar("R_co", covariant=True)

log: logging.Logger = logging.getLogger(__name__)


class ServerJob(KnownJob[R_co]):
    """A job that a worker runs, has run or will run.

    Args:
        id: the job's id.
        app: its app; None for the only one of this process, if it is asked for.
        task: its task, if known.
        waiter: the waiter that was announced for it; None if it is not announced yet, or was made elsewhere.
        args: the positional arguments, if this process makes the call.
        kwargs: the keyword arguments, the same.
        is_ignored: whether this process makes the call with `ignore_result=True`.
    """

    __slots__ = ("_waiter",)

    is_local = False

    def __init__(
        self,
        id: str,
        app: App | None,
        task: Runnable | None = None,
        waiter: Waiter | None = None,
        args: tuple[Any, ...] | None = None,
        kwargs: dict[str, Any] | None = None,
        *,
        is_ignored: bool = False,
    ) -> None:
        # Without `super().__init__`: one of these is made for each job that is enqueued.
        self.id = id
        self._app = app
        self.task = task
        self.args = args
        self.kwargs = kwargs
        self.is_ignored = is_ignored
        self._waiter: Waiter | None = waiter

    @property
    def loop_owner(self) -> LoopOwner:
        """All sessions of the app: the one that serves the call is among them."""
        return self.app.sessions

    _loop_owner = loop_owner  # where `on_app_loop` looks for it

    # -- what is known --

    def waiter(self, listener: Listener | None = None) -> Waiter:
        """Returns the waiter of this job in the session that serves the call. Who asks for many gives that
        session's listener.
        """
        listener = listener or self.app.sessions.current().listener
        waiter = self._waiter
        if waiter is None:
            waiter = self._waiter = listener.waiter(self.id)
        elif waiter.listener is not listener:
            waiter = self._waiter = listener.follow(waiter)
        return waiter

    def attach(self, waiter: Waiter) -> None:
        """Takes the waiter that was announced for this job."""
        self._waiter = waiter

    @property
    def latest(self) -> Waiter | None:
        """The waiter that has seen most, of those in all sessions through which this job was asked for."""
        waiter = self._waiter
        return None if waiter is None else waiter.latest()

    def known(self) -> Outcome[R_co] | None:
        """Returns the outcome, if this process knows it."""
        waiter = self._waiter
        if waiter is None:
            return None
        if waiter.ended is None:
            # Written out: of most jobs one session has seen all that there is to see.
            if waiter.kin is None:
                return None
            waiter = waiter.latest()
            if waiter.ended is None:
                return None
        codec = self._codec(waiter.ended) if self.task is None else self.task.returns
        return Outcome(self.id, waiter.ended, codec)

    at_hand = known

    def _codec(self, ended: wire.Ended) -> ValueCodec:
        task = self.task or self.app.find_task(ended.name)
        return task.returns if task is not None else PLAIN_VALUE

    def is_resolved(self) -> bool:
        """See `KnownJob.is_resolved`."""
        waiter = self._waiter
        return self.is_ignored or (waiter is not None and (waiter.ended is not None or waiter.gone))

    @property
    def state(self) -> State | str:
        """The state as last seen; `UNKNOWN` where nobody has looked."""
        waiter = self._waiter
        if waiter is None:
            return State.UNKNOWN
        return waiter.state if waiter.kin is None else waiter.latest().state

    def arguments(self) -> tuple[tuple[Any, ...], dict[str, Any]] | None:
        """Returns the arguments: those of the call that was made here, or those that came with the outcome or
        with a query of the status before the end.
        """
        if self.args is not None:
            return super().arguments()
        waiter = self.latest
        if waiter is None:
            return None
        body, name = b"", None
        if waiter.ended is not None and waiter.ended.body:
            body, name = waiter.ended.body, waiter.ended.name
        elif waiter.call is not None:
            job, values = waiter.call
            body, name = job.body, job.name
            if job.value_template is not None:
                body = parent_results.kept_of(job, values) if values else b""  # it waits for them yet
        if not body:
            return None
        task = self.task or (self.app.find_task(name) if name else None)
        args, kwargs = (PLAIN_ARGUMENTS if task is None else task.arguments).loads(body)
        return tuple(args), kwargs

    # -- waiting --

    def check_join(self, what: str, *, disable_sync_subtasks: bool = True) -> None:
        """See `KnownJob.check_join`."""
        check_join(what, (self,), disable_sync_subtasks=disable_sync_subtasks)

    async def outcome(self, timeout: float | timedelta | None) -> Outcome[R_co]:
        """See `KnownJob.outcome`."""
        # Not by `on_app_loop`, which asks for the running loop, too: see `Sessions.here`.
        sessions = self.app.sessions
        session = sessions.here()
        if session is None:
            return await sessions.run_on_app_loop(self._outcome_there(timeout))
        limit = None if timeout is None else config.seconds(timeout)
        if self.is_ignored:
            raise ResultNotFound(f"job {self.id} was enqueued with ignore_result=True: there is no result")
        listener = session.listener
        waiter = self.waiter(listener)
        context = current_job.get()
        if limit == 0:
            await self._fetch_status(waiter, STATUS_TIMEOUT)
        elif context is None:
            await listener.wait(waiter, limit)
        elif waiter.ended is None:
            await self._wait_in_job(context, waiter, limit)
        if limit and waiter.ended is None and not waiter.gone:
            await self._fetch_at_the_end(waiter)
        if waiter.ended is None:
            raise self._no_outcome(waiter, limit)
        return Outcome(self.id, waiter.ended, self._codec(waiter.ended))

    async def _outcome_there(self, timeout: float | timedelta | None) -> Outcome[R_co]:
        """Waits on the app's loop. Raises `BrokerUnavailable` if the app was closed meanwhile."""
        self.app.sessions.current()
        return await self.outcome(timeout)

    async def _wait_in_job(self, context: Context, waiter: Waiter, limit: float | None) -> None:
        end = None if limit is None else time.monotonic() + limit
        async with Wait(context, self.app, [self], limit):
            left = None if end is None else max(0.0, end - time.monotonic())
            await self.app.sessions.current().listener.wait(waiter, left)

    async def _fetch_at_the_end(self, waiter: Waiter) -> None:
        """Fetches the job's status once when a wait times out: what this process knows of it is as old as the
        beginning of the wait. Without an answer in `LAST_FETCH_TIMEOUT` the wait ends all the same.
        """
        try:
            async with asyncio.timeout(LAST_FETCH_TIMEOUT):
                await self._fetch_status(waiter, LAST_FETCH_TIMEOUT)
        except (TimeoutError, AsyncQError) as error:
            log.debug("the state of job %r could not be fetched (%r)", self.id, error)

    def _no_outcome(self, waiter: Waiter, limit: float | None) -> ResultNotFound | ResultTimeout:
        if waiter.gone or Flags(waiter.snapshot.flags).is_ignored:
            return ResultNotFound(
                f"no result under the id {self.id!r}: unknown, forgotten, expired (result_ttl), or its task "
                "ignores results"
            )
        return ResultTimeout(
            f"job {self.id} did not end within {config.shown(limit)} (it goes on; state: {waiter.state})"
        )

    def when_ended(self, callback: Callable[[bool], object]) -> None:
        """Calls back in a copy of the context of this call; see `KnownJob.when_ended`."""
        loop, context = asyncio.get_running_loop(), contextvars.copy_context()

        def ended() -> None:
            callback(self.state is State.SUCCESS)

        def post() -> None:
            # The session's own context is that of whoever opened it; the callback has that of this call.
            try:
                loop.call_soon_threadsafe(ended, context=context)
            except RuntimeError:
                log.debug("the loop of a callback for job %r was closed before the job ended", self.id)

        async def register() -> None:
            self.app.sessions.current().listener.when_ended(self.waiter(), post)

        sessions = self.app.sessions
        if sessions.is_on_app_loop():
            sessions.current().listener.when_ended(self.waiter(), post)
        else:
            sync_bridge.keep(loop.create_task(sessions.run_on_app_loop(register())))

    def follower(self, limit: float | None) -> EventFollower:
        """See `KnownJob.follower`."""
        return EventFollower(self, limit)

    def reader(self, after: int) -> Reader:
        """See `KnownJob.reader`."""
        return Reader(self, after)

    # -- looking --

    @on_app_loop
    async def refresh(self) -> None:
        """See `KnownJob.refresh`."""
        waiter = self.waiter()
        if waiter.ended is None or waiter.gone:
            await self._fetch_status(waiter)

    @on_app_loop
    async def exists(self) -> bool:
        """See `KnownJob.exists`. Asks the server in any case."""
        answer = await self._fetch_status(self.waiter())
        return answer is not None and not (
            isinstance(answer, wire.JobSnapshot) and Flags(answer.flags).is_forgotten
        )

    async def _fetch_status(
        self, waiter: Waiter, timeout: float | None = None
    ) -> wire.Ended | wire.JobSnapshot | None:
        app = self.app
        broker = app.sessions.current().broker
        if app.settings.result_extended and self.arguments() is None:
            answer, call = await asyncio.gather(
                broker.state(self.id, timeout), broker.message(self.id, timeout)
            )
            waiter.call = call or waiter.call
        else:
            answer = await broker.state(self.id, timeout)
        app.sessions.current().listener.take_status(waiter, answer)
        return answer

    # -- ending --

    @on_app_loop
    async def revoke(
        self,
        jobs: Sequence[KnownJob[Any]],
        *,
        terminate: bool,
        signal: Signal,
        wait: bool,
        timeout: float | timedelta | None,
        reason: str | None,
        parents: bool,
    ) -> None:
        """See `KnownJob.revoke`."""
        if signal not in wire.SIGNAL_OF:
            raise ValueError(f"signal={brief(signal)}: use one of {', '.join(wire.SIGNAL_OF)}")
        waiter = self.waiter()
        if wait:
            self.check_join("AsyncResult.revoke(wait=True)")
        letter = wire.SIGNAL_OF[signal] if terminate else wire.NOT_AGAIN
        broker = self.app.sessions.current().broker
        # Before those that it waits for, so that it is revoked and does not end with one of them.
        answer, *_ = await asyncio.gather(
            *(
                broker.revoke(
                    job.id,
                    signal=letter,
                    outcome=_revoked(job, reason),
                    reason=reason or "",
                    parents=parents,
                )
                for job in jobs
            )
        )
        if wait and answer == "unknown":
            await self._fetch_unless_ended(waiter)
            raise ResultNotFound(f"no job under the id {self.id!r} to revoke")
        if wait:
            await self.outcome(timeout)
        else:
            await self._fetch_unless_ended(waiter)

    async def _fetch_unless_ended(self, waiter: Waiter) -> None:
        if waiter.ended is None:
            await self._fetch_status(waiter)

    @on_app_loop
    async def forget(self) -> None:
        """See `KnownJob.forget`."""
        waiter = self.waiter()
        if await self.app.sessions.current().broker.forget(self.id) != "flagged":
            self.app.sessions.current().listener.forgotten(waiter)


def _revoked(job: KnownJob[Any], reason: str | None) -> bytes:
    """Returns the outcome of a job that is revoked before it has begun."""
    text = (reason or "").encode("utf-8", "replace")
    now = int(clock.now() * 1000)
    ended = wire.Ended(wire.REVOKED, text, finished=now, name=job.name or "", queue=job.queue or "")
    return wire.encode_bad_end(ended, partial(failures.short, reason or ""))
