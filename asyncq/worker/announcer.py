"""Says at the server which tasks a worker knows, so that other workers leave their jobs to it."""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING

from asyncq.broker.background import ErrorLog, forever
from asyncq.broker.commands import FOREVER
from asyncq.broker.schema.keys import DAY_MS

if TYPE_CHECKING:
    from collections.abc import Collection

    from asyncq.broker.consumer import Consumer

log: logging.Logger = logging.getLogger(__name__)

AGAIN = DAY_MS / 2000
"""Seconds after which the same is said again: it is kept for a day."""


class Announcer:
    """Announces the tasks of one session.

    Args:
        consumer: in whose name.
        tasks: by their names; some may be registered while the worker runs.
        lease: in seconds.
    """

    def __init__(self, consumer: Consumer, tasks: Collection[str], lease: float) -> None:
        self._consumer = consumer
        self._tasks = tasks
        self._lease = lease
        self._announced: frozenset[str] = frozenset()
        self._last = 0.0

    async def announce(self, timeout: float = FOREVER) -> None:
        """Says which tasks there are now."""
        tasks = frozenset(self._tasks)
        await self._consumer.announce(tasks, timeout)
        self._announced, self._last = tasks, asyncio.get_running_loop().time()

    async def run(self) -> None:
        """Looks three times a lease whether there are new ones, for ever."""
        await forever(self._turn, ErrorLog(log, "the tasks could not be announced; trying again"))

    async def _turn(self) -> None:
        is_old = asyncio.get_running_loop().time() - self._last > AGAIN
        if is_old or not self._announced.issuperset(self._tasks):
            await self.announce()
        await asyncio.sleep(self._lease / 3)
