"""Packs and reads the built-in values that msgpack does not know (datetime, UUID, Decimal, paths ...), each
as an extension with its code and its bytes. Pure functions.

Codes and layouts are in the queues of users: a new one may be added, but none may change. Code 1 is the
container tag of `trees`.
"""

from __future__ import annotations

import struct
from datetime import date, datetime, time, timedelta
from decimal import Context, Decimal
from ipaddress import (
    IPv4Address,
    IPv4Interface,
    IPv4Network,
    IPv6Address,
    IPv6Interface,
    IPv6Network,
)
from pathlib import Path, PosixPath, PurePosixPath, PureWindowsPath, WindowsPath
from typing import TYPE_CHECKING, Any, Final
from uuid import UUID

from msgpack import ExtType

from asyncq.errors import DecodeError
from asyncq.serializers.value_paths import ValuePath, refuse
from asyncq.serializers.zones import foreign_zone, pack_zone, read_zone, zone_and_fold

if TYPE_CHECKING:
    from collections.abc import Callable

MAX_DECIMAL_DIGITS: Final = 100
"""Most digits of a Decimal."""

_DATETIME: Final = struct.Struct(">HBBBBBIB")
_DATE: Final = struct.Struct(">HBB")
_TIME: Final = struct.Struct(">BBBIB")
_DELTA: Final = struct.Struct(">iii")
_PATHS: Final[dict[bytes, Any]] = {
    b"P": PosixPath,
    b"W": WindowsPath,
    b"p": PurePosixPath,
    b"w": PureWindowsPath,
}
ADDRESSES: Final[dict[bytes, Any]] = {
    b"4": IPv4Address,
    b"6": IPv6Address,
    b"n": IPv4Network,
    b"N": IPv6Network,
    b"i": IPv4Interface,
    b"I": IPv6Interface,
}
"""The types of IP addresses, each with its letter on the wire."""
_LONGEST_ADDRESS: Final = 400  # letter, eight groups, a scope of any sensible length, a mask
# A context of asyncq's own: the caller's may not trap a malformed number, and would return NaN for it.
_DECIMAL_CONTEXT: Final = Context()


class BrokenText:
    """A str with lone surrogates, in the data of a failure. In other values `packing` refuses them."""

    __slots__ = ("text",)

    def __init__(self, text: str) -> None:
        self.text: str = text


def _pack_int(value: int, path: ValuePath) -> Any:  # noqa: ARG001  one signature for the whole table
    if -(2**63) <= value < 2**64:
        return value
    return ExtType(2, value.to_bytes(value.bit_length() // 8 + 1, "big", signed=True))


def _pack_datetime(value: datetime, path: ValuePath) -> ExtType:
    zone, fold = pack_zone(value.tzinfo), value.fold
    if zone is None:
        zone, fold = zone_and_fold(value, path)
    fields = _DATETIME.pack(
        value.year,
        value.month,
        value.day,
        value.hour,
        value.minute,
        value.second,
        value.microsecond,
        fold,
    )
    return ExtType(3, fields + zone)


def _pack_time(value: time, path: ValuePath) -> ExtType:
    fields = _TIME.pack(value.hour, value.minute, value.second, value.microsecond, value.fold)
    zone = pack_zone(value.tzinfo)
    return ExtType(5, fields + (foreign_zone(value, path) if zone is None else zone))


def _pack_path(letter: bytes) -> Callable[[Any, ValuePath], Any]:
    # The name of a file need not be UTF-8: a str has such bytes as lone surrogates.
    return lambda value, _: ExtType(9, letter + str(value).encode(errors="surrogatepass"))


def _pack_address(letter: bytes) -> Callable[[Any, ValuePath], Any]:
    return lambda value, _: ExtType(10, letter + str(value).encode())


def _pack_decimal(value: Decimal, path: ValuePath) -> ExtType:
    digits = len(value.as_tuple().digits)
    if digits > MAX_DECIMAL_DIGITS:
        refuse(
            path,
            f"a Decimal of {digits} digits; at most {MAX_DECIMAL_DIGITS} can travel. Round it, or send it as "
            "str",
        )
    return ExtType(8, str(value).encode())


# By exact type, so that an instance of a subclass never loses its class without an error.
PACKERS: Final[dict[type, Callable[[Any, ValuePath], Any]]] = {
    int: _pack_int,
    datetime: _pack_datetime,
    date: lambda value, _: ExtType(4, _DATE.pack(value.year, value.month, value.day)),
    time: _pack_time,
    timedelta: lambda value, _: ExtType(6, _DELTA.pack(value.days, value.seconds, value.microseconds)),
    UUID: lambda value, _: ExtType(7, value.bytes),
    Decimal: _pack_decimal,
    BrokenText: lambda value, _: ExtType(11, value.text.encode(errors="surrogatepass")),
    **{cls: _pack_path(letter) for letter, cls in _PATHS.items()},
    **{cls: _pack_address(letter) for letter, cls in ADDRESSES.items()},
}
"""For each type, the function that makes the extension of a value. An int that fits msgpack stays an int."""


def _read_datetime(data: bytes) -> datetime:
    year, month, day, hour, minute, second, micro, fold = _DATETIME.unpack(data[: _DATETIME.size])
    zone = read_zone(data[_DATETIME.size :])
    return datetime(year, month, day, hour, minute, second, micro, tzinfo=zone, fold=fold)


def _read_time(data: bytes) -> time:
    hour, minute, second, micro, fold = _TIME.unpack(data[: _TIME.size])
    return time(hour, minute, second, micro, tzinfo=read_zone(data[_TIME.size :]), fold=fold)


def _read_decimal(data: bytes) -> Decimal:
    if len(data) > MAX_DECIMAL_DIGITS + 40:  # sign, point, five zeros after it, an exponent of twenty digits
        raise DecodeError("a Decimal on the wire is too long")
    return Decimal(data.decode("ascii"), _DECIMAL_CONTEXT)


def _read_path(data: bytes) -> Any:
    letter, text = data[:1], data[1:].decode(errors="surrogatepass")
    cls = _PATHS.get(letter)
    if cls is None or "\0" in text:
        raise DecodeError("a path on the wire is of no known kind, or has a zero in it")
    if cls is PosixPath or cls is WindowsPath:
        # A path of another operating system can be read as a pure path here, but it cannot be opened.
        pure = PurePosixPath if cls is PosixPath else PureWindowsPath
        return Path(text) if cls is type(Path()) else pure(text)
    return cls(text)


def _read_address(data: bytes) -> Any:
    cls = ADDRESSES.get(data[:1])
    if cls is None or len(data) > _LONGEST_ADDRESS:
        raise DecodeError("an IP address on the wire is of no known kind, or too long")
    return cls(data[1:].decode())


_READERS: Final[dict[int, Callable[[bytes], Any]]] = {
    2: lambda data: int.from_bytes(data, "big", signed=True),
    3: _read_datetime,
    4: lambda data: date(*_DATE.unpack(data)),
    5: _read_time,
    6: lambda data: timedelta(*_DELTA.unpack(data)),
    7: lambda data: UUID(bytes=data),
    8: _read_decimal,
    9: _read_path,
    10: _read_address,
    11: lambda data: data.decode(errors="surrogatepass"),
}


def read_extension(code: int, data: bytes) -> Any:
    """Returns the value of an extension.

    Raises:
        DecodeError: the code is unknown.
        Exception: what the type's constructor raises for garbage; `unpacking` knows these errors.
    """
    read = _READERS.get(code)
    if read is None:
        raise DecodeError(f"unknown extension type {code}: not ours, or from a newer version of asyncq")
    return read(data)
