"""What one job gives back while it waits for others, and takes again before it goes on."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from asyncq.executors import Claim
    from asyncq.slots import Slots
    from asyncq.worker.limits import Place


class Parking:
    """The waits of one job. Lives on the worker's loop; made when the job waits for the first time.

    While any of its waits is open the job has no slot, for the jobs that it waits for may need it: with two
    waits at once, code that comes back from the first runs beside whoever has the slot now. The last to come
    back takes a slot again.

    Args:
        claim: the worker's and the runner's, to the job.
        slots: where its slot is from.
        place: its place among the jobs of its task, if that is limited. Taken before the slot: whoever waits
            for a place must hold nothing that another needs who has one.
    """

    def __init__(self, claim: Claim, slots: Slots, place: Place | None = None) -> None:
        self._claim = claim
        self._slots = slots
        self._place = place
        self._threads: Slots | None = None  # where its thread is from, if it runs in one
        self._open = 0
        self._parked = False
        self._over = False
        self._hurried = False
        self._seating: asyncio.Task[None] | None = None
        self._waits: set[asyncio.Task[Any]] = set()

    def leave(self, wait: asyncio.Task[Any] | None) -> None:
        """A wait begins. Raises `WouldDeadlock` if too many jobs of the worker wait."""
        if not self._parked:
            self._slots.park()
            self._parked = True
            if self._place is not None:
                self._place.give()
            self._threads, self._claim.threads = self._claim.threads, None
            if self._threads is not None:
                self._threads.give()
        self._open += 1
        if self._threads is not None and wait is not None:
            self._waits.add(wait)

    async def come_back(self, wait: asyncio.Task[Any] | None) -> None:
        """A wait is over. Returns when its code may go on; a cancellation is heard then, unless the job is
        being torn down: that takes no slot from anybody.
        """
        if wait is not None:
            self._waits.discard(wait)
        self._open -= 1
        if self._open or self._over or not self._parked:
            return
        if self._is_torn_down:
            self._sit_down_at_once()
            return
        threads = self._threads
        free = self._slots.is_free and (threads is None or threads.is_free)
        if self._seating is None and self._place is None and free:
            self._slots.take_now()
            if threads is not None:
                threads.take_now()
            self._sit(threads)
            return
        if self._seating is None:
            self._seating = asyncio.create_task(self._until_seated())
        await self._until_done(self._seating)

    async def _until_done(self, seating: asyncio.Task[None]) -> None:
        cancelled: asyncio.CancelledError | None = None
        while not seating.done():
            try:
                await asyncio.wait({seating})
            except asyncio.CancelledError as error:
                if self._is_torn_down:
                    self._sit_down_at_once()
                    raise
                cancelled = error
        if cancelled is not None:
            raise cancelled

    async def _until_seated(self) -> None:
        """Takes slot and thread again, in the order in which new jobs take them."""
        threads, place = self._threads, self._place
        try:
            if place is not None:
                await place.take()
            try:
                await self._take_slots(threads)
            except asyncio.CancelledError:
                if place is not None:
                    place.give()
                raise
        finally:
            self._seating = None
        if self._over or self._open:  # it waits again, in another of its tasks
            if place is not None:
                place.give()
            self._slots.give()
            if threads is not None:
                threads.give()
            return
        self._sit(threads)

    async def _take_slots(self, threads: Slots | None) -> None:
        await self._slots.take(back=True)
        try:
            if threads is not None:
                await threads.take(back=True)
        except asyncio.CancelledError:
            self._slots.give()
            raise

    def _sit(self, threads: Slots | None) -> None:
        self._parked = False
        self._claim.threads = threads
        self._slots.unpark()

    @property
    def _is_torn_down(self) -> bool:
        return self._hurried or not self._claim.wanted

    def _sit_down_at_once(self) -> None:
        if self._seating is not None:
            self._seating.cancel()
        if self._parked and not self._over:
            self._slots.take_now()
            self._sit(None)

    def hurry(self) -> None:
        """The job's time is up: what is cancelled from now on waits for nothing."""
        self._hurried = True

    def stop_waits(self) -> None:
        """Ends the waits of a body in a thread, which nothing else can stop."""
        for wait in self._waits:
            with suppress(RuntimeError):  # its loop was closed, and the wait with it
                wait.get_loop().call_soon_threadsafe(wait.cancel)

    def end(self) -> None:
        """The job has ended. A task or thread that it left behind waits on its own account from now on."""
        self._over = True
        if self._seating is not None:
            self._seating.cancel()
        self._claim.give_room()
        if self._place is not None:
            self._place.give()
        if self._parked:
            self._slots.unpark()
        else:
            self._slots.give()
        self.stop_waits()
