"""The jobs that a worker session holds, from their delivery to the answer of the server, and their slots.

`Attempts` adds jobs, the answers to `Claims` remove them, and fetcher and shutdown wait here for changes.
Everything runs on the worker's loop, so no method needs a lock. A job may have ended here and still be held:
the server has not answered yet, and without an answer its entry is still this session's.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from asyncq.execution.slots import Slots

if TYPE_CHECKING:
    from collections.abc import Container

    from asyncq import wire
    from asyncq.worker.attempt import RunningJob

MOST_HOOKS = 1000
"""While so many outcome hooks run, no other job may be held."""
FETCHED_PER_SLOT = 4
"""At most so many jobs are held for each slot. Outcomes that the server does not accept must not pile up."""


class HeldJobs:
    """The jobs of a session, from their delivery until the server has answered what became of them.

    Args:
        concurrency: how many bodies may run at the same time.
        max_parked: how many jobs beyond these may wait for other jobs.
        stop: set once the worker is to stop.

    Attributes:
        stop: as given. Jobs that are delivered after it was set do not start and are handed back.
        jobs: the jobs by entry and id. The entry alone is not enough: a server that lost its data may give
            out the same entry id again.
        ending: jobs whose outcome is sent already, while their bodies go on and keep their slots.
        cleaning_up: jobs whose dependencies are being cleaned up. Nothing cancels their asyncio tasks.
        newest: by id, the job that was delivered last.
        older: by id, the jobs that were delivered before `newest`. After a flush of the server, the same id
            may be delivered in a second entry.
        hooks: how many outcome hooks run, see `outcome_events`.
        reasons: why jobs were revoked, if a reason was given; by entry and id.
        slots: the slots for bodies.
        changed: set when a slot is free or a job is no longer held.
        idle: set while no job has a slot or waits for other jobs.
    """

    def __init__(self, concurrency: int, max_parked: int, stop: asyncio.Event) -> None:
        self.stop: asyncio.Event = stop
        self.jobs: dict[tuple[str, str], RunningJob] = {}
        self.ending: set[RunningJob] = set()
        self.cleaning_up: set[RunningJob] = set()
        self.newest: dict[str, RunningJob] = {}
        self.older: dict[str, list[RunningJob]] = {}
        self.hooks: int = 0
        self.reasons: dict[tuple[str, str], str] = {}
        self.changed: asyncio.Event = asyncio.Event()
        self.slots: Slots = Slots(concurrency, max_parked, self.changed.set)
        self.idle: asyncio.Event = asyncio.Event()
        self.idle.set()

    def __len__(self) -> int:
        return len(self.jobs)

    def entries_of(self, stream: str) -> list[str]:
        """Returns the entries of a stream that are held."""
        deliveries = [job.delivery for job in self.jobs.values()]
        return [delivery.entry for delivery in deliveries if delivery.stream == stream]

    def holds(self, key: tuple[str, str]) -> bool:
        """Returns whether a job is held, by its entry and id."""
        return key in self.jobs

    def make_older(self, id: str) -> None:
        """Makes room in `newest` for another job with the id of a job that is held."""
        self.older.setdefault(id, []).insert(0, self.newest[id])

    def with_id(self, id: str) -> list[RunningJob]:
        """Returns all jobs that have this id, the newest first."""
        newest = self.newest.get(id)
        return [] if newest is None else [newest, *self.older.get(id, ())]

    def drop(self, delivery: wire.Delivery) -> None:
        """Removes a job, because the server has answered what became of it."""
        id_ = delivery.job.id
        key = (delivery.entry, id_)
        job = self.jobs.pop(key, None)
        if not self.older:
            self.newest.pop(id_, None)
        elif job is not None:
            self._drop_one(id_, job)
        if self.reasons:
            self.reasons.pop(key, None)
        self.changed.set()

    def _drop_one(self, id_: str, job: RunningJob) -> None:
        """Removes a job from `newest` and `older`, where several jobs may have its id."""
        rest = [other for other in self.with_id(id_) if other is not job]
        self.older.pop(id_, None)
        self.newest.pop(id_, None)
        if rest:
            self.newest[id_] = rest[0]
            if rest[1:]:
                self.older[id_] = rest[1:]

    def slot_given(self) -> None:
        """Sets `idle` if the job that has just left its slot was the last one."""
        if not self.slots.busy and not self.slots.released:
            self.idle.set()

    def unfinished(self) -> list[RunningJob]:
        """Returns the jobs that are held and whose asyncio tasks have not ended."""
        return [job for job in self.jobs.values() if job.task is not None and not job.task.done()]

    def is_full(self, ahead: int = 0) -> bool:
        """Returns whether no other job may be held, also where so many may be fetched ahead."""
        if self.hooks >= MOST_HOOKS:
            return True
        return len(self.jobs) - self.slots.released >= FETCHED_PER_SLOT * self.slots.limit + 2 * ahead

    async def until_room(self) -> None:
        """Waits until a slot is free and another job may be held."""
        while self.slots.busy >= self.slots.limit or self.is_full():
            await self.next_change()

    async def until_no_body_runs(self) -> None:
        """Waits until no slot is taken. Jobs that wait for other jobs have none."""
        while self.slots.busy:
            await self.next_change()

    async def until_none_of(self, streams: Container[str]) -> None:
        """Waits until no job of these streams is held."""
        while any(job.delivery.stream in streams for job in self.jobs.values()):
            await self.next_change()

    async def next_change(self) -> None:
        """Waits until a slot is free, a job is held no longer, or there is room for more jobs."""
        self.changed.clear()
        await self.changed.wait()
