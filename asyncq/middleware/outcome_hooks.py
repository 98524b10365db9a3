"""The outcome hooks of an app: functions that its workers call when a job has ended.

Registration runs on any thread. `worker.outcome_events` calls the hooks.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Coroutine
from typing import TYPE_CHECKING, Any, TypeVar

from asyncq.middleware.job_event import JobEvent
from asyncq.short_repr import brief
from asyncq.states import State

if TYPE_CHECKING:
    from collections.abc import Sequence

OutcomeHook = Callable[[JobEvent], Coroutine[Any, Any, Any]]
"""A coroutine function that gets how a job ended."""

K = TypeVar("K", bound=OutcomeHook)


class OutcomeHooks:
    """The hooks of an app, by the state for which they are called."""

    def __init__(self) -> None:
        self._hooks: dict[State, list[OutcomeHook]] = {}
        self._followers: list[Callable[[], object]] = []

    def add(self, state: State, hook: K) -> K:
        """Registers a hook for a state, and returns it.

        Raises:
            TypeError: it is not a coroutine function.
        """
        if not inspect.iscoroutinefunction(hook):
            name = f"on_{_NAMES[state]}"
            raise TypeError(
                f"@app.{name} decorates a coroutine function, not {brief(hook)}: write "
                "async def hook(event: asyncq.JobEvent) -> None"
            )
        is_first = not self._hooks
        self._hooks.setdefault(state, []).append(hook)
        if is_first:
            for follow in self._followers:
                follow()
        return hook

    def of(self, state: State) -> Sequence[OutcomeHook]:
        """Returns the hooks for a state, in the order of their registration."""
        return self._hooks.get(state, ())

    def call_when_any(self, follow: Callable[[], object]) -> None:
        """Calls a function now if there are hooks, or else when the first is registered, on that thread."""
        self._followers.append(follow)
        if self._hooks:
            follow()

    def forget(self, follow: Callable[[], object]) -> None:
        """Undoes `call_when_any`."""
        self._followers.remove(follow)


_NAMES = {
    State.SUCCESS: "success",
    State.FAILURE: "failure",
    State.RETRY: "retry",
    State.REVOKED: "revoked",
}
