"""Says how much a session may read from each stream, and reads executor queues: the streams of jobs that wait
for a thread or a process.

A background task of a worker session, on the worker's loop. While no thread or process is free, the fetcher's
read leaves their executor queues out. That read may still be waiting at the server when a thread becomes
free. So the executor queue is read here, on the connection for commands.
"""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING

from asyncq.broker.transport.background import ErrorLog, forever

if TYPE_CHECKING:
    from collections.abc import Iterable

    from asyncq.broker.consumer import Consumer
    from asyncq.broker.entry_reader import Entry
    from asyncq.worker.attempt import Attempts
    from asyncq.worker.capacity import Capacity
    from asyncq.worker.held_jobs import HeldJobs

log: logging.Logger = logging.getLogger(__name__)


class ExecutorQueueReader:
    """Reads executor queues for one session.

    Args:
        consumer: reads.
        held: says how many slots are free.
        attempts: starts the jobs.
        capacity: says for how many jobs there are threads and processes.

    Attributes:
        capacity: as given.
        reading: a lock that is held from the read of an executor queue until its jobs have started. The
            fetcher holds it while it asks for unknown pending entries. Otherwise the entries of a read that
            is under way would seem to be lost.
        may_have_lost_a_reply: the streams of which a read failed here that may have claimed entries.
    """

    def __init__(self, consumer: Consumer, held: HeldJobs, attempts: Attempts, capacity: Capacity) -> None:
        self.capacity = capacity
        self.reading: asyncio.Lock = asyncio.Lock()
        self.may_have_lost_a_reply: set[str] = set()
        self._consumer = consumer
        self._held = held
        self._attempts = attempts
        self._capacity_freed = asyncio.Event()
        self._left_out: set[str] = set()

    def choose(self, count: int) -> dict[str, int]:
        """Returns from which streams the fetcher reads now, and at most how many of `count` jobs from each.

        This object reads from the other streams as soon as there is room for their jobs.
        """
        most = self._most(count, self._consumer.served.open_streams)
        self._leave_out({stream for stream, number in most.items() if number <= 0})
        return {stream: number for stream, number in most.items() if number > 0}

    def _leave_out(self, streams: set[str]) -> None:
        """Stores which streams the fetcher leaves out, and which executors have jobs in their queues."""
        queues = self._consumer.served.executor_queues
        self._left_out = streams
        self.capacity.with_queue = {queues[stream] for stream in streams if stream in queues}

    @property
    def leaves_out(self) -> bool:
        """Whether `choose` has left streams out."""
        return bool(self._left_out)

    def _most(self, count: int, streams: Iterable[str]) -> dict[str, int]:
        """Returns how many of `count` jobs may be read from each stream."""
        queues, of_queue = self._consumer.served.executor_queues, self.capacity.most_of_queue(count)
        return {
            stream: min(count, self.capacity.free(queues[stream])) if stream in queues else of_queue
            for stream in streams
        }

    def capacity_freed(self) -> None:
        """Wakes the readers, because a thread or a process may be free."""
        self._held.changed.set()
        if self._left_out:
            self._capacity_freed.set()

    async def run(self) -> None:
        """Reads executor queues when there is room for their jobs, until it is cancelled."""
        await forever(self._turn, ErrorLog(log, "no jobs could be read from an executor queue; trying again"))

    async def _turn(self) -> None:
        """Waits for room, and reads from the executor queues that the fetcher leaves out."""
        await self._capacity_freed.wait()
        self._capacity_freed.clear()
        served, slots = self._consumer.served, self._held.slots
        queues = [
            stream
            for stream in served.open_streams
            if stream in self._left_out and stream in served.executor_queues
        ]
        for stream, count in self._most(slots.limit - slots.busy, queues).items():
            if count <= 0:
                continue
            if await self.read(stream, count):
                self._capacity_freed.set()  # there may be more jobs, and more room
                return
            self._leave_out(self._left_out - {stream})  # it is empty: the fetcher's next read has it again

    async def read(self, stream: str, count: int) -> list[Entry]:
        """Reads up to `count` jobs from a stream and starts them. Returns their entries; none if the queue is
        paused, or the worker is quiet.

        It works while the fetcher's read waits at the server.
        """
        async with self.reading:
            if not self._consumer.served.is_open(stream):  # it may have been closed while this waited
                return []
            try:
                entries = await self._consumer.read_separately(stream, count)
                await self._attempts.start(entries)
            except BaseException:
                self.may_have_lost_a_reply.add(stream)
                raise
        return entries
