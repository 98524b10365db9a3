"""`asyncq server`: keeps the embedded server of this project up, shows it, or stops it.

The work is done by `embedded.operations`, which blocks; no event loop runs here.
"""

from __future__ import annotations

import time
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated

import typer

from asyncq import embedded
from asyncq.broker.transport.url import mask
from asyncq.cli import console, target as targets
from asyncq.cli.exits import CliError, Code
from asyncq.cli.invocation import Invocation, command

if TYPE_CHECKING:
    from pathlib import Path

server: typer.Typer = typer.Typer(
    help="The embedded server of this project.", no_args_is_help=True, rich_markup_mode=None
)


@server.command(name="run")
@command
def run(ctx: typer.Context) -> int:
    """Keeps the server up until Ctrl-C or SIGTERM, even if nothing uses it; starts it again if it dies.

    Prints the URL. Work does not need this command: the first process that uses the server starts it, and the
    last one stops it.
    """
    invocation: Invocation = ctx.obj
    invocation.begin()

    def ready(running: embedded.EmbeddedServer) -> None:
        if invocation.json:
            console.document(
                {"url": running.url, "version": running.version, "directory": str(running.directory)}
            )
        else:
            console.data(running.url)
        console.say(f"{running.version} serves {running.directory}. Ctrl-C releases it.")

    embedded.run_foreground(_directory(invocation), ready=ready)
    return Code.OK


@server.command(name="status")
@command
def status(ctx: typer.Context) -> int:
    """Shows whether the server runs, where, and how much it holds; starts nothing.

    Exit code 3 if the server does not run.
    """
    invocation: Invocation = ctx.obj
    invocation.begin()
    found = embedded.status(_directory(invocation))
    if invocation.json:
        facts = asdict(found)
        console.document({**facts, "socket": str(found.socket), "directory": str(found.directory)})
    else:
        console.data(_described(found))
    return Code.OK if found.running else Code.NOT_FOUND


@server.command(name="stop")
@command
def stop(
    ctx: typer.Context,
    force: Annotated[bool, typer.Option("--force", help="Stop it even if processes use it.")] = False,
) -> int:
    """Stops the server; its data stay on disk.

    It is rarely needed: the server ends with the last process that uses it. Exit code 1 if the server is in
    use and --force was not given.
    """
    invocation: Invocation = ctx.obj
    invocation.begin()
    directory = _directory(invocation)
    if embedded.stop(directory, force=force):
        console.say(f"stopped the server of {directory}")
    elif embedded.status(directory).running:
        raise CliError(f"the server of {directory} is in use", "stop its workers first, or add --force")
    else:
        console.say(f"no server runs for {directory}")
    return Code.OK


def _directory(invocation: Invocation) -> Path:
    """Returns the project directory as the app finds it: from the app's file, else the working directory."""
    app = targets.load_or_bare(invocation)
    url = app.settings.url
    if not url.startswith("embedded://"):
        raise CliError(
            f"the server here is {mask(url)}, not an embedded one",
            "unset ASYNCQ_URL and --url",
            Code.CONFIGURATION,
        )
    return embedded.resolve(url, project_file=app.made_in)


def _described(found: embedded.Status) -> str:
    rows = [("directory", str(found.directory)), ("socket", str(found.socket))]
    if found.started is not None:
        rows.append(("up", f"{time.time() - found.started:.0f} s"))
    if found.memory is not None:
        rows.append(("memory", f"{found.memory / 2**20:.1f} MiB"))
    if found.keys is not None:
        rows.append(("keys", str(found.keys)))
    rows.append(("on disk", f"{found.aof_size / 2**20:.1f} MiB"))
    if found.running:
        rows.append(("in use", {True: "yes", False: "no", None: "not known"}[found.in_use]))
    head = f"{found.version or 'a server'} runs, pid {found.pid}" if found.running else "not running"
    return f"{head}\n{console.aligned(rows)}"
