"""How much of the machine other processes used while a cell was measured."""

import os
import time
from collections.abc import Callable, Iterable
from pathlib import Path

TICK = os.sysconf("SC_CLK_TCK")


class Meter:
    """Measures from its creation on. What is not the benchmark's own is other processes' use: this process,
    its ended children, and the servers.

    Args:
        servers: returns the process ids of the servers, which run on.
    """

    def __init__(self, servers: Callable[[], Iterable[int]]) -> None:
        self._servers = servers
        self._start = self._read()

    def others(self) -> float:
        """Returns the share of the machine that others used, from 0 to 1."""
        at, busy, own = self._read()
        before_at, before_busy, before_own = self._start
        cores = os.cpu_count() or 1
        used = (busy - before_busy) - (own - before_own)
        return round(max(0.0, used / (at - before_at) / cores), 3)

    def _read(self) -> tuple[float, float, float]:
        times = os.times()
        own = times.user + times.system + times.children_user + times.children_system
        return time.monotonic(), busy_seconds(), own + sum(map(_cpu, self._servers()))


def busy_seconds() -> float:
    """Returns the seconds that processes have used, and those that other machines of the host took.

    Interrupts are left out: the loopback traffic of the benchmark itself causes most of them.
    """
    user, nice, system, _idle, _iowait, _irq, _softirq, steal = map(
        int, Path("/proc/stat").read_text().splitlines()[0].split()[1:9]
    )
    return (user + nice + system + steal) / TICK


def _cpu(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / TICK
