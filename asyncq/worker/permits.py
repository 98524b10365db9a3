"""The limits of tasks (`concurrency=`, `rate_limit=`) in one worker session: which job may start now.

A job asks here after its worker has claimed it and before its body starts. A job that may not start is
deferred: it goes back to the server and holds no slot. Everything runs on the worker's loop; the server
decides, in scripts that `broker.limiter` calls. A job holds its permit from its start to its end, except
while it waits for another job. `Limiter.audit` releases permits of this session that no job holds.
"""

from __future__ import annotations

import asyncio
import logging
from contextlib import suppress
from typing import TYPE_CHECKING

from asyncq.errors import AsyncQError
from asyncq.system import clock

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Mapping

    from asyncq import wire
    from asyncq.broker.limiter import LimiterAnswer, Permits
    from asyncq.limits import Limits

log: logging.Logger = logging.getLogger(__name__)

POLL = 1.0
"""Seconds between two requests of a resumed job for a permit. The server grants a permit by a message, and
that message may be lost.
"""


class Permit:
    """The permit of one job under the `concurrency=` of its task, from the start of the job to its end.

    The job has no permit while it waits for another job. If the task has only a `rate_limit=`, `ask` asks
    about the rate, and there is no permit.

    Args:
        limiter: the limiter of the worker session.
        limits: the limits of the task.
        delivery: the delivery of the job.
    """

    __slots__ = ("_delivery", "_leaving", "_limiter", "_limits", "_was_granted", "claim")

    def __init__(self, limiter: Limiter, limits: Limits, delivery: wire.Delivery) -> None:
        self._limiter = limiter
        self._limits = limits
        self._delivery = delivery
        self._was_granted = asyncio.Event()
        self._leaving: asyncio.Task[None] | None = None
        self.claim: str = delivery.claim

    async def ask(self) -> LimiterAnswer | None:
        """Asks the server whether the job may start.

        Returns the answer. A job that has to wait holds no permit. Returns None if the job has expired or its
        deadline is over; the caller lets it go on, and the runner ends it without running the body.
        """
        job = self._delivery.job
        ends = [timestamp for timestamp in (job.expires, job.deadline) if timestamp is not None]
        left = min(ends) - int(clock.now() * 1000) if ends else None
        if left is not None and left <= 0:
            if self._limits.concurrency and self._delivery.limiter_state:
                self._limiter.forget_waiting(self._limits, job.id)
                # It waited for a permit. The server must not keep one for a job that does not start.
            return None
        if self._limits.concurrency:
            self._limiter.known[self.claim] = self
        answer = await self._limiter.permits.ask(self._limits, self._delivery, left)
        self._limiter.call(self._limits, answer.next_job)
        if not answer.starts:
            self._limiter.known.pop(self.claim, None)
        return answer

    async def acquire(self) -> None:
        """Reacquires a permit after a wait, as soon as one is free.

        If the call is cancelled, the job holds none. If the server refuses the request, the job goes on
        without a permit, and that is logged: a job that has begun must come to its end.
        """
        if not self._limits.concurrency:
            return
        if self._leaving is not None:  # the release must reach the server before this request
            await asyncio.wait({self._leaving})
        self._limiter.known[self.claim] = self
        self._was_granted.clear()
        try:
            while True:
                granted, next_job = await self._limiter.permits.reacquire(self._limits, self._delivery)
                self._limiter.call(self._limits, next_job)
                if granted:
                    return
                with suppress(TimeoutError):
                    async with asyncio.timeout(POLL):
                        await self._was_granted.wait()
                self._was_granted.clear()
        except AsyncQError as error:
            log.warning("job %r continues without a permit of its task (%s)", self.claim, error)
        except asyncio.CancelledError:
            self.release()
            raise

    def release(self) -> None:
        """Releases the permit in the background, if the job holds one or has asked for one."""
        if self.claim in self._limiter.known:
            self._leaving = self._limiter.release(self._limits, self.claim)

    def grant(self) -> None:
        """Wakes `acquire`: the server has granted the permit."""
        self._was_granted.set()


class Limiter:
    """Decides in one worker session which jobs of tasks with limits may start.

    Args:
        permits: asks the server.
        limited: the limits, by the names of the jobs that they are for.
        spawn: starts a background task that the worker awaits when it ends.

    Attributes:
        limited: the limits, by the names of the jobs that they are for.
        known: by claim, the permits that are held, asked for, or being released.
    """

    def __init__(
        self,
        permits: Permits,
        limited: Mapping[str, Limits],
        spawn: Callable[[Coroutine[None, None, None]], asyncio.Task[None]],
    ) -> None:
        self.permits = permits
        self.known: dict[str, Permit] = {}
        self.limited = limited
        self._spawn = spawn

    def permit(self, limits: Limits, delivery: wire.Delivery) -> Permit:
        """Makes the permit of a job that is about to start."""
        return Permit(self, limits, delivery)

    def call(self, limits: Limits, id_: str) -> None:
        """Wakes, in the background, the job for which a permit is free, if the server has named one."""
        if id_:
            self._spawn(self._wake(limits, id_))

    def release(self, limits: Limits, held: str) -> asyncio.Task[None]:
        """Returns the background task that releases a permit and wakes the job that is next."""
        return self._spawn(self._release(limits, held))

    def forget_waiting(self, limits: Limits, id_: str) -> None:
        """Tells the server, in the background, that a job that waited for a permit does not start.

        The server may have called this job for a free permit. So the next job is called instead.
        """
        self._spawn(self._forget_waiting(limits, id_))

    async def defer(self, limits: Limits, id_: str, postponed: Coroutine[None, None, int]) -> int:
        """Awaits the call that defers a job which waits for a permit, and returns its answer.

        A permit may become free between the limiter's answer and the deferral. The server then calls the job
        although it is not deferred yet, and the call has no effect. So the server is asked once more.
        """
        answer = await postponed
        if answer != 2:  # 1: deferred. 0: an earlier call deferred it, and its answer was lost. 2: revoked
            self._spawn(self._release(limits, "", id_))
        return answer

    def grant(self, held: str) -> None:
        """Wakes a resumed job of this worker to which the server has granted a permit."""
        permit = self.known.get(held)
        if permit is not None:
            permit.grant()

    async def audit(self) -> None:
        """Releases permits that the server has for this session and that none of its jobs holds.

        Such a permit comes from a request that was sent twice: the second one may reach the server after the
        release. Permits that became known while the server answered are not released.
        """
        for limits in set(self.limited.values()):
            if not limits.concurrency:
                continue
            before = set(self.known)
            for held in await self.permits.held(limits) - before - set(self.known):
                log.warning("a permit of task %r that no job holds is released", limits.task)
                self.release(limits, held)

    async def _release(self, limits: Limits, held: str, deferred: str = "") -> None:
        """Releases a permit, and wakes the job that the server names. Only logs an error, see `audit`."""
        try:
            next_job = await self.permits.release(limits, held, deferred)
        except AsyncQError as error:
            log.debug("a permit of task %r could not be released (%s)", limits.task, error)
            return
        finally:
            # Also after an error: then `audit` finds a permit that no job here knows.
            self.known.pop(held, None)
        if next_job:
            await self._wake(limits, next_job)

    async def _forget_waiting(self, limits: Limits, id_: str) -> None:
        """Removes a job from those that wait for a permit, and wakes the next one."""
        try:
            await self.permits.forget(limits, id_)
        except AsyncQError as error:
            log.debug("job %r could not be removed from the jobs that wait for a permit (%s)", id_, error)
        await self._release(limits, "")

    async def _wake(self, limits: Limits, id_: str) -> None:
        """Wakes a deferred job, so that it asks again now.

        A revoked job may have left its id among those that wait. Then the next one is woken.
        """
        try:
            while id_ and not await self.permits.wake(id_):
                id_ = await self.permits.release(limits, "")
        except AsyncQError as error:
            log.debug("job %r could not be woken (%s); it will ask for its permit later", id_, error)
