"""Holds jobs that a session has fetched before it has slots for them, and starts them as soon as slots are
free.

Without this, worker and server take turns: the worker reads only when slots are free, and has nothing to run
until the answer is there. A job that waits here has not begun, and that is how everybody sees it:

- A crash of this worker does not count for it: the server knows what has begun, see `start_notes`.
- `revoke` ends it as revoked, and its body never starts.
- A session that stops hands it back, and so does this object when its jobs have waited for too long, because
  a body in a slot takes longer than those before it. Jobs that are handed back keep their turn: they go into
  the returned queue, which is read before the queue.

Runs on the worker's loop. The fetcher calls `adjust` before each read, `Attempts` adds and starts jobs.
"""

from __future__ import annotations

import asyncio
from collections import deque
from typing import TYPE_CHECKING, Any, Protocol

from asyncq.execution.executors import DROPPED, FETCHED
from asyncq.worker.body_times import BodyTimes
from asyncq.worker.job_returns import JobReturns
from asyncq.worker.start_notes import EntryHolder, StartNotes

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Coroutine, Iterable, Sequence

    from asyncq import wire
    from asyncq.broker.consumer import Consumer
    from asyncq.broker.entry_reader import Entry
    from asyncq.broker.served_streams import Served
    from asyncq.execution.executors import AttemptState
    from asyncq.execution.slots import Slots

LONGEST_WAIT = 0.01
"""Seconds: at the end of such a span, what has waited here through it is given back, unless it begins
soon.
"""
_SPANS = 5
"""Within so many such spans, at the pace of the last one, what waits begins soon. A busy machine slows the
pace, too, and there other workers are no better off.
"""
_LATE = 0.005
"""Seconds: if the timer of `LONGEST_WAIT` is later than that, the loop stood still: nothing could begin."""


class FetchedJob(Protocol):
    """A job that was fetched, see `RunningJob`."""

    delivery: wire.Delivery
    state: AttemptState


class JobHolder(EntryHolder, Protocol):
    """What it needs of the jobs that the session holds, see `HeldJobs`."""

    slots: Slots
    changed: asyncio.Event

    def is_full(self, ahead: int) -> bool:
        """Returns whether no other job may be held."""
        ...

    async def next_change(self) -> None:
        """Waits until a slot is free or a job is no longer held."""
        ...


class ReadAhead:
    """The jobs that a session has fetched ahead.

    Args:
        consumer: knows the streams, and sends notes of what has begun.
        held: the jobs of the session, and their slots.
        hand_back: makes new entries of jobs of a stream. Returns False if that is not possible now.
        start: starts a job in a slot that is free.
        background: starts a background task that the session waits for before it ends.

    Attributes:
        times: says how many jobs may be fetched ahead.
        notes: what the server knows of the streams. Only jobs of these streams are fetched ahead.
        returns: the jobs that are being handed back.
        count: how many jobs wait here, with those that were revoked meanwhile.
    """

    def __init__(
        self,
        consumer: Consumer,
        held: JobHolder,
        hand_back: Callable[[str, Sequence[wire.Delivery]], Awaitable[bool]],
        start: Callable[[Any], None],
        background: Callable[[Coroutine[Any, Any, None]], object],
    ) -> None:
        self.times: BodyTimes = BodyTimes()
        self.notes: StartNotes = StartNotes(consumer, held, background, self.start_waiting)
        self.returns: JobReturns = JobReturns(hand_back, background)
        self.count: int = 0
        self._served: Served = consumer.served
        self._held = held
        self._start = start
        self._waiting: dict[str, deque[FetchedJob]] = {}
        self._is_scheduled = self._is_closed = False
        self._timer: asyncio.TimerHandle | None = None
        self._started = 0  # how many jobs have left from here for a slot

    # -- before a read --

    async def adjust(self, own: Callable[[Iterable[str]], list[str]]) -> None:
        """Prepares the next read: lets the server know what has begun, for streams from which it may fetch
        ahead, or ends that. Nothing begins meanwhile of these streams, for only the fetcher reads them, and
        it waits here.

        Args:
            own: returns those of some streams that the caller reads.

        Raises:
            AsyncQError: the app was closed, or the server refuses.
        """
        self.times.expire()
        noted, served = self.notes.streams, self._served
        if self.times.most:
            for stream in own(served.streams):
                if stream not in noted and stream not in served.executor_queues:
                    await self.notes.open(stream)
        elif noted and not self.count and not self.returns.under_way:
            await self.notes.close(own(noted))

    async def until_room(self) -> int:
        """Waits until another job may be fetched, and returns how many."""
        while not (room := self.room()):
            await self._held.next_change()
        return room

    def room(self) -> int:
        """Returns how many jobs may be fetched now, for slots that are free and ahead."""
        slots, most = self._held.slots, self.times.most
        if self._held.is_full(most):
            return 0  # outcomes that the server does not accept must not pile up
        if 2 * self.count > most:
            return 0  # a read for a few jobs costs nearly as much as one for many
        return max(0, slots.limit - slots.busy - self.count + most)

    def free(self) -> int:
        """Returns how many slots are free for jobs that are not fetched yet."""
        slots = self._held.slots
        return max(0, slots.limit - slots.busy - self.count)

    async def until_fewer(self, count: int) -> None:
        """Waits until fewer than `count` jobs wait here, or a slot is free for one that is not fetched."""
        while self.count >= count and not self.free():
            await self._held.next_change()

    # -- after a read --

    def note_first(self, entries: Sequence[Entry]) -> int:
        """Notes that the first of some entries begin, as many as there are free slots. Returns how many of
        the entries the caller may start at once, before it awaits anything; it must give all others of noted
        streams to `add`.
        """
        noted = self.notes.streams
        if not noted:
            return len(entries)
        if self.count or self.notes.is_behind:
            return 0
        slots = self._held.slots
        free = max(0, slots.limit - slots.busy)
        started = {stream: entry for stream, entry, _ in entries[:free] if stream in noted}
        return free if self.notes.send(started) else 0

    def add(self, job: FetchedJob) -> None:
        """Takes a job for which no slot is free. The caller calls `start_waiting` after the last one."""
        if not self.count:
            self._held.slots.on_change = self._slot_freed
        self._waiting.setdefault(job.delivery.stream, deque()).append(job)
        self.count += 1

    def _slot_freed(self) -> None:
        """Starts jobs at the end of this turn of the loop, when all slots that become free in it are free.
        Called by the slots while a job waits here.
        """
        self._held.changed.set()
        if not self._is_scheduled:
            self._is_scheduled = True
            asyncio.get_running_loop().call_soon(self.start_waiting)

    def start_waiting(self) -> None:
        """Starts as many jobs as there are free slots, those of the most urgent stream first, and in the
        order of their delivery.
        """
        self._is_scheduled = False
        if self._is_closed or self.notes.is_behind or self._held.stop.is_set():
            return
        slots = self._held.slots
        chosen = self._choose(slots.limit - slots.busy)
        if chosen and self.notes.send({stream: jobs[-1].delivery.entry for stream, jobs in chosen.items()}):
            for stream, jobs in chosen.items():
                self._remove(stream, len(jobs))
                for job in jobs:
                    if job.state is FETCHED:
                        self._start(job)
            self._held.changed.set()
        self._set_timer()

    def _choose(self, most: int) -> dict[str, list[FetchedJob]]:
        """Returns the jobs that begin next, by stream, with those that were revoked between them."""
        chosen: dict[str, list[FetchedJob]] = {}
        for stream in self._served.streams:
            for job in self._waiting.get(stream, ()):
                if most <= 0:
                    break
                chosen.setdefault(stream, []).append(job)
                if job.state is FETCHED:
                    most -= 1
        return chosen

    def _remove(self, stream: str, number: int) -> None:
        waiting = self._waiting[stream]
        for _ in range(number):
            waiting.popleft()
        self._started += number
        self._set_count(self.count - number)

    def _set_count(self, count: int) -> None:
        self.count = count
        if not count:
            self._held.slots.on_change = self._held.changed.set

    # -- when they wait for too long --

    def _set_timer(self) -> None:
        """Sets the timer that gives back what waits here now, if it still waits then."""
        if self.count and self._timer is None and not self._is_closed:
            loop = asyncio.get_running_loop()
            due = loop.time() + LONGEST_WAIT
            last = [waiting[-1] for waiting in self._waiting.values() if waiting]
            self._timer = loop.call_at(due, self._check_wait, due, last, self._started)

    def _check_wait(self, due: float, last: list[FetchedJob], started: int) -> None:
        """Gives all jobs back if one of these still waits, and would wait for much longer.

        Args:
            due: when this was to be called.
            last: the last jobs that waited when the timer was set.
            started: how many had left from here by then.
        """
        self._timer = None
        is_slow = _SPANS * (self._started - started) < self.count
        # A loop that stood still could begin nothing, and begins now what waits here.
        is_late = asyncio.get_running_loop().time() - due > _LATE
        is_overdue = is_slow and any(job.state is FETCHED for job in last)
        if is_overdue and not is_late and not self.notes.is_behind:
            self._give_back()
        self._set_timer()

    def _give_back(self) -> None:
        """Hands all jobs back, each stream in its order, and lets nothing be fetched ahead for a while."""
        self.times.pause()
        waiting, self._waiting = self._waiting, {}
        self._set_count(0)
        for stream, jobs in waiting.items():
            some = [job for job in jobs if job.state is FETCHED]
            for job in some:
                job.state = DROPPED
            if some:
                self.returns.start(stream, [job.delivery for job in some])

    def close(self) -> None:
        """Starts nothing any more, because the session ends. What waits here is still held, and is handed
        back with all other jobs that have not begun.
        """
        self._is_closed = True
        self.returns.close()
        if self._timer is not None:
            self._timer.cancel()
