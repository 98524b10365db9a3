"""Cron texts: when they tick in a time zone. `cronsim` reads a text and finds the local times that match it;
which moments these are, around a change of the clocks, is decided here.

`cronsim` because it is kept well, is used by a monitoring service for cron jobs, has no dependencies, and
does what Debian's cron does: names, ranges, steps, lists, `L`, `#`, and days of month and week together. It
is given local times without a zone, for it treats changes of the clocks by the minute field, too.

Pure, on any thread. `cronsim` is an extra, and is imported when the first cron text is read.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from asyncq import config
from asyncq.schedules.local_time import (
    change_between,
    first_moment_of,
    local_of,
    moment_of,
    offset_at,
    zone_of,
)
from asyncq.short_repr import brief
from asyncq.system import clock

if TYPE_CHECKING:
    from collections.abc import Iterator

ALIASES = {
    "@yearly": "0 0 1 1 *",
    "@annually": "0 0 1 1 *",
    "@monthly": "0 0 1 * *",
    "@weekly": "0 0 * * 0",
    "@daily": "0 0 * * *",
    "@midnight": "0 0 * * *",
    "@hourly": "0 * * * *",
}

_FIELDS = {
    "minute": "0 to 59",
    "hour": "0 to 23",
    "day-of-month": "1 to 31, or L",
    "month": "1 to 12, or JAN to DEC",
    "day-of-week": "0 to 7, SUN to SAT, 5L or 5#2",
}
"""The fields in their order, as `cronsim` names them in its errors, and what each may hold."""

_FIRST_WINDOW = 120
"""A search for the latest ticks begins with so many seconds for each, and looks back further if it must."""


_prepared: set[str] = set()
"""The zones that were read in this process, after cronsim was imported."""


@dataclass(frozen=True, slots=True)
class Cron:
    """The ticks of a cron text in a time zone.

    With a fixed hour, a local time that does not exist is the first moment after the gap, and one that exists
    twice is the first of the two. With `*` or `*/n` as the hour, time is counted as it passes: what does not
    exist is left out, and what exists twice ticks twice.

    Args:
        text: five fields, or an alias such as `@daily`.
        tz: the name of the zone.
    """

    text: str
    tz: str

    @classmethod
    def of(cls, text: str, tz: str) -> Cron:
        """Makes a rule of what a user gave.

        Raises:
            ValueError: it is no cron text, it never ticks, or there is no such zone.
            ImportError: the extra `cron` is not installed.
        """
        rule = cls(text, tz)
        rule.prepare()
        _check(text)
        if rule.first_after(int(clock.now()), 0) is None:
            raise ValueError(f"cron={text!r} never ticks: no day in the next 50 years matches it")
        return rule

    @property
    def is_ready(self) -> bool:
        """Whether ticks can be computed without reading a file."""
        return self.tz in _prepared

    def prepare(self) -> None:
        """Imports what reads cron texts, and reads the zone. It blocks, so no event loop should run it.

        Raises:
            ValueError: there is no such zone.
            ImportError: the extra `cron` is not installed.
        """
        try:
            import cronsim  # noqa: F401  later imports find it
        except ImportError:
            raise ImportError("cron= needs the package cronsim: pip install 'asyncq[cron]'") from None
        zone_of(self.tz)
        _prepared.add(self.tz)

    def to_wire(self) -> list[str | int]:
        """Returns what a definition holds for the rule."""
        return ["cron", self.text, self.tz]

    def first_after(self, after: int, anchor: int) -> int | None:  # noqa: ARG002  it counts from no anchor
        """Returns the first tick after a time; None if there is none in 50 years."""
        expression = ALIASES.get(self.text.lower(), self.text)
        if expression.split()[1].startswith("*"):
            return self._first_by_elapsed_time(expression, after)
        zone = zone_of(self.tz)
        # Several local times in a gap are the same moment, and the second pass of a time that exists twice is
        # no tick: both are moments that are not after `after`.
        local_times = _matches(expression, local_of(after, offset_at(after, zone)))
        moments = (first_moment_of(local, zone) for local in local_times)
        return next((moment for moment in moments if moment > after), None)

    def _first_by_elapsed_time(self, expression: str, after: int) -> int | None:
        """Returns the first tick after a time. Looks for it under one offset after the other."""
        zone = zone_of(self.tz)
        while True:
            offset = offset_at(after, zone)
            local = next(_matches(expression, local_of(after, offset)), None)
            if local is None:
                return None
            moment = moment_of(local, offset)
            if offset_at(moment, zone) == offset:
                return moment
            # From the change on, the clocks show another time: go on from there, with the change included.
            change = change_between(after, moment, zone)
            first = local_of(change - 1, offset_at(change, zone))
            local = next(_matches(expression, first), None)
            if local is None:
                return None
            moment = moment_of(local, offset_at(change, zone))
            if offset_at(moment, zone) == offset_at(change, zone):
                return moment
            after = change

    def newest(self, count: int, since: int, until: int, anchor: int) -> list[int]:
        """Returns the latest ticks up to a time, in order; see `Rule.newest`. Looks forward from a time that
        is early enough, so that changes of the clocks are treated in one place.
        """
        window = _FIRST_WINDOW * count
        while True:
            begin = max(since, until - window)
            found = deque(self._between(begin - 1, until, anchor), maxlen=count)
            if len(found) >= count or begin == since:
                return list(found)
            window *= 8

    def _between(self, after: int, until: int, anchor: int) -> Iterator[int]:
        tick = self.first_after(after, anchor)
        while tick is not None and tick <= until:
            yield tick
            tick = self.first_after(tick, anchor)


def next_times(
    cron: str, *, tz: str = "UTC", count: int = 5, after: datetime | None = None
) -> list[datetime]:
    """Returns the next times of a cron text. Needs no server.

    Args:
        cron: five fields (minute, hour, day of the month, month, day of the week), or `@hourly`, `@daily`,
            `@weekly`, `@monthly`, `@yearly`.
        tz: the name of the time zone in which the text is read, such as `Europe/Paris`.
        count: how many times, at least one.
        after: an aware datetime; the times come after it (default: now).

    Returns:
        Aware datetimes in that zone, in order. Fewer than `count` if the text does not tick so often within
        50 years.

    Raises:
        ValueError: it is no cron text or no zone, `count` is below 1, or `after` has no time zone.
        ImportError: the extra `cron` is not installed.

    Example:
        ```python
        asyncq.next_times("0 3 * * *", tz="Europe/Paris", count=2)
        ```
    """
    rule = Cron.of(cron, tz)
    if after is not None and after.tzinfo is None:
        raise ValueError(f"after={brief(after)} has no time zone: give it tzinfo=UTC, or leave it out")
    moment = int(clock.now() if after is None else after.timestamp() // 1)
    try:
        left = config.count(count)
    except ValueError as error:
        raise ValueError(f"count={error}") from None
    times: list[datetime] = []
    while left and (tick := rule.first_after(moment, 0)) is not None:
        times.append(in_zone(tick, tz))
        moment, left = tick, left - 1
    return times


def in_zone(moment: int, tz: str) -> datetime:
    """Returns a moment as an aware datetime in a zone."""
    return datetime.fromtimestamp(moment, UTC).astimezone(zone_of(tz))


def _matches(expression: str, after: datetime) -> Iterator[datetime]:
    """Yields the local times after another one that match a cron text; those of the same minute do not."""
    from cronsim import CronSim

    yield from CronSim(expression, after)


def _check(text: str) -> None:
    """Refuses what is no cron text, and shows the place of the fault."""
    from cronsim import CronSim, CronSimError

    if text.startswith("@"):
        if text.lower() not in ALIASES:
            raise ValueError(f"cron={text!r} is no known name: use one of {', '.join(ALIASES)}")
        return
    words = text.split()
    if len(words) != len(_FIELDS):
        raise ValueError(
            f"cron={text!r} has {len(words)} fields and not 5: write minute, hour, day of the month, month, "
            "day of the week, such as '0 3 * * 1-5'"
        )
    try:
        CronSim(text, local_of(int(clock.now()), 0))
    except CronSimError as error:
        fault = str(error).removeprefix("Bad ")
        names = list(_FIELDS)
        if fault not in names:
            raise ValueError(f"cron={text!r} cannot be read: {error}") from None
        number = names.index(fault)
        place = len(" ".join(words[:number])) + (number > 0)
        raise ValueError(
            f"cron={text!r}: {words[number]!r} is no {fault}: it may be {_FIELDS[fault]}\n"
            f"  {' '.join(words)}\n  {' ' * place}{'^' * len(words[number])}"
        ) from None
