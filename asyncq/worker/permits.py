"""The limiter of a worker: asks before the start of a job whether the limits of its task allow it. Runs on
the worker's loop.
"""

from __future__ import annotations

import asyncio
import logging
import time
from contextlib import suppress
from typing import TYPE_CHECKING

from asyncq.errors import AsyncQError

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Mapping

    from asyncq import wire
    from asyncq.broker.limiter import LimiterAnswer, Permits
    from asyncq.limits import Limits

log: logging.Logger = logging.getLogger(__name__)

POLL = 1.0
"""Seconds after which a job that waits for a permit in its worker's memory asks again: the message that
grants it may have been lost.
"""


class Permit:
    """The permit of one job under the `concurrency=` of its task, from its start to its end. The job has none
    while it waits for another job.

    Args:
        limiter: of the worker.
        limits: of the task.
        delivery: the job.
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
        """Asks whether the job may start. A job that must wait holds no permit. None if the job has expired,
        so that it does not start anyway.
        """
        job = self._delivery.job
        ends = [moment for moment in (job.expires, job.deadline) if moment is not None]
        left = min(ends) - int(time.time() * 1000) if ends else None
        if left is not None and left <= 0:
            if self._limits.concurrency and self._delivery.limiter_state:
                self._limiter.forget_waiting(self._limits, job.id)
            return None
        if self._limits.concurrency:
            self._limiter.known[self.claim] = self
        answer = await self._limiter.permits.ask(self._limits, self._delivery, left)
        self._limiter.call(self._limits, answer.next_job)
        if not answer.starts:
            self._limiter.known.pop(self.claim, None)
        return answer

    async def acquire(self) -> None:
        """Reacquires a permit after a wait, as soon as one is free. Cancelled, the job holds none."""
        if not self._limits.concurrency:
            return
        if self._leaving is not None:  # the release must not reach the server after the request
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
            log.warning("job %r goes on without a permit of its task (%s)", self.claim, error)
        except asyncio.CancelledError:
            self.release()
            raise

    def release(self) -> None:
        """Releases the permit in the background, if the job holds one or asks for one."""
        if self.claim in self._limiter.known:
            self._leaving = self._limiter.release(self._limits, self.claim)

    def grant(self) -> None:
        """The server has granted the permit."""
        self._was_granted.set()


class Limiter:
    """Decides in one worker which jobs of tasks with limits may start.

    Args:
        permits: asks the server.
        limited: the limits, by the names of the jobs that they are for.
        spawn: starts a background task that the worker awaits when it ends.

    Attributes:
        limited: the limits, by the names of the jobs that they are for.
        known: the permits that are held, asked for, or being released.
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
        """Wakes the job for which a permit is free, if the server has named one."""
        if id_:
            self._spawn(self._wake(limits, id_))

    def release(self, limits: Limits, held: str) -> asyncio.Task[None]:
        """Releases a permit, and wakes the job that is next."""
        return self._spawn(self._release(limits, held))

    def forget_waiting(self, limits: Limits, id_: str) -> None:
        """A job that waited for a permit does not start. The server may have called it for a free one."""
        self._spawn(self._forget_waiting(limits, id_))

    async def defer(self, limits: Limits, id_: str, postponed: Coroutine[None, None, int]) -> int:
        """Defers a job that waits for a permit. The server may have called it between its answer and now,
        when the job was not deferred yet.
        """
        answer = await postponed
        if answer != 2:  # 1, or 0: it was deferred before, and that answer was lost
            self._spawn(self._release(limits, "", id_))
        return answer

    def grant(self, held: str) -> None:
        """The server has granted a permit to a job that waits in this worker's memory."""
        permit = self.known.get(held)
        if permit is not None:
            permit.grant()

    async def audit(self) -> None:
        """Releases permits that no job of this worker holds: a request that was sent twice may have reached
        the server after the release.
        """
        for limits in set(self.limited.values()):
            if not limits.concurrency:
                continue
            before = set(self.known)
            for held in await self.permits.held(limits) - before - set(self.known):
                log.warning("a permit of task %r that no job holds is released", limits.task)
                self.release(limits, held)

    async def _release(self, limits: Limits, held: str, deferred: str = "") -> None:
        try:
            next_job = await self.permits.release(limits, held, deferred)
        except AsyncQError as error:
            log.debug("a permit of task %r could not be released (%s)", limits.task, error)
            return
        finally:
            # Also when it failed: then `audit` finds a permit that nobody here knows of.
            self.known.pop(held, None)
        if next_job:
            await self._wake(limits, next_job)

    async def _forget_waiting(self, limits: Limits, id_: str) -> None:
        try:
            await self.permits.forget(limits, id_)
        except AsyncQError as error:
            log.debug("job %r is still among those that wait for a permit (%s)", id_, error)
        await self._release(limits, "")

    async def _wake(self, limits: Limits, id_: str) -> None:
        """Wakes a job. A revoked job may have left its id with the server: then the next one is called."""
        try:
            while id_ and not await self.permits.call(id_):
                id_ = await self.permits.release(limits, "")
        except AsyncQError as error:
            log.debug("job %r could not be woken (%s); it asks by itself", id_, error)
