"""How much of the machine other processes used during a measurement, on Linux.

A comparison needs it: another program that runs during one of two measurements slows all blocks of that one,
and no test on the blocks can tell that from slower code.
"""

from __future__ import annotations

import os
import time
from pathlib import Path

_STAT = Path("/proc/stat")


class OthersMeter:
    """Measures from its creation on. Not counted as others are this process, its ended children, and the
    embedded server.

    Args:
        server: the process id of the embedded server. A server that is not embedded counts as others.
    """

    def __init__(self, server: int | None) -> None:
        self._server = server
        self._start = self._read()

    def share(self) -> float | None:
        """Returns the share of the machine that others used, from 0 to 1. None if /proc does not say it."""
        end = self._read()
        if self._start is None or end is None:
            return None
        seconds, busy, own = (after - before for before, after in zip(self._start, end, strict=True))
        return round(max(0.0, (busy - own) / max(seconds, 1e-9) / (os.cpu_count() or 1)), 3)

    def _read(self) -> tuple[float, float, float] | None:
        """Returns the time, and the seconds that all processes and that these have used."""
        try:
            # Without the time of interrupts: most of it is the traffic of the measurement itself.
            user, nice, system, _, _, _, _, steal = map(int, _STAT.read_text("ascii").split()[1:9])
            server = 0 if self._server is None else _ticks(self._server)
        except (OSError, ValueError):  # not Linux, or the server has ended
            return None
        times, tick = os.times(), os.sysconf("SC_CLK_TCK")
        own = times.user + times.system + times.children_user + times.children_system
        return time.monotonic(), (user + nice + system + steal) / tick, own + server / tick


def _ticks(pid: int) -> int:
    fields = Path(f"/proc/{pid}/stat").read_text("ascii", "replace").rpartition(")")[2].split()
    return int(fields[11]) + int(fields[12])
