"""`asyncq worker`: runs the jobs of an app until a signal stops it, in this process or in several.

`worker` parses the options. One worker runs in this process, see `worker_service`. For several, this process
is their supervisor, see `worker.supervisor`: it never imports the app, and each worker runs in a process of
its own, see `worker_process`.
"""

from __future__ import annotations

import dataclasses
import logging
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from asyncq import config
from asyncq.cli import banner, loop, metrics_port as metrics, parameters
from asyncq.cli.exits import CliError, Code
from asyncq.cli.invocation import Invocation, command
from asyncq.cli.worker_service import WorkerLogging, WorkerOptions, serve
from asyncq.worker.worker import checked_name, default_name

if TYPE_CHECKING:
    from asyncq.worker.processes.supervised import WorkerChild


@command
def worker(
    ctx: typer.Context,
    target: Annotated[
        str | None,
        typer.Argument(metavar="MODULE:APP", help="The app. Default: ASYNCQ_APP or [tool.asyncq] app."),
    ] = None,
    queues: Annotated[
        list[str] | None,
        typer.Argument(metavar="QUEUE", help="Queues to serve, most urgent first. Default: the app's."),
    ] = None,
    concurrency: Annotated[
        int | None,
        typer.Option("--concurrency", "-c", min=1, metavar="N", help="Jobs at the same time. Default: 100."),
    ] = None,
    threads: Annotated[
        int | None, typer.Option(min=1, metavar="N", help="Plain functions at the same time. Default: 32.")
    ] = None,
    workers: Annotated[
        int, typer.Option("--workers", "-w", min=1, metavar="N", help="Worker processes.")
    ] = 1,
    grace: Annotated[
        str | None,
        typer.Option(metavar="TIME", help="Time for running jobs to end when it stops. Default: 25s."),
    ] = None,
    name: Annotated[
        str | None, typer.Option(metavar="NAME", help="Its name in results. Default: HOST-PID.")
    ] = None,
    kind: Annotated[
        str, typer.Option("--loop", metavar="KIND", help="Event loop: auto, asyncio or uvloop.")
    ] = "auto",
    strict: Annotated[
        bool, typer.Option("--strict", help="Refuse a server that may lose jobs, instead of warning.")
    ] = False,
    metrics_port: Annotated[
        int | None,
        typer.Option(min=1, max=65535, metavar="PORT", help="Serve metrics for Prometheus."),
    ] = None,
    log_level: Annotated[
        str | None,
        typer.Option(metavar="LEVEL", help="Level of the log: debug, info, warning or error."),
    ] = None,
    log_format: Annotated[
        str | None,
        typer.Option(metavar="FORMAT", help="Format of the log: plain or json."),
    ] = None,
    no_configure_logging: Annotated[
        bool, typer.Option("--no-configure-logging", help="Leave logging as the app sets it up.")
    ] = False,
) -> int:
    """Runs the jobs of an app.

    SIGTERM or Ctrl-C stops it: it takes no new jobs, and running jobs have --grace to end. A second signal
    hands them back at once, a third ends the process. While the app is imported, the first signal ends the
    process. Exit code 0; 75 if it handed back running jobs, or left a body behind that it could not stop.

    With --workers, a worker process that dies is restarted, and SIGHUP replaces all of them one by one, while
    jobs run. The exit code is the highest of theirs.

    \b
    Examples:
      asyncq worker shop.tasks:app
      asyncq worker shop.tasks:app critical default -c 20 --grace 1m
      asyncq --url redis://localhost:6379/0 worker shop.tasks -w 4
    """  # noqa: D301  \b is typer's mark for lines that stay as they are
    invocation: Invocation = ctx.obj
    options = WorkerOptions(
        target=target,
        queues=tuple(queues or ()),
        concurrency=concurrency,
        threads=threads,
        grace=None if grace is None else parameters.duration("--grace", grace),
        name=name,
        loop=kind,
        strict=strict,
        log_level=log_level,
        log_format=log_format,
        no_configure_logging=no_configure_logging,
        metrics_port=metrics_port,
    )
    if workers == 1:
        return serve(invocation, options)
    return _supervise(invocation, options, workers)


def _supervise(invocation: Invocation, options: WorkerOptions, count: int) -> int:
    """Runs several workers, each in a process of its own, until they are stopped. Returns the exit code.

    Raises:
        CliError: an option does not fit, or a worker could not start.
    """
    from asyncq.worker.processes.supervised import WorkerStartError  # a single worker has no use for it

    names = _names(options.name, count)
    logging_ = WorkerLogging.of(invocation, options)
    if logging_.handler is None:
        # The app sets up logging in its workers. The supervisor does not import it, and logs all the same.
        invocation.log(invocation.level(logging.INFO))
    setup = {
        "invocation": dataclasses.asdict(invocation),
        "options": dataclasses.asdict(options),
        "argv": sys.argv,
    }
    port, prints = options.metrics_port, logging_.has_banner
    try:
        with metrics.serving(port, is_supervisor=True):
            run = _run(names, setup, prints=prints, port=port)
            return loop.run(run, kind="asyncio", catch_terminate=False)
    except WorkerStartError as error:
        raise CliError(str(error.args[0]), error.hint, error.code) from error


async def _run(names: list[str], setup: dict[str, Any], *, prints: bool, port: int | None) -> int:
    from asyncq.worker.supervisor import KILL, Supervisor  # as above

    supervisor = Supervisor("asyncq.cli.worker_process", setup, names, _folder())
    supervisor.handle_signals()

    def show(children: list[WorkerChild]) -> None:
        facts = banner.Facts(**children[0].facts)
        pids = {child.name: child.pid for child in children}
        banner.show(
            f"{len(pids)} workers",
            facts._replace(runs=f"each {facts.runs}"),
            [("workers", banner.pids(pids)), *metrics.row(port)],
            prints=prints,
            workers=pids,
        )

    code = await supervisor.run(show)
    return Code.RETURNED_JOBS if supervisor.step == KILL else code


def _names(name: str | None, count: int) -> list[str]:
    """Returns the names of the workers.

    Raises:
        CliError: the name does not fit, or is too long with its number.
    """
    try:
        base = default_name() if name is None else checked_name(name)
    except ValueError as error:
        raise CliError(str(error), code=Code.USAGE) from error
    names = [f"{base}-{number}" for number in range(1, count + 1)]
    if not config.NAME.fullmatch(names[-1]):
        longest = config.LONGEST_NAME - len(names[-1]) + len(base)
        raise CliError(
            f"--name is too long for {count} workers: the last one would be {names[-1]!r}",
            f"use at most {longest} characters",
            Code.USAGE,
        )
    return names


def _folder() -> str | None:
    """Returns the name of the working directory; None if only the system knows it.

    The shell may have reached it through a link. When a deployment lets the link lead to the next version,
    new workers must find that version.
    """
    name = os.environ.get("PWD", "")
    try:
        return name if Path(name).is_absolute() and Path(name).samefile(".") else None
    except OSError:
        return None
