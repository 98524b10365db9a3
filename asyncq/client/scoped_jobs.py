"""Which jobs belong to a scope (`async with app.scope():`).

A session adds each job that it is about to enqueue to the innermost scope around the call. That scope is a
context variable, so it follows the code into tasks and threads. A job that another call has enqueued never
stays in a scope: the scope must not revoke it.
"""

from __future__ import annotations

from contextlib import contextmanager
from contextvars import ContextVar
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

    from asyncq.broker.waiters import Waiter


class ScopedJobs:
    """The jobs that belong to one scope.

    Args:
        owner: the app whose jobs these are.

    Attributes:
        state: `new`, then `open`, then `closed`.
    """

    def __init__(self, owner: object) -> None:
        self.state: str = "new"
        self._owner = owner
        self._outer: ScopedJobs | None = None
        # By job id: the waiter, and how many calls of this scope enqueued the job. The scope holds the
        # waiters, so that it learns of ends also after the handles were dropped.
        self._jobs: dict[str, tuple[Waiter, int]] = {}

    def __len__(self) -> int:
        return len(self._jobs)

    def add(self, waiter: Waiter) -> None:
        """Adds a job that a call inside the scope is about to enqueue."""
        _, calls = self._jobs.get(waiter.id, (waiter, 0))
        self._jobs[waiter.id] = waiter, calls + 1

    def take_back(self, id_: str) -> None:
        """Takes out a job that turned out to be another call's: this scope must not revoke it."""
        if id_ in self._jobs:
            waiter, calls = self._jobs.pop(id_)
            if calls > 1:
                self._jobs[id_] = waiter, calls - 1

    def keep(self, id_: str) -> None:
        """Takes out a job that may go on after the scope."""
        self._jobs.pop(id_, None)

    def enter(self) -> None:
        """Begins the scope: jobs of its owner that are enqueued in this context now belong to it."""
        self.state = "open"
        self._outer = current_scope.get()
        current_scope.set(self)

    def leave(self) -> list[str]:
        """Ends the scope. Returns the ids of the jobs that have not ended, the last enqueued first: so a job
        is revoked before the jobs that it waits for, and does not fail because of their revocation.
        """
        self.state = "closed"
        current_scope.set(self._outer)
        return [id_ for id_, (waiter, _) in reversed(self._jobs.items()) if not waiter.ended]

    def innermost_of(self, owner: object) -> ScopedJobs | None:
        """Returns the first open scope of the owner, from this scope outward; None if there is none."""
        scope: ScopedJobs | None = self
        while scope is not None and (scope._owner is not owner or scope.state != "open"):
            scope = scope._outer
        return scope


current_scope: ContextVar[ScopedJobs | None] = ContextVar("asyncq_scope", default=None)
"""The innermost scope that this code runs in. It follows into tasks and threads."""


def scope_of(owner: object) -> ScopedJobs | None:
    """Returns the scope to which a job belongs that this app enqueues here and now; None if there is none."""
    scope = current_scope.get()
    return None if scope is None else scope.innermost_of(owner)


@contextmanager
def unscoped() -> Iterator[None]:
    """Makes the code inside belong to no scope. A worker needs this: jobs that its bodies enqueue must not
    belong to the scope in which the worker was started.
    """
    outer = current_scope.get()
    current_scope.set(None)
    try:
        yield
    finally:
        current_scope.set(outer)
