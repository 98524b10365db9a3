"""The codecs of pydantic's classes: models, and classes that hold one plain value (URLs, secrets).

Nothing here imports pydantic: a program with such a class has imported it. If writer and reader have the same
fields, no validator or serializer runs. Otherwise, or without `trust_models`, the reader has pydantic
validate the fields.
"""

# ruff: noqa: D102  `type_codecs` describes dump, load and takes_plain

from __future__ import annotations

import inspect
import ipaddress
import sys
from datetime import date, datetime
from typing import TYPE_CHECKING, Any, Final

from asyncq.errors import DecodeError, SerializationError
from asyncq.serializers.aliases import fields_by_alias, infos_of, renamed
from asyncq.serializers.dataclass_codecs import PLAIN, RecordCodec
from asyncq.serializers.encoded import encoders_of
from asyncq.serializers.instance_attributes import Attributes
from asyncq.serializers.packing import ready
from asyncq.serializers.trees import INSTANCE, Instance
from asyncq.serializers.type_codecs import ClassValueCodec, TypeCodec, bare, dumped, loaded, put_in_front
from asyncq.serializers.value_paths import FIELD, ValuePath, check_depth, refuse, shown

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from asyncq.serializers.policy import Policy

_set: Final = object.__setattr__  # the `__setattr__` of a frozen model refuses; pydantic does this, too


def is_model(cls: type) -> bool:
    """Returns whether a class is a pydantic model. `BaseModel` itself is none."""
    # Looks for pydantic in `sys.modules`: no class can derive from BaseModel before it is imported.
    pydantic = sys.modules.get("pydantic")
    return pydantic is not None and issubclass(cls, pydantic.BaseModel) and cls is not pydantic.BaseModel


def is_any_model(hint: Any) -> bool:
    """Returns whether a hint is `BaseModel` itself, which says as little about the fields as `Any`."""
    pydantic = sys.modules.get("pydantic")
    return pydantic is not None and hint is pydantic.BaseModel


class ModelCodec(RecordCodec):
    """The codec of a pydantic model. Its fields travel, the names of those that were set, extra fields, and
    private attributes.
    """

    __slots__ = ("_aliases", "_all", "_by_name", "_codecs", "_encoders", "_extra", "_privates", "is_root")

    def __init__(self, cls: Any, tag: str, policy: Policy) -> None:
        super().__init__(cls, tag, policy)
        self.is_root: bool = bool(cls.__pydantic_root_model__)
        self._all: frozenset[str] = frozenset(cls.model_fields)
        self._privates: Mapping[str, Any] = cls.__private_attributes__
        infos = infos_of(cls)
        self._aliases: Mapping[str, str] = fields_by_alias(infos)
        self._encoders: Mapping[str, Callable[[Any], Any]] = encoders_of(infos)
        # pydantic 2.10 has no `by_name`. And a constructor of the class's own gets the fields under the names
        # that came, so they must be renamed before.
        self._by_name: bool = (
            not cls.__pydantic_custom_init__ and "by_name" in inspect.signature(cls.model_validate).parameters
        )
        self._extra: bool = cls.model_config.get("extra") == "allow"
        self._codecs: Mapping[str, TypeCodec | None] = {}

    def finish_others(self, codecs: Mapping[str, TypeCodec | None]) -> None:
        """Sets the codecs of the private attributes, and of the extra fields under `""`."""
        self._codecs = codecs

    def dump(self, value: Any, path: ValuePath) -> Any:
        if type(value) is not self.cls:
            self.refuse(value, path)
        depth = check_depth(path)
        fields = self.tree_of(value.__dict__, path, depth)
        extra, private = value.__pydantic_extra__, value.__pydantic_private__
        holds_more = len(value.__dict__) != len(self.names) or self.attributes.slots
        if value.__pydantic_fields_set__ == self._all and not extra and not private and not holds_more:
            return Instance((INSTANCE.ext, self.tag, self.print, fields))
        more: dict[str, Any] = {}
        if value.__pydantic_fields_set__ != self._all.union(extra or ()):
            more["s"] = sorted(value.__pydantic_fields_set__)
        if extra:
            codec = self._codecs.get("")
            more["x"] = {
                name: ready(dumped(codec, item, inner_path), inner_path)
                for name, item, inner_path in (
                    (name, item, (path, FIELD, name, depth)) for name, item in extra.items()
                )
            }
        if private:
            more["p"] = self._dump_privates(private, path, depth)
        others = self.attributes.dump(value, path, depth) if holds_more else None
        if others:
            more["d"] = others
        node = (INSTANCE.ext, self.tag, self.print, fields)
        return Instance((*node, more) if more else node)

    def _dump_privates(self, private: Mapping[str, Any], path: ValuePath, depth: int) -> dict[str, Any]:
        """Returns the tree of the private attributes."""
        tree = {}
        for name, value in private.items():
            inner_path = (path, FIELD, name, depth)
            try:
                tree[name] = ready(dumped(self._codecs.get(name), value, inner_path), inner_path)
            except SerializationError:
                # A lock or a client, say. It is left out if there is a default: the reader makes its own.
                if name not in self._privates or not _has_default(self._privates[name]):
                    raise
        return tree

    def takes_plain(self, tree: Any) -> bool:
        return self.is_root or type(tree) is dict

    def restored(self, fields: Any, more: dict[str, Any]) -> Any:
        values = self.complete_values_of(fields)
        cls = self.cls
        made = cls.__new__(cls)
        _set(made, "__dict__", values)
        if not more and not self._privates:
            _set(made, "__pydantic_fields_set__", set(self._all))
            _set(made, "__pydantic_extra__", {} if self._extra else None)
            _set(made, "__pydantic_private__", None)
            return made
        extra = self._extra_of(more)
        _set(made, "__pydantic_extra__", extra)
        _set(made, "__pydantic_fields_set__", self._set_of(more, extra))
        _set(made, "__pydantic_private__", self._private_of(more) if self._privates else None)
        if "d" in more:
            self.attributes.give(made, more["d"], is_same=True)
        return made

    def _extra_of(self, more: dict[str, Any]) -> dict[str, Any] | None:
        """Returns the extra fields that came."""
        extra = more.get("x", {})
        if type(extra) is not dict or (extra and not self._extra):
            raise DecodeError(f"{self.text} arrived with extra fields, which it does not allow")
        codec = self._codecs.get("")
        return {name: loaded(codec, item) for name, item in extra.items()} if self._extra else None

    def _set_of(self, more: dict[str, Any], extra: dict[str, Any] | None) -> set[str]:
        """Returns the names of the fields that were set."""
        known = self._all.union(extra or ())
        names = more.get("s")
        if names is None:
            return set(known)
        if type(names) is not list or not all(type(name) is str for name in names):
            raise DecodeError(f"{self.text} arrived without the names of the fields that were set")
        return set(names)

    def _private_of(self, more: dict[str, Any]) -> dict[str, Any]:
        """Returns the private attributes: those that came, and the defaults of the others."""
        arrived = self._arrived(more)
        private = {}
        for name, attribute in self._privates.items():
            if name in arrived:
                private[name] = arrived[name]
            elif _has_default(attribute):
                private[name] = self.build(attribute.default_factory or attribute.get_default)
        for name in more.get("p", ()):
            if name not in self._privates:
                raise DecodeError(f"{self.text} arrived with an unknown private attribute {shown(name)}")
        return private

    def _arrived(self, more: dict[str, Any]) -> dict[str, Any]:
        """Returns the private attributes that came and that the class has."""
        arrived = more.get("p", {})
        if type(arrived) is not dict:
            raise DecodeError(f"{self.text} arrived without its private attributes")
        private = {}
        name = ""
        try:
            for name in self._privates:
                if name in arrived:
                    private[name] = loaded(self._codecs.get(name), arrived[name])
        except DecodeError as error:
            put_in_front(FIELD.format(name), error)
            raise
        return private

    def made(self, fields: Any, more: dict[str, Any]) -> Any:
        made = self._validated(fields, more)
        if "p" in more and made.__pydantic_private__ is not None:
            made.__pydantic_private__.update(self._arrived(more))
        if "d" in more:
            self.attributes.give(made, more["d"], is_same=False)
        if "s" in more:
            known = {*self._all, *(made.__pydantic_extra__ or ())}
            _set(made, "__pydantic_fields_set__", self._set_of(more, made.__pydantic_extra__) & known)
        return made

    def _validated(self, fields: Any, more: dict[str, Any]) -> Any:
        """Has pydantic make an instance of the fields that came."""
        if self.is_root:
            root = fields.get("root") if more is not PLAIN and type(fields) is dict else fields
            items = {"root": self._soft("root", root)}
            return self.build(lambda: self.cls.model_validate(self._taken(items, more)["root"]))
        if type(fields) is not dict:
            self.reject(fields)
        names: Mapping[str, str] = self._aliases if more is PLAIN else {}
        came: dict[str, Any] = fields
        given = {name: self._soft(names.get(name, name), item) for name, item in came.items()}
        extra = more.get("x")
        if type(extra) is dict:
            given |= {name: self._soft(name, item) for name, item in extra.items()}
        return self.build(lambda: self._by_pydantic(self._taken(given, more), is_plain=more is PLAIN))

    def _by_pydantic(self, fields: dict[str, Any], *, is_plain: bool) -> Any:
        """Calls pydantic's validation with fields by name or by alias."""
        # Plain values come from a caller that knows only the task's name: it may use the aliases of the class
        # or the names of the fields. An instance travels with the names of its fields, because an alias for
        # writing need not be one for reading.
        if not self._by_name:
            return self.cls.model_validate(renamed(self.cls, fields))
        return self.cls.model_validate(fields, by_name=True, by_alias=None if is_plain else False)

    def _taken(self, given: dict[str, Any], more: dict[str, Any]) -> dict[str, Any]:
        """Returns the fields in the form that validation takes: fields that it would decode are encoded."""
        if more is not PLAIN:
            for name, encoder in self._encoders.items():
                if name in given:
                    given[name] = encoder(given[name])
        return given

    def _soft(self, name: str, item: Any) -> Any:
        """Returns the value of a field for pydantic: decoded if it fits the annotation, else as it came."""
        codec = self.fields[name] if name in self.fields else self._codecs.get("")
        # `_taken` encodes this field again, and its encoder needs plain values.
        if name in self._encoders and not self.means_another_class(codec, item):
            return bare(item)
        try:
            return loaded(codec, item)
        except DecodeError as error:
            if self.means_another_class(codec, item):
                put_in_front(FIELD.format(name), error)
                raise
            return bare(item)


def _has_default(attribute: Any) -> bool:
    undefined = sys.modules["pydantic_core"].PydanticUndefined
    return attribute.default is not undefined or attribute.default_factory is not None


class ConvertedCodec(ClassValueCodec):
    """The codec of a pydantic class that holds one plain value: a URL, a secret.

    Args:
        cls: the class.
        tag: its name on the wire.
        plain: returns the plain value of an instance.
        inner: the codec of the plain value.
        is_tagged: whether the tag is written, as inside of a union.
    """

    __slots__ = ("_attributes", "_inner", "_plain")

    def __init__(
        self, cls: Any, tag: str, plain: Callable[[Any], Any], inner: TypeCodec | None, *, is_tagged: bool
    ) -> None:
        super().__init__(cls, tag, is_tagged=is_tagged)
        self._plain = plain
        self._inner = inner
        is_pydantics = cls.__module__.partition(".")[0] in _PYDANTICS
        self._attributes = None if is_pydantics else Attributes(cls, _HELD, None)

    def dump(self, value: Any, path: ValuePath) -> Any:
        if type(value) is not self.cls:
            self.refuse(value, path)
        for name in () if self._attributes is None else self._attributes.of(value):
            refuse(
                path,
                f"a {self.text} with an attribute {name}: only its value would arrive. Hold both in the "
                f"fields of a dataclass or model",
            )
        try:
            plain = self._plain(value)
        except Exception as error:  # noqa: BLE001  a class derived from pydantic's is foreign code
            refuse(path, f"a {self.text} cannot be read: {error}")
        return self.tagged(dumped(self._inner, plain, path), path)

    def takes_plain(self, tree: Any) -> bool:
        try:
            self._value(tree)
        except DecodeError:
            return False
        return True

    def load(self, tree: Any) -> Any:
        return self._value(self.untagged(tree))

    def _value(self, tree: Any) -> Any:
        plain = loaded(self._inner, tree)
        try:
            return self.cls(plain)
        except Exception as error:
            raise DecodeError(f"the value received does not make a {self.text}: {error}") from error


def converted(cls: Any) -> tuple[Callable[[Any], Any], Any] | None:
    """Returns the function that makes a plain value of an instance of such a pydantic class, and the type of
    the value; None for other classes. The type is None if it is the argument of a generic class.
    """
    for base in cls.__mro__:
        found = _CONVERTED.get((base.__module__, base.__name__))
        if found is not None:
            return found
    return None


_PYDANTICS: Final = frozenset({"pydantic", "pydantic_core"})
_HELD: Final = ("_secret_value", "_url")
"""The attributes in which pydantic's classes hold the value."""


def _secret(value: Any) -> Any:
    return value.get_secret_value()


_CONVERTED: Final[dict[tuple[str, str], tuple[Callable[[Any], Any], Any]]] = {
    ("pydantic.types", "SecretStr"): (_secret, str),
    ("pydantic.types", "SecretBytes"): (_secret, bytes),
    ("pydantic.types", "Secret"): (_secret, None),
    ("pydantic.types", "ByteSize"): (int, int),
    ("pydantic.networks", "_BaseUrl"): (str, str),
    ("pydantic.networks", "_BaseMultiHostUrl"): (str, str),
    ("pydantic_core._pydantic_core", "Url"): (str, str),
    ("pydantic_core._pydantic_core", "MultiHostUrl"): (str, str),
}

_STANDS_FOR: Final[dict[str, Any]] = {
    "AwareDatetime": datetime,
    "NaiveDatetime": datetime,
    "PastDatetime": datetime,
    "FutureDatetime": datetime,
    "PastDate": date,
    "FutureDate": date,
    "EmailStr": str,
    "IPvAnyAddress": ipaddress.IPv4Address | ipaddress.IPv6Address,
    "IPvAnyInterface": ipaddress.IPv4Interface | ipaddress.IPv6Interface,
    "IPvAnyNetwork": ipaddress.IPv4Network | ipaddress.IPv6Network,
}


def stands_for(cls: Any) -> Any:
    """Returns the type of the values of a field whose pydantic annotation has no instances of its own, such
    as `EmailStr`; None for other annotations.
    """
    return _STANDS_FOR.get(cls.__name__) if cls.__module__.partition(".")[0] == "pydantic" else None
