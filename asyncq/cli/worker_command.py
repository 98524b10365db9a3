"""`asyncq worker`: runs the jobs of an app until a signal stops it.

`worker` finds the app and sets up logging. `Service` runs one `Worker` on the main thread's event loop: it
prints the banner, turns signals into `Worker.stop`, and chooses the exit code.
"""

from __future__ import annotations

import asyncio
import difflib
import gc
import logging
import os
import platform
import signal
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Self

import typer

from asyncq import __version__, config, logs
from asyncq.broker.transport.url import mask
from asyncq.cli import console, loop, parameters, target as targets
from asyncq.cli.exits import CliError, Code
from asyncq.cli.invocation import Invocation, command
from asyncq.worker import Worker
from asyncq.worker.processes import pool
from asyncq.worker.worker import check_annotations

if TYPE_CHECKING:
    from collections.abc import Sequence

    from asyncq.app import AsyncQ

log: logging.Logger = logging.getLogger("asyncq.cli.worker")


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

    \b
    Examples:
      asyncq worker shop.tasks:app
      asyncq worker shop.tasks:app critical default -c 20 --grace 1m
      asyncq --url redis://localhost:6379/0 worker shop.tasks
    """  # noqa: D301  \b is typer's mark for lines that stay as they are
    invocation: Invocation = ctx.obj
    logging_ = _Logging.of(invocation, log_level, log_format, is_left=no_configure_logging)
    app = targets.load(target, invocation)
    logging_.keep()
    full = targets.full_name(target or targets.configured(invocation) or "", app)
    given = {"threads": threads, "strict": strict or None}
    targets.reconfigure(app, {option: value for option, value in given.items() if value is not None})
    timeout = None if grace is None else parameters.duration("--grace", grace)
    try:
        names = [config.name(queue) for queue in queues or ()]
        here = Worker(app, concurrency, names, grace=timeout, name=name, target=full)
    except ValueError as error:
        raise CliError(str(error), code=Code.USAGE) from error
    try:
        check_annotations(app)
    except TypeError as error:
        raise CliError(str(error), code=Code.CONFIGURATION) from error
    service = Service(here, full, has_banner=logging_.has_banner)
    return loop.run(service.run(), kind=kind, catch_terminate=False, code_if_left=Code.RETURNED_JOBS)


@dataclass(frozen=True, slots=True)
class _Logging:
    """How the worker logs: set up before the app is imported, and checked again after that.

    Attributes:
        handler: the command line's own handler; None if the app sets up logging.
        is_chosen: whether the user has asked for a format or a level.
        has_banner: whether the worker prints a banner. Where a program reads the log, or the app sets it up,
            the banner is a log record instead.
    """

    handler: logging.Handler | None
    is_chosen: bool
    has_banner: bool

    @classmethod
    def of(cls, invocation: Invocation, level: str | None, format: str | None, *, is_left: bool) -> Self:
        _check("--log-level", level, logs.LEVELS)
        _check("--log-format", format, logs.FORMATS)
        if is_left:
            if level or format:
                option = "--log-level" if level else "--log-format"
                raise CliError(
                    f"{option} and --no-configure-logging contradict each other",
                    "leave one of them out",
                    Code.USAGE,
                )
            return cls(None, is_chosen=False, has_banner=False)
        number = invocation.level(logging.INFO) if level is None else getattr(logging, level.upper())
        has_banner = not invocation.quiet and format != "json"
        handler = invocation.log(number, format or "plain", banner=has_banner)
        return cls(handler, is_chosen=bool(level or format), has_banner=has_banner)

    def keep(self) -> None:
        if self.handler is not None:
            logs.keep(self.handler, is_chosen=self.is_chosen)


def _check(option: str, value: str | None, known: Sequence[str]) -> None:
    if value is not None and value not in known:
        near = difflib.get_close_matches(value.lower(), known, n=1)
        hint = f"did you mean {near[0]}?" if near else f"write one of {', '.join(known)}"
        raise CliError(f"{option} {value!r} is not known", hint, Code.USAGE)


class Service:
    """One worker as a process: its banner, its signals, its last log record and its exit code."""

    def __init__(self, worker: Worker, target: str, *, has_banner: bool) -> None:
        self._worker = worker
        self._target = target
        self._has_banner = has_banner
        self._signals = 0
        self._stopped_at = 0.0
        self._is_up = False
        self._main: asyncio.Task[Any] | None = None

    async def run(self) -> int:
        """Runs the worker to its end and returns the exit code.

        Raises:
            BrokerUnavailable, BrokerNotConfigured: it could not start.
        """
        self._main = asyncio.current_task()
        for number in (signal.SIGINT, signal.SIGTERM):
            asyncio.get_running_loop().add_signal_handler(number, self._on_signal)
        log.debug("connecting to %s", mask(self._worker.app.settings.url))
        try:
            # The banner needs the server's version, so the app is open here, too.
            async with self._worker.app as app:
                await self._serve(app)
        except asyncio.CancelledError:
            if not self._signals:
                raise
            return Code.OK
        return self._exit_code()

    async def _serve(self, app: AsyncQ) -> None:
        task = asyncio.create_task(self._worker.run(), name="asyncq-worker")
        started = asyncio.create_task(self._worker.started.wait())
        try:
            await asyncio.wait({task, started}, return_when=asyncio.FIRST_COMPLETED)
            self._is_up = started.done()
            if self._is_up:
                await self._introduce(app)
            # The objects that exist now will stay, so the garbage collector need not visit them while jobs
            # run. This process is the worker's alone, so freezing them affects nobody else.
            gc.collect()
            gc.freeze()
            await task
        finally:
            for each in (task, started):
                each.cancel()
            await asyncio.gather(task, started, return_exceptions=True)

    async def _introduce(self, app: AsyncQ) -> None:
        """Prints or logs which worker runs, for which app and on which server: the first thing that a user
        checks when jobs do not run.
        """
        head, rows = await _facts(self._worker, app, self._target)
        if self._has_banner:
            ready = f"ready{_age()}. Ctrl-C once to drain, twice to hand jobs back."
            console.say(f"{head}\n{console.aligned(rows)}\n{ready}")
        else:
            facts = "; ".join(f"{name} {value}" for name, value in rows)
            log.info("ready: %s; %s", " ".join(head.split()), facts, extra={"worker": self._worker.name})

    def _on_signal(self) -> None:
        self._signals += 1
        if not self._is_up:
            assert self._main is not None
            self._main.cancel()
        elif self._signals > 2:
            log.error("ended at once; the running jobs run elsewhere when the lease is over")
            loop.leave(Code.RETURNED_JOBS)
        elif self._signals == 1:
            self._stopped_at = time.monotonic()
            log.info(
                "draining: running jobs have %g s to end (a second signal hands them back)",
                self._worker.grace,
            )
        # The second call hands running jobs back at once.
        self._worker.stop()

    def _exit_code(self) -> int:
        worker = self._worker
        log.info(
            "stopped: %d %s done, %d of them failed, %d handed back",
            *(worker.done, "job" if worker.done == 1 else "jobs", worker.failed, worker.handed_back),
        )
        # A stop without force hands back only entries that the last read may still have claimed: no running
        # job was ended, so the exit code is 0.
        forced = self._signals > 1 or time.monotonic() - self._stopped_at >= worker.grace
        return Code.RETURNED_JOBS if worker.counts.left or (worker.handed_back and forced) else Code.OK


async def _facts(worker: Worker, app: AsyncQ, target: str) -> tuple[str, list[tuple[str, str]]]:
    """Returns the headline of the banner, and its rows as pairs of name and text."""
    kind = type(asyncio.get_running_loop()).__module__.partition(".")[0]
    broker = app.sessions.current().broker
    server = (await broker.server_version()).capitalize()
    if targets.is_local(app):
        held = app.sessions.current().server
        directory = held.directory if held is not None else "?"
        server = f"embedded {server} in {directory} (this machine only; set ASYNCQ_URL for production)"
    else:
        server = f"{server} at {mask(app.settings.url)}"
    count = len(app.tasks)
    rows = [
        ("app", f"{target}, {count} task{'s' * (count != 1)}, namespace {app.settings.namespace}"),
        ("server", server),
        ("queues", ", ".join(worker.queues)),
        (
            "runs",
            f"{worker.concurrency} jobs at a time, {_helpers(app)}, grace {config.shown(worker.grace)}",
        ),
    ]
    head = f"asyncq {__version__}  worker {worker.name}  python {platform.python_version()}  {kind}"
    return head, rows


def _helpers(app: AsyncQ) -> str:
    """Returns how many threads there may be, and how many processes, if a task needs them."""
    threads = f"{app.settings.threads} threads"
    if any(task.executor == "process" for task in app.tasks.values()):
        return f"{threads}, {pool.size(app)} processes"
    return threads


def _age() -> str:
    """Returns how long this process has run, from the kernel: a clock that starts here would miss the
    imports. Empty if the kernel does not tell.
    """
    try:
        stat = Path("/proc/self/stat").read_text("ascii").rpartition(")")[2].split()
        now = float(Path("/proc/uptime").read_text("ascii").split()[0])
    except (OSError, ValueError):
        return ""
    began = int(stat[19]) / os.sysconf("SC_CLK_TCK")
    return f" in {(now - began) * 1000:.0f} ms"
