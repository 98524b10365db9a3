"""The rule by which jobs of a task with a rate are let start, in plain Python."""

from __future__ import annotations

from dataclasses import dataclass

TOLERANCE = 0.1


@dataclass
class Cell:
    """The rule of limit.lua, in seconds. `tests/integration/time/test_limits.py` holds the script to it."""

    interval: float
    open: float = 0.0
    free_from: float = 0.0

    def ask(self, now: float, *, granted: bool) -> float | None:
        """None: it starts. Else the moment that it is given."""
        earliest = self.open - TOLERANCE if granted else max(self.open, self.free_from)
        if now >= earliest:
            self.open = max(self.open, now) + self.interval
            if not granted:
                self.free_from = max(self.free_from, now + self.interval)
            return None
        moment = max(self.open, self.free_from)
        self.free_from = moment + self.interval
        return moment
