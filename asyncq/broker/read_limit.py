"""Bounds the bytes of a read. One object for each connection that reads, on its loop."""

from __future__ import annotations

ENOUGH_BYTES = 32 * 1024 * 1024
"""The server needs some 0.4 ms for each megabyte of a reply, in which nobody else has a turn."""
FIRST, MOST = 128, 512
"""The first is above the default concurrency. With 32, a worker with room for a hundred jobs read them in
three parts, ended them in three parts, and stayed out of step: 3.19 commands a job in batches, not 3.09
(`benchmarks/instructions.py`)."""


class ReadLimit:
    """How many entries a read may ask for. A stream does not tell how long its entries are, so it is learned
    from the replies before: as in TCP's slow start, it begins with few.

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
            entries: how many it had.
            size: its bytes.
        """
        if size > ENOUGH_BYTES:
            self.entries = max(1, entries * ENOUGH_BYTES // size)
        elif entries >= self.entries and size <= ENOUGH_BYTES // 2:
            self.entries = min(2 * self.entries, MOST)
