"""The terms of a schedule: its rule, and what happens to ticks that are late, missed, or meet a running job.

Terms are what a user gives beside the name and the call, checked once. They never change, so any thread may
use them.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any, Literal, get_args

from asyncq import config
from asyncq.schedules.cron import Cron
from asyncq.schedules.rule import At, Every
from asyncq.short_repr import brief

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from asyncq.schedules.rule import Rule

CatchUp = Literal["latest", "all", "none"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Terms:
    """The terms of a schedule, times in seconds since the epoch.

    Attributes:
        rule: when it ticks.
        catch_up: which ticks of a time without a worker run.
        overlap: whether a tick's job is made while the one before has not ended.
        jitter: how many seconds a job may be made after its tick.
        start, until: the first and the last time at which it may tick.
        max_runs: how many jobs it makes.
    """

    rule: Rule
    catch_up: CatchUp = "latest"
    overlap: bool = False
    jitter: float = 0.0
    start: int | None = None
    until: int | None = None
    max_runs: int | None = None

    @staticmethod
    def of(given: Mapping[str, Any], now: float) -> Terms:
        """Makes terms of what a user gave, by the names of `Schedules.add`; None means not given.

        Args:
            given: the values.
            now: the present time, for an `at` in seconds from now.

        Raises:
            ValueError: a value does not fit; the message says what would fit.
            TypeError: not exactly one of `every`, `cron` and `at` is given.
            ImportError: the extra that reads cron texts is not installed.
        """
        catch_up: Any = given.get("catch_up") or "latest"
        if catch_up not in get_args(CatchUp):
            raise ValueError(f'catch_up={brief(catch_up)}: use "latest", "all" or "none"')
        try:
            max_runs = None if given.get("max_runs") is None else config.count(given["max_runs"])
        except ValueError as error:
            raise ValueError(f"max_runs={error}") from None
        start, until = (_moment(name, given.get(name)) for name in ("start", "until"))
        if start is not None and until is not None and start > until:
            raise ValueError("start= is after until=, so the schedule would never tick")
        return Terms(
            rule=_rule(given, now),
            catch_up=catch_up,
            overlap=bool(given.get("overlap")),
            jitter=config.duration("jitter", given.get("jitter") or 0),
            start=start,
            until=until,
            max_runs=max_runs,
        )

    def to_wire(self) -> list[Any]:
        """Returns what a definition holds for the terms."""
        return [
            self.rule.to_wire(),
            self.catch_up,
            self.overlap,
            self.jitter,
            self.start,
            self.until,
            self.max_runs,
        ]

    @staticmethod
    def from_wire(words: Sequence[Any]) -> Terms:
        """Reads what `to_wire` has made.

        Raises:
            ValueError, TypeError: it was made by no version of asyncq.
        """
        rule, catch_up, overlap, jitter, start, until, max_runs, *_ = words
        if catch_up not in get_args(CatchUp):
            raise ValueError(f"unknown catch_up {catch_up!r}")
        return Terms(
            rule=_rule_from(rule),
            catch_up=catch_up,
            overlap=bool(overlap),
            jitter=float(jitter),
            start=None if start is None else int(start),
            until=None if until is None else int(until),
            max_runs=None if max_runs is None else int(max_runs),
        )


def _rule(given: Mapping[str, Any], now: float) -> Rule:
    kinds = [name for name in ("every", "cron", "at") if given.get(name) is not None]
    if len(kinds) != 1:
        what = " and ".join(f"{kind}=" for kind in kinds) or "nothing"
        raise TypeError(f"a schedule needs one of every=, cron= and at=, and {what} was given")
    if given.get("tz") is not None and kinds != ["cron"]:
        raise TypeError("tz= says how a cron text is read: give it with cron=")
    if kinds == ["every"]:
        return Every(_interval(given["every"]))
    if kinds == ["cron"]:
        if not isinstance(given["cron"], str):
            raise TypeError(f"cron={brief(given['cron'])}: give a text such as '0 3 * * *'")
        return Cron.of(" ".join(given["cron"].split()), given.get("tz") or "UTC")
    at = given["at"]
    if isinstance(at, datetime):
        moment = _moment("at", at, rounds_up=True)
        assert moment is not None
        return At(moment)
    return At(-int(-(now + config.duration("at", at)) // 1))


def _rule_from(words: Sequence[Any]) -> Rule:
    kind, *values = words
    if kind == "every":
        return Every(int(values[0]))
    if kind == "at":
        return At(int(values[0]))
    if kind == "cron":
        return Cron(str(values[0]), str(values[1]))
    raise ValueError(f"unknown rule {kind!r}")


def _interval(value: float | timedelta) -> int:
    seconds = config.duration("every", value)
    if seconds < 1 or seconds != int(seconds):
        raise ValueError(
            f"every={brief(value)}: a schedule ticks every whole second or more, such as every=30"
        )
    return int(seconds)


def _moment(name: str, value: Any, *, rounds_up: bool = False) -> int | None:
    """Returns an aware datetime as whole seconds since the epoch."""
    if value is None:
        return None
    if not isinstance(value, datetime):
        raise TypeError(
            f"{name}={brief(value)}: give an aware datetime, such as datetime(2030, 1, 1, tzinfo=UTC)"
        )
    if value.tzinfo is None:
        raise ValueError(f"{name}={brief(value)} has no time zone: use datetime(..., tzinfo=UTC)")
    seconds = value.timestamp()
    return -int(-seconds // 1) if rounds_up else int(seconds // 1)
