"""Protocols for the parameters of a task, for type checkers only: a task satisfies one by its `delay`.

They are the type of `self` in the overloads of `Task.map`. `Task[[A, B], R]` would be shorter, but then mypy
does not find the types `A` and `B`, and neither mypy nor pyright accepts `Task[[*Ts], R]`. Nothing here runs.
"""

from __future__ import annotations

from typing import Any, Protocol, TypeVar

A_contra = TypeVar("A_contra", contravariant=True)
B_contra = TypeVar("B_contra", contravariant=True)
C_contra = TypeVar("C_contra", contravariant=True)
D_contra = TypeVar("D_contra", contravariant=True)


class Takes0(Protocol):
    """Can be called without arguments."""

    def delay(self, /) -> Any: ...


class Takes1(Protocol[A_contra]):
    """Can be called with one positional argument."""

    def delay(self, a: A_contra, /) -> Any: ...


class Takes2(Protocol[A_contra, B_contra]):
    """Can be called with two positional arguments."""

    def delay(self, a: A_contra, b: B_contra, /) -> Any: ...


class Takes3(Protocol[A_contra, B_contra, C_contra]):
    """Can be called with three positional arguments."""

    def delay(self, a: A_contra, b: B_contra, c: C_contra, /) -> Any: ...


class Takes4(Protocol[A_contra, B_contra, C_contra, D_contra]):
    """Can be called with four positional arguments."""

    def delay(self, a: A_contra, b: B_contra, c: C_contra, d: D_contra, /) -> Any: ...


class Lacks1(Protocol[A_contra]):
    """Can be called with one positional argument, and without it."""

    def delay(self, a: A_contra = ..., /) -> Any: ...


class Lacks2(Protocol[A_contra, B_contra]):
    """Can be called with two positional arguments, and without the second."""

    def delay(self, a: A_contra, b: B_contra = ..., /) -> Any: ...


class Lacks3(Protocol[A_contra, B_contra, C_contra]):
    """Can be called with three positional arguments, and without the third."""

    def delay(self, a: A_contra, b: B_contra, c: C_contra = ..., /) -> Any: ...


class Lacks4(Protocol[A_contra, B_contra, C_contra, D_contra]):
    """Can be called with four positional arguments, and without the fourth."""

    def delay(self, a: A_contra, b: B_contra, c: C_contra, d: D_contra = ..., /) -> Any: ...


class TakesMore(Protocol):
    """Can be called with five positional arguments or more, as a function with `*args` can."""

    def delay(self, a: Any, b: Any, c: Any, d: Any, e: Any, /, *args: Any, **kwargs: Any) -> Any: ...
