"""Stores schedules at the server, and hands out those that are due. `schedules` says what their fields mean,
and the ticker of a worker moves each schedule from one tick to the next.

Runs on the session's loop. A schedule lies in the shard of its name, which is the shard of the ids of its
jobs, so that one script can change the schedule and make the job of a tick. Every change names the version
of the schedule that it comes from: of several callers that have read the same version, one succeeds.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

from asyncq.broker.schema.keys import leveled, text_of, token
from asyncq.errors import DecodeError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from asyncq import wire
    from asyncq.broker.commands import Commands
    from asyncq.broker.schema.keys import Keys
    from asyncq.broker.schema.shards import Shards

AT_ONCE = 100
"""Most schedules that one call hands out or reads."""
AHEAD_MS = 500
"""So long before its time a schedule is handed out to a worker, in ms: the worker prepares the job of the
tick meanwhile, so that a thousand ticks of one second are made soon after their time."""
HAND_OUT_MS = 1000
"""For so long after its time a schedule that was handed out is handed out to nobody else, in ms. If the
worker that has it dies, its tick is late by this time."""
LONGEST_SLEEP = 30.0
"""The longest time in seconds for which a worker does not ask for schedules. A change of a schedule that is
then due sooner ends the sleep; that message may be lost with a connection, and then the new connection ends
the sleep."""
_WAKE_WITHIN_MS = round(LONGEST_SLEEP * 1000) + AHEAD_MS

CODE, RUNTIME = "code", "runtime"
"""Where a schedule comes from: declared by workers, or added by a call."""

DEFINITION = "d"
"""The field that holds the definition of a schedule: what is called, and when."""

FOR_EVER = "-"
"""The value of `Change.keep_until` of a schedule that is kept until somebody removes it."""

Field = str | int | bytes


class StoredSchedule(NamedTuple):
    """A schedule as it lies at the server: its name, and its fields, which are empty if there is none.
    `problem` says why its definition must not be read; empty if it may.
    """

    name: str
    fields: Mapping[bytes, bytes]
    problem: str = ""

    @property
    def version(self) -> str:
        """The version, which every change replaces; empty if there is no such schedule."""
        return text_of(self.fields.get(b"v", b""))


class DueSchedules(NamedTuple):
    """What the server answered to a question for due schedules.

    Attributes:
        now: the time of the server's clock, in ms since the epoch.
        wait: in how many ms the caller is to ask again for another schedule; None if there is none.
        is_set_back: whether the server's clock was set back since a schedule was changed.
        schedules: those that were handed out to the caller.
        left_alone: the names of schedules in code that are due and that the caller declares otherwise, or not
            at all, and for how many seconds they have been due.
    """

    now: int
    wait: int | None
    is_set_back: bool
    schedules: list[StoredSchedule]
    left_alone: dict[str, float]


@dataclass(frozen=True, slots=True, kw_only=True)
class Tick:
    """A tick whose job is to be made.

    Attributes:
        at: the time of the tick, in seconds since the epoch.
        job: its job.
        message: the message of the job.
        overlaps: whether the job is made although the one before has not ended.
        not_before: when the job may be made, by the server's clock in ms.
    """

    at: int
    not_before: int
    job: wire.Job
    message: bytes
    overlaps: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Change:
    """One change of a schedule.

    Attributes:
        name: of the schedule.
        version: from which the change comes; empty for a schedule that does not exist.
        due_at: when a worker is to look at it next, in ms since the epoch; None for never.
        fields: the fields that change, with their new values.
        keep_until: when it is dropped, in ms since the epoch; `FOR_EVER`, or empty if that stays as it is.
        wakes: whether workers are notified if it is due soon.
        tick: the tick whose job is made in the same step, if there is one.
    """

    name: str
    version: str
    due_at: int | None
    fields: Mapping[str, Field]
    keep_until: int | str = ""
    wakes: bool = False
    tick: Tick | None = None


class ChangeAnswer(NamedTuple):
    """What the server answered to a change: an answer tag, and the id of a job. With `ACCEPTED` it is the job
    of the tick, with `LEFT_OUT` the job before, which has not ended. With `EARLY` nothing has changed: it is
    not yet time for the tick.
    """

    tag: bytes
    job_id: str = ""


class ScheduleStore:
    """The schedules of all shards. Everything here raises as `Commands.run`.

    Args:
        commands: of the session.

    Attributes:
        shards: of the namespace.
        secret_name: of the secret that signs definitions; empty without secrets.
    """

    def __init__(self, commands: Commands) -> None:
        self.shards: Shards = commands.shards
        self.secret_name: str = "" if commands.seal is None else commands.seal.names[0]
        self._commands = commands

    async def due(self, keys: Keys, session_id: str) -> DueSchedules:
        """Hands out up to `AT_ONCE` schedules of a shard that are due within `AHEAD_MS`, or now.

        Args:
            keys: of the shard.
            session_id: of the worker session that asks.
        """
        now, wait, is_set_back, handed_out, left_alone = await self._commands.run(
            keys,
            "due_schedules",
            (keys.schedules_due, keys.schedules_clock, keys.announcements + session_id),
            (keys.key_prefix, AT_ONCE, AHEAD_MS, HAND_OUT_MS),
        )
        schedules = [self._opened(text_of(name), _pairs(fields)) for name, fields in handed_out]
        others = {text_of(name): overdue / 1000 for name, overdue in left_alone}
        return DueSchedules(now, None if wait < 0 else wait, bool(is_set_back), schedules, others)

    async def read(self, names: Sequence[str]) -> tuple[int, list[StoredSchedule]]:
        """Reads schedules. Returns the time of the server's clock, in ms, and the schedules in the order of
        the names.
        """
        now = 0
        found: dict[str, dict[bytes, bytes]] = {}
        for number, some in self.shards.apportion(names).items():
            keys = self.shards[number]
            for first in range(0, len(some), AT_ONCE):
                batch = some[first : first + AT_ONCE]
                now, *each = await self._commands.run(keys, "read_schedules", (), (keys.key_prefix, *batch))
                found.update(zip(batch, map(_pairs, each), strict=True))
        return now, [self._opened(name, found[name]) for name in names]

    def _opened(self, name: str, fields: dict[bytes, bytes]) -> StoredSchedule:
        """Returns a schedule with its definition as it was before it was signed or encrypted."""
        seal = self._commands.seal
        if seal is None or DEFINITION.encode() not in fields:
            return StoredSchedule(name, fields)
        try:
            plain = seal.open("schedule", name, fields[DEFINITION.encode()])
        except DecodeError as error:
            return StoredSchedule(name, fields, str(error))
        return StoredSchedule(name, {**fields, DEFINITION.encode(): plain})

    async def names(self, shards: Sequence[Keys] | None = None) -> list[str]:
        """Returns the names of all schedules, in the order of their names.

        Args:
            shards: look in these only.
        """
        found: list[str] = []
        for keys in self.shards if shards is None else shards:
            some = await self._commands.send(keys, "ZRANGE", keys.schedules_due, 0, -1)
            found += map(text_of, some)
        return sorted(found)

    async def put(self, change: Change) -> ChangeAnswer:
        """Stores a schedule, or changes it, and makes the job of a tick in the same step."""
        keys, words = self._arguments(change)
        shard = self.shards.of(change.name)
        tag, *more = await self._commands.run(shard, "put_schedule", keys, words)
        return ChangeAnswer(tag, text_of(more[0]) if more else "")

    def give_back(self, change: Change, due_at: int) -> None:
        """Lets other workers have a schedule at once that was handed out to the caller. Sends that once, and
        waits for no answer: without it, they get the schedule a second after its time.

        Args:
            change: what the caller would have done.
            due_at: when it would have done it, by the server's clock in ms.
        """
        back = Change(name=change.name, version=change.version, due_at=due_at, fields={}, wakes=True)
        command = self._commands.build(self.shards.of(change.name), "put_schedule", *self._arguments(back))
        self._commands.post(self.shards.of(change.name), command, None)

    def _arguments(self, change: Change) -> tuple[tuple[str, ...], tuple[Field, ...]]:
        """Returns the KEYS and ARGV of the script that makes a change."""
        keys, tick, seal = self.shards.of(change.name), change.tick, self._commands.seal
        of_tick: tuple[Field, ...] = ("",) * 8
        if tick is not None:
            job = tick.job
            of_tick = (
                *(tick.at, tick.not_before, job.id, leveled(job.queue, job.priority), job.request_id),
                *("-i-" if job.ignore_result else "---", "1" if tick.overlaps else ""),
                tick.message if seal is None else seal.tick(job, tick.message),
            )
        fields = change.fields
        if seal is not None and isinstance(definition := fields.get(DEFINITION), bytes):
            fields = {**fields, DEFINITION: seal.close("schedule", change.name, definition)}
        return (
            (
                *(keys.schedules + change.name, keys.schedules_due),
                *(keys.schedules_declared, keys.schedules_clock),
            ),
            (
                *(keys.key_prefix, change.name, change.version, token()),
                *("+inf" if change.due_at is None else change.due_at, change.keep_until),
                *(_WAKE_WITHIN_MS if change.wakes else "", *of_tick),
                *(word for pair in fields.items() for word in pair),
            ),
        )

    async def remove(self, name: str) -> bool:
        """Removes a schedule. Returns False if there was none."""
        keys = self.shards.of(name)
        removed = await self._commands.run(
            keys,
            "remove_schedules",
            (keys.schedules_due, keys.schedules_declared),
            (keys.key_prefix, name),
        )
        return bool(removed)

    async def declare(
        self,
        keys: Keys,
        fingerprints: Mapping[str, str],
        keep: float,
        since: int | None,
        *,
        checks: bool = False,
    ) -> tuple[int, list[str]]:
        """Renews schedules in code, and drops those that no worker has declared for too long.

        Args:
            keys: of the shard in which all of them lie.
            fingerprints: of the schedules that the caller declares, by their names.
            keep: how long they are kept, in seconds.
            since: when this process declared its schedules first, in ms by the server's clock; None for now.
            checks: whether a schedule that a newer process has declared otherwise is taken back if no worker
                declares it so any more.

        Returns:
            The time of the server's clock in ms, and the names of the schedules that the caller must store.
        """
        pairs = [word for pair in fingerprints.items() for word in pair]
        now, *names = await self._commands.run(
            keys,
            "declare_schedules",
            (keys.schedules_due, keys.schedules_declared, keys.beats),
            (
                *(keys.key_prefix, keys.announcements, round(keep * 1000)),
                *("" if since is None else since, "1" if checks else "", *pairs),
            ),
        )
        return now, [text_of(name) for name in names]

    async def accept_clock(self, keys: Keys, now: int) -> None:
        """Notes that all schedules of a shard were reviewed after the server's clock was set back.

        Args:
            keys: of the shard.
            now: the time of the server's clock, in ms.
        """
        await self._commands.send(keys, "SET", keys.schedules_clock, now, "PX", _CLOCK_MS)


_CLOCK_MS = 8_640_000_000
"""How long the latest time at which a schedule was changed is kept, in ms."""


def _pairs(fields: Sequence[bytes]) -> dict[bytes, bytes]:
    return dict(zip(fields[::2], fields[1::2], strict=True))
