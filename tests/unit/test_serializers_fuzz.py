"""Thousands of round trips, and of random bytes that are decoded."""

import dataclasses
import enum
from datetime import UTC, date, datetime, time, timedelta, timezone
from decimal import Decimal
from zoneinfo import ZoneInfo

import pytest
from helpers.examples import examples
from hypothesis import example, given, settings, strategies as st
from msgpack import ExtType, packb

from asyncq.errors import DecodeError
from asyncq.failures import decode
from asyncq.serializers import PLAIN_ARGUMENTS, ArgumentCodec, ValueCodec, dumps, loads

ZONES = st.sampled_from(
    [None, UTC, ZoneInfo("Europe/Berlin"), ZoneInfo("UTC"), timezone(timedelta(hours=-3, seconds=7))]
)

hashable_scalars = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.integers(min_value=-(2**70), max_value=2**70)
    | st.floats(allow_nan=False)
    | st.text()
    | st.binary()
    | st.datetimes(timezones=ZONES, allow_imaginary=True)
    | st.dates()
    | st.times()
    | st.timedeltas()
    | st.uuids()
    | st.decimals(allow_nan=False, places=None)
)
hashables = st.recursive(
    hashable_scalars, lambda inner: st.tuples(inner, inner) | st.frozensets(inner, max_size=3), max_leaves=5
)
values = st.recursive(
    hashables,
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.lists(inner, max_size=4).map(tuple)
        | st.dictionaries(st.text(), inner, max_size=4)
        | st.dictionaries(hashables, inner, max_size=4)
        | st.sets(hashables, max_size=4)
    ),
    max_leaves=12,
)


def same(one, other):
    """Whether two values are equal, with the same types at every level, and dicts in the same order."""
    if type(one) is not type(other) or one != other:
        return False
    if isinstance(one, dict):
        return all(same(*pair) for pair in zip(one.items(), other.items(), strict=True))
    if isinstance(one, (list, tuple)):
        return all(same(*pair) for pair in zip(one, other, strict=True))
    if isinstance(one, (set, frozenset)):
        return sorted(map(typed, one)) == sorted(map(typed, other))
    if isinstance(one, (datetime, time)):
        return one.fold == other.fold and same_zone(one.tzinfo, other.tzinfo)
    return True


def typed(member):
    if isinstance(member, (tuple, frozenset)):
        return f"{type(member)}{sorted(map(typed, member))}"
    return f"{type(member)}{member!r}"


def same_zone(one, other):
    if isinstance(one, ZoneInfo):
        return isinstance(other, ZoneInfo) and one.key == other.key
    return type(one) is type(other) and repr(one) == repr(other)


@settings(max_examples=examples(300), deadline=None)
@given(values)
@example({1: "int", True + 1: "int", b"b": 1, None: 2, (1, (2,)): 3})
@example([2**64 - 1, 2**64, -(2**63), -(2**63) - 1, 2**4000])
@example(datetime(2025, 10, 26, 2, 30, fold=1, tzinfo=ZoneInfo("Europe/Berlin")))
@example((date.min, date.max, timedelta.min, timedelta.max, Decimal("1E+999999"), Decimal("-0.00")))
def test_values_are_decoded_equal_and_of_the_same_type(value):
    assert same(loads(dumps(value)), value)


@settings(max_examples=examples(100), deadline=None)
@given(st.lists(values, max_size=3), st.dictionaries(st.text(), values, max_size=3))
def test_arguments_are_decoded_equal_and_of_the_same_type(args, kwargs):
    read_args, read_kwargs = PLAIN_ARGUMENTS.loads(PLAIN_ARGUMENTS.dumps(tuple(args), kwargs))
    assert same(read_args, args)
    assert same(read_kwargs, kwargs)


@settings(max_examples=examples(100), deadline=None)
# Where the annotation is Point, a dict is taken for its fields.
@given(
    values.filter(lambda value: dict not in {type(value), *map(type, value if type(value) is list else ())})
)
def test_typed_codecs_do_not_change_built_in_values(value):
    codec = ValueCodec(list[Point | Color] | Point)
    assert same(codec.loads(codec.dumps(value)), value)


@dataclasses.dataclass
class Point:
    x: int
    y: "tuple[Color, ...] | Point | None" = None


class Color(enum.Enum):
    RED = "red"
    BLUE = 2


def typed_task(p: Point | Color, *rest: set[Color], **named: dict[Color, Point]): ...


exts = st.builds(ExtType, st.integers(0, 20), st.binary(max_size=40) | st.binary(min_size=1, max_size=1))
trees = st.recursive(
    st.none() | st.integers(-5, 5) | st.text(max_size=3) | exts,
    lambda inner: st.lists(inner, max_size=5) | st.dictionaries(st.text(max_size=2), inner, max_size=3),
)
garbage = st.binary(max_size=200) | trees.map(packb)


@pytest.mark.parametrize(
    "read",
    [loads, decode, PLAIN_ARGUMENTS.loads, ValueCodec(Point | Color).loads, ArgumentCodec(typed_task).loads],
)
def test_garbage_is_a_decode_error_or_a_value(read):
    @settings(max_examples=examples(400), deadline=None)
    @given(garbage)
    def check(data):
        try:
            read(data)
        except DecodeError:
            return

    check()


@settings(max_examples=examples(200), deadline=None)
@given(values, st.data())
def test_a_damaged_message_is_a_decode_error_or_a_value(value, data):
    packed = bytearray(dumps(value))
    index = data.draw(st.integers(0, len(packed) - 1))
    packed[index] = data.draw(st.integers(0, 255))
    try:
        loads(bytes(packed))
    except DecodeError:
        return


@settings(max_examples=examples(100), deadline=None)
@given(values)
def test_a_truncated_message_or_one_with_extra_bytes_is_a_decode_error(value):
    packed = dumps(value)
    for damaged in (packed[:-1], packed + b"\x01"):
        with pytest.raises(DecodeError):
            loads(damaged)
