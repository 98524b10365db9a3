"""Scopes: blocks of code whose jobs do not outlive them.

`ScopedJobs` notes the jobs that are enqueued inside; the block's end revokes those that have not ended, on
the loop of the session that serves the call. A cancelled block does not wait for that.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, TypeVar

from asyncq import sync_bridge
from asyncq.client.scoped_jobs import ScopedJobs
from asyncq.results.handle import AsyncResult, workflow_handles
from asyncq.results.resultset import ResultSet

if TYPE_CHECKING:
    from types import TracebackType

    from asyncq.client.application import App

T = TypeVar("T", bound=AsyncResult[Any] | ResultSet[Any])


class Scope:
    """Revokes the jobs of a block at its end: `async with app.scope() as scope:`, or `with` in blocking code.

    All jobs that this app enqueues inside belong to the block, also those that tasks which were started
    inside enqueue, and all members of workflows. At the end of the block, those that have not ended are
    revoked with `terminate=True`, all at once. This also happens when the block raises or is cancelled. A job
    that was given to `keep` goes on. A job with `ignore_result=True` belongs to the block like any other. A
    job that a `key` found does not, for somebody else enqueued it.

    Scopes nest: a job belongs to the innermost. Each scope is entered once.

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

    def __init__(self, app: App) -> None:
        self._app = app
        self._jobs = ScopedJobs(app)

    def keep(self, result: T) -> T:
        """Takes a job out of the scope, so that it goes on after the block; with it the jobs that it came
        after, and of a group all members. A second call does nothing.

        Returns:
            The given handle or group.
        """
        for handle in workflow_handles(result):
            self._jobs.keep(handle.id)
        return result

    def __repr__(self) -> str:
        return f"<Scope of {len(self._jobs)} jobs, {self._jobs.state}>"

    # -- begin and end --

    async def __aenter__(self) -> Scope:
        self._begin()
        return self

    async def __aexit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        left = self._end()
        if left:
            await self._app.sessions.run_on_app_loop(self._revoke(left, exc))

    def __enter__(self) -> Scope:
        sync_bridge.refuse_in_loop("with app.scope():", "async with app.scope():")
        self._begin()
        return self

    def __exit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        left = self._end()
        if left:
            sessions = self._app.sessions
            sync_bridge.wait(sessions, sessions.run_on_app_loop(self._revoke(left, exc)))

    def _begin(self) -> None:
        if self._jobs.state != "new":
            raise RuntimeError(f"{self!r} was entered before: make a new one with app.scope()")
        self._jobs.enter()

    def _end(self) -> ResultSet[Any]:
        """Returns the handles of the jobs that have not ended."""
        return ResultSet([AsyncResult(id_, self._app) for id_ in self._jobs.leave()], app=self._app)

    async def _revoke(self, left: ResultSet[Any], exc: BaseException | None) -> None:
        """Revokes what is left. An error of that is raised only if the block has raised none. A cancelled
        block does not wait for it.
        """
        revoking = left.revoke(terminate=True, reason="the scope that it was enqueued in has ended")
        revocation = self._app.sessions.current().send_off(revoking)
        if isinstance(exc, (asyncio.CancelledError, GeneratorExit)):
            return
        error = await asyncio.shield(revocation)
        if error is not None and exc is None:
            raise error
