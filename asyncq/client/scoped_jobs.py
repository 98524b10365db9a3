"""Which jobs belong to a scope: what the session tells the scope around an enqueue."""

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
        # How many calls came to each job and were not found to be somebody else's. The waiters are held, so
        # that the scope is notified of ends also where the handles were dropped.
        self._jobs: dict[str, tuple[Waiter, int]] = {}

    def __len__(self) -> int:
        return len(self._jobs)

    def add(self, waiter: Waiter) -> None:
        """A call inside the scope enqueues a job."""
        _, calls = self._jobs.get(waiter.id, (waiter, 0))
        self._jobs[waiter.id] = waiter, calls + 1

    def take_back(self, id_: str) -> None:
        """A call that was added has met another call's job, which is not for this scope to end."""
        if id_ in self._jobs:
            waiter, calls = self._jobs.pop(id_)
            if calls > 1:
                self._jobs[id_] = waiter, calls - 1

    def keep(self, id_: str) -> None:
        """The job may go on after the scope."""
        self._jobs.pop(id_, None)

    def enter(self) -> None:
        """The scope begins: jobs of its owner that are enqueued in this context belong to it."""
        self.state = "open"
        self._outer = current_scope.get()
        current_scope.set(self)

    def leave(self) -> list[str]:
        """The scope ends. Returns the ids of the jobs that have not ended, the last enqueued first: a job is
        then revoked before those that it waits for, and does not end with them.
        """
        self.state = "closed"
        current_scope.set(self._outer)
        return [id_ for id_, (waiter, _) in reversed(self._jobs.items()) if not waiter.ended]

    def innermost_of(self, owner: object) -> ScopedJobs | None:
        """This scope, or the nearest around it, that is open and the owner's."""
        scope: ScopedJobs | None = self
        while scope is not None and (scope._owner is not owner or scope.state != "open"):
            scope = scope._outer
        return scope


current_scope: ContextVar[ScopedJobs | None] = ContextVar("asyncq_scope", default=None)
"""The innermost scope that this code runs in. It follows into tasks and threads."""


def scope_of(owner: object) -> ScopedJobs | None:
    """The scope that a job of this app belongs to, if it is enqueued here and now."""
    scope = current_scope.get()
    return None if scope is None else scope.innermost_of(owner)


@contextmanager
def unscoped() -> Iterator[None]:
    """Makes the code inside belong to no scope: for a worker, whose jobs enqueue for themselves and not for
    the block in which the worker was started.
    """
    outer = current_scope.get()
    current_scope.set(None)
    try:
        yield
    finally:
        current_scope.set(outer)
