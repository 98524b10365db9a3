"""Shapes of classes: enums, dataclasses, pydantic models, NamedTuples and TypedDicts as plain trees."""

# ruff: noqa: D102  what accepts, dump, load and compile do is described once, where each is declared

from __future__ import annotations

import dataclasses
import inspect
from itertools import chain
from typing import TYPE_CHECKING, Any

from asyncq.errors import DecodeError
from asyncq.serializers.places import FIELD, KEY, Place, check_depth, name_of, refuse
from asyncq.serializers.shapes import Shape, bare, dumped, loaded, opened
from asyncq.serializers.trees import Record

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    # How a class gets the shapes of its fields: `annotations` stands above, and hands itself down.
    ShapeOf = Callable[[Any], Shape | None]


class ClassShape(Shape):
    """A class that is itself the annotation."""

    __slots__ = ("cls",)

    def __init__(self, cls: Any) -> None:
        self.cls: Any = cls

    def compile(self, hints: Mapping[str, Any], shape_of: ShapeOf, /) -> None:
        """Compiles the fields. Apart from `__init__`, because a field may name the class again."""

    def accepts(self, value: Any) -> bool:
        return type(value) is self.cls

    def is_other(self, value: Any, place: Place) -> bool:
        """Whether this is a plain value to be left alone; a subclass of the class is an error."""
        if type(value) is self.cls:
            return False
        if isinstance(value, self.cls):
            refuse(
                place,
                f"a value of type {name_of(type(value))}, but the annotation says exactly "
                f"{name_of(self.cls)}, and a subclass would come back as its base."
                f" Annotate {self.cls.__qualname__} | {type(value).__qualname__}",
            )
        return True

    def make(self, build: Callable[[], Any]) -> Any:
        """What `build` makes of the fields received; its refusal is a DecodeError that names the class."""
        try:
            return build()
        except Exception as error:  # the class's own code decides what it refuses, and how
            raise DecodeError(f"the fields received do not make a {name_of(self.cls)}: {error}") from error


class EnumShape(ClassShape):
    """An enum, by value. A plain value that is no member's passes."""

    __slots__ = ()

    def dump(self, value: Any, place: Place) -> Any:
        return value if self.is_other(value, place) else value.value

    def load(self, tree: Any) -> Any:
        tree = bare(tree)
        try:
            return self.cls(tree)
        except (ValueError, TypeError, LookupError):  # what Enum and a careless `_missing_` say to a stranger
            return tree


class DataclassShape(ClassShape):
    """A dataclass, as a dict of its fields. A plain dict of fields is made into it too, as FastAPI does."""

    __slots__ = ("fields", "reason")

    def __init__(self, cls: Any) -> None:
        super().__init__(cls)
        self.fields: dict[str, Shape | None] = {}
        self.reason: str = ""

    def compile(self, hints: Mapping[str, Any], shape_of: ShapeOf, /) -> None:
        for field in dataclasses.fields(self.cls):
            if not field.init:
                self.reason = (
                    f"its field {field.name!r} has init=False, so it cannot be made again from its fields"
                )
            self.fields[field.name] = shape_of(hints.get(field.name))
        needed = inspect.signature(self.cls).parameters.values()
        for parameter in needed:
            if parameter.name not in self.fields and parameter.default is parameter.empty:
                self.reason = f"its __init__ needs {parameter.name!r}, which is not a field"

    def dump(self, value: Any, place: Place) -> Any:
        if self.is_other(value, place):
            return value
        if self.reason:
            refuse(place, f"a {name_of(self.cls)} cannot travel: {self.reason}. Send its fields")
        depth = check_depth(place)
        return Record(
            (name, dumped(shape, getattr(value, name), (place, FIELD, name, depth)))
            for name, shape in self.fields.items()
        )

    def load(self, tree: Any) -> Any:
        tree = opened(tree)
        if type(tree) is not dict:
            return bare(tree)
        fields = {name: loaded(self.fields.get(name), item) for name, item in tree.items()}
        return self.make(lambda: self.cls(**fields))


class ModelShape(ClassShape):
    """A pydantic model: fields that have a shape by that shape, the others as `model_dump` gives them."""

    __slots__ = ("fields", "whole")

    def __init__(self, cls: Any) -> None:
        super().__init__(cls)
        self.fields: dict[str, Shape] = {}
        self.whole: bool = False

    def compile(self, _hints: Mapping[str, Any], shape_of: ShapeOf, /) -> None:
        # A model that serializes itself decides about its whole tree.
        self.whole = (
            bool(self.cls.__pydantic_decorators__.model_serializers) or self.cls.__pydantic_root_model__
        )
        if self.whole:
            return
        for name, field in self.cls.model_fields.items():
            shape = shape_of(field.annotation)
            if shape is not None:
                self.fields[name] = shape

    def dump(self, value: Any, place: Place) -> Any:
        if self.is_other(value, place):
            return value
        depth = check_depth(place)
        try:
            # By name and not by alias, because an alias for writing need not be one for reading.
            tree = value.model_dump(
                mode="python", round_trip=True, by_alias=False, warnings="error", exclude=set(self.fields)
            )
        except Exception as error:  # noqa: BLE001  serializers of the model are foreign code
            refuse(place, f"{name_of(self.cls)}.model_dump() failed: {error}")
        if self.whole:
            return tree
        shaped = (
            (name, shape.dump(getattr(value, name), (place, FIELD, name, depth)))
            for name, shape in self.fields.items()
        )
        return Record(chain(tree.items(), shaped))

    def load(self, tree: Any) -> Any:
        tree = opened(tree)
        if type(tree) is not dict and not self.whole:
            return bare(tree)
        if self.whole:
            return self.make(lambda: self.cls.model_validate(bare(tree), by_name=True, by_alias=False))
        fields = {name: loaded(self.fields.get(name), item) for name, item in tree.items()}
        return self.make(lambda: self.cls.model_validate(fields, by_name=True, by_alias=False))


class NamedTupleShape(ClassShape):
    """A NamedTuple, as the tuple it is."""

    __slots__ = ("fields",)

    def __init__(self, cls: Any) -> None:
        super().__init__(cls)
        self.fields: tuple[tuple[str, Shape | None], ...] = ()

    def compile(self, hints: Mapping[str, Any], shape_of: ShapeOf, /) -> None:
        self.fields = tuple((name, shape_of(hints.get(name))) for name in self.cls._fields)

    def dump(self, value: Any, place: Place) -> Any:
        if self.is_other(value, place):
            return value
        depth = check_depth(place)
        return tuple(
            dumped(shape, item, (place, FIELD, name, depth))
            for (name, shape), item in zip(self.fields, value, strict=True)
        )

    def load(self, tree: Any) -> Any:
        tree = opened(tree)
        if type(tree) not in (tuple, list) or len(tree) > len(self.fields):
            return bare(tree)
        items = [loaded(shape, item) for (_, shape), item in zip(self.fields, tree, strict=False)]
        return self.make(lambda: self.cls(*items))


class TypedDictShape(Shape):
    """A TypedDict: a dict, of which some values have a shape."""

    __slots__ = ("fields", "required")

    def __init__(self) -> None:
        self.fields: dict[str, Shape | None] = {}
        self.required: frozenset[str] = frozenset()

    def accepts(self, value: Any) -> bool:
        return type(value) is dict and self.required <= value.keys() <= self.fields.keys()

    def dump(self, value: Any, place: Place) -> Any:
        if type(value) is not dict:
            return value
        depth = check_depth(place)
        return {
            key: dumped(self.fields.get(key), item, (place, KEY, key, depth)) for key, item in value.items()
        }

    def load(self, tree: Any) -> Any:
        tree = opened(tree)
        if type(tree) is not dict:
            return bare(tree)
        return {bare(key): loaded(self.fields.get(key), item) for key, item in tree.items()}
