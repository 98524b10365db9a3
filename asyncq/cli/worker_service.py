"""Runs one worker as a process: with `asyncq worker` alone, or as a worker process of its supervisor.

`serve` finds the app and sets up logging. `Service` runs one `Worker` on the main thread's event loop: it
shows the banner, turns signals into `Worker.stop`, and chooses the exit code. Nothing here needs typer: a
worker process of a supervisor does without it.
"""

from __future__ import annotations

import asyncio
import difflib
import gc
import logging
import signal
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Self

from asyncq import config, logs
from asyncq.broker.transport.url import mask
from asyncq.cli import banner, health_port, loop, metrics_port, target as targets
from asyncq.cli.also_server import share
from asyncq.cli.exits import CliError, Code
from asyncq.cli.health_port import WorkerHealth
from asyncq.cli.worker_limits import EndLimits, until_limit
from asyncq.cli.worker_signals import WorkerSignals, hold
from asyncq.system import service_manager
from asyncq.worker import Worker
from asyncq.worker.worker import check_annotations

if TYPE_CHECKING:
    from collections.abc import Sequence

    from asyncq.app import AsyncQ
    from asyncq.cli.invocation import Invocation
    from asyncq.worker.processes.supervised import SupervisorLink

log: logging.Logger = logging.getLogger("asyncq.cli.worker")

YOUNG_OBJECTS = 10_000
"""How many objects a worker process makes, less those that it frees, before the garbage collector looks at
them.
"""
_DEFAULT_THRESHOLD = gc.get_threshold()


@dataclass(frozen=True, slots=True)
class WorkerOptions:
    """The options of `asyncq worker`. None stands for the default, or for the app's setting.

    `servers` says between how many servers the command divides its jobs, and `server` which of them this
    worker serves: 0 the first one. `shards` is the number of shards there.
    """

    target: str | None
    queues: Sequence[str]
    concurrency: int | None
    threads: int | None
    grace: float | None
    name: str | None
    loop: str
    strict: bool
    log_level: str | None
    log_format: str | None
    no_configure_logging: bool
    metrics_port: int | None
    health_port: int | None
    burst: bool
    fail_on_error: bool
    max_jobs: int | None
    max_memory: int | None
    shards: int | None = None
    server: int = 0
    servers: int = 1

    @property
    def limits(self) -> EndLimits:
        """When the worker ends by itself."""
        return EndLimits(self.burst, self.max_jobs, self.max_memory)


def _tune_collector() -> None:
    """Makes the garbage collector cheaper for a process that does nothing but run jobs.

    The objects that exist now will stay, so it need not visit them. And a job makes some hundred objects that
    are freed without it, so a collection after every 700 finds nothing: that was 8 % of the CPU of no-op
    jobs. An app that has set a threshold of its own keeps it.
    """
    gc.collect()
    gc.freeze()
    if gc.get_threshold() == _DEFAULT_THRESHOLD:
        gc.set_threshold(YOUNG_OBJECTS, *_DEFAULT_THRESHOLD[1:])


def serve(invocation: Invocation, options: WorkerOptions, supervisor: SupervisorLink | None = None) -> int:
    """Runs one worker in this process until it is stopped, and returns the exit code.

    Args:
        invocation: the global options of the command line.
        options: those of the command.
        supervisor: the connection to the supervisor of this process, if it has one.

    Raises:
        CliError: the options do not fit, or the app cannot be imported.
        BrokerUnavailable, BrokerNotConfigured: the worker could not start.
    """
    hold()
    logging_ = WorkerLogging.of(invocation, options)
    app = targets.load(options.target, invocation)
    logging_.keep()
    full = targets.full_name(options.target or targets.configured(invocation) or "", app)
    given = {"threads": options.threads, "strict": options.strict or None, "shards": options.shards}
    targets.reconfigure(app, {option: value for option, value in given.items() if value is not None})
    try:
        names = [config.name(queue) for queue in options.queues]
        concurrency = options.concurrency
        if options.servers > 1:
            concurrency = share(concurrency or app.settings.concurrency, options.server, options.servers)
        here = Worker(app, concurrency, names, grace=options.grace, name=options.name, target=full)
    except ValueError as error:
        raise CliError(str(error), code=Code.USAGE) from error
    try:
        check_annotations(app)
    except TypeError as error:
        raise CliError(str(error), code=Code.CONFIGURATION) from error
    if options.server:
        # The workers of the first server declare them. Declared at both, each would tick twice.
        app.declarations.leave_out()
    port = options.metrics_port
    if port is not None:
        metrics_port.count(app)
    service = Service(here, full, options, has_banner=logging_.has_banner, supervisor=supervisor)
    is_alone = supervisor is None
    with (
        metrics_port.serving(port if is_alone else None),
        health_port.serving(options.health_port if is_alone else None, service.health.check),
    ):
        return loop.run(
            service.run(), kind=options.loop, catch_terminate=False, code_if_left=Code.RETURNED_JOBS
        )


@dataclass(frozen=True, slots=True)
class WorkerLogging:
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
    def of(cls, invocation: Invocation, options: WorkerOptions) -> Self:
        """Sets up logging.

        Raises:
            CliError: a level or a format is not known, or is given with --no-configure-logging.
        """
        level, format_ = options.log_level, options.log_format
        _check("--log-level", level, logs.LEVELS)
        _check("--log-format", format_, logs.FORMATS)
        if options.no_configure_logging:
            if level or format_:
                option = "--log-level" if level else "--log-format"
                raise CliError(
                    f"{option} and --no-configure-logging contradict each other",
                    "leave one of them out",
                    Code.USAGE,
                )
            return cls(None, is_chosen=False, has_banner=False)
        number = invocation.level(logging.INFO) if level is None else getattr(logging, level.upper())
        has_banner = not invocation.quiet and format_ != "json"
        handler = invocation.log(number, format_ or "plain", banner=has_banner)
        return cls(handler, is_chosen=bool(level or format_), has_banner=has_banner)

    def keep(self) -> None:
        """Restores what the import of the app may have changed, see `logs.keep`."""
        if self.handler is not None:
            logs.keep(self.handler, is_chosen=self.is_chosen)


def _check(option: str, value: str | None, known: Sequence[str]) -> None:
    if value is not None and value not in known:
        near = difflib.get_close_matches(value.lower(), known, n=1)
        hint = f"did you mean {near[0]}?" if near else f"write one of {', '.join(known)}"
        raise CliError(f"{option} {value!r} is not known", hint, Code.USAGE)


class Service:
    """One worker as a process: its banner, its signals, its last log record and its exit code.

    Args:
        worker: the worker.
        target: `module:attribute` of its app.
        options: of the command.
        has_banner: whether to print a banner and not log it.
        supervisor: the connection to the supervisor of this process, if it has one. Then the supervisor shows
            the banner, and says when to stop.

    Attributes:
        health: answers whether the worker is alive and ready.
    """

    def __init__(
        self,
        worker: Worker,
        target: str,
        options: WorkerOptions,
        *,
        has_banner: bool,
        supervisor: SupervisorLink | None = None,
    ) -> None:
        self.health: WorkerHealth = WorkerHealth(worker)
        self._worker = worker
        self._target = target
        self._options = options
        self._has_banner = has_banner
        self._supervisor = supervisor
        self._signals = 0
        self._step = 0
        self._is_up = False
        self._main: asyncio.Task[Any] | None = None

    async def run(self) -> int:
        """Runs the worker to its end and returns the exit code.

        Raises:
            BrokerUnavailable, BrokerNotConfigured: it could not start.
        """
        self._main = asyncio.current_task()
        here = asyncio.get_running_loop()
        for number in (signal.SIGINT, signal.SIGTERM):
            here.add_signal_handler(number, self._on_signal)

        def stop(step: int) -> None:
            with suppress(RuntimeError):  # the loop is closed: the process is about to end
                # The supervisor has logged it, once for all workers.
                here.call_soon_threadsafe(self._go_to, step, logging.DEBUG)

        self.health.loop = here
        diagnosis = WorkerSignals(self._worker)
        diagnosis.handle(both=self._supervisor is None)
        if (supervisor := self._supervisor) is not None:
            supervisor.on_stop = stop
            supervisor.on_check = self.health.answer
            supervisor.on_stacks = diagnosis.show_stacks
            supervisor.on_quiet = lambda: diagnosis.be_quiet(on=supervisor.is_quiet)
            supervisor.on_quiet()  # it may have been told so before
        log.debug("connecting to %s", mask(self._worker.app.settings.url))
        try:
            # The banner needs the server's version, so the app is open here, too.
            async with self._worker.app as app:
                await self._serve(app)
        except asyncio.CancelledError:
            if not self._step:
                raise
            return Code.OK
        return self._exit_code()

    async def _serve(self, app: AsyncQ) -> None:
        task = asyncio.create_task(self._worker.run(), name="asyncq-worker")
        started = asyncio.create_task(self._worker.started.wait())
        limited = None
        # Metrics of queues are by their names, and both servers may have a queue of one name.
        port = None if self._options.server else self._options.metrics_port
        try:
            await asyncio.wait({task, started}, return_when=asyncio.FIRST_COMPLETED)
            self._is_up = started.done()
            if self._is_up:
                await self._introduce(app)
            _tune_collector()
            if self._is_up and self._options.limits.are_set:
                limited = asyncio.create_task(self._end_at_limit())
            async with metrics_port.measuring(self._worker, port if self._is_up else None):
                await task
        finally:
            tasks: list[asyncio.Task[Any]] = [task, started]
            if limited is not None:
                tasks.append(limited)
            for each in tasks:
                each.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    async def _end_at_limit(self) -> None:
        """Stops the worker when it has reached a limit of its options. Running jobs end within the grace."""
        limits = self._options.limits
        why = await until_limit(self._worker, limits)
        if self._step:
            return
        log.info("%s: it reads no more jobs", why, extra={"worker": self._worker.name})
        if self._supervisor is not None:
            self._supervisor.ending(why, is_done=limits.burst)
        self._go_to(1, logging.DEBUG)

    async def _introduce(self, app: AsyncQ) -> None:
        facts = await banner.of(self._worker, app, self._target)
        if self._supervisor is not None:
            self._supervisor.ready(facts._asdict())
        else:
            name = self._worker.name
            rows = [
                *metrics_port.row(self._options.metrics_port),
                *health_port.row(self._options.health_port),
            ]
            banner.show(f"worker {name}", facts, rows, prints=self._has_banner, worker=name)
            service_manager.notify("READY=1")

    def _on_signal(self) -> None:
        # The supervisor's wishes do not count here, and the other way round: a service manager that stops
        # both processes means one step.
        self._signals += 1
        self._go_to(self._signals, logging.INFO)

    def _go_to(self, step: int, level: int) -> None:
        """Goes on to a step of stopping, unless it was reached before. The log record has this level."""
        while self._step < step:
            self._step += 1
            self._stop(level)

    def _stop(self, level: int) -> None:
        """Takes one step of stopping: drains, hands back at once, ends at once."""
        if not self._is_up:
            assert self._main is not None
            self._main.cancel()
        elif self._step > 2:
            log.error("ended at once; the running jobs run elsewhere when the lease is over")
            loop.leave(Code.RETURNED_JOBS)
        elif self._step == 1:
            if self._supervisor is None:
                service_manager.notify("STOPPING=1")
            log.log(
                level,
                "draining: running jobs have %g s to end (a second signal hands them back)",
                self._worker.grace,
            )
        if self._step == 1:
            self._worker.drain()  # not `stop`: an operator may have asked it to stop before
        else:
            self._worker.stop()  # hands running jobs back at once

    def _exit_code(self) -> int:
        worker = self._worker
        log.info(
            "%sstopped: %d %s done, %d of them failed, %d handed back",
            "" if self._supervisor is None else f"worker {worker.name!r} ",
            *(worker.done, "job" if worker.done == 1 else "jobs", worker.failed, worker.handed_back),
            extra={"worker": worker.name},
        )
        # A stop without force hands back only entries that the last read may still have claimed: no running
        # job was ended, so the exit code is 0.
        since = worker.stopping_since
        is_over = since is None or asyncio.get_running_loop().time() - since >= worker.grace
        forced = self._step > 1 or is_over
        if worker.counts.left or (worker.handed_back and forced):
            return Code.RETURNED_JOBS
        return Code.FAILED if self._options.fail_on_error and worker.failed else Code.OK
