"""The tree of jobs: from a job to the jobs that it started and those that waited for it, and on from them.

A traversal looks at the jobs on its way and waits for none. Each of its steps runs on the loop of the session
that serves the call, for a job at the server; those of a call that ran in this process need no loop.
"""

from __future__ import annotations

import time
from collections import deque
from typing import TYPE_CHECKING, Any

from asyncq import config, sync_bridge, wire
from asyncq.errors import IncompleteStream
from asyncq.results.graph import DependencyGraph
from asyncq.results.server_job import ServerJob
from asyncq.results.view import job_of
from asyncq.states import State
from asyncq.sync_bridge import on_app_loop

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Iterator
    from datetime import timedelta

    from asyncq.results.handle import AsyncResult
    from asyncq.sync_bridge import LoopOwner

Step = tuple["AsyncResult[Any] | None", "AsyncResult[Any]"]
"""A job, and the one through which the traversal reached it."""


class JobTree:
    """A job and all that came from it. Made when somebody asks; most jobs are never asked for their tree."""

    def __init__(self, root: AsyncResult[Any]) -> None:
        self._root = root

    async def steps(self, *, intermediate: bool) -> AsyncGenerator[Step, None]:
        """Visits the jobs, see `AsyncResult.iterdeps`."""
        traversal = TreeTraversal(self._root, intermediate=intermediate)
        while (step := await traversal.step()) is not None:
            yield step

    def steps_sync(self, *, intermediate: bool) -> Iterator[Step]:
        """Visits the jobs, for code that is not async."""
        traversal = TreeTraversal(self._root, intermediate=intermediate)
        while (step := sync_bridge.wait(traversal._loop_owner, traversal.step())) is not None:
            yield step

    async def values(
        self, *, intermediate: bool, timeout: float | timedelta | None, propagate: bool
    ) -> AsyncGenerator[tuple[AsyncResult[Any], Any], None]:
        """Waits for each job once and gives its value, see `AsyncResult.collect`."""
        given: set[AsyncResult[Any]] = set()
        end = _end(timeout)
        async for _, node in self.steps(intermediate=intermediate):
            if node not in given:
                given.add(node)
                yield node, await node.get(_left(end), propagate=propagate)

    def values_sync(
        self, *, intermediate: bool, timeout: float | timedelta | None, propagate: bool
    ) -> Iterator[tuple[AsyncResult[Any], Any]]:
        """Waits for each job once and gives its value, for code that is not async."""
        given: set[AsyncResult[Any]] = set()
        end = _end(timeout)
        for _, node in self.steps_sync(intermediate=intermediate):
            if node not in given:
                given.add(node)
                yield node, node.get_sync(_left(end), propagate=propagate)

    async def last_value(self, timeout: float | timedelta | None) -> Any:
        """Waits for all jobs and returns the value of the last, see `AsyncResult.get_leaf`."""
        value: Any = None
        async for _, value in self.values(intermediate=False, timeout=timeout, propagate=True):  # noqa: B007
            pass
        return value

    async def graph(self, *, intermediate: bool) -> DependencyGraph:
        """Returns the jobs and what came from what, see `AsyncResult.build_graph`."""
        graph = DependencyGraph(self._root)
        async for parent, node in self.steps(intermediate=intermediate):
            if parent is not None:
                graph.connect(parent, node)
        return graph


def _end(timeout: float | timedelta | None) -> float | None:
    return None if timeout is None else time.monotonic() + config.seconds(timeout)


def _left(end: float | None) -> float | None:
    return None if end is None else max(0.0, end - time.monotonic())


class TreeTraversal:
    """Visits the tree breadth first. Each way to a job is a step, but a job's children are visited once.

    A job's children are fetched when the caller asks for the next step, so the caller may wait for the job
    first.

    Args:
        root: where it begins.
        intermediate: pass over what is below a job that has not ended, or more than its outcome names,
            instead of raising.
    """

    def __init__(self, root: AsyncResult[Any], *, intermediate: bool) -> None:
        self._node = root
        self._intermediate = intermediate
        self._todo: deque[Step] = deque([(None, root)])
        self._handles = {root.id: root}
        self._passed: set[str] = set()
        self._fetched: set[str] = set()
        self._started = False
        self._truncated: AsyncResult[Any] | None = None

    @property
    def _loop_owner(self) -> LoopOwner:
        """Runs the next step: the job of the last one may be of another app than the root."""
        return job_of(self._node).loop_owner

    @on_app_loop
    async def step(self) -> Step | None:
        """Goes on to the next job; None at the end.

        Raises:
            IncompleteStream: the job where it is has not ended, or at the end, one on the way had more
                children than its outcome names; and `intermediate` was not asked for.
            BrokerUnavailable: no answer within the operation timeout.
        """
        if self._started and self._node.id not in self._passed:
            self._passed.add(self._node.id)
            await self._fetch_ahead()
            self._find_children()
        self._started = True
        if not self._todo:
            self._check_complete()
            return None
        step = self._todo.popleft()
        self._node = step[1]
        return step

    def _find_children(self) -> None:
        node = self._node
        children = node.children
        if children is None and not self._intermediate:
            raise _incomplete(node)
        if node.children_truncated:
            self._truncated = node
        # One handle for each job: what this process learns through it is known wherever the job comes again.
        found = (self._handles.setdefault(child.id, child) for child in children or ())
        self._todo.extend((node, child) for child in found)

    def _check_complete(self) -> None:
        if self._truncated is not None and not self._intermediate:
            raise IncompleteStream(
                f"job {self._truncated.id} started more jobs than the {wire.MOST_CHILDREN:,} that its "
                "outcome names; only these were given. Use intermediate=True if they are enough, or let "
                "the task return the ids"
            )

    async def _fetch_ahead(self) -> None:
        """Fetches the status of the job and of the jobs that come next, 500 in each command."""
        job = self._to_fetch(self._node)
        if job is None:
            return
        ahead = {job.id: job}
        for _, other in self._todo:
            if (next_job := self._to_fetch(other)) is not None:
                ahead[next_job.id] = next_job
        self._fetched.update(ahead)
        listener = job.app.sessions.current().listener
        await listener.fetch_all([each.waiter() for each in ahead.values()])

    def _to_fetch(self, node: AsyncResult[Any]) -> ServerJob[Any] | None:
        """Returns the job of a handle, if its outcome is to be fetched: one that ran in this process has its
        children in its handle, or has forgotten them.
        """
        job = job_of(node)
        if not isinstance(job, ServerJob) or job.id in self._fetched or job.known() is not None:
            return None
        return job


def _incomplete(node: AsyncResult[Any]) -> IncompleteStream:
    if node.state == State.UNKNOWN:
        why, instead = "does not exist (it never existed, was forgotten, or has expired)", "use"
    else:
        why, instead = f"is {node.state} and has not ended", "wait for it, or use"
    return IncompleteStream(
        f"job {node.id} {why}, so the jobs that came from it are not known: {instead} intermediate=True to "
        "get the known jobs"
    )
