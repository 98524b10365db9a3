"""Releases the slot of a job while the job waits for other jobs, and reacquires a slot before it goes on.

`RunningJob` calls this when a body awaits another job. Everything here runs on the worker's loop; only
`stop_waits` reaches into the loops of threads. A job that waits holds no slot, no permit and no thread.
Whatever state the waits are in, `end` gives back what the job holds, and does so once.
"""

from __future__ import annotations

import asyncio
from contextlib import suppress
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from asyncq.execution.executors import JobControl
    from asyncq.execution.slots import Slots
    from asyncq.worker.permits import Permit


class WaitSlot:
    """The waits of one job. It is made when the job waits for the first time, or when its task has a limit.

    While at least one of the waits is open, the job has no slot: the jobs that it waits for may need the
    slot. If a body waits twice at the same time, the code after the first wait runs while another job may
    have the slot. The end of the last wait reacquires a slot.

    Lock order: the permit before the slot, and the slot before the thread. In another order two jobs could
    wait for each other, for a permit holder may be waiting for our slot. A new job cannot take part in such a
    cycle: it is deferred instead of waiting for a permit, and handed back if it gets no slot in `SLOT_WAIT`.

    Args:
        control: the control object of the job, which worker and runner share.
        slots: the worker's slots, from which the job took its own.
        permit: the job's permit, if its task has `concurrency=`.
    """

    def __init__(self, control: JobControl, slots: Slots, permit: Permit | None = None) -> None:
        self._control = control
        self._slots = slots
        self._permit = permit
        self._threads: Slots | None = None  # the executor whose thread was released, if the body runs in one
        self._open = 0
        self._is_released = False
        self._has_ended = False
        self._skips_reacquire = False
        self._reacquiring: asyncio.Task[None] | None = None
        self._waits: set[asyncio.Task[Any]] = set()

    def release_slot(self, wait: asyncio.Task[Any] | None) -> None:
        """Notes that a wait begins, and releases slot, permit and thread if it is the first open wait.

        Args:
            wait: the asyncio task that waits. It is kept only for a body in a thread, see `stop_waits`.

        Raises:
            WouldDeadlock: too many jobs of the worker wait already. Nothing was released.
        """
        if not self._is_released:
            self._slots.release()
            self._is_released = True
            if self._permit is not None:
                self._permit.release()
            self._threads, self._control.threads = self._control.threads, None
            if self._threads is not None:
                self._threads.give()
        self._open += 1
        if self._threads is not None and wait is not None:
            self._waits.add(wait)

    async def reacquire_slot(self, wait: asyncio.Task[Any] | None) -> None:
        """Notes that a wait is over, and reacquires what was released if no other wait is open.

        Returns when the code after the wait may go on. A cancellation that comes meanwhile is raised only
        then, so that the body cleans up in a slot of its own. A job that is being cancelled does not queue
        for a slot: it takes one beyond the limit at once, and no other job loses one.
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
        """Waits for `_reacquire`. Raises a cancellation after that, or at once if the job is cancelled."""
        cancelled: asyncio.CancelledError | None = None
        # Several waits of one job may stand here: they share the one task that reacquires. So a cancellation
        # of one wait must not cancel that task.
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
        """Reacquires the permit, then the slot, then the thread.

        Gives all of them back if they came too late: the job has ended, or waits again in another of its
        asyncio tasks.
        """
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
        if self._has_ended or self._open:
            if permit is not None:
                permit.release()
            self._slots.give()
            if threads is not None:
                threads.give()
            return
        self._end_release(threads)

    async def _take_slots(self, threads: Slots | None) -> None:
        """Takes a slot and a thread before all new jobs. If it is cancelled, it holds neither."""
        await self._slots.take(first=True)
        try:
            if threads is not None:
                await threads.take(first=True)
        except asyncio.CancelledError:
            self._slots.give()
            raise

    def _end_release(self, threads: Slots | None) -> None:
        """Notes that the job has a slot again, and a thread of `threads` if its body runs in one."""
        self._is_released = False
        self._control.threads = threads
        self._slots.end_release()

    @property
    def _is_torn_down(self) -> bool:
        """Whether the job is being cancelled, so that its waits end without queueing for a slot."""
        return self._skips_reacquire or not self._control.is_wanted

    def _take_slot_at_once(self) -> None:
        """Takes a slot beyond the limit for a job that is being cancelled, and stops queueing for one."""
        if self._reacquiring is not None:
            self._reacquiring.cancel()
        if self._is_released and not self._has_ended:
            self._slots.take_now()
            self._end_release(None)

    def skip_reacquire(self) -> None:
        """Makes later waits end without reacquiring a slot, because the job is being cancelled."""
        self._skips_reacquire = True

    def stop_waits(self) -> None:
        """Cancels the waits of a body in a thread. Nothing else can stop such a body.

        Each wait runs on the loop of its own thread, or on the worker's.
        """
        for wait in self._waits:
            with suppress(RuntimeError):  # that loop was closed, and its wait ended with it
                wait.get_loop().call_soon_threadsafe(wait.cancel)

    def end(self) -> None:
        """Gives back what the ended job still holds. Waits of asyncio tasks that outlive it are ignored."""
        self._has_ended = True
        if self._reacquiring is not None:
            self._reacquiring.cancel()
        self._control.release_executor_slot()
        if self._permit is not None:
            self._permit.release()
        if self._is_released:
            self._slots.end_release()
        else:
            self._slots.give()
        self.stop_waits()
