"""From local times of a zone to moments, and back: gaps in spring, times that exist twice in autumn.

Moments are seconds since the epoch. A local time is a datetime without a zone. Pure, on any thread. The zone
data is that of the machine, else of the package `tzdata`.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from functools import cache
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from datetime import tzinfo

_EPOCH = datetime(1970, 1, 1)  # noqa: DTZ001  a local time has no zone
_WEEK = 7 * 86_400
"""No zone changes its offset twice in this time, as far as the search for a change is concerned."""


@cache
def zone_of(name: str) -> tzinfo:
    """Returns the time zone of a name.

    Raises:
        ValueError: there is no such zone; the message says which may have been meant.
    """
    if name.upper() == "UTC":
        return UTC
    # Imported here: most programs have no schedule in a zone, and none should pay for one.
    import difflib
    from zoneinfo import ZoneInfo, ZoneInfoNotFoundError, available_timezones

    try:
        return ZoneInfo(name)
    except (ZoneInfoNotFoundError, ValueError, OSError):
        pass  # OSError: the name is that of a folder
    near = difflib.get_close_matches(name, available_timezones(), 1, 0.6)
    hint = f"did you mean {near[0]!r}?" if near else "write a name such as Europe/Paris"
    if not available_timezones():
        hint = "this machine has no data of time zones: pip install 'asyncq[cron]'"
    raise ValueError(f"tz={name!r} is no time zone: {hint}")


def offset_at(moment: int, zone: tzinfo) -> int:
    """Returns how many seconds local time is ahead of UTC at a moment."""
    offset = datetime.fromtimestamp(moment, zone).utcoffset()
    assert offset is not None, "every zone has an offset"
    return int(offset.total_seconds())


def local_of(moment: int, offset: int) -> datetime:
    """Returns the local time at a moment, with that offset."""
    return _EPOCH + timedelta(seconds=moment + offset)


def moment_of(local: datetime, offset: int) -> int:
    """Returns the moment of a local time, with that offset."""
    return int((local - _EPOCH).total_seconds()) - offset


def first_moment_of(local: datetime, zone: tzinfo) -> int:
    """Returns the moment of a local time: the first if it exists twice, and the end of the gap if it does not
    exist.
    """
    aware = local.replace(tzinfo=zone)
    first, second = int(aware.timestamp()), int(aware.replace(fold=1).timestamp())
    if local_of(first, offset_at(first, zone)) == local:
        return first
    # In a gap, the offset before it counts from after the gap, and the offset after it from before the gap.
    return change_between(second, first, zone)


def change_between(before: int, after: int, zone: tzinfo) -> int:
    """Returns the first moment after `before` at which the offset changes. At `after` it must be another one
    than at `before`.
    """
    old = offset_at(before, zone)
    while after - before > _WEEK and offset_at(before + _WEEK, zone) == old:
        before += _WEEK
    after = min(after, before + _WEEK)
    while after - before > 1:
        middle = (before + after) // 2
        if offset_at(middle, zone) == old:
            before = middle
        else:
            after = middle
    return after
