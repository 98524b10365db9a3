"""Finds workers that died and takes their jobs back.

Each worker watches all others of its queues. An incarnation is dead when its beat has stood at one value
through a whole lease *of the observer's own clock*, over looks that came without a gap: a server that was
away, or an observer that stood still itself, proves nothing, so the count starts again. A consumer with no
beat at all is an incarnation that was taken before; a read of it may still have been served late.

All beats are one read. To list the consumers of a stream takes the server some time for each of them, so
only one worker does it for each stream, its watcher, see `census.lua`. That finds consumers without a beat.
"""

from __future__ import annotations

import asyncio
import logging
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

from asyncq.broker.background import ErrorLog, forever

if TYPE_CHECKING:
    from collections.abc import Callable

    from asyncq.broker.claims import Claims
    from asyncq.broker.consumer import Consumer
    from asyncq.broker.keys import Keys
    from asyncq.worker.job_log import JobLog

log: logging.Logger = logging.getLogger(__name__)


@dataclass(slots=True)
class Sighting:
    """The beat value that an incarnation was seen at, and since when (seconds, monotonic)."""

    count: str | None
    since: float


def find_dead(
    sightings: dict[str, Sighting],
    readers: dict[str, int],
    beats: dict[str, str],
    me: str,
    now: float,
    lease: float,
) -> list[tuple[str, str | None]]:
    """Updates the sightings with a new look and returns who is dead, with the beat value that proves it.

    >>> seen: dict[str, Sighting] = {}
    >>> find_dead(seen, {"a": 1}, {"a": "7"}, "me", now=0.0, lease=5.0)
    []
    >>> find_dead(seen, {"a": 1}, {"a": "7"}, "me", now=5.1, lease=5.0)
    [('a', '7')]
    """
    present = (set(readers) | set(beats)) - {me}
    for gone in set(sightings) - present:
        del sightings[gone]
    dead = []
    for name in present:
        count = beats.get(name)
        sighting = sightings.get(name)
        if sighting is not None and count is None:
            # It was taken meanwhile, by somebody or on another queue: dead for ever, so its time runs on.
            sighting.count = None
        if sighting is None or sighting.count != count:
            sightings[name] = Sighting(count, now)
        elif now - sighting.since >= lease:
            dead.append((name, count))
    return dead


class Reclaimer:
    """Watches the other incarnations that serve the same streams.

    Args:
        consumer: the incarnation that watches.
        claims: take what is found.
        shard: in which it watches.
        lease: in seconds.
        on_last_tries: called when jobs wait in a lane of last tries.
        on_level: called with the shard and the name of a level of priority that is not read.
        job_log: where a job is logged that too many workers have died with.
    """

    def __init__(
        self,
        consumer: Consumer,
        claims: Claims,
        shard: Keys,
        lease: float,
        on_last_tries: Callable[[], None],
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
        self._beating: dict[str, Sighting] = {}
        """Of who has a beat."""
        self._vanished: dict[str, Sighting] = {}
        """Of who had one: it left, or was taken by somebody who need not serve all of its streams."""
        self._watched: list[str] = []
        """The streams that this one watches, as the last look said."""
        self._readers: dict[str, dict[str, Sighting]] = {}
        """Of who reads from the streams that this one watches."""
        self._last_look = float("-inf")

    async def run(self) -> None:
        """Looks three times a lease, for ever."""
        await forever(
            self._turn, ErrorLog(log, "the other workers could not be looked at; starting to count again")
        )

    async def _turn(self) -> None:
        try:
            await self._look()
        except Exception:
            # A look that failed is a gap, and over a gap nobody is known to have stood still.
            self._forget()
            raise
        await asyncio.sleep(self._lease / 3)

    def _forget(self) -> None:
        self._beating.clear()
        self._vanished.clear()
        self._readers.clear()

    async def _look(self) -> None:
        consumer, shard, watched = self._consumer, self._shard, self._watched
        # One round trip, and in this order: who begins to read has a beat already.
        listing = asyncio.gather(*(consumer.readers(stream) for stream in watched))
        others = asyncio.gather(consumer.beats(shard), consumer.census(shard))
        await asyncio.gather(listing, others)
        listed, (beats, census) = listing.result(), others.result()
        self._watched = census.watched
        for name in census.levels:
            self._on_level(shard, name)
        now = time.monotonic()
        if now - self._last_look > self._lease * 2 / 3:
            self._forget()
        self._last_look = now
        put_back = 0
        for dead, seen in self._who_stands_still(beats, now):
            for stream in consumer.served.streams_in(shard):
                put_back += await self._take(stream, dead, seen)
        self._readers = {stream: self._readers.get(stream, {}) for stream in watched}
        for stream, readers in zip(watched, listed, strict=True):
            for dead in self._who_has_no_beat(stream, readers, beats, now):
                put_back += await self._take(stream, dead, None)
        if put_back:
            census = await consumer.census(shard)  # some of it may be in a lane by now
        if census.last_tries_wait:
            self._on_last_tries()

    def _who_stands_still(self, beats: dict[str, str], now: float) -> list[tuple[str, str | None]]:
        """The incarnations whose beat has stood still for a lease, and at which value."""
        before = dict(self._beating)
        dead = find_dead(self._beating, {}, beats, self._consumer.name, now, self._lease)
        self._vanished |= {name: before[name] for name in before.keys() - self._beating.keys()}
        self._vanished |= {name: self._beating.pop(name) for name, _ in dead}
        old = [name for name, sighting in self._vanished.items() if now - sighting.since > 4 * self._lease]
        for name in old:
            del self._vanished[name]
        return dead

    def _who_has_no_beat(
        self, stream: str, readers: dict[str, int], beats: dict[str, str], now: float
    ) -> list[str]:
        """Of those who read from a stream, who was without a beat, or stood still, for a lease."""
        sightings = self._readers[stream]
        for name in readers.keys() - sightings.keys():
            # The time of one that had a beat runs on from the last that was seen of it.
            if known := self._vanished.get(name):
                sightings[name] = Sighting(known.count, known.since)
        lost = {name: pending for name, pending in readers.items() if name not in beats}
        return [name for name, _ in find_dead(sightings, lost, {}, self._consumer.name, now, self._lease)]

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
