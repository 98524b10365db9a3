"""How values become bytes, and come back equal and of the same type.

The wire is msgpack, and three rules shape what is laid on top of it:

1. **No names of classes, no pickle.** What msgpack knows travels as it is. The other built-in values
   (datetime, UUID, Decimal ...) travel as extension types out of a fixed table. Enums, dataclasses and models
   travel as the plain tree of their fields; the annotations of the *reader* turn the tree back, so a reader
   without them sees the tree.
2. **No recursion in C.** A tuple, set or dict with other keys than strings is an array whose first item is a
   mark (extension 1, one byte). The obvious layout, an extension that holds packed bytes, makes `unpackb`
   call itself, and each call takes 40 kB of C stack: 64 levels end a thread of 2 MB with a segmentation fault
   (measured). With marks everything is built from the inside out by the one `list_hook` of one call.
3. **No `default` hook.** A msgpack Packer that is entered again from its own hook writes garbage without a
   word. One look decides whether a value is native; only if it is not, a walk builds a tree that is.
"""

from __future__ import annotations

import dataclasses
import inspect
import re
import struct
import sys
import types
import typing
from collections import abc
from datetime import UTC, date, datetime, time, timedelta, timezone
from decimal import Context, Decimal
from enum import Enum
from itertools import chain
from typing import TYPE_CHECKING, Any, Final, Literal, NamedTuple, NoReturn, TypeVar, Union
from uuid import UUID
from zoneinfo import ZoneInfo

from msgpack import ExtType, packb, unpackb

from asyncq.errors import DecodeError, SerializationError

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Mapping

__all__ = [
    "PLAIN_ARGUMENTS",
    "PLAIN_VALUE",
    "ArgumentCodec",
    "Shape",
    "ValueCodec",
    "dumps",
    "loads",
    "shape_of",
]

MAX_DEPTH: Final = 64
"""How many containers deep a value may nest. A value that holds itself is refused by the same rule."""

MAX_DECIMAL_DIGITS: Final = 100

_NoneType = type(None)
_SCALARS: Final = frozenset({_NoneType, bool, int, float, str, bytes})
_STRING: Final = frozenset({str})

# The place of a value, for the error that names it: (place above, how to print the step, the step, containers
# above). A tuple, because one is made per item of every container that is walked, and printed only if
# something is wrong.
_Place = tuple[Any, str, Any, int]
_KEY, _FIELD, _MEMBER = "[{}]", ".{}", "<item {}>"


class _Record(dict[str, Any]):
    """The fields of a dataclass or a model: packed as a dict, but printed `.at` and not `['at']`."""

    __slots__ = ()


class _Choice(NamedTuple):
    """A tree, and which of the readings its annotation offers is meant. A plain reader sees the tree."""

    arm: int
    tree: Any


class _Mark:
    """The first item of an array that stands for something else than a list."""

    __slots__ = ("build", "ext")

    def __init__(self, code: int, build: Callable[[list[Any]], Any]) -> None:
        self.ext = ExtType(_MARK_CODE, bytes([code]))
        self.build = build


def _build_pairs(items: list[Any]) -> dict[Any, Any]:
    if len(items) % 2:
        raise DecodeError("a dict on the wire has a key without a value")
    return dict(zip(items[::2], items[1::2], strict=True))


def _build_choice(items: list[Any]) -> _Choice:
    if len(items) != 2 or type(items[0]) is not int:
        raise DecodeError("a choice on the wire is not an index and a value")
    return _Choice(*items)


_MARK_CODE: Final = 1
_MARK_START: Final = b"\xd4\x01"  # how msgpack begins an extension of one byte with code 1
_TUPLE: Final = _Mark(0, tuple)
_SET: Final = _Mark(1, set)
_FROZENSET: Final = _Mark(2, frozenset)
_PAIRS: Final = _Mark(3, _build_pairs)
_CHOICE: Final = _Mark(4, _build_choice)
_MARKS: Final = {mark.ext.data: mark for mark in (_TUPLE, _SET, _FROZENSET, _PAIRS, _CHOICE)}
_CONTAINERS: Final = frozenset({list, tuple, dict, set, frozenset, _Choice})


# --- errors that name the place -------------------------------------------------------------------


def _path(place: _Place) -> str:
    above, style, step, _ = place
    if above is None:
        return str(step)
    shown = step if style != _KEY else _shown(step)
    return _path(above) + style.format(shown)


def _shown(key: object) -> str:
    # Only exact built-ins: the repr of anything else is foreign code, and may raise or go on for ever.
    if type(key) not in _SCALARS:
        return f"<{_name(type(key))}>"
    text = repr(key)
    return text if len(text) <= 80 else text[:77] + "..."


def _name(cls: type) -> str:
    return cls.__qualname__ if cls.__module__ == "builtins" else f"{cls.__module__}.{cls.__qualname__}"


def _refuse(place: _Place, reason: str) -> NoReturn:
    raise SerializationError(f"{_path(place)}: {reason}")


def _check_depth(place: _Place) -> int:
    if place[3] >= MAX_DEPTH:
        top = place
        while top[0] is not None and top[0][0] is not None:
            top = top[0]
        _refuse(top, f"nested more than {MAX_DEPTH} deep, or it holds itself. Send it flat, or in parts")
    return place[3] + 1


def _refuse_type(value: object, place: _Place) -> NoReturn:
    cls = type(value)
    if isinstance(value, Enum):
        cure = f"Name {cls.__qualname__} in the task's annotations, or send its .value"
    elif dataclasses.is_dataclass(cls) or _is_pydantic(cls) or hasattr(cls, "_fields"):
        cure = f"Name {cls.__qualname__} itself in the task's annotations, or send a dict or a tuple"
    else:
        base = next((base for base in cls.__mro__ if base in _ENCODERS), None)
        cure = (
            f"It would lose its class: send a plain {base.__qualname__}"
            if base is not None
            else "Send built-in values, or a dataclass, enum or model that the task's annotations name"
        )
    _refuse(place, f"a value of type {_name(cls)} cannot travel. {cure}")


# --- from values to a tree that msgpack keeps as it is --------------------------------------------


def _is_native(values: Collection[Any], room: int) -> bool:
    """Whether msgpack keeps all of `values` as they are. `room` is how many more containers may nest.

    Range of ints and surrogates in strings are not looked at: `packb` does, in C.
    """
    if _SCALARS.issuperset(map(type, values)):
        return True
    if not room:
        return False
    for value in values:
        kind = type(value)
        if kind in _SCALARS:
            continue
        if kind is list:
            inner = value
        elif (kind is dict or kind is _Record) and _STRING.issuperset(map(type, value)):
            inner = value.values()
        else:
            return False
        if not _is_native(inner, room - 1):
            return False
    return True


def _to_wire(value: Any, place: _Place) -> Any:
    encoder = _ENCODERS.get(type(value))
    return _refuse_type(value, place) if encoder is None else encoder(value, place)


def _items(values: Iterable[Any], place: _Place, style: str = _KEY) -> list[Any]:
    depth = _check_depth(place)
    return [_to_wire(value, (place, style, index, depth)) for index, value in enumerate(values)]


def _wire_dict(value: dict[Any, Any], place: _Place) -> Any:
    depth = _check_depth(place)
    if _STRING.issuperset(map(type, value)):
        style = _FIELD if type(value) is _Record else _KEY
        return {
            _wire_str(key, (place, _KEY, key, depth)): _to_wire(item, (place, style, key, depth))
            for key, item in value.items()
        }
    flat = [_PAIRS.ext]
    for key, item in value.items():
        flat += (
            _to_wire(key, (place, ".keys()<{}>", _shown(key), depth)),
            _to_wire(item, (place, _KEY, key, depth)),
        )
    return flat


def _wire_choice(value: _Choice, place: _Place) -> Any:
    above, style, step, _ = place
    return [_CHOICE.ext, value.arm, _to_wire(value.tree, (above, style, step, _check_depth(place)))]


def _wire_str(value: str, place: _Place) -> str:
    if not value.isascii():
        try:
            value.encode()
        except UnicodeEncodeError:
            _refuse(
                place,
                "a str with a lone surrogate has no UTF-8 form. Send bytes, or .encode(errors='replace') it",
            )
    return value


def _wire_int(value: int, place: _Place) -> Any:  # noqa: ARG001  one signature for the whole table
    if -(2**63) <= value < 2**64:
        return value
    return ExtType(2, value.to_bytes(value.bit_length() // 8 + 1, "big", signed=True))


_DATETIME: Final = struct.Struct(">HBBBBBIB")
_DATE: Final = struct.Struct(">HBB")
_TIME: Final = struct.Struct(">BBBIB")
_DELTA: Final = struct.Struct(">iii")
_OFFSET: Final = struct.Struct(">q")
_MICROSECOND: Final = timedelta(microseconds=1)
_UTC_ZONE: Final = b"o" + _OFFSET.pack(0)


def _wire_datetime(value: datetime, place: _Place) -> ExtType:
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
    return ExtType(3, fields + _wire_zone(value.tzinfo, place))


def _wire_time(value: time, place: _Place) -> ExtType:
    fields = _TIME.pack(value.hour, value.minute, value.second, value.microsecond, value.fold)
    return ExtType(5, fields + _wire_zone(value.tzinfo, place))


def _wire_zone(zone: Any, place: _Place) -> bytes:
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
    _refuse(
        place,
        f"a time zone of type {_name(type(zone))} cannot travel. Use zoneinfo.ZoneInfo or a fixed timezone",
    )


def _wire_decimal(value: Decimal, place: _Place) -> ExtType:
    digits = len(value.as_tuple().digits)
    if digits > MAX_DECIMAL_DIGITS:
        _refuse(
            place,
            f"a Decimal of {digits} digits; {MAX_DECIMAL_DIGITS} can travel. Round it, or send it as str",
        )
    return ExtType(8, str(value).encode())


# The one table of what can travel; exact types, so that a subclass is never flattened in silence.
_ENCODERS: Final[dict[type, Callable[[Any, _Place], Any]]] = {
    _NoneType: lambda value, _: value,
    bool: lambda value, _: value,
    float: lambda value, _: value,
    bytes: lambda value, _: value,
    int: _wire_int,
    str: _wire_str,
    list: _items,
    dict: _wire_dict,
    _Record: _wire_dict,
    _Choice: _wire_choice,
    tuple: lambda value, place: [_TUPLE.ext, *_items(value, place)],
    set: lambda value, place: [_SET.ext, *_items(value, place, _MEMBER)],
    frozenset: lambda value, place: [_FROZENSET.ext, *_items(value, place, _MEMBER)],
    datetime: _wire_datetime,
    date: lambda value, _: ExtType(4, _DATE.pack(value.year, value.month, value.day)),
    time: _wire_time,
    timedelta: lambda value, _: ExtType(6, _DELTA.pack(value.days, value.seconds, value.microseconds)),
    UUID: lambda value, _: ExtType(7, value.bytes),
    Decimal: _wire_decimal,
}


# --- and back -------------------------------------------------------------------------------------

# A zone's name reaches the file system: letters and single slashes only, nothing that leaves the zone folder.
_ZONE_KEY: Final = re.compile(r"[A-Za-z0-9_+\-]{1,40}(/[A-Za-z0-9_+\-]{1,40}){0,3}")
# A context of our own: the caller's may not trap a malformed number, and would give NaN for it.
_DECIMAL_CONTEXT: Final = Context()


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


_DECODERS: Final[dict[int, Callable[[bytes], Any]]] = {
    2: lambda data: int.from_bytes(data, "big", signed=True),
    3: _read_datetime,
    4: lambda data: date(*_DATE.unpack(data)),
    5: _read_time,
    6: lambda data: timedelta(*_DELTA.unpack(data)),
    7: lambda data: UUID(bytes=data),
    8: _read_decimal,
}


def _leaf(code: int, data: bytes) -> Any:
    decoder = _DECODERS.get(code)
    if decoder is None:
        raise DecodeError(f"unknown extension type {code}: not ours, or from a newer version of asyncq")
    return decoder(data)


class _Reader:
    """The hooks for one message that holds marks: each array is built when msgpack has its items."""

    __slots__ = ("typed", "unused")

    def __init__(self, *, typed: bool) -> None:
        self.typed = typed
        self.unused = 0  # marks read but not the first item of an array: they must not reach anybody

    def ext(self, code: int, data: bytes) -> Any:
        if code != _MARK_CODE:
            return _leaf(code, data)
        mark = _MARKS.get(data)
        if mark is None:
            raise DecodeError("unknown kind of container: not ours, or from a newer version of asyncq")
        self.unused += 1
        return mark

    def array(self, items: list[Any]) -> Any:
        mark = items[0] if items else None
        if type(mark) is not _Mark:
            return items
        self.unused -= 1
        del items[0]
        built = mark.build(items)
        return built.tree if type(built) is _Choice and not self.typed else built


# What msgpack, struct, datetime, decimal, zoneinfo (it reads files) and hashing make of garbage.
_GARBAGE: Final = (ValueError, TypeError, LookupError, ArithmeticError, struct.error, OSError, RecursionError)
# Every byte that cannot open a container, to be deleted before the rest is counted.
_NO_CONTAINER: Final = bytes(
    byte for byte in range(256) if not (0x80 <= byte <= 0x9F or 0xDC <= byte <= 0xDF)
)


def _decode(data: bytes, *, typed: bool = False, limit: int = MAX_DEPTH) -> Any:
    try:
        if _MARK_START in data:
            reader = _Reader(typed=typed)
            value = unpackb(
                data, raw=False, strict_map_key=True, timestamp=3, ext_hook=reader.ext, list_hook=reader.array
            )
            stray = reader.unused
        else:
            stray = 0
            value = unpackb(data, raw=False, strict_map_key=True, timestamp=3, ext_hook=_leaf)
    except DecodeError:
        raise
    except _GARBAGE as error:
        raise DecodeError(f"not a message of asyncq: {error or type(error).__name__}") from error
    if stray:
        raise DecodeError("a mark stands where none belongs")
    # msgpack itself stops at 1024. The walk is paid only by messages with more openings of containers than
    # the limit.
    if len(data) > limit and len(data.translate(None, _NO_CONTAINER)) > limit and _is_deeper(value, limit):
        raise DecodeError(f"nested more than {MAX_DEPTH} deep")
    return value


def _is_deeper(value: Any, limit: int) -> bool:
    level = [value]
    for _ in range(limit + 1):
        boxes = [item for item in level if type(item) in _CONTAINERS and item]
        if not boxes:
            return False
        level = []
        for box in boxes:
            level += box
            if type(box) is dict:
                level += box.values()
    return True


def _pack(tree: Any, path: str) -> bytes:
    try:
        return packb(tree)  # type: ignore[no-any-return]
    except ValueError as error:  # all that is left here: a part of 4 GiB or more
        raise SerializationError(f"{path}: {error}") from error


def dumps(value: Any, *, path: str = "value") -> bytes:
    """Packs a value of built-in types.

    None, bool, int, float, str, bytes, list, tuple, dict (any keys), set, frozenset, datetime, date, time,
    timedelta, UUID and Decimal come back from `loads` equal and of the same type, at any depth down to 64.

    Args:
        value: what to pack.
        path: what the value is called in an error message.

    Raises:
        SerializationError: something in the value cannot travel; the message names where, and how to mend it.

    Example:
        >>> loads(dumps({"at": (1, 2)}))
        {'at': (1, 2)}
    """
    if _is_native((value,), MAX_DEPTH):
        try:
            return packb(value)  # type: ignore[no-any-return]
        except (OverflowError, ValueError):
            pass  # an int beyond 64 bits, which the walk handles, or a lone surrogate, which it names
    return _pack(_to_wire(value, (None, "", path, 0)), path)


def loads(data: bytes) -> Any:
    """Gives back what `dumps` packed; values of annotated classes come as plain trees.

    Bound the size of `data` before: one byte can become 72 bytes of memory.

    Raises:
        DecodeError: `data` is anything else than one whole message. No other exception leaves this function.
    """
    return _decode(data)


# --- shapes: what annotations add -----------------------------------------------------------------


class Shape:
    """What an annotation adds to the plain codec: how classes become a plain tree, and a tree becomes them.

    Every shape lets plain values it does not recognise pass untouched in both directions, as a direct call
    would.
    """

    __slots__ = ()

    def accepts(self, value: Any) -> bool:
        """Whether `value` is of exactly the annotated type; this picks the arm of a union."""
        raise NotImplementedError

    def dump(self, value: Any, place: _Place) -> Any:
        """Turns the annotated classes in `value` into plain trees."""
        raise NotImplementedError

    def load(self, tree: Any) -> Any:
        """Turns plain trees back into the annotated classes."""
        raise NotImplementedError


def _dump(shape: Shape | None, value: Any, place: _Place) -> Any:
    return value if shape is None else shape.dump(value, place)


def _load(shape: Shape | None, tree: Any) -> Any:
    return _bare(tree) if shape is None else shape.load(tree)


def _bare(tree: Any) -> Any:
    """The tree without choices. One stands where no union is annotated if the writer's hints differ."""
    kind = type(tree)
    if kind is _Choice:
        return _bare(tree.tree)
    if kind is dict:
        return {_bare(key): _bare(item) for key, item in tree.items()}
    if kind not in _CONTAINERS or _SCALARS.issuperset(map(type, tree)):
        return tree
    return typing.cast("Any", kind)(map(_bare, tree))


def _opened(tree: Any) -> Any:
    return tree.tree if type(tree) is _Choice else tree


class _ClassShape(Shape):
    """A class that is itself the annotation."""

    __slots__ = ("cls",)

    def __init__(self, cls: Any) -> None:
        self.cls = cls

    def compile(self, _hints: Mapping[str, Any], seen: dict[Any, Shape | None], /) -> None:
        """Compiles the fields. Apart from `__init__`, because a field may name the class again."""

    def accepts(self, value: Any) -> bool:
        return type(value) is self.cls

    def is_other(self, value: Any, place: _Place) -> bool:
        """Whether this is a plain value to be left alone; a subclass of the class is an error."""
        if type(value) is self.cls:
            return False
        if isinstance(value, self.cls):
            _refuse(
                place,
                f"a value of type {_name(type(value))}, but the annotation says exactly {_name(self.cls)},"
                " and a subclass would come back as its base."
                f" Annotate {self.cls.__qualname__} | {type(value).__qualname__}",
            )
        return True

    def make(self, build: Callable[[], Any]) -> Any:
        try:
            return build()
        except Exception as error:  # the class's own code decides what it refuses, and how
            raise DecodeError(f"the fields received do not make a {_name(self.cls)}: {error}") from error


class _EnumShape(_ClassShape):
    """An enum, by value. A plain value that is no member's passes."""

    __slots__ = ()

    def dump(self, value: Any, place: _Place) -> Any:
        return value if self.is_other(value, place) else value.value

    def load(self, tree: Any) -> Any:
        tree = _bare(tree)
        try:
            return self.cls(tree)
        except (ValueError, TypeError, LookupError):  # what Enum and a careless `_missing_` say to a stranger
            return tree


class _DataclassShape(_ClassShape):
    """A dataclass, as a dict of its fields. A plain dict of fields is made into it too, as FastAPI does."""

    __slots__ = ("fields", "reason")

    def __init__(self, cls: Any) -> None:
        super().__init__(cls)
        self.fields: dict[str, Shape | None] = {}
        self.reason = ""

    def compile(self, hints: Mapping[str, Any], seen: dict[Any, Shape | None], /) -> None:
        for field in dataclasses.fields(self.cls):
            if not field.init:
                self.reason = (
                    f"its field {field.name!r} has init=False, so it cannot be made again from its fields"
                )
            self.fields[field.name] = _compile(hints.get(field.name), seen)
        needed = inspect.signature(self.cls).parameters.values()
        for parameter in needed:
            if parameter.name not in self.fields and parameter.default is parameter.empty:
                self.reason = f"its __init__ needs {parameter.name!r}, which is not a field"

    def dump(self, value: Any, place: _Place) -> Any:
        if self.is_other(value, place):
            return value
        if self.reason:
            _refuse(place, f"a {_name(self.cls)} cannot travel: {self.reason}. Send its fields")
        depth = _check_depth(place)
        return _Record(
            (name, _dump(shape, getattr(value, name), (place, _FIELD, name, depth)))
            for name, shape in self.fields.items()
        )

    def load(self, tree: Any) -> Any:
        tree = _opened(tree)
        if type(tree) is not dict:
            return _bare(tree)
        fields = {name: _load(self.fields.get(name), item) for name, item in tree.items()}
        return self.make(lambda: self.cls(**fields))


class _ModelShape(_ClassShape):
    """A pydantic model: fields that have a shape by that shape, the others as `model_dump` gives them."""

    __slots__ = ("fields", "whole")

    def __init__(self, cls: Any) -> None:
        super().__init__(cls)
        self.fields: dict[str, Shape] = {}
        self.whole = False

    def compile(self, _hints: Mapping[str, Any], seen: dict[Any, Shape | None], /) -> None:
        # A model that serializes itself decides about its whole tree.
        self.whole = (
            bool(self.cls.__pydantic_decorators__.model_serializers) or self.cls.__pydantic_root_model__
        )
        if self.whole:
            return
        for name, field in self.cls.model_fields.items():
            shape = _compile(field.annotation, seen)
            if shape is not None:
                self.fields[name] = shape

    def dump(self, value: Any, place: _Place) -> Any:
        if self.is_other(value, place):
            return value
        depth = _check_depth(place)
        try:
            # By name and not by alias, because an alias for writing need not be one for reading.
            tree = value.model_dump(
                mode="python", round_trip=True, by_alias=False, warnings="error", exclude=set(self.fields)
            )
        except Exception as error:  # noqa: BLE001  serializers of the model are foreign code
            _refuse(place, f"{_name(self.cls)}.model_dump() failed: {error}")
        if self.whole:
            return tree
        shaped = (
            (name, shape.dump(getattr(value, name), (place, _FIELD, name, depth)))
            for name, shape in self.fields.items()
        )
        return _Record(chain(tree.items(), shaped))

    def load(self, tree: Any) -> Any:
        tree = _opened(tree)
        if type(tree) is not dict and not self.whole:
            return _bare(tree)
        if self.whole:
            return self.make(lambda: self.cls.model_validate(_bare(tree), by_name=True, by_alias=False))
        fields = {name: _load(self.fields.get(name), item) for name, item in tree.items()}
        return self.make(lambda: self.cls.model_validate(fields, by_name=True, by_alias=False))


class _NamedTupleShape(_ClassShape):
    """A NamedTuple, as the tuple it is."""

    __slots__ = ("fields",)

    def __init__(self, cls: Any) -> None:
        super().__init__(cls)
        self.fields: tuple[tuple[str, Shape | None], ...] = ()

    def compile(self, hints: Mapping[str, Any], seen: dict[Any, Shape | None], /) -> None:
        self.fields = tuple((name, _compile(hints.get(name), seen)) for name in self.cls._fields)

    def dump(self, value: Any, place: _Place) -> Any:
        if self.is_other(value, place):
            return value
        depth = _check_depth(place)
        return tuple(
            _dump(shape, item, (place, _FIELD, name, depth))
            for (name, shape), item in zip(self.fields, value, strict=True)
        )

    def load(self, tree: Any) -> Any:
        tree = _opened(tree)
        if type(tree) not in (tuple, list) or len(tree) > len(self.fields):
            return _bare(tree)
        items = [_load(shape, item) for (_, shape), item in zip(self.fields, tree, strict=False)]
        return self.make(lambda: self.cls(*items))


class _TypedDictShape(Shape):
    """A TypedDict: a dict, of which some values have a shape."""

    __slots__ = ("fields", "required")

    def __init__(self) -> None:
        self.fields: dict[str, Shape | None] = {}
        self.required: frozenset[str] = frozenset()

    def accepts(self, value: Any) -> bool:
        return type(value) is dict and self.required <= value.keys() <= self.fields.keys()

    def dump(self, value: Any, place: _Place) -> Any:
        if type(value) is not dict:
            return value
        depth = _check_depth(place)
        return {
            key: _dump(self.fields.get(key), item, (place, _KEY, key, depth)) for key, item in value.items()
        }

    def load(self, tree: Any) -> Any:
        tree = _opened(tree)
        if type(tree) is not dict:
            return _bare(tree)
        return {_bare(key): _load(self.fields.get(key), item) for key, item in tree.items()}


class _ItemsShape(Shape):
    """A list, tuple, set or frozenset, whose items have a shape; whatever of these is given comes back."""

    __slots__ = ("item", "kinds")

    def __init__(self, item: Shape, kinds: tuple[type, ...]) -> None:
        self.item = item
        self.kinds = kinds

    def accepts(self, value: Any) -> bool:
        return type(value) in self.kinds and all(map(self.item.accepts, value))

    def dump(self, value: Any, place: _Place) -> Any:
        kind = type(value)
        if kind not in _SEQUENCES and kind not in _SETS:
            return value
        depth = _check_depth(place)
        style = _KEY if kind in _SEQUENCES else _MEMBER
        items = [self.item.dump(item, (place, style, index, depth)) for index, item in enumerate(value)]
        if kind in _SETS:  # not a set of trees: those of dataclasses are dicts, which cannot be members
            return _Choice(_SETS.index(kind), items)
        return items if kind is list else tuple(items)

    def load(self, tree: Any) -> Any:
        index, tree = tree if type(tree) is _Choice else (-1, tree)
        kind = type(tree)
        if kind not in _SEQUENCES and kind not in _SETS:
            return _bare(tree)
        items = [self.item.load(item) for item in tree]
        if 0 <= index < len(_SETS):
            kind = _SETS[index]
        return _hashed(lambda: kind(items))


_SEQUENCES: Final = (list, tuple)
_SETS: Final = (set, frozenset)


def _hashed(build: Callable[[], Any]) -> Any:
    try:
        return build()
    except TypeError as error:
        raise DecodeError(f"a key or member received is not hashable: {error}") from error


class _TupleShape(Shape):
    """A tuple with a shape per place, as in `tuple[Point, int]`."""

    __slots__ = ("items",)

    def __init__(self, items: tuple[Shape | None, ...]) -> None:
        self.items = items

    def accepts(self, value: Any) -> bool:
        return (
            type(value) is tuple
            and len(value) == len(self.items)
            and all(
                shape is None or shape.accepts(item) for shape, item in zip(self.items, value, strict=True)
            )
        )

    def dump(self, value: Any, place: _Place) -> Any:
        kind = type(value)
        if kind not in _SEQUENCES or len(value) != len(self.items):
            return value
        depth = _check_depth(place)
        return kind(
            _dump(shape, item, (place, _KEY, index, depth))
            for index, (shape, item) in enumerate(zip(self.items, value, strict=True))
        )

    def load(self, tree: Any) -> Any:
        tree = _opened(tree)
        kind = type(tree)
        if kind not in _SEQUENCES or len(tree) != len(self.items):
            return _bare(tree)
        return kind(_load(shape, item) for shape, item in zip(self.items, tree, strict=True))


class _MappingShape(Shape):
    """A dict whose keys or values have a shape."""

    __slots__ = ("key", "value")

    def __init__(self, key: Shape | None, value: Shape | None) -> None:
        self.key = key
        self.value = value

    def accepts(self, value: Any) -> bool:
        return (
            type(value) is dict
            and (self.key is None or all(map(self.key.accepts, value)))
            and (self.value is None or all(map(self.value.accepts, value.values())))
        )

    def dump(self, value: Any, place: _Place) -> Any:
        if type(value) is not dict:
            return value
        depth = _check_depth(place)
        tree = {}
        for key, item in value.items():
            wire_key = _dump(self.key, key, (place, ".keys()<{}>", _shown(key), depth))
            if type(wire_key) is _Record:
                _refuse(place, f"a {_name(type(key))} cannot be a key on the wire. Send a list of pairs")
            if wire_key in tree:
                _refuse(place, f"two keys are both {_shown(wire_key)} on the wire. Send a list of pairs")
            tree[wire_key] = _dump(self.value, item, (place, _KEY, key, depth))
        return tree

    def load(self, tree: Any) -> Any:
        tree = _opened(tree)
        if type(tree) is not dict:
            return _bare(tree)
        return _hashed(lambda: {_load(self.key, key): _load(self.value, item) for key, item in tree.items()})


class _UnionShape(Shape):
    """A union of which at least one arm has a shape; which arm was meant travels with the value."""

    __slots__ = ("arms", "plain")

    def __init__(self, arms: tuple[Shape | None, ...], plain: frozenset[Any]) -> None:
        self.arms = arms
        self.plain = plain

    def accepts(self, value: Any) -> bool:
        return type(value) in self.plain or any(arm is not None and arm.accepts(value) for arm in self.arms)

    def dump(self, value: Any, place: _Place) -> Any:
        above, style, step, _ = place
        for index, arm in enumerate(self.arms):
            if arm is not None and arm.accepts(value):
                return _Choice(index, arm.dump(value, (above, style, step, _check_depth(place))))
        return value

    def load(self, tree: Any) -> Any:
        if type(tree) is not _Choice or not 0 <= tree.arm < len(self.arms):
            return _bare(tree)
        return _load(self.arms[tree.arm], tree.tree)


# --- from annotations to shapes -------------------------------------------------------------------

_ITEM_KINDS: Final[dict[Any, tuple[type, ...]]] = {
    list: (list,),
    set: (set,),
    frozenset: (frozenset,),
    abc.Sequence: _SEQUENCES,
    abc.MutableSequence: (list,),
    abc.Set: _SETS,
    abc.MutableSet: (set,),
    abc.Collection: (*_SEQUENCES, *_SETS),
    abc.Iterable: (*_SEQUENCES, *_SETS),
}
_MAPPINGS: Final = frozenset({dict, abc.Mapping, abc.MutableMapping})
_WRAPPERS: Final = frozenset(
    getattr(typing, name)
    for name in ("Annotated", "Final", "ClassVar", "Required", "NotRequired", "ReadOnly")
    if hasattr(typing, name)
)


def shape_of(annotation: Any) -> Shape | None:
    """Compiles an annotation into a `Shape`, or None if it adds nothing to the plain codec.

    Enums, dataclasses, pydantic models, NamedTuples and TypedDicts have shapes, and so have lists, tuples,
    sets, dicts, unions and generic aliases of them. Built-in types, `Any`, strings and whatever is not
    understood have none.

    Example:
        >>> shape_of(list[int]) is None
        True
    """
    return _compile(annotation, {})


def _compile(annotation: Any, seen: dict[Any, Shape | None]) -> Shape | None:
    annotation = _unwrapped(annotation)
    origin, args = typing.get_origin(annotation), typing.get_args(annotation)
    if origin is Union or origin is types.UnionType:
        return _compile_union(args, seen)
    if origin is Literal:
        return _compile(Union[tuple({type(value) for value in args})], seen)  # noqa: UP007  built at run time
    if origin is tuple:
        return _compile_tuple(args, seen)
    if origin in _ITEM_KINDS:
        item = _compile(args[0], seen)
        return None if item is None else _ItemsShape(item, _ITEM_KINDS[origin])
    if origin in _MAPPINGS:
        key, value = (_compile(arg, seen) for arg in args)
        return None if key is None and value is None else _MappingShape(key, value)
    cls = annotation if origin is None else origin
    return _compile_class(cls, args, seen) if isinstance(cls, type) else None


def _unwrapped(annotation: Any) -> Any:
    """The annotation below Annotated, Required, NewType, `type X = ...` and the like."""
    for _ in range(MAX_DEPTH):  # `type X = X` exists
        if typing.get_origin(annotation) in _WRAPPERS:
            annotation = typing.get_args(annotation)[0]
        elif isinstance(annotation, typing.NewType):
            annotation = annotation.__supertype__
        elif (
            type(annotation).__name__ == "TypeAliasType"
        ):  # typing's from Python 3.12 on, typing_extensions' before
            annotation = annotation.__value__
        else:
            return annotation
    return None


def _compile_union(args: tuple[Any, ...], seen: dict[Any, Shape | None]) -> Shape | None:
    arms = tuple(_compile(arg, seen) for arg in args)
    shaped = [arm for arm in arms if arm is not None]
    if not shaped:
        return None
    plain = frozenset(
        typing.get_origin(arg) or arg for arg, arm in zip(args, arms, strict=True) if arm is None
    )
    (only, *more) = shaped
    # Optional[X] needs no choice: None passes every shape untouched. Except an enum with a member of that
    # value.
    if (
        not more
        and plain == {_NoneType}
        and not (isinstance(only, _EnumShape) and only.load(None) is not None)
    ):
        return only
    return _UnionShape(arms, plain)


def _compile_tuple(args: tuple[Any, ...], seen: dict[Any, Shape | None]) -> Shape | None:
    if len(args) == 2 and args[1] is Ellipsis:
        item = _compile(args[0], seen)
        return None if item is None else _ItemsShape(item, (tuple,))
    items = tuple(_compile(arg, seen) for arg in args)
    return _TupleShape(items) if any(item is not None for item in items) else None


def _compile_class(cls: Any, args: tuple[Any, ...], seen: dict[Any, Shape | None]) -> Shape | None:
    key = (cls, args)
    try:
        if key in seen:  # a class whose fields name the class again
            return seen[key]
    except TypeError:  # an argument of a generic alias that cannot be hashed
        return None
    if typing.is_typeddict(cls):
        return _compile_typeddict(cls, args, seen)
    shape = _class_shape(cls)
    if shape is not None:
        seen[key] = shape
        shape.compile(_hints(cls, args), seen)
    return shape


def _class_shape(cls: Any) -> _ClassShape | None:
    if issubclass(cls, Enum):
        return _EnumShape(cls)
    if _is_pydantic(cls):
        return _ModelShape(cls)
    if dataclasses.is_dataclass(cls):
        return _DataclassShape(cls)
    if issubclass(cls, tuple) and hasattr(cls, "_fields"):
        return _NamedTupleShape(cls)
    return None


def _compile_typeddict(cls: Any, args: tuple[Any, ...], seen: dict[Any, Shape | None]) -> Shape | None:
    seen[cls, args] = shape = _TypedDictShape()
    shape.required = cls.__required_keys__
    shape.fields = {name: _compile(hint, seen) for name, hint in _hints(cls, args).items()}
    if all(field is None for field in shape.fields.values()):
        seen[cls, args] = None
        return None
    return shape


def _is_pydantic(cls: type) -> bool:
    # A class can only derive from BaseModel if pydantic is imported, so this never imports it.
    pydantic = sys.modules.get("pydantic")
    return pydantic is not None and issubclass(cls, pydantic.BaseModel)


def _hints(owner: Any, args: tuple[Any, ...] = ()) -> dict[str, Any]:
    """The resolved annotations of a function or class, without those that cannot be resolved."""
    try:
        hints = typing.get_type_hints(owner, include_extras=True)
    except Exception:  # noqa: BLE001  evaluating an annotation may raise anything
        hints = _hints_one_by_one(owner)
    given = dict(zip(getattr(owner, "__parameters__", ()), args, strict=False))
    return {name: _substitute(hint, given) for name, hint in hints.items()} if given else hints


def _hints_one_by_one(owner: Any) -> dict[str, Any]:
    hints: dict[str, Any] = {}
    for part in reversed(owner.__mro__) if isinstance(owner, type) else [inspect.unwrap(owner)]:
        names = getattr(part, "__globals__", None) or vars(sys.modules.get(part.__module__, typing))
        for name, annotation in _raw_annotations(part).items():
            single = types.SimpleNamespace(__annotations__={name: annotation})
            try:
                hints |= typing.get_type_hints(single, names, include_extras=True)
            except Exception:  # noqa: BLE001  evaluating an annotation may raise anything
                hints.pop(name, None)
    return hints


def _raw_annotations(owner: Any) -> Mapping[str, Any]:
    try:
        return inspect.get_annotations(owner)
    except NameError:  # from Python 3.14 on they are evaluated here, all or none
        return {}


def _substitute(hint: Any, given: Mapping[Any, Any]) -> Any:
    if isinstance(hint, TypeVar):
        return given.get(hint, hint)
    parameters = getattr(hint, "__parameters__", ())
    if isinstance(hint, type) or not parameters:
        return hint
    return hint[tuple(given.get(parameter, parameter) for parameter in parameters)]


# --- codecs of a task -----------------------------------------------------------------------------


class _Parameters(NamedTuple):
    """The shapes of a function's parameters: by position, for `*args`, by name, for `**kwargs`."""

    positional: tuple[Shape | None, ...]
    rest: Shape | None
    named: dict[str, Shape]
    others: Shape | None

    def at(self, index: int) -> Shape | None:
        return self.positional[index] if index < len(self.positional) else self.rest

    def of(self, name: str) -> Shape | None:
        return self.named.get(name, self.others)


def _parameters_of(function: Callable[..., Any]) -> _Parameters | None:
    hints = _hints(function)
    shapes = {name: shape_of(hint) for name, hint in hints.items()}
    positional: list[Shape | None] = []
    named: dict[str, Shape] = {}
    rest = others = None
    for name, parameter in inspect.signature(function).parameters.items():
        shape = shapes.get(name)
        if parameter.kind is parameter.VAR_POSITIONAL:
            rest = shape
        elif parameter.kind is parameter.VAR_KEYWORD:
            others = shape
        else:
            if parameter.kind is not parameter.KEYWORD_ONLY:
                positional.append(shape)
            if parameter.kind is not parameter.POSITIONAL_ONLY and shape is not None:
                named[name] = shape
    if not (rest or others or named or any(positional)):
        return None
    return _Parameters(tuple(positional), rest, named, others)


_ARGS: Final = (None, "", "args", 0)
_KWARGS: Final = (None, "", "kwargs", 0)


class ArgumentCodec:
    """Packs the arguments of a task, and unpacks them by the annotations of its function.

    The annotations are resolved at first use, so that they may name what is defined later. One that cannot be
    resolved adds nothing.

    Where a dataclass, model or NamedTuple is annotated and a plain dict (tuple) of its fields arrives, the
    function gets the class: a caller that knows the task by name only sends plain trees. Other plain values
    pass as they are.

    Args:
        function: the task's function, or None for a task known by name only.

    Example:
        >>> codec = ArgumentCodec(None)
        >>> codec.loads(codec.dumps((1, 2), {"by": 3}))
        ([1, 2], {'by': 3})
    """

    __slots__ = ("_function", "_parameters")

    def __init__(self, function: Callable[..., Any] | None) -> None:
        self._function = function
        self._parameters: _Parameters | None = None

    def dumps(self, args: tuple[Any, ...] | list[Any], kwargs: dict[str, Any]) -> bytes:
        """Packs positional and keyword arguments.

        Raises:
            SerializationError: something cannot travel; the message says where, as in
            `kwargs['items'][3].at`.
        """
        function = self._function
        if function is not None:
            self._resolve(function)
        if self._parameters is not None:
            args, kwargs = self._shaped(self._parameters, args, kwargs)
        if (
            _is_native(args, MAX_DEPTH)
            and _STRING.issuperset(map(type, kwargs))
            and _is_native(kwargs.values(), MAX_DEPTH)
        ):
            try:
                return packb((args, kwargs))  # type: ignore[no-any-return]
            except (OverflowError, ValueError):
                pass  # an int beyond 64 bits, which the walk handles, or a lone surrogate, which it names
        for name in kwargs:
            if type(name) is not str:
                raise SerializationError(f"kwargs: the name {_shown(name)} of an argument is not a str")
        tree = (
            [_to_wire(value, (_ARGS, _KEY, index, 0)) for index, value in enumerate(args)],
            {
                _wire_str(name, _KWARGS): _to_wire(value, (_KWARGS, _KEY, name, 0))
                for name, value in kwargs.items()
            },
        )
        return _pack(tree, "args")

    def loads(self, data: bytes) -> tuple[list[Any], dict[str, Any]]:
        """Gives back positional and keyword arguments, ready for `function(*args, **kwargs)`.

        Raises:
            DecodeError: `data` is not packed arguments, or a dict does not fit the class it is annotated
            with.
        """
        function = self._function
        if function is not None:
            self._resolve(function)
        shapes = self._parameters
        tree = _decode(data, typed=shapes is not None, limit=MAX_DEPTH + 2)  # the pair and its two halves
        if type(tree) is not list or len(tree) != 2:
            raise DecodeError("not the arguments of a call")
        args, kwargs = tree
        if type(args) is not list or type(kwargs) is not dict or not _STRING.issuperset(map(type, kwargs)):
            raise DecodeError("not the arguments of a call")
        if shapes is not None:
            args = [_load(shapes.at(index), value) for index, value in enumerate(args)]
            kwargs = {name: _load(shapes.of(name), value) for name, value in kwargs.items()}
        return args, kwargs

    def _resolve(self, function: Callable[..., Any]) -> None:
        self._parameters = _parameters_of(function)
        self._function = (
            None  # last, so that another thread never sees "resolved" before the shapes are there
        )

    @staticmethod
    def _shaped(
        shapes: _Parameters, args: tuple[Any, ...] | list[Any], kwargs: dict[str, Any]
    ) -> tuple[list[Any], dict[str, Any]]:
        return (
            [_dump(shapes.at(index), value, (_ARGS, _KEY, index, 0)) for index, value in enumerate(args)],
            {name: _dump(shapes.of(name), value, (_KWARGS, _KEY, name, 0)) for name, value in kwargs.items()},
        )


class ValueCodec:
    """Packs one value, and unpacks it by an annotation.

    Args:
        annotation: a resolved annotation; None, `Any` or a built-in type for the plain codec.

    Example:
        >>> codec = ValueCodec(tuple[int, int])
        >>> codec.loads(codec.dumps((1, 2)))
        (1, 2)
    """

    __slots__ = ("_function", "_shape")

    def __init__(self, annotation: Any = None) -> None:
        self._function: Callable[..., Any] | None = None
        self._shape = shape_of(annotation)

    @classmethod
    def of_result(cls, function: Callable[..., Any]) -> ValueCodec:
        """The codec of what `function` returns; the annotation is resolved at first use."""
        codec = cls()
        codec._function = function
        return codec

    def dumps(self, value: Any, path: str = "result") -> bytes:
        """Packs the value.

        Raises:
            SerializationError: something in it cannot travel; the message says where, beginning with `path`.
        """
        function = self._function
        if function is not None:
            self._resolve(function)
        if self._shape is not None:
            value = self._shape.dump(value, (None, "", path, 0))
        return dumps(value, path=path)

    def loads(self, data: bytes) -> Any:
        """Gives the value back.

        Raises:
            DecodeError: `data` is not a packed value, or a dict does not fit the class it is annotated with.
        """
        function = self._function
        if function is not None:
            self._resolve(function)
        if self._shape is None:
            return _decode(data)
        return self._shape.load(_decode(data, typed=True))

    def _resolve(self, function: Callable[..., Any]) -> None:
        self._shape = shape_of(_hints(function).get("return"))
        self._function = None  # last, so that another thread never sees "resolved" before the shape is there


PLAIN_ARGUMENTS: Final = ArgumentCodec(None)
"""The arguments of a task that is known by name only."""

PLAIN_VALUE: Final = ValueCodec()
"""A value without an annotation."""
