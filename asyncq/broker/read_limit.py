"""Chooses how many entries a worker's read asks for, so that its reply stays below 32 MB. One object for each
reading connection, on its loop. Talks to no server.
"""

from __future__ import annotations

ENOUGH_BYTES = 32 * 1024 * 1024
"""The server needs some 0.4 ms for each megabyte of a reply, and serves nobody else meanwhile."""
FIRST, MOST = 128, 512
"""`FIRST` is above the default concurrency. When it was 32, a worker with room for a hundred jobs read them
in three parts, ended them in three parts, and stayed out of step: 3.19 commands a job in batches instead of
3.09 (`benchmarks/instructions.py`)."""


class ReadLimit:
    """How many entries a read may ask for. A stream does not tell how long its entries are, so the limit is
    learned from earlier replies. It begins low and doubles, as in TCP's slow start.

    >>> limit = ReadLimit()
    >>> limit.entries
    128
    >>> limit.note(entries=128, size=128_000)
    >>> limit.entries
    256
    >>> limit.note(entries=256, size=256 * 1024 * 1024)
    >>> limit.entries
    32
    """

    __slots__ = ("entries",)

    def __init__(self) -> None:
        self.entries: int = FIRST

    def note(self, entries: int, size: int) -> None:
        """Learns from a reply.

        Args:
            entries: how many entries it had.
            size: how many bytes it had.
        """
        if size > ENOUGH_BYTES:
            self.entries = max(1, entries * ENOUGH_BYTES // size)
        elif entries >= self.entries and size <= ENOUGH_BYTES // 2:
            self.entries = min(2 * self.entries, MOST)
