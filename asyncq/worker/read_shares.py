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


class ReadShares:
    """The shares of one session.

    Args:
        fetchers: how many there are.
        on_free: called when a share is given back.
    """

    def __init__(self, fetchers: int, on_free: Callable[[], None]) -> None:
        self._wanting = fetchers
        self._taken = 0
        self._on_free = on_free

    def take(self, room: int) -> int:
        """Takes a share of the room for a fetcher that has none. Returns how many jobs it may read; 0 if
        there is no room.
        """
        left = room - self._taken
        if left <= 0:
            return 0
        share = max(1, left // max(1, self._wanting))
        self._wanting -= 1
        self._taken += share
        return share

    def give_back(self, share: int) -> None:
        """Gives a share back: what was read with it is in its slot, or nothing was there."""
        if share:
            self._wanting += 1
            self._taken -= share
            self._on_free()

    @contextmanager
    def waiting(self) -> Iterator[None]:
        """Counts a fetcher out that waits for a job: it takes one of what comes, without a share. If all
        slots are full by then, the job waits for one, or is handed back.
        """
        self._wanting -= 1
        try:
            yield
        finally:
            self._wanting += 1
