"""Finds workers that died and takes their jobs back.

Each worker looks three times a lease at who has stopped beating. A worker session is dead when it has not
beaten for a whole lease *of the observer's own clock*, over looks that came without a gap: a server that was
away, or an observer that stood still itself, proves nothing, so the observer counts anew. The server numbers
the looks, and each beat notes the number of the latest look, see `_looks.lua`. So an observer asks only for
those that have not beaten since its own look of a lease ago, and that takes the same time however many
workers live.

Workers may be replaced so fast that none of them observes for a whole lease. So each says at the server how
long ago its looks were, by its own clock, and whoever begins to observe goes on from there, if there was no
gap between. Ages add up safely: each is the least that can have passed.

A consumer with no beat at all is a worker session that was taken before; a read of it may still have been
served late. To list the consumers of a stream takes the server some time for each of them, so only one worker
does it for each stream, its watcher, see `census.lua`.
"""

from __future__ import annotations

import asyncio
import logging
import math
import time
from typing import TYPE_CHECKING

from asyncq.broker.background import ErrorLog, forever
from asyncq.broker.consumer import LookAge

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from asyncq.broker.claims import Claims
    from asyncq.broker.consumer import Consumer, Observation
    from asyncq.broker.schema.keys import Keys
    from asyncq.worker.job_log import JobLog

log: logging.Logger = logging.getLogger(__name__)

_NO_LESS = 0.005
"""Seconds by which a pause is longer than a third of a lease: so three of them are a lease, though a timer of
the loop may end some milliseconds too early. Else the fourth look would find nobody dead."""


class Looks:
    """The looks at one shard that came without a gap: their numbers, and when each was answered (seconds,
    monotonic). The first may be those of other observers.

    Args:
        lease: in seconds.

    >>> from asyncq.broker.consumer import Observation
    >>> looks = Looks(lease=3.0)
    >>> made = ((7, 0.0), (9, 1.0), (12, 2.0), (13, 3.0))
    >>> [looks.add(Observation(number, {}, []), now) for number, now in made]
    [False, True, True, True]
    >>> looks.a_lease_ago(now=3.5)
    7
    >>> looks.a_lease_ago(now=4.0)
    9
    """

    def __init__(self, lease: float) -> None:
        self._lease = lease
        self._longest_gap = lease * 2 / 3
        self._made: list[tuple[int, float]] = []

    @property
    def last(self) -> int:
        """The number of the last look; 0 if there is none."""
        return self._made[-1][0] if self._made else 0

    def a_lease_ago(self, now: float) -> int:
        """The number of the latest look that was answered a lease ago; 0 if there is none."""
        return max((number for number, then in self._made if now - then >= self._lease), default=0)

    def ages(self, now: float) -> list[LookAge]:
        """How long ago each was, for others who begin to observe; empty before the first look."""
        return [LookAge(number, now - then) for number, then in self._made]

    def add(self, look: Observation, now: float) -> bool:
        """Adds a look; False if it does not follow those before without a gap, which then count no more: it
        goes on where other observers were, if they looked not long ago.

        A number that is not higher comes from a server that has lost what it knew.
        """
        follows = bool(self._made) and self._follows(look.number, now)
        if not follows:
            self._made = self._of_others(look, now)
        # Of those that are a lease old the latest is asked for, and the others are never needed again.
        oldest = self.a_lease_ago(now)
        self._made = [*(made for made in self._made if made[0] >= oldest), (look.number, now)]
        return follows

    def _follows(self, number: int, now: float) -> bool:
        last, then = self._made[-1]
        return number > last and now - then <= self._longest_gap

    def _of_others(self, look: Observation, now: float) -> list[tuple[int, float]]:
        """The looks that others left behind, if this one follows theirs without a gap. Numbers of looks count
        milliseconds of the server's clock: nobody else can tell how long ago another process looked. If that
        clock was set back meanwhile, ages are greater than it can explain, and they are not trusted.
        """
        gap = (look.number - look.ages_at) / 1000
        numbers = [one.number for one in look.ages]
        if not 0 < gap <= self._longest_gap or numbers != sorted(set(numbers)):
            return []
        if any(not 0 <= one.age <= (look.number - one.number) / 1000 for one in look.ages):
            return []
        return [(one.number, now - one.age) for one in look.ages if one.number < look.ages_at]

    def forget(self) -> None:
        """Begins anew: there was a gap."""
        self._made.clear()


class Reclaimer:
    """Watches the other worker sessions that serve the same streams.

    Args:
        consumer: the worker session that watches.
        claims: take what is found.
        shard: in which it watches.
        lease: in seconds.
        on_last_tries: called with how many jobs wait in last-attempt queues, if any do.
        on_level: called with the shard and the name of a level of priority that is not read.
        job_log: where a job is logged that too many workers have died with.
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
    ) -> None:
        self._consumer = consumer
        self._claims = claims
        self._shard = shard
        self._on_last_tries = on_last_tries
        self._on_level = on_level
        self._job_log = job_log
        self._lease = lease
        self._looks = Looks(lease)
        self._watched: list[str] = []
        """The streams that this one watches, as the last look said."""
        self._absent: dict[str, dict[str, float]] = {}
        """Of who reads from the streams that this one watches and has no beat: since when (monotonic)."""
        self._listed: dict[str, float] = {}
        """When the readers of the streams that this one watches were listed (monotonic)."""

    async def run(self) -> None:
        """Looks three times a lease, for ever."""
        await forever(
            self._turn, ErrorLog(log, "the other workers could not be looked at; starting to count again")
        )

    async def _turn(self) -> None:
        try:
            await self._look()
        except Exception:
            # The next look goes on from what the server has, if the server answered anybody not long ago.
            self._forget()
            raise
        await asyncio.sleep(self._lease / 3 + _NO_LESS)

    def _forget(self) -> None:
        self._looks.forget()
        self._absent.clear()
        self._listed.clear()

    async def _look(self) -> None:
        consumer, shard = self._consumer, self._shard
        due = self._to_be_listed(time.monotonic())
        absent, look, census = await asyncio.gather(
            consumer.without_beat(shard, due),
            self._look_at_beats(),
            consumer.census(shard),
        )
        now = time.monotonic()
        if not self._looks.add(look, now):
            # Over a gap nobody is known to have stood still.
            self._absent.clear()
            look = look._replace(silent={})
        put_back = 0
        for dead, seen in look.silent.items():
            put_back += await self._take_from(consumer.served.streams_in(shard), dead, seen)
        for dead in look.taken:
            # By one that need not serve all of its streams.
            put_back += await self._take_from(self._watched, dead, None)
        for stream, names in zip(due, absent, strict=True):
            self._listed[stream] = now
            for dead in self._absent_for_a_lease(stream, names, now):
                put_back += await self._take(stream, dead, None)
        self._watch(census.watched)
        for name in census.levels:
            self._on_level(shard, name)
        last_tries = census.last_tries
        if put_back and not last_tries:
            last_tries = await consumer.last_tries(shard)  # some of it may be in a last-attempt queue by now
        if last_tries:
            self._on_last_tries(last_tries)

    async def _look_at_beats(self) -> Observation:
        looks, now = self._looks, time.monotonic()
        return await self._consumer.look(self._shard, looks.a_lease_ago(now), looks.last, looks.ages(now))

    def _watch(self, streams: list[str]) -> None:
        self._watched = streams
        for kept in (self._absent, self._listed):
            for stream in kept.keys() - set(streams):
                del kept[stream]

    def _to_be_listed(self, now: float) -> list[str]:
        """The streams whose readers are to be listed: once a lease, for it takes the server long; and at each
        look where one of them has no beat, for its time runs.
        """
        return [
            stream
            for stream in self._watched
            if self._absent.get(stream) or now - self._listed.get(stream, -math.inf) >= self._lease
        ]

    def _absent_for_a_lease(self, stream: str, names: dict[str, bool], now: float) -> list[str]:
        """Of those who read from a stream without a beat: who was taken for dead already, on another stream,
        or has had none for a lease.
        """
        before = self._absent.get(stream, {})
        since = {name: before.get(name, now) for name in names if name != self._consumer.name}
        self._absent[stream] = since
        return [name for name, then in since.items() if names[name] or now - then >= self._lease]

    async def _take_from(self, streams: Iterable[str], dead: str, seen: str | None) -> int:
        total = 0
        if dead != self._consumer.name:
            for stream in streams:
                total += await self._take(stream, dead, seen)
        return total

    async def _take(self, stream: str, dead: str, seen: str | None) -> int:
        more, total = True, 0
        while more:
            taken = await self._claims.take(stream, dead, seen)
            more = taken.has_more
            total += taken.put_back
            if taken.revoked:
                log.info("%d jobs of dead worker %r ended as revoked", taken.revoked, dead)
            for job_id, task in taken.lost:
                queue = self._consumer.served.queues[stream]
                self._job_log.lost(job_id, task, queue, dead, self._consumer.settings.max_crashes)
            seen = None  # the field is gone with the first call
        if total:
            log.warning("worker %r is dead; %d of its jobs were put back into the queue", dead, total)
        return total
