"""Says how many jobs a worker session may fetch ahead, from its bodies and reads of late. Runs on the
worker's loop.

A job that is fetched ahead waits in this worker, where no other worker can start it. So a session fetches
ahead only while its bodies are short and its queues have more jobs than it has slots, and only what it has
begun within a few milliseconds of late. Where slots are free, there is nothing to gain, and each start of
jobs would cost a note.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

SHORT = 0.001
"""Seconds: a body that takes less is short."""
WINDOW = 200
"""So many bodies are judged together."""
MOST_LONG = WINDOW // 100
"""At most so many bodies of a window are not short: then the 99th percentile is below `SHORT`."""
WORK = 0.005
"""Seconds of work that a session fetches ahead, by the rate of the last window."""
MOST = 500
"""Never more jobs are fetched ahead."""
VALID = 1.0
"""Seconds for which a judgement counts, if no other one follows."""
PAUSE = 1.0
"""Seconds for which nothing is fetched ahead after jobs had to be given back."""


class BodyTimes:
    """How long the last bodies of one session took.

    Args:
        clock: seconds, never set back.

    Attributes:
        most: how many jobs may be held ahead, by the last judgement; 0 if none.
        measures: whether `add` is to be called. Only where reads are full: other jobs pay nothing.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self.most: int = 0
        self.measures: bool = False
        self._clock = clock
        self._count = self._long = self._reads = self._full_reads = 0
        self._window_began = clock()
        self._valid_until = self._paused_until = 0.0

    def add(self, seconds: float) -> None:
        """Takes in how long a body took, from its start to its end."""
        self._count += 1
        if seconds >= SHORT:
            self._long += 1
            if self._long > MOST_LONG:
                self.most = 0
        if self._count == WINDOW:
            self._judge()

    def add_read(self, *, is_full: bool) -> None:
        """Takes in whether a read got as many jobs as it asked for. While nothing is measured, it need not be
        called for a read that did not.
        """
        if not self.measures:
            self.measures = True
            self._window_began = self._clock()
        self._reads += 1
        self._full_reads += is_full

    def _judge(self) -> None:
        now = self._clock()
        # One read may bring the jobs of several windows, and then there is none in some of them.
        self.measures = 2 * self._full_reads > self._reads or not self._reads
        if self._long > MOST_LONG or not self.measures or now < self._paused_until:
            self.most = 0
        else:
            took = max(now - self._window_began, 1e-6)
            self.most = min(MOST, int(WINDOW / took * WORK))
        self._valid_until = now + VALID
        self._window_began = now
        self._count = self._long = self._reads = self._full_reads = 0

    def expire(self) -> None:
        """Forgets a judgement that is too old: the worker has had little to do since."""
        if self.most and self._clock() > self._valid_until:
            self.most = 0

    def pause(self) -> None:
        """Lets nothing be fetched ahead for a while: jobs that were fetched ahead have waited too long."""
        self.most = 0
        self._paused_until = self._clock() + PAUSE
