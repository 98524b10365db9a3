"""Jobs of limited tasks: whether their turn has come, before their bodies start."""

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
    from asyncq.broker.turnstile import Turn, Turnstile
    from asyncq.limits import Limits

log: logging.Logger = logging.getLogger(__name__)

LOOK = 1.0
"""Seconds after which a job that waits for a place in its worker's memory looks for itself: what was said of
it may have been lost."""


class Place:
    """One job's place among those of its task, from its start to its end, and what it is while the job waits.

    Args:
        gate: of the worker.
        limits: of the task.
        delivery: the job.
    """

    __slots__ = ("_delivery", "_gate", "_leaving", "_limits", "_told", "claim")

    def __init__(self, gate: Gate, limits: Limits, delivery: wire.Delivery) -> None:
        self._gate = gate
        self._limits = limits
        self._delivery = delivery
        self._told = asyncio.Event()
        self._leaving: asyncio.Task[None] | None = None
        self.claim: str = delivery.claim

    async def enter(self) -> Turn | None:
        """Asks for it, before the body starts. If the job is to wait, it holds nothing. None if its time is
        over, so that it will not start anyway.
        """
        job = self._delivery.job
        ends = [moment for moment in (job.expires, job.deadline) if moment is not None]
        left = min(ends) - int(time.time() * 1000) if ends else None
        if left is not None and left <= 0:
            if self._limits.places and self._delivery.turn:
                self._gate.pass_over(self._limits, job.id)
            return None
        if self._limits.places:
            self._gate.known[self.claim] = self
        turn = await self._gate.turnstile.enter(self._limits, self._delivery, left)
        self._gate.call(self._limits, turn.following)
        if not turn.starts:
            self._gate.known.pop(self.claim, None)
        return turn

    async def take(self) -> None:
        """Takes it again after a wait, as soon as there is one. Cancelled, it holds none."""
        if not self._limits.places:
            return
        if self._leaving is not None:  # what is given back must not arrive after what is taken
            await asyncio.wait({self._leaving})
        self._gate.known[self.claim] = self
        self._told.clear()
        try:
            while True:
                seated, following = await self._gate.turnstile.resume(self._limits, self._delivery)
                self._gate.call(self._limits, following)
                if seated:
                    return
                with suppress(TimeoutError):
                    async with asyncio.timeout(LOOK):
                        await self._told.wait()
                self._told.clear()
        except AsyncQError as error:
            log.warning("job %r goes on without a place among those of its task (%s)", self.claim, error)
        except asyncio.CancelledError:
            self.give()
            raise

    def give(self) -> None:
        """Gives it back, if it is held or asked for; soon."""
        if self.claim in self._gate.known:
            self._leaving = self._gate.vacate(self._limits, self.claim)

    def tell(self) -> None:
        """It was given one."""
        self._told.set()


class Gate:
    """Lets jobs of limited tasks in, one at a time.

    Args:
        turnstile: asks the server.
        limited: the limits, by the names of the jobs that they are for.
        spawn: has something done that the worker waits for when it ends.

    Attributes:
        limited: the limits, by the names of the jobs that they are for.
        known: the places that are held, asked for, or being given back.
    """

    def __init__(
        self,
        turnstile: Turnstile,
        limited: Mapping[str, Limits],
        spawn: Callable[[Coroutine[None, None, None]], asyncio.Task[None]],
    ) -> None:
        self.turnstile = turnstile
        self.known: dict[str, Place] = {}
        self.limited = limited
        self._spawn = spawn

    def place(self, limits: Limits, delivery: wire.Delivery) -> Place:
        """Of a job that wants to start."""
        return Place(self, limits, delivery)

    def call(self, limits: Limits, id_: str) -> None:
        """Has a job come for which there is a place, if one is named."""
        if id_:
            self._spawn(self._until_called(limits, id_))

    def vacate(self, limits: Limits, held: str) -> asyncio.Task[None]:
        """Gives a place to whoever is next."""
        return self._spawn(self._until_vacated(limits, held))

    def pass_over(self, limits: Limits, id_: str) -> None:
        """A job that waited for a place will not start. It may have been called for one that is free."""
        self._spawn(self._until_passed_over(limits, id_))

    async def put_aside(self, limits: Limits, id_: str, postponed: Coroutine[None, None, int]) -> int:
        """Has a job put aside that waits for a place. It may have been called since it was told to wait, when
        there was nothing to call yet.
        """
        answer = await postponed
        if answer != 2:  # 1, or 0: it was put aside before, and that answer was lost
            self._spawn(self._until_vacated(limits, "", id_))
        return answer

    def tell(self, held: str) -> None:
        """A job that waits for a place in our memory has one."""
        place = self.known.get(held)
        if place is not None:
            place.tell()

    async def audit(self) -> None:
        """Gives back what nobody here knows of: a question that was sent twice may have arrived after the
        place that it asked for was given back.
        """
        for limits in set(self.limited.values()):
            if not limits.places:
                continue
            before = set(self.known)
            for held in await self.turnstile.held(limits) - before - set(self.known):
                log.warning("a place of task %r that no job holds is given back", limits.task)
                self.vacate(limits, held)

    async def _until_vacated(self, limits: Limits, held: str, aside: str = "") -> None:
        try:
            following = await self.turnstile.vacate(limits, held, aside)
        except AsyncQError as error:
            log.debug("a place of task %r could not be given back (%s)", limits.task, error)
            return
        finally:
            # Also when it failed: then `audit` finds a place that nobody here knows of.
            self.known.pop(held, None)
        if following:
            await self._until_called(limits, following)

    async def _until_passed_over(self, limits: Limits, id_: str) -> None:
        try:
            await self.turnstile.forget(limits, id_)
        except AsyncQError as error:
            log.debug("job %r is still among those that wait for a place (%s)", id_, error)
        await self._until_vacated(limits, "")

    async def _until_called(self, limits: Limits, id_: str) -> None:
        """A job that was revoked has left its id behind: then the one behind it is called."""
        try:
            while id_ and not await self.turnstile.call(id_):
                id_ = await self.turnstile.vacate(limits, "")
        except AsyncQError as error:
            log.debug("job %r could not be called (%s); it comes by itself", id_, error)
