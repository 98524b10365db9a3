"""Releases the slot of a job while it waits for other jobs, and reacquires one before it goes on."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from asyncq.execution.executors import Claim
    from asyncq.execution.slots import Slots
    from asyncq.worker.permits import Permit


class WaitSlot:
    """The waits of one job. Lives on the worker's loop; made when the job waits for the first time.

    While any of its waits is open the job has no slot, for the jobs that it waits for may need it. With two
    waits at once, the code after the first one runs beside the job that has the slot now. The end of the last
    wait reacquires a slot.

    Lock order: the permit before the slot, and the slot before the thread. A permit holder may be waiting for
    our slot.

    Args:
        claim: the worker's and the runner's, to the job.
        slots: where its slot is from.
        permit: its permit, if its task has `concurrency=`.
    """

    def __init__(self, claim: Claim, slots: Slots, permit: Permit | None = None) -> None:
        self._claim = claim
        self._slots = slots
        self._permit = permit
        self._threads: Slots | None = None  # where its thread is from, if it runs in one
        self._open = 0
        self._is_released = False
        self._has_ended = False
        self._skips_reacquire = False
        self._reacquiring: asyncio.Task[None] | None = None
        self._waits: set[asyncio.Task[Any]] = set()

    def release_slot(self, wait: asyncio.Task[Any] | None) -> None:
        """A wait begins. Raises `WouldDeadlock` if too many jobs of the worker wait."""
        if not self._is_released:
            self._slots.release()
            self._is_released = True
            if self._permit is not None:
                self._permit.release()
            self._threads, self._claim.threads = self._claim.threads, None
            if self._threads is not None:
                self._threads.give()
        self._open += 1
        if self._threads is not None and wait is not None:
            self._waits.add(wait)

    async def reacquire_slot(self, wait: asyncio.Task[Any] | None) -> None:
        """A wait is over. Returns when its code may go on, and raises a cancellation only then. A job that is
        being cancelled does not reacquire: it takes a slot beyond the limit, from nobody.
        """
        if wait is not None:
            self._waits.discard(wait)
        self._open -= 1
        if self._open or self._has_ended or not self._is_released:
            return
        if self._is_torn_down:
            self._take_slot_at_once()
            return
        threads = self._threads
        free = self._slots.is_free and (threads is None or threads.is_free)
        if self._reacquiring is None and self._permit is None and free:
            self._slots.take_now()
            if threads is not None:
                threads.take_now()
            self._end_release(threads)
            return
        if self._reacquiring is None:
            self._reacquiring = asyncio.create_task(self._reacquire())
        await self._until_done(self._reacquiring)

    async def _until_done(self, reacquiring: asyncio.Task[None]) -> None:
        cancelled: asyncio.CancelledError | None = None
        while not reacquiring.done():
            try:
                await asyncio.wait({reacquiring})
            except asyncio.CancelledError as error:
                if self._is_torn_down:
                    self._take_slot_at_once()
                    raise
                cancelled = error
        if cancelled is not None:
            raise cancelled

    async def _reacquire(self) -> None:
        """Reacquires permit, slot and thread, in the order in which new jobs take them."""
        threads, permit = self._threads, self._permit
        try:
            if permit is not None:
                await permit.acquire()
            try:
                await self._take_slots(threads)
            except asyncio.CancelledError:
                if permit is not None:
                    permit.release()
                raise
        finally:
            self._reacquiring = None
        if self._has_ended or self._open:  # it waits again, in another of its tasks
            if permit is not None:
                permit.release()
            self._slots.give()
            if threads is not None:
                threads.give()
            return
        self._end_release(threads)

    async def _take_slots(self, threads: Slots | None) -> None:
        await self._slots.take(first=True)
        try:
            if threads is not None:
                await threads.take(first=True)
        except asyncio.CancelledError:
            self._slots.give()
            raise

    def _end_release(self, threads: Slots | None) -> None:
        self._is_released = False
        self._claim.threads = threads
        self._slots.end_release()

    @property
    def _is_torn_down(self) -> bool:
        return self._skips_reacquire or not self._claim.wanted

    def _take_slot_at_once(self) -> None:
        if self._reacquiring is not None:
            self._reacquiring.cancel()
        if self._is_released and not self._has_ended:
            self._slots.take_now()
            self._end_release(None)

    def skip_reacquire(self) -> None:
        """The job is being cancelled: from now on its waits end without reacquiring a slot."""
        self._skips_reacquire = True

    def stop_waits(self) -> None:
        """Ends the waits of a body in a thread, which nothing else can stop."""
        for wait in self._waits:
            with suppress(RuntimeError):  # its loop was closed, and the wait with it
                wait.get_loop().call_soon_threadsafe(wait.cancel)

    def end(self) -> None:
        """The job has ended. Waits of tasks that outlive it are ignored."""
        self._has_ended = True
        if self._reacquiring is not None:
            self._reacquiring.cancel()
        self._claim.release_executor_slot()
        if self._permit is not None:
            self._permit.release()
        if self._is_released:
            self._slots.end_release()
        else:
            self._slots.give()
        self.stop_waits()
