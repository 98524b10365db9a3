"""Says what kind of task a callable makes, and awaits the coroutines that a plain function returns.

Registration calls `kind_of`; the runner calls the rest, on whatever thread runs the body.
"""

from __future__ import annotations

import asyncio
import functools
import inspect
import types
from collections import abc
from typing import TYPE_CHECKING, Any, Final, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterator

_FUNCTIONS: Final = (
    types.FunctionType,
    types.MethodType,
    types.BuiltinFunctionType,
    types.MethodWrapperType,
    types.WrapperDescriptorType,
    types.MethodDescriptorType,
)

_GENERATORS: Final = (types.GeneratorType, types.AsyncGeneratorType)
_UNFINISHED: Final = (*_GENERATORS, abc.Coroutine)
_PLAIN: Final = frozenset({type(None), bool, int, float, str, bytes, list, tuple, dict})


class Kind(NamedTuple):
    """What a call of a function returns.

    Attributes:
        is_async: whether it is a coroutine or an async generator, which runs on an event loop.
        is_generator: whether it is a generator, async or not.
    """

    is_async: bool
    is_generator: bool


def kind_of(function: Callable[..., Any]) -> Kind:
    """Returns what a call of the function gives, as far as that is known before the call.

    It looks through `functools.partial`, and at `__call__` of an object. A plain wrapper of an async
    generator function (with `functools.wraps`) counts as one. A plain wrapper of a coroutine function does
    not: it may have an event loop of its own, so it runs in a thread, and a coroutine that it returns is
    awaited.

    Example:
        >>> kind_of(len)
        Kind(is_async=False, is_generator=False)
    """
    for layer in _layers(function):
        if inspect.isasyncgenfunction(layer):
            return Kind(is_async=True, is_generator=True)
        if inspect.isgeneratorfunction(layer):
            return Kind(is_async=False, is_generator=True)
        if inspect.iscoroutinefunction(layer):
            return Kind(is_async=True, is_generator=False)
    hands_on = inspect.isasyncgenfunction(inspect.unwrap(function))
    return Kind(is_async=hands_on, is_generator=hands_on)


def _layers(function: Any) -> Iterator[Any]:
    """Yields the callable, and each callable that it calls without doing anything else."""
    while True:
        yield function
        if isinstance(function, functools.partial):
            function = function.func
        elif isinstance(function, (*_FUNCTIONS, type)):
            return
        else:
            function = type(function).__call__


async def finished(value: Any) -> Any:
    """Awaits a coroutine, and again if the coroutine returns a coroutine. Returns any other value as it is.

    Raises:
        TypeError: the value is a generator, and the task is not a generator task.
    """
    while issubclass(type(value), abc.Coroutine):
        value = await value
    if issubclass(type(value), _GENERATORS):
        raise TypeError(
            f"the task returned a generator, {value.__qualname__}(), but was registered as a plain function: "
            "register the generator function itself to stream what it yields (a decorator on it must be a "
            "generator function, too), or return a list"
        )
    return value


async def awaited(body: Awaitable[Any]) -> Any:
    """Awaits a body, and what it returns, see `finished`."""
    return await finished(await body)


def is_unfinished(value: Any) -> bool:
    """Says whether `finished` has anything to do with a value."""
    kind = type(value)
    return kind not in _PLAIN and issubclass(kind, _UNFINISHED)  # `_PLAIN` first, for speed: `abc` is slow


def run_here(function: Callable[..., Any]) -> Callable[..., Any]:
    """Returns a function that calls this one on the current thread.

    If the function returns a coroutine, the coroutine runs on an event loop of its own.
    """

    def call(*args: Any, **kwargs: Any) -> Any:
        value = function(*args, **kwargs)
        return asyncio.run(finished(value)) if is_unfinished(value) else value

    return call
