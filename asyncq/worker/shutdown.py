"""How a worker session gives up its jobs: it withdraws, drains, cancels, hands back, and leaves the server.

`WorkerSession.end` calls these steps in this order, on the worker's loop; after a lost lease it only cancels.
No job is lost: what has not ended goes back into its queue as a new entry. Nothing here may keep the session
from its end, for a session that sends beats and reads no more keeps its jobs from all other workers. So an
error is logged, and other workers recover what is left when the lease is over.
"""

from __future__ import annotations

import asyncio
import logging
from contextlib import suppress
from typing import TYPE_CHECKING

from asyncq.broker.transport.background import unexpected
from asyncq.execution import instances
from asyncq.execution.executors import STARTING
from asyncq.system import clock
from asyncq.worker.processes.process import LAST_MESSAGES_TIMEOUT

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from asyncq.broker.consumer import Consumer
    from asyncq.worker.attempt import RunningJob
    from asyncq.worker.held_jobs import HeldJobs
    from asyncq.worker.outcome_writer import Outcomes

log: logging.Logger = logging.getLogger(__name__)

CLEAN_UP = 1.0
"""Seconds that a cancelled body gets to clean up."""
TELL = 0.7
"""Seconds, at least, for the last messages to the server: outcomes, and jobs that are handed back."""
AFTER_GRACE = 1.8
"""Seconds for all steps after the grace together; more only if cancelled bodies leave less than `TELL` of
them. A service manager kills a worker that takes much longer than its grace."""
SAY_GOODBYE = 0.2
"""Seconds, at least, for the very last message, `Shutdown.leave`."""
MOST_NAMED = 10


class StopRequest:
    """What the calls of `Worker.stop`, `drain` and `quiet` have asked for.

    Attributes:
        born: when the worker was made, in ms since the epoch.
        made: set once the worker is to stop.
        stops_at_once: set once it must not wait for running jobs.
        asked_at: when the first call was made, by the clock of the loop; until then, long ago.
        is_quiet: whether it is to read no jobs.
    """

    def __init__(self) -> None:
        self.born: int = int(clock.now() * 1000)
        self.made: asyncio.Event = asyncio.Event()
        self.stops_at_once: asyncio.Event = asyncio.Event()
        self.asked_at: float = float("-inf")
        self.is_quiet: bool = False

    def make(self) -> None:
        """Asks the worker to stop. The second call asks it not to wait for running jobs."""
        if self.made.is_set():
            self.stops_at_once.set()
        self.make_once()

    def make_once(self) -> None:
        """Asks the worker to stop, if nobody has asked yet."""
        if not self.made.is_set():
            self.asked_at = asyncio.get_running_loop().time()
        self.made.set()


class Shutdown:
    """The steps that end one session.

    Args:
        consumer: the session's consumer.
        held: the jobs that the session holds.
        outcomes: stores what became of them.
        is_lost: set when the session was taken for dead.
    """

    def __init__(
        self, consumer: Consumer, held: HeldJobs, outcomes: Outcomes, is_lost: asyncio.Event
    ) -> None:
        self._consumer = consumer
        self._held = held
        self._outcomes = outcomes
        self._is_lost = is_lost
        self._end = 0.0
        self._withdrawn: list[RunningJob] = []
        self._withdrawing: asyncio.Task[None] | None = None

    def withdraw(self) -> None:
        """Begins to hand back the jobs that were fetched and whose bodies have not begun.

        No body begins in a worker that stops, so these jobs need not wait. `hand_back` waits for this.
        """
        self._withdrawn = [job for job in self._held.jobs.values() if job.withdraw()]
        if self._withdrawn:
            self._withdrawing = asyncio.create_task(self._hand_back_withdrawn())

    async def _hand_back_withdrawn(self) -> None:
        """Hands back the withdrawn jobs, when their asyncio tasks have ended or `CLEAN_UP` is over."""
        tasks = [job.task for job in self._withdrawn if job.task is not None]
        if tasks:
            await asyncio.wait(tasks, timeout=CLEAN_UP)
        try:
            await self._release(_by_stream(self._withdrawn))
        except Exception as error:  # noqa: BLE001  whatever it is, `hand_back` tries once more
            log.debug("jobs that have not started could not be handed back (%r); trying again later", error)
            return
        for job in self._withdrawn:
            self._held.drop(job.delivery)
        self._withdrawn = []

    async def drain(self, grace: float, at_once: asyncio.Event) -> None:
        """Waits until all jobs have ended, the grace is over, `at_once` is set, or the session is lost."""
        waits = [asyncio.create_task(event.wait()) for event in (self._held.idle, at_once, self._is_lost)]
        await asyncio.wait(waits, timeout=grace, return_when=asyncio.FIRST_COMPLETED)
        for wait in waits:
            wait.cancel()
        left = len(self._held.unfinished())
        if left and not at_once.is_set():
            log.warning("%d jobs did not end within the grace of %g s; they are handed back", left, grace)

    async def cancel_all(self) -> None:
        """Cancels all jobs, and gives their bodies `CLEAN_UP` seconds to end.

        A body that ignores its cancellation is left behind, and the log names it. Its outcome will be
        refused: by then its entry was handed back or recovered.
        """
        jobs = dict.fromkeys([*self._held.unfinished(), *self._held.ending])
        in_threads = [job for job in jobs if job.in_thread and job.state is not STARTING]
        in_processes = any(job.interrupt is not None for job in jobs)
        tasks = {job: job.task for job in jobs if job.task is not None}
        for job in jobs:
            job.cancel()
        if tasks:
            await asyncio.wait(
                tasks.values(), timeout=CLEAN_UP + (LAST_MESSAGES_TIMEOUT if in_processes else 0)
            )
        self._outcomes.counts.left = 0
        self._leave_behind(in_threads, "they run in threads, which nothing can stop")
        cleaning_up = self._held.cleaning_up
        deaf = [job for job, task in tasks.items() if not task.done() and job not in cleaning_up]
        self._leave_behind(deaf, "they did not end when they were cancelled")

    def _leave_behind(self, jobs: Sequence[RunningJob], why: str) -> None:
        if jobs:
            self._outcomes.counts.left += len(jobs)
            some = [f"{job.delivery.job.id!r} of task {job.delivery.job.name!r}" for job in jobs[:MOST_NAMED]]
            more = f" and {len(jobs) - MOST_NAMED} more" if len(jobs) > MOST_NAMED else ""
            log.warning("the bodies of these jobs still run, because %s: %s%s", why, ", ".join(some), more)

    async def hand_back(self) -> None:
        """Makes a new entry for another worker of each job that has not ended.

        That includes jobs that a late read may have claimed, although its reply never came.
        """
        # Collected before they are cancelled. If one of them ends well after all, its record refuses the
        # new entry.
        unfinished = self._held.unfinished()
        now = asyncio.get_running_loop().time
        self._end = now() + AFTER_GRACE
        await self.cancel_all()
        self._end = max(self._end, now() + TELL)
        try:
            async with asyncio.timeout_at(self._end):
                if self._withdrawing is not None:
                    await self._withdrawing
                await self._outcomes.finish()
                by_stream = _by_stream([*unfinished, *self._withdrawn])
                await self._add_unknown_entries(by_stream)
                await self._release(by_stream)
        except Exception as error:
            left = len(self._held)
            self._outcomes.counts.left += left
            log.warning(
                "%d jobs could not be ended or handed back (%s); they run elsewhere when the lease is over",
                *(left, error or "the server did not answer in time"),
                exc_info=None if isinstance(error, TimeoutError) else unexpected(error),
            )

    async def _release(self, by_stream: dict[str, list[tuple[str, str]]]) -> None:
        """Makes new entries of jobs, and counts those that the server accepted."""
        for stream, jobs in by_stream.items():
            answers = await self._outcomes.claims.release(stream, jobs)
            self._outcomes.counts.handed_back += sum(answer == 1 for answer in answers)

    async def _add_unknown_entries(self, by_stream: dict[str, list[tuple[str, str]]]) -> None:
        """Adds the unknown pending entries of the session: what a late read has claimed."""
        served = self._consumer.served
        for stream in (*served.streams, *served.last_attempt_queues):
            for item in await self._consumer.unknown_entries(stream, self._held.entries_of(stream)):
                with suppress(Exception):  # unreadable: the next worker that reads the entry sets it aside
                    id_ = self._consumer.delivery(item).job.id
                    by_stream.setdefault(stream, []).append((item[1], id_))

    async def until_clean(self) -> None:
        """Waits for the clean-up of dependencies, which takes at most `instances.CLEAN_UP` seconds. The jobs
        have ended or are handed back by then.
        """
        tasks = [job.task for job in self._held.cleaning_up if job.task is not None]
        if tasks:
            await asyncio.wait(tasks, timeout=instances.CLEAN_UP)

    async def leave(self) -> None:
        """Tells the server that the session is over, so that other workers do not wait for its lease."""
        try:
            async with asyncio.timeout_at(max(self._end, asyncio.get_running_loop().time() + SAY_GOODBYE)):
                has_left = await self._consumer.unregister()
            if not has_left:
                log.debug(
                    "worker %r still holds entries; other workers take them when the lease is over",
                    self._consumer.name,
                )
        except Exception as error:  # noqa: BLE001  other workers notice the end, and recover what it held
            log.debug("worker %r could not be unregistered: %s", self._consumer.name, error)


def _by_stream(jobs: Iterable[RunningJob]) -> dict[str, list[tuple[str, str]]]:
    """Returns the entries and ids of jobs, by their streams."""
    by_stream: dict[str, list[tuple[str, str]]] = {}
    for job in jobs:
        delivery = job.delivery
        by_stream.setdefault(delivery.stream, []).append((delivery.entry, delivery.job.id))
    return by_stream
