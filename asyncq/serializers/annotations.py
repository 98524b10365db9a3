"""Compiles an annotation into the type codec that it needs. A new kind of annotation goes here.

`codecs` calls it when a task is first used, on whatever thread that is. Nothing is encoded here. Each class
and each union is compiled once, because it may name itself.
"""

from __future__ import annotations

import dataclasses
import typing
from collections import abc
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from enum import Enum, Flag
from pathlib import Path, PurePath, PurePosixPath, PureWindowsPath
from types import NoneType
from typing import TYPE_CHECKING, Any, Final, Literal
from uuid import UUID

import typing_extensions
from typing_extensions import is_typeddict

from asyncq.serializers.dataclass_codecs import (
    DataclassCodec,
    DerivedDataclassCodec,
    EnumCodec,
    NamedTupleCodec,
    RecordCodec,
    has_own_layout,
)
from asyncq.serializers.extensions import ADDRESSES
from asyncq.serializers.fingerprints import fingerprint, tag_of
from asyncq.serializers.generics import fields_of_model
from asyncq.serializers.hint_forms import is_alias, is_union, shown_hint, unwrapped
from asyncq.serializers.hints import hints_of
from asyncq.serializers.models import (
    ConvertedCodec,
    ModelCodec,
    converted,
    is_any_model,
    is_model,
    stands_for,
)
from asyncq.serializers.packing import is_to_be_named
from asyncq.serializers.policy import DEFAULT
from asyncq.serializers.trees import SCALARS
from asyncq.serializers.type_codecs import (
    SEQUENCES,
    SETS,
    AnyCodec,
    ClassCodec,
    DictCodec,
    ItemsCodec,
    LenientCodec,
    LiteralCodec,
    OptionalCodec,
    PlainCodec,
    TupleCodec,
    TypeCodec,
    UnionCodec,
)
from asyncq.serializers.value_paths import MAX_DEPTH, name_of

if TYPE_CHECKING:
    from asyncq.serializers.policy import Policy

_ITEM_KINDS: Final[dict[Any, tuple[type, ...]]] = {
    list: (list,),
    set: (set,),
    frozenset: (frozenset,),
    abc.Sequence: SEQUENCES,
    abc.MutableSequence: (list,),
    abc.Set: SETS,
    abc.MutableSet: (set,),
    abc.Collection: (*SEQUENCES, *SETS),
    abc.Iterable: (*SEQUENCES, *SETS),
}
_MAPPINGS: Final = frozenset({dict, abc.Mapping, abc.MutableMapping})

# For each annotation, the exact types that a value may have: as lenient as type checkers are.
_PLAIN: Final[dict[Any, frozenset[Any]]] = {
    **{
        cls: frozenset({cls})
        for cls in (
            *(NoneType, bool, str, bytes, datetime, time, timedelta, UUID, Decimal, PurePosixPath),
            *(PureWindowsPath, *ADDRESSES.values()),
        )
    },
    int: frozenset({int, bool}),
    float: frozenset({float, int, bool}),
    date: frozenset({date, datetime}),
    Path: frozenset({type(Path())}),
    PurePath: frozenset({type(Path()), PurePosixPath, PureWindowsPath}),
}


_MOST_GENERICS: Final = 8  # a generic class can name itself with ever longer arguments


class UnclearAnnotation(TypeError):
    """The arms of a union cannot be told apart on the wire. The message says how to write the annotation."""


def type_codec_of(annotation: Any, policy: Policy = DEFAULT) -> TypeCodec | None:
    """Compiles an annotation into a `TypeCodec`. Returns None if it adds nothing to the plain codec.

    Enums, dataclasses, pydantic models, NamedTuples and TypedDicts have codecs, and so have lists, tuples,
    sets, dicts, unions and generic aliases of them. Built-in types, `Any`, strings and annotations that are
    not understood have none.

    Args:
        annotation: the annotation, resolved.
        policy: that of the app.

    Raises:
        UnclearAnnotation: a union of classes that nobody can tell apart.

    Example:
        >>> type_codec_of(list[int]) is None
        True
    """
    return Compiler(policy).lenient(annotation)


class Compiler:
    """Compiles annotations. Each class and each union is compiled once, because it may name itself. Used by
    one thread.

    Args:
        policy: that of the app.
    """

    def __init__(self, policy: Policy) -> None:
        self._policy = policy
        self._records: dict[Any, RecordCodec] = {}
        self._unions: dict[Any, TypeCodec | None] = {}
        self._dicts: dict[Any, DictCodec] = {}
        self._any: AnyCodec | None = None
        self._depth = 0
        self._generics = 0
        if policy.types:
            classes: dict[Any, ClassCodec] = {}
            self._any = AnyCodec(classes)
            for cls in policy.types:
                codec = self._listed(cls)
                if codec is None:
                    raise UnclearAnnotation(
                        f"types= lists {shown_hint(cls)}, which is not an enum, dataclass, NamedTuple or "
                        "model"
                    )
                classes[cls] = classes[codec.tag] = codec

    def _listed(self, cls: Any) -> ClassCodec | None:
        try:
            return self._class_codec(cls, (), _Mode(is_strict=True, is_tagged=True))
        except UnclearAnnotation as error:
            raise UnclearAnnotation(f"types= of the app lists {shown_hint(cls)}: {error}") from error

    def lenient(self, hint: Any) -> TypeCodec | None:
        """Returns the codec of an argument or a result; None if the plain codec is enough."""
        if self._any is None and not _Search(hint).found:
            return None
        return self._compile(hint, _Mode(is_strict=False, is_tagged=False))

    # -- any annotation --

    def _compile(self, hint: Any, mode: _Mode) -> TypeCodec | None:
        """Returns the codec of an annotation; None if it needs none."""
        # A generic alias can name itself with ever longer arguments.
        if self._depth > MAX_DEPTH:
            return self._any
        self._depth += 1
        try:
            return self._compile_below(hint, mode)
        finally:
            self._depth -= 1

    def _compile_below(self, hint: Any, mode: _Mode) -> TypeCodec | None:
        if is_alias(hint) or is_alias(typing.get_origin(hint)) or is_union(unwrapped(hint)):
            return self._union(hint, _arms(hint), mode)
        hint = unwrapped(hint)
        origin = typing.get_origin(hint)
        if origin is Literal:
            return self._literal(hint, mode)
        kinds = _container_kinds(hint)
        if kinds:
            return self._container(kinds, [hint], mode)
        if hint is typing.Self:
            hint, origin = mode.owner, typing.get_origin(mode.owner)
        cls = hint if origin is None else origin
        if not isinstance(cls, type) or cls is Any or cls is object or is_any_model(cls):
            return self._any
        codec = self._class_codec(cls, typing.get_args(hint), mode)
        if codec is not None:
            return codec if mode.is_strict else LenientCodec(codec)
        return self._plain(cls, mode)

    def _plain(self, cls: Any, mode: _Mode) -> TypeCodec | None:
        """Returns the codec of a class that needs none of its own: it checks the type, if it is strict."""
        if not mode.is_strict:
            return None
        other = stands_for(cls)
        if other is not None:
            return self._compile(other, mode)
        return PlainCodec(_PLAIN[cls], shown_hint(cls)) if cls in _PLAIN else self._any

    def _literal(self, hint: Any, mode: _Mode) -> TypeCodec | None:
        values = typing.get_args(hint)
        if any(isinstance(value, Enum) for value in values):
            return self._union(hint, [type(value) for value in values], mode)
        return LiteralCodec(values, shown_hint(hint)) if mode.is_strict else None

    # -- unions --

    def _union(self, hint: Any, arms: list[Any], mode: _Mode) -> TypeCodec | None:
        """Returns the codec of a union of these arms. Compiles each union once."""
        key = (tuple(arms), mode)
        try:
            if key in self._unions:
                return self._unions[key]
        except TypeError:  # an argument of a generic alias has no hash
            return self._any
        codec = UnionCodec(shown_hint(hint), is_strict=mode.is_strict)
        # Before its arms are compiled: an arm may name the union again.
        self._unions[key] = codec
        self._unions[key] = simpler = self._fill(codec, arms, mode)
        return simpler

    def _fill(self, codec: UnionCodec, arms: list[Any], mode: _Mode) -> TypeCodec | None:
        """Adds the arms to the codec of a union. Returns it, or a simpler codec that does the same."""
        rest = [arm for arm in arms if arm is not NoneType]
        if len(rest) == 1 and not _has_none(rest[0]):
            return self._optional(codec, rest[0], mode, has_none=len(arms) > 1)
        if mode.is_strict and all(arm in _PLAIN for arm in arms):
            return PlainCodec(frozenset().union(*(_PLAIN[arm] for arm in arms)), codec.text)
        inner = mode.tagged()
        groups: dict[Any, list[Any]] = {}
        for arm in arms:
            kinds = _container_kinds(arm)
            for kind in kinds:
                groups.setdefault(kind, []).append(arm)
            if not kinds:
                # Strict: a value reaches this arm only if its type fits.
                self._put(codec, arm, self._compile(arm, inner.strict()), inner)
        for kind, hints in groups.items():
            items = self._container((kind,), hints, inner)
            # Without an arm, `codec.other` gets the container: it may hold classes that `types=` lists.
            if items is not None or codec.other is None:
                codec.arms[kind] = items
        if not mode.is_strict and not codec.tags and all(arm is None for arm in codec.arms.values()):
            return self._any
        self._check_types(codec)
        return codec

    def _optional(self, codec: UnionCodec, arm: Any, mode: _Mode, *, has_none: bool) -> TypeCodec | None:
        """Returns the codec of `X | None`. It needs no tag: None differs from every other value."""
        only = self._compile(arm, mode)
        # The union is filled, too: an alias that names itself has a reference to it.
        kinds = _container_kinds(arm)
        codec.arms.update(dict.fromkeys((*kinds, NoneType) if has_none else kinds, None))
        codec.arms.update(dict.fromkeys(kinds, only))
        if not kinds:
            self._put(codec, arm, only, mode)
        if only is None or not has_none or not mode.is_strict:
            return only
        if type(only) is PlainCodec:
            return PlainCodec(only.kinds | {NoneType}, codec.text)
        return OptionalCodec(only)

    def _put(self, union: UnionCodec, arm: Any, codec: TypeCodec | None, mode: _Mode) -> None:
        """Adds an arm to a union that is no container."""
        if isinstance(codec, LenientCodec):
            codec = codec.codec
        if isinstance(codec, ClassCodec):
            self._put_class(union, codec)
            if isinstance(codec, EnumCodec) and codec.takes_values:
                self._put(union, arm, _raw_values(codec), mode)
        elif isinstance(codec, OptionalCodec):
            self._put(union, arm, codec.inner, mode)
            union.arms.setdefault(NoneType, None)
        elif type(codec) is LiteralCodec and mode.is_strict:
            for kind in codec.kinds:
                other = union.arms.get(kind, codec)
                union.arms[kind] = other and self._merged(other, codec)
        elif isinstance(codec, PlainCodec):
            for kind in codec.kinds:
                union.arms[kind] = None
        elif arm is NoneType:
            union.arms[NoneType] = None
        else:
            union.is_open = True
            union.other = self._any

    def _merged(self, one: TypeCodec, other: LiteralCodec) -> TypeCodec:
        if type(one) is not LiteralCodec or one is other:
            return one
        values = tuple(value for _, value in (*one.values, *other.values))
        return LiteralCodec(values, f"{one.text} | {other.text}")

    def _put_class(self, union: UnionCodec, codec: ClassCodec) -> None:
        """Adds a class to a union, by its type and by its tag."""
        same_class, same_tag = union.arms.get(codec.cls), union.tags.get(codec.tag)
        if isinstance(same_class, (RecordCodec, ConvertedCodec)) and same_class is not codec:
            raise UnclearAnnotation(
                f"{union.text}: its members {same_class.tag} and {codec.tag} are one class at run time, so "
                f"asyncq cannot tell them apart. Write one member whose argument is the union"
            )
        if same_tag is not None and same_tag.cls is not codec.cls:
            raise UnclearAnnotation(
                f"{union.text}: its members {same_tag.text} and {codec.text} are both called {codec.tag} on "
                f"the wire. Give one of the classes an attribute asyncq_alias = 'another name'"
            )
        union.arms[codec.cls] = union.tags[codec.tag] = codec

    def _check_types(self, union: UnionCodec) -> None:
        """Checks that no arm has the tag of a class in `types=`, if these may be in the value, too."""
        listed = {} if union.other is None else union.other.classes
        for tag, arm in union.tags.items():
            other = listed.get(tag)
            if other is not None and other.cls is not arm.cls:
                raise UnclearAnnotation(
                    f"{union.text}: {arm.text} and {other.text}, which types= of the app lists, are both "
                    f"called {tag} on the wire. Give one of them an attribute asyncq_alias = 'another name'"
                )

    # -- containers: several of one kind are the arms of one union --

    def _container(self, kinds: tuple[type, ...], hints: list[Any], mode: _Mode) -> TypeCodec | None:
        """Returns the codec of a container of these kinds, where each hint is one arm."""
        if kinds == (dict,):
            return self._dict(hints, mode)
        if kinds == (tuple,) and all((typing.get_origin(hint) or hint) is tuple for hint in hints):
            return self._tuple(hints, mode)
        return self._items(hints, kinds, mode)

    def _several(self, hints: list[Any], mode: _Mode) -> TypeCodec | None:
        """Returns the codec of a value that may have any of these annotations."""
        arms = list(dict.fromkeys(arm for hint in hints for arm in _arms(hint)))
        if len(hints) == 1:
            return self._compile(hints[0], mode)
        return self._union(typing.Union[tuple(arms)], arms, mode)  # noqa: UP007  built at run time

    def _items(self, hints: list[Any], kinds: tuple[type, ...], mode: _Mode) -> TypeCodec | None:
        item = self._several([(typing.get_args(unwrapped(hint)) or (Any,))[0] for hint in hints], mode)
        if item is None and not mode.is_strict:
            return None
        text = " | ".join(map(shown_hint, hints))
        return ItemsCodec(item, kinds, text, is_strict=mode.is_strict)

    def _tuple(self, hints: list[Any], mode: _Mode) -> TypeCodec | None:
        fixed: dict[int, list[tuple[Any, ...]]] = {}
        rest: list[Any] = []
        for hint in hints:
            args, more = _tuple_items(unwrapped(hint))
            if more is not None:
                rest.append(more)
            else:
                fixed.setdefault(len(args), []).append(args)
        lengths = {
            length: tuple(self._several([*at, *rest], mode) for at in zip(*several, strict=True))
            for length, several in fixed.items()
        }
        others = (self._several(rest, mode),) if rest else None
        codecs = [*(codec for codecs in lengths.values() for codec in codecs), *(others or ())]
        if not mode.is_strict and all(codec is None for codec in codecs):
            return None
        text = " | ".join(map(shown_hint, hints))
        return TupleCodec(lengths, others, text, is_strict=mode.is_strict)

    def _dict(self, hints: list[Any], mode: _Mode) -> TypeCodec | None:
        key = (tuple(map(_hashable, hints)), mode)
        if key in self._dicts:  # the fields of a TypedDict may name it again
            return self._dicts[key]
        codec = DictCodec(" | ".join(map(shown_hint, hints)), is_strict=mode.is_strict)
        self._dicts[key] = codec
        keys: list[Any] = []
        values: list[Any] = []
        fields: dict[str, list[Any]] = {}
        for hint in map(unwrapped, hints):
            cls = typing.get_origin(hint) or hint
            args = typing.get_args(hint)
            if is_typeddict(cls):
                for name, field in hints_of(cls, args).items():
                    fields.setdefault(name, []).append(field)
                if len(hints) == 1:
                    codec.required = cls.__required_keys__
                    codec.is_closed = True
            else:
                keys.append(args[0] if args else Any)
                values.append(args[1] if args else Any)
        codec.fields = {name: self._several([*of, *values], mode) for name, of in fields.items()}
        if keys:
            codec.key, codec.value = self._several(keys, mode), self._several(values, mode)
        if not mode.is_strict and all(
            inner is None for inner in (codec.key, codec.value, *codec.fields.values())
        ):
            return None
        return codec

    # -- classes --

    def _class_codec(self, cls: Any, args: tuple[Any, ...], mode: _Mode) -> ClassCodec | None:
        """Returns the codec of an enum, a class with fields or one of pydantic; None for another class."""
        if issubclass(cls, Enum):
            is_plain = cls is Enum or not cls.__members__
            return (
                None
                if is_plain
                else EnumCodec(
                    cls,
                    tag_of(cls),
                    is_tagged=mode.is_tagged or mode.takes_values,
                    takes_values=mode.takes_values,
                )
            )
        pydantics = converted(cls)
        if pydantics is not None:
            plain, kind = pydantics
            inner = self._compile((args or (Any,))[0] if kind is None else kind, mode.strict())
            return ConvertedCodec(cls, tag_of(cls), plain, inner, is_tagged=mode.is_tagged)
        return self._record(cls, args)

    def _record(self, cls: Any, args: tuple[Any, ...]) -> RecordCodec | None:
        """Returns the codec of a class with fields; None for another class. Compiles each class once."""
        key = (cls, args)
        try:
            if key in self._records:  # the fields of a class may name the class again
                return self._records[key]
        except TypeError:  # an argument of a generic alias has no hash
            return None
        fields = fields_of(cls, args)
        if fields is None or (args and self._generics > _MOST_GENERICS):
            return None
        codec = self._records[key] = _kind_of(cls)(cls, tag_of(cls, args), self._policy)
        mode = _Mode(
            is_strict=True,
            is_tagged=False,
            takes_values=_has_raw_values(cls),
            owner=_alias_of(cls, args),
        )
        depth, self._depth = self._depth, 0
        self._generics += bool(args)
        codecs = {name: self._field(cls, name, hint, mode) for name, hint in fields.items()}
        codec.finish(codecs, fingerprint(cls, args, fields_of), self._any)
        if isinstance(codec, ModelCodec):
            codec.finish_others(self._others(cls, mode))
        self._generics -= bool(args)
        self._depth = depth
        return codec

    def _field(self, cls: Any, name: str, hint: Any, mode: _Mode) -> TypeCodec | None:
        """Returns the codec of a field. It takes the default of the field, too."""
        try:
            codec = self._compile(hint, mode)
        except UnclearAnnotation as error:
            raise UnclearAnnotation(f"the field {name} of {name_of(cls)}: {error}") from error
        default = _default_of(cls, name)
        # Many people write `x: int = None`. So a default of another type than the annotation is allowed.
        if codec is None or type(default) not in _PLAIN or default is dataclasses.MISSING:
            return codec
        if default is None:
            return (
                PlainCodec(codec.kinds | {NoneType}, f"{codec.text} | None")
                if type(codec) is PlainCodec
                else OptionalCodec(codec)
            )
        if type(codec) is PlainCodec:
            return PlainCodec(codec.kinds | {type(default)}, codec.text)
        return codec

    def _others(self, cls: Any, mode: _Mode) -> dict[str, TypeCodec | None]:
        """Returns the codecs of the private attributes of a model, and of its extra fields under `""`."""
        hints = hints_of(cls)
        codecs = {name: self._compile(hints.get(name, Any), mode) for name in cls.__private_attributes__}
        extra = typing.get_args(unwrapped(hints.get("__pydantic_extra__")))
        extra = typing.get_args(extra[0]) if len(extra) == 2 and extra[1] is NoneType else extra
        codecs[""] = self._compile(extra[1], mode) if len(extra) == 2 else self._any
        return codecs


@dataclasses.dataclass(frozen=True, slots=True)
class _Mode:
    """How an annotation is compiled.

    Attributes:
        is_strict: whether a value of another type is refused.
        is_tagged: whether members of enums travel with their tag, as they do inside of unions.
        takes_values: whether a raw value may be in the place of a member of an enum.
        owner: the class whose fields are annotated, for `Self`.
    """

    is_strict: bool
    is_tagged: bool
    takes_values: bool = False
    owner: Any = None

    def tagged(self) -> _Mode:
        return dataclasses.replace(self, is_tagged=True)

    def strict(self) -> _Mode:
        return dataclasses.replace(self, is_strict=True)


def fields_of(cls: Any, args: tuple[Any, ...] = ()) -> dict[str, Any] | None:
    """Returns the fields of a class with their types; None if it is no dataclass, NamedTuple, TypedDict or
    model.
    """
    if is_typeddict(cls):
        return hints_of(cls, args)
    if not isinstance(cls, type):
        return None
    if is_model(cls):
        if not cls.__pydantic_complete__:  # type: ignore[attr-defined]
            cls.model_rebuild(raise_errors=False)  # type: ignore[attr-defined]
        return fields_of_model(cls)
    if dataclasses.is_dataclass(cls):
        hints = hints_of(cls, args)
        return {field.name: hints.get(field.name, Any) for field in dataclasses.fields(cls)}
    if issubclass(cls, tuple) and hasattr(cls, "_fields"):
        hints = hints_of(cls, args)
        names: tuple[str, ...] = cls._fields  # pyright: ignore[reportAttributeAccessIssue]
        return {name: hints.get(name, Any) for name in names}
    return None


def _kind_of(cls: Any) -> type[RecordCodec]:
    """Returns the class of the codec for a class that has fields."""
    if is_model(cls):
        return ModelCodec
    if dataclasses.is_dataclass(cls):
        return DerivedDataclassCodec if has_own_layout(cls) else DataclassCodec
    return NamedTupleCodec


def _alias_of(cls: Any, args: tuple[Any, ...]) -> Any:
    return cls[args] if args else cls


def _default_of(cls: Any, name: str) -> Any:
    """Returns the default of a field, or MISSING."""
    if is_model(cls):
        return cls.model_fields[name].default
    if dataclasses.is_dataclass(cls):
        return cls.__dataclass_fields__[name].default
    return cls._field_defaults.get(name, dataclasses.MISSING)


def _has_raw_values(cls: Any) -> bool:
    config = getattr(cls, "model_config", None) or getattr(cls, "__pydantic_config__", None) or {}
    return isinstance(config, dict) and bool(config.get("use_enum_values"))


def _arms(hint: Any, aliases: tuple[Any, ...] = ()) -> list[Any]:
    """Returns the arms of a union and of the unions in it, each once."""
    if is_alias(hint) or is_alias(typing.get_origin(hint)):
        if hint in aliases:  # `type X = X | int`
            return []
        aliases = (*aliases, hint)
    hint = unwrapped(hint)
    if is_union(hint):
        return list(dict.fromkeys(arm for inner in typing.get_args(hint) for arm in _arms(inner, aliases)))
    if typing.get_origin(hint) is Literal and any(isinstance(value, Enum) for value in typing.get_args(hint)):
        return list(dict.fromkeys(type(value) for value in typing.get_args(hint)))
    return [NoneType if hint is None else hint]


def _raw_values(codec: EnumCodec) -> PlainCodec:
    """Returns the codec of the raw values of an enum, which a model with `use_enum_values` holds."""
    values = tuple(member.value for member in codec.cls if type(member.value) in SCALARS)
    if issubclass(codec.cls, Flag):  # several members together have a value that no member has
        return PlainCodec(frozenset(map(type, values)), codec.text)
    return LiteralCodec(values, codec.text)


def _has_none(hint: Any) -> bool:
    return isinstance(hint, type) and issubclass(hint, Enum) and any(one.value is None for one in hint)


def _container_kinds(hint: Any) -> tuple[type, ...]:
    cls = typing.get_origin(hint) or hint
    if cls in _MAPPINGS or is_typeddict(cls):
        return (dict,)
    return (tuple,) if cls is tuple else _ITEM_KINDS.get(cls, ())


def _hashable(hint: Any) -> Any:
    try:
        hash(hint)
    except TypeError:  # an argument of a generic alias has no hash
        return str(hint)
    return hint


def _tuple_items(hint: Any) -> tuple[tuple[Any, ...], Any]:
    """Returns the types of the items of a tuple; or, if their number is open, the one type of all of them."""
    args = typing.get_args(hint)
    if hint is tuple:
        return (), Any
    if len(args) == 2 and args[1] is Ellipsis:
        return (), args[0]
    flat: list[Any] = []
    for arg in args:
        inner = unpacked(arg)
        if inner is None:
            flat.append(arg)
            continue
        items, more = _tuple_items(inner) if typing.get_origin(inner) is tuple else ((), Any)
        if more is not None:  # `tuple[A, *tuple[B, ...]]`: each item may be of any of the types
            return (), typing.Union[(more, *(other for other in args if unpacked(other) is None))]
        flat += items
    return tuple(flat), None


def unpacked(hint: Any) -> Any:
    """Returns what `*X` or `Unpack[X]` unpacks; None for another annotation."""
    if typing.get_origin(hint) in {typing.Unpack, typing_extensions.Unpack}:  # in Python 3.11 they differ
        return typing.get_args(hint)[0]
    if getattr(hint, "__unpacked__", False):
        return typing.get_origin(hint)[typing.get_args(hint)]
    return None


def has_union_of_classes(hint: Any) -> bool:
    """Returns whether an annotation has a union of two or more classes, which differ by their tags."""
    if is_union(hint) or is_alias(hint) or is_alias(typing.get_origin(hint)):
        arms = [typing.get_origin(arm) or arm for arm in _arms(hint)]
        named = [arm for arm in arms if isinstance(arm, type) and is_to_be_named(arm)]
        return len(named) > 1 or any(map(has_union_of_classes, typing.get_args(hint)))
    return any(map(has_union_of_classes, typing.get_args(hint)))


class _Search:
    """Searches an annotation for a class that needs a codec.

    Attributes:
        found: whether there is one.
    """

    _MOST = 1000  # a generic alias can name itself with ever longer arguments

    def __init__(self, hint: Any) -> None:
        self._seen: set[str] = set()
        self.found: bool = self._search(hint, 0)

    def _search(self, hint: Any, depth: int) -> bool:
        key = str(hint)
        if key in self._seen or len(self._seen) > self._MOST or depth > MAX_DEPTH:
            return False
        self._seen.add(key)
        hint = unwrapped(hint)
        origin, args = typing.get_origin(hint), typing.get_args(hint)
        if origin is Literal:
            return any(isinstance(value, Enum) for value in args)
        cls = hint if origin is None else origin
        if is_typeddict(cls):
            args = tuple(hints_of(cls, args).values())
        elif isinstance(cls, type) and _needs_codec(cls):
            return True
        elif not (is_union(hint) or cls is tuple or cls in _ITEM_KINDS or cls in _MAPPINGS):
            return False
        return any(self._search(unpacked(arg) or arg, depth + 1) for arg in args if arg is not Ellipsis)


def _needs_codec(cls: Any) -> bool:
    if issubclass(cls, Enum):
        return cls is not Enum and bool(cls.__members__)
    return converted(cls) is not None or fields_of(cls) is not None
