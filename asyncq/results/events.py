"""Following a job: its states as they come, and what it says of itself."""

from __future__ import annotations

import logging
import time
from collections import deque
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

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
    from asyncq.results.view import View

log: logging.Logger = logging.getLogger(__name__)

FIRST_PAUSE, LONGEST_PAUSE = 0.02, 1.0
"""Between two looks at a job that has not been started: nobody says that it was, for that would cost every
job a command."""
KEPT = 1000
"""Events that wait to be taken; of more, the newest are kept."""

Rank = tuple[tuple[int, int], int, int]
"""How far a job has come: the entry of the attempt, how far that is (waits, runs, has reported something,
failed), and the number of its report."""
_WAITS, _RUNS, _SAYS, _FAILED = range(4)


@dataclass(frozen=True, slots=True)
class Event:
    """One thing that happened to a job, as `AsyncResult.events` gives it.

    Attributes:
        state: the state that it came to: a `State`, or a word of the task's own such as `PROGRESS`.
        info: with a word of its own, what the task reported with it (of `progress`, a dict with `done`,
            `total` and `message`); at the end the value, or the exception; before a retry the last exception;
            else None.
        at: when, in UTC, as far as it is known.
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


class EventFollower:
    """What `events` does for one iteration, on the app's loop.

    What is pushed may be lost, and a look may be overtaken by a push on the other connection. So each of them
    has a rank, and nothing goes back; only a look during which nothing was pushed is believed whatever it
    says.
    """

    def __init__(self, result: View[Any], limit: float | None) -> None:
        self._result = result
        self._limit = limit
        self._end = None if limit is None else time.monotonic() + limit
        self._ready: deque[Event] = deque(maxlen=KEPT)
        self._last: tuple[Rank, State | str] | None = None
        self._job_channel: JobChannel | None = None
        self._pause = FIRST_PAUSE
        self._over = False
        self.session: Session | None = None
        """The session that serves it, once it has subscribed."""

    def close(self) -> None:
        """Ends the subscription. From any thread; twice is once."""
        if self._job_channel is not None:
            self._job_channel.close()

    async def next(self) -> Event | None:
        """The next event; None after the final one. Raises as `AsyncResult.events`."""
        result = self._result
        waiter = result.waiter()
        if self._last is not None and not self._over and waiter.ended is None:
            await self._check_time()  # also when there is always something to say
        while not self._ready:
            if self._over:
                return None
            if self._job_channel is None:
                channel = result.app.sessions.shards.of(result.id).events + result.id
                self.session = result.app.sessions.current()
                self._job_channel = await JobChannel.open(
                    self.session.listener, waiter, channel, self._on_message
                )
            if waiter.ended is not None:
                self._finish()
            elif self._job_channel.stale:
                await self._look(self._job_channel)
            elif not await self._job_channel.wait_for_message(self._poll_timeout()):
                self._job_channel.stale = True
                await self._check_time()
        return self._ready.popleft()

    def _poll_timeout(self) -> float:
        """How long to wait for a push before the job is polled."""
        pause = POLL
        if self._last is not None and self._last[0][1] in {_WAITS, _FAILED}:
            pause = self._pause
            self._pause = min(self._pause * 1.5, LONGEST_PAUSE)
        return pause if self._end is None else max(0.0, min(pause, self._end - time.monotonic()))

    async def _check_time(self) -> None:
        if self._end is None or time.monotonic() < self._end:
            return
        if self._job_channel is not None:
            await self._look(self._job_channel)  # the error says how the job stands now
        if self._result.waiter().ended is None:
            state = self._result.state
            raise ResultTimeout(
                f"job {self._result.id} did not end within {shown(self._limit)} (it goes on; state: {state})"
            )

    async def _look(self, job_channel: JobChannel) -> None:
        job_channel.stale = False
        received, last = job_channel.received, self._last
        waiter = self._result.waiter()
        left = None if self._end is None else max(0.2, self._end - time.monotonic())
        try:
            answer = await self._result.app.sessions.current().broker.state(self._result.id, left)
        except BrokerUnavailable as error:
            # The server may come back, as for `get`; the timeout is what bounds the wait for it.
            log.debug("the state of job %r could not be fetched (%s); trying again", self._result.id, error)
            return
        if waiter.ended is not None:
            return  # told meanwhile
        if answer is None or (isinstance(answer, wire.JobSnapshot) and Flags(answer.flags).is_ignored):
            self._result.app.sessions.current().listener.learn(
                waiter, None if answer is None else answer.flags
            )
            raise ResultNotFound(
                f"no job to follow under the id {self._result.id!r}: unknown, forgotten, expired "
                "(result_ttl), or its task ignores results"
            )
        self._result.app.sessions.current().listener.take_status(waiter, answer)
        if isinstance(answer, wire.JobSnapshot):
            self._take_status(answer, last, quiet=job_channel.received == received)

    # -- what comes --

    def _take_status(
        self, snapshot: wire.JobSnapshot, before: tuple[Rank, Any] | None, *, quiet: bool
    ) -> None:
        # As of when the look began: what was pushed meanwhile may be of a later attempt than the answer, and
        # the answer would be taken for the failure of that one.
        rank, event = _described(snapshot, before)
        if quiet and self._last is not None and rank <= self._last[0] and event.state != self._last[1]:
            self._last = None  # it is where it was once, in a life before: the server lost what came after
        self._add(rank, event)

    def _on_message(self, message: bytes) -> None:
        try:
            rank, event = self._read(message)
        except (DecodeError, ValueError) as error:
            # Anybody who may publish can send rubbish; a look finds the truth.
            damaged_data.warn(log, "event", f"an event of job {self._result.id!r} could not be read", error)
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
            self._result.waiter().take_report(report)
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
        # A job that waits for its turn looks for itself now and then, and that is no news.
        waits_on = self._last is not None and event.state == self._last[1] == State.PENDING
        self._last = rank, event.state
        if not waits_on:
            self._ready.append(event)

    def _finish(self) -> None:
        outcome = self._result.known()
        assert outcome is not None
        self._ready.append(last_event(outcome))
        self._over = True

    def only(self, event: Event) -> Event | None:
        """This event, once: of a job that had ended from the beginning."""
        if self._over:
            return None
        self._over = True
        return event


def last_event(outcome: Outcome[Any]) -> Event:
    """The event that says how a job ended."""
    info = outcome.value if outcome.state is State.SUCCESS else outcome.error
    return Event(outcome.state, info, outcome.finished_at)


def _described(snapshot: wire.JobSnapshot, last: tuple[Rank, Any] | None) -> tuple[Rank, Event]:
    """What a look says, as an event, and how far the job has come by it."""
    if snapshot.report is not None:
        return _of_report(snapshot.report)
    if snapshot.worker is not None:
        rank = wire.entry_order(snapshot.entry), _RUNS, 0
        return rank, Event(State.STARTED, None, timestamp(snapshot.started))
    if snapshot.state is State.RETRY:
        # The record does not name the entry of the attempt that failed: it is the last that was heard of.
        error = _error(snapshot.failure) if snapshot.failure else None
        entry = last[0][0] if last is not None else (0, 0)
        return (entry, _FAILED, snapshot.retries), Event(State.RETRY, error)
    return (wire.entry_order(snapshot.entry or "0-0"), _WAITS, 0), Event(snapshot.state)


def _error(failure: bytes) -> Exception | None:
    """What an attempt failed with; None if that cannot be read: the job goes on all the same."""
    try:
        return failures.decode(failure).rebuild()
    except DecodeError as error:
        damaged_data.warn(log, "failure", "the error of a failed attempt could not be read", error)
        return None


def _of_report(report: wire.Report) -> tuple[Rank, Event]:
    info = PLAIN_VALUE.loads(report.meta)
    rank = wire.entry_order(report.entry), _SAYS, report.number
    return rank, Event(report.state, info, timestamp(report.at))
