"""Plans: a workflow as jobs, parents before children. Each job has the ids of the jobs that it waits for.

A plan is made without a server, on the caller's thread. `Workflow.plan` adds the jobs of each step. It gets
the handle of the step before: the new job waits for all jobs in that handle, and its value template has the
form of the handle, with a list for each group. So a workflow needs no second description.

`Plan.submit` sends all jobs in one step, `Plan.run` runs them here, and `Plan.in_place_of` gives the last job
the id of a running job that the workflow replaces.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol, cast

from asyncq import wire
from asyncq.context import current_job
from asyncq.results import eager_run
from asyncq.results.eager import eager_result
from asyncq.results.groupresult import GroupResult
from asyncq.results.handle import AsyncResult
from asyncq.results.server_job import ServerJob
from asyncq.results.view import handle_of
from asyncq.serializers.value_paths import MAX_DEPTH
from asyncq.tasks.options import Options

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from asyncq.client.application import App
    from asyncq.client.session import Entry, Session
    from asyncq.client.sessions import InlineCalls
    from asyncq.results.eager_run import EndedAs
    from asyncq.tasks.job_builder import Sendable

    Handle = AsyncResult[Any] | GroupResult[Any, Any]

EDGES = 10_000
"""The largest number of pairs (job, job that it waits for) between two groups. With more pairs, a barrier job
stands between the groups."""

LARGEST = 10_000
"""The largest number of jobs in a workflow. While the server accepts them, it does nothing else."""


BARRIER_TASK = "asyncq.collected"
"""The barrier task: its value is its argument. It ends a workflow that replaces one job."""


class Follower(Protocol):
    """A workflow, which may follow a step."""

    def plan(self, plan: Plan, source: Handle | None) -> Any:
        """Adds its jobs to a plan. They wait for the source."""
        ...


class ErrorFollower(Protocol):
    """A signature, which may follow the failure of a step."""

    def plan(self, plan: Plan, source: Handle | None, *, failing: Sequence[str]) -> Any:
        """Adds its job to a plan. It waits for the failure of one of those jobs."""
        ...


class StepCall(Protocol):
    """A call that becomes a job of a plan: a signature."""

    @property
    def task(self) -> Sendable:
        """The task, with the options of the call."""
        ...

    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    immutable: bool


@dataclass(slots=True)
class _Collecting:
    """The call of the barrier task. Its only argument is the value that it waits for."""

    task: Sendable
    args: tuple[Any, ...] = ()
    kwargs: dict[str, Any] = field(default_factory=dict)
    immutable: bool = False


@dataclass(slots=True)
class Planned:
    """A job of a plan."""

    task: Sendable
    job: wire.Job
    known: ServerJob[Any]
    handle: AsyncResult[Any]
    no_children: set[str] = field(default_factory=set)
    """The ids of the jobs that wait for this one and are not shown as its children."""
    more_children: tuple[str, ...] = ()
    """The ids of the jobs that do not wait for this one and are shown as its children."""

    def message(self) -> bytes:
        """Encodes the message. All jobs that wait for this one must be known by then."""
        if not self.no_children and not self.more_children:
            return self.task.builder.message(self.job)
        waiting = (id_ for id_ in self.job.dependents if id_ not in self.no_children)
        children = tuple(dict.fromkeys((*waiting, *self.more_children)))
        return self.task.builder.message(dataclasses.replace(self.job, dependents=children))


class Plan:
    """The jobs that a workflow becomes.

    Args:
        app: the app of all its tasks; None for a workflow without tasks.

    Attributes:
        jobs: the jobs, parents before children: they can be accepted and run in this order.
        steps: the ids of the jobs, without those of callbacks.
    """

    def __init__(self, app: App | None) -> None:
        self.app = app
        self.jobs: list[Planned] = []
        self.steps: list[str] = []
        self._by_id: dict[str, Planned] = {}
        self._channel = "" if app is None else app.sessions.channel()
        self._shard = None if app is None or current_job.get() is not None else app.sessions.shards.next()

    def add(
        self, call: StepCall, source: Handle | None, *, failing: Sequence[str] | None = None
    ) -> AsyncResult[Any]:
        """Adds the job of one call, which waits for all jobs of the source.

        Args:
            call: the task and its arguments.
            source: the handle of the step before; its value becomes the first argument.
            failing: the ids of jobs. If it is given, the new job waits for the failure of one of them
                instead, and gets the id of the last of them.

        Raises:
            TypeError: the arguments do not fit the function.
            SerializationError, PayloadTooLarge: an argument cannot travel.
            ValueError: too many jobs, an id that another job has, or a task of another app.
        """
        task, args = call.task, call.args
        self._check(task)
        parents: list[str] = []
        template: Any = None
        on_error = failing is not None
        if failing is not None:
            parents += failing
            template = None if call.immutable else "e"
        elif source is not None:
            template = _template(source, parents)
            if call.immutable:
                template = None
            elif isinstance(template, list) and not _has_values(template):
                args, template = (template, *args), None  # only empty groups: their value is known already
        if parents:
            task.builder.refuse_key()
        before = 0 if template is None else 3 if on_error else 1
        builder = task.builder
        body = builder.body(args, call.kwargs, before)
        job = builder.job(body, self._channel, shard=self._shard)
        if job.id in self._by_id:
            raise ValueError(f"two jobs of this workflow have the task_id {job.id!r}; give each its own")
        job.parents, job.value_template, job.on_error = tuple(parents), template, on_error
        for parent in parents:
            above = self._by_id[parent]
            above.job.dependents = (*above.job.dependents, job.id)
            if on_error:  # after a success, the job tree should not show an error callback that never ran
                above.no_children.add(job.id)
        known: ServerJob[Any] = ServerJob(
            job.id, task.app, task, None, call.args, call.kwargs, is_ignored=job.ignore_result
        )
        handle: AsyncResult[Any] = handle_of(task.handle, known)
        handle.parent = source
        planned = Planned(task, job, known, handle)
        self.jobs.append(planned)
        self.steps.append(job.id)
        self._by_id[job.id] = planned
        return handle

    def follow(
        self,
        source: Handle,
        links: Sequence[Follower],
        error_links: Sequence[ErrorFollower],
        failing: Sequence[str],
    ) -> None:
        """Adds the callbacks of a step, or of several steps.

        Args:
            source: the handle of the steps' value.
            links: the workflows that follow when all of the source has ended well.
            error_links: the calls that follow when one of the jobs fails.
            failing: the ids of those jobs; an error callback gets the id of the last of them.
        """
        if not links and not error_links:
            return
        # Callbacks are no steps: the failure of one must not call the error callbacks of the others.
        steps, self.steps = self.steps, []
        for link in links:
            link.plan(self, source)
        for error_link in error_links:
            error_link.plan(self, source, failing=failing)
        self.steps = steps

    def gathered(self, source: Handle | None, count: int) -> Handle | None:
        """Returns the handle for which `count` jobs should wait instead of the source.

        Mostly that is the source itself. If there were more than `EDGES` pairs, it is the handle of a new
        barrier job: linking each job with each would hold up the server (300 after 300 jobs: for seconds).
        """
        if source is None:
            return None
        parents: list[str] = []
        _template(source, parents)
        if len(parents) < 2 or len(parents) * count <= EDGES:
            return source
        last = self._by_id[parents[-1]].job
        return self.collect(source, Options(queue=last.queue, priority=last.priority))

    def collect(self, source: Handle, options: Options) -> AsyncResult[Any]:
        """Adds a barrier job: it waits for all jobs of the source, and its value is that of the source."""
        assert self.app is not None, "there are jobs, so there is their app"
        task = cast("Sendable", self.app.find_task(BARRIER_TASK))  # every app has it
        return self.add(_Collecting(task.with_options(options)), source)

    async def submit(self, messages: list[tuple[wire.Job, bytes]]) -> None:
        """Enqueues the jobs in one step. Their handles are notified of the outcomes from now on.

        Args:
            messages: the jobs and messages that `messages` returned.

        Raises:
            ValueError: an id is that of another call. Nothing was enqueued.
            QueueFull, BrokerUnavailable: as `Task.delay`.
        """
        if not messages:
            return
        assert self.app is not None, "there are jobs, so there is their app"
        session = self.app.sessions.current()
        refused = await session.submit(self.entries(session, messages), is_whole=True)
        if refused is not None:
            raise self.taken(refused)

    def entries(self, session: Session, messages: list[tuple[wire.Job, bytes]]) -> list[Entry]:
        """Announces the jobs, and returns them as `Session.submit` takes them."""
        entries: list[Entry] = []
        for planned, (job, message) in zip(self.jobs, messages, strict=True):
            waiter = session.announce(job)
            planned.known.attach(waiter)
            entries.append((job, message, waiter))
        return entries

    def taken(self, id_: str) -> ValueError:
        """Makes the error for a plan that was refused because another call's job has that id."""
        return self.jobs[0].task.builder.taken(id_)

    def messages(self) -> list[tuple[wire.Job, bytes]]:
        """Returns jobs and messages, as the broker takes them. Raises as `add`."""
        if len(self.jobs) > 1:
            for planned in self.jobs:
                planned.task.builder.refuse_key()
        return [(planned.job, planned.message()) for planned in self.jobs]

    def in_place_of(self, old: wire.Job, children: Sequence[str] = ()) -> list[tuple[wire.Job, bytes]]:
        """Returns the jobs and messages that replace a running job. The last job gets the running job's id,
        its waiters and its dependents. Raises as `add`.

        Args:
            old: the running job.
            children: the ids of the jobs that it has started.
        """
        for planned in self.jobs:
            planned.task.builder.refuse_key()
            planned.job.parent_id, planned.job.root_id = old.parent_id, old.root_id or old.id
            planned.job.ancestors = old.ancestors
        last = self.jobs[-1].job
        for parent in last.parents:
            above = self._by_id[parent]
            above.job.dependents = tuple(old.id if id_ == last.id else id_ for id_ in above.job.dependents)
            above.no_children.add(old.id)  # the workflow came from this job: the job tree would be a circle
        last.id, last.request_id, last.channel, last.root_id = (
            old.id,
            old.request_id,
            old.channel,
            old.root_id,
        )
        last.result_ttl, last.ignore_result, last.enqueued = old.result_ttl, old.ignore_result, old.enqueued
        last.dependents = tuple(old.dependents)
        first = (planned.job.id for planned in self.jobs[:-1] if not planned.job.parents)
        self.jobs[-1].more_children = (*children, *first)  # the job tree finds all other jobs below these
        return self.messages()

    def run(self, handle: Handle) -> Any:
        """Runs all jobs here and now. Returns the handle of their value, with eager results in it."""
        if self.app is None:
            return handle
        return self._as_run(handle, *eager_run.run_all(self.messages(), self.app))

    async def run_inline(self, handle: Handle, inline: InlineCalls) -> Any:
        """Runs all jobs where the call is made, in place of `submit`, see `InlineCalls`. Returns as `run`.

        Raises:
            ValueError: an id is that of another call.
        """
        refused = await inline.run(self.messages())
        if refused is not None:
            raise self.jobs[0].task.builder.taken(refused)
        ids = [planned.job.id for planned in self.jobs]
        outcomes = {id_: ended for id_ in ids if (ended := inline.outcome(id_)) is not None}
        return self._as_run(handle, outcomes, {id_: inline.items(id_) for id_ in ids})

    def _as_run(
        self, handle: Handle, outcomes: dict[str, EndedAs], yielded: Mapping[str, Sequence[bytes]]
    ) -> Any:
        """Returns the handle of the value of jobs that have run, with eager results in it."""
        assert self.app is not None, "there are jobs, so there is their app"
        results: dict[int, Any] = {}
        for planned in self.jobs:
            ended = wire.decode_ended(*outcomes[planned.job.id])
            items = yielded.get(planned.job.id, ())
            known = planned.known
            result = eager_result(planned.task, planned.job, ended, items, known.args, known.kwargs)
            result.parent = _as_run(planned.handle.parent, results, self.app)
            results[id(planned.handle)] = result
        return _as_run(handle, results, self.app)

    def _check(self, task: Sendable) -> None:
        if len(self.jobs) >= LARGEST:
            raise ValueError(
                f"a workflow may have at most {LARGEST:,} jobs; make it smaller, as with task.chunks(...), "
                "or let a job of it start the rest"
            )
        if task.app is not self.app:
            raise ValueError(f"task {task.name} belongs to {task.app!r}, the workflow to {self.app!r}")


def _template(source: Handle, parents: list[str]) -> Any:
    """Returns the value template of a handle, and adds the handle's jobs to `parents`. In the template, a
    number stands for each job: its index in `parents`.
    """
    if isinstance(source, AsyncResult):
        parents.append(source.id)
        return len(parents) - 1
    known = len(parents)
    template = [_template(one, parents) for one in source.results]
    before = source.parent
    while len(parents) == known and before is not None:
        # An empty group has no values, but the next step must still wait for the steps before the group.
        if isinstance(before, AsyncResult):
            parents.append(before.id)
        else:
            for one in before.results:
                _template(one, parents)
            before = before.parent
    return template


def check_depth(group: GroupResult[Any, Any]) -> None:
    """Refuses a group whose value would nest too deep for an argument.

    Raises:
        ValueError: it nests deeper than `MAX_DEPTH`.
    """
    if _depth(group) > MAX_DEPTH:
        raise ValueError(
            f"groups may be nested {MAX_DEPTH} deep, like the lists of their values; nest fewer groups, or "
            "put a step after the inner groups"
        )


def _depth(handle: Any) -> int:
    return 1 + max(map(_depth, handle.results), default=0) if isinstance(handle, GroupResult) else 0


def _as_run(handle: Handle | None, results: dict[int, Any], app: App) -> Any:
    """Returns the handle with eager results in place of the jobs' handles. Each group in it is made once."""
    if isinstance(handle, GroupResult) and id(handle) not in results:
        members = [_as_run(one, results, app) for one in handle.results]
        results[id(handle)] = GroupResult(handle.id, members, _as_run(handle.parent, results, app), app)
    return results.get(id(handle))


def _has_values(template: Any) -> bool:
    return not isinstance(template, list) or any(map(_has_values, template))
