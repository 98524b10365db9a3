"""Hints: how the annotations of a function or a class are resolved."""

from __future__ import annotations

import functools
import inspect
import sys
import types
import typing
from typing import TYPE_CHECKING, Any, TypeVar

if TYPE_CHECKING:
    from collections.abc import Mapping


def hints_of(owner: Any, args: tuple[Any, ...] = ()) -> dict[str, Any]:
    """The resolved annotations of a function or class, without those that cannot be resolved."""
    owner = _annotated(owner)
    try:
        hints = typing.get_type_hints(owner, include_extras=True)
    except Exception:  # noqa: BLE001  evaluating an annotation may raise anything
        hints = _hints_one_by_one(owner)
    given = dict(zip(getattr(owner, "__parameters__", ()), args, strict=False))
    return {name: _substitute(hint, given) for name, hint in hints.items()} if given else hints


def _annotated(owner: Any) -> Any:
    """What has the annotations of a callable: the function of a partial, the `__call__` of an object."""
    while isinstance(owner, functools.partial):
        owner = owner.func
    if isinstance(owner, type) or hasattr(owner, "__annotations__"):
        return owner
    return type(owner).__call__ if callable(owner) and not inspect.isroutine(owner) else owner


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
