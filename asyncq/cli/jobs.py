"""Commands about single jobs: call one, read its result, end it."""

from __future__ import annotations

import asyncio
import difflib
import inspect
import json
import re
from contextlib import AsyncExitStack, contextmanager
from typing import TYPE_CHECKING, Annotated, Any

import typer

from asyncq.cli import console, loop, parameters, target as targets
from asyncq.cli.exits import Code, Refusal
from asyncq.cli.invocation import Invocation, command
from asyncq.errors import ResultTimeout, TaskRevoked
from asyncq.states import State
from asyncq.worker import Worker

if TYPE_CHECKING:
    from collections.abc import Iterator

    from asyncq.app import AsyncQ
    from asyncq.results import AsyncResult
    from asyncq.tasks import Task

_CONNECT_PATIENCE = 3.0
"""Seconds that a command tries to reach the server, unless `operation_timeout` is set: a person waits."""
_PICKUP = 1.0
"""Seconds after which a job on an embedded server that nobody has begun is run here after all."""

_GRACE = 1.0
"""Seconds that other jobs, which a worker run here has begun too, get when the called one has ended."""

result = typer.Typer(help="Reads results.", no_args_is_help=True, rich_markup_mode=None)

Seconds = Annotated[
    str, typer.Option("--timeout", "-t", metavar="TIME", help="How long to wait: 500ms, 30s, 5m.")
]


@command
def call(
    ctx: typer.Context,
    target: Annotated[str, typer.Argument(metavar="MODULE:APP", help="The app.")],
    task: Annotated[
        str, typer.Argument(metavar="TASK", help="Its full name, or its last part if no other has it.")
    ],
    words: Annotated[
        list[str] | None, typer.Argument(metavar="ARG|KEY=ARG", help="Arguments: JSON, else taken as text.")
    ] = None,
    timeout: Seconds = "30s",
    queue: Annotated[
        str | None, typer.Option(metavar="QUEUE", help="Queue to send it to. Default: the task's.")
    ] = None,
    no_wait: Annotated[bool, typer.Option("--no-wait", help="Print the job's id and do not wait.")] = False,
) -> int:
    """Calls a task and prints its result.

    With the embedded server and no worker listening, the job is run right here.
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
    _be_impatient(app)
    chosen = found(app, task)
    if queue is not None:
        try:
            chosen = chosen.options(queue=queue)
        except ValueError as error:
            raise Refusal(str(error), code=Code.USAGE) from error
    args, kwargs = arguments(words or [], are_options_refused="--" not in invocation.words)
    try:
        inspect.signature(chosen.function).bind(*args, **kwargs)
    except TypeError as error:
        signature = f"{chosen.name}{inspect.signature(chosen.function)}"
        raise Refusal(f"{chosen.name}: {error}", f"it takes {signature}", Code.USAGE) from error
    return loop.run(_call(app, chosen, args, kwargs, None if no_wait else limit, as_json=invocation.json))


async def _call(
    app: AsyncQ,
    task: Task[..., Any],
    args: list[Any],
    kwargs: dict[str, Any],
    limit: float | None,
    *,
    as_json: bool,
) -> int:
    async with AsyncExitStack() as stack:
        await stack.enter_async_context(app)
        handle = await task.apply_async(args, kwargs)
        if limit is None:
            console.document({"id": handle.id}) if as_json else console.data(handle.id)
            return Code.OK
        end = asyncio.get_running_loop().time() + limit
        if targets.is_local(app) and not await _is_taken(app, handle, min(_PICKUP, limit)):
            here = await stack.enter_async_context(Worker(app, queues=_queues(app, handle), grace=_GRACE))
            stack.enter_context(_hurried(here))
        left = max(0.0, end - asyncio.get_running_loop().time())
        return await _answer(handle, left, limit, as_json=as_json)


@contextmanager
def _hurried(worker: Worker) -> Iterator[None]:
    """A wait that was given up is not followed by one for the worker's grace."""
    try:
        yield
    except BaseException:
        worker.stop()
        worker.stop()  # the second call is what hurries it
        raise


async def _is_taken(app: AsyncQ, handle: AsyncResult[Any], seconds: float) -> bool:
    """Whether a worker has begun with the job.

    That one is listed is not enough: a killed one is, until others have noticed.
    """
    assert handle.queue is not None
    if not await app._broker_here().listened_to(handle.queue):
        return False
    try:
        await handle.outcome(timeout=seconds)
    except ResultTimeout:
        return await handle.refresh() != State.PENDING
    return True


def _queues(app: AsyncQ, handle: AsyncResult[Any]) -> list[str]:
    return list(dict.fromkeys([handle.queue or app.settings.default_queue, *app.queues()]))


@result.command(name="get")
@command
def get(
    ctx: typer.Context,
    id_: Annotated[str, typer.Argument(metavar="ID", help="The job's id.")],
    timeout: Seconds = "10s",
) -> int:
    """Waits for a job to end and prints its result.

    Exit code 1 if the task failed, 3 if there is no such result (any more), 4 after the timeout, 5 if it was
    revoked. Results of classes of your own need the app: --app or ASYNCQ_APP.

    \b
    Examples:
      asyncq result get 01KA7Q2 --timeout 1m
      asyncq result get 01KA7Q2 --json | jq .
    """  # noqa: D301  \b is typer's mark for lines that stay as they are
    invocation: Invocation = ctx.obj
    invocation.begin()
    limit = parameters.duration("--timeout", timeout)
    app = targets.load_or_bare(invocation)
    _be_impatient(app)

    async def wait() -> int:
        async with app:
            return await _answer(app.AsyncResult(id_), limit, limit, as_json=invocation.json)

    return loop.run(wait())


async def _answer(handle: AsyncResult[Any], left: float, limit: float, *, as_json: bool) -> int:
    """Prints how the job ended, within the `left` seconds of the `limit` that the user gave."""
    try:
        outcome = await handle.outcome(timeout=left)
    except ResultTimeout:
        raise Refusal(
            f"job {handle.id} did not end within {limit:g} s (state: {handle.state})",
            f"look again: asyncq result get {handle.id} --timeout 1m",
            Code.TIMEOUT,
        ) from None
    if outcome.state == State.SUCCESS:
        value = outcome.unwrap()
        console.document(value) if as_json else console.data(str(value))
        return Code.OK
    if outcome.traceback:
        console.say(outcome.traceback.rstrip())
    error = outcome.error
    revoked = isinstance(error, TaskRevoked)
    console.complain(
        str(error) if revoked or not outcome.traceback else f"job {handle.id} failed: {_one_line(error)}"
    )
    return Code.REVOKED if revoked else Code.FAILED


def _one_line(error: Exception | None) -> str:
    text = str(error).partition("\n")[0]
    return text if not text or hasattr(error, "type_name") else f"{type(error).__name__}: {text}"


@command
def revoke(
    ctx: typer.Context,
    ids: Annotated[list[str], typer.Argument(metavar="ID", help="The jobs' ids.")],
    terminate: Annotated[bool, typer.Option("--terminate", help="Also end it if it runs.")] = False,
    reason: Annotated[
        str | None, typer.Option(metavar="TEXT", help="Text that the waiting see, if it was not started.")
    ] = None,
) -> int:
    """Ends jobs: a queued one never starts, a running one goes on unless --terminate is given.

    Prints each job's state. What has ended stays as it is. Exit code 3 if one of them is unknown.

    \b
    Example:
      asyncq revoke 01KA7Q2 --terminate
    """  # noqa: D301  \b is typer's mark for lines that stay as they are
    invocation: Invocation = ctx.obj
    invocation.begin()
    app = targets.load_or_bare(invocation)
    _be_impatient(app)

    async def revoke_all() -> int:
        async with app:
            states = {id_: await _revoked(app.AsyncResult(id_), reason, terminate=terminate) for id_ in ids}
        if invocation.json:
            console.document([{"id": id_, "state": state} for id_, state in states.items()])
        for id_, state in states.items():
            if state is None:
                console.complain(f"no job under the id {id_!r}: it never was, was forgotten or has expired")
            elif not invocation.json:
                console.data(f"{id_}  {state}")
        return Code.NOT_FOUND if None in states.values() else Code.OK

    return loop.run(revoke_all())


async def _revoked(handle: AsyncResult[Any], reason: str | None, *, terminate: bool) -> str | None:
    """The job's state after the revocation; None for an unknown job."""
    state = await handle.revoke(terminate=terminate, reason=reason)
    return str(state) if await handle.exists() else None


def found(app: AsyncQ, name: str) -> Task[..., Any]:
    """The task of that full name, or the only one whose name ends in it.

    Raises:
        Refusal: there is none, or more than one.
    """
    if name in app.tasks:
        return app.tasks[name]
    ending = [full for full in app.tasks if full.endswith("." + name)]
    if len(ending) == 1:
        return app.tasks[ending[0]]
    if ending:
        raise Refusal(f"{name!r} could be any of {', '.join(ending)}", "write its full name", Code.USAGE)
    short = {full.rpartition(".")[2]: full for full in app.tasks}
    near = difflib.get_close_matches(name, [*app.tasks, *short], n=1)
    known = ", ".join(sorted(app.tasks)) or "none"
    hint = f"did you mean {near[0]!r}?" if near else f"there are: {known[:300]}"
    raise Refusal(f"the app has no task {name!r}", hint, Code.USAGE)


def arguments(words: list[str], *, are_options_refused: bool) -> tuple[list[Any], dict[str, Any]]:
    """Positional and keyword arguments from the words of a command line: each JSON, else text.

    A negative number is an argument, though it begins as an option does. What is no number is taken for a
    mistyped option.

    Raises:
        Refusal: a word looks like an option.

    >>> arguments(["4", "x", "size=[1, 2]", '"k=v"'], are_options_refused=True)
    ([4, 'x', 'k=v'], {'size': [1, 2]})
    """
    args: list[Any] = []
    kwargs: dict[str, Any] = {}
    for word in words:
        if are_options_refused and re.match(r"--?[A-Za-z]", word):
            raise Refusal(
                f"there is no option {word!r}", "an argument that begins so goes after --", Code.USAGE
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


def _be_impatient(app: AsyncQ) -> None:
    default = type(app.settings)().operation_timeout
    if app.settings.operation_timeout == default:
        app.reconfigure(operation_timeout=_CONNECT_PATIENCE)
