"""Holds the settings of an app about the classes in its values: `types=` and `trust_models=`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from asyncq.serializers.fingerprints import tag_of
from asyncq.serializers.packing import is_to_be_named

if TYPE_CHECKING:
    from collections.abc import Iterable


class Policy:
    """Which classes may be in a value without an annotation, and whether state is taken without validation.

    Args:
        types: the classes, as `AsyncQ(types=[...])` has them.
        trust_models: whether an instance is made of its state, without validation, if its class has the same
            fields on both sides.

    Raises:
        TypeError: something in `types` is no class that can be listed.
        ValueError: two of the classes have one tag.
    """

    __slots__ = ("trust_models", "types")

    def __init__(self, types: Iterable[Any] = (), *, trust_models: bool = True) -> None:
        self.types: tuple[Any, ...] = tuple(types)
        self.trust_models: bool = trust_models
        tags: dict[str, Any] = {}
        for cls in self.types:
            if not isinstance(cls, type) or not is_to_be_named(cls):
                raise TypeError(
                    f"types= of an app lists enums, dataclasses, NamedTuples and pydantic models, not {cls!r}"
                )
            other = tags.setdefault(tag_of(cls), cls)
            if other is not cls:
                raise ValueError(
                    f"types= lists two classes called {tag_of(cls)} on the wire, {other!r} and {cls!r}: give "
                    f"one of them a class attribute asyncq_alias"
                )


DEFAULT: Final = Policy()
"""The policy of values that belong to no app."""
