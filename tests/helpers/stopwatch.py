"""How long something took, on a machine that has other things to do."""

from __future__ import annotations

import contextlib
import os
import time
from pathlib import Path


class Took:
    """A time in seconds, to be held against bounds.

    A lower bound (`0.3 <= took`) is held against the clock. An upper bound (`took < 0.5`) is held against the
    clock less the time for which processes of the test were ready to run and the machine ran others: what is
    promised is that nothing waits without need, and not that the machine has nothing else to do.
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
    """Runs from when it is made."""

    def __init__(self) -> None:
        self._waited = _waited()
        self._begun = time.monotonic()

    @property
    def took(self) -> Took:
        """Until now."""
        clock = time.monotonic() - self._begun
        now = _waited()
        # A thread that has ended is no longer counted.
        return Took(clock, sum(max(0.0, waited - self._waited.get(pid, 0.0)) for pid, waited in now.items()))


def _waited() -> dict[int, float]:
    """Seconds for which this process and each that comes from it waited for a core, as Linux counts."""
    parents = {}
    for entry in os.scandir("/proc"):
        if entry.name.isdigit():
            with contextlib.suppress(FileNotFoundError, ProcessLookupError):
                fields = Path(f"/proc/{entry.name}/stat").read_text().rpartition(")")[2].split()
                parents[int(entry.name)] = int(fields[1])
    ours = {os.getpid()}
    while found := {pid for pid, parent in parents.items() if parent in ours} - ours:
        ours |= found
    return {pid: _waited_by(pid) for pid in ours}


def _waited_by(pid: int) -> float:
    """Of all its threads; nothing when it has ended."""
    with contextlib.suppress(FileNotFoundError, ProcessLookupError):
        tasks = Path(f"/proc/{pid}/task")
        return sum(int((task / "schedstat").read_text().split()[1]) for task in tasks.iterdir()) / 1e9
    return 0.0
