"""Counts the slots of a worker: they bound its running jobs, its threads and its processes.

Each `Slots` belongs to one loop and has no lock. Whoever takes a slot gives it back once, on that loop.
"""

from __future__ import annotations

import asyncio
from collections import deque
from typing import TYPE_CHECKING

from asyncq.errors import WouldDeadlock

if TYPE_CHECKING:
    from collections.abc import Callable


class Slots:
    """A number of slots, and two queues of jobs that wait for one. Lives on one loop.

    A job that resumes after a wait for another job goes before a new job. It holds what it has built up so
    far, and other jobs may be waiting for it.

    Args:
        limit: how many slots there are.
        most_released: how many jobs may have released their slot for a wait.
        on_change: called when a slot becomes free, or when a job has reacquired its slot.

    Attributes:
        busy: how many slots are taken. It exceeds the limit only while jobs are being cancelled.
        released: how many jobs have released their slot and will reacquire one.
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
        # While a job waits in a queue, no slot is free.
        self._resuming: deque[asyncio.Future[None]] = deque()
        self._new: deque[asyncio.Future[None]] = deque()

    @property
    def is_free(self) -> bool:
        """Whether `take` would return at once."""
        return self.busy < self.limit

    def take_now(self) -> None:
        """Takes a slot, even if none is free."""
        self.busy += 1

    async def take(self, *, first: bool = False) -> None:
        """Takes a slot as soon as one is free. If the call is cancelled, it has taken none.

        Args:
            first: whether the job resumes after a wait, and so goes before new jobs.
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
                self.give()  # the slot was granted at the same moment as the cancellation
            elif granted in queue:
                queue.remove(granted)
            raise

    def give(self) -> None:
        """Gives a slot back. If a job waits in the queues, it gets the slot."""
        self.busy -= 1
        if self._resuming or self._new:
            self._call_next()
        self.on_change()

    def _call_next(self) -> None:
        """Grants free slots to those that wait: resuming jobs first, then new ones."""
        while self.busy < self.limit and (queue := self._resuming or self._new):
            granted = queue.popleft()
            if not granted.done():  # otherwise it was cancelled, and its `take` is about to end
                self.busy += 1
                granted.set_result(None)

    def release(self) -> None:
        """Gives a slot back for the time of a wait.

        Raises:
            WouldDeadlock: `max_parked` jobs have released their slots already. Nothing has changed.
        """
        if self.released >= self._most_released:
            raise WouldDeadlock(
                f"{self.released:,} jobs of this worker wait for other jobs already, and max_parked allows "
                "no more: without a limit, their memory would have no bound. Nest less deeply, let the "
                "caller wait, or raise max_parked"
            )
        self.released += 1
        self.give()

    def end_release(self) -> None:
        """Notes that a job which had released its slot has one again, or needs none any more."""
        self.released -= 1
        self.on_change()
