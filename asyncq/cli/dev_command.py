"""`asyncq dev`: a worker for development, which starts anew when a file changes."""

from __future__ import annotations

from typing import Annotated

import typer

from asyncq.cli import parameters
from asyncq.cli.exits import Code
from asyncq.cli.invocation import Invocation, command
from asyncq.cli.worker_command import supervise
from asyncq.cli.worker_service import WorkerOptions
from asyncq.cli.worker_signals import hold


@command
def dev(
    ctx: typer.Context,
    target: Annotated[
        str | None,
        typer.Argument(metavar="MODULE:APP", help="The app. Default: ASYNCQ_APP or [tool.asyncq] app."),
    ] = None,
    queues: Annotated[
        list[str] | None, typer.Argument(metavar="QUEUE", help="Queues to serve. Default: the app's.")
    ] = None,
    concurrency: Annotated[
        int | None,
        typer.Option("--concurrency", "-c", min=1, metavar="N", help="Jobs at the same time. Default: 100."),
    ] = None,
    grace: Annotated[str, typer.Option(metavar="TIME", help="For running jobs at the stop.")] = "1s",
) -> int:
    """Runs an app for development: a worker that starts anew when a file changes.

    Without a URL it also starts the embedded server of the project, unless another process has done so. One
    Ctrl-C ends all; what runs longer than --grace is handed back, and runs when a worker is there again. It
    needs asyncq[reload].

    \b
    Example:
      asyncq dev shop.tasks:app
    """  # noqa: D301  \b is typer's mark for lines that stay as they are
    invocation: Invocation = ctx.obj
    options = WorkerOptions(
        target=target,
        queues=tuple(queues or ()),
        concurrency=concurrency,
        threads=None,
        grace=parameters.duration("--grace", grace),
        name=None,
        loop="auto",
        strict=False,
        log_level=None,
        log_format=None,
        no_configure_logging=False,
        metrics_port=None,
        health_port=None,
        burst=False,
        fail_on_error=False,
        max_jobs=None,
        max_memory=None,
    )
    hold()
    code = supervise(invocation, options, 1, reloads=True)
    # That a job was handed back is nothing that a person at a terminal must act on.
    return Code.OK if code == Code.RETURNED_JOBS else code
