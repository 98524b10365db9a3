"""The steady time of a server, as this process has been told it.

The limits of tasks go by a clock at the server that is never set back, see `lua/_steady.lua`. That the clock
of the machine was set back is noticed by who was told the time before, and has counted since by a clock that
nobody sets. Lives on one loop.
"""

from __future__ import annotations

import time


class SteadyTime:
    """What a session knows of the steady time in each shard."""

    def __init__(self) -> None:
        self._told: dict[int, tuple[int, float]] = {}

    def expected(self, shard: int) -> int | str:
        """What the steady time must have come to by now, in ms; empty if none was told yet. Rather too little
        than too much: it counts from when the last answer was here.
        """
        told = self._told.get(shard)
        if told is None:
            return ""
        steady, at = told
        return steady + int((time.monotonic() - at) * 1000)

    def saw(self, shard: int, steady: int) -> None:
        """The server has said the steady time, in ms."""
        self._told[shard] = steady, time.monotonic()
