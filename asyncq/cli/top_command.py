"""`asyncq top`: queues, workers and running jobs on the whole terminal, see `top_app`."""

from __future__ import annotations

import logging
import sys
from importlib.util import find_spec

import typer  # noqa: TC002  typer reads the annotation

from asyncq.cli import loop, target as targets
from asyncq.cli.exits import CliError, Code
from asyncq.cli.invocation import Invocation, command


@command
def top(ctx: typer.Context) -> int:
    """Shows queues, workers and running jobs on the whole terminal, anew each second.

    Keys: up and down select a queue, p pauses it or lets it go on (it asks), q ends. It needs asyncq[top];
    asyncq inspect --watch does without.

    \b
    Example:
      asyncq top --app shop.tasks:app
    """  # noqa: D301  \b is typer's mark for lines that stay as they are
    invocation: Invocation = ctx.obj
    if find_spec("textual") is None:
        raise CliError("asyncq top needs textual", "pip install 'asyncq[top]'", Code.CONFIGURATION)
    if not (sys.stdin.isatty() and sys.stdout.isatty()):
        raise CliError("asyncq top needs a terminal", "asyncq inspect --watch needs none", Code.USAGE)
    invocation.begin(logging.ERROR)  # less important records would be written over the tables
    app = targets.load_or_bare(invocation)
    targets.use_short_timeouts(app)

    async def show() -> int:
        from asyncq.cli.top_app import Top  # imports textual, an extra

        async with app:
            await Top(app).run_async()
        return Code.OK

    return loop.run(show(), kind="asyncio")
