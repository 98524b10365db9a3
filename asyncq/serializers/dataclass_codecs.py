"""The codecs of enums, dataclasses and NamedTuples, and `RecordCodec`, the base of all codecs of classes with
fields.

The state of an instance travels, and not what its class makes of it. If the classes of writer and reader have
the same fields, no `__init__`, `__post_init__`, validator or serializer runs on the way. Otherwise, or
without `trust_models`, the reader calls the class, which validates. The types of the fields are checked on
both sides in any case.
"""

# ruff: noqa: D102  `type_codecs` describes dump, load and takes_plain

from __future__ import annotations

import dataclasses
import inspect
import logging
from abc import abstractmethod
from typing import TYPE_CHECKING, Any, Final, NoReturn

from asyncq.errors import DecodeError
from asyncq.serializers.aliases import fields_by_alias, infos_of, renamed
from asyncq.serializers.encoded import encoders_of
from asyncq.serializers.fingerprints import base_of
from asyncq.serializers.instance_attributes import Attributes, slots_of
from asyncq.serializers.packing import ready
from asyncq.serializers.trees import CONTAINERS, INSTANCE, SCALARS, Instance
from asyncq.serializers.type_codecs import (
    ClassCodec,
    ClassValueCodec,
    PlainCodec,
    TypeCodec,
    arrived,
    bare,
    instances_in,
    loaded,
    put_in_front,
)
from asyncq.serializers.value_paths import FIELD, ValuePath, check_depth, refuse, shown

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping

    from asyncq.serializers.policy import Policy

log: logging.Logger = logging.getLogger("asyncq.serializers.records")

_KNOWN: Final = 64
"""Most combinations of types that a codec remembers."""
_warned: set[tuple[str, bytes, bytes]] = set()
"""Tag and both fingerprints of each difference between classes that was logged."""
_MAX_WARNED: Final = 100  # a writer can make up fingerprints without end


class EnumCodec(ClassValueCodec):
    """The codec of an enum: a member travels as its value, and inside of a union with its tag.

    Args:
        cls: the enum.
        tag: its name on the wire.
        is_tagged: whether the tag is written.
        takes_values: whether a raw value may be in the place of a member, as in a model with
            `use_enum_values`.
    """

    __slots__ = ("_members", "takes_values")

    def __init__(self, cls: Any, tag: str, *, is_tagged: bool, takes_values: bool = False) -> None:
        super().__init__(cls, tag, is_tagged=is_tagged)
        self.takes_values: bool = takes_values
        # `cls(value)` finds the member as well, but takes three times as long as the rest of `load`.
        self._members: dict[Any, Any] = {
            member._value_: member for member in cls.__members__.values() if type(member._value_) in SCALARS
        }

    def dump(self, value: Any, path: ValuePath) -> Any:
        if type(value) is not self.cls:
            if self.takes_values and self.takes_plain(value):
                return value
            self.refuse(value, path)
        plain = value._value_
        return self.tagged(plain, path) if self.is_tagged else plain

    def takes_plain(self, tree: Any) -> bool:
        if type(tree) in SCALARS and tree in self._members:
            return True
        try:
            self.cls(bare(tree))
        except Exception:  # noqa: BLE001  `_missing_` is the user's
            return False
        return True

    def load(self, tree: Any) -> Any:
        if self.takes_values and type(tree) is not Instance:
            return bare(tree)
        value = bare(self.untagged(tree))
        member = self._members.get(value) if type(value) in SCALARS else None
        if member is not None:
            return member
        try:
            return self.cls(value)
        except Exception as error:  # `_missing_` is the user's
            raise DecodeError(f"{shown(value)} arrived, but the annotation says {self.text}") from error


class RecordCodec(ClassCodec):
    """The codec of a class with fields.

    Attributes:
        fields: the strict codecs of the fields; None for a field that may hold anything.
        names: of the fields, in their order.
        optional: the fields that an instance need not have.
        attributes: what else an instance may hold.
        print: the fingerprint of the fields.
        policy: of the app.
    """

    __slots__ = (
        *("_all_plain", "_known_here", "_known_there", "_tags"),
        *("attributes", "fields", "names", "optional", "policy", "print"),
    )

    def __init__(self, cls: Any, tag: str, policy: Policy) -> None:
        super().__init__(cls, tag)
        self.policy: Policy = policy
        self.fields: dict[str, TypeCodec | None] = {}
        self.names: tuple[str, ...] = ()
        self.optional: frozenset[str] = frozenset()
        self.print: bytes = b""

    def finish(self, fields: Mapping[str, TypeCodec | None], print_: bytes, other: TypeCodec | None) -> None:
        """Sets the fields. This is not done in `__init__`, because a field may name the class again.

        Args:
            fields: the codecs of the fields, by their names.
            print_: the fingerprint of the fields.
            other: the codec of attributes without an annotation.
        """
        self.fields = dict(fields)
        self.attributes: Attributes = Attributes(self.cls, self.fields, other)
        self.names = tuple(self.fields)
        self.print = print_
        self._all_plain: bool = all(
            codec is None or type(codec) is PlainCodec for codec in self.fields.values()
        )
        # The combinations of the types of all fields that were checked before. Most classes have one or two
        # of them, so an instance with plain fields costs one look into a set.
        self._known_here: set[tuple[type, ...]] = set()
        self._known_there: set[tuple[type, ...]] = set()
        self._tags: dict[TypeCodec | None, frozenset[str]] = {}

    # -- writing --

    def tree_of(self, state: Mapping[str, Any], path: ValuePath, depth: int) -> dict[str, Any]:
        """Returns the tree of the fields.

        Raises:
            SerializationError: a field has no value, or a value of a type that is not annotated.
        """
        kinds = tuple(map(type, state.values()))
        if kinds in self._known_here and tuple(state) == self.names:
            return state  # type: ignore[return-value]  # a dict; it is packed before anybody can change it
        tree = {}
        for name, codec in self.fields.items():
            inner_path = (path, FIELD, name, depth)
            try:
                value = state[name]
            except KeyError:
                if name in self.optional:
                    continue
                refuse(inner_path, "this field of the annotated class has no value")
            tree[name] = ready(value if codec is None else codec.dump(value, inner_path), inner_path)
        if self._all_plain and SCALARS.issuperset(kinds) and tuple(state) == self.names:
            _remember(self._known_here, kinds)
        return tree

    # -- reading --

    def takes_plain(self, tree: Any) -> bool:
        return type(tree) is dict

    def load(self, tree: Any) -> Any:
        if type(tree) is not Instance:
            if not self.takes_plain(tree):
                self.reject(tree)
            return self.made(tree, PLAIN)
        if tree[1] != self.tag and not self.takes(tree[1]):
            self.reject(tree)
        more = tree[4] if len(tree) == 5 else _NOTHING
        if tree[2] == self.print and self.policy.trust_models:
            return self.restored(tree[3], more)
        if tree[2] is None:
            self.reject(tree)
        if self.policy.trust_models:
            self._tell(tree)
        return self.made(tree[3], more)

    def _tell(self, tree: Instance) -> None:
        """Logs that the writer's class differs from the reader's, once for each pair of fingerprints."""
        pair = (self.tag, tree[2], self.print)
        if pair in _warned or len(_warned) >= _MAX_WARNED:
            return
        _warned.add(pair)
        log.warning(
            "%s was written with other fields than %s has here (%s, %s): it is validated",
            arrived(tree),
            self.text,
            tree[2].hex(),
            self.print.hex(),
        )

    def values_of(self, fields: Any) -> dict[str, Any]:
        """Returns the values of the fields that came.

        Raises:
            DecodeError: a field is not one of the class, or its value has a type that is not annotated.
        """
        if type(fields) is not dict:
            self.reject(fields)
        kinds = tuple(map(type, fields.values()))
        if kinds in self._known_there and tuple(fields) == self.names:
            return fields
        values = {}
        name = ""
        try:
            for name, item in fields.items():
                values[name] = loaded(self.fields[name], item)
        except KeyError:
            raise DecodeError(f"{self.text} has no field {shown(name)}, which arrived") from None
        except DecodeError as error:
            put_in_front(FIELD.format(name), error)
            raise
        if self._all_plain and CONTAINERS.isdisjoint(kinds) and tuple(fields) == self.names:
            _remember(self._known_there, kinds)
        return values

    def complete_values_of(self, fields: Any) -> dict[str, Any]:
        """Returns the values of all fields. Optional fields may be missing.

        Raises:
            DecodeError: another field is missing, or as `values_of`.
        """
        values = self.values_of(fields)
        if len(values) != len(self.names):
            for name in self.names:
                if name not in values and name not in self.optional:
                    raise DecodeError(f"{self.text} arrived without its field {name}")
        return values

    @abstractmethod
    def restored(self, fields: Any, more: dict[str, Any]) -> Any:
        """Makes an instance of its state. No code of the class runs.

        Args:
            fields: as they came.
            more: what else came with the instance.

        Raises:
            DecodeError: a field is missing, or has a type that is not annotated.
        """

    @abstractmethod
    def made(self, fields: Any, more: dict[str, Any]) -> Any:
        """Makes an instance by calling its class, which validates the fields.

        Args:
            fields: as they came.
            more: what else came with an instance; `PLAIN` if plain values came.

        Raises:
            DecodeError: the class refuses the fields.
        """

    def means_another_class(self, codec: TypeCodec | None, tree: Any) -> bool:
        """Returns whether a tree holds an instance of a class that the annotation of a field does not name,
        though the annotation names other classes.

        Validation must not get such an instance: it would make an instance of one of the named classes of the
        fields, only because the fields fit.

        Args:
            codec: of the field, or of what else this class holds.
            tree: what came.
        """
        written = {base_of(one[1]) for one in instances_in(tree) if one[2] is not None}
        if not written:
            return False
        known = self._tags.get(codec)
        if known is None:
            known = self._tags[codec] = frozenset(_tags_below(codec, set()))
        return bool(known) and not known >= written

    def build(self, build: Callable[[], Any]) -> Any:
        """Returns what `build` makes of the fields that came.

        Raises:
            DecodeError: `build` raised; names the class.
        """
        try:
            return build()
        except Exception as error:  # the code of the class may raise any error to refuse the fields
            raise DecodeError(
                f"the fields received do not make a {self.text}: {type(error).__name__}: {error}"
            ) from error


def _tags_below(codec: TypeCodec | None, seen: set[int]) -> Iterator[str]:
    """Yields the tags of the classes with fields that a codec names, and of those that their fields name."""
    if codec is None or id(codec) in seen:
        return
    seen.add(id(codec))
    if isinstance(codec, RecordCodec):
        yield base_of(codec.tag)
        below: Iterable[TypeCodec | None] = codec.fields.values()
    else:
        below = codec.parts()
    for part in below:
        yield from _tags_below(part, seen)


def _remember(known: set[tuple[type, ...]], kinds: tuple[type, ...]) -> None:
    if len(known) < _KNOWN:
        known.add(kinds)


_NOTHING: Final[dict[str, Any]] = {}
PLAIN: Final[dict[str, Any]] = {}
"""The argument `more` for fields that came as plain values, from a caller that knows only the task's name."""


class DataclassCodec(RecordCodec):
    """The codec of a dataclass, also of pydantic's. It makes an instance of a plain dict of fields, too, as
    FastAPI does.
    """

    __slots__ = ("_aliases", "_all", "_computed", "_encoders", "_in_init", "_infos", "_slots")

    def __init__(self, cls: Any, tag: str, policy: Policy) -> None:
        super().__init__(cls, tag, policy)
        fields = dataclasses.fields(cls)
        self._all: frozenset[str] = frozenset(field.name for field in fields)
        self._infos: Mapping[str, Any] = infos_of(cls)
        self._aliases: Mapping[str, str] = fields_by_alias(self._infos)
        self._encoders: Mapping[str, Callable[[Any], Any]] = encoders_of(self._infos)
        self._slots: frozenset[str] = self._all & slots_of(cls).keys()
        # Fields that are properties and the like: their values are kept elsewhere in the instance. Nobody
        # would ever read an entry of their name in its `__dict__`.
        self._computed: frozenset[str] = frozenset(
            name
            for name in self._all - self._slots
            if hasattr(inspect.getattr_static(cls, name, None), "__set__")
        )
        self._in_init: frozenset[str] = frozenset(field.name for field in fields if field.init)
        # Only `__post_init__` sets these fields, and it may not have set them.
        self.optional: frozenset[str] = frozenset(
            field.name
            for field in fields
            if not field.init
            and field.default is dataclasses.MISSING
            and field.default_factory is dataclasses.MISSING
        )

    def dump(self, value: Any, path: ValuePath) -> Any:
        if type(value) is not self.cls:
            self.refuse(value, path)
        depth = check_depth(path)
        state = value.__dict__ if self.attributes.has_dict else _NOTHING
        if state.keys() == self._all and not self.attributes.slots:
            fields = self.tree_of(state, path, depth)
            return Instance((INSTANCE.ext, self.tag, self.print, fields))
        return self._dump_slowly(value, state, path, depth)

    def _dump_slowly(self, value: Any, state: Mapping[str, Any], path: ValuePath, depth: int) -> Any:
        """Dumps an instance that has slots, computed fields, missing fields or other attributes."""
        own = state.keys() - self._computed
        held = {
            name: state[name] if name in own else getattr(value, name)
            for name in self.names
            if name in own or hasattr(value, name)
        }
        fields = self.tree_of(held, path, depth)
        others = self.attributes.dump(value, path, depth)
        node = (INSTANCE.ext, self.tag, self.print, fields)
        return Instance((*node, {"d": others}) if others else node)

    def restored(self, fields: Any, more: dict[str, Any]) -> Any:
        values = self.complete_values_of(fields)
        made = object.__new__(self.cls)
        if self._slots or self._computed or not self.attributes.has_dict:
            for name in values.keys() - self._computed:
                object.__setattr__(made, name, values[name])
        else:
            # Not by `__setattr__`: that of a frozen dataclass refuses, and others may check or convert.
            made.__dict__.update(values)
        if "d" in more:
            self.attributes.give(made, more["d"], is_same=True)
        for name in values.keys() & self._computed:
            self._compute(made, name, values[name])
        return made

    def _compute(self, made: Any, name: str, value: Any) -> None:
        """Sets a field that is a property, unless its getter returns the value that came already, from the
        other attributes that came.

        A setter may change what it is given, and it did so where the instance was made; a second call could
        change the value again. But what the setter left in the instance has no annotation: a writer could
        forge a type there that the field does not allow. So the getter's value must be the checked one.
        """
        try:
            found = getattr(made, name)
            is_there = type(found) is type(value) and bool(found == value)
        except Exception:  # noqa: BLE001  the getter, and the class of its value, are the user's
            is_there = False
        if not is_there:
            self.build(lambda: object.__setattr__(made, name, value))

    def made(self, fields: Any, more: dict[str, Any]) -> Any:
        if type(fields) is not dict:
            self.reject(fields)
        names: Mapping[str, str] = self._aliases if more is PLAIN else {}
        came: dict[str, Any] = fields
        given: dict[str, Any] = {}
        kept: dict[str, Any] = {}
        for key, item in came.items():
            name = names.get(key, key)
            if name in self._in_init or name not in self.fields:
                given[key] = self._argument(name, item, more)
            elif more is not PLAIN:
                kept[name] = self._checked(name, item)
        made = self._constructed(given)
        # Fields that the constructor does not take are a part of the state all the same.
        for name, value in kept.items():
            object.__setattr__(made, name, value)
        if "d" in more:
            self.attributes.give(made, more["d"], is_same=False)
        return made

    def _checked(self, name: str, item: Any) -> Any:
        """Returns the value of a field. An error names the field."""
        try:
            return loaded(self.fields.get(name), item)
        except DecodeError as error:
            put_in_front(FIELD.format(name), error)
            raise

    def _argument(self, name: str, item: Any, more: dict[str, Any]) -> Any:
        """Returns the value of a field in the form that the constructor takes."""
        encoder = self._encoders.get(name)
        if encoder is not None:
            if self.means_another_class(self.fields.get(name), item):
                self._checked(name, item)
            return bare(item) if more is PLAIN else self.build(lambda: encoder(bare(item)))
        if name not in self._infos:
            return self._checked(name, item)
        try:
            return self._checked(name, item)
        except DecodeError:  # pydantic may convert it
            if self.means_another_class(self.fields.get(name), item):
                raise
            return bare(item)

    def _constructed(self, given: dict[str, Any]) -> Any:
        """Calls the class with the fields. An error says why the class cannot take them."""
        cls = self.cls
        if cls.__init__ is object.__init__:  # `@dataclass(init=False)`: no constructor takes the fields
            return self._filled(given)
        try:
            return self.build(lambda: cls(**(renamed(cls, given) if self._infos else given)))
        except DecodeError as error:
            reason = _why(cls, given, is_own=not self._infos and _has_own_constructor(cls))
            if not reason:
                raise
            raise DecodeError(f"{error}. {reason}") from error

    def _filled(self, given: dict[str, Any]) -> Any:
        """Makes an instance of a class without a constructor.

        Raises:
            DecodeError: a field is missing, or is not one of the class.
        """
        made = object.__new__(self.cls)
        for name in given:
            if name not in self.fields:
                raise DecodeError(f"{self.text} has no field {shown(name)}, which arrived")
        for field in dataclasses.fields(self.cls):
            if field.name in given:
                object.__setattr__(made, field.name, given[field.name])
            elif field.default is not dataclasses.MISSING:
                object.__setattr__(made, field.name, field.default)
            elif field.default_factory is not dataclasses.MISSING:
                object.__setattr__(made, field.name, self.build(field.default_factory))
            elif field.init:
                raise DecodeError(f"{self.text} arrived without its field {field.name}")
        return made


def _has_own_constructor(cls: Any) -> bool:
    """Returns whether a dataclass has a constructor that `@dataclass` did not write."""
    owner = next(base for base in cls.__mro__ if "__init__" in vars(base))
    options = vars(owner).get("__dataclass_params__")
    return options is None or not options.init


def _why(cls: Any, given: Mapping[str, Any], *, is_own: bool) -> str:
    """Returns why the constructor of a dataclass cannot take the fields, if the class itself is the reason;
    else an empty text.
    """
    try:
        parameters = inspect.signature(cls.__init__).parameters
    except ValueError:  # a constructor written in C
        return "Validation calls the constructor of the class, which takes no fields by their names"
    fields = {field.name for field in dataclasses.fields(cls)}
    for name in vars(cls).get("__dataclass_fields__", ()):
        parameter = parameters.get(name)
        if name not in fields and name not in given and parameter and parameter.default is parameter.empty:
            return f"No instance keeps its InitVar {name}, so none arrives: give it a default"
    if is_own:
        return (
            f"Validation calls the class's own constructor with the fields by their names, but its signature "
            f"is {cls.__name__}{inspect.signature(cls)}: let both sides have equal fields and "
            f"trust_models=True, or let the constructor take the fields"
        )
    return ""


class DerivedDataclassCodec(DataclassCodec):
    """The codec of a dataclass that also is a list, dict, str, int or exception. What an instance holds as
    that is no field, so it cannot be sent.
    """

    __slots__ = ()

    def dump(self, value: Any, path: ValuePath) -> Any:
        if type(value) is not self.cls:
            self.refuse(value, path)
        mro = self.cls.__mro__
        base = next((base for base in mro if base.__module__ == "builtins"), mro[1]).__name__
        refuse(
            path,
            f"a {self.text} is a dataclass and derives from {base}: only its fields would arrive. Hold the "
            f"{base} in a field instead, or send a dict of what is needed",
        )

    def restored(self, fields: Any, more: dict[str, Any]) -> Any:
        return self.made(fields, more)  # its own `__new__` has to run


def has_own_layout(cls: Any) -> bool:
    """Returns whether instances of the class hold more than attributes: it derives from list, int, Exception
    or the like.
    """
    if inspect.isabstract(cls):
        return False
    try:
        object.__new__(cls)
    except TypeError:  # Python refuses: another `__new__` must make the instances
        return True
    return False


class NamedTupleCodec(RecordCodec):
    """The codec of a NamedTuple: its items travel in their order. It makes an instance of a plain tuple or
    list of items, too.
    """

    __slots__ = ()

    def dump(self, value: Any, path: ValuePath) -> Any:
        if type(value) is not self.cls:
            self.refuse(value, path)
        depth = check_depth(path)
        if len(value) != len(self.names):
            refuse(path, f"a {self.text} of {len(value)} items; it has {len(self.names)} fields")
        fields = self.tree_of(dict(zip(self.names, value, strict=True)), path, depth)
        node = (INSTANCE.ext, self.tag, self.print, list(fields.values()))
        others = self.attributes.dump(value, path, depth) if self.attributes.has_dict else None
        return Instance((*node, {"d": others}) if others else node)

    def takes_plain(self, tree: Any) -> bool:
        return type(tree) in (tuple, list) and len(tree) <= len(self.names)

    def reject(self, tree: Any) -> NoReturn:
        if type(tree) in (tuple, list):
            raise DecodeError(f"{len(tree)} items arrived, but {self.text} has {len(self.names)} fields")
        super().reject(tree)

    def _values(self, items: Any) -> list[Any]:
        if not self.takes_plain(items):
            self.reject(items)
        return list(self.values_of(dict(zip(self.names, items, strict=False))).values())

    def restored(self, fields: Any, more: dict[str, Any]) -> Any:
        values = self._values(fields)
        if len(values) != len(self.names):
            raise DecodeError(f"{self.text} arrived with {len(values)} of its {len(self.names)} fields")
        made = tuple.__new__(self.cls, values)
        if "d" in more:
            self.attributes.give(made, more["d"], is_same=True)
        return made

    def made(self, fields: Any, more: dict[str, Any]) -> Any:
        values = self._values(fields)
        made = self.build(lambda: self.cls(*values))
        if "d" in more:
            self.attributes.give(made, more["d"], is_same=False)
        return made
