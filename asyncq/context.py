"""What a piece of code knows about the job it runs in.

Two context variables, set by the runner around the task's body and nowhere else. They follow into tasks and
into threads that anyio or asyncio start (`to_thread`), but not into a bare `threading.Thread` or
`loop.run_in_executor`: there, hand the context over yourself with `contextvars.copy_context().run`.

Whether the code may wait for other jobs is decided in `client.deadlock`.
"""

from __future__ import annotations

import asyncio
import os
from contextvars import ContextVar
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, NoReturn, Protocol

from asyncq.config import NAME
from asyncq.short_repr import brief
from asyncq.states import State
from asyncq.sync_bridge import LoopOwner, blocking, on_app_loop

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from asyncq.wire import Job


LINE = 64
"""How many of the jobs above it a job knows: the nearest. Deeper nesting is followed by the server alone."""


class Handle(Protocol):
    """What a job waits for."""

    @property
    def id(self) -> str:
        """The job's."""
        ...

    @property
    def app(self) -> Any:
        """Whose job it is."""
        ...

    @property
    def name(self) -> str | None:
        """The task's, if known."""
        ...


class Owner(Protocol):
    """The app that a job belongs to."""

    def is_same(self, other: Any, /) -> bool:
        """Whether both look at the same jobs."""
        ...


class Replacement(Protocol):
    """What can take the place of a job: a signature, chain or group."""

    def in_place_of(self, app: Any, job: Job, children: Sequence[str], /) -> list[tuple[Job, bytes]]:
        """The jobs, with their messages, that take the place of a running one, which has started these
        children.
        """
        ...


class Link(Protocol):
    """What a running job can ask of whoever runs it."""

    revoked: bool
    """True once its outcome will not count, or it will not be run again: it may come to its end."""

    is_late: bool
    """True once its time limit is over: what it returns will not count."""

    @property
    def wanted(self) -> bool:
        """False once it is to end now: terminated, or its lease is lost."""
        ...

    @property
    def loop_owner(self) -> LoopOwner:
        """The app that runs it."""
        ...

    async def report(self, state: str, meta: Any) -> None:
        """Stores what it says of itself."""
        ...

    @property
    def loop(self) -> asyncio.AbstractEventLoop | None:
        """The worker's; without one, that of whoever asks, if there is one."""
        ...

    async def release_slot(self, wait: asyncio.Task[Any] | None) -> None:
        """Releases the job's slot: it begins to wait for another job, in that task. On the worker's loop.

        Raises:
            WouldDeadlock: too many jobs of this worker wait.
        """
        ...

    async def reacquire_slot(self, wait: asyncio.Task[Any] | None) -> None:
        """Reacquires a slot: that wait is over. Returns when the job may go on. On the worker's loop."""
        ...


@dataclass(slots=True, repr=False)
class Context:
    """The job that the running code belongs to, as `asyncq.current()` gives it.

    Attributes:
        id: the job's id. Stable over retries and redeliveries, so it serves as an idempotency key for side
            effects.
        name: the task's registered name.
        args: positional arguments of this call.
        kwargs: keyword arguments of this call.
        queue: the queue it was taken from.
        attempt: 1 for the first run, one more each time it is run again, after a failure or because a worker
            died with it.
        parent_id: the job that started this one, if one did.
        root_id: the job at the top of that line; its own id if nobody started it.
        headers: what the caller put into `headers=`.
        worker: the name of the worker that runs it.
        max_retries: how often it is tried again after a failure.
        deadline_ms: when it must have ended, in ms since the epoch; the jobs it starts inherit it. `deadline`
            is the same as a `datetime`.
        children: ids of the jobs started inside it so far, the first 10,001 at most.
        entry: the worker's claim to it: tells this attempt from others.
    """

    id: str
    name: str
    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    queue: str
    attempt: int = 1
    parent_id: str | None = None
    root_id: str | None = None
    headers: Mapping[str, Any] = field(default_factory=dict)
    worker: str = ""
    max_retries: int = 0
    deadline_ms: int | None = None
    children: list[str] = field(default_factory=list)
    link: Link | None = field(default=None, repr=False, compare=False)
    _app: Owner | None = field(default=None, repr=False, compare=False)
    _job: Job | None = field(default=None, repr=False, compare=False)
    entry: str = ""

    @property
    def ancestors(self) -> tuple[str, ...]:
        """Ids of the jobs above it, the parent first, at most 64."""
        above = None if self._job is None else self._job.ancestors
        return () if self.parent_id is None else (self.parent_id, *(above or ()))

    def is_of(self, app: Owner) -> bool:
        """Whether it is a job of that app, or of another on the same namespace of the same server."""
        return self._app is None or self._app.is_same(app)

    def __repr__(self) -> str:
        shown = f"args={brief(self.args)}, kwargs={brief(self.kwargs)}, attempt={self.attempt}"
        return f"<Context {self.id} of {self.name}: {shown}>"

    # -- what it says of itself --

    @on_app_loop
    async def update_state(self, state: str, meta: Any = None) -> None:
        """Says what the task is at, in a word of its own: `result.state` and `result.info` show it, and
        `result.events()` gives it.

        Returns when the server has it, or a newer one: of many in a row only the newest is sent. For as long
        as the server is away, it waits. Has no effect once the job runs elsewhere, or has ended.

        Args:
            state: 1 to 100 of `A-Z a-z 0-9 _ . -`, such as `PROGRESS`. Of asyncq's own words, only `STARTED`.
            meta: any value that could be a result.

        Raises:
            ValueError: not such a word.
            SerializationError: the meta cannot travel; the message says where.
            PayloadTooLarge: the meta takes more than `max_payload`.

        Example:
            ```python
            await asyncq.current().update_state("RENDERING", {"page": 3})
            ```
        """
        if not isinstance(state, str) or not NAME.fullmatch(state):
            raise ValueError(f"state={brief(state)}: use 1 to 100 of A-Z a-z 0-9 _ . -, such as 'PROGRESS'")
        if state in State.__members__ and state != State.STARTED:
            raise ValueError(f"state={state!r} is not for a task to say: choose a word of your own")
        if self.link is not None:
            await self.link.report(state, meta)

    @blocking(update_state)
    def update_state_sync(self) -> None:
        """Blocking twin of `update_state`, for a task that is a plain function."""

    @on_app_loop
    async def progress(self, done: float, total: float, message: str = "") -> None:
        """Says how far the task is: state `PROGRESS`, with `{"done": done, "total": total, "message":
        message}`.

        Returns, waits and raises as `update_state`.

        Example:
            ```python
            for n, page in enumerate(pages, 1):
                await render(page)
                await asyncq.current().progress(n, len(pages))
            ```
        """
        await self.update_state("PROGRESS", {"done": done, "total": total, "message": message})

    @blocking(progress)
    def progress_sync(self) -> None:
        """Blocking twin of `progress`, for a task that is a plain function."""

    # -- another in its place --

    async def replace(self, workflow: Replacement) -> NoReturn:
        """Ends the task, and puts a workflow in the place of its job: whoever waits for the job gets the
        workflow's value, and the steps after the job wait for it.

        Does not return: it leaves the task's body by an exception that is not an `Exception`; let it through.
        The workflow's last job has the id of this one; of a group, the value is the list. Deadline, parent
        and root are handed on. Should the job be revoked meanwhile, nothing takes its place.

        Args:
            workflow: a signature, chain or group.

        Raises:
            TypeError, SerializationError, PayloadTooLarge, ValueError: as `delay`; the task goes on.

        Example:
            ```python
            @app.task
            async def factorial(n: int, product: int = 1) -> int:
                if n > 1:
                    await asyncq.current().replace(factorial.s(n - 1, product * n))
                return product
            ```
        """
        self.replace_sync(workflow)

    def replace_sync(self, workflow: Replacement) -> NoReturn:
        """The same for a plain function, see `replace`."""
        if self._app is None or self._job is None:
            raise RuntimeError("this job's worker cannot be reached from here")
        if not hasattr(workflow, "in_place_of"):
            raise TypeError(
                f"replace() takes a call such as add.s(1, 2), or a workflow, not {brief(workflow)}"
            )
        raise Replaced(workflow.in_place_of(self._app, self._job, self.children))

    # -- whether it is still wanted --

    @property
    def cancelled(self) -> bool:
        """Whether the task may as well stop: its job was revoked, its time limit is over, or its worker has
        lost it.

        A coroutine that is to end now is cancelled anyway. A thread cannot be: it looks here between two
        steps and returns; what it returns is dropped. A revocation without `terminate=True` shows here, too,
        but what the task returns counts then. A job that runs elsewhere by now, because its worker was taken
        for dead, shows after the next `progress` or `update_state`.
        """
        link = self.link
        return link is not None and (link.revoked or link.is_late or not link.wanted)

    async def heartbeat(self) -> None:
        """Lets other jobs have a turn, and ends this one if it is to end now: for long loops that never wait.

        Raises:
            asyncio.CancelledError: the job was terminated, its time limit is over, or its worker has lost it.
                Let it through.

        Example:
            ```python
            for row in rows:
                work(row)
                await asyncq.current().heartbeat()
            ```
        """
        await asyncio.sleep(0)
        self.heartbeat_sync()

    def heartbeat_sync(self) -> None:
        """The same for a plain function in a thread, where there is nobody to give a turn to.

        Raises:
            asyncio.CancelledError: the job was terminated, its time limit is over, or its worker has lost it.
                Let it through.
        """
        if self.link is not None and (self.link.is_late or not self.link.wanted):
            raise asyncio.CancelledError

    @property
    def loop_owner(self) -> LoopOwner:
        """Where the calls of this object run."""
        if self.link is None:
            raise RuntimeError("this job's worker cannot be reached from here, nor from a forked child")
        return self.link.loop_owner

    @property
    def deadline(self) -> datetime | None:
        """When it, and every job it starts, must have ended."""
        return None if self.deadline_ms is None else datetime.fromtimestamp(self.deadline_ms / 1000, UTC)


class Replaced(BaseException):
    """Leaves a task's body, because a workflow takes the job's place. Not an `Exception`, for a body that
    catches those means its own.

    Attributes:
        jobs: of the workflow, with their messages, parents before children; the last takes the job's id.
    """

    def __init__(self, jobs: list[tuple[Job, bytes]]) -> None:
        super().__init__("this job is being replaced by a workflow; let the exception through")
        self.jobs: list[tuple[Job, bytes]] = jobs


current_job: ContextVar[Context | None] = ContextVar("asyncq_current_job", default=None)

joining: ContextVar[bool] = ContextVar("asyncq_joining", default=True)
"""Whether waiting for a job is allowed here. The runner sets it to False around a task's body."""


def current() -> Context:
    """The job that this code runs in.

    Raises:
        LookupError: called outside a task.

    Example:
        ```python
        @app.task
        async def charge(cents: int) -> None:
            await gateway.charge(cents, idempotency_key=asyncq.current().id)
        ```
    """
    job = current_job.get()
    if job is None:
        raise LookupError("asyncq.current() was called outside a task; there is no current job here")
    return job


def _after_fork_in_child() -> None:
    """A child can ask nothing of the worker: nobody would answer, and the child would wait for ever."""
    job = current_job.get()
    if job is not None and job.entry:  # else it runs here and has no worker
        job.link = None
        job.children = list(job.children)


os.register_at_fork(after_in_child=_after_fork_in_child)
