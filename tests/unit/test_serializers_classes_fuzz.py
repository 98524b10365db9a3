"""Random classes and annotations on both sides: values arrive equal, or the writer gets an error that says
why.
"""

import dataclasses
import enum
import functools
import typing
from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal
from ipaddress import IPv4Address, ip_address
from pathlib import Path
from typing import Any, Generic, NamedTuple, TypeVar
from uuid import UUID

import pydantic
from helpers.examples import examples
from hypothesis import given, settings, strategies as st
from msgpack import ExtType, packb, unpackb
from typing_extensions import TypedDict

from asyncq.errors import DecodeError, SerializationError
from asyncq.serializers import ValueCodec
from asyncq.serializers.annotations import UnclearAnnotation
from asyncq.serializers.fingerprints import base_of, tag_of

T = TypeVar("T")


class Color(enum.Enum):
    RED = "red"
    ONE = 1


class Level(enum.IntEnum):
    ONE = 1
    TWO = 2


class Word(enum.StrEnum):
    RED = "red"


class Pair(NamedTuple):
    left: int
    right: Color | None


class Options(TypedDict, total=False):
    level: Level
    name: str


@dataclasses.dataclass
class Crate(Generic[T]):
    item: T


class ModelCrate(pydantic.BaseModel, Generic[T]):
    item: T


# -- types, each with values of it --

PLAIN = [
    (int, st.integers() | st.booleans()),
    (float, st.floats(allow_nan=False)),
    (str, st.text(max_size=5)),
    (bytes, st.binary(max_size=5)),
    (bool, st.booleans()),
    (date, st.dates()),
    (datetime, st.datetimes(timezones=st.just(UTC))),
    (time, st.times()),
    (timedelta, st.timedeltas()),
    (UUID, st.uuids()),
    (Decimal, st.decimals(allow_nan=False)),
    (Path, st.sampled_from([Path("/a"), Path("b/c")])),
    (IPv4Address, st.just(ip_address("10.0.0.1"))),
    (typing.Literal["a", 1], st.sampled_from(["a", 1])),
    (Any, st.none() | st.integers() | st.lists(st.text(max_size=2), max_size=2)),
    (Color, st.sampled_from(Color)),
    (Level, st.sampled_from(Level)),
    (Word, st.sampled_from(Word)),
    (Pair, st.builds(Pair, st.integers(), st.none() | st.sampled_from(Color))),
    (
        Options,
        st.fixed_dictionaries({}, optional={"level": st.sampled_from(Level), "name": st.text(max_size=2)}),
    ),
]
HASHED = {int, str, bool, date, UUID, Color, Level, Word, Path}
plain = st.sampled_from(PLAIN)
# Hashable types are drawn, not filtered: most types have no hash, and hypothesis gives up after fifty
# rejections.
hashed = st.sampled_from([one for one in PLAIN if one[0] in HASHED])
numbers = iter(range(10**9))


@st.composite
def dataclass_types(draw, inner):
    parts = draw(st.lists(st.tuples(inner, st.booleans(), st.booleans()), max_size=4))
    options = draw(
        st.sampled_from(
            [{}, {"slots": True}, {"frozen": True}, {"kw_only": True}, {"frozen": True, "slots": True}]
        )
    )
    fields, values = [], {}
    for index, ((hint, of), has_default, is_hidden) in enumerate(parts):
        name = f"f{index}"
        how = {"repr": False, "compare": True} if is_hidden else {}
        if has_default or any(len(field) == 3 and "default_factory" in str(field[2]) for field in fields):
            default = draw(of)
            how["default_factory"] = lambda default=default: default
        fields.append((name, hint, dataclasses.field(**how)))
        values[name] = of
    if "kw_only" not in options:
        fields.sort(key=lambda field: field[2].default_factory is not dataclasses.MISSING)
    if draw(st.booleans()) and "slots" not in options:
        fields.append(("seed", dataclasses.InitVar[int], dataclasses.field(default=0)))
    cls = dataclasses.make_dataclass(f"D{next(numbers)}", fields, **options)
    return cls, st.builds(cls, **values)


@st.composite
def model_types(draw, inner):
    parts = draw(
        st.lists(st.tuples(inner, st.sampled_from(["", "exclude", "alias", "default", "frozen"])), max_size=4)
    )
    fields, values = {}, {}
    for index, ((hint, of), how) in enumerate(parts):
        name = f"f{index}"
        options = {
            "exclude": {"exclude": True},
            "alias": {"alias": f"a{index}"},
            "default": {"default_factory": functools.partial(_same, draw(of))},
            "frozen": {"frozen": True, "repr": False},
            "": {},
        }[how]
        fields[name] = (hint, pydantic.Field(**options))
        values[f"a{index}" if how == "alias" else name] = of
    config = draw(
        st.sampled_from(
            [
                {},
                {"extra": "allow"},
                {"extra": "forbid"},
                {"frozen": True},
                {"validate_assignment": True},
                {"populate_by_name": True},
            ]
        )
    )
    cls = pydantic.create_model(
        f"M{next(numbers)}",
        __config__=pydantic.ConfigDict(arbitrary_types_allowed=True, **config),
        __validators__={"twice": pydantic.model_validator(mode="after")(_seen)},
        **fields,
    )
    if config.get("extra") == "allow":
        values["other"] = st.integers()
    # Some fields are left out, so that not all fields are set.
    optional = {
        name: of for name, of in values.items() if fields.get(name, (0, pydantic.Field()))[1].default_factory
    }
    required = {name: of for name, of in values.items() if name not in optional}
    made = st.fixed_dictionaries(required, optional=optional).map(lambda given: _state(cls, given))
    return cls, made


def _same(value):
    return value


def _seen(self):
    object.__setattr__(self, "_ran", True)  # shows if a validator runs on the way
    return self


def _state(cls, given):
    """A model made without validation: the test is about the codec, not about pydantic."""
    by_name = {
        next((name for name, one in cls.model_fields.items() if one.alias == key), key): of
        for key, of in given.items()
    }
    return cls.model_construct(
        **{(cls.model_fields[n].alias or n) if n in cls.model_fields else n: v for n, v in by_name.items()}
    )


def bigger(inner):
    return st.one_of(
        inner.map(lambda one: (list[one[0]], st.lists(one[1], max_size=3))),
        inner.map(lambda one: (tuple[one[0], ...], st.lists(one[1], max_size=3).map(tuple))),
        st.tuples(inner, inner).map(
            lambda two: (tuple[two[0][0], two[1][0]], st.tuples(two[0][1], two[1][1]))
        ),
        hashed.map(lambda one: (set[one[0]], st.sets(one[1], max_size=3))),
        hashed.map(lambda one: (frozenset[one[0]], st.frozensets(one[1], max_size=3))),
        st.tuples(hashed, inner).map(
            lambda two: (dict[two[0][0], two[1][0]], st.dictionaries(two[0][1], two[1][1], max_size=3))
        ),
        inner.map(lambda one: (one[0] | None if one[0] is not Any else Any, st.none() | one[1])),
        inner.map(lambda one: (Crate[one[0]], one[1].map(Crate))),
        inner.map(_model_crate),
        dataclass_types(inner),
        model_types(inner),
    )


def _model_crate(one):
    cls = ModelCrate[one[0]]
    return cls, one[1].map(lambda value: cls.model_construct(item=value))


hints = st.recursive(plain, bigger, max_leaves=6)
named = st.one_of(
    st.sampled_from([one for one in PLAIN if one[0] is not Any]),
    bigger(hints).filter(lambda one: one[0] is not Any),
)


def received(value):
    """Returns everything of a value that must be equal, with the types."""
    kind = type(value)
    if isinstance(value, pydantic.BaseModel):
        fields = {name: received(item) for name, item in vars(value).items()}
        return kind, fields, sorted(value.model_fields_set), received(value.__pydantic_extra__)
    if dataclasses.is_dataclass(value):
        return kind, [received(getattr(value, field.name)) for field in dataclasses.fields(value)]
    if isinstance(value, dict):
        return kind, [(received(key), received(item)) for key, item in value.items()]
    if isinstance(value, (list, tuple)):
        return kind, [received(item) for item in value]
    if isinstance(value, (set, frozenset)):
        return kind, sorted(repr(received(item)) for item in value)
    return kind, value


@settings(max_examples=examples(200), deadline=None)
@given(hints, st.data())
def test_values_of_random_classes_are_decoded_equal(one, data):
    hint, of = one
    value = data.draw(of)
    codec = ValueCodec(hint)
    assert received(codec.loads(codec.dumps(value))) == received(value)


def arms_of(several):
    """Makes a union of types that can be distinguished: no class and no kind of container twice."""
    return typing.Union[tuple(hint for hint, _ in several)]  # noqa: UP007  built at run time


@settings(max_examples=examples(150), deadline=None)
@given(st.lists(named, min_size=2, max_size=4), st.randoms(), st.data())
def test_a_value_stays_the_same_when_the_union_is_wider_and_has_another_order(several, random, data):
    _, of = several[0]
    value = data.draw(of)
    narrow = several[: len(several) - 1] if len(several) > 2 else several
    writer = arms_of(narrow)
    shuffled = list(several)
    random.shuffle(shuffled)
    reader = arms_of(shuffled)
    if len({*typing.get_args(writer)} - {type(None)}) < 2:
        return  # outside of a union, a member of an enum is encoded as its value, so it may arrive as a `str`
    try:
        read = ValueCodec(reader).loads(ValueCodec(writer).dumps(value))
    except (UnclearAnnotation, SerializationError):
        return  # the writer got a clear error: two members of the union are one class at run time
    assert received(read) == received(value)


@settings(max_examples=examples(150), deadline=None)
@given(hints, hints, st.data())
def test_a_value_that_is_read_with_another_annotation_never_gets_another_class(one, other, data):
    value = data.draw(one[1])
    packed = ValueCodec(one[0]).dumps(value)
    try:
        read = ValueCodec(other[0]).loads(packed)
    except DecodeError:
        return
    if dataclasses.is_dataclass(value) or isinstance(value, pydantic.BaseModel):
        # A plain tree, or the class. The arguments of a generic class may differ if the values fit.
        assert type(read) is dict or base_of(tag_of(type(read))) == base_of(tag_of(type(value)))


trees = st.recursive(
    st.none() | st.integers(-5, 5) | st.text(max_size=3) | st.binary(max_size=6),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(st.sampled_from(["f0", "f1", "item", "s", "x", "p", "d"]), inner, max_size=3)
        | st.tuples(
            st.sampled_from(["Pair", "Crate[int]", "Color", ""]), st.none() | st.binary(max_size=6), inner
        ).map(lambda three: [ExtType(1, b"\5"), *three])
    ),
)


@settings(max_examples=examples(150), deadline=None)
@given(hints, trees, st.data())
def test_a_forged_instance_is_a_decode_error_or_has_the_annotated_types(one, tree, data):
    hint, of = one
    codec = ValueCodec(hint)
    node = unpackb(codec.dumps(data.draw(of)), strict_map_key=False)
    if isinstance(node, list) and len(node) in {4, 5} and node and isinstance(node[0], ExtType):
        node[3] = tree  # the right tag and fingerprint, with anything as the fields
    else:
        node = tree
    try:
        read = codec.loads(packb(node))
    except DecodeError:
        return
    codec.dumps(read)  # fails if a field has another type: the writer refuses such a value
