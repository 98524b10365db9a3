"""The rule of `rate_limit=` in plain Python: when a job of the task may start."""

from __future__ import annotations

from dataclasses import dataclass

TOLERANCE = 0.1


@dataclass
class Cell:
    """The rule of limit.lua, in seconds. `tests/integration/time/test_limits.py` compares the two."""

    interval: float
    open: float = 0.0
    free_from: float = 0.0

    def ask(self, now: float, *, granted: bool) -> float | None:
        """Asks at a time whether a job may start. Returns None if it starts now, else its start time."""
        earliest = self.open - TOLERANCE if granted else max(self.open, self.free_from)
        if now >= earliest:
            self.open = max(self.open, now) + self.interval
            if not granted:
                self.free_from = max(self.free_from, now + self.interval)
            return None
        start_time = max(self.open, self.free_from)
        self.free_from = start_time + self.interval
        return start_time
