"""`asyncq jobs retry`: enqueues jobs again that have ended, as new jobs.

The call of a job is known as long as there is a dead letter of it, or if its outcome holds the arguments
(setting `result_extended`).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any

import typer

from asyncq.broker.schema.records import Record
from asyncq.cli import console, job_ids, last_job, loop, parameters, target as targets
from asyncq.cli.confirmation import confirmed
from asyncq.cli.exits import CliError, Code
from asyncq.cli.invocation import command
from asyncq.logs import escaped
from asyncq.states import READY_STATES, State

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from asyncq.app import AsyncQ
    from asyncq.cli.invocation import Invocation
    from asyncq.control.job_listing import JobInfo

_PAGE = 1000
_MOST_COMPLAINTS = 10
"""So many jobs that cannot be enqueued again are named one by one."""


@command
def retry(
    ctx: typer.Context,
    ids: Annotated[
        list[str] | None, typer.Argument(metavar="ID", help="The jobs' ids; - reads them from stdin.")
    ] = None,
    state: Annotated[
        str | None,
        typer.Option(metavar="STATE", show_default=False, help="Jobs that ended so; else FAILURE."),
    ] = None,
    queue: Annotated[str | None, typer.Option(metavar="QUEUE", help="Jobs of this queue.")] = None,
    task: Annotated[str | None, typer.Option(metavar="TASK", help="Jobs of this task.")] = None,
    since: Annotated[
        str | None, typer.Option(metavar="AGE", help="Jobs enqueued since then: 30s, 1h, 1d.")
    ] = None,
    limit: Annotated[int, typer.Option(min=1, metavar="N", help="At most so many jobs.")] = 1000,
    cursor: Annotated[str | None, typer.Option(metavar="C", help="Go on behind an earlier call.")] = None,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only print which jobs.")] = False,
) -> int:
    """Enqueues jobs again that have ended, as new jobs, and prints their ids.

    That needs the call: a dead letter of the job, which is deleted then, or an outcome with the arguments
    (setting result_extended). With a filter instead of ids it says how many jobs fit and how far it has
    looked, and asks; a job that it has enqueued before is left out. Exit code 1 if a job cannot be enqueued
    again, 3 if there is no such job.

    \b
    Examples:
      asyncq jobs retry 01KA7Q2
      asyncq jobs retry --task shop.charge --since 1h
    """  # noqa: D301  \b is typer's mark for lines that stay as they are
    invocation, app = targets.prepared(ctx.obj)
    if any(given is not None for given in (state, queue, task, since, cursor)):
        if ids:
            raise typer.BadParameter("write ids, or a filter, and not both", param_hint="ID")
        wanted = RetryFilter.of(state, queue, task, since, limit, cursor)
        return loop.run(_retry_all(app, wanted, invocation, is_sure=yes, is_dry=dry_run))
    if not ids:
        text = "write ids, or a filter: --state, --queue, --task, --since"
        raise typer.BadParameter(text, param_hint="ID")
    given = parameters.ids(ids)
    again = Again(app, print_each=not invocation.json)

    async def retry_given() -> int:
        async with app:
            for id_ in await job_ids.all_full(app, given, surely=True):
                await again.enqueue(id_)
        return again.code

    try:
        return loop.run(retry_given())
    finally:
        # If the server fails on the way, the user must still see which jobs were sent until then.
        if invocation.json:
            console.document(again.rows)


@dataclass(frozen=True, slots=True)
class RetryFilter:
    """Which ended jobs are wanted; the options of the command line of the same names."""

    state: State
    queue: str | None
    task: str | None
    since: float | None
    limit: int
    cursor: str | None

    @classmethod
    def of(
        cls,
        state: str | None,
        queue: str | None,
        task: str | None,
        since: str | None,
        limit: int,
        cursor: str | None,
    ) -> RetryFilter:
        """Makes the filter of a command line.

        Raises:
            typer.BadParameter: a value does not fit.
        """
        chosen = State.FAILURE if state is None else state
        if chosen not in READY_STATES:
            text = (
                f"{state!r} is not one of {', '.join(sorted(READY_STATES))}: only ended jobs can be retried"
            )
            raise typer.BadParameter(text, param_hint="--state")
        age = None if since is None else parameters.duration("--since", since)
        return cls(State(chosen), queue, task, age, limit, cursor)

    async def found(self, app: AsyncQ) -> Found:
        """Returns the jobs that fit, the newest first.

        Raises:
            CliError: the cursor is none.
        """
        jobs: list[JobInfo] = []
        looked_at, cursor = 0, self.cursor
        while True:
            most = min(_PAGE, self.limit - len(jobs))
            try:
                page = await app.control.jobs(self.state, self.queue, self.task, self.since, most, cursor)
            except ValueError as error:
                raise CliError(str(error), "asyncq jobs retry --help", Code.USAGE) from error
            jobs += page
            looked_at += page.looked_at
            cursor = page.cursor
            if cursor is None or len(jobs) >= self.limit:
                return Found(jobs, looked_at, cursor)


@dataclass(frozen=True, slots=True)
class Found:
    """The jobs that fit a filter, and how far it has looked; the cursor is None at the end."""

    jobs: Sequence[JobInfo]
    looked_at: int
    cursor: str | None

    def __str__(self) -> str:
        fit = f"{self.looked_at:,} ended jobs looked at, {len(self.jobs):,} fit"
        return fit if self.cursor is None else f"{fit}; to go on: --cursor {self.cursor}"


class Again:
    """Enqueues jobs again, one after the other.

    Args:
        app: the app, which is opened by the time of the first call.
        print_each: whether to print the id of each job and of the new one.
        once: whether a job is enqueued again only once: the new job has an id that follows from the old one.

    Attributes:
        rows: the ids of the jobs, and of the new ones.
        skipped: how many were enqueued again before.
        code: the exit code so far.
    """

    def __init__(self, app: AsyncQ, *, print_each: bool, once: bool = False) -> None:
        self.rows: list[dict[str, str]] = []
        self.skipped: int = 0
        self.code: int = Code.OK
        self._app = app
        self._print_each = print_each
        self._once = once
        self._letters: dict[str, str] | None = None
        self._complaints = 0

    async def enqueue(self, id_: str) -> None:
        """Enqueues a job again. Complains if that is not possible."""
        try:
            new = await self._enqueued(id_)
        except CliError as error:
            self.code = max(self.code, error.code)
            self._complaints += 1
            if not self._once or self._complaints <= _MOST_COMPLAINTS:
                console.complain(str(error), error.hint)
            return
        if new is None:
            self.skipped += 1
            return
        self.rows.append({"id": id_, "job_id": new})
        last_job.note(new)
        if self._print_each:
            console.data(f"{id_}  {new}")

    @property
    def more_complaints(self) -> int:
        """How many jobs could not be enqueued again and were not named."""
        return max(0, self._complaints - _MOST_COMPLAINTS) if self._once else 0

    async def _enqueued(self, id_: str) -> str | None:
        """Enqueues a job again. Returns the id of the new job; None if there is one already.

        Raises:
            CliError: its call is not known.
        """
        if self._letters is None:
            newest = await self._app.control.dead.list(self._app.settings.dead_cap)
            self._letters = {letter.job_id: letter.id for letter in newest}
        if (letter := self._letters.get(id_)) is not None:
            try:
                return (await self._app.control.dead.replay(letter)).id
            except ValueError as error:
                raise CliError(str(error)) from error
        found = await self._app.sessions.current().broker.record(id_)
        if found is None:
            raise CliError(
                f"there is no job {id_!r} (any more)",
                "a result that has expired takes the call with it; a dead letter keeps it longer",
                Code.NOT_FOUND,
            )
        if Record.parse(found).flags.is_live:
            raise CliError(f"job {id_!r} has not ended", f"asyncq why {id_} says what it waits for")
        return await self._called_again(id_)

    async def _called_again(self, id_: str) -> str | None:
        handle = self._app.AsyncResult(id_)
        await handle.refresh()
        args, kwargs, task = handle.args, handle.kwargs, handle.name
        if args is None or kwargs is None or not task:
            raise CliError(
                f"the arguments of job {id_!r} are not known",
                "workers keep them with AsyncQ(result_extended=True)",
            )
        options: dict[str, Any] = {} if handle.queue is None else {"queue": handle.queue}
        if self._once:
            options["task_id"] = f"{id_}.retry"
            if await self._app.AsyncResult(options["task_id"]).exists():
                return None
        return (await self._app.send(task, args, kwargs, **options)).id


async def _retry_all(
    app: AsyncQ, wanted: RetryFilter, invocation: Invocation, *, is_sure: bool, is_dry: bool
) -> int:
    """Enqueues all jobs again that fit a filter, if the user is sure."""
    again = Again(app, print_each=not invocation.json, once=True)
    found: Found | None = None
    say: Callable[[str], None] = console.say if not invocation.quiet else lambda _: None
    try:
        async with app:
            found = await wanted.found(app)
            say(str(found))
            what = f"{len(found.jobs):,} job{'s' * (len(found.jobs) != 1)} again"
            if is_dry and not invocation.json:
                console.data(console.aligned([_row(job) for job in found.jobs], indent=""))
            elif found.jobs and not is_dry:
                if not is_sure and not await confirmed(f"Enqueue {what}?", f"this enqueues {what}"):
                    return Code.OK
                for job in found.jobs:
                    await again.enqueue(job.id)
    finally:
        if invocation.json and found is not None:
            figures = {"found": len(found.jobs), "looked_at": found.looked_at, "cursor": found.cursor}
            console.document({**figures, "jobs": again.rows, "skipped": again.skipped})
    if again.more_complaints:
        console.complain(f"{again.more_complaints:,} more could not be enqueued again")
    if not is_dry:
        before = f", {again.skipped:,} were enqueued again before" if again.skipped else ""
        say(f"{len(again.rows):,} enqueued again{before}")
    return again.code


def _row(job: JobInfo) -> tuple[str, ...]:
    ended = "?" if job.ended is None else f"{job.ended:%Y-%m-%d %H:%M:%SZ}"
    return tuple(map(escaped, (job.id, ended, job.queue or "?", job.task or "?", job.error or "")))
