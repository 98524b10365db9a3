"""`asyncq call`: enqueues a job, waits for it and prints its result.

On an embedded server, if no worker begins with the job within a second, a worker in this process runs it, on
the same event loop. If the wait is interrupted, the command prints how to get the result or end the job.
"""

from __future__ import annotations

import asyncio
import difflib
import json
import logging
import re
import secrets
from contextlib import AsyncExitStack, contextmanager
from typing import TYPE_CHECKING, Annotated, Any

import typer

from asyncq.cli import console, last_job, loop, parameters, target as targets
from asyncq.cli.exits import CliError, Code
from asyncq.cli.invocation import Invocation, command
from asyncq.cli.result import Seconds, answer, command_on_same_server, get_command
from asyncq.errors import ResultTimeout
from asyncq.states import State
from asyncq.worker import Worker, job_log

if TYPE_CHECKING:
    from collections.abc import Iterator

    from asyncq.app import AsyncQ
    from asyncq.results.handle import AsyncResult
    from asyncq.tasks.signature import Signature
    from asyncq.tasks.task import Task

_PICKUP = 1.0
"""How many seconds a job on an embedded server may wait for a listed worker before it is run here."""
_GRACE = 1.0
"""How many seconds the worker in this process leaves other jobs that it has begun, when the called one ended.
"""


@command
def call(
    ctx: typer.Context,
    target: Annotated[str, typer.Argument(metavar="MODULE:APP", help="The app.")],
    task: Annotated[
        str, typer.Argument(metavar="TASK", help="Full name of the task, or its last part if that is unique.")
    ],
    values: Annotated[
        list[str] | None,
        typer.Argument(metavar="ARG|KEY=ARG", help="Arguments: JSON; other words are texts."),
    ] = None,
    timeout: Seconds = "30s",
    queue: Annotated[str | None, parameters.option("queue")] = None,
    no_wait: Annotated[bool, typer.Option("--no-wait", help="Print the job's id and do not wait.")] = False,
) -> int:
    """Calls a task and prints its result.

    With the embedded server and without a worker, this command runs the job itself.
    Exit code 1 if the task failed, 4 after the timeout, 5 if the job was revoked.

    \b
    Examples:
      asyncq call shop.tasks:app add 4 4
      asyncq call shop.tasks send_mail '{"to": "ada@example.org"}' retries=3
      asyncq call shop.tasks echo -- --not-an-option
    """  # noqa: D301  \b is typer's mark for lines that stay as they are
    invocation: Invocation = ctx.obj
    invocation.begin()
    limit = parameters.duration("--timeout", timeout)
    app = targets.load(target, invocation)
    targets.use_short_timeouts(app)
    app.reconfigure(unknown_task_wait=0)  # the worker in this process has no time to wait for other workers
    chosen = found(app, task)
    if queue is not None:
        try:
            chosen = chosen.options(queue=queue)
        except ValueError as error:
            raise CliError(str(error), code=Code.USAGE) from error
    if chosen.builder.resolved.ignore_result and not no_wait:
        # Before the job is sent: whoever tries again with --no-wait must not send a second one.
        raise CliError(
            f"{chosen.name} keeps no result (ignore_result=True), so there is nothing to wait for",
            "add --no-wait: it sends the job, and prints its id",
            Code.USAGE,
        )
    args, kwargs = arguments(values or [], are_options_refused="--" not in invocation.arguments)
    try:
        chosen.builder.signature.bind(*args, **kwargs)
    except TypeError as error:
        signature = f"{chosen.name}{chosen.builder.signature}"
        raise CliError(f"{chosen.name}: {error}", f"it takes {signature}", Code.USAGE) from error
    # The id is chosen here, so that the command can print it whenever it is interrupted.
    id_ = app.sessions.shards.new_id(secrets.token_hex(12))
    call_ = chosen.options(task_id=id_).s(*args, **kwargs)
    again = get_command(invocation, id_, target)
    end = command_on_same_server(invocation, target, "revoke", id_, "--terminate")
    return loop.run(_call(app, call_, None if no_wait else limit, invocation, again, end))


async def _call(
    app: AsyncQ, call: Signature[Any], limit: float | None, invocation: Invocation, again: str, end: str
) -> int:
    async with AsyncExitStack() as stack:
        await stack.enter_async_context(app)
        stack.enter_context(_not_lost(app, call, again, end))
        handle = await call.delay()
        last_job.note(handle.id)
        if limit is None:
            console.document({"id": handle.id}) if invocation.json else console.data(handle.id)
            return Code.OK
        deadline = asyncio.get_running_loop().time() + limit
        if targets.is_local(app) and not await _is_taken(app, handle, min(_PICKUP, limit)):
            # This command prints how the job ends, so the worker need not log it.
            logging.getLogger(job_log.__name__).setLevel(logging.CRITICAL)
            here = await stack.enter_async_context(Worker(app, queues=_queues(app, handle), grace=_GRACE))
            stack.enter_context(_stops_at_once_if_cancelled(here))
        left = max(0.0, deadline - asyncio.get_running_loop().time())
        return await answer(handle, left, limit, invocation, again)


@contextmanager
def _not_lost(app: AsyncQ, call: Signature[Any], again: str, end: str) -> Iterator[None]:
    """Tells a user who interrupts the wait what becomes of the job, and how to get its result or end it."""
    try:
        yield
    except asyncio.CancelledError:
        id_ = call.task.builder.options.task_id
        if app.settings.url.startswith("memory://"):
            console.say(f"job {id_} ends with this process, because its server is in this process")
        else:
            console.say(
                f"this command no longer waits for job {id_}. If the server accepted the job, it is not "
                f"lost: it runs, or stays in its queue until a worker takes it.\n"
                f"  its result: {again}\n  to end it:  {end}"
            )
        raise


@contextmanager
def _stops_at_once_if_cancelled(worker: Worker) -> Iterator[None]:
    """Stops the worker at once if the block is left by an error or an interrupt: the user who gave up the
    wait need not wait for the worker's grace.
    """
    try:
        yield
    except BaseException:
        worker.stop()
        worker.stop()  # the second call ends the grace
        raise


async def _is_taken(app: AsyncQ, handle: AsyncResult[Any], seconds: float) -> bool:
    """Returns whether a worker has begun with the job, within the given seconds.

    It is not enough that a worker is listed: a killed worker is listed until others have noticed its death.
    """
    assert handle.queue is not None
    if not await app.sessions.current().broker.listened_to(handle.queue):
        return False
    try:
        await handle.outcome(timeout=seconds)
    except ResultTimeout:
        return await handle.refresh() != State.PENDING
    return True


def _queues(app: AsyncQ, handle: AsyncResult[Any]) -> list[str]:
    return list(dict.fromkeys([handle.queue or app.settings.default_queue, *app.queues()]))


def found(app: AsyncQ, name: str) -> Task[..., Any]:
    """Returns the task of a full name, or the only task whose name ends with the given one.

    Raises:
        CliError: there is no such task, or more than one.
    """
    if name in app.tasks:
        return app.tasks[name]
    ending = [full for full in app.tasks if full.endswith("." + name)]
    if len(ending) == 1:
        return app.tasks[ending[0]]
    if ending:
        raise CliError(f"{name!r} could be any of {', '.join(ending)}", "write its full name", Code.USAGE)
    short = {full.rpartition(".")[2]: full for full in app.tasks}
    near = difflib.get_close_matches(name, [*app.tasks, *short], n=1)
    known = ", ".join(sorted(app.tasks)) or "none"
    hint = f"did you mean {near[0]!r}?" if near else f"the tasks are: {known[:300]}"
    raise CliError(f"the app has no task {name!r}", hint, Code.USAGE)


def arguments(values: list[str], *, are_options_refused: bool) -> tuple[list[Any], dict[str, Any]]:
    """Parses the values of a command line into positional and keyword arguments: each is JSON, else text.

    A negative number is an argument, though it begins like an option. Any other word that begins like an
    option is taken for a mistyped one.

    Raises:
        CliError: a word looks like an option.

    >>> arguments(["4", "x", "size=[1, 2]", '"k=v"'], are_options_refused=True)
    ([4, 'x', 'k=v'], {'size': [1, 2]})
    """
    args: list[Any] = []
    kwargs: dict[str, Any] = {}
    for word in values:
        if are_options_refused and re.match(r"--?[A-Za-z]", word):
            raise CliError(
                f"there is no option {word!r}", "write -- before arguments that begin with a dash", Code.USAGE
            )
        key, is_named, text = word.partition("=")
        if is_named and key.isidentifier():
            kwargs[key] = _value(text)
        else:
            args.append(_value(word))
    return args, kwargs


def _value(text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError:
        return text
