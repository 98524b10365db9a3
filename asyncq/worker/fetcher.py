"""Reads entries from the queues whenever a slot is free, and starts their jobs. Reading an entry claims it.

A background task of a worker session, on the worker's loop; on a Cluster, one for each shard. It reads as
many entries as there are free slots, and what it has read starts within the same turn of the loop. So a job
without a free slot stays in its queue, where another worker finds it. While bodies are short, it also reads
some jobs ahead, see `read_ahead`. After any error, and every two leases, it asks for unknown pending entries,
because the reply of a read may have been lost.
"""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING

from asyncq.broker.entry_reader import BLOCK_MS, NO_OTHER, Interrupted
from asyncq.broker.transport.background import ErrorLog, unexpected
from asyncq.broker.transport.reconnect import pause
from asyncq.broker.transport.server_error import ErrorAction, ServerError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    from asyncq.broker.consumer import Consumer
    from asyncq.broker.entry_reader import Entry, EntryReader
    from asyncq.worker.attempt import Attempts
    from asyncq.worker.executor_streams import ExecutorQueueReader
    from asyncq.worker.held_jobs import HeldJobs
    from asyncq.worker.permits import Limiter
    from asyncq.worker.read_shares import ReadShare
    from asyncq.worker.worker import Worker

log: logging.Logger = logging.getLogger(__name__)

MOST_AT_ONCE = 500
SHORT_BLOCK_MS = 500
"""Milliseconds that a read waits at the server if it leaves out executor queues, because their executors are
busy. A thread may become free while those queues are empty; then nothing else ends this read."""
LAST_ATTEMPT_INTERVAL = 1.0
"""Seconds between two reads of a process for last attempts, while jobs that it runs wait for others."""


class Fetcher:
    """Reads for one session, from the streams of some shards.

    Args:
        reader: of the shards; None for all of them, for a worker that runs only last attempts.
        share: of the room, if there are other fetchers.
        worker: says whether only last attempts are run.
        consumer: reads.
        held: says how many slots are free.
        attempts: starts the jobs.
        limiter: releases permits that no job holds, whenever the fetcher asks for unknown pending entries.
        executor_queues: says how much to read from each stream.
    """

    def __init__(
        self,
        reader: EntryReader | None,
        share: ReadShare | None,
        worker: Worker,
        consumer: Consumer,
        held: HeldJobs,
        attempts: Attempts,
        limiter: Limiter,
        executor_queues: ExecutorQueueReader,
    ) -> None:
        self._reader = reader
        self._share = share
        self._worker = worker
        self._consumer = consumer
        self._held = held
        self._attempts = attempts
        self._limiter = limiter
        self._executor_queues = executor_queues
        self._may_have_lost_a_reply = False
        self._gave_up_a_read = False
        # No calls of its own for one server: every read passes here. `_own` returns the streams from which it
        # reads, of some streams.
        self._own: Callable[[Iterable[str]], list[str]] = list
        if reader is not None:
            self._own = reader.own if share is not None else list
            self._read_streams = self._read_shared if share is not None else reader.read

    async def run(self) -> None:
        """Reads until it is cancelled."""
        loop = asyncio.get_running_loop()
        errors = ErrorLog(log, "no jobs could be read; trying again")
        interval = 2 * self._consumer.settings.lease
        times = self._attempts.ahead.times
        failures = 0
        last_check = loop.time()
        while True:
            try:
                lost = self._executor_queues.may_have_lost_a_reply
                lost_one = self._may_have_lost_a_reply or (lost and self._own(lost))
                if lost_one or loop.time() - last_check > interval:
                    await self._start_unknown_entries()
                    last_check = loop.time()
                room, most = min(await self._room(), MOST_AT_ONCE), self._consumer.limit.entries
                entries = await self._read(room)
                is_full = len(entries) >= min(room, most)
                if is_full or times.measures:
                    times.add_read(is_full=is_full)
                await self._attempts.start(entries)
                if self._share is not None:
                    self._share.give_back()
                failures = 0
            except Interrupted:  # the read was given up, because there are other streams to read from
                self._may_have_lost_a_reply = self._gave_up_a_read = True
                self._give_back()
            except Exception as error:  # noqa: BLE001  whatever it was, a worker that does not read is useless
                # Whatever went wrong, a reply with entries may have been lost.
                self._may_have_lost_a_reply = True
                self._give_back()
                failures += 1
                if unexpected(error) is not None:
                    errors.add(error)
                await self._recover(error, failures)

    async def _room(self) -> int:
        """Waits until jobs may be fetched, and returns how many. Lets the server know what has begun, for
        streams from which some of them are fetched ahead.
        """
        ahead = self._attempts.ahead
        while True:
            room = ahead.room() or await ahead.until_room()
            if self._share is not None:
                room = await self._take(self._share)
            # Behind these waits, and right before the read: how many jobs may be fetched ahead changes
            # meanwhile. A read ahead from a stream that is not noted gets less than it asks for, which looks
            # as if the queue were empty, and then nothing would be fetched ahead.
            if ahead.times.most or ahead.notes.streams:
                await ahead.adjust(self._own)
                room = min(room, ahead.room())
            if room:
                return room
            self._give_back()

    async def _take(self, share: ReadShare) -> int:
        """Waits for a share of the room, takes it, and returns how many jobs it is."""
        while not (room := share.take(self._attempts.ahead.room())):
            await self._held.next_change()
        return room

    def _give_back(self) -> None:
        if self._share is not None:
            self._share.give_back()

    async def _read(self, room: int) -> list[Entry]:
        """Reads once, at most as many entries as there is room for."""
        if self._worker.only_last_tries:
            await self._run_last_attempts()
            return []
        free = room if not self._attempts.ahead.times.most else self._attempts.ahead.free()
        streams = self._own(self._consumer.served.open_streams)
        if not streams:  # all of its queues are paused, or the worker is quiet
            await self._consumer.until_streams_change()
            return []
        if self._executor_queues.capacity.off_loop:
            # No more jobs than there are free threads and processes, as far as that can be known.
            most = self._executor_queues.choose(room)
            most = {stream: most[stream] for stream in self._own(most)}
            if not most:
                await self._held.next_change()
                return []
        elif room <= free:
            return await self._read_streams(streams, room, block=True, timeout=BLOCK_MS)
        else:
            most = dict.fromkeys(streams, room)
        return await self._read_most(most, room, free)

    async def _read_most(self, most: dict[str, int], room: int, free: int) -> list[Entry]:
        """Reads once, with a limit for each stream.

        Args:
            most: how many jobs to read of each stream.
            room: at most so many in all.
            free: how many of them may begin at once. Others are read ahead, from streams that are noted.
        """
        noted = self._attempts.ahead.notes.streams
        most = {stream: count if stream in noted else min(count, free) for stream, count in most.items()}
        streams = [stream for stream, count in most.items() if count > 0]
        timeout = SHORT_BLOCK_MS if self._executor_queues.leaves_out else BLOCK_MS
        waiting = self._attempts.ahead.count
        entries: list[Entry] = []
        if streams:
            # A job that comes while no slot is free is better left to other workers, so such a read does not
            # wait.
            entries = await self._read_streams(streams, room, block=free > 0, most=most, timeout=timeout)
        if not entries and not free:
            await self._attempts.ahead.until_fewer(waiting)
        return entries

    async def _read_shared(
        self,
        streams: Sequence[str],
        room: int,
        *,
        block: bool,
        timeout: int,
        most: Mapping[str, int] = NO_OTHER,
    ) -> list[Entry]:
        """Reads once, beside other fetchers; arguments as of `EntryReader.read`. It gives its share back
        before it waits, and then takes what comes first.
        """
        reader, share = self._reader, self._share
        assert reader is not None
        assert share is not None
        # After a wait in vain, the next wait asks the same. It returns at once if there is something.
        waits_again = share.waited_in_vain and block
        if not waits_again:
            entries = await reader.read(streams, room, block=False, most=most)
            if entries or not block:
                return entries
        with share.waiting():
            entries = await reader.wait(streams, timeout, chosen_now=waits_again)
        share.waited_in_vain = not entries
        return entries

    async def _recover(self, error: Exception, failures: int) -> None:
        """Does what the error asks for, or pauses. An error in here is only logged."""
        if failures == 3:
            log.warning("no jobs can be read at the moment (%s); trying again", error)
        try:
            if isinstance(error, ServerError) and error.action is ErrorAction.NO_GROUP:
                log.warning(
                    "the server has lost the consumer group of the queue (%s); creating it again", error
                )
                await self._consumer.make_groups()
            elif isinstance(error, ServerError) and self._reader is not None:
                mend = self._attempts.session.broker.commands.mend
                if not await mend(self._reader.shards[0], error):
                    await asyncio.sleep(pause(failures))
            else:
                await asyncio.sleep(pause(failures))
        except Exception as another:  # noqa: BLE001  see above
            log.debug("the next read of jobs must wait: %s", another)
            await asyncio.sleep(pause(failures))

    # -- unknown pending entries --

    async def _start_unknown_entries(self) -> None:
        """Starts jobs whose delivery was lost: this session is the consumer of their entries, and the reply
        of the read has not arrived.

        It asks on the connection that reads. So no read is under way whose entries would seem to be lost.
        """
        served = self._consumer.served
        # Before the first request: if a read of an executor queue loses a reply meanwhile, the next call sees
        # it.
        self._executor_queues.may_have_lost_a_reply.difference_update(
            self._own(self._executor_queues.may_have_lost_a_reply)
        )
        for stream in self._own((*served.streams, *served.last_attempt_queues)):
            async with self._executor_queues.reading:
                found = await self._consumer.unknown_entries(stream, self._held.entries_of(stream))
                if found:
                    level = logging.DEBUG if self._gave_up_a_read else logging.WARNING
                    log.log(level, "%d jobs whose delivery was lost are started now", len(found))
                await self._attempts.start(found)
        await self._limiter.audit()
        self._may_have_lost_a_reply = self._gave_up_a_read = False

    # -- the last-attempt queue --

    async def _run_last_attempts(self) -> None:
        """Runs jobs on their last attempt, one at a time.

        Each of them may be what took other workers down, so no body runs beside it.
        """
        await self._until_quiet()
        while (queues := list(self._consumer.served.open_last_attempt_queues)) and (
            alone := await self._consumer.read(queues, 1, block=False)
        ):
            await self._attempts.start(alone)
            await self._until_quiet()
        if self._held.slots.released:
            # The jobs that they wait for may come into the last-attempt queue, too, and nobody else reads it.
            await asyncio.sleep(LAST_ATTEMPT_INTERVAL)
            return
        self._worker.stop()
        await asyncio.Event().wait()  # until the session ends

    async def _until_quiet(self) -> None:
        """Waits until no body runs and all outcomes are stored.

        Jobs that wait for other jobs do not count: they do nothing, and may wait for jobs that come later.
        """
        await self._held.until_no_body_runs()
        await self._attempts.outcomes.until_stored()
