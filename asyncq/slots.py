"""A number of slots, and who waits for one: what bounds the jobs, and the threads, of a worker."""

from __future__ import annotations

import asyncio
from collections import deque
from typing import TYPE_CHECKING

from asyncq.errors import WouldDeadlock

if TYPE_CHECKING:
    from collections.abc import Callable


class Slots:
    """So many may run at a time. Lives on one loop.

    Who comes back from a wait for another job goes before who is new: it holds what it has built up so far,
    and somebody may be waiting for it.

    Args:
        limit: how many.
        most_parked: how many more may be parked, which is: have given their slot back for a wait.
        on_change: called when a slot is free, or one more is parked.

    Attributes:
        busy: slots that are taken. Above the limit only by jobs that are being torn down.
        parked: those who have given theirs back and will want it again.
        on_change: as given.
    """

    def __init__(
        self, limit: int, most_parked: int = 0, on_change: Callable[[], object] = lambda: None
    ) -> None:
        self.limit = limit
        self.busy: int = 0
        self.parked: int = 0
        self._most_parked = most_parked
        self.on_change: Callable[[], object] = on_change
        # While anybody stands in a queue, no slot is free.
        self._back: deque[asyncio.Future[None]] = deque()
        self._new: deque[asyncio.Future[None]] = deque()

    @property
    def is_free(self) -> bool:
        """Whether `take` would not wait."""
        return self.busy < self.limit

    def take_now(self) -> None:
        """Takes a slot, whether or not there is one."""
        self.busy += 1

    async def take(self, *, back: bool = False) -> None:
        """Takes a slot as soon as there is one. Cancelled, it has taken none.

        Args:
            back: from a wait: goes before those who are new.
        """
        if self.busy < self.limit:
            self.busy += 1
            return
        queue = self._back if back else self._new
        turn = asyncio.get_running_loop().create_future()
        queue.append(turn)
        try:
            await turn
        except asyncio.CancelledError:
            if not turn.cancelled():
                self.give()  # it was given one at the same time
            elif turn in queue:
                queue.remove(turn)
            raise

    def give(self) -> None:
        """Gives a slot back: to whoever is next, if anybody is."""
        self.busy -= 1
        if self._back or self._new:
            self._call_next()
        self.on_change()

    def _call_next(self) -> None:
        while self.busy < self.limit and (queue := self._back or self._new):
            turn = queue.popleft()
            if not turn.done():  # else it was cancelled, and is about to leave
                self.busy += 1
                turn.set_result(None)

    def park(self) -> None:
        """Gives a slot back for a wait.

        Raises:
            WouldDeadlock: too many are parked.
        """
        if self.parked >= self._most_parked:
            raise WouldDeadlock(
                f"{self.parked:,} jobs of this worker wait for other jobs already, which is max_parked; with "
                "one more waiting, memory would have no bound. Nest less deeply, let the caller wait, or "
                "raise max_parked"
            )
        self.parked += 1
        self.give()

    def unpark(self) -> None:
        """One that was parked has a slot again, or will not need one any more."""
        self.parked -= 1
        self.on_change()
