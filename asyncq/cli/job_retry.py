"""`asyncq jobs retry`: enqueues jobs again that have ended, as new jobs.

The call of a job is known as long as there is a dead letter of it, or if its outcome holds the arguments
(setting `result_extended`).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from asyncq.broker.schema.records import Record
from asyncq.cli import console, job_ids, loop, parameters, target as targets
from asyncq.cli.exits import CliError, Code
from asyncq.cli.invocation import command

if TYPE_CHECKING:
    from asyncq.app import AsyncQ


@command
def retry(
    ctx: typer.Context,
    ids: Annotated[
        list[str],
        typer.Argument(metavar="ID", help="The jobs' ids; - reads them from stdin, one per line."),
    ],
) -> int:
    """Enqueues jobs again that have ended, as new jobs, and prints their ids.

    That needs the call: a dead letter of the job, which is deleted then, or an outcome with the arguments
    (setting result_extended). Exit code 1 if a job cannot be enqueued again, 3 if there is no such job.

    \b
    Examples:
      asyncq jobs retry 01KA7Q2
      asyncq jobs ls --state FAILURE --jsonl | jq -r .id | asyncq jobs retry -
    """  # noqa: D301  \b is typer's mark for lines that stay as they are
    invocation, app = targets.prepared(ctx.obj)
    given = parameters.ids(ids)
    rows: list[dict[str, str]] = []

    async def retry_all() -> int:
        codes: list[int] = []
        async with app:
            wanted = await job_ids.all_full(app, given, surely=True)
            letters = {
                letter.job_id: letter.id for letter in await app.control.dead.list(job_ids.MOST_LOOKED_AT)
            }
            for id_ in wanted:
                try:
                    new = await _enqueued_again(app, id_, letters.get(id_))
                except CliError as error:
                    console.complain(str(error), error.hint)
                    codes.append(error.code)
                    continue
                rows.append({"id": id_, "job_id": new})
                if not invocation.json:
                    console.data(f"{id_}  {new}")
        return max(codes, default=Code.OK)

    try:
        return loop.run(retry_all())
    finally:
        # If the server fails on the way, the user must still see which jobs were sent until then.
        if invocation.json:
            console.document(rows)


async def _enqueued_again(app: AsyncQ, id_: str, letter: str | None) -> str:
    """Enqueues a job again, and returns the id of the new job.

    Raises:
        CliError: its call is not known.
    """
    if letter is not None:
        try:
            return (await app.control.dead.replay(letter)).id
        except ValueError as error:
            raise CliError(str(error)) from error
    found = await app.sessions.current().broker.record(id_)
    if found is None:
        raise CliError(
            f"there is no job {id_!r} (any more)",
            "a result that has expired takes the call with it; a dead letter keeps it longer",
            Code.NOT_FOUND,
        )
    record = Record.parse(found)
    if record.flags.is_live:
        raise CliError(f"job {id_!r} has not ended", f"asyncq why {id_} says what it waits for")
    handle = app.AsyncResult(id_)
    await handle.refresh()
    args, kwargs, task = handle.args, handle.kwargs, handle.name
    if args is None or kwargs is None or not task:
        raise CliError(
            f"the arguments of job {id_!r} are not known",
            "workers keep them with AsyncQ(result_extended=True)",
        )
    options = {} if handle.queue is None else {"queue": handle.queue}
    return (await app.send(task, args, kwargs, **options)).id
