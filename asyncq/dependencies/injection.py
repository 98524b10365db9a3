"""The dependencies of one task, as its function declares them: found and checked when it is registered.

Pure functions over signatures. `Injection.face` is the function as callers see it, without the parameters
that the worker fills: arguments are checked against it, and its annotations are those of a call.
"""

from __future__ import annotations

import functools
import inspect
import types
import typing
from typing import TYPE_CHECKING, Any

from asyncq.context import current
from asyncq.dependencies.depends import Dependency, key_of, name_of

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping


class Injection:
    """What a worker gives to the function of a task.

    Attributes:
        parameters: the dependencies by the names of the parameters.
        face: a function with the other parameters only; it is never called.
        most_positional: how many positional arguments a call may have; None if there is no limit.
    """

    __slots__ = ("_name", "_positions", "face", "most_positional", "parameters")

    def __init__(
        self, parameters: dict[str, Dependency], positions: list[tuple[int, str]], face: Callable[..., Any]
    ) -> None:
        self.parameters: dict[str, Dependency] = parameters
        self._positions = positions
        self.face: Callable[..., Any] = face
        self.most_positional: int | None = _most_positional(face)
        self._name: str = name_of(face)

    @classmethod
    def of(cls, function: Callable[..., Any]) -> Injection | None:
        """Returns what a function declares; None if it declares nothing."""
        signature = inspect.signature(function)
        parameters = _dependencies(signature)
        if not parameters:
            return None
        named = list(signature.parameters.values())
        positions = [
            (index, one.name)
            for index, one in enumerate(named)
            if one.kind is one.POSITIONAL_OR_KEYWORD and one.name in parameters
        ]
        others = [one for one in named if one.name not in parameters]
        face = _face(function, signature.replace(parameters=others), frozenset(parameters))
        return cls(parameters, positions, face)

    def check(self, name: str) -> None:
        """Checks the dependencies, and those of the dependencies.

        Args:
            name: of the task, for the message.

        Raises:
            TypeError: a dependency has a parameter that nothing fills.
            ValueError: one with the scope of a worker depends on one with the scope of a job.
        """
        self._name = name
        for parameter, dependency in self.parameters.items():
            _check(dependency, f"the parameter {parameter!r} of {name}")

    def by_name(self, function: Callable[..., Any]) -> Injection:
        """Returns the same dependencies for a function that takes each of them by its name."""
        return Injection(self.parameters, [], function)

    def placed(
        self, args: list[Any], kwargs: dict[str, Any], given: Mapping[str, Any]
    ) -> tuple[list[Any], dict[str, Any]]:
        """Returns the arguments of the function: those of a call, and the instances in their places.

        Raises:
            TypeError: the call has an argument for a dependency, or too many. A caller that knows only the
                name of the task can send such a call.

        >>> from asyncq import Depends
        >>> f = lambda a, b=Depends(int), *rest, c=Depends(int): None
        >>> Injection.of(f).placed([1, 2, 3], {}, {"b": "B", "c": "C"})
        ([1, 'B', 2, 3], {'c': 'C'})
        """
        for name in self.parameters:
            if name in kwargs:
                raise TypeError(f"the argument {name} was sent, but the worker fills it")
        if self.most_positional is not None and len(args) > self.most_positional:
            face, filled = f"{self._name}{inspect.signature(self.face)}", ", ".join(self.parameters)
            raise TypeError(
                f"{face}: {len(args)} positional arguments were sent, and it takes {self.most_positional} at "
                f"most; {filled}: the worker fills what has Depends(...)"
            )
        args, named = list(args), dict(given)
        for index, name in self._positions:
            if len(args) > index:
                args.insert(index, named.pop(name))
        return args, {**kwargs, **named}


def _most_positional(face: Callable[..., Any]) -> int | None:
    """Returns how many positional arguments a function takes; None if there is no limit."""
    kinds = [one.kind for one in inspect.signature(face).parameters.values()]
    if inspect.Parameter.VAR_POSITIONAL in kinds:
        return None
    return sum(kind is not inspect.Parameter.KEYWORD_ONLY for kind in kinds) - (
        inspect.Parameter.VAR_KEYWORD in kinds
    )


def declared_by(function: Callable[..., Any]) -> dict[str, Dependency]:
    """Returns the dependencies of the function of a dependency, by the names of its parameters.

    Raises:
        TypeError: a parameter has neither a default nor a dependency.
    """
    if function is current:
        return {}
    try:
        signature = _signature(function)
    except ValueError:  # what is written in C may have no signature
        return {}
    for one in signature.parameters.values():
        is_filled = one.default is not one.empty or one.kind in {one.VAR_POSITIONAL, one.VAR_KEYWORD}
        if not is_filled:
            raise TypeError(
                f"the dependency {name_of(function)} has a parameter {one.name!r} that nothing fills: give "
                "it a default, such as Depends(...)"
            )
    return _dependencies(signature)


def _signature(function: Callable[..., Any]) -> inspect.Signature:
    """Returns the parameters that the call of a dependency may fill."""
    if not isinstance(function, type):
        return inspect.signature(function)
    # Not `signature(function)`: that of a pydantic model has all fields, which may come from elsewhere.
    made_by: Any = inspect.getattr_static(function, "__init__")
    if not isinstance(made_by, types.FunctionType):
        return inspect.Signature()
    signature = inspect.signature(made_by)
    return signature.replace(parameters=list(signature.parameters.values())[1:])


def refuse_annotated(name: str, hints: Mapping[str, Any]) -> None:
    """Refuses `Annotated[Pool, Depends(get_pool)]`, for which type checkers would ask at `delay`.

    Args:
        name: of the task.
        hints: the annotations of its face.

    Raises:
        TypeError: there is one.
    """
    for parameter, hint in hints.items():
        metadata = typing.get_args(hint)[1:] if typing.get_origin(hint) is typing.Annotated else ()
        if any(isinstance(each, Dependency) for each in metadata):
            raise TypeError(
                f"the parameter {parameter!r} of {name} has Depends in its annotation; make it the default: "
                f"{parameter}: ... = Depends(...)"
            )


def _dependencies(signature: inspect.Signature) -> dict[str, Dependency]:
    found: dict[str, Dependency] = {}
    for name, one in signature.parameters.items():
        if isinstance(one.default, Dependency):
            if one.kind is one.POSITIONAL_ONLY:
                raise TypeError(f"the parameter {name!r} is filled by its name: put it behind the `/`")
            found[name] = one.default
        elif _is_of_fastapi(one.default):
            raise TypeError(
                f"the parameter {name!r} has FastAPI's Depends, which only endpoints of FastAPI have filled: "
                "use that of asyncq (`from asyncq import Depends`)"
            )
    return found


def _is_of_fastapi(default: object) -> bool:
    """Returns whether a default is a `Depends` of FastAPI, without an import of FastAPI."""
    return any(
        (base.__module__, base.__qualname__) == ("fastapi.params", "Depends")
        for base in type(default).__mro__
    )


def _check(dependency: Dependency, where: str, above: tuple[Dependency, ...] = ()) -> None:
    if any(key_of(one.function) == key_of(dependency.function) for one in above):
        raise ValueError(f"{where}: {name_of(dependency.function)} depends on itself")
    for parameter, inner in declared_by(dependency.function).items():
        path = f"the parameter {parameter!r} of {name_of(dependency.function)}"
        if dependency.scope == "worker" and (inner.scope != "worker" or inner.function is current):
            raise ValueError(
                f"{path} is {inner!r}, which exists for one job only, but {where} has "
                f'{dependency!r}: give the inner one scope="worker", too, or leave out that of the outer one'
            )
        _check(inner, path, (*above, dependency))


def _face(
    function: Callable[..., Any], signature: inspect.Signature, names: frozenset[str]
) -> Callable[..., Any]:
    """Returns a function with some of the parameters only. It has the code of the original, because the names
    in annotations are looked up where that one is defined.
    """
    annotated: Any = function
    while isinstance(annotated, functools.partial):
        annotated = annotated.func
    if not isinstance(annotated, types.FunctionType | types.MethodType):
        annotated = type(annotated).__call__
    inner: Any = inspect.unwrap(annotated)
    inner = getattr(inner, "__func__", inner)
    face = types.FunctionType(inner.__code__, inner.__globals__, inner.__name__, None, inner.__closure__)
    face.__module__, face.__qualname__, face.__doc__ = inner.__module__, inner.__qualname__, inner.__doc__
    face.__annotations__ = {name: hint for name, hint in inner.__annotations__.items() if name not in names}
    face.__dict__["__signature__"] = signature
    return face
