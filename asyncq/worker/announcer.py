"""Announces at the server which tasks a worker knows, so that other workers leave those tasks' jobs to it.

A background task of a worker session, on the worker's loop. `unknown_tasks` in other workers reads the tasks.
"""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING

from asyncq.broker.commands import FOREVER
from asyncq.broker.schema.keys import DAY_MS
from asyncq.broker.transport.background import ErrorLog, forever

if TYPE_CHECKING:
    from collections.abc import Collection

    from asyncq.broker.consumer import Consumer

log: logging.Logger = logging.getLogger(__name__)

AGAIN = DAY_MS / 2000
"""Seconds between two announcements of the same tasks. The server keeps an announcement for a day."""


class Announcer:
    """Announces the tasks of one session.

    Args:
        consumer: announces them under its name.
        tasks: the names of the tasks; more may be registered while the worker runs.
        lease: the lease in seconds.
    """

    def __init__(self, consumer: Consumer, tasks: Collection[str], lease: float) -> None:
        self._consumer = consumer
        self._tasks = tasks
        self._lease = lease
        self._announced: frozenset[str] = frozenset()
        self._last = 0.0

    async def announce(self, timeout: float = FOREVER) -> None:
        """Announces the tasks that are registered now."""
        tasks = frozenset(self._tasks)
        await self._consumer.announcements.of_tasks(tasks, timeout)
        self._announced, self._last = tasks, asyncio.get_running_loop().time()

    async def run(self) -> None:
        """Announces new tasks, three times a lease, until it is cancelled."""
        await forever(self._turn, ErrorLog(log, "the tasks could not be announced; trying again"))

    async def _turn(self) -> None:
        """Announces new tasks, and all of them after half a day."""
        is_old = asyncio.get_running_loop().time() - self._last > AGAIN
        if is_old or not self._announced.issuperset(self._tasks):
            await self.announce()
        await asyncio.sleep(self._lease / 3)
