"""Measures how long something took, without the time in which a busy machine ran other processes."""

from __future__ import annotations

import contextlib
import os
import time
from pathlib import Path


class Took:
    """A time in seconds, to be compared with bounds.

    A lower bound (`0.3 <= took`) is compared with the clock. An upper bound (`took < 0.5`) is compared with
    the clock minus the time in which processes of the test were ready to run while the machine ran others:
    asyncq promises not to wait without need, but not that the machine is idle.
    """

    def __init__(self, clock: float, withheld: float) -> None:
        self.clock = clock
        self.withheld = withheld

    def __lt__(self, bound: Took | float) -> bool:
        return float(self) < float(bound)

    def __le__(self, bound: Took | float) -> bool:
        return float(self) <= float(bound)

    def __gt__(self, bound: Took | float) -> bool:
        return self.clock > (bound.clock if isinstance(bound, Took) else bound)

    def __ge__(self, bound: Took | float) -> bool:
        return self.clock >= (bound.clock if isinstance(bound, Took) else bound)

    def __float__(self) -> float:
        return self.clock - self.withheld

    def __format__(self, form: str) -> str:
        return format(self.clock, form)

    def __repr__(self) -> str:
        return f"{self.clock:.3f} s, {self.withheld:.3f} s of it withheld"


class Stopwatch:
    """A stopwatch, which runs from its creation."""

    def __init__(self) -> None:
        self._waited = _waited()
        self._started = time.monotonic()

    @property
    def took(self) -> Took:
        """The time from the creation until now."""
        clock = time.monotonic() - self._started
        now = _waited()
        # A thread that has ended is no longer counted.
        return Took(clock, sum(max(0.0, waited - self._waited.get(pid, 0.0)) for pid, waited in now.items()))


def _waited() -> dict[int, float]:
    """Returns for how many seconds this process and each descendant waited for a core, as Linux counts."""
    found: dict[int, float] = {}
    unread = [os.getpid()]
    while unread:
        pid = unread.pop()
        found[pid] = 0.0
        for thread in _threads(pid):
            with contextlib.suppress(FileNotFoundError, ProcessLookupError):  # it has ended
                found[pid] += int((thread / "schedstat").read_text().split()[1]) / 1e9
                unread += map(int, (thread / "children").read_text().split())
    return found


def _threads(pid: int) -> list[Path]:
    """Returns the threads of a process as folders of /proc; an empty list if the process has ended."""
    with contextlib.suppress(FileNotFoundError, ProcessLookupError):
        return list(Path(f"/proc/{pid}/task").iterdir())
    return []
