"""Which values can be encoded, which cannot, and what the error says."""

import collections
import enum
import math
import re
import struct
import threading
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import KW_ONLY, InitVar, dataclass, field
from datetime import UTC, datetime, time, timedelta, timezone, tzinfo
from decimal import Context, Decimal, localcontext
from ipaddress import ip_address, ip_interface, ip_network
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Annotated, Any, Generic, Literal, NamedTuple, NewType, Optional, TypedDict, TypeVar
from zoneinfo import ZoneInfo

import dateutil.tz
import pydantic
import pytest
import pytz
from msgpack import ExtType, packb

from asyncq.errors import DecodeError, SerializationError
from asyncq.serializers import (
    PLAIN_ARGUMENTS,
    PLAIN_VALUE,
    ArgumentCodec,
    ValueCodec,
    dumps,
    in_front,
    in_list,
    loads,
)
from asyncq.serializers.annotations import type_codec_of
from asyncq.serializers.value_paths import MAX_DEPTH

T = TypeVar("T")


class Color(enum.Enum):
    RED = "red"
    PAIR = (1, 2)
    NOTHING = None


class Size(enum.IntEnum):
    SMALL = 1
    LARGE = 2


class Rights(enum.Flag):
    READ = 1
    WRITE = 2


@dataclass
class Point:
    x: int
    y: int = 0


@dataclass
class Point3(Point):
    z: int = 0


@dataclass(frozen=True, slots=True)
class Circle:
    center: Point
    color: Color = Color.RED
    _: KW_ONLY
    tags: tuple[Size, ...] = ()


@dataclass(frozen=True)
class Spot:
    x: int


@dataclass
class Node:
    value: int
    children: "list[Node]" = field(default_factory=list)
    parent: "Node | None" = None


@dataclass
class Box(Generic[T]):
    item: T
    more: "list[T]" = field(default_factory=list)


@dataclass
class NoInit:
    x: int = field(init=False, default=1)


@dataclass
class Needs:
    x: int
    seed: InitVar[int]


class Pair(NamedTuple):
    left: Point
    right: int = 0


Plain = collections.namedtuple("Plain", ["a", "b"])  # noqa: PYI024  the test is about the untyped kind


class Order(TypedDict, total=False):
    point: Point
    count: int


class Address(pydantic.BaseModel):
    street: str = pydantic.Field(alias="streetName")


class User(pydantic.BaseModel):
    model_config = pydantic.ConfigDict(strict=True, extra="forbid")
    name: str
    color: Color | None = None
    home: Address | None = None
    since: datetime | None = None
    points: list[Point] = []


class Admin(User):
    level: int = 0


class Numbers(pydantic.RootModel[list[int]]):
    pass


UserId = NewType("UserId", int)
Where = NewType("Where", Point)
home = Address(streetName="Elm")

TYPED = [
    (Color, Color.PAIR),
    (Color, Color.NOTHING),
    (Size, Size.LARGE),
    (Rights, Rights.READ | Rights.WRITE),
    (Point, Point(1, 2)),
    (Circle, Circle(Point(1), Color.PAIR, tags=(Size.SMALL,))),
    (Node, Node(1, [Node(2, [Node(3)]), Node(4)], Node(5))),
    (Box[Point], Box(Point(1), [Point(2)])),
    (Box[int], Box(1, [2])),
    (Pair, Pair(Point(1), 5)),
    (Plain, Plain(1, (2,))),
    (Order, {"point": Point(1), "count": 2}),
    (Order, {}),
    (
        User,
        User(name="n", color=Color.RED, home=home, since=datetime(2026, 1, 1, tzinfo=UTC), points=[Point(1)]),
    ),
    (Address, home),
    (Numbers, Numbers([1, 2])),
    (list[Point], [Point(1), Point(2)]),
    (tuple[Point, ...], (Point(1), Point(2))),
    (tuple[Point, int, Color], (Point(1), 2, Color.RED)),
    (set[Color], {Color.RED, Color.PAIR}),
    (frozenset[Circle | Size], frozenset({Size.SMALL})),
    (dict[Color, Point], {Color.RED: Point(1), Color.PAIR: Point(2)}),
    (Mapping[str, Point], {"a": Point(1)}),
    (Sequence[Point], (Point(1),)),
    (Iterable[Size], {Size.SMALL, Size.LARGE}),
    (Optional[Point], Point(1)),  # noqa: UP045  the old spelling is another object
    (Point | None, None),
    (Color | None, None),
    (Color | None, Color.NOTHING),
    (Point | Point3, Point3(1, 2, 3)),
    (Point | dict, {"x": 1}),
    (Point | dict, Point(1)),
    (Size | int, 1),
    (Size | int, Size.SMALL),
    (list[Point] | list[Point3], [Point3(1)]),
    (list[Point] | set[Size] | None, {Size.LARGE}),
    (list[Point | Size | None], [Point(1), None, Size.SMALL]),
    (dict[Color | str, int], {Color.RED: 1, "red": 2}),
    (Literal[Size.SMALL, "small"], Size.SMALL),
    (Literal[Size.SMALL, "small"], "small"),
    (Annotated[Point, "noted"], Point(1)),
    (Where, Point(1)),
    (list["Point"], [1]),
    (NoInit, NoInit()),
    (Needs, Needs(1, 2)),
    (dict[Spot, int], {Spot(1): 1}),
    (set[Spot], {Spot(1), Spot(2)}),
]


def received(value):
    """Returns a repr that is the same in every process. The repr of a set depends on random hashes."""
    return str(sorted(map(repr, value))) if isinstance(value, set | frozenset) else repr(value)


def kinds(value):
    if isinstance(value, dict):
        return [(kinds(key), kinds(item)) for key, item in value.items()]
    if isinstance(value, list | tuple):
        return type(value), [kinds(item) for item in value]
    return type(value)


@pytest.mark.parametrize(("annotation", "value"), TYPED, ids=received)
def test_values_of_annotated_classes_keep_their_classes(annotation, value):
    codec = ValueCodec(annotation)
    read = codec.loads(codec.dumps(value))
    assert read == value
    assert kinds(read) == kinds(value)


@pytest.mark.parametrize(("annotation", "value"), TYPED, ids=received)
def test_a_reader_without_annotations_gets_the_plain_tree(annotation, value):
    def all_plain(tree):
        assert type(tree) in {dict, list, tuple, set, frozenset, str, int, datetime, type(None)}
        if isinstance(tree, dict):
            all_plain([*tree, *tree.values()])
        elif isinstance(tree, list | tuple | set | frozenset):
            for item in tree:
                all_plain(item)

    all_plain(PLAIN_VALUE.loads(ValueCodec(annotation).dumps(value)))


def test_the_plain_tree_of_a_dataclass_is_the_dict_of_its_fields():
    packed = ValueCodec(Circle | Point).dumps(Circle(Point(1, 2)))
    assert loads(packed) == {"center": {"x": 1, "y": 2}, "color": "red", "tags": ()}


@pytest.mark.parametrize("annotation", [list[int], Any, str, None])
def test_a_reader_that_annotates_no_class_never_gets_the_tags_of_a_union(annotation):
    packed = ValueCodec(list[Point | Circle]).dumps([Point(1)])
    assert ValueCodec(annotation).loads(packed) == [{"x": 1, "y": 0}]


@pytest.mark.parametrize(
    "annotation",
    [
        *(
            int,
            Any,
            None,
            list,
            dict[str, int],
            tuple[int, ...],
            list[Any],
            Path,
            object,
            T,
            UserId,
            "Point",
            3,
        ),
        *(Literal[1, "a"], type[Point], int | str | None, collections.deque[Point]),
        TypedDict("Empty", {"a": int}),
    ],
    ids=repr,
)
def test_annotations_without_classes_need_no_type_codec(annotation):
    assert type_codec_of(annotation) is None


def test_a_plain_dict_becomes_the_annotated_class_and_other_plain_values_stay():
    codec = ArgumentCodec(lambda: None)

    def move(point: Point = None, size: Size = 0, pair: Pair = None, user: User = None): ...

    codec = ArgumentCodec(move)
    assert codec.loads(PLAIN_ARGUMENTS.dumps(({"x": 1}, 2, ({"x": 3},)), {"user": {"name": "n"}})) == (
        [Point(1), Size.LARGE, Pair(Point(3))],
        {"user": User(name="n")},
    )
    assert codec.loads(codec.dumps((None, 99, 7), {"user": "n"})) == ([None, 99, 7], {"user": "n"})


@pytest.mark.parametrize("tree", [{"x": 1, "unknown": 2}, {"y": 1}, {}], ids=repr)
def test_a_dict_that_does_not_fit_the_annotated_class_is_a_decode_error(tree):
    for annotation in (Point, list[Point], User, Point | None):
        data = [tree] if annotation == list[Point] else tree
        with pytest.raises(DecodeError, match=r"do not make a .*(Point|User)"):
            ValueCodec(annotation).loads(dumps(data))


def test_every_parameter_is_converted_by_its_own_annotation():
    def task(a: Point, /, b: int, *rest: Color, c: Circle, **others: Size): ...

    codec = ArgumentCodec(task)
    args = [Point(1), 2, Color.RED, Color.PAIR]
    kwargs = {"c": Circle(Point(2)), "d": Size.SMALL, "a": Size.LARGE}
    assert codec.loads(codec.dumps(tuple(args), kwargs)) == (args, kwargs)


def test_an_annotation_that_is_not_a_type_does_not_affect_the_other_annotations():
    def task(a: "the first one", b: "Point", c: "1 / 0"): ...  # noqa: F722  these are no types

    codec = ArgumentCodec(task)
    assert codec.loads(codec.dumps((1, Point(2), 3), {}))[0] == [1, Point(2), 3]


def test_annotations_are_resolved_at_first_use():
    names = {"Point": Point}
    exec("def task(a: 'Later') -> 'Later': ...", names)
    codec, value_codec = ArgumentCodec(names["task"]), ValueCodec.of_result(names["task"])
    names["Later"] = Point
    assert codec.loads(codec.dumps((Point(1),), {})) == ([Point(1)], {})
    assert value_codec.loads(value_codec.dumps(Point(1))) == Point(1)


def test_a_model_with_aliases_and_strict_fields_is_decoded_equal():
    codec = ValueCodec(User)
    user = User(name="n", home=home)
    assert codec.loads(codec.dumps(user)) == user
    assert loads(codec.dumps(user))["home"] == {"street": "Elm"}


class SubStr(str):
    __slots__ = ()


class OwnZone(tzinfo):
    pass


def deep(levels, make=lambda inner: [inner]):
    value = 0
    for _ in range(levels):
        value = make(value)
    return value


cycle = []
cycle.append(cycle)

REFUSED = [
    (
        None,
        {"items": [0, 1, 2, {"at": object()}]},
        "kwargs['x']['items'][3]['at']: a value of type object cannot",
    ),
    (
        None,
        [Color.RED],
        "kwargs['x'][0]: a value of type test_serializers.Color cannot travel. No annotation names Color",
    ),
    (None, Size.SMALL, "name it there, list it in AsyncQ(types=[Size]), or send its .value"),
    (None, Point(1), "types=[Point]), or send a dict or a tuple of its fields"),
    (None, Plain(1, 2), "No annotation names Plain at this place"),
    (None, home, "No annotation names Address at this place"),
    (
        None,
        collections.defaultdict(int),
        "collections.defaultdict cannot travel. It would lose its class: send a plain dict",
    ),
    (None, SubStr("x"), "send a plain str"),
    (None, {SubStr("x"): 1}, "kwargs['x'].keys()<<test_serializers.SubStr>>: a value of type"),
    (None, {1: {2: {object()}}}, "kwargs['x'][1][2]<item 0>: a value of type object"),
    (None, ("a", b"b", "\ud800"), "kwargs['x'][2]: a str with a lone surrogate"),
    (None, {"\ud800": 1}, "lone surrogate"),
    (None, Decimal("1" * 101), "kwargs['x']: a Decimal of 101 digits; at most 100 can travel"),
    (None, datetime(2026, 1, 1, tzinfo=OwnZone()), "OwnZone cannot travel: it has neither a fixed offset"),
    (None, time(1, tzinfo=OwnZone()), "Use zoneinfo.ZoneInfo or datetime.timezone"),
    (None, cycle, "kwargs['x']: nested more than 64 deep, or it holds itself"),
    (None, deep(65), "nested more than 64 deep"),
    (None, deep(65, lambda inner: (inner,)), "nested more than 64 deep"),
    (None, deep(65, lambda inner: {"a": inner}), "nested more than 64 deep"),
    (None, (value for value in ()), "a value of type generator cannot travel"),
    (None, memoryview(b""), "a value of type memoryview cannot travel"),
    (
        Point,
        Point3(1),
        "kwargs['x']: a value of type test_serializers.Point3, but the annotation says exactly",
    ),
    (list[Point], [Point(1), Point3(1)], "kwargs['x'][1]: a value of type"),
    (Circle, Circle(Point3(1)), "kwargs['x'].center: a value of type"),
    (Circle, Circle(Point(object())), "kwargs['x'].center.x: a value of type object"),
    (
        dict[str, list[Circle]],
        {"items": [Circle(Point(SubStr()))]},
        "kwargs['x']['items'][0].center.x: a value of type",
    ),
    (User, Admin(name="n"), "a subclass would come back as its base. Annotate User | Admin"),
    (
        User,
        User.model_construct(name=3),
        "kwargs['x'].name: a value of type int, but the annotation says str",
    ),
    (Pair, Pair(Point3(1)), "kwargs['x'].left: a value"),
    (Order, {"point": Point3(1)}, "kwargs['x']['point']: a value"),
    (Color | Point, Point3(1), "Annotate Point | Point3"),
    (
        dict[Color, int],
        {Color.RED: 1, "red": 2},
        "two of its keys are equal on the wire. Send a list of pairs",
    ),
]


@pytest.mark.parametrize(("annotation", "value", "message"), REFUSED, ids=[row[2] for row in REFUSED])
def test_the_error_about_a_value_that_cannot_be_serialized_names_its_path(annotation, value, message):
    def task(x): ...

    task.__annotations__ = {"x": annotation}
    with pytest.raises(SerializationError, match=re.escape(message)):
        ArgumentCodec(task).dumps((), {"x": value})


def test_a_dataclass_that_contains_itself_is_refused():
    node = Node(1)
    node.children.append(node)
    with pytest.raises(SerializationError, match=r"result\.children: nested more than 64 deep"):
        ValueCodec(Node).dumps(node)


def test_errors_name_positional_arguments_and_results():
    with pytest.raises(SerializationError, match=r"^args\[1\]\[0\]: "):
        PLAIN_ARGUMENTS.dumps((1, [object()]), {})
    with pytest.raises(SerializationError, match=r"^result: "):
        PLAIN_VALUE.dumps(object())
    with pytest.raises(SerializationError, match="the name 1 of an argument is not a str"):
        PLAIN_ARGUMENTS.dumps((), {1: 2})


@pytest.mark.parametrize(
    "make", [lambda x: [x], lambda x: (x,), lambda x: {"a": x}, lambda x: {1: x}], ids="ltdp"
)
def test_a_value_of_the_maximum_depth_is_decoded_equal(make):
    value = deep(MAX_DEPTH, make)
    assert loads(dumps(value)) == value
    assert PLAIN_ARGUMENTS.loads(PLAIN_ARGUMENTS.dumps((value,), {"a": value})) == ([value], {"a": value})


def ext(code, data):
    return packb(ExtType(code, data))


CONTAINER_TAG = ExtType(1, b"\0")
GARBAGE = {
    "nothing": b"",
    "unused code": b"\xc1",
    "bytes after": b"\x01\x01",
    "cut short": b"\x92\x01",
    "promised length": b"\xdd\xff\xff\xff\xff",
    "not UTF-8": b"\xa1\xff",
    "int key": b"\x81\x01\x01",
    "unknown ext": ext(99, b""),
    "negative ext": ext(127, b""),
    "bad timestamp": b"\xd7\xff" + b"\xff" * 8,
    "unknown container tag": packb([ExtType(1, b"\x63")]),
    "container tag of two bytes": packb([ExtType(1, b"\0\0")]),
    "container tag alone": packb(CONTAINER_TAG),
    "container tag inside": packb([1, CONTAINER_TAG]),
    "container tag twice": packb([CONTAINER_TAG, CONTAINER_TAG]),
    "container tag as value": packb({"a": CONTAINER_TAG}),
    "set of lists": packb([ExtType(1, b"\1"), [1]]),
    "list as key": packb([ExtType(1, b"\3"), [], 1]),
    "key without value": packb([ExtType(1, b"\3"), 1]),
    "choice of one": packb([ExtType(1, b"\4"), 1]),
    "choice by name": packb([ExtType(1, b"\4"), "a", 1]),
    "date of month 13": ext(4, struct.pack(">HBB", 2026, 13, 1)),
    "date too short": ext(4, b"1"),
    "datetime too short": ext(3, b"12345"),
    "time of hour 99": ext(5, struct.pack(">BBBIB", 99, 0, 0, 0, 0)),
    "timedelta too long": ext(6, struct.pack(">iii", 2**31 - 1, 0, 0)),
    "uuid of 15 bytes": ext(7, b"1" * 15),
    "decimal of letters": ext(8, b"one"),
    "decimal too long": ext(8, b"1" * 141),
    "path of no kind": ext(9, b"?a"),
    "path with a zero": ext(9, b"Pa\0"),
    "path of garbage": ext(9, b"P\xff"),
    "address of no kind": ext(10, b"?1"),
    "address of garbage": ext(10, b"4one"),
    "address too long": ext(10, b"6" + b"0" * 400),
    "zone outside": ext(5, bytes(8) + b"z../../etc/passwd"),
    "zone unknown": ext(5, bytes(8) + b"zNo/Where"),
    "zone is a folder": ext(5, bytes(8) + b"zEurope"),
    "zone of another kind": ext(5, bytes(8) + b"q"),
    "offset of a year": ext(5, bytes(8) + b"o" + struct.pack(">q", 10**13)),
    "65 lists": b"\x91" * 65 + b"\1",
    "65 dicts": b"\x81\xa1a" * 65 + b"\1",
    "2000 lists": b"\x91" * 2000 + b"\1",
    "65 tuples": b"\x92\xd4\1\0" * 65 + b"\1",
    "2000 sets": b"\x92\xd4\1\1" * 2000 + b"\1",
    "not bytes": None,
}


@pytest.mark.parametrize("data", GARBAGE.values(), ids=GARBAGE.keys())
def test_garbage_is_a_decode_error(data):
    with localcontext(Context(traps=[])), pytest.raises(DecodeError):
        loads(data)


@pytest.mark.parametrize(
    "tree", [None, 1, [], [[]], [[], {}, 1], [{}, []], [[], {b"a": 1}], [[CONTAINER_TAG], {}]], ids=repr
)
def test_a_message_that_is_not_a_call_is_a_decode_error(tree):
    with pytest.raises(DecodeError):
        PLAIN_ARGUMENTS.loads(packb(tree))


def test_many_small_containers_do_not_count_as_deep():
    value = [{"a": [n, (n,)]} for n in range(500)]
    assert loads(dumps(value)) == value


def test_deep_messages_can_be_decoded_on_a_thread_with_a_small_stack():
    # If unpackb called itself for each level, this would end with a segmentation fault.
    value, read = deep(MAX_DEPTH, lambda inner: (inner,)), []
    before = threading.stack_size(256 * 1024)
    try:
        thread = threading.Thread(target=lambda: read.append(loads(dumps(value))))
        thread.start()
    finally:
        threading.stack_size(before)
    thread.join(10)
    assert read == [value]


def test_nan_infinity_and_signaling_nan_are_decoded_equal():
    assert math.isnan(loads(dumps(math.nan)))
    assert loads(dumps([math.inf, -math.inf])) == [math.inf, -math.inf]
    for text in ("NaN", "-NaN123", "sNaN", "Infinity", "-0", "1E-7", "0E+3"):
        assert str(loads(dumps(Decimal(text)))) == text
    assert loads(dumps(Decimal("-0.00000" + "1" * 100))) == Decimal("-0.00000" + "1" * 100)


def test_zones_keep_their_names():
    for zone in (
        ZoneInfo("America/Argentina/Buenos_Aires"),
        ZoneInfo("Etc/GMT+5"),
        timezone(timedelta(hours=1), "CET"),
    ):
        read = loads(dumps([datetime(2026, 7, 1, tzinfo=zone), time(1, tzinfo=zone, fold=1)]))
        assert str(read[0].tzinfo) == str(zone)
        assert str(read[1].tzinfo) == str(zone)
        assert read[1].fold == 1


BERLIN = ZoneInfo("Europe/Berlin")
SUMMER, DOUBTFUL = datetime(2026, 7, 1), datetime(2025, 10, 26, 2, 30)  # noqa: DTZ001  pytz wants it so
PARSED = pydantic.TypeAdapter(datetime)
FOREIGN_ZONES = [
    (PARSED.validate_python("2026-01-01T10:00:00Z"), UTC),
    (PARSED.validate_python("2026-01-01T10:00:00+02:00"), timezone(timedelta(hours=2))),
    (datetime(2026, 1, 1, tzinfo=pytz.utc), UTC),
    (datetime(2026, 1, 1, tzinfo=pytz.FixedOffset(-90)), timezone(timedelta(minutes=-90))),
    (pytz.timezone("Europe/Berlin").localize(SUMMER), BERLIN),
    (pytz.timezone("Europe/Berlin").localize(DOUBTFUL, is_dst=True), BERLIN),
    (pytz.timezone("Europe/Berlin").localize(DOUBTFUL, is_dst=False), BERLIN),
    (pytz.timezone("Etc/GMT+5").localize(SUMMER), ZoneInfo("Etc/GMT+5")),
    # A common mistake: the zone is then the mean local time of the nineteenth century. The time is kept.
    (datetime(2026, 7, 1, tzinfo=pytz.timezone("Europe/Berlin")), timezone(timedelta(minutes=53))),
    (datetime(2026, 7, 1, tzinfo=dateutil.tz.tzutc()), UTC),
    (datetime(2026, 7, 1, tzinfo=dateutil.tz.tzoffset("X", 3600)), timezone(timedelta(hours=1))),
    (datetime(2026, 7, 1, tzinfo=dateutil.tz.gettz("Europe/Berlin")), BERLIN),
    (datetime(2025, 10, 26, 2, 30, fold=1, tzinfo=dateutil.tz.gettz("Europe/Berlin")), BERLIN),
]


@pytest.mark.parametrize(("value", "zone"), FOREIGN_ZONES, ids=repr)
def test_a_datetime_with_a_zone_of_another_library_keeps_its_time_and_offset(value, zone):
    read = loads(dumps(value))
    assert read.timestamp() == value.timestamp()
    assert read.replace(tzinfo=None) == value.replace(tzinfo=None)
    assert read.utcoffset() == value.utcoffset()
    assert read.tzinfo == zone
    assert type(read.tzinfo) is type(zone)


def test_a_time_of_day_keeps_the_zone_of_another_library():
    parsed = pydantic.TypeAdapter(time).validate_python("10:00:00+02:00")
    assert loads(dumps(parsed)) == parsed
    assert loads(dumps(time(1, tzinfo=pytz.timezone("Europe/Berlin")))).tzinfo == BERLIN


@pytest.mark.parametrize(
    "value",
    [
        Path("/a/b"),
        Path("b\udcff"),
        Path(),
        PurePosixPath("a"),
        PureWindowsPath("C:\\a"),
        ip_address("10.0.0.1"),
        ip_address("fe80::1%eth0"),
        ip_network("10.0.0.0/8"),
        ip_network("2001:db8::/32"),
        ip_interface("10.0.0.1/8"),
        ip_interface("2001:db8::1/64"),
    ],
    ids=repr,
)
def test_paths_and_addresses_keep_their_types(value):
    read = loads(dumps({"a": [value], value: 1}))
    assert read == {"a": [value], value: 1}
    assert type(read["a"][0]) is type(value)


def test_a_path_of_another_system_is_decoded_as_a_pure_path():
    assert loads(packb(ExtType(9, b"WC:\\a"))) == PureWindowsPath("C:\\a")


def test_an_enum_of_another_type_than_the_annotation_is_refused_in_a_union_too():
    with pytest.raises(SerializationError, match="No annotation names Rights"):
        ValueCodec(Color | Size).dumps(Rights.READ)


def test_an_argument_nested_too_deep_is_a_decode_error():
    for tree in ([[deep(MAX_DEPTH + 1)], {}], [[], {"a": deep(MAX_DEPTH + 1)}]):
        with pytest.raises(DecodeError, match="nested more than 64 deep"):
            PLAIN_ARGUMENTS.loads(packb(tree))


def test_a_field_without_a_class_never_gets_the_tags_of_a_union():
    packed = ValueCodec(dict[str, Point | list[Point | Size]]).dumps(
        {"point": Point(1), "count": [Size.SMALL]}
    )
    read = ValueCodec(Order).loads(packed)
    assert read == {"point": Point(1), "count": [1]}
    assert kinds(read["count"]) == (list, [int])


@pytest.mark.parametrize("key", [b"../zone", b"/etc/zone", b"a.b/c", b"a//b", b"a/", b"", b"a\0", b"a" * 41])
def test_only_valid_names_of_zones_reach_the_file_system(key):
    with pytest.raises(DecodeError, match="neither an offset nor the name of a zone"):
        loads(ext(5, bytes(8) + b"z" + key))


# -- arguments in front ------------------------------------------------------------------------------


@pytest.mark.parametrize("count", [0, 1, 14, 15, 16, 70_000])
def test_values_can_be_put_before_any_number_of_packed_arguments(count):
    args = list(range(count))
    body = PLAIN_ARGUMENTS.dumps(args, {"by": {"x": 1}})
    assert PLAIN_ARGUMENTS.loads(in_front(body, [dumps((1, 2)), dumps("b")])) == (
        [(1, 2), "b", *args],
        {"by": {"x": 1}},
    )


@pytest.mark.parametrize("body", [b"", b"\x92", b"\x91\x90", b"\x92\xc0\x80", b"garbage"])
def test_no_values_can_be_put_before_data_that_is_not_packed_arguments(body):
    with pytest.raises(DecodeError):
        in_front(body, [dumps(1)])


def test_packed_values_make_a_packed_list():
    assert loads(in_list([dumps(1), in_list([dumps({2}), dumps(None)])])) == [1, [{2}, None]]
