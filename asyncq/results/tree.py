"""The tree of jobs: from a job to the jobs that it started and those that waited for it, and on from them."""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING, Any, ClassVar, Generic, Protocol, TypeVar

from asyncq import wire
from asyncq.errors import IncompleteStream
from asyncq.states import State

if TYPE_CHECKING:
    from asyncq.broker.waiters import Waiter
    from asyncq.client.application import App

N = TypeVar("N", bound="Node")


class Node(Protocol):
    """A job in the tree: what a traversal uses of a handle."""

    id: str
    is_local: ClassVar[bool]

    @property
    def app(self) -> App:
        """The app of the job."""
        ...

    @property
    def state(self) -> str:
        """The state as last seen."""
        ...

    @property
    def children(self) -> list[Any] | None:
        """Handles of the jobs that came from it; None before its end."""
        ...

    @property
    def children_truncated(self) -> bool:
        """Whether more came from it."""
        ...

    def known(self) -> object | None:
        """The outcome, if it is known."""
        ...

    def waiter(self) -> Waiter:
        """The waiter of the job in this session."""
        ...


class TreeTraversal(Generic[N]):
    """Visits the tree breadth first. Each way to a job is a step, but a job's children are visited once.

    A job's children are fetched when the caller asks for the next step, so the caller may wait for the job
    first.

    Args:
        root: where it begins.
        intermediate: pass over what is below a job that has not ended, or more than its outcome names,
            instead of raising.

    Attributes:
        node: the job of the last step.
    """

    def __init__(self, root: N, *, intermediate: bool) -> None:
        self.node: N = root
        self._intermediate = intermediate
        self._todo: deque[tuple[N | None, N]] = deque([(None, root)])
        self._handles = {root.id: root}
        self._passed: set[str] = set()
        self._fetched: set[str] = set()
        self._started = False
        self._truncated: N | None = None

    async def step(self) -> tuple[N | None, N] | None:
        """Goes on; None at the end. To be awaited on the loop of the app that `node` belongs to.

        Raises:
            IncompleteStream: the job where it is has not ended, or at the end, one on the way had more
                children than its outcome names; and `intermediate` was not asked for.
            BrokerUnavailable: no answer within the operation timeout.
        """
        if self._started and self.node.id not in self._passed:
            self._passed.add(self.node.id)
            await self._fetch_ahead()
            children = self.node.children
            if children is None and not self._intermediate:
                raise _incomplete(self.node)
            if self.node.children_truncated:
                self._truncated = self.node
            # One handle for each job: what this process learns through it is known wherever the job comes
            # again.
            found = (self._handles.setdefault(child.id, child) for child in children or ())
            self._todo.extend((self.node, child) for child in found)
        self._started = True
        if not self._todo:
            if self._truncated is not None and not self._intermediate:
                raise IncompleteStream(
                    f"job {self._truncated.id} started more jobs than the {wire.MOST_CHILDREN:,} that its "
                    "outcome names; only these were given. Use intermediate=True if they are enough, or let "
                    "the task return the ids"
                )
            return None
        step = self._todo.popleft()
        self.node = step[1]
        return step

    async def _fetch_ahead(self) -> None:
        """Fetches the status of the job and of the jobs that come next, 500 in each command."""
        node = self.node
        if node.is_local or node.known() is not None or node.id in self._fetched:
            return  # a local call has its children in its handle, or has forgotten them
        ahead = {node.id: node}
        for _, other in self._todo:
            if other.id not in self._fetched and not other.is_local and other.known() is None:
                ahead[other.id] = other
        self._fetched.update(ahead)
        listener = node.app.sessions.current().listener
        await listener.fetch_all([handle.waiter() for handle in ahead.values()])


def _incomplete(node: Node) -> IncompleteStream:
    if node.state == State.UNKNOWN:
        why, instead = "does not exist (it never existed, was forgotten, or has expired)", "use"
    else:
        why, instead = f"is {node.state} and has not ended", "wait for it, or use"
    return IncompleteStream(
        f"job {node.id} {why}, so the jobs that came from it are not known: {instead} intermediate=True to "
        "get the known jobs"
    )
