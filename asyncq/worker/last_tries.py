"""Makes the jobs on their last try run: in child processes, or here if no other process can import the app.

A job is on its last try when the next death of its worker would end it as `WorkerLost`. Retries of a task
that fails have nothing to do with it. Such jobs wait in the last-attempt queue of their queue. A background
task of a worker session, on the worker's loop. Recovery calls it when such jobs wait.
"""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING

from asyncq.broker.transport.background import ErrorLog, forever

if TYPE_CHECKING:
    from asyncq.broker.consumer import Consumer
    from asyncq.worker.executor_streams import ExecutorQueueReader
    from asyncq.worker.held_jobs import HeldJobs
    from asyncq.worker.processes.spawner import Spawner

log: logging.Logger = logging.getLogger(__name__)


class LastTries:
    """Starts child processes for jobs on their last try.

    Where there can be no such process, it reads and starts the jobs here, beside the other jobs of the
    session. It runs one at a time: of two, both might end for what one of them did.

    Args:
        spawner: starts the processes; None in such a process.
        consumer: says in which streams the jobs wait.
        held: the jobs of the session.
        executor_queues: reads streams while the fetcher's read may be waiting.
    """

    def __init__(
        self,
        spawner: Spawner | None,
        consumer: Consumer,
        held: HeldJobs,
        executor_queues: ExecutorQueueReader,
    ) -> None:
        self._spawner = spawner
        self._consumer = consumer
        self._held = held
        self._executor_queues = executor_queues
        self._called = asyncio.Event()

    def call(self, waiting: int) -> None:
        """Starts processes, or wakes `run`, because so many jobs wait for their last try."""
        if self._spawner is not None and not self._spawner.start(waiting):
            self._called.set()

    async def stop(self, grace: float, at_once: asyncio.Event) -> None:
        """Waits until the child processes have ended, see `Spawner.stop`."""
        if self._spawner is not None:
            await self._spawner.stop(grace, at_once)

    async def run(self) -> None:
        """Runs jobs here that no child process can run, until it is cancelled."""
        await forever(self._turn, ErrorLog(log, "jobs on their last try could not be read; trying again"))

    async def _turn(self) -> None:
        """Waits until it is called, and runs one job on its last try here."""
        await self._called.wait()
        await self._held.until_room()
        self._called.clear()
        for queue in self._consumer.served.open_last_attempt_queues:
            if found := await self._executor_queues.read(queue, 1):
                self._called.set()  # there may be more
                for item in found:
                    self._warn(self._consumer.job_id(item))
                await self._held.until_none_of(self._consumer.served.last_attempt_queues)
                return

    @staticmethod
    def _warn(job_id: str | None) -> None:
        log.warning(
            "job %r is on its last try before max_crashes, and runs beside other jobs of this worker, "
            "because no other process can import its app. If one of these jobs kills the worker, the death "
            "counts for all of them. Start workers with `asyncq worker`, or put the app at the top of a "
            "module",
            job_id,
        )
