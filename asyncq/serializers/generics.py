"""Finds the types of the fields of generic pydantic models, also of models that name themselves.

When such a model gets its arguments (`Tree[int]`), pydantic puts a placeholder for the class into the
annotation of the field, which only pydantic can read. This module takes the annotation of the generic class
instead, and replaces the parameters by the arguments. Nothing here imports pydantic.
"""

from __future__ import annotations

import typing
from typing import Any, TypeVar, Union

from asyncq.serializers.hint_forms import is_union
from asyncq.serializers.hints import hints_of


def fields_of_model(cls: Any) -> dict[str, Any]:
    """Returns the fields of a model with their types."""
    hints = {name: field.annotation for name, field in cls.model_fields.items()}
    return {name: _written(cls, name, hint) if _has_gap(hint) else hint for name, hint in hints.items()}


def _has_gap(hint: Any) -> bool:
    return type(hint).__name__ == "PydanticRecursiveRef" or any(map(_has_gap, typing.get_args(hint)))


def _written(cls: Any, name: str, hint: Any) -> Any:
    """Returns the annotation of a field as the generic class has it, with the parameters replaced."""
    for owner in cls.__mro__:
        generic = vars(owner).get("__pydantic_generic_metadata__")
        origin = generic and generic["origin"]
        if origin is not None and name in origin.model_fields:
            parameters = origin.__pydantic_generic_metadata__["parameters"]
            given = dict(zip(parameters, generic["args"], strict=False))
            return _given(hints_of(origin).get(name, hint), given)
    return hint


def _given(hint: Any, given: dict[Any, Any]) -> Any:
    """Replaces the parameters in a hint by what is given, also in the models that it names."""
    if isinstance(hint, TypeVar):
        return given.get(hint, hint)
    if isinstance(hint, type) and not typing.get_args(hint):
        # Pydantic makes `Tree` of `Tree[T]` if T is the parameter of Tree, so the parameters are implied.
        generic: Any = hint
        parameters = (vars(hint).get("__pydantic_generic_metadata__") or {}).get("parameters", ())
        return generic[tuple(given.get(each, each) for each in parameters)] if parameters else hint
    args = typing.get_args(hint)
    origin: Any = typing.get_origin(hint)
    if not args or origin is typing.Literal:
        return hint
    if origin is typing.Annotated:
        return _given(args[0], given)
    inner = tuple(arg if isinstance(arg, list) else _given(arg, given) for arg in args)
    if inner == args:
        return hint
    return Union[inner] if is_union(hint) else origin[inner]  # noqa: UP007  built at run time
