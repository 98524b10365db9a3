"""`asyncq result`: waits for a job and prints its result or its error, watches jobs, forgets results.

`answer` waits and prints; `asyncq call` uses it, too. `command_on_same_server` writes the commands that hints
show.
"""

from __future__ import annotations

import asyncio
import os
import shlex
from typing import TYPE_CHECKING, Annotated, Any

import typer

from asyncq.broker.transport.url import mask
from asyncq.cli import console, job_ids, loop, parameters, target as targets
from asyncq.cli.exits import OTHER_APP, CliError, Code
from asyncq.cli.invocation import Invocation, command
from asyncq.config import shown
from asyncq.errors import ResultNotFound, ResultTimeout, TaskRevoked
from asyncq.logs import escaped
from asyncq.states import State

if TYPE_CHECKING:
    from asyncq.results.events import Event
    from asyncq.results.handle import AsyncResult

result: typer.Typer = typer.Typer(
    help="Reads, watches and forgets results.", no_args_is_help=True, rich_markup_mode=None
)

Seconds = Annotated[
    str, typer.Option("--timeout", "-t", metavar="TIME", help="How long to wait: 500ms, 30s, 5m.")
]

Ids = Annotated[
    list[str], typer.Argument(metavar="ID", help="The jobs' ids; - reads them from stdin, one per line.")
]


@result.command(name="get")
@command
def get(
    ctx: typer.Context,
    id_: Annotated[str, typer.Argument(metavar="ID", help="The job's id, its beginning, or @last.")],
    timeout: Seconds = "10s",
) -> int:
    """Waits for a job to end and prints its result.

    Exit code 1 if the task failed, 3 if there is no such result (any more), 4 after the timeout, 5 if the job
    was revoked. A result that holds your own classes needs the app: --app or ASYNCQ_APP.

    \b
    Examples:
      asyncq result get 01KA7Q2 --timeout 1m
      asyncq result get 01KA7Q2 --json | jq .
    """  # noqa: D301  \b is typer's mark for lines that stay as they are
    invocation: Invocation = ctx.obj
    invocation.begin()
    limit = parameters.duration("--timeout", timeout)
    app = targets.load_or_bare(invocation)
    targets.use_short_timeouts(app)

    async def wait() -> int:
        async with app:
            handle = app.AsyncResult(await job_ids.full(app, id_))
            return await answer(handle, limit, limit, invocation, get_command(invocation, handle.id))

    return loop.run(wait())


@result.command(name="watch")
@command
def watch(
    ctx: typer.Context,
    ids: Ids,
    timeout: Annotated[
        str | None, typer.Option("--timeout", "-t", metavar="TIME", help="How long to watch: 30s, 5m.")
    ] = None,
) -> int:
    """Prints what happens to jobs, as it happens, until all of them have ended.

    A line for each change of a state and each report of progress; with --json a JSON document each. The exit
    code is the highest of theirs: 1 failed, 3 not found, 4 timeout, 5 revoked.

    \b
    Examples:
      asyncq result watch 01KA7Q2
      asyncq result watch 01KA7Q2 --json | jq .info.done
    """  # noqa: D301  \b is typer's mark for lines that stay as they are
    invocation: Invocation = ctx.obj
    invocation.begin()
    limit = None if timeout is None else parameters.duration("--timeout", timeout)
    app = targets.load_or_bare(invocation)
    targets.use_short_timeouts(app)
    given = parameters.ids(ids)

    async def watch_all() -> int:
        async with app:
            wanted = await job_ids.all_full(app, given)
            codes = await asyncio.gather(
                *(_watched(app.AsyncResult(id_), limit, invocation) for id_ in wanted)
            )
        return max(codes, default=Code.OK)

    return loop.run(watch_all())


async def _watched(handle: AsyncResult[Any], limit: float | None, invocation: Invocation) -> int:
    """Prints what happens to a job until it has ended, and returns the exit code."""
    last: Event | None = None
    try:
        async for event in handle.events(limit):
            last = event
            if invocation.json:
                console.document({"id": handle.id, "state": event.state, "info": event.info, "at": event.at})
            else:
                at = "" if event.at is None else f"{event.at:%H:%M:%SZ}"
                console.data(f"{at:9}  {escaped(handle.id)}  {event.state!s:8}  {_about(event)}".rstrip())
    except ResultNotFound as error:
        console.complain(str(error).partition("\n")[0], OTHER_APP)
        return Code.NOT_FOUND
    except ResultTimeout:
        console.complain(f"job {handle.id} did not end within {shown(limit or 0.0)}")
        return Code.TIMEOUT
    if last is None or last.state == State.SUCCESS:
        return Code.OK
    return Code.REVOKED if last.state == State.REVOKED else Code.FAILED


def _about(event: Event) -> str:
    """Returns what an event says, as one line."""
    match event.info:
        case None:
            return ""
        case Exception() as error:
            return escaped(console.named(error).partition("\n")[0])
        case {"done": int() | float() as done, "total": int() | float() as total, **rest} if total:
            text = f"{done:g}/{total:g} ({100 * done / total:.0f} %) {rest.get('message') or ''}"
        case {"done": int() | float() as done, **rest}:
            text = f"{done:g} {rest.get('message') or ''}"
        case other:
            text = str(other)
    return escaped(text.partition("\n")[0].rstrip())


@result.command(name="forget")
@command
def forget(ctx: typer.Context, ids: Ids) -> int:
    """Removes results from the server. A job that has not ended runs on, and leaves no result.

    Whoever waits for it already still gets the outcome. Exit code 3 if there is no such result (any more).

    \b
    Examples:
      asyncq result forget 01KA7Q2
      asyncq jobs ls --state SUCCESS --jsonl | jq -r .id | asyncq result forget -
    """  # noqa: D301  \b is typer's mark for lines that stay as they are
    invocation, app = targets.prepared(ctx.obj)
    given = parameters.ids(ids)

    async def forget_all() -> int:
        missing: list[str] = []
        async with app:
            wanted = await job_ids.all_full(app, given, surely=True)
            for id_ in wanted:
                handle = app.AsyncResult(id_)
                if await handle.exists():
                    await handle.forget()
                else:
                    missing.append(id_)
        if invocation.json:
            console.document([{"id": id_, "forgotten": id_ not in missing} for id_ in wanted])
        for id_ in missing:
            console.complain(f"there is no result of job {id_!r} (any more)", OTHER_APP)
        return Code.NOT_FOUND if missing else Code.OK

    return loop.run(forget_all())


def get_command(invocation: Invocation, id_: str, target: str | None = None) -> str:
    """Returns the command that gets this job's result later."""
    return command_on_same_server(invocation, target, "result", "get", id_)


def command_on_same_server(invocation: Invocation, target: str | None, *command_: str) -> str:
    """Returns a command for the same server and app, as a user types it. A password in the URL is masked."""
    arguments = ["asyncq", *command_]
    from_environment = invocation.app == os.environ.get("ASYNCQ_APP")
    app = target or (None if from_environment else invocation.app)
    url = None if invocation.url is None else mask(invocation.url)
    for option, value in (("--app", app), ("--url", url), ("--namespace", invocation.namespace)):
        arguments += [option, value] if value else []
    return shlex.join(arguments)


async def answer(
    handle: AsyncResult[Any], left: float, limit: float, invocation: Invocation, again: str
) -> int:
    """Waits for the end of a job, prints its result or error, and returns the exit code.

    Args:
        handle: of the job.
        left: how many seconds to wait, which are left of the limit.
        limit: how many seconds the user gave, for the error.
        invocation: the global options.
        again: the command that gets the result later, for the error.

    Raises:
        CliError: the job did not end in time.
    """
    try:
        outcome = await handle.outcome(timeout=left)
    except ResultTimeout:
        raise CliError(
            f"job {handle.id} did not end within {shown(limit)} (state: {handle.state})",
            f"wait again: {again} --timeout 1m",
            Code.TIMEOUT,
        ) from None
    if outcome.state == State.SUCCESS:
        value = outcome.unwrap()
        console.document(value) if invocation.json else console.data(str(value))
        return Code.OK
    if outcome.traceback:
        console.say(outcome.traceback.rstrip())
    error = outcome.error
    if isinstance(error, TaskRevoked):
        console.complain(str(error))
        return Code.REVOKED
    assert error is not None
    if outcome.traceback:
        first_line = console.named(error).partition("\n")[0]
        console.complain(f"job {handle.id} failed: {first_line}")
    else:
        console.complain(str(error))
    return Code.FAILED
