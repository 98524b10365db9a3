"""The jobs that were enqueued during a test, in order, and the assertions about them.

`EnqueuedJob` is one of them, decoded from its message, so its arguments are those that a worker gets.
`Journal` keeps them. It is used on the thread of each session, and read on the thread of the test.
"""

from __future__ import annotations

import threading
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from asyncq.errors import DecodeError, SerializationError
from asyncq.results.server_job import ServerJob
from asyncq.results.view import handle_of
from asyncq.serializers import ArgumentCodec, dumps, in_front
from asyncq.short_repr import brief
from asyncq.tasks.planning import BARRIER_TASK
from asyncq.tasks.task import Task
from asyncq.tasks.workflow import shown
from asyncq.testing.call_sites import TaskSites

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from asyncq import wire
    from asyncq.app import AsyncQ
    from asyncq.broker.waiters import Waiter
    from asyncq.results.handle import AsyncResult

_MOST_SHOWN = 20
"""How many jobs a message shows."""
_NIL = dumps(None)


@dataclass(frozen=True, slots=True)
class EnqueuedJob:
    """A job that was enqueued during a test.

    Attributes:
        task: the task's name.
        args: the positional arguments, as the worker gets them. Of a job that waits for others, those that
            stand behind their values.
        kwargs: the keyword arguments.
        id: the job's id.
        headers: the headers of the call.
        queue: the queue.
        due: when it may start, if it was given a `countdown` or an `eta`.
        made_at: the line that made the call, as `path:line`; None if it is not known.
        result: a handle of the job.
    """

    task: str
    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    id: str
    headers: dict[str, Any]
    queue: str
    due: datetime | None
    made_at: str | None
    result: AsyncResult[Any] = field(repr=False, compare=False)

    def __str__(self) -> str:
        return f"{self.task}({shown(self.args, self.kwargs)})"


def describe(job: EnqueuedJob) -> str:
    """Describes a job for a message: the call, the id, and where it was made."""
    where = f", enqueued at {job.made_at}" if job.made_at else ""
    return f"{job} (job {job.id}{where})"


def _arguments(app: AsyncQ, job: wire.Job) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """Returns the arguments in a message. Values of other jobs, which come in front of them, are left out."""
    before = 0 if job.value_template is None else 3 if job.value_template == "e" else 1
    body = in_front(job.body, [_NIL] * before) if before else job.body
    try:
        args, kwargs = app.task_named(job.name).arguments.loads(body)
    except DecodeError:  # the place of a value that is not there yet does not fit the parameter's annotation
        args, kwargs = ArgumentCodec(None).loads(body)
    return tuple(args[before:]), kwargs


@dataclass(slots=True)
class JournalEntry:
    """A call in the journal: its job, where it was made, whether the server has accepted it, and the waiter
    for its outcome in the session that made it.
    """

    job: wire.Job
    site: str | None
    is_accepted: bool = False
    waiter: Waiter | None = None


class Journal:
    """What was enqueued, in order.

    Args:
        app: the app.

    Attributes:
        sites: notes where tasks are created.
    """

    def __init__(self, app: AsyncQ) -> None:
        self.sites: TaskSites = TaskSites()
        self._app = app
        self._entries: list[JournalEntry] = []
        self._lock = threading.Lock()  # sessions of several loops write

    def begin(self, jobs: Iterable[wire.Job]) -> list[JournalEntry]:
        """Adds jobs that are about to be enqueued. They are shown once `end` says that they were."""
        site = self.sites.here()
        # The barrier jobs of workflows are asyncq's own.
        entries = [JournalEntry(job, site) for job in jobs if job.name != BARRIER_TASK]
        with self._lock:
            self._entries += entries
        return entries

    def end(self, entries: Sequence[JournalEntry], *, is_accepted: bool) -> None:
        """Shows jobs that were enqueued, and removes those that were not."""
        if is_accepted:
            for entry in entries:
                entry.is_accepted = True
            return
        with self._lock:
            self._entries = [entry for entry in self._entries if not any(entry is one for one in entries)]

    def has(self, job: wire.Job) -> bool:
        """Whether this call was enqueued: another call may have the id, but not the request id."""
        call = job.id, job.request_id
        return any((one.job.id, one.job.request_id) == call for one in self._entries if one.is_accepted)

    @property
    def jobs(self) -> list[EnqueuedJob]:
        """The jobs so far."""
        return [self._shown(entry) for entry in self._entries if entry.is_accepted]

    def _shown(self, entry: JournalEntry) -> EnqueuedJob:
        job = entry.job
        args, kwargs = _arguments(self._app, job)
        due = None if job.wait is None else datetime.fromtimestamp((job.enqueued + job.wait) / 1000, UTC)
        return EnqueuedJob(
            job.name,
            args,
            kwargs,
            job.id,
            dict(job.headers or {}),
            job.queue,
            due,
            entry.site,
            self._handle(entry, args, kwargs),
        )

    def _handle(self, entry: JournalEntry, args: tuple[Any, ...], kwargs: dict[str, Any]) -> AsyncResult[Any]:
        """Returns a handle that shows what the session knows that made the call."""
        job, task = entry.job, self._app.task_named(entry.job.name)
        if entry.waiter is None:
            return task.AsyncResult(job.id)
        known: ServerJob[Any] = ServerJob(
            job.id, self._app, task, entry.waiter, args, kwargs, is_ignored=job.ignore_result
        )
        handle: AsyncResult[Any] = handle_of(task.handle, known)
        return handle

    def by_id(self) -> dict[str, EnqueuedJob]:
        """Returns the jobs by id."""
        return {job.id: job for job in self.jobs}

    def expiring(self, now: float) -> list[str]:
        """Returns the ids of the jobs that may not start any more at that time, in seconds."""
        return [
            entry.job.id
            for entry in self._entries
            if entry.is_accepted and entry.job.expires is not None and entry.job.expires <= now * 1000
        ]

    # -- assertions --

    def assert_enqueued(
        self, task: Task[..., Any] | str, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> EnqueuedJob:
        """Returns the first job of a task with these arguments; without arguments, the first of the task.

        Raises:
            AssertionError: there is none. The message shows what was enqueued.
            TypeError: the arguments do not fit the task.
        """
        name = _name_of(task)
        known = self._app.find_task(name)
        if known is None and isinstance(task, str) and not any(job.task == name for job in self.jobs):
            tasks = ", ".join(sorted(self._app.tasks)) or "none"
            raise AssertionError(
                f"no job of task {name!r} was enqueued, and the app has no such task: {tasks}"
            )
        wanted = None
        if args or kwargs:
            if known is not None:
                known.builder.check_part(args, kwargs)
            wanted = _forms(known, args, kwargs)
        for job in self.jobs:
            if job.task == name and (wanted is None or _matches(known, job, wanted)):
                return job
        call = f"{name}({shown(args, kwargs)})" if wanted is not None else f"a job of {name}"
        raise AssertionError(f"{call} was not enqueued; {self.summary(name)}")

    def assert_not_enqueued(self, task: Task[..., Any] | str) -> None:
        """Checks that no job of a task was enqueued.

        Raises:
            AssertionError: there is one.
        """
        name = _name_of(task)
        found = [job for job in self.jobs if job.task == name]
        if found:
            raise AssertionError(f"{name} was enqueued:\n{listed(found)}")

    def summary(self, name: str = "") -> str:
        """Says what was enqueued, the jobs of a task first."""
        jobs = sorted(self.jobs, key=lambda job: job.task != name)
        return f"what was enqueued:\n{listed(jobs)}" if jobs else "nothing was enqueued"


def listed(jobs: Sequence[EnqueuedJob]) -> str:
    """Returns jobs as lines of a message."""
    lines = [f"  {describe(job)}" for job in jobs[:_MOST_SHOWN]]
    if len(jobs) > _MOST_SHOWN:
        lines.append(f"  and {len(jobs) - _MOST_SHOWN} more")
    return "\n".join(lines)


def _name_of(task: Task[..., Any] | str) -> str:
    if isinstance(task, Task):
        return task.name
    if isinstance(task, str):
        return task
    raise TypeError(f"name a task or its name, as in t.assert_enqueued(add, 1, 2), not {brief(task)}")


_Form = tuple[tuple[Any, ...], "Mapping[str, Any]"]
"""Positional and keyword arguments."""


def _forms(task: Task[..., Any] | None, args: tuple[Any, ...], kwargs: dict[str, Any]) -> list[_Form]:
    """Returns the arguments that a test expects: as it gave them, and as a worker would get them. The second
    cannot be made of `unittest.mock.ANY`.
    """
    forms: list[_Form] = [(args, kwargs)]
    codec = ArgumentCodec(None) if task is None else task.arguments
    try:
        travelled, named = codec.loads(codec.dumps(args, kwargs))
    except (SerializationError, DecodeError):
        return forms
    return [*forms, (tuple(travelled), named)]


def _matches(task: Task[..., Any] | None, job: EnqueuedJob, wanted: list[_Form]) -> bool:
    given = _bound(task, job.args, job.kwargs)
    return any((job.args, job.kwargs) == form or given == _bound(task, *form) for form in wanted)


def _bound(task: Task[..., Any] | None, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> object:
    """Returns arguments by the names of their parameters, with defaults: `add(1, y=2)` is `add(1, 2)`."""
    if task is None:
        return args, kwargs
    try:
        bound = task.builder.signature.bind(*args, **kwargs)
    except TypeError:  # some come from other jobs
        return args, kwargs
    bound.apply_defaults()
    return bound.arguments
