"""The job that a piece of code runs in: `asyncq.current()`, and what a job may ask of whoever runs it.

Two context variables hold this. The runner sets them around the body of a task, and nobody else does. They
follow into asyncio tasks, and into threads that anyio or asyncio start (`to_thread`). They do not follow into
a bare `threading.Thread` or `loop.run_in_executor`: there, hand the context over with
`contextvars.copy_context().run`.

`client.deadlock` decides whether the code may wait for other jobs.
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
from asyncq.wire import LATEST

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from asyncq.wire import Job


MAX_ANCESTORS = 64
"""How many of the jobs above it a job knows: the nearest ones. Only the server follows deeper nesting."""


class Handle(Protocol):
    """A job for which another job waits."""

    @property
    def id(self) -> str:
        """The job's id."""
        ...

    @property
    def app(self) -> Any:
        """The app of the job."""
        ...

    @property
    def name(self) -> str | None:
        """The name of the task, if it is known."""
        ...


class Owner(Protocol):
    """The app that a job belongs to."""

    def is_same(self, other: Any, /) -> bool:
        """Whether both apps see the same jobs."""
        ...


class Replacement(Protocol):
    """A workflow that can take the place of a job: a signature, chain or group."""

    def in_place_of(self, app: Any, job: Job, children: Sequence[str], /) -> list[tuple[Job, bytes]]:
        """Returns the jobs, with their messages, that take the place of a running job.

        `children` are the ids of the jobs that the running job has started.
        """
        ...


class Link(Protocol):
    """What a running job can ask of whoever runs it: a worker, a process, or the caller."""

    revoked: bool
    """True once the outcome of this attempt will not count, or the job will not be run again. The body may
    run to its end."""

    is_late: bool
    """True once the time limit is over: what the body returns will not count."""

    @property
    def is_wanted(self) -> bool:
        """False once the body is to end now: the job was terminated, or its worker stops or has lost it."""
        ...

    @property
    def loop_owner(self) -> LoopOwner:
        """The session or app that runs the job."""
        ...

    @property
    def lifespan_state(self) -> Any:
        """What the lifespan of the app has yielded in this worker; None where there is none."""
        ...

    async def report(self, state: str, meta: Any) -> None:
        """Stores a report of the job about its progress."""
        ...

    @property
    def loop(self) -> asyncio.AbstractEventLoop | None:
        """The worker's loop. Without a worker, the caller's running loop, or None."""
        ...

    async def release_slot(self, wait: asyncio.Task[Any] | None) -> None:
        """Releases the job's slot, because it begins to wait for another job in the asyncio task `wait`.

        Runs on the worker's loop.

        Raises:
            WouldDeadlock: too many jobs of this worker wait.
        """
        ...

    async def reacquire_slot(self, wait: asyncio.Task[Any] | None) -> None:
        """Reacquires a slot, because that wait is over. Returns when the job may go on.

        Runs on the worker's loop.
        """
        ...


@dataclass(slots=True, repr=False)
class Context:
    """The job that the running code belongs to. `asyncq.current()` returns it.

    Attributes:
        id: the job's id. It is the same over retries and redeliveries, so it serves as an idempotency key for
            side effects.
        name: the task's registered name.
        args: positional arguments of this call.
        kwargs: keyword arguments of this call.
        queue: the queue from which the job was taken.
        attempt: 1 for the first run, and one more each time the job is run again, after a failure or because
            a worker died with it.
        parent_id: the id of the job that started this one, if one did.
        root_id: the id of the topmost job that led to this one; its own id if no job started it.
        headers: what the caller gave as `headers=`, and what the middleware of the app added to it.
        worker: the name of the worker that runs the job.
        max_retries: how often the job is tried again after a failure.
        deadline_ms: when the job must have ended, in ms since the epoch. The jobs that it starts inherit it.
            `deadline` is the same as a `datetime`.
        children: ids of the jobs that were started inside this one so far, the first 10,001 at most.
        entry: the id of the job's entry, which is the worker's claim. It differs between attempts.

    Example:
        ```python
        @app.task
        async def charge(cents: int) -> None:
            job = asyncq.current()
            log.info("attempt %d of job %s", job.attempt, job.id)
        ```
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
        """Ids of the jobs above this one, the parent first, at most 64."""
        above = None if self._job is None else self._job.ancestors
        return () if self.parent_id is None else (self.parent_id, *(above or ()))

    def is_of(self, app: Owner) -> bool:
        """Whether this is a job of that app, or of another app on the same namespace of the same server. For
        asyncq's own modules.
        """
        return self._app is None or self._app.is_same(app)

    def __repr__(self) -> str:
        shown = f"args={brief(self.args)}, kwargs={brief(self.kwargs)}, attempt={self.attempt}"
        return f"<Context {self.id} of {self.name}: {shown}>"

    # -- what the job reports --

    @on_app_loop
    async def update_state(self, state: str, meta: Any = None) -> None:
        """Reports what the task does now, in a word of its own. `result.state` and `result.info` show it, and
        `result.events()` yields it.

        Returns when the server has stored this report or a newer one: of many in a row only the newest is
        sent. While the server is away, the call waits. It has no effect once the job has ended or runs
        elsewhere.

        Args:
            state: 1 to 100 of `A-Z a-z 0-9 _ . -`, such as `PROGRESS`. Of asyncq's own states, only
                `STARTED`.
            meta: any value that could be a result.

        Raises:
            ValueError: the state is not such a word.
            SerializationError: the meta cannot be encoded; the message says where.
            PayloadTooLarge: the meta takes more than `max_payload`.

        Example:
            ```python
            await asyncq.current().update_state("RENDERING", {"page": 3})
            ```
        """
        if not isinstance(state, str) or not NAME.fullmatch(state):
            raise ValueError(f"state={brief(state)}: use 1 to 100 of A-Z a-z 0-9 _ . -, such as 'PROGRESS'")
        if state in State.__members__ and state != State.STARTED:
            raise ValueError(f"state={state!r} belongs to asyncq: choose a word of your own")
        if self.link is not None:
            await self.link.report(state, meta)

    @blocking(update_state)
    def update_state_sync(self) -> None:
        """Blocking twin of `update_state`, for a task that is a plain function."""

    @on_app_loop
    async def progress(self, done: float, total: float, message: str = "") -> None:
        """Reports how far the task is: state `PROGRESS`, with `{"done": done, "total": total, "message":
        message}`.

        It returns, waits and raises as `update_state` does.

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

    # -- a workflow in the job's place --

    async def replace(self, workflow: Replacement) -> NoReturn:
        """Ends the task, and puts a workflow in the place of its job.

        Whoever waits for the job gets the workflow's value, and the steps after the job wait for it. The call
        does not return: it leaves the task's body by an exception that is not an `Exception`; let it through.
        The last job of the workflow has the id of this one. The value of a group is the list. Deadline,
        parent and root are handed on. If the job is revoked meanwhile, nothing takes its place.

        Args:
            workflow: a signature, chain or group.

        Raises:
            TypeError, SerializationError, PayloadTooLarge, ValueError: as `delay`. The task goes on then.

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
        """Does the same in a plain function, see `replace`."""
        if self._app is None or self._job is None:
            raise RuntimeError("this job's worker cannot be reached from here")
        if not hasattr(workflow, "in_place_of"):
            raise TypeError(
                f"replace() takes a call such as add.s(1, 2), or a workflow, not {brief(workflow)}"
            )
        raise Replaced(workflow.in_place_of(self._app, self._job, self.children))

    # -- whether the job is still wanted --

    @property
    def cancelled(self) -> bool:
        """Whether the task may stop: its job was revoked, its time limit is over, or its worker has lost it.

        A coroutine that is to end now is cancelled anyway. A thread cannot be cancelled: its function reads
        this between two steps and returns, and what it returns is dropped. A revocation without
        `terminate=True` shows here, too, but then the returned value counts. If the job runs elsewhere by
        now, because its worker was taken for dead, that shows after the next `progress` or `update_state`.
        """
        link = self.link
        return link is not None and (link.revoked or link.is_late or not link.is_wanted)

    async def heartbeat(self) -> None:
        """Lets other jobs run, and ends this one if it is to end now. For long loops that never wait.

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
        """Does the same for a plain function in a thread, where no other job waits for a turn.

        Raises:
            asyncio.CancelledError: the job was terminated, its time limit is over, or its worker has lost it.
                Let it through.
        """
        if self.link is not None and (self.link.is_late or not self.link.is_wanted):
            raise asyncio.CancelledError

    @property
    def _loop_owner(self) -> LoopOwner:
        """Where the calls of this object run."""
        if self.link is None:
            raise RuntimeError("this job's worker cannot be reached from here, nor from a forked child")
        return self.link.loop_owner

    @property
    def state(self) -> Any:
        """What the lifespan of the app has yielded in this worker, see `AsyncQ(lifespan=...)`. It is None
        without a lifespan, in the processes of `executor="process"`, and in `apply`.

        Example:
            ```python
            @app.task
            async def users() -> int:
                return await asyncq.current().state.pool.fetchval("SELECT count(*) FROM users")
            ```
        """
        return None if self.link is None else self.link.lifespan_state

    @property
    def enqueued_at(self) -> datetime | None:
        """When the job was enqueued, by the clock of the client, in UTC; None if that is not known."""
        if self._job is None or not 0 <= self._job.enqueued <= LATEST:
            return None
        return datetime.fromtimestamp(self._job.enqueued / 1000, UTC)

    @property
    def deadline(self) -> datetime | None:
        """When this job, and every job that it starts, must have ended; in UTC."""
        return None if self.deadline_ms is None else datetime.fromtimestamp(self.deadline_ms / 1000, UTC)


class Replaced(BaseException):
    """Leaves a task's body because a workflow takes the job's place.

    It is not an `Exception`: a body that catches `Exception` means its own errors.

    Attributes:
        jobs: the jobs of the workflow with their messages, parents before children. The last one gets the
            job's id.
    """

    def __init__(self, jobs: list[tuple[Job, bytes]]) -> None:
        super().__init__("this job is being replaced by a workflow; let the exception through")
        self.jobs: list[tuple[Job, bytes]] = jobs


current_job: ContextVar[Context | None] = ContextVar("asyncq_current_job", default=None)

joining: ContextVar[bool] = ContextVar("asyncq_joining", default=True)
"""Whether waiting for a job is allowed here. The runner sets it to False around a task's body."""


def current() -> Context:
    """Returns the job that this code runs in.

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
    """Cuts a forked child off from the worker: nobody would answer it, and it would wait for ever."""
    job = current_job.get()
    if job is not None and job.entry:  # otherwise the job has no worker
        job.link = None
        job.children = list(job.children)


os.register_at_fork(after_in_child=_after_fork_in_child)
