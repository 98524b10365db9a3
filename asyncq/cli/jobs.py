"""`asyncq jobs`: lists jobs, shows one with its record in Redis decoded, revokes jobs and retries them.

For `show`, the record is the truth about the job's state; queue, worker and attempts come from the job's
status, or from its outcome once it has ended.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from asyncq import wire
from asyncq.broker.schema.records import Record, RequestId
from asyncq.cli import console, job_ids, loop, parameters, target as targets
from asyncq.cli.exits import OTHER_APP, CliError, Code
from asyncq.cli.invocation import command
from asyncq.cli.job_retry import retry
from asyncq.cli.revoke import revoke
from asyncq.errors import DecodeError
from asyncq.logs import escaped
from asyncq.outcome import timestamp
from asyncq.states import State

if TYPE_CHECKING:
    from asyncq.app import AsyncQ
    from asyncq.broker.broker import Broker
    from asyncq.control.job_listing import JobInfo
    from asyncq.control.pages import Page

jobs: typer.Typer = typer.Typer(
    help="Lists, shows, revokes and retries jobs.", no_args_is_help=True, rich_markup_mode=None
)


@jobs.command(name="ls")
@command
def ls(
    ctx: typer.Context,
    state: Annotated[
        str | None,
        typer.Option(metavar="STATE", help="Only jobs in this state: PENDING, FAILURE, ..."),
    ] = None,
    queue: Annotated[str | None, typer.Option(metavar="QUEUE", help="Only jobs of this queue.")] = None,
    task: Annotated[str | None, typer.Option(metavar="TASK", help="Only jobs of this task.")] = None,
    since: Annotated[
        str | None, typer.Option(metavar="AGE", help="Only jobs enqueued since then: 30s, 1h, 1d.")
    ] = None,
    limit: Annotated[int, typer.Option(min=1, metavar="N", help="How many to list at most.")] = 50,
    cursor: Annotated[str | None, typer.Option(metavar="C", help="Go on behind an earlier page.")] = None,
    jsonl: Annotated[bool, typer.Option("--jsonl", help="Print one JSON document per line.")] = False,
) -> int:
    """Lists jobs: running ones, then those that wait, then those that have ended, the newest first.

    Columns: id, state, queue, task, attempt, when it was enqueued, worker, last error. One command looks at
    some ten thousand jobs. It says on stderr how far it has looked, and the cursor with which to go on.

    \b
    Examples:
      asyncq jobs ls --state FAILURE --since 1h
      asyncq jobs ls --task shop.charge --jsonl | jq -r .id | asyncq jobs revoke -
    """  # noqa: D301  \b is typer's mark for lines that stay as they are
    invocation, app = targets.prepared(ctx.obj)
    age = None if since is None else parameters.duration("--since", since)

    async def show_page() -> int:
        async with app:
            try:
                page = await app.control.jobs(state, queue, task, age, limit, cursor)
            except ValueError as error:
                raise CliError(str(error), "asyncq jobs ls --help", Code.USAGE) from error
        console.listing(page.items, _row, json=invocation.json, jsonl=jsonl, whole=page)
        if not invocation.quiet:
            console.say(_how_far(page))
        return Code.OK

    return loop.run(show_page())


jobs.command(name="revoke")(revoke)
jobs.command(name="retry")(retry)


@jobs.command(name="show")
@command
def show(
    ctx: typer.Context,
    id_: Annotated[str, typer.Argument(metavar="ID", help="The job's id, its beginning, or @last.")],
    raw: Annotated[
        bool, typer.Option("--raw", help="Also print its record as it is stored in Redis.")
    ] = False,
) -> int:
    """Prints a job: where it is, what it calls, how it ended; and its record in words.

    Exit code 3 if there is no such job (any more).

    \b
    Examples:
      asyncq jobs show 01KA7Q2
      asyncq jobs show 01KA7Q2 --raw
    """  # noqa: D301  \b is typer's mark for lines that stay as they are
    invocation, app = targets.prepared(ctx.obj)

    async def print_job() -> int:
        async with app:
            rows = await _rows(app, await job_ids.full(app, id_), raw=raw)
        if invocation.json:
            console.document(rows)
        else:
            width = max(map(len, rows))
            console.data("\n".join(f"{name:{width}}  {_text(value)}" for name, value in rows.items()))
        return Code.OK

    return loop.run(print_job())


async def _rows(app: AsyncQ, id_: str, *, raw: bool) -> dict[str, Any]:
    """Returns the lines about a job, by their names."""
    broker = app.sessions.current().broker
    found = await broker.record(id_)
    if found is None:
        raise CliError(f"there is no job {id_!r} (any more)", OTHER_APP, Code.NOT_FOUND)
    try:
        record = Record.parse(broker.opened(id_, found))
    except DecodeError as error:
        raise CliError(f"the record of job {id_!r} cannot be read: {error}", repr(found[:200])) from error
    state = await _state(broker, id_, record)
    rows = {"id": id_, **state, "record": _words(record, state)}
    rows |= _about_record(record)
    return rows | ({"raw": repr(found)} if raw else {})


def _words(record: Record, state: dict[str, Any]) -> list[str]:
    """Returns what the record says, in words. A live job's does not change at its start; the state does."""
    words = record.flags.words()
    if record.flags[0] == wire.LIVE and state:
        words[0] = _live(record, state)
    return words


def _live(record: Record, state: dict[str, Any]) -> str:
    if state["state"] == State.STARTED:
        return "a worker runs it"
    if RequestId.parse(record.request_id).hides_start:
        return "waits in its queue, or runs already: its task does not show starts (track_started=False)"
    return "waits in its queue; asyncq why says for what"


async def _state(broker: Broker, id_: str, record: Record) -> dict[str, Any]:
    if not record.flags.is_live:
        return _end(record)
    status = await broker.state(id_)
    if status is None or isinstance(status, wire.Ended):
        return {}  # it has ended since its record was read
    rows: dict[str, Any] = {"state": str(status.state), "queue": status.queue}
    message = await broker.message(id_)
    if message is not None:
        rows["task"] = message[0].name
    if status.worker is not None:
        rows |= {"worker": status.worker, "started": timestamp(status.started)}
    if status.retries:
        rows["retries"] = status.retries
    return rows


def _end(record: Record) -> dict[str, Any]:
    if record.flags[0] == wire.TOMBSTONE:
        return {"state": "forgotten"}
    try:
        ended = record.ended()
    except DecodeError as error:
        return {"state": str(wire.STATE_OF[record.flags[0]]), "outcome": f"cannot be read: {error}"}
    rows = {
        "state": str(ended.state),
        "task": ended.name,
        "queue": ended.queue,
        "worker": ended.worker,
        "attempts": ended.attempts,
        "enqueued": timestamp(ended.enqueued),
        "started": timestamp(ended.started),
        "finished": timestamp(ended.finished),
        "outcome": f"{len(ended.payload):,} bytes: asyncq result get",
    }
    return {name: value for name, value in rows.items() if value}


def _about_record(record: Record) -> dict[str, Any]:
    rows: dict[str, Any] = {"entry": record.entry if record.entry != "0" else "", "stream": record.queue}
    try:
        request = RequestId.parse(record.request_id)
    except DecodeError as error:
        rows["request"] = str(error)
    else:
        rows["request"] = request.random
        rows["expires"] = timestamp(request.expires)
        rows["shown as started"] = "no (track_started=False)" if request.hides_start else ""
        rows["equal calls"] = f"share the key {request.signature}" if request.signature else ""
    rows["notified"] = list(record.channels)
    return {name: value for name, value in rows.items() if value}


def _text(value: Any) -> str:
    return "; ".join(map(str, value)) if isinstance(value, list) else str(value)


def cells(job: JobInfo) -> tuple[str, ...]:
    """Returns a job as the cells of a line: id, state, task, attempt, when it was enqueued, worker."""
    at = "?" if job.enqueued is None else f"{job.enqueued:%Y-%m-%d %H:%M:%SZ}"
    words = (job.id, job.state, job.task or "?", f"attempt {job.attempt}", at, job.worker or "")
    return tuple(escaped(word) for word in words)


def _row(job: JobInfo) -> tuple[str, ...]:
    id_, state, *rest = cells(job)
    return (id_, state, escaped(job.queue), *rest, escaped(job.error or ""))


def _how_far(page: Page[JobInfo]) -> str:
    found = f"{len(page):,} jobs of {page.looked_at:,} looked at"
    return found if page.cursor is None else f"{found}; go on: --cursor {page.cursor}"
