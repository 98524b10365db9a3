"""A worker that always fetches ahead: `python -m helpers.worker_ahead [QUEUE...]`, with the tasks of
`worker_jobs`.
"""

from __future__ import annotations

import asyncio
import sys

from asyncq.worker import read_ahead
from asyncq.worker.body_times import BodyTimes
from helpers import worker_jobs

MOST = 50


class AlwaysShort(BodyTimes):
    """Allows a session to fetch jobs ahead, however long its bodies take."""

    def __init__(self) -> None:
        super().__init__()
        self.most = MOST

    def add(self, seconds: float) -> None:
        """Ignores how long a body took."""

    def expire(self) -> None:
        """Keeps the permission."""


if __name__ == "__main__":
    read_ahead.BodyTimes = AlwaysShort  # type: ignore[misc]
    read_ahead.LONGEST_WAIT = 60.0
    asyncio.run(worker_jobs.main(sys.argv[1:]))
