"""Overrides of dependencies: `with app.override({get_pool: fake_pool}):`, for tests.

They hold for all jobs of the app that begin in this process meanwhile, on any thread.
"""

from __future__ import annotations

import warnings
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from asyncq.dependencies.depends import key_of, name_of
from asyncq.dependencies.injection import declared_by
from asyncq.short_repr import brief

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping

    from asyncq.dependencies.injection import Injection


class Overrides:
    """What stands for the functions of dependencies."""

    def __init__(self) -> None:
        self._instead: dict[Any, Callable[..., Any]] = {}

    def of(self, function: Callable[..., Any]) -> Callable[..., Any]:
        """Returns the function that makes the instance of a dependency."""
        instead = self._instead
        return instead.get(key_of(function), function) if instead else function

    @contextmanager
    def block(
        self, instead: Mapping[Callable[..., Any], Callable[..., Any]], injections: Iterable[Injection]
    ) -> Iterator[None]:
        """Overrides functions while the block runs. A block inside of another one adds to it. Warns of a
        function on which no task depends: the override has no effect then.

        Args:
            instead: by each function, the one that stands for it.
            injections: the dependencies of all tasks.

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
        needed = _needed(injections, both)
        for function in instead:
            if key_of(function) not in needed:
                # Three frames up: through `contextlib` to the `with` of the user.
                warnings.warn(_no_effect(function, needed.values()), UserWarning, stacklevel=3)
        before, self._instead = self._instead, both
        try:
            yield
        finally:
            self._instead = before


def _needed(injections: Iterable[Injection], instead: Mapping[Any, Callable[..., Any]]) -> dict[Any, Any]:
    """Returns the functions on which tasks depend, directly or through others, by their keys."""
    found: dict[Any, Any] = {}
    waiting = [one.function for injection in injections for one in injection.parameters.values()]
    while waiting:
        function = waiting.pop()
        key = key_of(function)
        if key not in found:
            found[key] = function
            waiting += [one.function for one in declared_by(instead.get(key, function)).values()]
    return found


def _no_effect(function: Callable[..., Any], needed: Iterable[Any]) -> str:
    """Returns the text of the warning of an override that has no effect."""
    name = name_of(function)
    names = sorted({name_of(each) for each in needed})
    if name in names:
        why = "another function of this name is a dependency: was its module imported twice, or reloaded?"
    elif names:
        why = f"dependencies are: {', '.join(names[:10])}"
    else:
        why = "no task that is registered by now has dependencies"
    return f"override() has no effect for {name}, because no task of this app depends on it; {why}"


def _check(
    function: Callable[..., Any], instead: Mapping[Any, Callable[..., Any]], above: tuple[Any, ...]
) -> None:
    """Refuses a function that would be needed to make its own instance. The worker would wait for ever."""
    key = key_of(function)
    if key in above:
        raise ValueError(f"with this override, {name_of(function)} would depend on itself")
    for inner in declared_by(function).values():
        _check(instead.get(key_of(inner.function), inner.function), instead, (*above, key))
