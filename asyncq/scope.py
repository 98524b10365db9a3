"""Scopes: a block of code whose jobs do not outlive it."""

from __future__ import annotations

import asyncio
from contextlib import contextmanager
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any, TypeVar

from asyncq import portal
from asyncq.results import line
from asyncq.resultset import ResultSet

if TYPE_CHECKING:
    from collections.abc import Iterator
    from types import TracebackType

    from asyncq.app import AsyncQ
    from asyncq.broker.listener import Waiter
    from asyncq.results import AsyncResult

T = TypeVar("T", bound="AsyncResult[Any] | ResultSet[Any]")

current_scope: ContextVar[Scope | None] = ContextVar("asyncq_scope", default=None)
"""The innermost scope that this code runs in. It follows into tasks and threads."""


class Scope:
    """A block that ends its jobs: what `async with app.scope() as scope:` gives, or `with` in blocking code.

    All jobs that this app enqueues inside belong to the block, also those that tasks started inside enqueue,
    and all members of workflows. At its end, those that have not ended are revoked with `terminate=True`, in
    one go: what the block has awaited to the end has ended, and what `keep` was told of is let go on. That is
    so when the block raises or is cancelled, too. A job with `ignore_result=True` belongs to it like any
    other; the job that a `key` found does not, for somebody else enqueued it.

    Scopes nest: a job belongs to the innermost. Each is entered once.

    Example:
        ```python
        async with app.scope() as scope:
            audit = scope.keep(await write_audit.delay(order))
            parts = [await price.delay(order, shop) for shop in shops]
            async for part in asyncq.as_completed(parts, timeout=2):
                ...
                break  # the others are revoked, the audit is written
        ```
    """

    def __init__(self, app: AsyncQ) -> None:
        self._app = app
        self._outer: Scope | None = None
        self._state = "new"
        # How many calls came to each job and were not found to be somebody else's. The waiters are held, so
        # that ends are heard of also where the handles were dropped.
        self._jobs: dict[str, tuple[Waiter, int]] = {}

    def keep(self, result: T) -> T:
        """Takes a job out of the scope, so that it goes on after the block: its own end, with those of its
        parents, or of all members. Twice is once.

        Returns:
            What it was given.
        """
        for handle in line(result):
            self._jobs.pop(handle.id, None)
        return result

    def __repr__(self) -> str:
        return f"<Scope of {len(self._jobs)} jobs, {self._state}>"

    # -- what the app tells it --

    def _called(self, waiter: Waiter) -> None:
        _, calls = self._jobs.get(waiter.id, (waiter, 0))
        self._jobs[waiter.id] = waiter, calls + 1

    def _not_ours(self, id_: str) -> None:
        if id_ in self._jobs:
            waiter, calls = self._jobs.pop(id_)
            if calls > 1:
                self._jobs[id_] = waiter, calls - 1

    # -- begin and end --

    async def __aenter__(self) -> Scope:
        self._begin()
        return self

    async def __aexit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        left = self._end()
        if left:
            await self._app._sessions.bring(self._revoke(left, exc))

    def __enter__(self) -> Scope:
        portal.refuse_in_loop("with app.scope():", "async with app.scope():")
        self._begin()
        return self

    def __exit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        left = self._end()
        if left:
            sessions = self._app._sessions
            portal.wait(sessions, sessions.bring(self._revoke(left, exc)))

    def _begin(self) -> None:
        if self._state != "new":
            raise RuntimeError(f"{self!r} was entered before: make a new one with app.scope()")
        self._state = "open"
        self._outer = current_scope.get()
        current_scope.set(self)

    def _end(self) -> ResultSet[Any]:
        """The jobs that have not ended."""
        self._state = "closed"
        current_scope.set(self._outer)
        # The last first, so that a job is revoked before those that it waits for, and does not end with them.
        left = [id_ for id_, (waiter, _) in reversed(self._jobs.items()) if not waiter.ended]
        return ResultSet([self._app.AsyncResult(id_) for id_ in left], app=self._app)

    async def _revoke(self, left: ResultSet[Any], exc: BaseException | None) -> None:
        """Revokes what is left. An error is the block's own if there is none yet; a cancellation is not held
        up.
        """
        revoking = left.revoke(terminate=True, reason="the scope that it was enqueued in has ended")
        errand = self._app._session.send_off(revoking)
        if isinstance(exc, (asyncio.CancelledError, GeneratorExit)):
            return
        error = await asyncio.shield(errand)
        if error is not None and exc is None:
            raise error


def scope_for(app: AsyncQ) -> Scope | None:
    """The scope that a job of this app belongs to, if it is enqueued here and now."""
    scope = current_scope.get()
    while scope is not None and (scope._app is not app or scope._state != "open"):
        scope = scope._outer
    return scope


@contextmanager
def unscoped() -> Iterator[None]:
    """For a worker: what its jobs enqueue is none of the block's in which it was started."""
    outer = current_scope.get()
    current_scope.set(None)
    try:
        yield
    finally:
        current_scope.set(outer)
