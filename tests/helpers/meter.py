"""Measures the cost of a process, from /proc, and the lag of an event loop."""

from __future__ import annotations

import asyncio
import contextlib
import os
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

TICK = 0.01


def rss(pid: int | None = None) -> float:
    """Returns the resident memory of a process in MB."""
    pages = int(Path(f"/proc/{pid or 'self'}/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 1e6


def cpu(pid: int | None = None) -> float:
    """Returns the CPU time that a process has used so far, in seconds."""
    # The name of the program, in brackets, may hold blanks.
    fields = Path(f"/proc/{pid or 'self'}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def descriptors() -> dict[int, str]:
    """Returns the open file descriptors of this process, with their targets."""
    found = {}
    listing = (
        f"/proc/{os.getpid()}/fd"  # open while it is read; it would hide the next file that gets its number
    )
    for entry in os.scandir("/proc/self/fd"):
        with contextlib.suppress(FileNotFoundError):  # another thread has closed it
            target = os.readlink(entry.path)  # noqa: PTH115  around each test: pathlib is slow
            if target != listing:
                found[int(entry.name)] = target
    return found


class Lag:
    """The longest delay of a 10 ms timer on a loop, in seconds."""

    def __init__(self) -> None:
        self.worst = 0.0

    async def measure(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            before = loop.time()
            await asyncio.sleep(TICK)
            self.worst = max(self.worst, loop.time() - before - TICK)


@contextlib.asynccontextmanager
async def lag() -> AsyncIterator[Lag]:
    """Measures the lag of the running loop for the time of the block."""
    meter = Lag()
    task = asyncio.create_task(meter.measure())
    try:
        yield meter
    finally:
        task.cancel()
