"""The jobs that a worker session holds, and the slots that they run in. Lives on the worker's loop."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from asyncq.execution.slots import Slots

if TYPE_CHECKING:
    from collections.abc import Container

    from asyncq import wire
    from asyncq.worker.attempt import RunningJob

FETCHED_PER_SLOT = 4
"""At most so many jobs are held for each slot: outcomes that the server does not take must not pile up."""


class HeldJobs:
    """Jobs from their delivery until the server has answered their end.

    Args:
        concurrency: how many bodies run at the same time.
        max_parked: how many jobs more may wait for other jobs.
        stop: set once the worker is to stop.

    Attributes:
        stop: as given: what comes then is held until it is handed back, and does not begin.
        jobs: by entry and id, for the server can give out an entry id again after it lost its data.
        ending: jobs of which it is said already how they ended, but whose bodies go on and have their slots.
        newest: by id, the job that came last.
        older: by id, those that came before it: after a flush the id may have come in a second entry.
        reasons: why jobs were revoked, where somebody said so.
        slots: for the bodies.
        changed: set when a slot is free or a job is held no longer.
        idle: set while no job has a slot or waits for other jobs.
    """

    def __init__(self, concurrency: int, max_parked: int, stop: asyncio.Event) -> None:
        self.stop: asyncio.Event = stop
        self.jobs: dict[tuple[str, str], RunningJob] = {}
        self.ending: set[RunningJob] = set()
        self.newest: dict[str, RunningJob] = {}
        self.older: dict[str, list[RunningJob]] = {}
        self.reasons: dict[tuple[str, str], str] = {}
        self.changed: asyncio.Event = asyncio.Event()
        self.slots: Slots = Slots(concurrency, max_parked, self.changed.set)
        self.idle: asyncio.Event = asyncio.Event()
        self.idle.set()

    def __len__(self) -> int:
        return len(self.jobs)

    def entries_of(self, stream: str) -> list[str]:
        """The entries that are held of a stream."""
        deliveries = [job.delivery for job in self.jobs.values()]
        return [delivery.entry for delivery in deliveries if delivery.stream == stream]

    def make_older(self, id: str) -> None:
        """Another job with the id of one that is held comes."""
        self.older.setdefault(id, []).insert(0, self.newest[id])

    def with_id(self, id: str) -> list[RunningJob]:
        """All jobs that have this id."""
        newest = self.newest.get(id)
        return [] if newest is None else [newest, *self.older.get(id, ())]

    def drop(self, delivery: wire.Delivery) -> None:
        """The server has answered what became of a job."""
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
        """Forgets a job, where several may have its id."""
        rest = [other for other in self.with_id(id_) if other is not job]
        self.older.pop(id_, None)
        self.newest.pop(id_, None)
        if rest:
            self.newest[id_] = rest[0]
            if rest[1:]:
                self.older[id_] = rest[1:]

    def slot_given(self) -> None:
        """A job has left its slot. It may have been the last."""
        if not self.slots.busy and not self.slots.released:
            self.idle.set()

    def unfinished(self) -> list[RunningJob]:
        """The jobs whose tasks have not ended, and that are still ours."""
        return [job for job in self.jobs.values() if job.task is not None and not job.task.done()]

    async def until_room(self) -> None:
        """Waits until another job may be fetched."""
        slots = self.slots
        while slots.busy >= slots.limit or len(self.jobs) - slots.released >= FETCHED_PER_SLOT * slots.limit:
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
