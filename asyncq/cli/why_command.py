"""`asyncq why ID`: says what a job waits for."""

from __future__ import annotations

from typing import Annotated

import typer

from asyncq.cli import console, job_ids, loop, target as targets
from asyncq.cli.exits import OTHER_APP, CliError, Code
from asyncq.cli.invocation import command
from asyncq.errors import ResultNotFound


@command
def why(
    ctx: typer.Context,
    id_: Annotated[str, typer.Argument(metavar="ID", help="The job's id, its beginning, or @last.")],
) -> int:
    """Says what a job waits for: its time, other jobs, a permit, a pause, a worker, or its turn.

    The first line is its state, its task and its queue, then comes a line for each reason. Exit code 3 if
    there is no such job (any more).

    \b
    Examples:
      asyncq why 01KA7Q2
      asyncq why 01KA7Q2 --json | jq -r '.reasons[].kind'
    """  # noqa: D301  \b is typer's mark for lines that stay as they are
    invocation, app = targets.prepared(ctx.obj)

    async def show() -> int:
        async with app:
            try:
                answer = await app.control.why(await job_ids.full(app, id_))
            except ResultNotFound as error:
                raise CliError(str(error), OTHER_APP, Code.NOT_FOUND) from error
        if invocation.json:
            console.document(answer)
        else:
            head = "  ".join(text for text in (answer.state, answer.task, answer.queue) if text)
            console.data(f"{head}\n{answer}")
        return Code.OK

    return loop.run(show())
