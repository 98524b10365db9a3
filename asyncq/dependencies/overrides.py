"""Overrides of dependencies: `with app.override({get_pool: fake_pool}):`, for tests.

They hold for all jobs of the app that begin in this process meanwhile, on any thread.
"""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from asyncq.dependencies.depends import key_of, name_of
from asyncq.dependencies.injection import declared_by
from asyncq.short_repr import brief

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping


class Overrides:
    """What stands for the functions of dependencies."""

    def __init__(self) -> None:
        self._instead: dict[Any, Callable[..., Any]] = {}

    def of(self, function: Callable[..., Any]) -> Callable[..., Any]:
        """Returns the function that makes the instance of a dependency."""
        instead = self._instead
        return instead.get(key_of(function), function) if instead else function

    @contextmanager
    def block(self, instead: Mapping[Callable[..., Any], Callable[..., Any]]) -> Iterator[None]:
        """Overrides functions while the block runs. A block inside of another one adds to it.

        Raises:
            TypeError: something cannot be called, or a parameter of it is filled by nothing.
            ValueError: a function would depend on itself.
        """
        both = {**self._instead, **{key_of(function): other for function, other in instead.items()}}
        for function, other in instead.items():
            if not callable(function) or not callable(other):
                raise TypeError(
                    f"override({{{brief(function)}: {brief(other)}}}): both must be functions; for a value "
                    "write lambda: value"
                )
            _check(other, both, ())
        before, self._instead = self._instead, both
        try:
            yield
        finally:
            self._instead = before


def _check(
    function: Callable[..., Any], instead: Mapping[Any, Callable[..., Any]], above: tuple[Any, ...]
) -> None:
    """Refuses a function that would be needed to make its own instance. The worker would wait for ever."""
    key = key_of(function)
    if key in above:
        raise ValueError(f"with this override, {name_of(function)} would depend on itself")
    for inner in declared_by(function).values():
        _check(instead.get(key_of(inner.function), inner.function), instead, (*above, key))
