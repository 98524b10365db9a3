"""`asyncq workers`: lists workers, asks them for a sign of life or their stacks, makes them quiet or stop.

Each command opens the app, calls `app.control`, and prints.
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated

import typer

from asyncq import config
from asyncq.cli import console, loop, parameters, target as targets
from asyncq.cli.confirmation import confirmed
from asyncq.cli.exits import CliError, Code
from asyncq.cli.invocation import command
from asyncq.logs import escaped

if TYPE_CHECKING:
    from collections.abc import Coroutine
    from typing import TypeVar

    from asyncq.control.workers import WorkerInfo

    R = TypeVar("R")

workers: typer.Typer = typer.Typer(
    help="Lists workers, and gives them orders.", no_args_is_help=True, rich_markup_mode=None
)

Name = Annotated[str, typer.Argument(metavar="NAME", help="The worker's name.")]


@workers.command(name="ls")
@command
def ls(
    ctx: typer.Context,
    jsonl: Annotated[bool, typer.Option("--jsonl", help="Print one JSON document per line.")] = False,
) -> int:
    """Lists the workers, with what each said when it was last seen.

    Columns: name, host and process, queues, jobs that run and slots, jobs done and failed, version, when it
    was last seen, whether it is quiet.

    \b
    Example:
      asyncq workers ls --json | jq -r '.[] | select(.quiet) | .name'
    """  # noqa: D301  \b is typer's mark for lines that stay as they are
    invocation, app = targets.prepared(ctx.obj)

    async def show() -> int:
        async with app:
            found = await app.control.workers()
        console.listing(found, row, json=invocation.json, jsonl=jsonl)
        if not (found or jsonl or invocation.json or invocation.quiet):
            console.say("no workers")
        return Code.OK

    return loop.run(show())


@workers.command(name="ping")
@command
def ping(
    ctx: typer.Context,
    timeout: Annotated[
        str, typer.Option(metavar="DURATION", help="How long to wait for answers, such as 500ms or 2s.")
    ] = "1s",
) -> int:
    """Asks every worker for a sign of life, and prints how long each took.

    Exit code 1 if a worker has not answered in time, 0 if there is none.
    """
    invocation, app = targets.prepared(ctx.obj)
    limit = parameters.duration("--timeout", timeout)

    async def ping_all() -> int:
        async with app:
            answers = await app.control.ping(limit)
            silent = len(await app.control.workers()) - len(answers)
        if invocation.json:
            console.document(answers)
        elif answers:
            console.data(
                console.aligned(
                    [(escaped(name), f"{1000 * took:.1f} ms") for name, took in answers.items()], ""
                )
            )
        elif not invocation.quiet:
            console.say("no worker has answered")
        if silent > 0:
            console.complain(
                f"{silent} of the registered workers have not answered within {config.shown(limit)}",
                "asyncq workers ls shows when each was last seen",
            )
        return Code.FAILED if silent > 0 else Code.OK

    return loop.run(ping_all())


@workers.command(name="quiet")
@command
def quiet(
    ctx: typer.Context,
    name: Name,
    off: Annotated[bool, typer.Option("--off", help="Make it take jobs again.")] = False,
) -> int:
    """Makes a worker take no more jobs. What it runs goes on.

    It stays quiet until it is restarted, or until --off. Exit code 3 if there is no such worker, 4 if it does
    not answer.
    """
    invocation, app = targets.prepared(ctx.obj)

    async def order() -> int:
        async with app:
            await _answered(app.control.quiet(name, on=not off))
        if not invocation.quiet:
            console.say(f"worker {name!r} {'takes jobs again' if off else 'takes no more jobs'}")
        return Code.OK

    return loop.run(order())


@workers.command(name="stop")
@command
def stop(
    ctx: typer.Context,
    name: Name,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
) -> int:
    """Makes a worker stop: it takes no more jobs, and those that run have its grace to end.

    Returns when the worker has taken the order. A supervisor (`asyncq worker --workers N`) starts a new
    worker in its place. It asks; without a terminal it needs --yes. Exit code 3 if there is no such worker,
    4 if it does not answer.
    """
    invocation, app = targets.prepared(ctx.obj)

    async def order() -> int:
        async with app:
            if not (yes or await confirmed(f"Stop worker {name!r}?", f"this stops worker {name!r}")):
                return Code.OK
            await _answered(app.control.stop(name))
        if not invocation.quiet:
            console.say(f"worker {name!r} stops")
        return Code.OK

    return loop.run(order())


@workers.command(name="stacks")
@command
def stacks(ctx: typer.Context, name: Name) -> int:
    """Prints what each job of a worker does now: its stack, down to where it waits.

    Exit code 3 if there is no such worker, 4 if it does not answer: a task may block its event loop.
    """
    invocation, app = targets.prepared(ctx.obj)

    async def show() -> int:
        async with app:
            text = await _answered(app.control.stacks(name))
        if invocation.json:
            console.document({"stacks": text})
        else:
            console.data(text.rstrip())
        return Code.OK

    return loop.run(show())


async def _answered(call: Coroutine[object, object, R]) -> R:
    """Returns the answer of a worker.

    Raises:
        CliError: there is no such worker, or it does not answer.
    """
    try:
        return await call
    except LookupError as error:
        raise CliError(str(error), "asyncq workers ls lists the workers", Code.NOT_FOUND) from error
    except TimeoutError as error:
        raise CliError(str(error), "asyncq workers ping shows which answer", Code.TIMEOUT) from error


def row(info: WorkerInfo) -> tuple[str, ...]:
    """Returns a worker as the cells of a line."""
    seen = "?" if info.last_seen is None else f"{_since(info.last_seen)} ago"
    cells = (
        *(info.name, f"{info.host}:{info.pid}" if info.host else "?", ",".join(info.queues)),
        *(f"{info.busy}/{info.concurrency} busy", f"{info.done} done", f"{info.failed} failed"),
        *(info.version or "?", f"seen {seen}"),
        "quiet" if info.quiet else "",
    )
    return tuple(escaped(cell) for cell in cells)


def _since(moment: datetime) -> str:
    return config.shown(max(0.0, round((datetime.now(UTC) - moment).total_seconds(), 1)))
