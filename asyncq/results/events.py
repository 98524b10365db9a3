"""The events of one job: its states as they come, and what the task reports of itself.

A follower runs on the loop of the session that serves its first step. The server pushes most events; what it
does not push, a query finds. A push and a query travel on two connections, so either may overtake the other:
each event has a rank, and a follower never goes back to a lower one.
"""

from __future__ import annotations

import logging
import time
from collections import deque
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

from asyncq import failures, wire
from asyncq.broker.job_channel import JobChannel
from asyncq.broker.schema import damaged_data
from asyncq.broker.schema.records import Flags
from asyncq.broker.waiters import POLL
from asyncq.config import shown
from asyncq.errors import BrokerUnavailable, DecodeError, ResultNotFound, ResultTimeout
from asyncq.outcome import timestamp
from asyncq.serializers import PLAIN_VALUE
from asyncq.states import READY_STATES, State

if TYPE_CHECKING:
    from datetime import datetime

    from asyncq.client.session import Session
    from asyncq.outcome import Outcome
    from asyncq.results.followed import Followed

log: logging.Logger = logging.getLogger(__name__)

FIRST_PAUSE, LONGEST_PAUSE = 0.02, 1.0
"""Seconds between two looks at a job that has not been started. No push says that a job was started, for that
would cost every job a command."""
KEPT = 1000
"""How many events wait to be taken, at most; then the oldest are dropped."""

Rank = tuple[tuple[int, int], int, int]
"""How far a job has come: the stream entry of the attempt, how far that attempt is (waits, runs, has reported
something, has failed), and the number of its report."""
_WAITS, _RUNS, _SAYS, _FAILED = range(4)


@dataclass(frozen=True, slots=True)
class Event:
    """One thing that happened to a job, as `AsyncResult.events` gives it.

    Attributes:
        state: the new state: a `State`, or a word of the task's own such as `PROGRESS`.
        info: with a word of the task's own, what it reported (with `progress`, a dict with `done`, `total`
            and `message`); at the end, the value or the exception; before a retry, the last exception; else
            None.
        at: when it happened, in UTC, as far as it is known.

    Example:
        ```python
        async for event in result.events():
            if event.state == "PROGRESS":
                print(event.info["done"], "of", event.info["total"])
        ```
    """

    state: State | str
    info: Any = None
    at: datetime | None = None

    @property
    def meta(self) -> Any:
        """The info, by Celery's name for what `update_state` took."""
        return self.info

    @property
    def final(self) -> bool:
        """Whether the job has ended: no event follows."""
        return self.state in READY_STATES


class EventSource(Protocol):
    """Gives events to one iteration."""

    session: Session | None
    """The session that serves it, once it has subscribed."""

    async def next(self) -> Event | None:
        """Waits for the next event; None after the final one. Raises as `AsyncResult.events`."""
        ...

    def close(self) -> None:
        """Ends the iteration. From any thread; twice is once."""
        ...


class EventFollower:
    """Gives the events of a job at the server to one iteration.

    A push may be lost, and a push may overtake a query on the other connection. So each event has a rank, and
    one with a lower rank than the last is dropped. The exception is a query during which nothing was pushed:
    it is the truth, whatever it says.

    Args:
        job: the job.
        limit: seconds for the whole iteration; None for ever.

    Attributes:
        session: the session that serves it, once it has subscribed.
    """

    def __init__(self, job: Followed, limit: float | None) -> None:
        self._job = job
        self._limit = limit
        self._end = None if limit is None else time.monotonic() + limit
        self._ready: deque[Event] = deque(maxlen=KEPT)
        self._last: tuple[Rank, State | str] | None = None
        self._job_channel: JobChannel | None = None
        self._pause = FIRST_PAUSE
        self._ended = False
        self.session: Session | None = None

    def close(self) -> None:
        """See `EventSource`."""
        if self._job_channel is not None:
            self._job_channel.close()

    async def next(self) -> Event | None:
        """See `EventSource`."""
        job = self._job
        waiter = job.waiter()
        if self._last is not None and not self._ended and waiter.ended is None:
            await self._check_time()  # also where an event is always ready
        while not self._ready:
            if self._ended:
                return None
            if self._job_channel is None:
                channel = job.app.sessions.shards.of(job.id).events + job.id
                self.session = job.app.sessions.current()
                self._job_channel = await JobChannel.open(
                    self.session.listener, waiter, channel, self._on_message
                )
            if waiter.ended is not None:
                self._finish()
            elif self._job_channel.stale:
                await self._query(self._job_channel)
            elif not await self._job_channel.wait_for_message(self._poll_timeout()):
                self._job_channel.stale = True
                await self._check_time()
        return self._ready.popleft()

    def _poll_timeout(self) -> float:
        """Returns how long to wait for a push before the job is polled."""
        pause = POLL
        if self._last is not None and self._last[0][1] in {_WAITS, _FAILED}:
            pause = self._pause
            self._pause = min(self._pause * 1.5, LONGEST_PAUSE)
        return pause if self._end is None else max(0.0, min(pause, self._end - time.monotonic()))

    async def _check_time(self) -> None:
        if self._end is None or time.monotonic() < self._end:
            return
        if self._job_channel is not None:
            await self._query(self._job_channel)  # so that the error names the present state
        if self._job.waiter().ended is None:
            state = self._job.state
            raise ResultTimeout(
                f"job {self._job.id} did not end within {shown(self._limit)} (it goes on; state: {state})"
            )

    async def _query(self, job_channel: JobChannel) -> None:
        job_channel.stale = False
        received, last = job_channel.received, self._last
        waiter = self._job.waiter()
        left = None if self._end is None else max(0.2, self._end - time.monotonic())
        try:
            answer = await self._job.app.sessions.current().broker.state(self._job.id, left)
        except BrokerUnavailable as error:
            # The server may come back, as in `get`; only the timeout bounds the wait for it.
            log.debug("the state of job %r could not be fetched (%s); trying again", self._job.id, error)
            return
        if waiter.ended is not None:
            return  # a push came meanwhile
        if answer is None or (isinstance(answer, wire.JobSnapshot) and Flags(answer.flags).is_ignored):
            self._job.app.sessions.current().listener.learn(waiter, None if answer is None else answer.flags)
            raise ResultNotFound(
                f"no job to follow under the id {self._job.id!r}: unknown, forgotten, expired "
                "(result_ttl), or its task ignores results"
            )
        self._job.app.sessions.current().listener.take_status(waiter, answer)
        if isinstance(answer, wire.JobSnapshot):
            self._take_status(answer, last, quiet=job_channel.received == received)

    # -- what comes --

    def _take_status(
        self, snapshot: wire.JobSnapshot, before: tuple[Rank, Any] | None, *, quiet: bool
    ) -> None:
        # `before` is the rank when the query began. A push that came meanwhile may be of a later attempt than
        # the answer, and with its rank the answer would be taken for the failure of that attempt.
        rank, event = _described(snapshot, before)
        if quiet and self._last is not None and rank <= self._last[0] and event.state != self._last[1]:
            self._last = None  # the server has lost data: accept the older state
        self._add(rank, event)

    def _on_message(self, message: bytes) -> None:
        try:
            rank, event = self._read(message)
        except (DecodeError, ValueError) as error:
            # Anybody who may publish can send rubbish. A query finds the truth.
            damaged_data.warn(log, "event", f"an event of job {self._job.id!r} could not be read", error)
            rank = event = None
        if rank is None or event is None:
            if self._job_channel is not None:
                self._job_channel.stale = True
            return
        self._add(rank, event)

    def _read(self, message: bytes) -> tuple[Rank | None, Event | None]:
        kind, rest = message[:1], message[1:]
        if kind == b"p":
            report = wire.decode_report(rest)
            event = _of_report(report)
            self._job.waiter().take_report(report)
            return event
        if kind == b"r":
            entry, retries, failure = rest.split(b" ", 2)
            rank = wire.entry_order(entry.decode()), _FAILED, int(retries)
            return rank, Event(State.RETRY, failures.decode(failure).rebuild())
        if kind == b"q":
            return (wire.entry_order(rest.decode()), _WAITS, 0), Event(State.PENDING)
        return None, None

    def _add(self, rank: Rank, event: Event) -> None:
        if self._last is not None and rank <= self._last[0]:
            return
        if rank[1] in {_WAITS, _FAILED}:
            self._pause = FIRST_PAUSE
        # A job that waits for a permit is enqueued again now and then. That is no news.
        waits_on = self._last is not None and event.state == self._last[1] == State.PENDING
        self._last = rank, event.state
        if not waits_on:
            self._ready.append(event)

    def _finish(self) -> None:
        outcome = self._job.known()
        assert outcome is not None
        self._ready.append(last_event(outcome))
        self._ended = True


def last_event(outcome: Outcome[Any]) -> Event:
    """Returns the event that says how a job ended."""
    info = outcome.value if outcome.state is State.SUCCESS else outcome.error
    return Event(outcome.state, info, outcome.finished_at)


def _described(snapshot: wire.JobSnapshot, last: tuple[Rank, Any] | None) -> tuple[Rank, Event]:
    """Returns what a query found, as an event, and its rank."""
    if snapshot.report is not None:
        return _of_report(snapshot.report)
    if snapshot.worker is not None:
        rank = wire.entry_order(snapshot.entry), _RUNS, 0
        return rank, Event(State.STARTED, None, timestamp(snapshot.started))
    if snapshot.state is State.RETRY:
        # The record does not name the entry of the attempt that failed. It is that of the last event.
        error = _error(snapshot.failure) if snapshot.failure else None
        entry = last[0][0] if last is not None else (0, 0)
        return (entry, _FAILED, snapshot.retries), Event(State.RETRY, error)
    return (wire.entry_order(snapshot.entry or "0-0"), _WAITS, 0), Event(snapshot.state)


def _error(failure: bytes) -> Exception | None:
    """Returns what an attempt failed with; None if that cannot be read, for the job goes on all the same."""
    try:
        return failures.decode(failure).rebuild()
    except DecodeError as error:
        damaged_data.warn(log, "failure", "the error of a failed attempt could not be read", error)
        return None


def _of_report(report: wire.Report) -> tuple[Rank, Event]:
    info = PLAIN_VALUE.loads(report.meta)
    rank = wire.entry_order(report.entry), _SAYS, report.number
    return rank, Event(report.state, info, timestamp(report.at))
