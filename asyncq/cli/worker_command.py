"""`asyncq worker`: runs the jobs of an app until a signal stops it, in this process or in several.

`worker` parses the options; `asyncq dev` uses `supervise`, too. One worker runs in this process, see
`worker_service`. For several, this process is their supervisor, see `worker.supervisor`: it never imports the
app, and each worker runs in a process of its own, see `worker_process`.
"""

from __future__ import annotations

import asyncio
import dataclasses
import logging
import os
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from asyncq import config
from asyncq.cli import (
    also_server,
    banner,
    health_port as health_ports,
    loop,
    metrics_port as metrics,
    parameters,
)
from asyncq.cli.also_server import ALSO, AlsoServer
from asyncq.cli.exits import CliError, Code
from asyncq.cli.health_port import LIVE_WITHIN, Health
from asyncq.cli.invocation import Invocation, command
from asyncq.cli.worker_service import WorkerLogging, WorkerOptions, serve
from asyncq.cli.worker_signals import hold
from asyncq.system import service_manager
from asyncq.worker.worker import checked_name, default_name

if TYPE_CHECKING:
    from asyncq.worker.processes.supervised import WorkerChild
    from asyncq.worker.supervisor import Supervisor


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
        int | None, typer.Option(min=1, metavar="N", help="Plain functions at once. Default: 32.")
    ] = None,
    workers: Annotated[
        int, typer.Option("--workers", "-w", min=1, metavar="N", help="Worker processes.")
    ] = 1,
    grace: Annotated[
        str | None,
        typer.Option(metavar="TIME", help="For running jobs at the stop. Default: 25s."),
    ] = None,
    name: Annotated[
        str | None, typer.Option(metavar="NAME", help="Its name in results. Default: HOST-PID.")
    ] = None,
    kind: Annotated[str, typer.Option("--loop", metavar="KIND", help="auto, asyncio or uvloop.")] = "auto",
    strict: Annotated[bool, typer.Option("--strict", help="Refuse a server that may lose jobs.")] = False,
    burst: Annotated[bool, typer.Option("--burst", help="End when no job waits or runs.")] = False,
    fail_on_error: Annotated[
        bool, typer.Option("--fail-on-error", help="With --burst: exit code 1 if a job has failed.")
    ] = False,
    reload: Annotated[
        bool, typer.Option("--reload", help="Start anew when a Python file has changed.")
    ] = False,
    max_jobs: Annotated[
        int | None, typer.Option(min=1, metavar="N", help="A new process after so many jobs.")
    ] = None,
    max_memory: Annotated[
        str | None, typer.Option(metavar="SIZE", help="A new process once it has so much: 512mb.")
    ] = None,
    also_url: Annotated[
        str | None, typer.Option(metavar="URL", help="Serve this server, too, with half of -c for each.")
    ] = None,
    health_port: Annotated[
        int | None, typer.Option(min=1, max=65535, metavar="PORT", help="Serve /livez and /readyz.")
    ] = None,
    metrics_port: Annotated[
        int | None, typer.Option(min=1, max=65535, metavar="PORT", help="Serve metrics for Prometheus.")
    ] = None,
    log_level: Annotated[
        str | None, typer.Option(metavar="LEVEL", help="debug, info, warning or error.")
    ] = None,
    log_format: Annotated[
        str | None,
        typer.Option(metavar="FORMAT", help="plain or json."),
    ] = None,
    no_configure_logging: Annotated[
        bool, typer.Option("--no-configure-logging", help="Leave logging as the app sets it up.")
    ] = False,
) -> int:
    """Runs the jobs of an app.

    SIGTERM or Ctrl-C: takes no new jobs, running ones have --grace. A second
    signal hands them back, a third ends it at once. Exit code 0; 75 if jobs
    were handed back. SIGUSR1 logs each job with its stack; SIGUSR2 makes it
    quiet: no new jobs until the next. With several workers, one that dies is
    restarted, and SIGHUP replaces all while jobs run.

    \b
    Examples:
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
        health_port=health_port,
        burst=burst,
        fail_on_error=fail_on_error,
        max_jobs=max_jobs,
        max_memory=None if max_memory is None else parameters.size("--max-memory", max_memory),
    )
    if fail_on_error and not burst:
        raise CliError("--fail-on-error needs --burst", "a worker that runs on has no end", Code.USAGE)
    # A new process needs somebody who starts it.
    hold()
    if workers == 1 and not (reload or max_jobs or max_memory or also_url):
        return serve(invocation, options)
    return supervise(invocation, options, workers, reloads=reload, also_url=also_url)


def supervise(
    invocation: Invocation,
    options: WorkerOptions,
    count: int,
    *,
    reloads: bool,
    also_url: str | None = None,
) -> int:
    """Runs several workers, each in a process of its own, until they are stopped. Returns the exit code. With
    a second server, it runs so many workers for each.

    Raises:
        CliError: an option does not fit, or a worker could not start.
    """
    from asyncq.worker.processes.supervised import WorkerStartError  # a single worker has no use for it

    also = None if also_url is None else AlsoServer.of(also_url)
    if also is not None:
        also_server.of_first(invocation, also)
        options = dataclasses.replace(options, servers=2)
    names = _names(options.name, count)
    logging_ = WorkerLogging.of(invocation, options)
    if logging_.handler is None:
        # The app sets up logging in its workers. The supervisor does not import it, and logs all the same.
        invocation.log(invocation.level(logging.INFO))
    setup: dict[str, Any] = {
        "invocation": dataclasses.asdict(invocation),
        "options": dataclasses.asdict(options),
        "argv": sys.argv,
        "reloads": reloads,
    }
    second: dict[str, dict[str, Any]] = {}
    if also is not None:
        alike = also.setup(setup["invocation"], setup["options"])
        second = dict.fromkeys(_names(options.name, count, f"{ALSO}-"), alike)
    watched = _watched() if reloads else None
    health = _SupervisorHealth()
    try:
        with (
            metrics.serving(options.metrics_port, is_supervisor=True),
            health_ports.serving(options.health_port, health.check),
        ):
            run = _run(names, second, setup, options, health, watched, prints=logging_.has_banner)
            return loop.run(run, kind="asyncio", catch_terminate=False)
    except WorkerStartError as error:
        raise CliError(str(error.args[0]), error.hint, error.code) from error


def _watched() -> str:
    """Returns the folder in which files are watched for changes.

    Raises:
        CliError: watchfiles is not installed.
    """
    if find_spec("watchfiles") is None:
        raise CliError("--reload needs watchfiles", "pip install 'asyncq[reload]'", Code.CONFIGURATION)
    return _folder() or str(Path.cwd())


class _SupervisorHealth:
    """Answers for all workers of a supervisor, on any thread.

    Attributes:
        supervisor: None before there is one.
        loop: its event loop.
    """

    def __init__(self) -> None:
        self.supervisor: Supervisor | None = None
        self.loop: asyncio.AbstractEventLoop | None = None

    def check(self) -> Health:
        """Asks all workers. Blocks for at most a little more than `LIVE_WITHIN` seconds."""
        if self.supervisor is None or self.loop is None:
            return Health(is_live=True, is_ready=False)
        answers = health_ports.asked(self.loop, self.supervisor.check(LIVE_WITHIN), LIVE_WITHIN + 1)
        if answers is None:
            return Health(is_live=False, is_ready=False)
        return Health(is_live=None not in answers, is_ready=all(answers))


async def _run(
    names: list[str],
    second: dict[str, dict[str, Any]],
    setup: dict[str, Any],
    options: WorkerOptions,
    health: _SupervisorHealth,
    watched: str | None,
    *,
    prints: bool,
) -> int:
    from asyncq.worker.supervisor import KILL, Supervisor  # as above

    every = [*names, *second]
    supervisor = Supervisor(
        "asyncq.cli.worker_process", setup, every, _folder(), each=second, watched=watched
    )
    supervisor.handle_signals()
    health.supervisor, health.loop = supervisor, asyncio.get_running_loop()

    def show(children: list[WorkerChild]) -> None:
        facts = banner.Facts(**children[0].facts)
        pids = {child.name: child.pid for child in children}
        also = [("also", banner.Facts(**child.facts).server) for child in children if child.name in second]
        banner.show(
            f"{len(pids)} worker{'s' * (len(pids) != 1)}",
            facts._replace(runs=f"each {facts.runs}"),
            [
                *also[:1],
                ("workers", banner.pids(pids)),
                *metrics.row(options.metrics_port),
                *health_ports.row(options.health_port),
            ],
            prints=prints,
            workers=pids,
        )
        service_manager.notify("READY=1")

    code = await supervisor.run(show)
    return Code.RETURNED_JOBS if supervisor.step == KILL else code


def _names(name: str | None, count: int, middle: str = "") -> list[str]:
    """Returns the names of the workers: the base, `-`, the middle, and a number.

    Raises:
        CliError: the name does not fit, or is too long with its number.
    """
    try:
        base = default_name() if name is None else checked_name(name)
    except ValueError as error:
        raise CliError(str(error), code=Code.USAGE) from error
    names = [f"{base}-{middle}{number}" for number in range(1, count + 1)]
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
