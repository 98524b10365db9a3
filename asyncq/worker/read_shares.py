"""Shares the room of a worker session between its fetchers. Runs on the worker's loop.

One server has one fetcher, which takes all the room. On a Cluster each shard has one, and all read at the
same time. Each takes a share of the room before it reads and gives it back afterwards, so that together they
do not claim more jobs than can begin. A fetcher whose node hangs keeps its share, and no more.
"""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator


class SharedRoom:
    """The room of one session.

    Args:
        fetchers: how many there are.
        on_free: called when a share is given back.

    Attributes:
        wanting: how many fetchers have no share and do not wait for a job.
        taken: the sum of all shares.
        on_free: as given.
    """

    def __init__(self, fetchers: int, on_free: Callable[[], None]) -> None:
        self.wanting = fetchers
        self.taken = 0
        self.on_free = on_free


class ReadShare:
    """The share of one fetcher.

    Args:
        of: the room.

    Attributes:
        waited_in_vain: whether its fetcher has waited for as long as it may, and nothing has come.
    """

    def __init__(self, of: SharedRoom) -> None:
        self.waited_in_vain: bool = False
        self._of = of
        self._share = 0

    def take(self, room: int) -> int:
        """Takes a share of the room, when it has none. Returns how many jobs may be read; 0 if there is no
        room.
        """
        left = room - self._of.taken
        if left <= 0:
            return 0
        self._share = max(1, left // max(1, self._of.wanting))
        self._of.wanting -= 1
        self._of.taken += self._share
        return self._share

    def give_back(self) -> None:
        """Gives the share back: what was read with it is in its slot, or nothing was there. A second call
        does nothing.
        """
        share, self._share = self._share, 0
        if share:
            self._of.wanting += 1
            self._of.taken -= share
            self._of.on_free()

    @contextmanager
    def waiting(self) -> Iterator[None]:
        """Gives the share back, and counts the fetcher out while it waits for a job: it takes one of what
        comes, without a share. If all slots are full by then, the job waits for one, or is handed back.
        """
        self.give_back()
        self._of.wanting -= 1
        try:
            yield
        finally:
            self._of.wanting += 1
