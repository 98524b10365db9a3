"""How far a schedule has come, and what a worker does with it when it is due. Pure, on any thread.

The next tick follows from the definition and the progress. A worker that reads both at the server computes
what is to be done, and the server accepts that from one worker only.

Times are whole seconds since the epoch, by the server's clock.
"""

from __future__ import annotations

import dataclasses
import zlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import msgpack

from asyncq import wire
from asyncq.errors import DecodeError
from asyncq.schedules.rule import At, Every

if TYPE_CHECKING:
    from asyncq.schedules.definition import Definition

ON_TIME = 10
"""A tick is on time if it is at most so many seconds late. It then runs whatever `catch_up` says: the worker
that had it may have died, and another one went on with it."""

MOST_CAUGHT_UP = 1000
"""Of the ticks of a time without a worker, so many run at most, the latest ones."""

_MOST_RUNS = 16
"""So many runs of ticks are remembered. There is more than one only after a pause or a jump of the clock."""


@dataclass(frozen=True, slots=True)
class Progress:
    """How far a schedule has come.

    Attributes:
        anchor: the time from which `every` counts.
        after: the next tick is the first after this time.
        given_out: ticks that have been given out and must not be given out again, also if the clock is set
            back: runs of ticks that followed each other, each with its first and its last tick.
        missed_until: while missed ticks are caught up, the end of the time without a worker: ticks up to then
            were missed, also those that would be on time by themselves.
    """

    anchor: int
    after: int
    given_out: tuple[tuple[int, int], ...] = ()
    missed_until: int | None = None

    def encode(self) -> bytes:
        """Encodes the progress, as the server keeps it."""
        return wire.packed([self.anchor, self.after, self.given_out, self.missed_until])

    @staticmethod
    def decode(data: bytes) -> Progress:
        """Reads the progress of a schedule.

        Raises:
            DecodeError: it is none.
        """
        try:
            anchor, after, given_out, missed_until, *_ = msgpack.unpackb(data)
            return Progress(
                int(anchor),
                int(after),
                tuple((int(first), int(last)) for first, last in given_out),
                None if missed_until is None else int(missed_until),
            )
        except Exception as error:  # msgpack raises half a dozen unrelated types on garbage
            raise DecodeError(f"the progress of a schedule cannot be read: {error}") from error

    def with_tick(self, tick: int) -> Progress:
        """Returns the progress after a tick was given out."""
        runs = list(self.given_out)
        if runs and runs[-1][1] == self.after:
            runs[-1] = (runs[-1][0], tick)
        else:
            runs.append((tick, tick))
        if len(runs) > _MOST_RUNS:
            runs = [(runs[0][0], runs[1][1]), *runs[2:]]
        return dataclasses.replace(self, after=tick, given_out=tuple(runs))

    def run_of(self, tick: int) -> tuple[int, int] | None:
        """Returns the run of ticks that were given out in which a tick lies; None if it was not given out."""
        return next((run for run in self.given_out if run[0] <= tick <= run[1]), None)

    def past(self, after: int) -> Progress:
        """Returns the progress after the ticks up to a time were left out."""
        return dataclasses.replace(self, after=after)


@dataclass(frozen=True, slots=True)
class Step:
    """What is done with a schedule that is due.

    Attributes:
        progress: how far it has come afterwards.
        next: the next tick; None if there is none.
        tick: the tick that is given out; None if none is.
        is_missed: whether `tick` was missed, and runs late: then it does not matter whether the job before it
            has ended.
        left_out: the first and the last tick that were missed and do not run; None if there are none.
    """

    progress: Progress
    next: int | None
    tick: int | None = None
    is_missed: bool = False
    left_out: tuple[int, int] | None = None


def begin(definition: Definition, now: int, before: Progress | None = None) -> Progress:
    """Returns the progress of a schedule that begins now.

    Args:
        definition: of the schedule.
        now: the present time.
        before: the progress of an earlier schedule of this name: what was given out stays given out.
    """
    terms = definition.terms
    given_out = before.given_out if before is not None else ()
    if isinstance(terms.rule, At):
        # A time that has passed is a tick that was missed, and `catch_up` says whether it runs.
        return Progress(now, -1, given_out)
    return Progress(now if terms.start is None else terms.start, now, given_out)


def next_tick(definition: Definition, progress: Progress) -> int | None:
    """Returns the next tick of a schedule; None if there is none."""
    terms = definition.terms
    after = progress.after if terms.start is None else max(progress.after, terms.start - 1)
    while True:
        tick = terms.rule.first_after(after, progress.anchor)
        if tick is None or (terms.until is not None and tick > terms.until):
            return None
        run = progress.run_of(tick)
        if run is None or isinstance(terms.rule, Every):
            return tick  # `every` goes on at once after the clock was set back, with ticks that it had before
        after = run[1]


def due_ms(definition: Definition, tick: int) -> int:
    """Returns when the job of a tick is made, in ms: every worker computes the same jitter."""
    jitter = definition.terms.jitter
    if not jitter:
        return tick * 1000
    share = zlib.crc32(f"{definition.name}:{tick}".encode()) / 2**32
    return tick * 1000 + int(jitter * 1000 * share)


def step(definition: Definition, progress: Progress, runs: int, now_ms: int, ahead_ms: int = 0) -> Step:
    """Returns what is to be done with a schedule that a worker was handed out.

    Args:
        definition: of the schedule.
        progress: how far it has come.
        runs: how many jobs it has made.
        now_ms: the present time in ms.
        ahead_ms: a tick is given out so long before its time, for the worker prepares its job until then.
    """
    most = definition.terms.max_runs
    # The tick is computed again here, for the zone data may have changed since the one before.
    tick = None if most is not None and runs >= most else next_tick(definition, progress)
    if tick is None or due_ms(definition, tick) > now_ms + ahead_ms:
        return Step(progress, tick)
    if progress.missed_until is not None and tick <= progress.missed_until:
        return _given_out(definition, progress, tick, is_missed=True)
    progress = dataclasses.replace(progress, missed_until=None)
    if now_ms - due_ms(definition, tick) > ON_TIME * 1000:
        return _late(definition, progress, tick, now_ms)
    return _given_out(definition, progress, tick)


def _given_out(definition: Definition, progress: Progress, tick: int, **more: Any) -> Step:
    progress = progress.with_tick(tick)
    return Step(progress, next_tick(definition, progress), tick, **more)


def _late(definition: Definition, progress: Progress, tick: int, now_ms: int) -> Step:
    """Returns what is to be done after a time without a worker."""
    terms = definition.terms
    now = now_ms // 1000 if terms.until is None else min(now_ms // 1000, terms.until)
    if terms.catch_up == "all":
        return _catch_up_all(definition, dataclasses.replace(progress, missed_until=now), tick, now)
    ticks = terms.rule.newest(2, tick, now, progress.anchor)
    newest = ticks[-1]
    is_given_out = progress.run_of(newest) is not None and not isinstance(terms.rule, Every)
    if terms.catch_up == "none" or is_given_out:
        progress = progress.past(newest)
        return Step(progress, next_tick(definition, progress), left_out=(tick, newest))
    before = ticks[0] if len(ticks) > 1 else None
    if due_ms(definition, newest) > now_ms:
        # The latest tick is not missed, but waits for its jitter: it is the one that runs.
        assert before is not None, "the first tick is late, so it is another one"
        return Step(progress.past(before), newest, left_out=(tick, before))
    if before is None:
        return _given_out(definition, progress, tick)
    return _given_out(definition, progress.past(before), newest, left_out=(tick, before))


def _catch_up_all(definition: Definition, progress: Progress, tick: int, now: int) -> Step:
    """Returns the step for the first tick that was missed, where all missed ticks run, or for the first of
    the latest ones if they are too many. The steps for the others follow.
    """
    first, *_ = definition.terms.rule.newest(MOST_CAUGHT_UP, tick, now, progress.anchor)
    if first == tick:
        return _given_out(definition, progress, tick, is_missed=True)
    return _given_out(definition, progress.past(first - 1), first, is_missed=True, left_out=(tick, first - 1))


def review(definition: Definition, progress: Progress, now: int, *, is_set_back: bool) -> Progress:
    """Returns the progress of a schedule that is looked at again: when a worker begins, for the zone data may
    have changed, and after the server's clock was set back.

    Args:
        definition: of the schedule.
        progress: how far it has come.
        now: the present time.
        is_set_back: whether the clock was set back.
    """
    if not is_set_back:
        return progress
    rule = definition.terms.rule
    if isinstance(rule, Every):
        tick = next_tick(definition, progress)
        if tick is None or tick - now <= rule.seconds + max(1, rule.seconds // 10):
            return progress
        # The latest tick up to now: it comes a second time, and at once, so that no interval is longer.
        anchor = progress.anchor
        if now < anchor:
            anchor -= (anchor - now + rule.seconds - 1) // rule.seconds * rule.seconds
        return Progress(anchor, now - rule.seconds)
    if progress.after > now:
        return dataclasses.replace(progress, after=now, missed_until=None)
    return progress
