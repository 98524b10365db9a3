"""`asyncq queues`: lists queues, shows one with its jobs, pauses it, resumes it, and ends what waits in it.

Each command opens the app, calls `app.control`, and prints.
"""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Annotated

import typer

from asyncq import config
from asyncq.cli import console, loop, parameters, target as targets
from asyncq.cli.confirmation import confirmed
from asyncq.cli.exits import CliError, Code
from asyncq.cli.invocation import command
from asyncq.cli.jobs import cells
from asyncq.logs import escaped

if TYPE_CHECKING:
    from asyncq.app import AsyncQ
    from asyncq.control.job_listing import JobInfo
    from asyncq.control.queues import QueueInfo

queues: typer.Typer = typer.Typer(
    help="Lists, pauses, resumes and purges queues.", no_args_is_help=True, rich_markup_mode=None
)

Name = Annotated[str, typer.Argument(metavar="QUEUE", help="The name of the queue.")]


@queues.command(name="ls")
@command
def ls(
    ctx: typer.Context,
    jsonl: Annotated[bool, typer.Option("--jsonl", help="Print one JSON document per line.")] = False,
) -> int:
    """Lists the queues: all that were ever served, paused, or enqueued to.

    Columns: queue, jobs that wait, jobs that run, how long the first of those that wait has waited, live
    workers that serve it, whether it is paused.

    \b
    Examples:
      asyncq queues ls
      asyncq queues ls --json | jq '.[] | select(.consumers == 0)'
    """  # noqa: D301  \b is typer's mark for lines that stay as they are
    invocation, app = targets.prepared(ctx.obj)

    async def show() -> int:
        async with app:
            found = await app.control.queues()
        console.listing(found, row, json=invocation.json, jsonl=jsonl)
        if not (found or jsonl or invocation.json or invocation.quiet):
            console.say("no queues")
        return Code.OK

    return loop.run(show())


@queues.command(name="show")
@command
def show(
    ctx: typer.Context,
    queue: Name,
    limit: Annotated[int, typer.Option(min=1, metavar="N", help="How many jobs to list at most.")] = 20,
) -> int:
    """Shows a queue, as `ls` does, and its jobs: first those that run, then those that wait.

    Columns of the jobs: id, state, task, attempt, when it was enqueued, worker. Exit code 3 if there is no
    such queue.

    \b
    Example:
      asyncq queues show mail --limit 5
    """  # noqa: D301  \b is typer's mark for lines that stay as they are
    invocation, app = targets.prepared(ctx.obj)

    async def show_queue() -> int:
        async with app:
            info = await _known(app, queue)
            jobs: list[JobInfo] = []
            for state in ("STARTED", "PENDING"):
                if left := limit - len(jobs):
                    jobs += (await app.control.jobs(state, queue, limit=min(left, 1000))).items
        if invocation.json:
            console.document({**dataclasses.asdict(info), "jobs": jobs})
            return Code.OK
        console.data(console.aligned([row(info)], indent=""))
        if jobs:
            console.data(console.aligned([cells(job) for job in jobs]))
        return Code.OK

    return loop.run(show_queue())


@queues.command(name="pause")
@command
def pause(ctx: typer.Context, queue: Name) -> int:
    """Pauses a queue: within a second, no worker takes jobs of it. What runs goes on.

    It stays paused until `asyncq queues resume`, whatever is restarted. Exit code 3 if there is no such
    queue.
    """
    return _set_paused(ctx, queue, paused=True)


@queues.command(name="resume")
@command
def resume(ctx: typer.Context, queue: Name) -> int:
    """Lets a paused queue go on. Exit code 3 if there is no such queue."""
    return _set_paused(ctx, queue, paused=False)


def _set_paused(ctx: typer.Context, queue: str, *, paused: bool) -> int:
    invocation, app = targets.prepared(ctx.obj)

    async def change() -> int:
        async with app:
            await _known(app, queue)
            await (app.control.pause(queue) if paused else app.control.resume(queue))
            info = await _known(app, queue)
        if invocation.json:
            console.document(info)
        elif not invocation.quiet:
            what = "is paused" if paused else "goes on"
            console.say(f"queue {queue!r} {what}: {info.waiting:,} jobs wait, {info.running:,} run")
        return Code.OK

    return loop.run(change())


@queues.command(name="purge")
@command
def purge(
    ctx: typer.Context,
    queue: Name,
    older_than: Annotated[
        str | None,
        typer.Option("--older-than", metavar="AGE", help="Only jobs that have waited so long: 30s, 1h, 1d."),
    ] = None,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only print how many wait.")] = False,
) -> int:
    """Ends the jobs that wait in a queue: as REVOKED, and whoever waits for them is told.

    What runs goes on; jobs that wait for their time stay. It shows how many wait, and asks; without a
    terminal it needs --yes. Exit code 3 if there is no such queue.

    \b
    Examples:
      asyncq queues purge mail --dry-run
      asyncq queues purge mail --older-than 1d --yes
    """  # noqa: D301  \b is typer's mark for lines that stay as they are
    invocation, app = targets.prepared(ctx.obj)
    age = None if older_than is None else parameters.duration("--older-than", older_than)

    async def purge_queue() -> int:
        async with app:
            info = await _known(app, queue)
            ended = 0
            which = f"the jobs that wait in queue {queue!r} ({info.waiting:,})"
            if age is not None:
                which += f", as far as they have waited for {config.shown(age)}"
            if (
                info.waiting
                and not dry_run
                and (yes or await confirmed(f"End {which}?", f"this ends {which}"))
            ):
                ended = await app.control.purge(queue, age)
        if invocation.json:
            console.document({"waiting": info.waiting, "ended": ended})
        elif not invocation.quiet:
            console.say(f"{info.waiting:,} jobs waited, {ended:,} ended")
        return Code.OK

    return loop.run(purge_queue())


async def _known(app: AsyncQ, queue: str) -> QueueInfo:
    """Returns a queue.

    Raises:
        CliError: there is no such queue.
    """
    found = await app.control.queues()
    info = next((one for one in found if one.name == queue), None)
    if info is None:
        names = ", ".join(one.name for one in found[:10]) or "none"
        raise CliError(f"there is no queue {queue!r}", f"queues: {names}", Code.NOT_FOUND)
    return info


def row(info: QueueInfo) -> tuple[str, ...]:
    """Returns a queue as the cells of a line."""
    oldest = config.shown(info.oldest_wait) if info.waiting else "-"
    figures = (f"{info.waiting} waiting", f"{info.running} running", f"oldest {oldest}")
    return (escaped(info.name), *figures, f"{info.consumers} workers", "paused" if info.paused else "")
