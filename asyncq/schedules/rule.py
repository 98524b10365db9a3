"""When a schedule ticks: every so many seconds, or once at a time. The rule of a cron text is in `cron`.

A rule is pure computation, on any thread. Its times are whole seconds since the epoch, in UTC. What a rule
needs beyond its own values is the anchor of the schedule, from which `every` counts.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Protocol


class Rule(Protocol):
    """The ticks of a schedule."""

    @property
    def text(self) -> str:
        """The rule as a user reads it."""
        ...

    @property
    def tz(self) -> str:
        """The name of the time zone in which the rule is read."""
        ...

    @property
    def is_ready(self) -> bool:
        """Whether ticks can be computed without reading a file."""
        ...

    def prepare(self) -> None:
        """Reads the files that it takes to compute ticks."""
        ...

    def to_wire(self) -> list[str | int]:
        """Returns what a definition holds for the rule."""
        ...

    def first_after(self, after: int, anchor: int) -> int | None:
        """Returns the first tick after a time; None if there is none."""
        ...

    def newest(self, count: int, since: int, until: int, anchor: int) -> list[int]:
        """Returns the latest ticks up to a time, in order.

        Args:
            count: how many at most; at least one.
            since: a tick; earlier ones are not returned.
            until: the latest time, not before `since`.
            anchor: of the schedule.
        """
        ...


@dataclass(frozen=True, slots=True)
class Every:
    """A tick every so many seconds: `anchor + n * seconds`."""

    seconds: int

    tz = "UTC"
    is_ready = True

    def prepare(self) -> None:
        """Does nothing: there is nothing to read."""

    @property
    def text(self) -> str:
        """The rule as a user reads it."""
        return f"every {self.seconds}s"

    def to_wire(self) -> list[str | int]:
        """Returns what a definition holds for the rule."""
        return ["every", self.seconds]

    def first_after(self, after: int, anchor: int) -> int:
        """Returns the first tick after a time. The anchor is a tick, and none is before it."""
        return max(anchor, anchor + ((after - anchor) // self.seconds + 1) * self.seconds)

    def newest(self, count: int, since: int, until: int, anchor: int) -> list[int]:
        """Returns the latest ticks up to a time, in order; see `Rule.newest`."""
        last = anchor + (until - anchor) // self.seconds * self.seconds
        first = max(since, last - (count - 1) * self.seconds)
        return list(range(first, last + 1, self.seconds))


@dataclass(frozen=True, slots=True)
class At:
    """One tick."""

    at: int

    tz = "UTC"
    is_ready = True

    def prepare(self) -> None:
        """Does nothing: there is nothing to read."""

    @property
    def text(self) -> str:
        """The rule as a user reads it."""
        return f"at {datetime.fromtimestamp(self.at, UTC).isoformat()}"

    def to_wire(self) -> list[str | int]:
        """Returns what a definition holds for the rule."""
        return ["at", self.at]

    def first_after(self, after: int, anchor: int) -> int | None:  # noqa: ARG002  it counts from no anchor
        """Returns the tick if it is after a time, else None."""
        return self.at if self.at > after else None

    def newest(self, count: int, since: int, until: int, anchor: int) -> list[int]:  # noqa: ARG002  as above
        """Returns the tick, if it is not after `until`; see `Rule.newest`."""
        return [self.at] if since <= self.at <= until else []
