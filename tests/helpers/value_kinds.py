"""`KINDS`: each kind of value that travels, with an example and its text in `docs/values.md`."""

from __future__ import annotations

import dataclasses
import enum
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta, timezone
from decimal import Decimal
from ipaddress import ip_address, ip_network
from pathlib import PurePosixPath
from typing import Any, NamedTuple, TypedDict
from uuid import UUID
from zoneinfo import ZoneInfo

import pydantic


class Color(enum.Enum):
    RED = "red"


class Size(enum.IntEnum):
    SMALL = 1


@dataclass
class Point:
    x: int
    y: int = 0


@dataclass
class Spot:
    x: int


class Pair(NamedTuple):
    left: int
    right: str


class Order(TypedDict):
    point: Point


class User(pydantic.BaseModel):
    model_config = pydantic.ConfigDict(extra="allow")
    name: str
    age: int | None = None
    _seen: int = pydantic.PrivateAttr(default=0)


class Account(pydantic.BaseModel):
    secret: pydantic.SecretStr
    home: pydantic.HttpUrl


@dataclasses.dataclass(frozen=True)
class Kind:
    """One row of the table: the name of a kind of value, an example with its annotation, and its rules."""

    name: str
    annotation: Any
    value: Any
    arrives: str
    checked: str = "nothing"
    refused: str = "subclasses"


def _user() -> User:
    user = User(name="n", nick="x")
    user._seen = 2
    return user


KINDS = (
    Kind("`None`, `bool`", None, [None, True], "equal"),
    Kind("`int`", None, [1, -(2**40), 2**70], "equal, of any size"),
    Kind("`float`", None, 1.5, "equal, NaN and infinities too"),
    Kind("`str`", None, "ü", "equal", "it has a UTF-8 form", "lone surrogates, subclasses"),
    Kind("`bytes`", None, b"\0", "equal", refused="`bytearray`, `memoryview`, subclasses"),
    Kind("`list`, `tuple`", None, [1, (2,)], "each as what it was", "at most 64 containers deep"),
    Kind("`dict`", None, {"a": 1, 2: "b"}, "keys of any kind, in their order", "as a list"),
    Kind("`set`, `frozenset`", None, [{1}, frozenset({2})], "each as what it was", "as a list"),
    Kind("`datetime` without zone", None, datetime(2026, 1, 2, 3, 4, 5, 6), "equal, with its `fold`"),  # noqa: DTZ001
    Kind(
        "`datetime`, `time` with an offset",
        None,
        [datetime(2026, 1, 2, tzinfo=UTC), time(3, tzinfo=timezone(timedelta(hours=1)))],
        "the same moment; the zone as `datetime.timezone`, whatever class it was (pydantic, pytz, dateutil)",
        refused="zones with neither a fixed offset nor a name",
    ),
    Kind(
        "`datetime`, `time` with a zone",
        None,
        datetime(2026, 1, 2, tzinfo=ZoneInfo("Europe/Berlin")),
        "the same moment; the zone as `ZoneInfo`, whatever class it was",
        "the zone is known there",
        "zones that `zoneinfo` does not know",
    ),
    Kind("`date`, `timedelta`", None, [date(2026, 1, 2), timedelta(1, 2, 3)], "equal"),
    Kind("`UUID`", None, UUID(int=7), "equal"),
    Kind("`Decimal`", None, Decimal("1.50"), "equal, with its digits", "at most 100 digits", "longer ones"),
    Kind(
        "`Path`, pure paths",
        None,
        PurePosixPath("/a"),
        "as what it was; a `Path` of the other system as a pure path of that system",
    ),
    Kind("IP addresses, networks, interfaces", None, [ip_address("::1"), ip_network("10.0.0.0/8")], "equal"),
    Kind(
        "enum member",
        Color,
        Color.RED,
        "the member with that value",
        "there is such a member",
        "members where no annotation names the enum",
    ),
    Kind(
        "enum member in a union", Color | Size, Size.SMALL, "the member, by the enum's tag", "tag and value"
    ),
    Kind(
        "dataclass",
        Point,
        Point(1, 2),
        "its fields, and plain data that it holds besides; no `__init__` and no `__post_init__` runs",
        "names and types of the fields, on both sides",
        "subclasses; a field of another type; one derived from `list`, `int`, `Exception` and the like",
    ),
    Kind("class in a union", Point | Spot, Spot(1), "the class with that tag", "the tag is that of an arm"),
    Kind(
        "`NamedTuple`", Pair, Pair(1, "a"), "its items; nothing of it runs", "number and types", "subclasses"
    ),
    Kind("`TypedDict`", Order, {"point": Point(1)}, "a dict", "in fields of classes: keys and types", "-"),
    Kind(
        "pydantic model",
        User,
        _user(),
        "its fields, which of them were set, extra fields and private attributes; no validator and no "
        "serializer runs",
        "names and types of the fields, on both sides",
        "subclasses; a field of another type",
    ),
    Kind(
        "pydantic's secrets, URLs, `ByteSize`",
        Account,
        Account(secret="s", home="http://a.b"),
        "as what they were; secrets lie **readable** on the server",
        "the class makes it of its text",
        "where no annotation names the class; one of a derived class that has attributes besides",
    ),
)
