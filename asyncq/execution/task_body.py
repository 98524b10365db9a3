"""What whoever runs a task needs of it. Every task is one; nothing here knows of an app."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from collections.abc import Callable

    from asyncq.context import Owner
    from asyncq.execution.retry import Retry
    from asyncq.serializers import ArgumentCodec, ValueCodec


class TaskBody(Protocol):
    """A task's function, how it is run, and how its arguments and values travel."""

    @property
    def app(self) -> Owner:
        """The app that it is registered with."""
        ...

    name: str
    function: Callable[..., Any]
    is_coroutine: bool
    is_generator: bool
    executor: str
    retry: Retry | None
    timeout: float | None
    soft_timeout: float | None
    has_time_limit: bool
    arguments: ArgumentCodec
    returns: ValueCodec
    items: ValueCodec
