"""Annotations: which shape one asks for."""

from __future__ import annotations

import dataclasses
import sys
import types
import typing
from collections import abc
from enum import Enum
from typing import Any, Final, Literal, Union

from asyncq.serializers.classes import (
    ClassShape,
    DataclassShape,
    EnumShape,
    ModelShape,
    NamedTupleShape,
    TypedDictShape,
)
from asyncq.serializers.hints import hints_of
from asyncq.serializers.places import MAX_DEPTH
from asyncq.serializers.shapes import SEQUENCES, SETS, ItemsShape, MappingShape, Shape, TupleShape, UnionShape

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
        return None if item is None else ItemsShape(item, _ITEM_KINDS[origin])
    if origin in _MAPPINGS:
        key, value = (_compile(arg, seen) for arg in args)
        return None if key is None and value is None else MappingShape(key, value)
    cls = annotation if origin is None else origin
    return _compile_class(cls, args, seen) if isinstance(cls, type) else None


def _unwrapped(annotation: Any) -> Any:
    """The annotation below Annotated, Required, NewType, `type X = ...` and the like."""
    for _ in range(MAX_DEPTH):  # `type X = X` exists
        if typing.get_origin(annotation) in _WRAPPERS:
            annotation = typing.get_args(annotation)[0]
        elif isinstance(annotation, typing.NewType):
            annotation = annotation.__supertype__
        # By name: it is typing's from Python 3.12 on, and typing_extensions' before.
        elif type(annotation).__name__ == "TypeAliasType":
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
    # Optional[X] needs no choice: None passes every shape untouched, save an enum with a member None.
    only = shaped[0]
    has_none = isinstance(only, EnumShape) and only.load(None) is not None
    if len(shaped) == 1 and plain == {types.NoneType} and not has_none:
        return only
    return UnionShape(arms, plain)


def _compile_tuple(args: tuple[Any, ...], seen: dict[Any, Shape | None]) -> Shape | None:
    if len(args) == 2 and args[1] is Ellipsis:
        item = _compile(args[0], seen)
        return None if item is None else ItemsShape(item, (tuple,))
    items = tuple(_compile(arg, seen) for arg in args)
    return TupleShape(items) if any(item is not None for item in items) else None


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
        shape.compile(hints_of(cls, args), lambda hint: _compile(hint, seen))
    return shape


def _class_shape(cls: Any) -> ClassShape | None:
    if issubclass(cls, Enum):
        return EnumShape(cls)
    if _is_pydantic(cls):
        return ModelShape(cls)
    if dataclasses.is_dataclass(cls):
        return DataclassShape(cls)
    if issubclass(cls, tuple) and hasattr(cls, "_fields"):
        return NamedTupleShape(cls)
    return None


def _compile_typeddict(cls: Any, args: tuple[Any, ...], seen: dict[Any, Shape | None]) -> Shape | None:
    seen[cls, args] = shape = TypedDictShape()
    shape.required = cls.__required_keys__
    shape.fields = {name: _compile(hint, seen) for name, hint in hints_of(cls, args).items()}
    if all(field is None for field in shape.fields.values()):
        seen[cls, args] = None
        return None
    return shape


def _is_pydantic(cls: type) -> bool:
    # A class can only derive from BaseModel if pydantic is imported, so this never imports it.
    pydantic = sys.modules.get("pydantic")
    return pydantic is not None and issubclass(cls, pydantic.BaseModel)
