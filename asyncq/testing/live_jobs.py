"""The jobs of a test that have not ended, and its schedules, as the server has them: `drain` and `advance`
wait by this list.

The server is asked again every few milliseconds: a job may be started by another one at any moment, and only
the server sees all of them in one step.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import TYPE_CHECKING

from asyncq.broker.transport import virtual_time
from asyncq.system import clock
from asyncq.testing.enqueued_jobs import describe
from asyncq.testing.virtual_clock import script, shard_arguments

if TYPE_CHECKING:
    from collections.abc import Iterable

    from asyncq.testing.enqueued_jobs import EnqueuedJob, Journal
    from asyncq.testing.private_servers import HarnessServer
    from asyncq.testing.recording_sessions import RecordingSessions

_LIVE_JOBS = script("live_jobs")
POLL = 0.003
"""Seconds between two looks."""
_QUEUED, _SCHEDULED, _RETRYING, _DEFERRED = "L", "D", "R", "P"
_SCHEDULE = ""
"""In place of the letter of a job, if it is a schedule."""


@dataclass(frozen=True, slots=True)
class LiveJob:
    """A job that has not ended, or a schedule, which waits for its next tick.

    Attributes:
        id: the job's id; `schedule <name>` of a schedule.
        letter: of its state in the record.
        wait: seconds of the virtual clock until it is due; None if it does not wait for its time. A job that
            waits for a permit does not: it is woken.
        holder: the worker session that has it, or an empty text.
    """

    id: str
    letter: str
    wait: float | None
    holder: str

    def is_due(self, *, is_limit_due: bool) -> bool:
        """Whether it is to end without any change of the clock: it is queued, runs, or waits for a permit.

        Args:
            is_limit_due: whether that is also true of a job that waits for the rate limit of its task.
        """
        if self.letter == _DEFERRED and is_limit_due:
            return True
        if self.letter in {_SCHEDULED, _RETRYING, _DEFERRED, _SCHEDULE} and self.wait is not None:
            return self.wait <= 0
        return self.letter in {_QUEUED, _DEFERRED}

    @property
    def status(self) -> str:
        """What it does, for a message."""
        if self.letter == _QUEUED:
            return "runs" if self.holder else "is queued"
        return "waits for a limit of its task" if self.letter == _DEFERRED else "is due"


class LiveJobs:
    """Asks the server for the jobs that have not ended.

    Args:
        connected: the server.
        journal: knows the calls.
        sessions: of the app.
    """

    def __init__(self, connected: HarnessServer, journal: Journal, sessions: RecordingSessions) -> None:
        self._connected = connected
        self._journal = journal
        self._sessions = sessions
        self._arguments = [text for keys in sessions.shards for text in shard_arguments(keys)]

    async def _list(self) -> tuple[list[LiveJob], bool]:
        """Returns the jobs, and whether something is under way from shard to shard."""
        now, is_under_way, *found = await self._connected.send(
            "EVAL", _LIVE_JOBS, 1, virtual_time.KEY, *self._arguments
        )
        jobs = [
            LiveJob(
                id_.decode() if letter else f"schedule {id_.decode()}",
                letter.decode(),
                (float(due) - now) / 1000 if due else None,
                holder.decode(),
            )
            for id_, letter, due, holder in found
        ]
        return jobs, bool(is_under_way)

    async def _due(
        self, exempt: Iterable[str] = (), *, is_limit_due: bool = False
    ) -> tuple[list[LiveJob], bool]:
        jobs, is_under_way = await self._list()
        left_out = set(exempt)
        due = [job for job in jobs if job.is_due(is_limit_due=is_limit_due) and job.id not in left_out]
        return due, is_under_way

    async def until_idle(
        self, timeout: float | None, exempt: Iterable[str] = (), *, is_limit_due: bool = False
    ) -> bool:
        """Waits until no job is due, those left out that are exempt. Returns False if the time is over first.

        Args:
            timeout: in seconds; None waits for ever, 0 looks once.
            exempt: ids of jobs that are not waited for.
            is_limit_due: see `LiveJob.is_due`.
        """
        clock_now = asyncio.get_running_loop().time
        end = None if timeout is None else clock_now() + timeout
        while any(await self._due(exempt, is_limit_due=is_limit_due)):
            if end is not None and clock_now() >= end:
                return False
            await asyncio.sleep(POLL)
        return True

    async def unended(self) -> list[LiveJob]:
        """Returns the jobs that are queued or run."""
        jobs, _ = await self._list()
        return [job for job in jobs if job.letter == _QUEUED]

    async def due_after(self, patience: float) -> frozenset[str]:
        """Waits until no job is due, for so many seconds. Returns the ids of those that are due even then."""
        if await self.until_idle(patience):
            return frozenset()
        jobs, _ = await self._due()
        return frozenset(job.id for job in jobs)

    async def next_due(self) -> float | None:
        """Returns the seconds until the next job is due; None if none waits for its time. A job that is due
        and that nobody has moved into its queue does not count.
        """
        jobs, _ = await self._list()
        return min((job.wait for job in jobs if job.wait is not None and job.wait > 0), default=None)

    async def described(self, exempt: Iterable[str] = (), *, is_limit_due: bool = False) -> list[str]:
        """Returns a line for each job that is due."""
        jobs, is_under_way = await self._due(exempt, is_limit_due=is_limit_due)
        if not jobs and is_under_way:
            return ["  entries between shards"]
        return described(jobs, self._journal.by_id())

    async def expire(self) -> None:
        """Ends the jobs that may not start any more and that no worker has, as a waiter for them would."""
        ids = self._journal.expiring(clock.now())
        if not ids:
            return
        live = {job.id for job in (await self._list())[0]}
        for session in self._sessions.recorders():
            if session.is_on_app_loop():
                for id_ in live.intersection(ids):
                    await session.broker.expire(id_)
                return

    async def learn_states(self) -> None:
        """Makes the handles of this process show the states of their jobs, also if notifications are late."""
        for session in self._sessions.recorders():
            await session.run_on_app_loop(session.learn_states())


def described(jobs: Iterable[LiveJob], known: dict[str, EnqueuedJob]) -> list[str]:
    """Returns a line for each job."""
    return [f"  {_described(job, known)}, which {job.status}" for job in jobs]


def _described(job: LiveJob, known: dict[str, EnqueuedJob]) -> str:
    if job.id in known:
        return describe(known[job.id])
    return job.id if job.letter == _SCHEDULE else f"job {job.id}"
