"""`asyncq revoke`: ends jobs, one after the other, and prints the state of each after that.

It calls `AsyncResult.revoke`, which returns when the server has answered, and not only when a running body
has ended.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from asyncq import wire
from asyncq.cli import console, job_ids, loop, parameters, target as targets
from asyncq.cli.exits import CliError, Code
from asyncq.cli.invocation import command

if TYPE_CHECKING:
    from asyncq.results.handle import AsyncResult


@command
def revoke(
    ctx: typer.Context,
    ids: Annotated[
        list[str],
        typer.Argument(metavar="ID", help="The jobs' ids; - reads them from stdin, one per line."),
    ],
    terminate: Annotated[bool, typer.Option("--terminate", help="Also end jobs that run.")] = False,
    signal: Annotated[
        str,
        typer.Option(
            metavar="NAME",
            show_default=False,
            help="Signal for a process: SIGTERM (default), SIGINT, SIGKILL.",
        ),
    ] = "SIGTERM",
    reason: Annotated[
        str | None, typer.Option(metavar="TEXT", help="Text for the error that waiting callers get.")
    ] = None,
    parents: Annotated[
        bool, typer.Option("--parents", help="Also end all jobs for which they still wait.")
    ] = False,
) -> int:
    """Ends jobs: a queued job never starts, a running job goes on unless --terminate is given.

    The jobs that wait for a job end with it. The jobs for which it waits go on unless --parents is given.

    Prints the state of each job. A job that has ended stays as it is. Exit code 3 if a job is unknown.

    \b
    Examples:
      asyncq revoke 01KA7Q2 --terminate
      asyncq jobs ls --queue mail --jsonl | jq -r .id | asyncq revoke -
    """  # noqa: D301  \b is typer's mark for lines that stay as they are
    if signal not in wire.SIGNAL_OF:
        raise CliError(f"--signal {signal}: use one of {', '.join(wire.SIGNAL_OF)}", code=Code.USAGE)
    options = {"terminate": terminate, "signal": signal, "reason": reason, "parents": parents}
    invocation, app = targets.prepared(ctx.obj)
    every = parameters.ids(ids)

    async def revoke_all() -> int:
        async with app:
            ids = await job_ids.all_full(app, every, surely=True)
            states = {id_: await _revoked(app.AsyncResult(id_), options) for id_ in ids}
        if invocation.json:
            console.document([{"id": id_, "state": state} for id_, state in states.items()])
        for id_, state in states.items():
            if state is None:
                console.complain(
                    f"no job under the id {id_!r}: it never existed, was forgotten or has expired"
                )
            elif not invocation.json:
                console.data(f"{id_}  {state}")
        return Code.NOT_FOUND if None in states.values() else Code.OK

    return loop.run(revoke_all())


async def _revoked(handle: AsyncResult[Any], options: dict[str, Any]) -> str | None:
    """Revokes a job and returns its state after that; None for an unknown job."""
    state = await handle.revoke(**options)
    return str(state) if await handle.exists() else None
