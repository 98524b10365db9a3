"""`asyncq inspect`: prints an overview of a running system, once or each second."""

from __future__ import annotations

import asyncio
import os
import sys
from typing import TYPE_CHECKING, Annotated

import typer

from asyncq.cli import console, loop, overview, target as targets
from asyncq.cli.exits import Code
from asyncq.cli.invocation import command
from asyncq.errors import BrokerUnavailable
from asyncq.logs import escaped

if TYPE_CHECKING:
    from asyncq.app import AsyncQ
    from asyncq.cli.invocation import Invocation

_PERIOD = 1.0
"""Seconds between two pages."""
_CLEAR = "\x1b[H\x1b[2J"
"""Makes a terminal empty, and goes to its first line."""


@command
def inspect(
    ctx: typer.Context,
    watch: Annotated[bool, typer.Option("--watch", "-w", help="Anew each second, until Ctrl-C.")] = False,
) -> int:
    """Prints an overview: the server, queues, workers, and the schedules due next.

    Of the server: memory, clients, round trip. Of queues: jobs that wait and run, how long the oldest has
    waited, workers, pauses. Then jobs in no queue: delayed, retrying, waiting for parents, dead. --watch
    refreshes a terminal; elsewhere it prints a page, or with --json a line, each second. Ctrl-C ends it with
    exit code 0.

    \b
    Examples:
      asyncq inspect --watch
      asyncq inspect --json | jq '.queues[] | select(.consumers == 0).name'
    """  # noqa: D301  \b is typer's mark for lines that stay as they are
    invocation, app = targets.prepared(ctx.obj)

    async def show() -> int:
        async with app:
            if not watch:
                _print(await overview.of(app), invocation, refreshes=False)
                return Code.OK
            return await _watch(app, invocation)

    try:
        return loop.run(show())
    except KeyboardInterrupt:
        if not watch:
            raise
        return Code.OK


async def _watch(app: AsyncQ, invocation: Invocation) -> int:
    """Prints a page each second. It goes on when the server is away for a while."""
    refreshes = sys.stdout.isatty() and not invocation.json
    while True:
        try:
            _print(await overview.of(app), invocation, refreshes=refreshes)
        except BrokerUnavailable as error:
            console.complain(str(error).partition("\n")[0])
        await asyncio.sleep(_PERIOD)


def _print(found: overview.Overview, invocation: Invocation, *, refreshes: bool) -> None:
    if invocation.json:
        console.document(found)
    elif refreshes:
        width, height = os.get_terminal_size(sys.stdout.fileno())
        lines = escaped(overview.page(found), keep="\n").splitlines()[: max(1, height - 1)]
        sys.stdout.write(_CLEAR + "\n".join(line[: max(1, width)] for line in lines) + "\n")
        sys.stdout.flush()
    else:
        console.data(overview.page(found))
