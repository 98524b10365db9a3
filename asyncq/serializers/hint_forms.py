"""Simplifies type hints: finds the hint below `Annotated`, aliases and type variables, and replaces
parameters by arguments. Pure functions.
"""

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

# From both modules: on an older Python, typing_extensions has some of them as objects of its own.
_WRAPPERS: Final = frozenset(
    getattr(module, name)
    for module in (typing, typing_extensions)
    for name in ("Annotated", "Final", "ClassVar", "Required", "NotRequired", "ReadOnly")
    if hasattr(module, name)
)


def substituted(hint: Any, given: Mapping[Any, Any]) -> Any:
    """Replaces the parameters in a hint by what is given."""
    if isinstance(hint, TypeVar):
        return given.get(hint, hint)
    parameters = getattr(hint, "__parameters__", ())
    if isinstance(hint, type) or not parameters or not given:
        return hint
    return hint[tuple(given.get(parameter, parameter) for parameter in parameters)]


def is_union(hint: Any) -> bool:
    """Returns whether a hint is `X | Y`, `Union[X, Y]` or `Optional[X]`."""
    origin = typing.get_origin(hint)
    return origin is Union or origin is types.UnionType


def unwrapped(hint: Any) -> Any:
    """Returns the hint below Annotated, Required, NewType, InitVar, `type X = ...`, and a bound TypeVar.

    Returns `Any` if there is nothing below: for `type X = X`, or for an alias that cannot be evaluated.
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
    """Returns whether a hint is what `type X = ...` makes."""
    # By the name of its class: from Python 3.12 on it is in typing, and before in typing_extensions.
    return type(hint).__name__ == "TypeAliasType"


def _of_alias(hint: Any) -> Any:
    alias = hint if is_alias(hint) else typing.get_origin(hint)
    try:
        # An alias of typing_extensions may name itself in a string, which `get_type_hints` evaluates.
        whole = types.SimpleNamespace(__annotations__={"it": alias.__value__})
        value = typing.get_type_hints(whole, vars(sys.modules[alias.__module__]), include_extras=True)["it"]
    except Exception:  # noqa: BLE001  evaluating an alias may raise anything
        return Any
    given = dict(zip(alias.__type_params__, typing.get_args(hint), strict=False))
    return substituted(value, given)


def _of_parameter(parameter: Any) -> Any:
    """Returns what a TypeVar without an argument may be: its default, its constraints or its bound."""
    default = getattr(parameter, "__default__", None)
    if default is not None and getattr(parameter, "has_default", bool)():
        return default
    if parameter.__constraints__:
        return Union[parameter.__constraints__]  # noqa: UP007  built at run time
    return Any if parameter.__bound__ is None else parameter.__bound__


def shown_hint(hint: Any) -> str:
    """Returns an annotation as an error prints it, in at most 200 characters."""
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
