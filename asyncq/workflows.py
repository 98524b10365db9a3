"""Signatures: calls as data, to be made later or together."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Generic, TypeVar

if TYPE_CHECKING:
    from asyncq.tasks import Task

R_co = TypeVar("R_co", covariant=True)


@dataclass(frozen=True, slots=True)
class Signature(Generic[R_co]):
    """One call of a task, not made yet: what `task.s(...)` gives and `app.submit` takes.

    Attributes:
        task: the task, with the options of the call.
        args: positional arguments.
        kwargs: keyword arguments.
    """

    task: Task[..., R_co]
    args: tuple[Any, ...]
    kwargs: dict[str, Any]
