"""When a worker ends by itself: `--burst`, `--max-jobs` and `--max-memory` of `asyncq worker`.

`until_limit` runs beside the worker on its loop, and looks a few times a second. It only watches: whoever
calls it stops the worker, so running jobs end within the grace as at any other stop.
"""

from __future__ import annotations

import asyncio
import os
import resource
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from asyncq.broker.queue_figures import waiting_in

if TYPE_CHECKING:
    from asyncq.worker import Worker

EVERY = 0.1
"""Seconds between two looks."""
_KIB = 1024
_STATM = Path("/proc/self/statm")
_PAGE = resource.getpagesize()


@dataclass(frozen=True, slots=True)
class EndLimits:
    """How much a worker does before it ends. None, or false, stands for no such limit.

    Attributes:
        burst: whether it ends when no job of its queues waits or runs.
        max_jobs: the number of attempts after which it reads no more.
        max_memory: the resident memory of its process, in bytes, after which it reads no more.
    """

    burst: bool
    max_jobs: int | None
    max_memory: int | None

    @property
    def are_set(self) -> bool:
        """Whether there is any limit."""
        return self.burst or self.max_jobs is not None or self.max_memory is not None


async def until_limit(worker: Worker, limits: EndLimits) -> str:
    """Waits until a limit is reached, and returns which one, as a person reads it.

    It never returns without a limit.

    Args:
        worker: the worker, which has started.
        limits: of the worker.
    """
    while True:
        if limits.max_jobs is not None and _attempts(worker) >= limits.max_jobs:
            return f"{_attempts(worker):,} jobs (--max-jobs)"
        # A process that needs more than that before its first job would otherwise be replaced for ever.
        if limits.max_memory is not None and _attempts(worker) and (used := memory()) >= limits.max_memory:
            return f"{used / _KIB**2:,.0f} MiB of memory (--max-memory)"
        if limits.burst and await _is_idle(worker):
            return "no jobs left (--burst)"
        await asyncio.sleep(EVERY)


def _attempts(worker: Worker) -> int:
    return worker.done + worker.retried


async def _is_idle(worker: Worker) -> bool:
    """Returns whether no job of the worker's queues waits or runs. Jobs of a paused queue do not count: they
    wait for a person.

    A job that runs may enqueue another one before it ends. So the order counts: nothing ran here before the
    queues were found empty, nothing runs after that, and nothing has ended in between.
    """
    session = worker.session
    if session is None or len(session.held):
        return False
    before = _attempts(worker)
    paused = session.consumer.served.paused
    queues = [queue for queue in worker.queues if queue not in paused]
    waiting = await waiting_in(session.broker.commands, queues)
    return not waiting and not len(session.held) and _attempts(worker) == before


def memory() -> int:
    """Returns the resident memory of this process, in bytes: now, and not the most it ever was."""
    if _STATM.exists():  # on Linux
        return int(_STATM.read_text("ascii").split()[1]) * _PAGE
    argv = ["ps", "-o", "rss=", "-p", str(os.getpid())]
    done = subprocess.run(argv, capture_output=True, check=True, text=True)  # noqa: S603  a number of our own
    return int(done.stdout) * _KIB
