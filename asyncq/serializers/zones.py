"""Packs and reads time zones, as an offset or by their name, whatever library made them.

A zone of another library than `datetime` and `zoneinfo` (pydantic_core, pytz, dateutil ...) arrives as the
equal zone of the standard library: a `ZoneInfo` if it has a name, a `timezone` if its offset is fixed.
"""

from __future__ import annotations

import re
import struct
from datetime import UTC, datetime, time, timedelta, timezone
from typing import TYPE_CHECKING, Any, Final, NoReturn
from zoneinfo import ZoneInfo

from asyncq.errors import DecodeError
from asyncq.serializers.value_paths import name_of, refuse

if TYPE_CHECKING:
    from asyncq.serializers.value_paths import ValuePath

_OFFSET: Final = struct.Struct(">q")
_MICROSECOND: Final = timedelta(microseconds=1)
_UTC_ZONE: Final = b"o" + _OFFSET.pack(0)

# `ZoneInfo` makes a file name of a zone's name. So a name may have letters, digits, `_+-` and single slashes,
# and cannot leave the folder of the zones.
_ZONE_KEY: Final = re.compile(r"[A-Za-z0-9_+\-]{1,40}(/[A-Za-z0-9_+\-]{1,40}){0,3}")
# Names that mean only the offset 0.
_UTC_KEYS: Final = frozenset({"UTC", "Etc/UTC", "Z"})


def pack_zone(zone: Any) -> bytes | None:
    """Returns the bytes of a zone of the standard library; None for a zone of another library."""
    if zone is None:
        return b""
    if zone is UTC:
        return _UTC_ZONE
    if type(zone) is timezone:
        # Only this tells whether the zone was given a name: `tzname` makes one of the offset otherwise.
        offset, *name = zone.__getinitargs__()  # type: ignore[attr-defined]
        return _pack_offset(offset) + "".join(name).encode(errors="surrogatepass")
    if type(zone) is ZoneInfo and zone.key is not None and _ZONE_KEY.fullmatch(zone.key):
        return _pack_key(zone.key)
    return None


def zone_and_fold(value: datetime, path: ValuePath) -> tuple[bytes, int]:
    """Returns the bytes of the zone of a datetime, where the zone is of another library, and the datetime's
    fold in the equal zone of the standard library.

    Raises:
        SerializationError: the zone has neither a fixed offset nor a name; names its path.
    """
    zone = value.tzinfo
    try:
        return _pack_foreign(zone, value)
    except Exception:  # noqa: BLE001  a zone of another library is foreign code
        _refuse(zone, path)


def foreign_zone(value: time, path: ValuePath) -> bytes:
    """Returns the bytes of the zone of a time of day, where the zone is of another library.

    Raises:
        SerializationError: as `zone_and_fold`.
    """
    zone: Any = value.tzinfo
    try:
        key = _key_of(zone)
        return _pack_offset(zone.utcoffset(None)) if key is None else _pack_key(key)
    except Exception:  # noqa: BLE001  a zone of another library is foreign code
        _refuse(zone, path)


def _pack_offset(offset: timedelta) -> bytes:
    return b"o" + _OFFSET.pack(offset // _MICROSECOND)


def _pack_key(key: str) -> bytes:
    return b"z" + key.encode()


def _pack_foreign(zone: Any, value: datetime) -> tuple[bytes, int]:
    """Returns the bytes of a zone of another library, and the fold. Raises whatever that library raises."""
    key = _key_of(zone)
    if key is None:
        # A zone that has an offset without a date has the same offset all year.
        return _pack_offset(zone.utcoffset(None)), value.fold
    offset = value.utcoffset()
    # pytz has one object for summer and one for winter, and knows no fold. So both folds are tried.
    for fold in (value.fold, 1 - value.fold):
        if value.replace(tzinfo=ZoneInfo(key), fold=fold).utcoffset() == offset:
            return _pack_key(key), fold
    # `datetime(..., tzinfo=pytz.timezone(...))` has an offset of long ago, the local mean time, which the
    # named zone does not have at that date. The moment counts more than the name, so the offset travels.
    if offset is None:
        raise ValueError("a zone without an offset")
    return _pack_offset(offset), value.fold


def _key_of(zone: Any) -> str | None:
    """Returns the name of a zone of another library, if the zone has one; None for a fixed offset.

    Raises:
        Exception: the standard library knows no zone of that name.
    """
    name = getattr(zone, "key", None) or getattr(zone, "zone", None)  # backports.zoneinfo; pytz
    if name is None:
        name = getattr(zone, "_filename", None)  # dateutil: the file that it read
        if isinstance(name, str):
            name = name.rpartition("zoneinfo/")[2]
    if not isinstance(name, str) or name in _UTC_KEYS or not _ZONE_KEY.fullmatch(name):
        return None
    ZoneInfo(name)  # raises if there is no zone of that name
    return name


def _refuse(zone: Any, path: ValuePath) -> NoReturn:
    refuse(
        path,
        f"a time zone of type {name_of(type(zone))} cannot travel: it has neither a fixed offset nor the "
        f"name of a zone. Use zoneinfo.ZoneInfo or datetime.timezone",
    )


def read_zone(data: bytes) -> Any:
    """Returns the zone of bytes that came.

    Raises:
        DecodeError: they are neither an offset nor a name.
        Exception: what `timezone` and `ZoneInfo` raise for garbage; `unpacking` knows these errors.
    """
    if not data:
        return None
    if data[:1] == b"o":
        offset = timedelta(microseconds=_OFFSET.unpack(data[1:9])[0])
        name = data[9:].decode(errors="surrogatepass")
        return timezone(offset, name) if name else timezone(offset)
    key = data[1:].decode("ascii")
    if data[:1] != b"z" or not _ZONE_KEY.fullmatch(key):
        raise DecodeError("a time zone on the wire is neither an offset nor the name of a zone")
    return ZoneInfo(key)
