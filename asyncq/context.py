"""What a piece of code knows about the job it runs in: the current job, and whether it may wait for another.

Two context variables, set by the runner around the task's body and nowhere else. They follow into tasks and
into threads that anyio or asyncio start (`to_thread`), but not into a bare `threading.Thread` or
`loop.run_in_executor`: there, hand the context over yourself with `contextvars.copy_context().run`.
"""

from __future__ import annotations

from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from asyncq.errors import WouldDeadlock

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from asyncq.wire import Job


@dataclass(slots=True)
class Context:
    """The job that the running code belongs to, as `asyncq.current()` gives it.

    Attributes:
        id: the job's id. Stable over retries and redeliveries, so it serves as an idempotency key for side
            effects.
        name: the task's registered name.
        args: positional arguments of this call.
        kwargs: keyword arguments of this call.
        queue: the queue it was taken from.
        attempt: 1 for the first run, one more each time a worker died with it.
        parent_id: the job that started this one, if one did.
        root_id: the job at the top of that line; its own id if nobody started it.
        headers: what the caller put into `headers=`.
        worker: the name of the worker that runs it.
        max_retries: how often it is tried again after a failure.
        deadline_ms: when it must have ended, in ms since the epoch; the jobs it starts inherit it.
        children: ids of the jobs started inside it so far.
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


def check_join(what: str, *, disable_sync_subtasks: bool = True) -> None:
    """The deadlock guard: every call that waits for another job passes here before it waits.

    Args:
        what: the call, as the error names it.
        disable_sync_subtasks: False lets this one call wait whatever the flag says.

    Raises:
        WouldDeadlock: waiting is denied here.
    """
    if not disable_sync_subtasks or joining.get():
        return
    job = current_job.get()
    where = f"task {job.name} (job {job.id})" if job is not None else "a denied_join_result() block"
    raise WouldDeadlock(
        f"{what} inside {where} waits for another job: with every worker slot waiting like this, nobody "
        "would be left to run it. Return the handle's id and let the caller wait, or allow it here with "
        "get(disable_sync_subtasks=False) or `with asyncq.allow_join_result():`"
    )


@contextmanager
def allow_join_result() -> Iterator[None]:
    """Let the code inside the block wait for other jobs, also inside a task.

    Example:
        ```python
        with asyncq.allow_join_result():
            total = await (await add.delay(1, 2))
        ```
    """
    token = joining.set(True)
    try:
        yield
    finally:
        joining.reset(token)


@contextmanager
def denied_join_result() -> Iterator[None]:
    """Make every wait for a job inside the block raise `WouldDeadlock`, also outside tasks."""
    token = joining.set(False)
    try:
        yield
    finally:
        joining.reset(token)
