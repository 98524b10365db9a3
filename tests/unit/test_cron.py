"""Cron texts: the moments at which they tick in zones with all kinds of changes, and the texts that are
refused."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING
from zoneinfo import ZoneInfo

import pytest

import asyncq
from asyncq.schedules import cron as cron_module
from asyncq.schedules.cron import Cron
from asyncq.schedules.local_time import offset_at, zone_of

if TYPE_CHECKING:
    from collections.abc import Iterator

ZONES = ["Europe/Paris", "America/New_York", "Australia/Lord_Howe", "Africa/Casablanca"]
YEAR = int(datetime(2026, 1, 1, tzinfo=UTC).timestamp())
DAY = 86_400

FIXED = {
    "30 2 * * *": ({30}, {2}),
    "0 2 * * *": ({0}, {2}),
    "15 1 * * *": ({15}, {1}),
    "*/15 2 * * *": ({0, 15, 30, 45}, {2}),
    "10,50 1-3 * * *": ({10, 50}, {1, 2, 3}),
    "* 2 * * *": (set(range(60)), {2}),
    "0 3 * * *": ({0}, {3}),
}
BY_ELAPSED_TIME = {
    "30 * * * *": ({30}, set(range(24))),
    "*/20 * * * *": ({0, 20, 40}, set(range(24))),
    "45 */2 * * *": ({45}, set(range(0, 24, 2))),
    "0 */3 * * *": ({0}, set(range(0, 24, 3))),
    "* * * * *": (set(range(60)), set(range(24))),
}
"""Texts, with the minutes and hours that they mean."""


def changes_of(zone: str) -> list[int]:
    """Returns the moments of the year 2026 at which the clocks of a zone change, to the minute."""
    tz = ZoneInfo(zone)
    hours = range(YEAR, YEAR + 365 * DAY, 3600)
    return [
        next(m for m in range(hour, hour + 3601, 60) if offset_at(m, tz) != offset_at(hour, tz))
        for hour in hours
        if offset_at(hour, tz) != offset_at(hour + 3600, tz)
    ]


def minutes_around(change: int, zone: str) -> Iterator[tuple[int, datetime]]:
    """Yields each minute of two days before and after a change, with its local time."""
    for moment in range(change - 2 * DAY, change + 2 * DAY, 60):
        yield moment, datetime.fromtimestamp(moment, ZoneInfo(zone)).replace(tzinfo=None, fold=0)


def ticks(rule: Cron, change: int) -> list[int]:
    """Returns what the rule gives within a day and a half before and after a change."""
    found, moment = [], change - 36 * 3600
    while (tick := rule.first_after(moment, 0)) is not None and tick < change + 36 * 3600:
        found.append(tick)
        moment = tick
    return found


def near(moments: set[int], change: int) -> list[int]:
    return sorted(moment for moment in moments if change - 36 * 3600 < moment < change + 36 * 3600)


@pytest.mark.parametrize("zone", ZONES)
def test_each_zone_of_these_tests_changes_its_clocks_in_both_directions(zone):
    steps = [
        offset_at(change, ZoneInfo(zone)) - offset_at(change - 60, ZoneInfo(zone))
        for change in changes_of(zone)
    ]
    assert min(steps) < 0 < max(steps)
    assert {abs(step) for step in steps} == ({1800} if zone == "Australia/Lord_Howe" else {3600})


@pytest.mark.parametrize("zone", ZONES)
@pytest.mark.parametrize("text", BY_ELAPSED_TIME)
def test_with_a_star_as_hour_each_minute_that_passes_and_fits_is_a_tick(zone, text):
    minutes, hours = BY_ELAPSED_TIME[text]
    for change in changes_of(zone):
        fits = {
            moment
            for moment, local in minutes_around(change, zone)
            if local.minute in minutes and local.hour in hours
        }
        assert ticks(Cron.of(text, zone), change) == near(fits, change)


@pytest.mark.parametrize("zone", ZONES)
@pytest.mark.parametrize("text", FIXED)
def test_with_a_fixed_hour_each_local_time_is_one_tick_whether_it_exists_once_twice_or_never(zone, text):
    minutes, hours = FIXED[text]
    for change in changes_of(zone):
        first: dict[datetime, int] = {}
        for moment, local in minutes_around(change, zone):
            first.setdefault(local, moment)
        expected, local = set(), min(first)
        while local < max(first):
            if local.minute in minutes and local.hour in hours:
                # A time in a gap is the first moment that shows a later time.
                expected.add(first.get(local) or min(m for shown, m in first.items() if shown > local))
            local += timedelta(minutes=1)
        assert ticks(Cron.of(text, zone), change) == near(expected, change)


def shown(times: list[datetime]) -> list[str]:
    return [time.isoformat() for time in times]


def test_a_time_that_does_not_exist_runs_at_the_first_moment_after_the_gap():
    after = datetime(2026, 3, 28, 12, tzinfo=UTC)
    assert shown(asyncq.next_times("30 2 * * *", tz="Europe/Paris", count=2, after=after)) == [
        "2026-03-29T03:00:00+02:00",
        "2026-03-30T02:30:00+02:00",
    ]


def test_a_time_that_exists_twice_runs_once_at_the_first():
    after = datetime(2026, 10, 24, 12, tzinfo=UTC)
    assert shown(asyncq.next_times("30 2 * * *", tz="Europe/Paris", count=2, after=after)) == [
        "2026-10-25T02:30:00+02:00",
        "2026-10-26T02:30:00+01:00",
    ]


def test_every_hour_is_every_hour_that_passes():
    after = datetime(2026, 10, 24, 23, 59, tzinfo=UTC)
    assert shown(asyncq.next_times("@hourly", tz="Europe/Paris", count=3, after=after)) == [
        "2026-10-25T02:00:00+02:00",
        "2026-10-25T02:00:00+01:00",
        "2026-10-25T03:00:00+01:00",
    ]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("0 12 L * *", ["2026-01-31", "2026-02-28", "2026-03-31"]),
        ("0 12 * * FRI#2", ["2026-01-09", "2026-02-13", "2026-03-13"]),
        ("0 12 * * 5L", ["2026-01-30", "2026-02-27", "2026-03-27"]),
        ("0 12 1 JAN-MAR *", ["2026-01-01", "2026-02-01", "2026-03-01"]),
        ("0 12 29 2 *", ["2028-02-29", "2032-02-29", "2036-02-29"]),
        ("@monthly", ["2026-02-01", "2026-03-01", "2026-04-01"]),
        ("@weekly", ["2026-01-04", "2026-01-11", "2026-01-18"]),
        ("@YEARLY", ["2027-01-01", "2028-01-01", "2029-01-01"]),
    ],
)
def test_names_ranges_last_days_and_aliases_are_understood(text, expected):
    after = datetime(2026, 1, 1, tzinfo=UTC)
    assert [f"{time:%Y-%m-%d}" for time in asyncq.next_times(text, count=3, after=after)] == expected


@pytest.mark.parametrize("zone", ZONES)
@pytest.mark.parametrize("text", ["*/15 2 * * *", "30 * * * *", "0 3 * * 1"])
def test_the_newest_ticks_are_the_last_ones_that_going_forward_finds(zone, text):
    rule = Cron.of(text, zone)
    for change in changes_of(zone):
        since = rule.first_after(change - 20 * DAY, 0)
        assert since is not None
        until, every = change + 3 * 3600, [since]
        while (tick := rule.first_after(every[-1], 0)) is not None and tick <= until:
            every.append(tick)
        for count in (1, 3, 1000):
            assert rule.newest(count, since, until, 0) == every[-count:]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("61 * * * *", "'61' is no minute: it may be 0 to 59\n  61 * * * *\n  ^^"),
        (
            "0 3 * * MO",
            "'MO' is no day-of-week: it may be 0 to 7, SUN to SAT, 5L or 5#2\n  0 3 * * MO\n          ^^",
        ),
        ("0 25-99 * * *", "'25-99' is no hour: it may be 0 to 23\n  0 25-99 * * *\n    ^^^^^"),
        ("* * * *", "has 4 fields and not 5"),
        ("0 0 3 * * *", "has 6 fields and not 5"),
        ("@reboot", "is no known name: use one of @yearly"),
        ("0 0 30 2 *", "is no day-of-month"),
    ],
)
def test_a_wrong_text_is_refused_and_its_place_is_shown(text, message):
    with pytest.raises(ValueError) as caught:
        asyncq.next_times(text)
    assert message in str(caught.value)
    assert repr(text) in str(caught.value)


def test_a_wrong_zone_is_refused_with_the_name_that_may_have_been_meant():
    with pytest.raises(ValueError, match="tz='Europe/Pariss' is no time zone: did you mean 'Europe/Paris'"):
        asyncq.next_times("0 3 * * *", tz="Europe/Pariss")
    for name in ("Europe", "../etc/passwd", ""):
        with pytest.raises(ValueError, match="is no time zone"):
            asyncq.next_times("0 3 * * *", tz=name)


def test_next_times_needs_an_aware_time_and_a_count():
    with pytest.raises(ValueError, match="has no time zone"):
        asyncq.next_times("0 3 * * *", after=datetime(2026, 1, 1))  # noqa: DTZ001  it must be refused
    with pytest.raises(ValueError, match="count="):
        asyncq.next_times("0 3 * * *", count=0)


def test_without_the_extra_the_error_says_how_to_install_it(monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "cronsim", None)
    with pytest.raises(ImportError, match=r"pip install 'asyncq\[cron\]'"):
        asyncq.next_times("0 3 * * *")


def test_utc_needs_no_zone_data():
    assert zone_of("UTC") is UTC
    assert cron_module.in_zone(0, "UTC") == datetime(1970, 1, 1, tzinfo=UTC)
