"""`asyncq result`: waits for a job and prints its result or its error.

`answer` waits and prints; `asyncq call` uses it, too. `command_on_same_server` writes the commands that hints
show.
"""

from __future__ import annotations

import os
import shlex
from typing import TYPE_CHECKING, Annotated, Any

import typer

from asyncq.broker.transport.url import mask
from asyncq.cli import console, loop, parameters, target as targets
from asyncq.cli.exits import CliError, Code
from asyncq.cli.invocation import Invocation, command
from asyncq.config import shown
from asyncq.errors import ResultTimeout, TaskRevoked
from asyncq.states import State

if TYPE_CHECKING:
    from asyncq.results.handle import AsyncResult

result: typer.Typer = typer.Typer(help="Reads results.", no_args_is_help=True, rich_markup_mode=None)

Seconds = Annotated[
    str, typer.Option("--timeout", "-t", metavar="TIME", help="How long to wait: 500ms, 30s, 5m.")
]


@result.command(name="get")
@command
def get(
    ctx: typer.Context,
    id_: Annotated[str, typer.Argument(metavar="ID", help="The job's id.")],
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
            handle = app.AsyncResult(id_)
            return await answer(handle, limit, limit, invocation, get_command(invocation, id_))

    return loop.run(wait())


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
