"""Moves delayed jobs into their queues when they are due: sleeps until the next due time, and is called when
that changes.
"""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING

from asyncq.broker.background import ErrorLog, forever

if TYPE_CHECKING:
    from asyncq.broker.consumer import Consumer
    from asyncq.broker.schema.keys import Keys

log: logging.Logger = logging.getLogger(__name__)

LONGEST_SLEEP = 10.0
"""Seconds; bounds a call that was lost with a connection."""


class Promoter:
    """Every worker runs one a shard; whichever comes first moves a job, the others find nothing to do."""

    def __init__(self, consumer: Consumer, shard: Keys) -> None:
        self.shard = shard
        self._consumer = consumer
        self._called = asyncio.Event()

    def call(self, _due: bytes = b"") -> None:
        """The earliest due time has changed."""
        self._called.set()

    async def run(self) -> None:
        """For ever."""
        await forever(self._move, ErrorLog(log, "due jobs could not be moved; trying again"))

    async def _move(self) -> None:
        """Moves what is due, and sleeps until more is."""
        # Before the question: a call that comes while it is on its way may mean a job that it has missed.
        self._called.clear()
        wait = await self._consumer.promote(self.shard)
        if wait is None or wait > 0:
            await self._sleep(LONGEST_SLEEP if wait is None else min(wait, LONGEST_SLEEP))

    async def _sleep(self, seconds: float) -> None:
        try:
            async with asyncio.timeout(seconds):
                await self._called.wait()
        except TimeoutError:
            return
