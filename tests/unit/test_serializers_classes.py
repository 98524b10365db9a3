"""Instances arrive with their class and state, whatever annotations the two sides have."""

import dataclasses
import enum
import functools
import logging
import threading
import time
from collections.abc import Sequence
from dataclasses import InitVar, dataclass, field
from datetime import UTC, date, datetime
from decimal import Decimal
from pathlib import Path
from typing import (
    Annotated,
    Any,
    ClassVar,
    Generic,
    Literal,
    NamedTuple,
    Optional,
    Self,
    TypedDict,
    TypeVar,
    Union,
    Unpack,
)

import pydantic
import pytest
import typing_extensions
from msgpack import ExtType, packb, unpackb
from pydantic.alias_generators import to_camel

from asyncq import AsyncQ
from asyncq.errors import DecodeError, SerializationError
from asyncq.serializers import (
    PLAIN_ARGUMENTS,
    PLAIN_VALUE,
    ArgumentCodec,
    Policy,
    ValueCodec,
    dataclass_codecs,
    dumps,
    instance_attributes,
    loads,
)
from asyncq.serializers.annotations import fields_of, type_codec_of
from asyncq.serializers.fingerprints import fingerprint, tag_of
from asyncq.serializers.trees import MAX_COLLISIONS

T = TypeVar("T")


@dataclass
class Email:
    to: str


@dataclass
class Sms:
    to: str


@dataclass
class Fax:
    to: str


class Low(enum.IntEnum):
    ONE = 1
    TWO = 2


class High(enum.IntEnum):
    ONE = 1
    TEN = 10


class Step(enum.Enum):
    UP = "up"
    DOWN = "down"


def counted(patched, owner, name):
    """Returns a list to which the arguments of each later call of a function are added."""
    calls, call = [], getattr(owner, name)

    def counting(*args):
        calls.append(args)
        return call(*args)

    patched.setattr(owner, name, counting)
    return calls


def moved(value, writer, reader):
    """Encodes a value by one annotation, decodes it by another, and returns the result."""
    return ValueCodec(reader).loads(ValueCodec(writer).dumps(value))


def arrives(value, writer, reader=None):
    read = moved(value, writer, writer if reader is None else reader)
    assert read == value
    assert type(read) is type(value)
    return read


# -- unions --


@pytest.mark.parametrize(
    ("value", "writer", "reader"),
    [
        (Email("a"), Email | Sms, Sms | Email),
        (Sms("a"), Email | Sms, Fax | Sms | Email),
        (Email("a"), Email, Sms | Email),
        (Email("a"), Sms | Email, Email),
        (Email("a"), Email | None, Fax | Email | None),
        (Low.ONE, Low | High, High | Low),
        (High.ONE, Low | High, High | Low),
        (High.TEN, Low | High, High),
        (Step.UP, Step, Step | Low),
        ([Step.UP, Step.DOWN, Step.UP], list[Step] | Step, list[Step]),
        ([Step.UP, Step.UP], list[Step], list[Step] | Step),
        ([Step.UP], list[Step] | set[Step], set[Step] | list[Step]),
        ({Step.UP}, list[Step] | set[Step], set[Step] | list[Step]),
        ((Step.UP,), tuple[Step, ...] | list[Step], list[Step] | tuple[Step, ...]),
        ([Sms("a")], list[Email] | list[Sms], list[Sms] | list[Email]),
        ([High.ONE], list[Low] | list[High], list[High] | list[Low]),
        ({"a": High.ONE}, dict[str, Low] | dict[str, High], dict[str, High] | dict[str, Low]),
        ((Low.ONE, High.ONE), tuple[Low, High] | tuple[High, Low], tuple[High, Low] | tuple[Low, High]),
        ({"a": Email("x")}, Email | dict[str, Email], dict[str, Email] | Email),
        ({"to": "x"}, Email | dict, dict | Email),
        (1, Low | int, int | Low),
        (Low.ONE, Low | int, int | Low),
        ("up", Step | str, str | Step),
        (None, Email | Low | None, Low | Email | None),
        (frozenset({Low.ONE}), frozenset[Low | High], frozenset[High | Low]),
        ({High.ONE: 1, Low.ONE: 2}, dict[Low | High, int], dict[High | Low, int]),
    ],
    ids=repr,
)
def test_a_value_stays_the_same_when_the_union_has_another_order(value, writer, reader):
    read = arrives(value, writer, reader)
    assert repr(read) == repr(value) or isinstance(value, frozenset | dict)
    assert (
        sorted(map(repr, read)) == sorted(map(repr, value)) if isinstance(value, frozenset | dict) else True
    )


@pytest.mark.parametrize(
    ("value", "writer", "reader", "output"),
    [
        (
            Fax("a"),
            Email | Fax,
            Email | Sms,
            "an instance of Fax arrived, but the annotation says .*Email | .*Sms",
        ),
        (Fax("a"), Fax, Email, "an instance of Fax arrived, but the annotation says .*Email"),
        (High.TEN, Low | High, Low | Step, "a member of High arrived"),
        (Step.UP, Low | Step, Email, "a member of Step arrived"),
        (1, int, Low | High, "a value of type int arrived, but the annotation says .*Low | .*High"),
        ({"to": "x"}, dict, Email | Sms, "a value of type dict arrived"),
    ],
)
def test_a_value_that_fits_no_member_of_the_union_is_an_error_that_names_both_types(
    value, writer, reader, output
):
    with pytest.raises(DecodeError, match=output):
        moved(value, writer, reader)


def test_a_renamed_class_is_found_by_its_alias():
    @dataclass
    class Mail:
        to: str
        asyncq_alias: ClassVar[str] = "Email"

    class Model(pydantic.BaseModel):
        asyncq_alias: ClassVar[str] = "Email"
        to: str

    class Stairs(enum.Enum):
        asyncq_alias = enum.nonmember("Step")
        UP = "up"

    assert moved(Email("a"), Email, Mail) == Mail("a")
    assert moved(Email("a"), Email | Sms, Sms | Mail) == Mail("a")
    assert moved(Email("a"), Email, Model) == Model(to="a")
    assert moved(Step.UP, Step | Low, Stairs | Low) is Stairs.UP

    class Derived(Mail):
        pass

    assert tag_of(Derived) == "Derived"


def test_a_union_of_classes_that_cannot_be_distinguished_is_refused_with_advice():
    other = dataclasses.make_dataclass("Email", [("to", str)])

    def task(x): ...

    for annotation, output in (
        (Email | other, "'x'.* are both called Email on the wire. Give one of the classes .*asyncq_alias"),
        (Box[int] | Box[str], "'x'.* are one class at run time"),
    ):
        task.__annotations__ = {"x": annotation}
        with pytest.raises(SerializationError, match=output):
            ArgumentCodec(task).dumps((1,), {})
        with pytest.raises(DecodeError, match=output):
            ArgumentCodec(task).loads(PLAIN_ARGUMENTS.dumps((1,), {}))


@dataclass
class Box(Generic[T]):
    item: T


class ModelBox(pydantic.BaseModel, Generic[T]):
    item: T


class TypedBox(TypedDict, Generic[T]):
    item: T


@dataclass
class EmailBox(Box[Email]):
    label: str = ""


@dataclass
class ListBox(Box[list[T]], Generic[T]):
    first: T


class EmailModelBox(ModelBox[Email]):
    label: str = ""


class EmailTypedBox(TypedBox[Email]):
    label: str


class TupleBox(NamedTuple, Generic[T]):
    item: T


@pytest.mark.parametrize(
    ("annotation", "value"),
    [
        (EmailBox, EmailBox(Email("a"))),
        (ListBox[Email], ListBox([Email("a")], Email("b"))),
        (Box[Box[Email]], Box(Box(Email("a")))),
        (Box[Email | Sms], Box(Sms("a"))),
        (ModelBox[Email] | ModelBox[Sms], ModelBox[Sms](item=Sms("a"))),
        (EmailModelBox, EmailModelBox(item=Email("a"))),
        (EmailTypedBox, {"item": Email("a"), "label": "x"}),
        (TypedBox[Email], {"item": Email("a")}),
        (TupleBox[Email], TupleBox(Email("a"))),
        (Box, Box(1)),
        (Box[Any], Box({"a": 1})),
    ],
    ids=repr,
)
def test_generic_classes_are_decoded_with_the_types_of_their_parameters(annotation, value):
    arrives(value, annotation)


def test_the_arguments_of_a_generic_class_may_differ_if_the_values_fit():
    assert moved(Box(1), Box[int], Box) == Box(1)
    assert moved(Box(1), Box, Box[int]) == Box(1)
    with pytest.raises(
        DecodeError, match=r"\.item: a value of type int arrived, but the annotation says str"
    ):
        moved(Box(1), Box[int], Box[str])


# -- dataclasses --


@dataclass
class Price:
    net: float

    def __post_init__(self):
        self.net = round(self.net * 1.19, 2)


@dataclass(frozen=True, slots=True, kw_only=True)
class Tight:
    a: int
    b: tuple[Email, ...] = ()
    c: Decimal | None = None


@dataclass
class Counted:
    seed: InitVar[int]
    name: str
    count: int = field(init=False)
    hidden: str = field(default="", repr=False, compare=False)

    def __post_init__(self, seed):
        self.count = seed + 1


@dataclass
class Cached:
    n: int

    @functools.cached_property
    def square(self) -> int:
        return self.n**2


@dataclass
class Linked:
    value: int
    next: "Self | None" = None
    others: "list[Self]" = field(default_factory=list)


@dataclass
class Careful:
    n: int

    def __setattr__(self, name, value):
        if name in self.__dict__:
            raise AttributeError(name)
        super().__setattr__(name, value)


@dataclass
class Fault(Exception):
    code: int


@pytest.mark.parametrize(
    "value",
    [
        Price(100),
        Tight(a=1, b=(Email("x"),), c=Decimal(1)),
        Counted(1, "x", "h"),
        Linked(1, Linked(2), [Linked(3)]),
        Careful(1),
    ],
    ids=repr,
)
def test_a_dataclass_is_decoded_without_running_its_code(value):
    read = arrives(value, type(value))
    assert getattr(read, "hidden", None) == getattr(value, "hidden", None)


def dataclass_of(base):
    return dataclass(type("Odd", (base,), {"__annotations__": {"label": str}, "label": ""}))


@pytest.mark.parametrize("base", [list, dict, set, tuple, str, bytes, int, float, Exception])
def test_a_dataclass_that_derives_from_a_builtin_type_is_refused_by_the_writer(base):
    odd = dataclass_of(base)
    for annotation in (odd, odd | None, list[odd], Box[odd]):
        inner = odd()
        value = {list[odd]: [inner], Box[odd]: Box(inner)}.get(annotation, inner)
        with pytest.raises(
            SerializationError, match=rf"is a dataclass and derives from {base.__name__}: only its fields"
        ):
            ValueCodec(annotation).dumps(value)


def test_an_exception_that_is_a_dataclass_is_refused_because_its_args_would_be_lost():
    with pytest.raises(
        SerializationError, match=r"^result: a .*Fault is a dataclass and derives from Exception"
    ):
        ValueCodec(Fault).dumps(Fault(7))
    assert ValueCodec(Fault).loads(dumps({"code": 7})).code == 7


def test_attributes_of_a_dataclass_that_are_no_fields_are_serialized_if_they_are_plain_data():
    value = Cached(3)
    assert value.square == 9
    value.note, value.lock = "n", threading.Lock()
    assert vars(arrives(value, Cached)) == {"n": 3, "note": "n"}


def test_an_enum_member_is_found_without_a_call_of_its_class():
    class Counting(enum.EnumMeta):
        calls = 0

        def __call__(cls, *args, **kwargs):
            Counting.calls += 1
            return super().__call__(*args, **kwargs)

    class Counted(enum.Enum, metaclass=Counting):
        ONE = 1
        PAIR = (1, 2)

    for annotation in (Counted, Counted | None, Counted | Step, list[Counted]):
        calls = Counting.calls
        given = [Counted.ONE] if annotation == list[Counted] else Counted.ONE
        assert moved(given, annotation, annotation) == given
        assert Counting.calls == calls
    assert moved(Counted.PAIR, Counted, Counted) is Counted.PAIR
    assert moved(7, Any, Counted) == 7


class Slotted:
    __slots__ = ("__hidden", "__weakref__", "cache", "empty", "lock")

    def hide(self, value):
        self.__hidden = value

    def seek(self):
        return self.__hidden


@dataclass
class SlotsAndDict(Slotted):
    n: int


@dataclass(slots=True, weakref_slot=True)
class SlotsOnly(Slotted):
    n: int
    label: str = ""


@dataclass(frozen=True)
class SlotsAlone(Slotted):
    pass


class SlottedModel(pydantic.BaseModel):
    __slots__ = ("__hidden", "cache", "empty", "lock")
    n: int

    hide, seek = Slotted.hide, Slotted.seek


def slotted(cls, *args, **fields):
    made = cls(*args, **fields)
    for name, value in {"cache": [1, {"a": (2,)}], "lock": threading.Lock()}.items():
        object.__setattr__(made, name, value)
    return made


class Doubled:
    def __set_name__(self, owner, name):
        self.name = f"_{name}"

    def __get__(self, instance, owner=None):
        return 0 if instance is None else getattr(instance, self.name)

    def __set__(self, instance, value):
        setattr(instance, self.name, value * 2)


@dataclass
class Computed:
    n: int = Doubled()  # type: ignore[assignment]
    label: str = ""


def test_a_field_that_a_descriptor_computes_is_decoded_unchanged_and_can_be_sent_again():
    read = arrives(Computed(1), Computed)
    assert (read.n, vars(read)) == (2, {"_n": 2, "label": ""})
    read.n = 5
    assert loads(ValueCodec(Computed).dumps(read)) == {"n": 10, "label": ""}
    assert arrives(read, Computed).n == 10


def test_a_writer_cannot_forge_the_stored_value_of_a_computed_field():
    [container_tag, tag, print_, fields, _] = unpacked(ValueCodec(Computed).dumps(Computed(1)))
    for others in ({"_n": "forged"}, {}):
        read = ValueCodec(Computed).loads(packb([container_tag, tag, print_, fields, {"d": others}]))
        assert read.n == 4  # the setter has run


def test_an_attribute_that_hides_a_method_is_refused(monkeypatch):
    @dataclass
    class Runner:
        n: int

        def run(self): ...

    runner = Runner(1)
    runner.other = 5
    with monkeypatch.context() as patched:
        lookups = counted(patched, instance_attributes.inspect, "getattr_static")
        assert vars(arrives(runner, Runner)) == {"n": 1, "other": 5}
    assert [name for _, name, _ in lookups].count("other") == 2, "once by the writer, and once by the reader"
    del runner.other
    runner.run = threading.Lock()
    assert vars(arrives(runner, Runner)) == {"n": 1}
    runner.run = "now"
    with pytest.raises(SerializationError, match=r"^result\.run: it hides a method of the class"):
        ValueCodec(Runner).dumps(runner)


@pytest.mark.parametrize("trust_models", [True, False])
@pytest.mark.parametrize(
    "value",
    [
        slotted(SlotsAndDict, 1),
        slotted(SlotsOnly, 1, "x"),
        slotted(SlotsAlone),
        slotted(SlottedModel, n=1),
    ],
    ids=lambda value: type(value).__name__,
)
def test_plain_data_in_slots_that_are_no_fields_is_serialized(value, trust_models):
    read = ValueCodec(type(value), Policy(trust_models=trust_models)).loads(
        ValueCodec(type(value)).dumps(value)
    )
    assert read == value
    assert read.cache == [1, {"a": (2,)}]
    assert not hasattr(read, "lock")
    assert not hasattr(read, "empty")


def test_a_slot_with_a_private_name_and_another_attribute_are_serialized():
    value = SlotsAndDict(1)
    value.hide("h")
    value.note = "n"
    read = arrives(value, SlotsAndDict)
    assert (read.seek(), read.note) == ("h", "n")


def test_a_writer_cannot_forge_a_slot_that_python_itself_uses():
    [container_tag, tag, print_, fields] = unpacked(ValueCodec(SlottedModel).dumps(SlottedModel(n=1)))
    for name in ("__pydantic_private__", "__pydantic_fields_set__", "__dict__", "n"):
        with pytest.raises(DecodeError, match="that it cannot have"):
            ValueCodec(SlottedModel).loads(packb([container_tag, tag, print_, fields, {"d": {name: 1}}]))


def test_an_attribute_is_dropped_if_the_changed_class_of_the_reader_uses_its_name():
    class Written(pydantic.BaseModel):
        asyncq_alias: ClassVar[str] = "Read"
        n: int

    class Read(pydantic.BaseModel):
        n: int = 0
        more: str = "m"

        @property
        def note(self):
            return "own"

    value = Written(n=1)
    value.__dict__.update(note="sent", seen=2)
    read = moved(value, Written, Read)
    assert (read.n, read.more, read.note, read.seen) == (1, "m", "own", 2)


def test_attributes_of_models_and_named_tuples_that_are_no_fields_are_serialized():
    class Open(pydantic.BaseModel):
        n: int

        @pydantic.computed_field
        @functools.cached_property
        def square(self) -> int:
            return self.n**2

    class Two(NamedTuple):
        left: int
        right: str

    class Tagged(Two):
        pass

    model, pair = Open(n=3), Tagged(1, "a")
    assert model.square == 9
    model._note, pair.note = "n", [1]
    assert vars(arrives(model, Open)) == {"n": 3, "_note": "n"}
    assert vars(arrives(pair, Tagged)) == {"note": [1]}


def test_classes_of_types_are_allowed_in_attributes_without_annotation():
    class Keeper(pydantic.BaseModel):
        _kept = pydantic.PrivateAttr(default=None)

    keeper, cached = Keeper(), Cached(1)
    keeper._kept = cached.kept = Email("a")
    policy = Policy(types=[Email])
    for value, expected in ((keeper, Email("a")), (cached, Email("a"))):
        codec = ValueCodec(type(value), policy)
        read = codec.loads(codec.dumps(value))
        assert getattr(read, "_kept", None) or read.kept == expected


class Token(pydantic.SecretStr):
    def __init__(self, value, until=0):
        super().__init__(value)
        self.until = until


class Key(pydantic.SecretStr):
    pass


def test_an_attribute_of_a_class_that_is_serialized_as_one_value_is_refused():
    with pytest.raises(SerializationError, match=r"^result\[0\]: a .*Token with an attribute until: only"):
        ValueCodec(list[Token]).dumps([Token("t", until=3)])
    [read] = moved([Key("k")], list[Key], list[Key])
    assert (type(read), read.get_secret_value()) == (Key, "k")


@pytest.mark.parametrize("name", ["__class__", "square", "n", "__dict__"])
def test_a_writer_cannot_forge_an_attribute_that_a_dataclass_may_not_have(name):
    body = ValueCodec(Cached).dumps(Cached(3))
    [container_tag, tag, print_, fields] = unpacked(body)
    with pytest.raises(DecodeError, match="that it cannot have"):
        ValueCodec(Cached).loads(packb([container_tag, tag, print_, fields, {"d": {name: 1}}]))


def unpacked(body):
    return unpackb(body)


@pytest.mark.parametrize(
    "fields",
    [{"to": 1}, {"to": None}, {}, {"to": "a", "x": 1}, {"x": "a"}, [], ["a"], "a", None, {"to": ["a"]}],
    ids=repr,
)
def test_a_writer_cannot_forge_the_fields_of_a_dataclass_or_model(fields):
    class Model(pydantic.BaseModel):
        to: str

    for cls, one in ((Email, Email("a")), (Model, Model(to="a"))):
        [container_tag, tag, print_, _] = unpacked(ValueCodec(cls).dumps(one))
        for annotation in (cls, cls | None, cls | Low, list[cls]):
            node = [container_tag, tag, print_, fields]
            with pytest.raises(DecodeError):
                ValueCodec(annotation).loads(packb([node] if annotation == list[cls] else node))


@pytest.mark.parametrize(
    ("annotation", "value", "output"),
    [
        (Email, Email(1), r"^result\.to: a value of type int, but the annotation says str"),
        (Linked, Linked(1, [2]), r"^result\.next: a value of type list, but the annotation says .*Linked"),
        (Linked, Linked(1, None, [Linked(2), 3]), r"^result\.others\[1\]: a value of type int"),
        (Tight, Tight(a=1.0), r"^result\.a: a value of type float, but the annotation says int"),
        (
            Box[Any],
            Box(Email("a")),
            r"^result\.item: .*Email cannot travel. No annotation names Email at this",
        ),
        (Box[Path], Box("a"), r"^result\.item: a value of type str, but the annotation says pathlib"),
        (Box[Literal["a"]], Box("b"), r"^result\.item: a value of type str, but the annotation says Literal"),
        (Box[Step], Box("up"), r"^result\.item: a value of type str, but the annotation says .*Step"),
    ],
)
def test_a_field_of_a_wrong_type_is_refused_by_the_writer(annotation, value, output):
    with pytest.raises(SerializationError, match=output):
        ValueCodec(annotation).dumps(value)


def test_fields_are_as_lenient_as_type_checkers_are():
    @dataclass
    class Loose:
        a: float
        b: int
        c: str = None
        d: date = date.min
        e: Sequence[int] = ()
        f: Any = None
        g: "Missing" = None  # noqa: F821  the test needs an unknown name
        h: int = "auto"

    arrives(Loose(1, True, None, datetime(2026, 1, 1, tzinfo=UTC), [1], {"x"}, (1,)), Loose)


def test_a_class_that_differs_between_writer_and_reader_is_validated_and_logged_once(caplog):
    new = dataclasses.make_dataclass("Email", [("to", str), ("cc", list[str], field(default_factory=list))])
    with caplog.at_level(logging.WARNING, "asyncq.serializers.records"):
        assert moved(Email("a"), Email, new) == new("a")
        assert moved(Email("b"), Email, new) == new("b")
    [record] = caplog.records
    assert "was written with other fields than" in record.getMessage()
    with pytest.raises(DecodeError, match=r"do not make a .*Email: TypeError"):
        moved(new("a", ["b"]), new, Email)
    changed = dataclasses.make_dataclass("Email", [("to", int)])
    with pytest.raises(DecodeError, match=r"\.to: a value of type str arrived, but the annotation says int"):
        moved(Email("a"), Email, changed)


# -- models --


class Login(pydantic.BaseModel):
    user: str
    password: str

    @pydantic.field_serializer("password")
    def mask(self, value: str) -> str:
        return "***"


class Money(pydantic.BaseModel):
    cents: Annotated[int, pydantic.PlainSerializer(lambda cents: cents // 100)]
    at: Annotated[date, pydantic.PlainSerializer(lambda day: day.strftime("%d/%m/%Y"))] = date(2026, 1, 2)


class Hidden(pydantic.BaseModel):
    name: str
    token: str = pydantic.Field(default="", exclude=True)
    _cache: dict[str, Email] = pydantic.PrivateAttr(default_factory=dict)
    _lock: Any = pydantic.PrivateAttr(default_factory=threading.Lock)


class Signup(pydantic.BaseModel):
    password: str

    @pydantic.field_validator("password")
    @classmethod
    def hashed(cls, value: str) -> str:
        return f"hash({value})"


class Part(pydantic.BaseModel):
    a: int
    b: int = 0

    @pydantic.model_serializer
    def only_a(self) -> dict[str, Any]:
        return {"a": self.a}


class Place(pydantic.BaseModel):
    model_config = pydantic.ConfigDict(extra="allow", frozen=True)
    url: pydantic.HttpUrl | None = None
    dsn: pydantic.PostgresDsn | None = None
    secret: pydantic.SecretStr = pydantic.SecretStr("s")
    raw: pydantic.SecretBytes | None = None
    pin: pydantic.Secret[int] | None = None
    either: pydantic.SecretStr | str = "x"
    at: pydantic.AwareDatetime | None = None
    size: pydantic.ByteSize | None = None
    host: pydantic.IPvAnyAddress | None = None
    path: Path | None = None
    link: Annotated[str, pydantic.Field(alias="linkName", min_length=1)] = "l"


class Roots(pydantic.RootModel[list[Email]]):
    pass


class Coded(pydantic.BaseModel):
    model_config = pydantic.ConfigDict(use_enum_values=True)
    step: Step = Step.UP
    steps: list[Step] = []


class Rights(enum.IntFlag):
    READ = 1
    WRITE = 2


class CodedArms(pydantic.BaseModel):
    model_config = pydantic.ConfigDict(use_enum_values=True)
    one: Low | str = "x"
    several: list[Low | High | None] = []
    word: Step | Literal["left"] | None = None
    rights: Rights | str = ""


class Pet(pydantic.BaseModel):
    kind: Literal["cat"] = "cat"
    lives: int = 9


class Hound(pydantic.BaseModel):
    kind: Literal["dog"] = "dog"
    lives: int = 1


class Home(pydantic.BaseModel):
    pet: Annotated[Pet | Hound, pydantic.Field(discriminator="kind")]
    tree: "dict[str, Home] | None" = None
    any: Any = None


@pydantic.dataclasses.dataclass
class Checked:
    n: Annotated[int, pydantic.Field(gt=0)]
    more: list[Email] = pydantic.Field(default_factory=list, repr=False)


place = Place(
    url="http://a.b",
    dsn="postgres://u:p@h/db",
    raw=b"x",
    pin=7,
    either=pydantic.SecretStr("z"),
    at=datetime(2026, 1, 1, tzinfo=UTC),
    size="1kb",
    host="10.0.0.1",
    path="/a",
    linkName="q",
    other={"a": [1]},
)

MODELS = [
    Login(user="a", password="secret"),
    Money(cents=1999),
    Signup(password="x"),
    Part(a=1, b=2),
    Part(a=1),
    Place(),
    place,
    Roots([Email("a")]),
    Coded(step="down", steps=["up"]),
    Coded(),
    CodedArms(
        one=Low.TWO, several=[Low.ONE, High.TEN, None], word=Step.UP, rights=Rights.READ | Rights.WRITE
    ),
    CodedArms(one="y", word="left", rights="z"),
    Home(pet=Hound(), tree={"a": Home(pet=Pet())}, any={"a": (1, {2})}),
    Checked(1, [Email("a")]),
]


@pytest.mark.parametrize("value", MODELS, ids=repr)
def test_a_model_is_decoded_without_running_its_code(value):
    for annotation in (type(value), type(value) | None, type(value) | Email | Low, list[type(value)]):
        read = moved([value] if annotation == list[type(value)] else value, annotation, annotation)
        [read] = read if isinstance(read, list) else [read]
        assert read == value
        assert repr(read) == repr(value)
        for name in ("__pydantic_fields_set__", "__pydantic_extra__", "__pydantic_private__"):
            assert getattr(read, name, None) == getattr(value, name, None)


def test_excluded_fields_and_private_attributes_are_serialized():
    value = Hidden(name="n", token="t")
    value._cache["a"] = Email("x")
    read = moved(value, Hidden, Hidden)
    assert (read.token, read._cache) == ("t", {"a": Email("x")})
    assert type(read._lock) is type(threading.Lock())


def test_a_private_attribute_without_default_that_cannot_be_serialized_is_refused():
    class Client(pydantic.BaseModel):
        _socket: Any = pydantic.PrivateAttr()

        def model_post_init(self, context):
            self._socket = object()

    with pytest.raises(SerializationError, match=r"^result\._socket: a value of type object cannot travel"):
        ValueCodec(Client).dumps(Client())


def test_an_app_that_does_not_trust_models_validates_each_model():
    policy = Policy(trust_models=False)
    body = ValueCodec(Signup, policy).dumps(Signup(password="x"))
    assert ValueCodec(Signup, policy).loads(body).password == "hash(hash(x))"
    assert ValueCodec(Price, policy).loads(ValueCodec(Price).dumps(Price(100))).net == 141.61
    with pytest.raises(DecodeError, match="greater than 0"):
        ValueCodec(Checked, policy).loads(ValueCodec(Checked).dumps(object_of(Checked, n=-1, more=[])))


def test_the_classes_that_a_field_may_have_are_searched_once(monkeypatch):
    class Shelf(pydantic.BaseModel):
        mails: pydantic.Json[list[Email]]

    codec = ValueCodec(Shelf, TRUSTS_NOBODY)
    tree = codec.dumps(Shelf(mails='[{"to": "a"}, {"to": "b"}]'))
    found = counted(monkeypatch, dataclass_codecs, "_tags_below")
    for _ in range(3):
        assert codec.loads(tree).mails == [Email(to="a"), Email(to="b")]
    assert len([seen for _, seen in found if seen is found[0][1]]) == len(found), "one walk"


def object_of(cls, **state):
    made = object.__new__(cls)
    made.__dict__.update(state)
    return made


@pydantic.dataclasses.dataclass
class CheckedHeld:
    n: int


class HiddenRoot(pydantic.RootModel[int]):
    _note: str = pydantic.PrivateAttr(default="")


def with_state(made, **state):
    for name, value in state.items():
        setattr(made, name, value)
    return made


def test_attributes_that_are_no_constructor_arguments_survive_validation():
    @dataclass
    class Summed:
        n: int
        total: int = field(init=False)
        parts: list[Email] = field(init=False, default_factory=list)

        def __post_init__(self):
            self.total = 0

    values = [
        with_state(Hidden(name="n"), _cache={"a": Email("x")}),
        with_state(HiddenRoot(1), _note="a"),
        with_state(Cached(3), note="n"),
        with_state(CheckedHeld(3), note="n"),
        with_state(Summed(3), total=7, parts=[Email("a")], note="n"),
    ]
    policy = Policy(trust_models=False)
    for value in values:
        cls = type(value)
        read = ValueCodec(cls, policy).loads(ValueCodec(cls).dumps(value))
        assert vars(read) == vars(value)
        assert getattr(read, "_cache", None) == getattr(value, "_cache", None)
        assert getattr(read, "_note", None) == getattr(value, "_note", None)


def test_attributes_that_are_no_constructor_arguments_survive_a_change_of_the_fields():
    def made(**more):
        fields = {"n": (int, 1), **more}
        return pydantic.create_model("Noted", **fields, _note=(str, pydantic.PrivateAttr(default="")))

    old, new = made(), made(m=(int, 2))
    read = moved(with_state(old(), _note="a"), old, new)
    assert (read.n, read.m, read._note) == (1, 2, "a")
    bare_one = pydantic.create_model("Noted", n=(str, ""))
    assert moved(with_state(new(), _note="a"), new, pydantic.create_model("Noted", n=(int, 0))).n == 1
    with pytest.raises(DecodeError, match="valid string"):
        moved(with_state(old(), _note="a"), old, bare_one)
    one = dataclasses.make_dataclass("Held", [("n", int)])
    other = dataclasses.make_dataclass("Held", [("n", int), ("note", str, "?")])
    assert vars(moved(with_state(one(1), extra=[1]), one, other)) == {"n": 1, "note": "?", "extra": [1]}
    assert vars(moved(with_state(one(1), note="n"), one, other)) == {"n": 1, "note": "?"}


class Decoded(pydantic.BaseModel):
    numbers: pydantic.Json[list[int]]
    text: pydantic.Base64Str
    raw: pydantic.Base64Bytes | None = None
    any: pydantic.Json = None
    mail: pydantic.Json[Email] | None = None
    several: list[pydantic.Base64Str] = []


class DecodedRoot(pydantic.RootModel[pydantic.Json[list[int]]]):
    pass


@pydantic.dataclasses.dataclass(config={"alias_generator": to_camel})
class Decoding:
    some_text: pydantic.Base64Str
    some_number: pydantic.Json[int] = pydantic.Field(default="1", alias="N")


@dataclass(init=False)
class Unmade:
    n: int
    at: date = date.min
    more: list[int] = field(default_factory=list)


@dataclass(init=False)
class Parsed:
    left: int
    right: int

    def __init__(self, text):
        self.left, self.right = map(int, text.split("-"))


@dataclass
class Seeded:
    seed: InitVar[int]
    n: int = 0


TRUSTS_NOBODY = Policy(trust_models=False)


@pytest.mark.parametrize(
    "value",
    [
        Decoded(numbers="[1, 2]", text="aGk=", raw="aGk=", any='{"a": 1}', mail='{"to": "x"}'),
        DecodedRoot("[1]"),
        Decoding(someText="aGk=", N="7"),
        with_state(object.__new__(Unmade), n=1, at=date(2026, 1, 2), more=[1]),
    ],
    ids=["model", "root", "pydantic dataclass", "no constructor"],
)
def test_a_validated_value_is_equal_also_if_its_class_decodes_or_renames_fields(value):
    read = ValueCodec(type(value), TRUSTS_NOBODY).loads(ValueCodec(type(value)).dumps(value))
    assert read == value


def test_fields_of_a_plain_dict_are_decoded_and_may_have_names_or_aliases():
    for plain in ({"someText": "aGk=", "N": "7"}, {"some_text": "aGk=", "some_number": "7"}):
        assert ValueCodec(Decoding).loads(dumps(plain)) == Decoding(someText="aGk=", N="7")
    plain = {"numbers": "[1]", "text": "aGk=", "several": ["aGk="]}
    assert ValueCodec(Decoded).loads(dumps(plain)) == Decoded(**plain)
    assert ValueCodec(Unmade).loads(dumps({"n": 2})).more == []


@pytest.mark.parametrize(
    ("value", "output"),
    [
        (Decoded(numbers="[]", text="", several=["aGk="]), "was decoded when the instance was made"),
        (
            Parsed("1-2"),
            r"own constructor with the fields by their names, but its signature is Parsed\(text\)",
        ),
        (Seeded(1, 2), "No instance keeps its InitVar seed, so none arrives: give it a default"),
    ],
    ids=["decoded", "own constructor", "InitVar"],
)
def test_the_error_about_a_value_that_cannot_be_validated_gives_the_reason(value, output):
    codec = ValueCodec(type(value))
    body = codec.dumps(value)
    assert codec.loads(body) == value
    with pytest.raises(DecodeError, match=output):
        ValueCodec(type(value), TRUSTS_NOBODY).loads(body)


def test_a_plain_dataclass_that_derives_from_a_pydantic_one_is_made_with_the_names_of_its_fields():
    @dataclass
    class Derived(Decoding):
        more: int = 0

    value = Derived("a", 1, 2)
    assert ValueCodec(Derived, TRUSTS_NOBODY).loads(ValueCodec(Derived).dumps(value)) == value


def test_a_model_whose_fields_differ_is_validated_by_the_reader():
    class Old(pydantic.BaseModel):
        asyncq_alias: ClassVar[str] = "Order"
        n: int
        home: Email
        note: str | None = None

    class New(pydantic.BaseModel):
        asyncq_alias: ClassVar[str] = "Order"
        n: Annotated[str, pydantic.Field(coerce_numbers_to_str=True, alias="number")]
        home: Email
        more: list[int] = [1]

    read = moved(Old(n=1, home=Email("a")), Old, New)
    assert (read.n, read.home, read.more) == ("1", Email("a"), [1])
    assert read.model_fields_set == {"n", "home"}
    with pytest.raises(DecodeError, match=r"(?s)do not make a .*Old.*valid integer"):
        moved(New(number="x", home=Email("a")), New, Old)


class Camel(pydantic.BaseModel):
    model_config = pydantic.ConfigDict(alias_generator=to_camel)
    dry_run: bool = True
    mail_to: Email | None = None
    either: int = pydantic.Field(default=0, validation_alias=pydantic.AliasChoices("one", "two"))


class OwnInit(pydantic.BaseModel):
    n: int = pydantic.Field(default=0, alias="number")
    asyncq_alias: ClassVar[str] = "Own"

    def __init__(self, **values):
        super().__init__(**values)


@pytest.mark.parametrize(
    "plain",
    [
        {"dryRun": False, "mailTo": {"to": "a"}, "two": 7},
        {"dry_run": False, "mail_to": {"to": "a"}, "either": 7},
        {"dryRun": False, "mail_to": {"to": "a"}, "one": 7},
    ],
)
def test_a_plain_dict_may_use_aliases_and_names_of_fields(plain):
    expected = Camel(dryRun=False, mailTo=Email("a"), one=7)
    for annotation in (Camel, Camel | None, Camel | Low):
        assert ValueCodec(annotation).loads(dumps(plain)) == expected
    assert ValueCodec(list[Camel]).loads(dumps([plain])) == [expected]


def test_a_model_with_its_own_constructor_gets_the_aliases_of_its_fields():
    class Other(pydantic.BaseModel):
        asyncq_alias: ClassVar[str] = "Own"
        n: int
        more: int = 0

    assert moved(Other(n=5), Other, OwnInit).n == 5
    for plain in ({"n": 5}, {"number": 5}):
        assert ValueCodec(OwnInit).loads(dumps(plain)).n == 5


class Twig(pydantic.BaseModel, Generic[T]):
    value: T
    kids: "list[Twig[T]]" = []
    by_name: "dict[str, Twig[T] | None] | None" = None


@pytest.mark.parametrize(
    ("annotation", "value"),
    [
        (
            Twig[Email],
            Twig[Email](
                value=Email("a"),
                kids=[Twig[Email](value=Email("b"))],
                by_name={"x": None, "y": Twig[Email](value=Email("c"))},
            ),
        ),
        (Twig, Twig(value=1, kids=[Twig(value=2)])),
        (Twig[Twig[int]], Twig[Twig[int]](value=Twig[int](value=1), kids=[])),
    ],
    ids=repr,
)
def test_a_generic_model_may_refer_to_itself(annotation, value):
    read = arrives(value, annotation)
    assert repr(read) == repr(value)
    assert arrives([value], list[annotation | Low]) == [value]


def test_the_fingerprint_of_a_recursive_generic_model_is_the_same_in_each_process():
    # The fields of pydantic hold text with the address of the class.
    assert print_of(Twig[int]).hex() == TWIG_PRINT


class Holder(pydantic.BaseModel):
    item: pydantic.BaseModel


def test_base_model_as_an_annotation_means_the_same_as_any():
    def task(x: pydantic.BaseModel, y: list[pydantic.BaseModel] | None = None) -> pydantic.BaseModel: ...

    pet = Pet()
    for codec in (ArgumentCodec(task), PLAIN_ARGUMENTS):
        assert ArgumentCodec(task).loads(codec.dumps(({"a": 1}, [1]), {})) == ([{"a": 1}, [1]], {})
        with pytest.raises(
            SerializationError, match=r"args\[0\]: .*Pet cannot travel. No annotation names Pet"
        ):
            codec.dumps((pet,), {})
    for codec, value in ((ValueCodec.of_result(task), pet), (ValueCodec(Holder), Holder(item=pet))):
        with pytest.raises(SerializationError, match=r"Pet cannot travel. No annotation names Pet"):
            codec.dumps(value)
    policy = Policy([Pet])
    codec = ArgumentCodec(task, policy)
    assert codec.loads(codec.dumps((pet, [pet]), {})) == ([pet, [pet]], {})
    assert ValueCodec(Holder, policy).loads(ValueCodec(Holder, policy).dumps(Holder(item=pet))).item == pet


def test_forged_extra_fields_private_attributes_or_field_names_are_refused():
    [container_tag, tag, print_, fields] = unpacked(ValueCodec(Pet).dumps(Pet(kind="cat", lives=3)))
    for more in ({"x": {"a": 1}}, {"x": 1}, {"s": 1}, {"s": [1]}, 1, []):
        with pytest.raises(DecodeError):
            ValueCodec(Pet).loads(packb([container_tag, tag, print_, fields, more]))
    [container_tag, tag, print_, fields, more] = unpacked(ValueCodec(Hidden).dumps(Hidden(name="n")))
    with pytest.raises(DecodeError, match="unknown private attribute 'a'"):
        ValueCodec(Hidden).loads(packb([container_tag, tag, print_, fields, {"p": {"a": 1}}]))


# -- types= --


def test_a_class_of_types_is_allowed_everywhere():
    policy = Policy([Email, Pet, Low, Step])

    def task(x, y: Any = None, *, z: Box[Any] = None): ...

    codec = ArgumentCodec(task, policy)
    args = (Email("a"), [{"k": (Pet(), {Low.ONE})}, {Step.UP: 1}])
    kwargs = {"z": Box({"a": Email("b")})}
    assert codec.loads(codec.dumps(args, kwargs)) == (list(args), kwargs)
    home = Home(pet=Pet(), any=[Email("a")])
    assert ValueCodec(Home, policy).loads(ValueCodec(Home, policy).dumps(home)) == home
    # A reader that does not know the tag sees the plain tree.
    assert PLAIN_ARGUMENTS.loads(codec.dumps((Email("a"),), {})) == ([{"to": "a"}], {})
    assert ArgumentCodec(task, Policy([Low])).loads(codec.dumps((Email("a"),), {})) == ([{"to": "a"}], {})
    with pytest.raises(SerializationError, match=r"args\[0\]: .*Sms cannot travel"):
        codec.dumps((Sms("a"),), {})


class Cub(pydantic.BaseModel):
    """Another class with the fields of `Pet`."""

    kind: Literal["cat"] = "cat"
    lives: int = 9


def _model_of(hint: Any) -> Any:
    return pydantic.create_model("Holder", field=(hint, ...))


def _dataclass_of(hint: Any) -> Any:
    cls = type("Holder", (), {"__annotations__": {"field": hint}})
    return (pydantic.dataclasses.dataclass if hint not in (int, str) else dataclass)(cls)


@pytest.mark.parametrize(
    ("annotation", "value"),
    [
        (Box[int] | Any, Email("a")),
        (Box[int] | Any, Box(1)),
        (Box[int] | Any, [Email("a"), {"k": Pet()}, (Low.ONE,)]),
        (Box[int] | Any, {"k": Email("a")}),
        (Box[int] | list[Email] | Any, {"k": Email("a")}),
        (Box[int] | list[Any] | Any, [Pet()]),
        (ModelBox[int] | Any, ModelBox[Email](item=Email("a"))),
        (ModelBox[int] | Any, ModelBox[int](item=1)),
        (Box[int] | pydantic.BaseModel, Pet()),
        (Box[Sms | Any], Box({"k": Email("a")})),
    ],
    ids=repr,
)
def test_a_class_of_types_is_allowed_for_any_in_a_union(annotation, value):
    policy = Policy([Email, Pet, Low, ModelBox[Email]])
    read = ValueCodec(annotation, policy).loads(ValueCodec(annotation, policy).dumps(value))
    assert read == value
    assert repr(read) == repr(value)


def test_a_union_with_any_accepts_every_dict():
    for value in ({"k": 1}, {"to": 1}):
        arrives(value, Email | Any)


@pytest.mark.parametrize(
    ("annotation", "value"),
    [(Email | Any, {"to": "a"}), (Low | Any, 1), (list[Email | object], [{"to": "a"}])],
    ids=repr,
)
def test_a_union_with_any_keeps_a_plain_value_that_could_become_a_class(annotation, value):
    arrives(value, annotation)


@pytest.mark.parametrize(
    ("value", "writer", "reader", "output"),
    [
        ([Email("a")], list[Email] | Email | None, Email | None, "list with an instance of Email in it"),
        ([Email("a")], list[Email], Email, "list with an instance of Email in it"),
        (Email("a"), Email, list[Email], "an instance of Email"),
        ({"k": Email("a")}, dict[str, Email], list[Email], "dict with an instance of Email in it"),
        ([Email("a")], list[Email], dict[str, Email], "list with an instance of Email in it"),
        ((Email("a"), 1), tuple[Email, int], tuple[Email, int, int], "tuple with an instance of Email in it"),
    ],
    ids=repr,
)
def test_a_reader_that_annotates_classes_never_gets_the_fields_of_an_instance_as_a_dict(
    value, writer, reader, output
):
    with pytest.raises(DecodeError, match=rf"^result: .*{output} arrived"):
        moved(value, writer, reader)


@pytest.mark.parametrize("make", [_model_of, _dataclass_of], ids=["model", "dataclass"])
@pytest.mark.parametrize(
    ("writer", "reader", "value"),
    [
        (Pet | Cub, Pet, Cub()),
        (list[Cub], tuple[Pet, ...], [Cub()]),
        (dict[str, Cub], dict[str, list[Pet]], {"k": Cub()}),
        (pydantic.Json[Cub], pydantic.Json[Pet], '{"lives": 3}'),
    ],
    ids=repr,
)
def test_validation_does_not_turn_an_instance_of_one_class_into_another(make, writer, reader, value):
    old = make(writer)
    with pytest.raises(DecodeError, match=r"^result\.field.*(Cub|list) arrived"):
        moved(old(field=value), old, make(reader))


def test_validation_accepts_an_instance_in_another_container_or_as_a_dict():
    old = _model_of(list[Pet])
    assert moved(old(field=[Pet()]), old, _model_of(tuple[Pet, ...])).field == (Pet(),)
    old = _model_of(Pet)
    read = moved(old(field=Pet(lives=3)), old, _model_of(dict[str, Any]))
    assert read.field == {"kind": "cat", "lives": 3}


def test_extra_fields_with_classes_of_types_survive_validation():
    policy = Policy([Email], trust_models=False)
    model = pydantic.create_model("Open", __config__=pydantic.ConfigDict(extra="allow"), n=(int, 0))
    value = model(mail=Email("a"))
    assert ValueCodec(model, policy).loads(ValueCodec(model, policy).dumps(value)) == value


def test_an_error_of_the_reader_names_the_path_of_the_value():
    def old(one, mails, *, by=None): ...
    def new(one, mails, *, by=None): ...

    holder = _dataclass_of(int)
    old.__annotations__ = {"mails": list[holder]}
    new.__annotations__ = {"mails": list[_dataclass_of(str)], "by": dict[str, tuple[Email, Email]]}
    mails = [holder(field=1)]
    with pytest.raises(DecodeError, match=r"^args\[1\]\[0\]\.field: a value of type int arrived") as found:
        ArgumentCodec(new).loads(ArgumentCodec(old).dumps((1, mails), {}))
    assert found.value.__cause__ is None  # one traceback, however deep the value is
    body = ArgumentCodec(old).dumps((1, []), {"by": {"k": ({"to": "a"}, {"of": "a"})}})
    with pytest.raises(DecodeError, match=r"^kwargs\['by'\]\['k'\]\[1\]: the fields received do not"):
        ArgumentCodec(new).loads(body)
    body = ArgumentCodec(old).of_calls().dumps(([[1, []], [2, mails]],), {})
    with pytest.raises(DecodeError, match=r"^args\[0\]\[1\]\[1\]\[0\]\.field: "):
        ArgumentCodec(new).of_calls().loads(body)


@pytest.mark.parametrize("types", [[1], [int], ["Email"], [Email, dataclasses.make_dataclass("Email", [])]])
def test_types_accepts_only_classes_with_fields_and_different_names(types):
    with pytest.raises((TypeError, ValueError), match=r"types="):
        Policy(types)


# -- fingerprints --


def print_of(cls, args=()):
    return fingerprint(cls, args, fields_of)


def test_a_fingerprint_depends_on_names_and_types_and_not_on_spelling():
    def made(hint, name="x", **options):
        return print_of(dataclasses.make_dataclass("A", [(name, hint)], **options))

    same = [
        Optional[int],  # noqa: UP045
        int | None,
        Union[None, int],  # noqa: UP007
        Annotated[int | None, "noted"],
        None | int,
    ]
    assert len({made(hint) for hint in same}) == 1
    assert made(list[int]) == made(list[int])
    assert made(Email | Sms | None) == made(Sms | Email | None)
    others = [
        int,
        str,
        int | None,
        list[int],
        list[str],
        Email,
        Sms,
        dict[str, int],
        Literal[1],
        Literal["a"],
    ]
    assert len({made(hint) for hint in others}) == len(others)
    assert made(int) != made(int, "y")
    assert made(int) == made(int, frozen=True)


def test_a_change_in_a_nested_class_changes_the_fingerprint():
    assert print_of(Linked) == print_of(Linked)
    one = dataclasses.make_dataclass("Part", [("x", int)])
    other = dataclasses.make_dataclass("Part", [("x", str)])
    assert print_of(Box, (one,)) != print_of(Box, (other,))


def test_fingerprints_are_the_same_on_every_version_of_python():
    # They are stored in queues: a worker on a new Python reads what an old one wrote.
    assert print_of(Home).hex() == HOME_PRINT
    assert print_of(Tight).hex() == TIGHT_PRINT


HOME_PRINT, TIGHT_PRINT, TWIG_PRINT = "d7c5d9c0fabd", "68593e8465ee", "d340d837588e"

# -- aliases and hints --

Json = typing_extensions.TypeAliasType(
    "Json", "dict[str, Json] | list[Json] | str | int | float | bool | None"
)
Tree = typing_extensions.TypeAliasType("Tree", "dict[str, Tree] | list[Tree] | Email | None")
Rows = typing_extensions.TypeAliasType("Rows", "list[tuple[Email, Rows]] | None")
Twice = typing_extensions.TypeAliasType("Twice", tuple[T, T], type_params=(T,))


class Options(TypedDict, total=False):
    mail: Email
    retries: int


def test_the_fields_of_a_local_class_may_refer_to_local_classes():
    @dataclass
    class Inside:
        n: int

    @dataclass
    class Base:
        base: "Inside | None"

    @dataclass
    class Outside(Base):
        one: "Inside"
        several: "list[Inside] | None" = None
        again: "Outside | None" = None

    class Both(NamedTuple):
        left: "Outside"

    class Named(TypedDict):
        both: "Both"

    @AsyncQ().task
    async def task(x: "Outside", y: "list[Named]") -> Outside | None: ...

    value = Outside(None, Inside(1), [Inside(2)], Outside(Inside(3), Inside(4)))
    codec = ArgumentCodec(task.function)
    kwargs = {"x": value, "y": [{"both": Both(value)}]}
    assert codec.loads(codec.dumps((), kwargs)) == ([], kwargs)
    result = ValueCodec.of_result(task.function)
    assert result.loads(result.dumps(value)) == value


Bound = TypeVar("Bound", bound=Email)
Chosen = TypeVar("Chosen", Email, Sms)
Usual = typing_extensions.TypeVar("Usual", default=Email)


def test_a_recursive_alias_works():
    assert type_codec_of(Json) is None
    doc = {"a": [1, {"b": None}]}
    arrives(doc, Json)
    tree = {"a": [Email("x"), {"b": [None, Email("y")]}]}
    arrives(tree, Tree)
    arrives(Box(doc), Box[Json])
    arrives(Box(tree), Box[Tree])
    arrives([(Email("a"), [(Email("b"), None)])], Rows)
    arrives((Email("a"), Email("b")), Twice[Email])
    with pytest.raises(SerializationError, match=r"result\.item\['a'\]: a value of type set"):
        ValueCodec(Box[Json]).dumps(Box({"a": {1}}))


def test_type_parameters_without_a_value_mean_their_bound_constraints_or_default():
    for hint in (Bound, Chosen, Usual, list[Bound]):
        value = [Email("a")] if hint == list[Bound] else Email("a")
        arrives(value, hint)
    arrives(Sms("a"), Chosen)
    arrives(Box(Email("a")), Box[Bound])


def test_keyword_arguments_of_a_typed_dict_and_unpacked_tuples_are_converted():
    def task(*args: *tuple[Email, ...], **options: Unpack[Options]): ...

    codec = ArgumentCodec(task)
    args, kwargs = (Email("a"), Email("b")), {"mail": Email("a"), "retries": 2}
    assert codec.loads(codec.dumps(args, kwargs)) == (list(args), kwargs)
    arrives((Email("a"), Low.ONE, Low.TWO), tuple[Email, *tuple[Low, ...]])


@dataclass
class Nest(Generic[T]):
    item: T
    inner: "Nest[list[T]] | None" = None


def test_a_generic_class_that_refers_to_itself_with_longer_arguments_works():
    arrives(Nest(1, Nest([2])), Nest[int])


class Handle:
    __module__ = "asyncq.results.handle"
    id = "x"


def test_a_handle_as_an_argument_is_an_error_that_says_what_to_pass():
    with pytest.raises(SerializationError, match=r"args\[0\]: .* Pass its `\.id`"):
        PLAIN_ARGUMENTS.dumps((Handle(),), {})


def test_the_advice_about_a_class_that_another_annotation_names_can_be_followed():
    with pytest.raises(SerializationError, match="No annotation names Email at this place"):
        ValueCodec(list[Email]).dumps({"a": Email("x")})
    copy = type("Copy", (Email,), {})
    with pytest.raises(SerializationError, match=r"Annotate Email \| Copy"):
        ValueCodec(Email).dumps(copy("a"))


def test_a_bare_generic_model_is_distinguished_from_one_with_arguments():
    output = r"ModelBox, but the annotation says .*\. Write ModelBox\[Email\]\(...\): a bare ModelBox is"
    for annotation in (ModelBox[Email], ModelBox[Email] | None, ModelBox[Email] | Low, list[ModelBox[Email]]):
        value = ModelBox(item=Email("a"))
        with pytest.raises(SerializationError, match=output):
            ValueCodec(annotation).dumps([value] if annotation == list[ModelBox[Email]] else value)
    with pytest.raises(
        SerializationError, match=r"\.item: .*ModelBox\[Email\]\(...\): ModelBox\[int\] is another"
    ):
        ValueCodec(Box[ModelBox[Email]]).dumps(Box(ModelBox[int](item=1)))


def defined_again():
    @dataclass
    class Mail:
        to: str

    class Model(pydantic.BaseModel):
        to: str

    class Level(enum.Enum):
        ONE = 1

    class Item(NamedTuple):
        to: str

    return Mail, Model, Level, Item


@pytest.mark.parametrize(
    ("old", "new"), list(zip(defined_again(), defined_again(), strict=True)), ids=lambda cls: cls.__name__
)
def test_a_class_that_was_defined_again_is_distinguished_from_the_annotated_class(old, new):
    value = new.ONE if issubclass(new, enum.Enum) else new(to="a")
    for annotation in (old, old | None, old | Email, Box[old]):
        codec = ValueCodec(annotation)
        with pytest.raises(
            SerializationError, match=f"{new.__name__}, but the annotation means another class of"
        ):
            codec.dumps(Box(value) if annotation == Box[old] else value)


class Couple(NamedTuple):
    left: int
    right: int = 7


def test_a_named_tuple_may_have_new_items_with_a_default_and_no_removed_ones():
    def couple(*fields):
        return NamedTuple("Couple", fields)

    output = "3 items arrived, but .*Couple has 2 fields"
    three = couple(("left", int), ("right", int), ("more", int))
    with pytest.raises(DecodeError, match=output):
        moved(three(1, 2, 3), three, Couple)
    one = couple(("left", int))
    assert moved(one(1), one, Couple) == Couple(1, 7)
    other = couple(("first", int), ("second", int))
    assert moved(other(1, 2), other, Couple) == Couple(1, 2)
    with pytest.raises(DecodeError, match=r"do not make a .*Couple: TypeError"):
        moved(one(1), one, three)
    strings = couple(("left", int), ("right", str))
    with pytest.raises(
        DecodeError, match=r"\.right: a value of type str arrived, but the annotation says int"
    ):
        moved(strings(1, "a"), strings, Couple)


def test_swapped_fields_of_a_named_tuple_are_detected(caplog):
    fields = [("right", int), ("left", int)]
    swapped = NamedTuple("Couple", fields)
    with caplog.at_level(logging.WARNING, "asyncq.serializers.records"):
        assert moved(swapped(1, 2), swapped, Couple) == Couple(1, 2)
    assert "Couple" in caplog.text


# -- bounds --

PRIME = 2**61 - 1
COLLIDING = {
    "ints": [n * PRIME for n in range(1, 20_000)],
    "decimals": [Decimal(n * PRIME) for n in range(1, 20_000)],
    "tuples": [(n * PRIME,) for n in range(1, 20_000)],
    "frozensets": [frozenset({n * PRIME}) for n in range(1, 20_000)],
}


@pytest.mark.parametrize("items", COLLIDING.values(), ids=COLLIDING.keys())
@pytest.mark.parametrize("annotation", [None, set[int] | Email, Box[Any]], ids=["plain", "typed", "field"])
@pytest.mark.parametrize("container", [b"\1", b"\2", b"\3"], ids=["set", "frozenset", "keys"])
def test_many_members_with_one_hash_are_refused_before_they_cost_quadratic_time(items, annotation, container):
    packed = [dumps(item) for item in items]
    if container == b"\3":
        packed = [half for item in packed for half in (item, b"\1")]
    head = b"\xdd" + (len(packed) + 1).to_bytes(4) + packb(ExtType(1, container))
    body = head + b"".join(packed)
    if annotation == Box[Any]:
        [_, _, print_, _] = unpacked(ValueCodec(annotation).dumps(Box(0)))
        node = packb([ExtType(1, b"\5"), tag_of(Box, (Any,)), print_])
        body = b"\x94" + node[1:] + b"\x81\xa4item" + body
    before = time.process_time()
    with pytest.raises(DecodeError, match="share one hash"):
        ValueCodec(annotation).loads(body)
    assert time.process_time() - before < 2


def test_a_few_members_may_share_a_hash():
    value = {n * PRIME for n in range(1, MAX_COLLISIONS)}
    assert loads(dumps(value)) == value


@pytest.mark.parametrize(
    "members",
    [
        {(x, y) for x in range(-20, 21) for y in range(-150, 151)},
        {float(2**power) for power in range(1000)},
        {n * PRIME + more for n in range(3) for more in range(1, 1000)},
    ],
    ids=["grid", "powers", "threes"],
)
def test_many_small_groups_of_members_may_share_a_hash(members):
    assert len(members) - len(set(map(hash, members))) > MAX_COLLISIONS
    for value in (members, frozenset(members), dict.fromkeys(members, 1)):
        assert loads(dumps(value)) == value
        arrives(value, set[tuple[int, int]] | frozenset[Any] | dict[Any, Email | int])


def test_a_reader_without_the_classes_gets_sets_and_dicts_of_instances_as_lists():
    frozen = dataclasses.make_dataclass("Frozen", [("n", int)], frozen=True)
    body = ValueCodec(set[frozen]).dumps({frozen(1)})
    assert PLAIN_VALUE.loads(body) == [{"n": 1}]
    assert ValueCodec(list[int]).loads(body) == [{"n": 1}]
    body = ValueCodec(dict[frozen, int]).dumps({frozen(1): 2})
    assert PLAIN_VALUE.loads(body) == [[{"n": 1}, 2]]
    assert ValueCodec(list[int]).loads(body) == [[{"n": 1}, 2]]


def test_large_ints_inside_instances_are_kept_and_lone_surrogates_are_refused():
    arrives(Box([2**70, (-(2**70), {"a": 2**64})]), Box[list[Any]])
    arrives(Linked(2**70), Linked)
    arrives(Pet(lives=2**70), Pet)
    with pytest.raises(SerializationError, match=r"result\[0\]\.to: a str with a lone surrogate"):
        ValueCodec(list[Email]).dumps([Email("\ud800")])


def test_instances_of_the_maximum_depth_are_decoded_equal():
    value = Linked(0)
    for n in range(62):
        value = Linked(n, value)
    arrives(value, Linked)
    with pytest.raises(SerializationError, match="nested more than 64 deep"):
        ValueCodec(Linked).dumps(Linked(0, value))
    assert PLAIN_VALUE.loads(ValueCodec(Linked).dumps(value))["value"] == 61


def test_unknown_class_names_are_not_looked_up():
    node = [ExtType(1, b"\5"), "Counter", b"123456", {"a": 1}]
    assert loads(packb(node)) == {"a": 1}
    with pytest.raises(DecodeError, match="an instance of Counter arrived"):
        ValueCodec(Email).loads(packb(node))
