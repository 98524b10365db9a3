"""The steady time of a server, as the server has reported it to this process.

The limits of tasks go by a clock at the server that is never set back, see `lua/_steady.lua`. That the clock
of the machine was set back is noticed by a process that got the time before, and has counted since by a clock
that nobody sets. Lives on one loop.
"""

from __future__ import annotations

import time


class SteadyTime:
    """What a session knows of the steady time in each shard."""

    def __init__(self) -> None:
        self._reported: dict[int, tuple[int, float]] = {}

    def expected(self, shard: int) -> int | str:
        """What the steady time must have come to by now, in ms; empty if none was reported yet. Rather too
        little than too much: it counts from when the last answer was here.
        """
        reported = self._reported.get(shard)
        if reported is None:
            return ""
        steady, at = reported
        return steady + int((time.monotonic() - at) * 1000)

    def update(self, shard: int, steady: int) -> None:
        """The server has said the steady time, in ms."""
        self._reported[shard] = steady, time.monotonic()
