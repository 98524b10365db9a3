"""`asyncq schedule`: lists schedules and their next ticks, runs one now, pauses, resumes and removes them.

Each command opens the app, calls `app.schedules`, and prints. `preview` reads a cron text and needs no
server.
"""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Annotated, Any

import typer

from asyncq.cli import console, last_job, loop, target as targets
from asyncq.cli.confirmation import confirmed
from asyncq.cli.exits import CliError, Code
from asyncq.cli.invocation import Invocation, command
from asyncq.logs import escaped
from asyncq.schedules.cron import next_times

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from datetime import datetime

    from asyncq.app import AsyncQ
    from asyncq.schedules.schedule import Schedule

schedule: typer.Typer = typer.Typer(
    help="Lists, runs, pauses and removes schedules.", no_args_is_help=True, rich_markup_mode=None
)

Name = Annotated[str, typer.Argument(metavar="NAME", help="The name of the schedule.")]
Count = Annotated[int, typer.Option("--count", "-n", min=1, metavar="N", help="How many times to show.")]


@schedule.command(name="ls")
@command
def ls(
    ctx: typer.Context,
    jsonl: Annotated[bool, typer.Option("--jsonl", help="Print one JSON document per line.")] = False,
) -> int:
    """Lists the schedules by name.

    Columns: name, task, rule, zone, next time, runs, source.

    \b
    Examples:
      asyncq schedule ls
      asyncq schedule ls --json | jq '.[] | select(.paused)'
    """  # noqa: D301  \b is typer's mark for lines that stay as they are
    invocation, app = _prepared(ctx)

    async def show() -> int:
        async with app:
            found = await app.schedules.list()
        console.listing(found, row, json=invocation.json, jsonl=jsonl, tree=_tree)
        if not found and not invocation.quiet:
            console.say("no schedules")
        return Code.OK

    return loop.run(show())


@schedule.command(name="next")
@command
def next_(ctx: typer.Context, count: Count = 10) -> int:
    """Shows the next ticks of all schedules, the soonest first.

    \b
    Example:
      asyncq schedule next --count 20
    """  # noqa: D301  as above
    invocation, app = _prepared(ctx)

    async def show() -> int:
        async with app:
            ticks: list[tuple[datetime, str]] = []
            for one in await app.schedules.list():
                if one.next_at is not None:
                    ticks += [(at, one.name) for at in await app.schedules.preview(one.name, count)]
        ticks = sorted(ticks)[:count]
        if invocation.json:
            console.document([{"at": at, "name": name} for at, name in ticks])
        elif ticks:
            console.data("\n".join(f"{_shown(at)}  {escaped(name)}" for at, name in ticks))
        elif not invocation.quiet:
            console.say("no schedule has a next tick")
        return Code.OK

    return loop.run(show())


@schedule.command(name="preview")
@command
def preview(
    ctx: typer.Context,
    cron: Annotated[str, typer.Argument(metavar="CRON", help="Five fields in quotes, or @daily.")],
    tz: Annotated[str, typer.Option("--tz", metavar="ZONE", help="The time zone.")] = "UTC",
    count: Count = 5,
) -> int:
    """Shows when a cron text ticks. Needs no server.

    \b
    Example:
      asyncq schedule preview "30 2 * * 1-5" --tz Europe/Paris
    """  # noqa: D301  as above
    invocation: Invocation = ctx.obj
    invocation.begin()
    try:
        times = next_times(cron, tz=tz, count=count)
    except (ValueError, ImportError) as error:
        raise CliError(str(error), code=Code.USAGE) from None
    if invocation.json:
        console.document(times)
    else:
        console.data("\n".join(map(_shown, times)))
    return Code.OK


@schedule.command(name="run")
@command
def run(ctx: typer.Context, name: Name) -> int:
    """Makes a job of a schedule now, and prints its id.

    Exit code 3 if there is no such schedule.

    \b
    Example:
      asyncq result get "$(asyncq schedule run nightly)"
    """  # noqa: D301  as above
    invocation, app = _prepared(ctx)

    async def run_now() -> int:
        async with app:
            handle = await app.schedules.run_now(name)
        last_job.note(handle.id)
        if invocation.json:
            console.document({"id": handle.id})
        else:
            console.data(handle.id)
        return Code.OK

    return _found(run_now, name)


@schedule.command(name="pause")
@command
def pause(ctx: typer.Context, name: Name) -> int:
    """Pauses a schedule, until resume.

    It stays paused over restarts and deployments. Exit code 3 if there is no such schedule.
    """
    return _changed(ctx, name, lambda app: app.schedules.pause(name))


@schedule.command(name="resume")
@command
def resume(ctx: typer.Context, name: Name) -> int:
    """Lets a paused schedule go on.

    It goes on with its first tick after now. Exit code 3 if there is no such schedule.
    """
    return _changed(ctx, name, lambda app: app.schedules.resume(name))


@schedule.command(name="rm")
@command
def rm(
    ctx: typer.Context,
    name: Name,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
) -> int:
    """Removes a schedule that was added at run time.

    It shows the schedule, and asks; without a terminal it needs --yes. Exit code 3 if there is none.
    """
    invocation, app = _prepared(ctx)

    async def remove() -> int:
        async with app:
            found = await app.schedules.get(name)
            question = f"{'  '.join(row(found))}\nRemove schedule {name!r}?"
            removed = yes or await confirmed(question, f"this removes schedule {name!r}")
            if removed:
                try:
                    await app.schedules.remove(name)
                except ValueError as error:
                    raise CliError(str(error)) from None
        if invocation.json:
            console.document({"removed": removed})
        elif removed and not invocation.quiet:
            console.say(f"removed {name}")
        return Code.OK

    return _found(remove, name)


def _prepared(ctx: typer.Context) -> tuple[Invocation, AsyncQ]:
    invocation: Invocation = ctx.obj
    invocation.begin()
    app = targets.load_or_bare(invocation)
    targets.use_short_timeouts(app)
    return invocation, app


def _changed(ctx: typer.Context, name: str, change: Callable[[AsyncQ], Awaitable[Schedule]]) -> int:
    """Changes a schedule, and prints it as it is then."""
    invocation, app = _prepared(ctx)

    async def make() -> int:
        async with app:
            changed = await change(app)
        if invocation.json:
            console.document(_tree(changed))
        else:
            console.data(console.aligned([row(changed)], indent=""))
        return Code.OK

    return _found(make, name)


def _found(work: Callable[[], Any], name: str) -> int:
    """Runs a command about one schedule."""
    try:
        return loop.run(work())
    except LookupError:
        raise CliError(
            f"there is no schedule {name!r}", "asyncq schedule ls lists those that exist", Code.NOT_FOUND
        ) from None


def _tree(found: Schedule) -> dict[str, Any]:
    return {field.name: getattr(found, field.name) for field in dataclasses.fields(found)}


def row(found: Schedule) -> tuple[str, ...]:
    """Returns a schedule as the cells of a line."""
    at = "paused" if found.paused else "ended" if found.next_at is None else _shown(found.next_at)
    cells = (found.name, found.task, found.rule, found.tz, at, f"{found.runs} runs", found.source)
    return tuple(escaped(cell) for cell in cells)


def _shown(at: datetime) -> str:
    return at.isoformat(sep=" ", timespec="seconds")
