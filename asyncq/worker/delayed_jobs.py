"""Moves delayed jobs into their queues when they are due: retries, deferred jobs, and jobs with a delay.

A background task of a worker session, on the worker's loop, one for each shard. It sleeps until the next due
time, and a message on the channel `wake` ends that sleep early.
"""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING

from asyncq.broker.transport.background import ErrorLog, forever

if TYPE_CHECKING:
    from asyncq.broker.consumer import Consumer
    from asyncq.broker.schema.keys import Keys

log: logging.Logger = logging.getLogger(__name__)

LONGEST_SLEEP = 30.0
"""The longest sleep in seconds. The message that ends a sleep early may be lost with a connection, but then
the session calls as soon as its subscription is whole again."""


class Promoter:
    """Moves the due jobs of one shard. Every worker has one; the first moves a job, the others find none."""

    def __init__(self, consumer: Consumer, shard: Keys) -> None:
        self.shard = shard
        self._consumer = consumer
        self._called = asyncio.Event()

    def call(self, _due: bytes = b"") -> None:
        """Ends the sleep, because the earliest due time has changed."""
        self._called.set()

    async def run(self) -> None:
        """Moves due jobs until it is cancelled."""
        await forever(self._move, ErrorLog(log, "due jobs could not be moved; trying again"))

    async def _move(self) -> None:
        """Moves the jobs that are due now, and sleeps until the next one is."""
        # Cleared before the request: a call that comes while the request is under way may be about a job that
        # the answer does not know.
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
