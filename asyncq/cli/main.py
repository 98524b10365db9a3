"""`run`, the entry point of the command `asyncq`. It is called once per process, on the main thread."""

from __future__ import annotations

import functools
import os
import sys
from typing import TYPE_CHECKING

import typer

from asyncq import logs
from asyncq.cli import console, signals
from asyncq.cli.exits import Code
from asyncq.cli.invocation import global_options_first
from asyncq.cli.parameters import without_pydantic
from asyncq.cli.root_command import COMPLETE_VARIABLE, new_tree
from asyncq.cli.worker_command import worker
from asyncq.system import first_process

if TYPE_CHECKING:
    from typer.core import TyperGroup


@functools.cache
def commands(*, only_worker: bool = False) -> TyperGroup:
    """Makes the tree of all commands, or of `asyncq worker` alone, once per process, for that is slow.

    A worker lives long, and the modules and options of the other commands would stay in its memory.
    """
    if only_worker:
        cli = new_tree()
        cli.command()(worker)
    else:
        from asyncq.cli.command_tree import cli
    tree = typer.main.get_group(cli)
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
                from asyncq.cli.completion_command import complete

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
