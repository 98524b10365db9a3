"""Finds worker sessions that died, and takes their jobs back into the queues. Runs on the worker's loop.

Each worker observes the others when it checks in, three times a lease. A session is dead when its counter of
beats has stood still for a whole lease *of the observer's own clock*, over observations that came without a
gap. A gap proves nothing: the server may have been away, or the observer itself may have stood still. After a
gap the observer counts anew.

The server numbers the observations, and each beat stores the number of the latest one, see
`_observations.lua`. So an observer asks only for those that have not beaten since its own observation of a
lease ago. That takes the same time however many workers live.

Workers may be replaced so fast that none of them observes for a whole lease. So each observer stores at the
server how long ago its observations were, by its own clock. A new observer continues from there, if there was
no gap in between. To add such ages is safe: each is the least time that can have passed.

A consumer that has no beat at all belongs to a session that was recovered before; the server may have served
one of its reads after that. The server needs some time for each consumer of a stream to list them. So only
one worker lists them for each stream, its watcher, see `check_in.lua`.

What else a worker learns when it checks in goes to the parts that need it: last tries that wait, and levels
of priority that the session does not read. `Consumer.check_in` itself takes in pauses, and has the outbox
delivered.
"""

from __future__ import annotations

import asyncio
import logging
import math
import time
from typing import TYPE_CHECKING

from asyncq.broker.consumer import ObservationAge, SeenBefore
from asyncq.broker.transport.background import ErrorLog, forever

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from asyncq.broker.claims import Claims
    from asyncq.broker.consumer import CheckIn, Consumer, Observation
    from asyncq.broker.schema.keys import Keys
    from asyncq.worker.job_log import JobLog

log: logging.Logger = logging.getLogger(__name__)

_NO_LESS = 0.005
"""Seconds by which a pause is longer than a third of a lease. Three pauses must be a whole lease, and a timer
of the loop may end some milliseconds too early. Without this, the fourth observation would find nobody
dead."""


class Observations:
    """The observations of one shard that came without a gap: their numbers, and when each was answered
    (seconds, monotonic). The first of them may have been made by other observers.

    Args:
        lease: the lease in seconds.

    >>> from asyncq.broker.consumer import Observation
    >>> observations = Observations(lease=3.0)
    >>> made = ((7, 0.0), (9, 1.0), (12, 2.0), (13, 3.0))
    >>> [observations.add(Observation(number, {}, []), now) for number, now in made]
    [False, True, True, True]
    >>> observations.a_lease_ago(now=3.5)
    7
    >>> observations.a_lease_ago(now=4.0)
    9
    """

    def __init__(self, lease: float) -> None:
        self._lease = lease
        self._longest_gap = lease * 2 / 3
        self._made: list[tuple[int, float]] = []

    @property
    def last(self) -> int:
        """The number of the last observation, or 0 before the first one."""
        return self._made[-1][0] if self._made else 0

    def a_lease_ago(self, now: float) -> int:
        """Returns the number of the latest observation that was answered a lease ago or earlier; 0 without
        one.
        """
        return max((number for number, then in self._made if now - then >= self._lease), default=0)

    def ages(self, now: float) -> list[ObservationAge]:
        """Returns how long ago each observation was, for new observers. It is empty before the first one."""
        return [ObservationAge(number, now - then) for number, then in self._made]

    def add(self, observation: Observation, now: float) -> bool:
        """Adds an observation. Returns False if there is a gap between it and those before.

        After a gap the observations before no longer count. The new one then continues those of other
        observers, if they observed not long ago. A number that is not higher than the last one counts as a
        gap, too: the server has lost its data.
        """
        follows = bool(self._made) and self._follows(observation.number, now)
        if not follows:
            self._made = self._of_others(observation, now)
        # Of the observations that are a lease old only the latest is used, so the older ones go.
        oldest = self.a_lease_ago(now)
        self._made = [*(made for made in self._made if made[0] >= oldest), (observation.number, now)]
        return follows

    def _follows(self, number: int, now: float) -> bool:
        last, then = self._made[-1]
        return number > last and now - then <= self._longest_gap

    def _of_others(self, observation: Observation, now: float) -> list[tuple[int, float]]:
        """Returns the observations that other observers have stored, if this one follows theirs without a
        gap.

        The numbers of observations are milliseconds of the server's clock, the only clock that tells how long
        ago another process observed. If that clock was set back, an age is greater than the difference of the
        numbers; then none of the ages is trusted.
        """
        gap = (observation.number - observation.ages_at) / 1000
        numbers = [one.number for one in observation.ages]
        if not 0 < gap <= self._longest_gap or numbers != sorted(set(numbers)):
            return []
        if any(not 0 <= one.age <= (observation.number - one.number) / 1000 for one in observation.ages):
            return []
        return [(one.number, now - one.age) for one in observation.ages if one.number < observation.ages_at]

    def forget(self) -> None:
        """Forgets all observations, because there was a gap."""
        self._made.clear()


class WatchedStreams:
    """The streams of one shard of which a session is the watcher, and their consumers without a beat.

    Args:
        session_id: of the session.
        lease: the lease in seconds.

    Attributes:
        streams: as the last check-in said.
    """

    def __init__(self, session_id: str, lease: float) -> None:
        self.streams: list[str] = []
        self._session_id = session_id
        self._lease = lease
        self._absent: dict[str, dict[str, float]] = {}
        """By stream, the consumers without a beat, and since when each has none (monotonic)."""
        self._listed: dict[str, float] = {}
        """By stream, when its consumers were last listed (monotonic)."""

    def change(self, streams: list[str]) -> None:
        """Stores which streams the session watches, and forgets what was observed of others."""
        self.streams = streams
        for kept in (self._absent, self._listed):
            for stream in kept.keys() - set(streams):
                del kept[stream]

    def to_be_listed(self, now: float) -> list[str]:
        """Returns the streams whose consumers are to be listed now.

        Each stream is listed only once a lease, because that takes the server long. A stream with a consumer
        that has no beat is listed at each observation, because the lease of that consumer is running out.
        """
        return [
            stream
            for stream in self.streams
            if self._absent.get(stream) or now - self._listed.get(stream, -math.inf) >= self._lease
        ]

    def absent_for_a_lease(self, stream: str, names: dict[str, bool], now: float) -> list[str]:
        """Takes in a list of the consumers without a beat. Returns which of them are dead: those that were
        taken for dead on another stream, and those that have had no beat for a lease.
        """
        self._listed[stream] = now
        before = self._absent.get(stream, {})
        since = {name: before.get(name, now) for name in names if name != self._session_id}
        self._absent[stream] = since
        return [name for name, then in since.items() if names[name] or now - then >= self._lease]

    def forget_absent(self) -> None:
        """Forgets since when consumers have no beat."""
        self._absent.clear()

    def forget(self) -> None:
        """Forgets all but the streams, so that all of them are listed again."""
        self._absent.clear()
        self._listed.clear()


class Reclaimer:
    """Watches the other worker sessions that serve the same streams in one shard.

    Args:
        consumer: the consumer of the observing session.
        claims: take the claims of dead sessions.
        shard: the keys of the shard.
        lease: the lease in seconds.
        on_last_tries: called with the number of jobs that wait in last-attempt queues, if any do.
        on_level: called with the shard and the name of a level of priority that this session does not read.
        job_log: logs a job with which too many workers have died.
        status: returns what the session says of itself, encoded; None in a shard that does not keep that.
    """

    def __init__(
        self,
        consumer: Consumer,
        claims: Claims,
        shard: Keys,
        lease: float,
        on_last_tries: Callable[[int], None],
        on_level: Callable[[Keys, bytes], None],
        job_log: JobLog,
        status: Callable[[], bytes] | None = None,
    ) -> None:
        self._consumer = consumer
        self._claims = claims
        self._shard = shard
        self._on_last_tries = on_last_tries
        self._on_level = on_level
        self._job_log = job_log
        self._status = status
        self._lease = lease
        self._observations = Observations(lease)
        self._checked_in = time.monotonic()
        self._watch = WatchedStreams(consumer.name, lease)

    async def run(self) -> None:
        """Checks in three times a lease, until it is cancelled."""
        await forever(
            self._turn,
            ErrorLog(log, "a check-in failed; starting to count the heartbeats of other workers again"),
        )

    async def _turn(self) -> None:
        try:
            await self._observe()
        except Exception:
            # The next observation continues those that the server has stored, unless these are too old.
            self._forget()
            raise
        await asyncio.sleep(self._lease / 3 + _NO_LESS)

    def _forget(self) -> None:
        """Forgets all that was observed, after a gap or an error."""
        self._observations.forget()
        self._watch.forget()

    async def _observe(self) -> None:
        """Checks in once, and takes the jobs of those that it finds dead."""
        consumer, shard = self._consumer, self._shard
        due = self._watch.to_be_listed(time.monotonic())
        answer = await self._check_in(due)
        observation, now = answer.observation, time.monotonic()
        if not self._observations.add(observation, now):
            # After a gap it is not known of anybody that they stood still for a lease.
            self._watch.forget_absent()
            observation = observation._replace(silent={})
        put_back = 0
        for dead, seen in observation.silent.items():
            put_back += await self._take_from(consumer.served.streams_in(shard), dead, seen)
        for dead in observation.taken:
            # Another worker has taken that session for dead, and may serve fewer streams than this one.
            put_back += await self._take_from(self._watch.streams, dead, None)
        for stream, names in zip(due, answer.absent, strict=True):
            for dead in self._watch.absent_for_a_lease(stream, names, now):
                put_back += await self._take(stream, dead, None)
        self._watch.change(answer.watched)
        for name in answer.levels:
            self._on_level(shard, name)
        last_tries = answer.last_tries
        if put_back and not last_tries:
            last_tries = await consumer.last_tries(shard)  # a job put back may be in a last-attempt queue now
        if last_tries:
            self._on_last_tries(last_tries)

    async def take_over(self, dead: str) -> None:
        """Takes the claims of a session that is known to be dead. Its heartbeat has stopped."""
        seen = await self._consumer.beat_of(self._shard, dead)
        put_back = await self._take_from(self._consumer.served.streams_in(self._shard), dead, seen)
        if put_back and (last_tries := await self._consumer.last_tries(self._shard)):
            self._on_last_tries(last_tries)

    async def _check_in(self, listed: list[str]) -> CheckIn:
        """Checks in, and asks which sessions have not beaten since the own observation of a lease ago, and
        for the consumers without a beat of some streams.
        """
        observations, now = self._observations, time.monotonic()
        seen = SeenBefore(observations.a_lease_ago(now), observations.last, observations.ages(now))
        self._checked_in = now
        return await self._consumer.check_in(self._shard, seen, listed, self._encoded_status())

    async def _check_in_meanwhile(self) -> None:
        """Checks in if it is time to: a takeover of many jobs takes long. The session says that it lives on,
        renews its notes, and takes in pauses. All else is left to the next check-in.
        """
        if time.monotonic() - self._checked_in > self._lease / 3:
            self._checked_in = time.monotonic()
            await self._consumer.check_in(self._shard, status=self._encoded_status())

    def _encoded_status(self) -> bytes:
        return b"" if self._status is None else self._status()

    async def _take_from(self, streams: Iterable[str], dead: str, seen: str | None) -> int:
        """Takes the claims of a dead session in several streams. Returns how many jobs were put back."""
        total = 0
        if dead != self._consumer.name:
            for stream in streams:
                total += await self._take(stream, dead, seen)
        return total

    async def _take(self, stream: str, dead: str, seen: str | None) -> int:
        """Takes the claims of a dead session in one stream. Returns how many jobs were put back."""
        more, total = True, 0
        while more:
            await self._check_in_meanwhile()
            taken = await self._claims.take(stream, dead, seen)
            more = taken.has_more
            total += taken.put_back
            if taken.revoked:
                log.info("%d jobs of dead worker %r ended as revoked", taken.revoked, dead)
            for job_id, task in taken.lost:
                queue = self._consumer.served.queues[stream]
                self._job_log.lost(job_id, task, queue, dead, self._consumer.settings.max_crashes)
            seen = None  # the first call has removed the counter of beats
        if total:
            log.warning("worker %r is dead; %d of its jobs were put back into the queue", dead, total)
        return total
