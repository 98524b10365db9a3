"""Time zones: as an offset, or by their name, whatever library made them.

A zone of another library than `datetime` and `zoneinfo` (pydantic_core, pytz, dateutil ...) arrives as what
the standard library has for it: one with a name as that `ZoneInfo`, one of a fixed offset as a `timezone`.
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

# A zone's name reaches the file system: letters and single slashes only, nothing that leaves the zone folder.
_ZONE_KEY: Final = re.compile(r"[A-Za-z0-9_+\-]{1,40}(/[A-Za-z0-9_+\-]{1,40}){0,3}")
# The names that are no more than offset 0.
_UTC_KEYS: Final = frozenset({"UTC", "Etc/UTC", "Z"})


def pack_zone(zone: Any) -> bytes | None:
    """The bytes of a zone of the standard library; None if it is of another."""
    if zone is None:
        return b""
    if zone is UTC:
        return _UTC_ZONE
    if type(zone) is timezone:
        # The only way to tell a name that was given from the one that is made up of the offset.
        offset, *name = zone.__getinitargs__()  # type: ignore[attr-defined]
        return _pack_offset(offset) + "".join(name).encode(errors="surrogatepass")
    if type(zone) is ZoneInfo and zone.key is not None and _ZONE_KEY.fullmatch(zone.key):
        return _pack_key(zone.key)
    return None


def zone_and_fold(value: datetime, path: ValuePath) -> tuple[bytes, int]:
    """The bytes of the zone of a moment that is of another library, and the fold that it has there.

    Raises:
        SerializationError: the zone is neither a fixed offset nor one with a name; names its path.
    """
    zone = value.tzinfo
    try:
        return _pack_foreign(zone, value)
    except Exception:  # noqa: BLE001  a zone of another library is foreign code
        _refuse(zone, path)


def foreign_zone(value: time, path: ValuePath) -> bytes:
    """The bytes of the zone of a time of day that is of another library.

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
    key = _key_of(zone)
    if key is None:
        # A zone that says its offset without a date has the same one all year.
        return _pack_offset(zone.utcoffset(None)), value.fold
    offset = value.utcoffset()
    # pytz keeps summer and winter in two objects and knows no fold, so the fold is looked for.
    for fold in (value.fold, 1 - value.fold):
        if value.replace(tzinfo=ZoneInfo(key), fold=fold).utcoffset() == offset:
            return _pack_key(key), fold
    # `datetime(..., tzinfo=pytz.timezone(...))` has the mean local time of long ago: the moment counts.
    if offset is None:
        raise ValueError("a zone without an offset")
    return _pack_offset(offset), value.fold


def _key_of(zone: Any) -> str | None:
    """The name of a zone of another library, if the standard library knows it; None for a fixed offset."""
    name = getattr(zone, "key", None) or getattr(zone, "zone", None)  # backports.zoneinfo; pytz
    if name is None:
        name = getattr(zone, "_filename", None)  # dateutil: the file that it read
        if isinstance(name, str):
            name = name.rpartition("zoneinfo/")[2]
    if not isinstance(name, str) or name in _UTC_KEYS or not _ZONE_KEY.fullmatch(name):
        return None
    ZoneInfo(name)  # raises if there is none
    return name


def _refuse(zone: Any, path: ValuePath) -> NoReturn:
    refuse(
        path,
        f"a time zone of type {name_of(type(zone))} cannot travel: it has neither a fixed offset nor the "
        f"name of a zone. Use zoneinfo.ZoneInfo or datetime.timezone",
    )


def read_zone(data: bytes) -> Any:
    """The zone of such bytes.

    Raises:
        DecodeError: neither an offset nor a name.
        Exception: whatever `timezone` and `ZoneInfo` make of garbage; `unpacking` knows the kinds.
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
