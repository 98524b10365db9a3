"""The job behind a handle: what this process knows of it, and how it asks for more.

A handle is what a user holds; it keeps its job in one attribute and leaves everything else to it. There are
two kinds of job: `ServerJob`, which a worker runs, and `LocalCall`, which this process ran itself. The
methods of `KnownJob` are all in which the two differ.

What is known may be read on any thread. The coroutines may be awaited on any loop.
"""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, Any, ClassVar, Generic, TypeVar

from asyncq.client.sessions import the_only_app
from asyncq.serializers import PLAIN_VALUE
from asyncq.short_repr import brief

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Sequence
    from datetime import timedelta

    from asyncq.broker.waiters import Waiter
    from asyncq.client.application import App, Runnable
    from asyncq.outcome import Outcome
    from asyncq.results.events import EventSource
    from asyncq.results.streams import Readable
    from asyncq.serializers import ValueCodec
    from asyncq.states import State
    from asyncq.sync_bridge import LoopOwner
    from asyncq.wire import Signal

_ID = re.compile(r"[!-~]{1,500}")

R_co = TypeVar("R_co", covariant=True)


class KnownJob(ABC, Generic[R_co]):
    """A job as this process knows it.

    Args:
        id: the job's id.
        app: its app; None for the only one of this process, if it is asked for.
        task: its task, if that is known: it reads the value.

    Attributes:
        id: the job's id.
        task: the task, or None.
        args: the positional arguments of the call, if this process made it; else None.
        kwargs: the keyword arguments of the call, if this process made it; else None.
        is_ignored: whether this process made the call with `ignore_result=True`.
    """

    __slots__ = ("_app", "args", "id", "is_ignored", "kwargs", "task")

    is_local: ClassVar[bool]
    """Whether the call ran in this process, so that there is no server to ask."""

    def __init__(self, id: str, app: App | None, task: Runnable | None = None) -> None:
        self.id: str = id
        self._app: App | None = app
        self.task: Runnable | None = task
        self.args: tuple[Any, ...] | None = None
        self.kwargs: dict[str, Any] | None = None
        self.is_ignored: bool = False

    @property
    def app(self) -> App:
        """The app of the job; without one, the only app of this process.

        Raises:
            RuntimeError: there is no app, or more than one.
        """
        if self._app is None:
            self._app = the_only_app()
        return self._app

    @property
    @abstractmethod
    def loop_owner(self) -> LoopOwner:
        """Runs the calls of the handle."""

    # -- what is known --

    @abstractmethod
    def known(self) -> Outcome[R_co] | None:
        """Returns the outcome, if this process knows it."""

    @abstractmethod
    def at_hand(self) -> Outcome[R_co] | None:
        """Returns the outcome, if a wait for it would return it at once, also while the app is closed."""

    @abstractmethod
    def is_resolved(self) -> bool:
        """Whether a wait would end at once: the job has ended, is unknown, or its result is ignored."""

    @property
    @abstractmethod
    def state(self) -> State | str:
        """The state as last seen."""

    @property
    def latest(self) -> Waiter | None:
        """What this process has seen of the job; None where there is no server, or nobody has asked."""
        return None

    @property
    def name(self) -> str | None:
        """The task's name, if known."""
        outcome = self.known()
        if outcome is not None and outcome.name:
            return outcome.name
        if self.task is not None:
            return self.task.name
        waiter = self.latest
        return None if waiter is None or waiter.call is None else waiter.call[0].name

    @property
    def queue(self) -> str | None:
        """The queue, as last seen."""
        outcome = self.known()
        if outcome is not None and outcome.queue:
            return outcome.queue
        return None if self.latest is None else self.latest.queue

    def arguments(self) -> tuple[tuple[Any, ...], dict[str, Any]] | None:
        """Returns the arguments of the call, if they are known."""
        return None if self.args is None else (self.args, self.kwargs or {})

    def item_codec(self) -> ValueCodec:
        """Returns what reads the items that the job yields."""
        name = self.name
        task = self.task or (self.app.find_task(name) if name else None)
        return task.items if task is not None else PLAIN_VALUE

    # -- waiting --

    @abstractmethod
    def check_join(self, what: str, *, disable_sync_subtasks: bool = True) -> None:
        """Raises `WouldDeadlock` if the running code may not wait for this job. `what` names the call."""

    @abstractmethod
    def outcome(self, timeout: float | timedelta | None) -> Coroutine[Any, Any, Outcome[R_co]]:
        """Waits for the outcome. Raises as `AsyncResult.outcome`."""

    @abstractmethod
    def when_ended(self, callback: Callable[[bool], object]) -> None:
        """Calls back in this thread's loop when the job has ended, with whether it ended well.

        Raises:
            RuntimeError: there is no running event loop.
        """

    @abstractmethod
    def follower(self, limit: float | None) -> EventSource:
        """Returns what gives the events of one iteration, for so many seconds."""

    @abstractmethod
    def reader(self, after: int) -> Readable:
        """Returns what gives the items behind that number to one stream."""

    # -- looking and ending --

    @abstractmethod
    def refresh(self) -> Coroutine[Any, Any, object]:
        """Looks once, unless the outcome is known. Raises as `AsyncResult.refresh`."""

    async def final(self) -> Outcome[R_co] | None:
        """Looks once, unless the outcome is known; returns it, or None if the job has not ended."""
        if self.known() is None:
            await self.refresh()
        return self.known()

    @abstractmethod
    def exists(self) -> Coroutine[Any, Any, bool]:
        """Looks whether the job is there. Raises as `AsyncResult.exists`."""

    @abstractmethod
    def revoke(
        self,
        jobs: Sequence[KnownJob[Any]],
        *,
        terminate: bool,
        signal: Signal,
        wait: bool,
        timeout: float | timedelta | None,
        reason: str | None,
        parents: bool,
    ) -> Coroutine[Any, Any, object]:
        """Ends the job and those before it. Raises as `AsyncResult.revoke`.

        Args:
            jobs: this job, then those that it came after.
            terminate: see `AsyncResult.revoke`.
            signal: the same.
            wait: the same.
            timeout: the same.
            reason: the same.
            parents: the same.
        """

    @abstractmethod
    def forget(self) -> Coroutine[Any, Any, None]:
        """Removes the result of this job alone. Raises as `AsyncResult.forget`."""


def checked_id(id: Any) -> str:
    """Returns a text that may be the id of a job.

    Raises:
        ValueError: anything else.
    """
    if not isinstance(id, str) or not id:
        raise ValueError(f"AsyncResult needs the id of a job, not {brief(id)}")
    if not _ID.fullmatch(id):
        # No job has it. Looked up in one command with others, it would keep their answers from them.
        raise ValueError(
            f"{id[:100]!r} cannot be the id of a job: an id is 1 to 500 printable ASCII characters"
        )
    return id
