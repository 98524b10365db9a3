"""Lists jobs: those that run, and pages of all others, also of those that have ended. Runs on the session's
loop.

A listing visits **places** one after the other, always in the same order: the streams of each queue for jobs
that workers have, the same for jobs that wait there, then the jobs that wait for their time, those that wait
for other jobs, and the history, in each part of it the newest first. The cursor of a page says in which
place, and behind which job, the next page goes on.
"""

from __future__ import annotations

import asyncio
import logging
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, NamedTuple

from asyncq import config, failures, wire
from asyncq.broker.history import EndedJob
from asyncq.broker.job_lists import READ_AT_ONCE, FoundJobs, ListedJob
from asyncq.broker.schema import damaged_data
from asyncq.broker.schema.keys import name_to, text_of
from asyncq.control.pages import Page, decode_cursor, encode_cursor
from asyncq.errors import DecodeError
from asyncq.outcome import timestamp
from asyncq.short_repr import brief
from asyncq.states import READY_STATES, State
from asyncq.system import clock

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from asyncq.broker.broker import Broker
    from asyncq.broker.schema.keys import Keys
    from asyncq.broker.worker_store import RegisteredWorker

log: logging.Logger = logging.getLogger(__name__)

MOST_LOOKED_AT = 10_000
"""So many jobs one call looks at, and up to one reading of a place more."""
MOST_READINGS = 500
"""So many readings of places one call makes at most: of a thousand queues, most are empty."""
MOST_LISTED = 1000
"""Most jobs on a page."""

MOST_OF_ERROR = 200
"""Most characters of an error that a listing shows."""

RUNNING, WAITING, DELAYED, DEPENDENT, ENDED = range(5)
"""The kinds of places, in the order in which they are visited."""

_KINDS: dict[State, tuple[int, ...]] = {
    State.STARTED: (RUNNING,),
    State.PENDING: (WAITING, DELAYED, DEPENDENT),
    State.SCHEDULED: (DELAYED,),
    State.RETRY: (DELAYED,),
    State.SUCCESS: (ENDED,),
    State.FAILURE: (ENDED,),
    State.REVOKED: (ENDED,),
}
"""In which places the jobs of a state are."""


@dataclass(frozen=True, slots=True)
class JobInfo:
    """A job as a listing shows it. Nothing here changes when the job goes on.

    Attributes:
        id: the id of the job; `app.AsyncResult(id)` is its handle.
        task: the name of its task; empty if its message cannot be read.
        queue: its queue.
        state: where it is.
        worker: the name of the worker that has it, else None.
        attempt: the number of its attempt: 1 for the first.
        enqueued: when it was enqueued, in UTC.
        started: when a worker took it, in UTC; None if none has it.
        ended: when it ended, in UTC; None if it has not.
        error: the first line of the error of its last try; None without one.
    """

    id: str
    task: str
    queue: str
    state: State
    worker: str | None
    attempt: int
    enqueued: datetime | None
    started: datetime | None
    ended: datetime | None
    error: str | None


class Place(NamedTuple):
    """Where jobs are: a stream of a queue, or the delayed, dependent or ended jobs of a shard. Places sort in
    the order in which they are visited. For ended jobs, `stream` is their final state.
    """

    kind: int
    queue: str
    shard: int
    stream: str


class Filter(NamedTuple):
    """Which jobs to list. None means any.

    Attributes:
        state, queue, task: of the job.
        since: only jobs that were enqueued at this time or later, in ms since the epoch.
    """

    state: State | None
    queue: str | None
    task: str | None
    since: int | None

    def fits(self, job: JobInfo) -> bool:
        """Returns whether a job is to be listed."""
        return (
            self.state in (None, job.state)
            and self.queue in (None, job.queue)
            and self.task in (None, job.task)
            and (self.since is None or (job.enqueued is not None and _ms(job.enqueued) >= self.since))
        )

    @property
    def kinds(self) -> tuple[int, ...]:
        """The kinds of places that may have such jobs."""
        return tuple(range(5)) if self.state is None else _KINDS[self.state]


def filter_of(
    state: State | str | None, queue: str | None, task: str | None, since: float | timedelta | datetime | None
) -> Filter:
    """Checks filters as a user has given them.

    Raises:
        ValueError: one of them makes no sense.
        TypeError: one of them has a type that it cannot have.
    """
    known = None
    if state is not None:
        if state not in State.__members__.values():
            raise ValueError(f"state={brief(state)}: use one of {', '.join(_KINDS)}")
        known = State(state)
        if known not in _KINDS:
            raise ValueError(f"state={known}: no job is listed under it; use one of {', '.join(_KINDS)}")
    if queue is not None:
        config.name(queue)
    return Filter(known, queue, task, _since(since))


def _since(since: float | timedelta | datetime | None) -> int | None:
    if since is None:
        return None
    if isinstance(since, datetime):
        if since.tzinfo is None:
            raise ValueError(f"since={since!r} has no time zone: give it one, or write the age in seconds")
        return _ms(since)
    return round((clock.now() - config.duration("since", since)) * 1000)


def _ms(moment: datetime) -> int:
    return round(moment.timestamp() * 1000)


async def page_of(broker: Broker, wanted: Filter, limit: int, cursor: str | None) -> Page[JobInfo]:
    """Returns a page of jobs.

    Args:
        broker: of the session.
        wanted: which jobs.
        limit: at most so many.
        cursor: of the page before; None for the first.

    Raises:
        ValueError: `limit` or `cursor` makes no sense.
        BrokerUnavailable: no answer within the operation timeout.
    """
    if not 1 <= limit <= MOST_LISTED:
        raise ValueError(f"limit={limit!r}: a page has 1 to {MOST_LISTED} jobs; go on with page.cursor")
    begin, after = None, ""
    if cursor is not None:
        *fields, after = decode_cursor(cursor, int, str, int, str, str)
        begin = Place(*fields)
    found: list[JobInfo] = []
    looked_at = readings = 0
    for place in await _places(broker, wanted):
        if begin is not None and place < begin:
            continue
        after = after if place == begin else ""
        is_at_end = False
        while not is_at_end:
            if looked_at >= MOST_LOOKED_AT or readings >= MOST_READINGS:
                return Page(found, encode_cursor(*place, after), looked_at)
            readings += 1
            batch = await _read(broker, place, after, _how_many(place, wanted, limit - len(found)))
            jobs, count, behind = _fitting(batch, wanted, limit - len(found))
            found += jobs
            looked_at += count
            if len(found) == limit:
                return Page(found, _next_cursor(place, behind), looked_at)
            after, is_at_end = behind, not behind
    return Page(found, None, looked_at)


def _how_many(place: Place, wanted: Filter, room: int) -> int:
    """Returns how many jobs of a place to read. Where every job fits, no more than the page has room for."""
    every_fits = place.kind in (RUNNING, WAITING) and wanted.task is None and wanted.since is None
    return room if every_fits else READ_AT_ONCE


def _fitting(batch: FoundJobs, wanted: Filter, room: int) -> tuple[list[JobInfo], int, str]:
    """Returns those of the jobs that are to be listed, at most so many; how many were looked at for that; and
    from where to go on.
    """
    jobs: list[JobInfo] = []
    for number, (listed, behind) in enumerate(batch.jobs, 1):
        job = info_of(listed)
        if wanted.fits(job):
            jobs.append(job)
            if len(jobs) == room and number < len(batch.jobs):
                return jobs, number, behind
    return jobs, batch.looked_at, batch.after


def _next_cursor(place: Place, after: str) -> str:
    """Returns the cursor behind a job. Behind the last job of a place, it is the first place behind it."""
    return encode_cursor(*(place if after else place._replace(stream=place.stream + "\0")), after)


async def _places(broker: Broker, wanted: Filter) -> list[Place]:
    """Returns the places that may have such jobs, in the order in which they are visited."""
    kinds = wanted.kinds
    shards = broker.shards
    places = [
        Place(kind, "", keys.shard, "") for kind in (DELAYED, DEPENDENT) if kind in kinds for keys in shards
    ]
    if ENDED in kinds:
        states = [wanted.state] if wanted.state in READY_STATES else sorted(READY_STATES)
        places += [Place(ENDED, "", keys.shard, str(state)) for keys in shards for state in states]
    if RUNNING in kinds or WAITING in kinds:
        queues = await broker.queues.known() if wanted.queue is None else [wanted.queue]
        for queue, keys, names in await _streams(broker, queues):
            places += [
                Place(kind, queue, keys, name)
                for kind in (RUNNING, WAITING)
                if kind in kinds
                for name in names
            ]
    return sorted(places)


async def _streams(broker: Broker, queues: Sequence[str]) -> list[tuple[str, int, list[str]]]:
    """Returns the streams of queues: the queue, the number of the shard, and the names of the streams."""
    where = [(queue, keys) for queue in queues for keys in broker.shards]
    names = await asyncio.gather(*(broker.queues.streams(keys, queue) for queue, keys in where))
    return [(queue, keys.shard, some) for (queue, keys), some in zip(where, names, strict=True)]


async def _read(broker: Broker, place: Place, after: str, most: int) -> FoundJobs:
    """Reads some jobs of a place, from behind a job on."""
    keys = broker.shards[place.shard]
    if place.kind == DELAYED:
        return await broker.jobs.delayed(keys, after, most)
    if place.kind == DEPENDENT:
        return await broker.jobs.waiting_for_jobs(keys, after)
    if place.kind == ENDED:
        return await _ended(broker, keys, State(place.stream), after, most)
    return await broker.jobs.entries(keys, place.stream, after, most, running=place.kind == RUNNING)


async def _ended(broker: Broker, keys: Keys, state: State, after: str, most: int) -> FoundJobs:
    """Reads some ended jobs, the newest first."""
    found = await broker.history.page(keys, state, after, most)
    behind = found[-1][0] if len(found) == most else ""
    return FoundJobs([(job, entry) for entry, job in found], behind, len(found))


async def active(broker: Broker, workers: Iterable[RegisteredWorker] | None) -> list[JobInfo]:
    """Returns the jobs that workers have, the oldest of each queue first.

    Args:
        broker: of the session.
        workers: only jobs of these; None for those of all.
    """
    consumers = [""] if workers is None else [worker.session_id for worker in workers]
    streams = await _streams(broker, await broker.queues.known())
    found = await asyncio.gather(
        *(
            _running(broker, Place(RUNNING, queue, shard, name), consumer)
            for queue, shard, names in streams
            for name in names
            for consumer in consumers
        )
    )
    return [info_of(job) for jobs in found for job in jobs]


async def _running(broker: Broker, place: Place, consumer: str) -> list[ListedJob | EndedJob]:
    jobs: list[ListedJob | EndedJob] = []
    after = ""
    while True:
        batch = await broker.jobs.entries(
            *(broker.shards[place.shard], place.stream, after, READ_AT_ONCE), running=True, consumer=consumer
        )
        jobs += [job for job, _ in batch.jobs]
        if not (after := batch.after):
            return jobs


def info_of(job: ListedJob | EndedJob) -> JobInfo:
    """Returns a job that was found as a listing shows it."""
    if isinstance(job, EndedJob):
        return _ended_info(job)
    is_running = bool(job.consumer)
    return JobInfo(
        job.id,
        job.task,
        job.queue,
        State.STARTED if is_running else wire.STATE_OF.get(job.letter, State.PENDING),
        worker_name(job.consumer) if is_running else None,
        1 + job.crashes + job.retries,
        timestamp(job.enqueued) if job.enqueued else None,
        timestamp(job.claimed) if is_running else None,
        None,
        _first_line(job),
    )


def _ended_info(job: EndedJob) -> JobInfo:
    return JobInfo(
        *(job.id, job.task, job.queue, wire.STATE_OF[job.letter], job.worker or None, max(1, job.attempts)),
        *(timestamp(job.enqueued), timestamp(job.started), timestamp(job.finished), job.error or None),
    )


def worker_name(session_id: str) -> str:
    """Returns the name of the worker of a session: a session id is that name and a token."""
    return text_of(name_to(session_id)).rpartition("-")[0]


def _first_line(job: ListedJob) -> str | None:
    """Returns the first line of the error of its last try."""
    if not job.error:
        return None
    try:
        failure = failures.decode(job.error)
    except DecodeError as error:
        damaged_data.warn(log, "failure", f"the last error of job {job.id!r} could not be read", error)
        return None
    return f"{failure.type_name}: {failure.message}".partition("\n")[0][:MOST_OF_ERROR]
