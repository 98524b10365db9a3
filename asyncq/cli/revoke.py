"""`asyncq revoke`: ends jobs, one after the other, and prints the state of each after that.

It calls `AsyncResult.revoke`, which returns when the server has answered, and not only when a running body
has ended.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from asyncq import wire
from asyncq.cli import console, loop, target as targets
from asyncq.cli.exits import CliError, Code
from asyncq.cli.invocation import Invocation, command

if TYPE_CHECKING:
    from asyncq.results.handle import AsyncResult


@command
def revoke(
    ctx: typer.Context,
    ids: Annotated[list[str], typer.Argument(metavar="ID", help="The jobs' ids.")],
    terminate: Annotated[bool, typer.Option("--terminate", help="Also end it if it runs.")] = False,
    signal: Annotated[
        str,
        typer.Option(
            metavar="NAME", show_default=False, help="For a process: SIGTERM (default), SIGINT, SIGKILL."
        ),
    ] = "SIGTERM",
    reason: Annotated[
        str | None, typer.Option(metavar="TEXT", help="Text that the waiting see, if it was not started.")
    ] = None,
    parents: Annotated[
        bool, typer.Option("--parents", help="Also end all jobs that it still waits for.")
    ] = False,
) -> int:
    """Ends jobs: a queued one never starts, a running one goes on unless --terminate is given.

    What waits for a job ends with it. The jobs that it waits for go on unless --parents is given.

    Prints each job's state. What has ended stays as it is. Exit code 3 if one of them is unknown.

    \b
    Example:
      asyncq revoke 01KA7Q2 --terminate
    """  # noqa: D301  \b is typer's mark for lines that stay as they are
    invocation: Invocation = ctx.obj
    if signal not in wire.SIGNAL_OF:
        raise CliError(f"--signal {signal}: use one of {', '.join(wire.SIGNAL_OF)}", code=Code.USAGE)
    options = {"terminate": terminate, "signal": signal, "reason": reason, "parents": parents}
    invocation.begin()
    app = targets.load_or_bare(invocation)
    targets.use_short_timeouts(app)

    async def revoke_all() -> int:
        async with app:
            states = {id_: await _revoked(app.AsyncResult(id_), options) for id_ in ids}
        if invocation.json:
            console.document([{"id": id_, "state": state} for id_, state in states.items()])
        for id_, state in states.items():
            if state is None:
                console.complain(f"no job under the id {id_!r}: it never was, was forgotten or has expired")
            elif not invocation.json:
                console.data(f"{id_}  {state}")
        return Code.NOT_FOUND if None in states.values() else Code.OK

    return loop.run(revoke_all())


async def _revoked(handle: AsyncResult[Any], options: dict[str, Any]) -> str | None:
    """Revokes a job and returns its state after that; None for an unknown job."""
    state = await handle.revoke(**options)
    return str(state) if await handle.exists() else None
