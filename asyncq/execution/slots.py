"""Slots: they bound the jobs, the threads and the processes of a worker. Each lives on one loop."""

from __future__ import annotations

import asyncio
from collections import deque
from typing import TYPE_CHECKING

from asyncq.errors import WouldDeadlock

if TYPE_CHECKING:
    from collections.abc import Callable


class Slots:
    """A number of slots, and two queues for them. Lives on one loop.

    A job that resumes after a wait for another job goes before a new job: it holds what it has built up so
    far, and other jobs may be waiting for it.

    Args:
        limit: how many.
        most_released: how many jobs may have their slot released for a wait.
        on_change: called when a slot is free, or one more is released.

    Attributes:
        busy: slots that are taken. Above the limit only by jobs that are being cancelled.
        released: jobs that have released their slot and will reacquire one.
        on_change: as given.
    """

    def __init__(
        self, limit: int, most_released: int = 0, on_change: Callable[[], object] = lambda: None
    ) -> None:
        self.limit = limit
        self.busy: int = 0
        self.released: int = 0
        self._most_released = most_released
        self.on_change: Callable[[], object] = on_change
        # While anybody waits in a queue, no slot is free.
        self._resuming: deque[asyncio.Future[None]] = deque()
        self._new: deque[asyncio.Future[None]] = deque()

    @property
    def is_free(self) -> bool:
        """Whether `take` would not wait."""
        return self.busy < self.limit

    def take_now(self) -> None:
        """Takes a slot, whether or not there is one."""
        self.busy += 1

    async def take(self, *, first: bool = False) -> None:
        """Takes a slot as soon as there is one. Cancelled, it has taken none.

        Args:
            first: for a job that resumes after a wait: it goes before new jobs.
        """
        if self.busy < self.limit:
            self.busy += 1
            return
        queue = self._resuming if first else self._new
        granted = asyncio.get_running_loop().create_future()
        queue.append(granted)
        try:
            await granted
        except asyncio.CancelledError:
            if not granted.cancelled():
                self.give()  # it was given one at the same time
            elif granted in queue:
                queue.remove(granted)
            raise

    def give(self) -> None:
        """Gives a slot back: the next in the queues takes it, if there is one."""
        self.busy -= 1
        if self._resuming or self._new:
            self._call_next()
        self.on_change()

    def _call_next(self) -> None:
        while self.busy < self.limit and (queue := self._resuming or self._new):
            granted = queue.popleft()
            if not granted.done():  # else it was cancelled, and is about to leave
                self.busy += 1
                granted.set_result(None)

    def release(self) -> None:
        """Gives a slot back for the time of a wait.

        Raises:
            WouldDeadlock: `max_parked` jobs have released their slot.
        """
        if self.released >= self._most_released:
            raise WouldDeadlock(
                f"{self.released:,} jobs of this worker wait for other jobs already, which is max_parked; "
                "with one more waiting, memory would have no bound. Nest less deeply, let the caller wait, "
                "or raise max_parked"
            )
        self.released += 1
        self.give()

    def end_release(self) -> None:
        """A job that had released its slot has one again, or needs none any more."""
        self.released -= 1
        self.on_change()
