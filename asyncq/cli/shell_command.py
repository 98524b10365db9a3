"""`asyncq shell`: a Python prompt with the app and its tasks, where `await` works.

The app runs on a thread of its own, as for code that is not async: so handles are served also while the
prompt waits for the next line.
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Annotated, Any

import typer

from asyncq import __version__
from asyncq.cli import console, target as targets
from asyncq.cli.exits import Code
from asyncq.cli.invocation import Invocation, command

if TYPE_CHECKING:
    from asyncq.app import AsyncQ


@command
def shell(
    ctx: typer.Context,
    target: Annotated[
        str | None,
        typer.Argument(metavar="MODULE:APP", help="The app. Default: ASYNCQ_APP or [tool.asyncq] app."),
    ] = None,
) -> int:
    """Opens a Python prompt with `app`, and its tasks by their names. `await` works.

    It is IPython in a terminal where that is installed, else Python's own prompt. What comes through a pipe
    is run line by line.

    \b
    Example:
      echo 'print(await add.call(1, 2))' | asyncq shell shop.tasks:app
    """  # noqa: D301  \b is typer's mark for lines that stay as they are
    invocation: Invocation = ctx.obj
    invocation.begin()
    app = targets.load(target, invocation)
    targets.use_short_timeouts(app)
    names = _names(app)
    head = f"asyncq {__version__}: app, {', '.join(sorted(set(names) - {'app', 'asyncq'})) or 'no tasks'}"
    with app:
        if sys.stdin.isatty() and (start := _ipython()) is not None:
            console.say(head)
            start(argv=["--no-banner"], user_ns=names)
        else:
            from asyncq.cli.prompt import Prompt

            # Where nobody types, nobody reads a greeting either.
            banner = head if sys.stdin.isatty() and not invocation.quiet else ""
            Prompt(names).interact(banner, exitmsg="")
    return Code.OK


def _names(app: AsyncQ) -> dict[str, Any]:
    """Returns what the prompt has: the app, asyncq, and each task by the last part of its name that no other
    task has.
    """
    import asyncq

    found: dict[str, Any] = {}
    taken: set[str] = set()
    for full, task in app.tasks.items():
        short = full.rpartition(".")[2]
        if short in found or short in taken or not short.isidentifier():
            taken.add(short)
            found.pop(short, None)
        else:
            found[short] = task
    return {"__name__": "__console__", **found, "app": app, "asyncq": asyncq}


def _ipython() -> Any:
    """Returns what starts IPython; None without it."""
    try:
        from IPython import start_ipython  # an extra, which only a prompt needs
    except ImportError:
        return None
    return start_ipython
