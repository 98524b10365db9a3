"""Extensions: the built-in values that msgpack does not know, each with its code and its bytes.

The codes and layouts are stored in queues: a new one may be added, none may change. Code 1 is the mark of
`trees`.
"""

from __future__ import annotations

import re
import struct
from datetime import UTC, date, datetime, time, timedelta, timezone
from decimal import Context, Decimal
from typing import TYPE_CHECKING, Any, Final
from uuid import UUID
from zoneinfo import ZoneInfo

from msgpack import ExtType

from asyncq.errors import DecodeError
from asyncq.serializers.places import Place, name_of, refuse

if TYPE_CHECKING:
    from collections.abc import Callable

MAX_DECIMAL_DIGITS: Final = 100

_DATETIME: Final = struct.Struct(">HBBBBBIB")
_DATE: Final = struct.Struct(">HBB")
_TIME: Final = struct.Struct(">BBBIB")
_DELTA: Final = struct.Struct(">iii")
_OFFSET: Final = struct.Struct(">q")
_MICROSECOND: Final = timedelta(microseconds=1)
_UTC_ZONE: Final = b"o" + _OFFSET.pack(0)

# A zone's name reaches the file system: letters and single slashes only, nothing that leaves the zone folder.
_ZONE_KEY: Final = re.compile(r"[A-Za-z0-9_+\-]{1,40}(/[A-Za-z0-9_+\-]{1,40}){0,3}")
# A context of our own: the caller's may not trap a malformed number, and would give NaN for it.
_DECIMAL_CONTEXT: Final = Context()


def _pack_int(value: int, place: Place) -> Any:  # noqa: ARG001  one signature for the whole table
    if -(2**63) <= value < 2**64:
        return value
    return ExtType(2, value.to_bytes(value.bit_length() // 8 + 1, "big", signed=True))


def _pack_datetime(value: datetime, place: Place) -> ExtType:
    fields = _DATETIME.pack(
        value.year,
        value.month,
        value.day,
        value.hour,
        value.minute,
        value.second,
        value.microsecond,
        value.fold,
    )
    return ExtType(3, fields + _pack_zone(value.tzinfo, place))


def _pack_time(value: time, place: Place) -> ExtType:
    fields = _TIME.pack(value.hour, value.minute, value.second, value.microsecond, value.fold)
    return ExtType(5, fields + _pack_zone(value.tzinfo, place))


def _pack_zone(zone: Any, place: Place) -> bytes:
    if zone is None:
        return b""
    if zone is UTC:
        return _UTC_ZONE
    if type(zone) is timezone:
        # The only way to tell a name that was given from the one that is made up of the offset.
        offset, *name = zone.__getinitargs__()  # type: ignore[attr-defined]
        return b"o" + _OFFSET.pack(offset // _MICROSECOND) + "".join(name).encode(errors="surrogatepass")
    if type(zone) is ZoneInfo and zone.key is not None and _ZONE_KEY.fullmatch(zone.key):
        return b"z" + zone.key.encode()
    kind = name_of(type(zone))
    return refuse(
        place, f"a time zone of type {kind} cannot travel. Use zoneinfo.ZoneInfo or a fixed timezone"
    )


def _pack_decimal(value: Decimal, place: Place) -> ExtType:
    digits = len(value.as_tuple().digits)
    if digits > MAX_DECIMAL_DIGITS:
        refuse(
            place,
            f"a Decimal of {digits} digits; {MAX_DECIMAL_DIGITS} can travel. Round it, or send it as str",
        )
    return ExtType(8, str(value).encode())


# By exact type, so that a subclass is never flattened in silence.
PACKERS: Final[dict[type, Callable[[Any, Place], Any]]] = {
    int: _pack_int,
    datetime: _pack_datetime,
    date: lambda value, _: ExtType(4, _DATE.pack(value.year, value.month, value.day)),
    time: _pack_time,
    timedelta: lambda value, _: ExtType(6, _DELTA.pack(value.days, value.seconds, value.microseconds)),
    UUID: lambda value, _: ExtType(7, value.bytes),
    Decimal: _pack_decimal,
}
"""From a value to its extension; an int that msgpack knows stays one."""


def _read_zone(data: bytes) -> Any:
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


def _read_datetime(data: bytes) -> datetime:
    year, month, day, hour, minute, second, micro, fold = _DATETIME.unpack(data[: _DATETIME.size])
    zone = _read_zone(data[_DATETIME.size :])
    return datetime(year, month, day, hour, minute, second, micro, tzinfo=zone, fold=fold)


def _read_time(data: bytes) -> time:
    hour, minute, second, micro, fold = _TIME.unpack(data[: _TIME.size])
    return time(hour, minute, second, micro, tzinfo=_read_zone(data[_TIME.size :]), fold=fold)


def _read_decimal(data: bytes) -> Decimal:
    if len(data) > MAX_DECIMAL_DIGITS + 40:  # sign, point, five zeros after it, an exponent of twenty digits
        raise DecodeError("a Decimal on the wire is too long")
    return Decimal(data.decode("ascii"), _DECIMAL_CONTEXT)


_READERS: Final[dict[int, Callable[[bytes], Any]]] = {
    2: lambda data: int.from_bytes(data, "big", signed=True),
    3: _read_datetime,
    4: lambda data: date(*_DATE.unpack(data)),
    5: _read_time,
    6: lambda data: timedelta(*_DELTA.unpack(data)),
    7: lambda data: UUID(bytes=data),
    8: _read_decimal,
}


def read_extension(code: int, data: bytes) -> Any:
    """The value of an extension.

    Raises:
        DecodeError: the code is unknown.
        Exception: whatever the type's constructor makes of garbage; `unpacking` knows the kinds.
    """
    read = _READERS.get(code)
    if read is None:
        raise DecodeError(f"unknown extension type {code}: not ours, or from a newer version of asyncq")
    return read(data)
