"""Forms of hints: what is below `Annotated`, aliases and type variables, and what stands for parameters."""

from __future__ import annotations

import dataclasses
import sys
import types
import typing
from typing import TYPE_CHECKING, Any, Final, TypeVar, Union

import typing_extensions

from asyncq.serializers.value_paths import MAX_DEPTH

if TYPE_CHECKING:
    from collections.abc import Mapping

# Some are others in typing_extensions, on a Python that has not all that they can do.
_WRAPPERS: Final = frozenset(
    getattr(module, name)
    for module in (typing, typing_extensions)
    for name in ("Annotated", "Final", "ClassVar", "Required", "NotRequired", "ReadOnly")
    if hasattr(module, name)
)


def substituted(hint: Any, given: Mapping[Any, Any]) -> Any:
    """The hint, with what is given in the place of its parameters."""
    if isinstance(hint, TypeVar):
        return given.get(hint, hint)
    parameters = getattr(hint, "__parameters__", ())
    if isinstance(hint, type) or not parameters or not given:
        return hint
    return hint[tuple(given.get(parameter, parameter) for parameter in parameters)]


def is_union(hint: Any) -> bool:
    """Whether it is `X | Y`, `Union[X, Y]` or `Optional[X]`."""
    origin = typing.get_origin(hint)
    return origin is Union or origin is types.UnionType


def unwrapped(hint: Any) -> Any:
    """The hint below Annotated, Required, NewType, InitVar, `type X = ...`, and a bound TypeVar.

    `Any` if there is nothing below: `type X = X` exists, and so do aliases that cannot be evaluated.
    """
    for _ in range(MAX_DEPTH):
        origin = typing.get_origin(hint)
        if origin in _WRAPPERS:
            hint = typing.get_args(hint)[0]
        elif isinstance(hint, typing.NewType):
            hint = hint.__supertype__
        elif isinstance(hint, dataclasses.InitVar):
            hint = hint.type
        elif isinstance(hint, TypeVar):
            hint = _of_parameter(hint)
        elif is_alias(hint) or is_alias(origin):
            hint = _of_alias(hint)
        else:
            return hint
    return Any


def is_alias(hint: Any) -> bool:
    """Whether it is what `type X = ...` makes."""
    # By name: it is typing's from Python 3.12 on, and typing_extensions' before.
    return type(hint).__name__ == "TypeAliasType"


def _of_alias(hint: Any) -> Any:
    alias = hint if is_alias(hint) else typing.get_origin(hint)
    try:
        # One of typing_extensions names itself in a string.
        whole = types.SimpleNamespace(__annotations__={"it": alias.__value__})
        value = typing.get_type_hints(whole, vars(sys.modules[alias.__module__]), include_extras=True)["it"]
    except Exception:  # noqa: BLE001  it is evaluated here, which may raise anything
        return Any
    given = dict(zip(alias.__type_params__, typing.get_args(hint), strict=False))
    return substituted(value, given)


def _of_parameter(parameter: Any) -> Any:
    """What a TypeVar that nothing was given for may stand for: its default, bound or constraints."""
    default = getattr(parameter, "__default__", None)
    if default is not None and getattr(parameter, "has_default", bool)():
        return default
    if parameter.__constraints__:
        return Union[parameter.__constraints__]  # noqa: UP007  built at run time
    return Any if parameter.__bound__ is None else parameter.__bound__


def shown_hint(hint: Any) -> str:
    """An annotation as an error prints it, in at most 200 characters."""
    if hint is types.NoneType:
        return "None"
    if isinstance(hint, type) and not typing.get_args(hint):
        return (
            hint.__qualname__ if hint.__module__ == "builtins" else f"{hint.__module__}.{hint.__qualname__}"
        )
    if is_union(hint):
        text = " | ".join(map(shown_hint, typing.get_args(hint)))
    else:
        text = str(hint).replace("typing.", "")
    return text if len(text) <= 200 else text[:197] + "..."
