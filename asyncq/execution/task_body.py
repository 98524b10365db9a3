"""What the runner needs of a task: a protocol that every `Task` fulfils. Nothing here knows an app."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from collections.abc import Callable

    from asyncq.context import Owner
    from asyncq.dependencies.injection import Injection
    from asyncq.execution.retry import Retry
    from asyncq.serializers import ArgumentCodec, ValueCodec


class TaskBody(Protocol):
    """A task's function, how it runs, and how its arguments and values are encoded."""

    @property
    def app(self) -> Owner:
        """The app that the task is registered with."""
        ...

    name: str
    function: Callable[..., Any]
    is_coroutine: bool
    is_generator: bool
    is_composed: bool
    """Whether its body is more than one call: it is a generator, or has dependencies."""

    @property
    def injection(self) -> Injection | None:
        """Its dependencies; None if it has none."""
        ...

    executor: str
    retry: Retry | None
    timeout: float | None
    soft_timeout: float | None
    has_time_limit: bool
    arguments: ArgumentCodec
    returns: ValueCodec
    items: ValueCodec
