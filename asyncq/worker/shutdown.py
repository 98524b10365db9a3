"""How a worker session gives up its jobs: it drains, cancels, hands back, and leaves.

Nothing here may keep the session from its end: a session that goes on to send beats and does not read any
more keeps its jobs from everybody else. So whatever cannot be done is logged, and the other workers take
over what is left when the lease is over.
"""

from __future__ import annotations

import asyncio
import logging
from contextlib import suppress
from typing import TYPE_CHECKING

from asyncq.broker.background import unexpected
from asyncq.worker.process import LAST_WORDS

if TYPE_CHECKING:
    from asyncq.broker.consumer import Consumer
    from asyncq.worker.held import HeldJobs
    from asyncq.worker.outcome import Outcomes

log: logging.Logger = logging.getLogger(__name__)

CLEAN_UP = 1.0
"""Seconds that a cancelled body gets to clean up."""
STORE = 5.0
"""Seconds that the last outcomes get to reach the server."""


class StopRequest:
    """What a worker was asked for by `stop`.

    Attributes:
        made: set once the worker is to stop.
        in_a_hurry: set once it is not to wait for running jobs.
    """

    def __init__(self) -> None:
        self.made: asyncio.Event = asyncio.Event()
        self.in_a_hurry: asyncio.Event = asyncio.Event()

    def make(self) -> None:
        """Asks the worker to stop. The second time it is in a hurry."""
        if self.made.is_set():
            self.in_a_hurry.set()
        self.made.set()


class Shutdown:
    """The steps of one session's end.

    Args:
        consumer: of the session.
        held: its jobs.
        outcomes: what became of them.
        is_lost: set when the session was taken for dead.
    """

    def __init__(
        self, consumer: Consumer, held: HeldJobs, outcomes: Outcomes, is_lost: asyncio.Event
    ) -> None:
        self._consumer = consumer
        self._held = held
        self._outcomes = outcomes
        self._is_lost = is_lost

    async def drain(self, grace: float, hurry: asyncio.Event) -> None:
        """Waits until all jobs have ended, the grace is over, nobody wants to wait any longer, or the session
        was taken for dead.
        """
        waits = [asyncio.create_task(event.wait()) for event in (self._held.idle, hurry, self._is_lost)]
        await asyncio.wait(waits, timeout=grace, return_when=asyncio.FIRST_COMPLETED)
        for wait in waits:
            wait.cancel()
        left = self._held.slots.busy + self._held.slots.parked
        if left and not hurry.is_set():
            log.warning("%d jobs did not end within the grace of %g s; they are handed back", left, grace)

    async def cancel_all(self) -> None:
        """Cancels all jobs, and gives them a moment to clean up."""
        tasks = []
        for job in self._held.unfinished():
            assert job.task is not None
            tasks.append(job.task)
            job.cancel()
        if tasks:
            # A body that does not let itself be cancelled is left behind. Its outcome will be refused: its
            # entry is handed back by then, or taken over.
            await asyncio.wait(tasks, timeout=CLEAN_UP + LAST_WORDS)

    async def hand_back(self) -> None:
        """Makes a new entry, for another worker, of everything that has not ended, and of what a late read
        may still have claimed.
        """
        # Before they are cancelled: a job that ends well after all is refused here by its record.
        unfinished = self._held.unfinished()
        await self.cancel_all()
        with suppress(TimeoutError):
            async with asyncio.timeout(STORE):
                await self._outcomes.finish()
        by_stream: dict[str, list[tuple[str, str]]] = {}
        for job in unfinished:
            delivery = job.delivery
            by_stream.setdefault(delivery.stream, []).append((delivery.entry, delivery.job.id))
        try:
            await self._add_unknown_entries(by_stream)
            for stream, jobs in by_stream.items():
                answers = await self._outcomes.claims.release(stream, jobs)
                self._outcomes.counts.handed_back += sum(answer == 1 for answer in answers)
        except Exception as error:
            log.warning(
                "jobs could not be handed back (%s); they run elsewhere when the lease is over",
                error,
                exc_info=unexpected(error),
            )

    async def _add_unknown_entries(self, by_stream: dict[str, list[tuple[str, str]]]) -> None:
        served = self._consumer.served
        for stream in (*served.streams, *served.lanes):
            for item in await self._consumer.ghosts(stream, self._held.entries_of(stream)):
                with suppress(Exception):  # the next who reads it sets it aside
                    id_ = self._consumer.delivery(item).job.id
                    by_stream.setdefault(stream, []).append((item[1], id_))

    async def leave(self) -> None:
        """Tells the server that the session is over, so that nobody waits for its lease."""
        try:
            if not await self._consumer.leave():
                log.debug(
                    "worker %r still holds entries; the others take them when the lease is over",
                    self._consumer.name,
                )
        except Exception as error:  # noqa: BLE001  others find out, and take over what it held
            log.debug("worker %r could not say goodbye: %s", self._consumer.name, error)
