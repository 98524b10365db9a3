"""The command `asyncq` itself: its global options, which stand before and behind any command."""

from __future__ import annotations

from typing import Annotated, Any, Final

import typer

from asyncq import __version__
from asyncq.cli import console, signals
from asyncq.cli.invocation import Invocation

COMPLETE_VARIABLE: Final = "_ASYNCQ_COMPLETE"
"""Set by a shell that wants a command to be completed."""

# rich would cost each command 60 ms, and its boxes do not fit a narrow terminal.
_SETTINGS: dict[str, Any] = {
    "rich_markup_mode": None,
    "pretty_exceptions_enable": False,
    "add_completion": False,
    "no_args_is_help": True,
    "context_settings": {"help_option_names": ["-h", "--help"]},
}


def _show_version(*, enabled: bool) -> None:
    if enabled:
        console.data(f"asyncq {__version__}")
        raise typer.Exit


def options(
    ctx: typer.Context,
    url: Annotated[
        str | None, typer.Option(metavar="URL", help="The server; wins over ASYNCQ_URL and the code.")
    ] = None,
    namespace: Annotated[str | None, typer.Option(metavar="NAME", help="Prefix of all keys.")] = None,
    app: Annotated[
        str | None,
        typer.Option(metavar="M:A", envvar="ASYNCQ_APP", help="The app, if the command names none."),
    ] = None,
    json: Annotated[bool, typer.Option("--json", help="Print data as one JSON document.")] = False,
    no_color: Annotated[bool, typer.Option("--no-color", help="No colours. NO_COLOR does the same.")] = False,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="Only errors on stderr.")] = False,
    verbose: Annotated[bool, typer.Option("--verbose", "-v", help="Also debug messages.")] = False,
    _version: Annotated[
        bool,
        typer.Option(
            "--version",
            callback=lambda value: _show_version(enabled=value),
            is_eager=True,
            help="Print the version.",
        ),
    ] = False,
) -> None:
    """Runs asyncio tasks on Redis streams. Global options may be anywhere. Without a URL, the project's
    embedded server is used.

    \b
    Exit codes: 0 done, 1 failed, 2 usage, 3 not found, 4 timeout, 5 revoked,
    69 no server, 70 a bug in asyncq, 75 jobs handed back, 77 no permission,
    78 configuration, 130/143 interrupted.
    """  # noqa: D301  \b is typer's mark for lines that stay as they are
    console.choose_colors(enabled=not no_color)
    if ctx.invoked_subcommand in {"worker", "dev"}:
        signals.stop_is_success()
    flags = {"json": json, "quiet": quiet, "verbose": verbose, "no_color": no_color}
    ctx.obj = Invocation(url, namespace, app, **flags, arguments=ctx.obj)


def new_tree() -> typer.Typer:
    """Makes a tree of commands that has the global options, and no command."""
    tree = typer.Typer(**_SETTINGS)
    tree.callback()(options)
    return tree
