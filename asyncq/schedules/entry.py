"""A schedule as it is kept at the server, and the changes that can be made of it. Pure, on any thread, but
for `Entry.read`, which runs on a loop.

The fields of a schedule:

    v version      f fingerprint of the definition     n next tick, s; empty if there is none
    s source       d definition                        a progress
    t since when   p 1 if it is paused                 r jobs that it has made
      declared, ms l id of the latest job              o ticks left out because of a running job
                   k tick of the latest job, s
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from asyncq import wire
from asyncq.broker.schedule_store import CODE, FOR_EVER, RUNTIME, Change, StoredSchedule, Tick
from asyncq.broker.schema.keys import text_of
from asyncq.errors import DecodeError
from asyncq.schedules.cron import in_zone
from asyncq.schedules.definition import Definition
from asyncq.schedules.schedule import Schedule
from asyncq.schedules.schedule_progress import Progress, Step, begin, due_ms, next_tick
from asyncq.system.threads import in_daemon_thread

if TYPE_CHECKING:
    from asyncq.broker.schedule_store import Field

_LATEST = wire.LATEST // 1000
"""The latest tick, in seconds since the epoch."""
_MOST = 2**53
"""No count is higher."""


@dataclass(frozen=True, slots=True)
class Entry:
    """A schedule as it is kept at the server.

    Attributes:
        version: every change replaces it.
        source: `CODE` or `RUNTIME`.
        fingerprint: of the definition as it was declared, without the headers of middleware.
        definition: of the schedule.
        progress: how far it has come.
        next: the next tick as it was computed last; None if there is none.
        is_paused: whether it is paused.
        runs: how many jobs it has made.
        left_out: how many ticks made no job, because the one before had not ended.
        last_tick: the latest tick that made a job; None if none has.
        last_id: the id of that job, or empty.
    """

    version: str
    source: str
    fingerprint: str
    definition: Definition
    progress: Progress
    next: int | None
    is_paused: bool
    runs: int
    left_out: int
    last_tick: int | None
    last_id: str

    @staticmethod
    def parse(stored: StoredSchedule) -> Entry:
        """Reads a schedule that exists.

        Raises:
            DecodeError: its fields were written by no version of asyncq that this one knows.
        """
        fields = stored.fields
        if stored.problem:
            raise DecodeError(stored.problem)
        source = text_of(fields.get(b"s", b""))
        if source not in {CODE, RUNTIME}:
            raise DecodeError(f"schedule {stored.name!r} has the source {source!r}")
        try:
            runs, left_out = (wire.number_in(fields.get(name, b"0"), _MOST) or 0 for name in (b"r", b"o"))
            next_, last_tick = (wire.number_in(fields.get(name, b""), _LATEST) for name in (b"n", b"k"))
            return Entry(
                stored.version,
                source,
                text_of(fields.get(b"f", b"")),
                Definition.decode(stored.name, fields[b"d"]),
                Progress.decode(fields[b"a"]),
                next_,
                fields.get(b"p") == b"1",
                runs,
                left_out,
                last_tick,
                text_of(fields.get(b"l", b"")),
            )
        except KeyError as error:
            raise DecodeError(f"schedule {stored.name!r} lacks the field {error}") from None

    @staticmethod
    async def read(stored: StoredSchedule) -> Entry:
        """Reads a schedule that exists, and prepares its rule, in a thread if it must read files.

        Raises:
            DecodeError: as `parse`.
            ImportError: the extra that reads cron texts is not installed here.
            ValueError: this machine does not know the zone of the rule.
        """
        entry = Entry.parse(stored)
        rule = entry.definition.terms.rule
        if not rule.is_ready:
            await in_daemon_thread(rule.prepare)
        return entry

    @property
    def name(self) -> str:
        """The name of the schedule."""
        return self.definition.name

    @property
    def coming(self) -> int | None:
        """The next tick that will make a job; None if it is paused, or has made all of its jobs."""
        most = self.definition.terms.max_runs
        return None if self.is_paused or (most is not None and self.runs >= most) else self.next

    def view(self) -> Schedule:
        """Returns the schedule as a user sees it."""
        definition, tz = self.definition, self.definition.terms.rule.tz
        args, kwargs = definition.arguments()
        return Schedule(
            self.name,
            definition.template.name,
            args,
            kwargs,
            definition.terms.rule.text,
            tz,
            None if self.coming is None else in_zone(self.coming, tz),
            None if self.last_tick is None else in_zone(self.last_tick, tz),
            self.last_id or None,
            self.is_paused,
            "code" if self.source == CODE else "runtime",
            self.runs,
            self.left_out,
        )

    # -- changes --

    def moved(self, step: Step, now_ms: int, keep: float) -> Change:
        """Returns the change that does a step.

        Args:
            step: the step.
            now_ms: the present time in ms.
            keep: how long a schedule that was added by a call is kept when it has ended, in seconds.
        """
        tick = None
        if step.tick is not None:
            due = due_ms(self.definition, step.tick)
            job, message = self.definition.job(step.tick, max(now_ms, due))
            overlaps = self.definition.terms.overlap or step.is_missed
            tick = Tick(at=step.tick, not_before=due, job=job, message=message, overlaps=overlaps)
        has_ended = step.next is None and self.source == RUNTIME
        return Change(
            name=self.name,
            version=self.version,
            due_at=None if step.next is None else due_ms(self.definition, step.next),
            fields={"n": _text(step.next), "a": step.progress.encode()},
            keep_until=now_ms + round(keep * 1000) if has_ended else "",
            tick=tick,
        )

    def paused(self) -> Change:
        """Returns the change that pauses it."""
        return Change(name=self.name, version=self.version, due_at=None, fields={"p": "1"})

    def resumed(self, now_ms: int) -> Change:
        """Returns the change that lets it go on, with its first tick after now."""
        progress = self.progress.past(now_ms // 1000)
        tick = next_tick(self.definition, progress)
        return Change(
            name=self.name,
            version=self.version,
            due_at=None if tick is None else due_ms(self.definition, tick),
            fields={"p": "", "n": _text(tick), "a": progress.encode()},
            wakes=True,
        )

    def reviewed(self, progress: Progress) -> Change | None:
        """Returns the change to another progress, or to another next tick of the same; None if all is as it
        was.
        """
        tick = next_tick(self.definition, progress)
        if (tick == self.next and progress == self.progress) or self.is_paused:
            return None
        return Change(
            name=self.name,
            version=self.version,
            due_at=None if tick is None else due_ms(self.definition, tick),
            fields={"n": _text(tick), "a": progress.encode()},
            wakes=True,
        )


def defined(
    definition: Definition,
    source: str,
    before: Entry | None,
    now_ms: int,
    keep: float,
    *,
    since: int = 0,
    fingerprint: str = "",
) -> tuple[Change, Entry]:
    """Returns the change that stores a definition, and the schedule as it is then, but for its version.

    A schedule with the same rule keeps its next tick, and its counts. A pause stays in any case: it is what
    an operator has decided.

    Args:
        definition: what is stored.
        source: `CODE` or `RUNTIME`.
        before: the schedule that it replaces, if there is one.
        now_ms: the present time in ms.
        keep: how long a schedule in code is kept without being declared, in seconds.
        since: when the process began that declares it, in ms.
        fingerprint: of the definition as it was declared, for one in code.
    """
    terms = definition.terms
    is_same = (
        before is not None
        and before.definition.terms.rule == terms.rule
        and before.definition.terms.start == terms.start
    )
    progress = begin(definition, now_ms // 1000, None if before is None else before.progress)
    if before is not None and is_same:
        progress = before.progress
    tick = next_tick(definition, progress)
    entry = Entry(
        "",
        source,
        fingerprint,
        definition,
        progress,
        tick,
        before is not None and before.is_paused,
        before.runs if before is not None and is_same else 0,
        before.left_out if before is not None and is_same else 0,
        None if before is None else before.last_tick,
        "" if before is None else before.last_id,
    )
    fields: dict[str, Field] = {
        "s": source,
        "f": fingerprint,
        "d": definition.encode(),
        "t": since,
        "n": _text(tick),
        "a": progress.encode(),
        "r": entry.runs,
        "o": entry.left_out,
    }
    change = Change(
        name=definition.name,
        version="" if before is None else before.version,
        due_at=None if tick is None or entry.is_paused else due_ms(definition, tick),
        fields=fields,
        keep_until=FOR_EVER if source == RUNTIME else now_ms + round(keep * 1000),
        wakes=True,
    )
    return change, entry


def _text(tick: int | None) -> str:
    return "" if tick is None else str(tick)
