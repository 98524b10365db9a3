"""Makes the jobs of schedules when they tick, and declares the schedules in code of this worker.

A background task of a worker session, on the worker's loop, one for each shard. Every worker has one, and
none leads. Half a second before its time, the server hands out a schedule to one worker. That worker computes
the tick after this one and makes the message of the job. When the time has come, one script makes the job and
moves the schedule to that next tick. A worker that dies before that script leaves the schedule to the next
worker, a second after its time; after the script, there is nothing left to do. A worker that was too slow
finds that the schedule has another version, and does nothing.

Times are those of the server's clock, on which a ticker counts on by the loop's clock between two answers.
"""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING, NamedTuple

from asyncq import failpoints
from asyncq.broker.schedule_store import AHEAD_MS, AT_ONCE, CODE, HAND_OUT_MS, LONGEST_SLEEP, Change
from asyncq.broker.schema import answer_tags, damaged_data
from asyncq.broker.transport.background import ErrorLog, forever
from asyncq.errors import DecodeError
from asyncq.schedules import enqueue_hooks
from asyncq.schedules.cron import in_zone
from asyncq.schedules.entry import Entry, defined
from asyncq.schedules.schedule_progress import review, step

if TYPE_CHECKING:
    from asyncq.broker.consumer import Consumer
    from asyncq.broker.schedule_store import DueSchedules, ScheduleStore, StoredSchedule
    from asyncq.broker.schema.keys import Keys
    from asyncq.client.session import Session
    from asyncq.schedules.declarations import Declarations
    from asyncq.schedules.definition import Definition
    from asyncq.schedules.schedule_progress import Step

log: logging.Logger = logging.getLogger(__name__)

_PUT_OFF_MS = 60_000
"""A schedule that cannot be read is looked at again after this time."""
_TRIES = 20
"""So often a schedule is declared again in a row that somebody else changes at the same time."""
_PREPARED_AT_ONCE = 20
"""So many schedules are prepared in one turn of the loop, on which jobs run, too: some 3 ms."""
_SENT_AT_ONCE = 50
"""So many changes are sent in one turn of the loop: while the server works on them, the next ones are made
ready."""
_NEVER = 2**63
"""No clock shows this time, in ms."""


class _Times(NamedTuple):
    """Times in seconds: how long a schedule is kept that nobody declares, and the lease of a worker."""

    ttl: float
    lease: float


class _Prepared(NamedTuple):
    """What is to be done with a schedule that was handed out, and when, in ms by the server's clock."""

    entry: Entry
    step: Step
    change: Change
    at: int


class _ServerClock(NamedTuple):
    """The time of the server's clock in ms, and of the loop's clock when it was answered."""

    ms: int
    answered_at: float

    def now(self) -> int:
        """Returns the time of the server's clock in ms. It is rather too early than too late: the answer took
        its time, too.
        """
        return self.ms + int((asyncio.get_running_loop().time() - self.answered_at) * 1000)


class Ticker:
    """Makes the jobs of the schedules of one shard.

    Args:
        session: through which it stores schedules.
        consumer: the worker session.
        shard: the shard.
        declarations: the schedules in code of the app.
        ttl: how long a schedule is kept that nobody declares, in seconds.
        lease: the lease in seconds.
    """

    def __init__(
        self,
        session: Session,
        consumer: Consumer,
        shard: Keys,
        declarations: Declarations,
        ttl: float,
        lease: float,
    ) -> None:
        self.shard = shard
        self._session = session
        self._store: ScheduleStore = session.broker.schedules
        self._consumer = consumer
        self._declarations = declarations
        self._times = _Times(ttl, lease)
        self._called = asyncio.Event()
        self._prepared: dict[str, _Prepared] = {}
        self._declared: dict[str, Definition] = {}
        self._changes = -1  # of the declarations, when they were declared last
        self._declare_again = 0.0
        self._checked_at = 0.0

    def call(self, _due: bytes = b"") -> None:
        """Ends the sleep, because a schedule is due soon that was not due before."""
        self._called.set()

    async def begin(self) -> None:
        """Declares the schedules in code, so that they exist when the worker has started.

        Raises:
            AsyncQError: the server is away, or refuses.
        """
        if self._declarations.changes:
            await self._declare()

    async def run(self) -> None:
        """Makes jobs at ticks until it is cancelled. Then other workers get the schedules that it was handed
        out.
        """
        try:
            await forever(self._turn, ErrorLog(log, "schedules could not be looked at; trying again"))
        finally:
            for prepared in self._prepared.values():
                self._store.give_back(prepared.change, prepared.at)

    async def _turn(self) -> None:
        """Asks for the schedules that are due soon, and makes the jobs of their ticks, each at its time."""
        loop = asyncio.get_running_loop()
        if self._changes != self._declarations.changes or loop.time() >= self._declare_again:
            await self._declare()
        # Cleared before the request, as in `delayed_jobs`: a call that comes meanwhile may be about a
        # schedule that the answer does not know.
        self._called.clear()
        due = await self._store.due(self.shard, self._consumer.name)
        clock = _ServerClock(due.now, loop.time())
        if due.is_set_back:
            log.warning("the server's clock was set back; all schedules are reviewed")
            await self._review(is_set_back=True)
            await self._store.accept_clock(self.shard, due.now)
            return
        ask_at = self._ask_at(due)
        for number, stored in enumerate(due.schedules, 1):
            ask_at = min(ask_at, await self._prepare(stored, clock))
            if number % _PREPARED_AT_ONCE == 0:
                ask_at = min(ask_at, await self._send_due(clock))
                await asyncio.sleep(0)
        await self._take_back(due)
        await self._make_jobs(clock, ask_at)

    def _ask_at(self, due: DueSchedules) -> int:
        """Returns when the server is to be asked again, in ms by its clock."""
        if len(due.schedules) >= AT_ONCE:
            return due.now  # there may be more
        seconds = [LONGEST_SLEEP, self._declare_again - asyncio.get_running_loop().time()]
        if any(name in self._declared for name in due.left_alone):
            seconds.append(self._times.lease / 2)  # to see early that nobody else makes its jobs
        wait = int(min(seconds) * 1000)
        return due.now + (wait if due.wait is None else min(wait, due.wait))

    async def _make_jobs(self, clock: _ServerClock, ask_at: int) -> None:
        """Does what is prepared, each at its time, until the server is to be asked again."""
        while True:
            ask_at = min(ask_at, await self._send_due(clock))
            now = clock.now()
            if self._called.is_set() or now >= ask_at:
                return
            times = [ask_at, *(prepared.at for prepared in self._prepared.values())]
            await self._sleep((min(times) - now) / 1000)

    async def _sleep(self, seconds: float) -> None:
        if seconds <= 0:
            return
        try:
            async with asyncio.timeout(seconds):
                await self._called.wait()
        except TimeoutError:
            return

    # -- ticks --

    async def _prepare(self, stored: StoredSchedule, clock: _ServerClock) -> int:
        """Prepares what is to be done with a schedule that was handed out. Returns when the server is to be
        asked for the schedule again, in ms by its clock.
        """
        now_ms = clock.now()
        try:
            entry = await Entry.read(stored)
        except DecodeError as error:
            damaged_data.warn(log, "schedule", f"schedule {stored.name!r} cannot tick", error)
            due_at = now_ms + _PUT_OFF_MS
            await self._store.put(Change(name=stored.name, version=stored.version, due_at=due_at, fields={}))
            return due_at
        except (ImportError, ValueError) as error:
            # Another worker may be able to: it gets the schedule next.
            damaged_data.warn(log, "rule", f"schedule {stored.name!r} is left to other workers", error)
            return now_ms + HAND_OUT_MS
        done = step(entry.definition, entry.progress, entry.runs, now_ms, AHEAD_MS)
        change = entry.moved(done, now_ms, self._times.ttl)
        at = now_ms if change.tick is None else change.tick.not_before
        self._prepared[stored.name] = _Prepared(entry, done, change, at)
        return _NEVER

    async def _send_due(self, clock: _ServerClock) -> int:
        """Does what is prepared and whose time has come. If some of it fails, raises one of the errors when
        all else is done.

        Returns:
            When the server is to be asked for the next ticks of these schedules, in ms by its clock.
        """
        now = clock.now()
        ready = sorted((one for one in self._prepared.values() if one.at <= now), key=_time_of)
        ask_at, errors = [_NEVER], list[Exception]()

        async def send(prepared: _Prepared) -> None:
            try:
                ask_at.append(await self._send(prepared))
            except Exception as error:  # noqa: BLE001  raised below
                errors.append(error)

        async with asyncio.TaskGroup() as group:
            for number, prepared in enumerate(ready, 1):
                group.create_task(send(prepared))
                if number % _SENT_AT_ONCE == 0:
                    await asyncio.sleep(0)
        if errors:
            raise errors[0]
        return min(ask_at)

    async def _send(self, prepared: _Prepared) -> int:
        """Does what is prepared, and returns when the server is to be asked for the next tick, in ms by its
        clock.
        """
        entry, done, change, at = prepared
        failpoints.hit("tick.send")
        answer = await self._store.put(change)
        failpoints.hit("tick.answered")
        if answer.tag == answer_tags.EARLY:
            return at  # the clock was set back: ask for the time
        if self._prepared.get(entry.name) is prepared:
            del self._prepared[entry.name]
        if answer.tag == answer_tags.REFUSED:
            return at + HAND_OUT_MS  # another worker, or a user, has changed it
        self._log_step(entry, done, answer.tag, answer.job_id)
        return _NEVER if change.due_at is None else change.due_at - AHEAD_MS

    def _log_step(self, entry: Entry, done: Step, tag: bytes, job_id: str) -> None:
        tz = entry.definition.terms.rule.tz
        if done.left_out is not None:
            first, last = (in_zone(tick, tz).isoformat() for tick in done.left_out)
            log.warning(
                "schedule %r: no worker was there for its ticks from %s to %s, and they do not run "
                "(catch_up=%r)",
                entry.name,
                first,
                last,
                entry.definition.terms.catch_up,
            )
        if done.tick is None:
            return
        at = in_zone(done.tick, tz).isoformat()
        if tag == answer_tags.LEFT_OUT:
            log.info(
                "schedule %r: the tick at %s is left out, because job %s of the tick before has not ended "
                "(overlap=False)",
                entry.name,
                at,
                job_id,
            )
        else:
            log.debug("schedule %r: the tick at %s is job %s", entry.name, at, job_id)

    # -- declarations --

    async def _declare(self) -> None:
        """Declares the schedules in code that lie in this shard, and reviews all schedules of it."""
        loop = asyncio.get_running_loop()
        shards, changes = self._store.shards, self._declarations.changes
        self._declared = {
            name: definition
            for name, definition in self._declarations.definitions().items()
            if shards.number(name) == self.shard.shard
        }
        fingerprints = {name: self._fingerprint(one) for name, one in self._declared.items()}
        if fingerprints:
            # First: a schedule that this session does not announce is not handed out to it.
            await self._consumer.announcements.of_schedules(self.shard, fingerprints)
        await self._declare_to_server(fingerprints)
        await self._review(is_set_back=False)
        self._changes = changes
        self._declare_again = loop.time() + self._times.ttl / 3

    async def _declare_to_server(self, fingerprints: dict[str, str], *, checks: bool = False) -> None:
        """Declares schedules, and stores those that the server has not or has otherwise. One that somebody
        else changes meanwhile is declared again.
        """
        for _ in range(_TRIES):
            now_ms, names = await self._store.declare(
                self.shard, fingerprints, self._times.ttl, self._declarations.since, checks=checks
            )
            if self._declarations.since is None:
                self._declarations.since = now_ms
            _, found = await self._store.read(names)
            fingerprints = {
                stored.name: fingerprints[stored.name]
                for stored in found
                if not await self._put(stored, now_ms)
            }
            if not fingerprints:
                return

    async def _put(self, stored: StoredSchedule, now_ms: int) -> bool:
        """Stores a declared schedule. Returns False if somebody else has changed it meanwhile."""
        try:
            # Its rule is not asked for ticks, and may be one that this worker cannot read.
            before = Entry.parse(stored) if stored.fields else None
        except DecodeError as error:
            damaged_data.warn(
                log, "schedule", f"schedule {stored.name!r} is replaced by its declaration", error
            )
            await self._store.remove(stored.name)
            before = None
        if before is not None and before.source != CODE:
            log.error(
                "task %r has a schedule in code, and a schedule that was added by a call has this name: the "
                "one in code does not run until that one is removed",
                stored.name,
            )
            return True
        declared, since = self._declared[stored.name], self._declarations.since or now_ms
        errors: list[Exception] = []

        async def store(definition: Definition) -> bool:
            ttl, fingerprint = self._times.ttl, self._fingerprint(declared)
            change, _ = defined(definition, CODE, before, now_ms, ttl, since=since, fingerprint=fingerprint)
            try:
                return (await self._store.put(change)).tag == answer_tags.ACCEPTED
            except Exception as error:
                errors.append(error)
                raise

        try:
            return await enqueue_hooks.run(self._session, declared, now_ms, store)
        except Exception:
            if errors:
                raise
            # Not raised: the other schedules of this worker must go on.
            log.exception("schedule %r is not declared, because a middleware refused it", stored.name)
            return True

    async def _take_back(self, due: DueSchedules) -> None:
        """Declares schedules again that are overdue because a newer version of the program has declared them
        otherwise, and is gone.
        """
        now, lease = asyncio.get_running_loop().time(), self._times.lease
        mine = {
            name: self._fingerprint(self._declared[name])
            for name, overdue in due.left_alone.items()
            if overdue > lease + 1 and name in self._declared
        }
        if mine and now - self._checked_at > lease:
            self._checked_at = now
            await self._declare_to_server(mine, checks=True)

    # -- reviews --

    async def _review(self, *, is_set_back: bool) -> None:
        """Computes the next tick of every schedule of the shard anew, see `progress.review`. One that
        somebody else changes meanwhile is read again.
        """
        names = await self._store.names([self.shard])
        for _ in range(_TRIES):
            left: list[str] = []
            for first in range(0, len(names), AT_ONCE):
                now_ms, some = await self._store.read(names[first : first + AT_ONCE])
                left += [
                    stored.name
                    for stored in some
                    if not await self._review_one(stored, now_ms, is_set_back=is_set_back)
                ]
            if not left:
                return
            names = left

    async def _review_one(self, stored: StoredSchedule, now_ms: int, *, is_set_back: bool) -> bool:
        """Reviews a schedule. Returns False if somebody else has changed it meanwhile."""
        try:
            entry = await Entry.read(stored)
        except (DecodeError, ImportError, ValueError):
            return True  # it is gone, or it is reported when it is due
        if entry.source == CODE and not is_set_back and not self._is_mine(entry):
            return True
        most = entry.definition.terms.max_runs
        if most is not None and entry.runs >= most:
            return True
        progress = review(entry.definition, entry.progress, now_ms // 1000, is_set_back=is_set_back)
        change = entry.reviewed(progress)
        return change is None or (await self._store.put(change)).tag == answer_tags.ACCEPTED

    def _is_mine(self, entry: Entry) -> bool:
        """Returns whether this session declares a schedule in code as it is stored."""
        mine = self._declared.get(entry.name)
        return mine is not None and self._fingerprint(mine) == entry.fingerprint

    def _fingerprint(self, definition: Definition) -> str:
        """Returns what tells a declared schedule from another one of the same name, or with another secret:
        one that was signed with another secret, or not at all, is stored anew.
        """
        return definition.fingerprint + self._store.secret_name


def _time_of(prepared: _Prepared) -> int:
    return prepared.at
