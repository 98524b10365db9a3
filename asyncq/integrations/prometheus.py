"""Metrics of jobs and queues for Prometheus: `app.add_middleware(PrometheusMiddleware())`.

Needs the extra `prometheus`, which brings prometheus-client. `asyncq worker --metrics-port` adds the
middleware, calls `report_queues` and serves the metrics; `report_queues` is also for programs that run a
`Worker` themselves.

Jobs are counted where they run, in each worker. Queues are measured at the server, and each is reported by
one worker, see `broker.queue_figures`. The worker processes of `--workers` share a directory, from which
their supervisor serves the metrics of all: the counters and histograms are files of prometheus-client's own
multiprocess mode. Its gauges cannot be taken back there, as a worker must do that has lost the lease on a
queue. So what was measured of the queues is a file of its own, which counts only while it is new.

Everything here runs on the worker's loop, but for what serves: that has a thread for each request.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import os
import shutil
import tempfile
import threading
import time
import weakref
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from asyncq.integrations.extras import needs_extra
from asyncq.system.tasks import cancel_and_wait

with needs_extra("prometheus"):
    from prometheus_client import REGISTRY, CollectorRegistry, Counter, Histogram, start_http_server
    from prometheus_client.core import GaugeMetricFamily
    from prometheus_client.multiprocess import MultiProcessCollector, mark_process_dead
    from prometheus_client.registry import Collector

from asyncq import config
from asyncq.broker.queue_figures import Figures, NamespaceFigures, QueueFigures, QueueMeter
from asyncq.broker.transport.background import ErrorLog, forever
from asyncq.middleware.middleware import Middleware
from asyncq.states import State
from asyncq.system import clock

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Iterator, Sequence
    from datetime import timedelta

    from prometheus_client.metrics_core import Metric

    from asyncq.app import AsyncQ
    from asyncq.context import Context
    from asyncq.middleware.job_event import JobEvent

__all__ = ["BUCKETS", "MetricsServer", "PrometheusMiddleware", "report_queues"]

log: logging.Logger = logging.getLogger(__name__)

BUCKETS: Final = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300, 1800)
"""Upper bounds of the buckets of the histograms, in seconds."""
EVERY: Final = 5.0
"""Seconds between two measurements of the queues."""
LEASES: Final = 3
"""A worker that has not measured for so many of these times reports no queue any more."""
DIRECTORY_VARIABLE: Final = "PROMETHEUS_MULTIPROC_DIR"
OTHER: Final = "other"
"""The label of all tasks that the app does not know. Anybody who may enqueue can send any name of a task."""

_LABELS: Final = ("task", "queue")


class PrometheusMiddleware(Middleware):
    """Counts and times the jobs that a worker runs.

    | metric | what |
    |---|---|
    | `asyncq_jobs_total{task,queue,state}` | attempts that have ended as SUCCESS, FAILURE, RETRY or REVOKED |
    | `asyncq_job_wait_seconds{task,queue}` | from when a job could start to when it did |
    | `asyncq_job_run_seconds{task,queue}` | how long an attempt ran |
    | `asyncq_result_latency_seconds{task,queue}` | from the enqueue to the stored SUCCESS or FAILURE |

    Args:
        registry: where the metrics are registered (default: that of prometheus-client). Several middlewares
            may share one, and then count into the same metrics.
        buckets: upper bounds of the buckets of the histograms, in seconds. The first middleware of a registry
            decides.

    Example:
        ```python
        app = AsyncQ()
        app.add_middleware(PrometheusMiddleware())
        ```
    """

    def __init__(self, *, registry: CollectorRegistry = REGISTRY, buckets: Sequence[float] = BUCKETS) -> None:
        metrics = _metrics.get(registry)
        if metrics is None:
            metrics = _metrics[registry] = _Metrics.made(registry, buckets)
        self._metrics: _Metrics = metrics

    def on_add(self, app: Any) -> None:
        """Registers the outcome hooks of this middleware."""
        _counted_apps.add(app)
        metrics = self._metrics

        async def count(event: JobEvent) -> None:
            task = event.task if app.find_task(event.task) is not None else OTHER
            metrics.count(event, task)

        for register in (app.on_success, app.on_failure, app.on_retry, app.on_revoked):
            register(count)

    async def on_run(self, job: Context, call_next: Callable[[Context], Awaitable[Any]]) -> Any:
        """Measures how long a job waited for this attempt, and how long the attempt ran."""
        metrics, labels = self._metrics, (job.name, job.queue)
        if job.entry:  # otherwise it runs where it was called, and nothing has waited
            # The first half of the id of an entry is the time at which it came into its queue, in ms: when
            # the job was enqueued, was due, or was free to start.
            since = int(job.entry.partition("-")[0]) / 1000
            metrics.wait.labels(*labels).observe(max(0.0, clock.now() - since))
        began = time.perf_counter()
        try:
            return await call_next(job)
        finally:
            metrics.run.labels(*labels).observe(time.perf_counter() - began)


@dataclass(frozen=True, slots=True)
class _Metrics:
    jobs: Counter
    wait: Histogram
    run: Histogram
    latency: Histogram

    @classmethod
    def made(cls, registry: CollectorRegistry, buckets: Sequence[float]) -> _Metrics:
        def histogram(name: str, text: str) -> Histogram:
            return Histogram(name, text, _LABELS, buckets=buckets, registry=registry)

        return cls(
            Counter("asyncq_jobs", "Attempts that have ended.", (*_LABELS, "state"), registry=registry),
            histogram("asyncq_job_wait_seconds", "From when a job could start to when it did."),
            histogram("asyncq_job_run_seconds", "How long an attempt ran."),
            histogram("asyncq_result_latency_seconds", "From the enqueue to the stored outcome."),
        )

    def count(self, event: JobEvent, task: str) -> None:
        self.jobs.labels(task, event.queue, event.state.value).inc()
        enqueued = event.enqueued_at
        if enqueued is not None and event.state in {State.SUCCESS, State.FAILURE}:
            latency = clock.now() - enqueued.timestamp()
            self.latency.labels(task, event.queue).observe(max(0.0, latency))


_metrics: weakref.WeakKeyDictionary[CollectorRegistry, _Metrics] = weakref.WeakKeyDictionary()
_counted_apps: weakref.WeakSet[Any] = weakref.WeakSet()


def add_if_missing(app: AsyncQ) -> None:
    """Adds a `PrometheusMiddleware` to an app that has none."""
    if app not in _counted_apps:
        app.add_middleware(PrometheusMiddleware())


# -- queues --


@dataclass(frozen=True, slots=True)
class _Measured:
    """What was measured, and when, by the monotonic clock of the machine; whether the server is embedded."""

    figures: Figures
    at: float
    is_embedded: bool
    keeps: float
    """For how many seconds it counts."""

    def dumped(self) -> str:
        queues, namespace = self.figures
        return json.dumps([dict(queues), namespace, self.at, self.is_embedded, self.keeps])

    @classmethod
    def loaded(cls, text: str) -> _Measured:
        queues, namespace, *others = json.loads(text)
        figures = Figures(
            {queue: QueueFigures(*each) for queue, each in queues.items()},
            None if namespace is None else NamespaceFigures(*namespace),
        )
        return cls(figures, *others)

    @property
    def is_new(self) -> bool:
        """Whether it counts. A reporter that has ended, or has lost the server, leaves its last figures."""
        return time.monotonic() - self.at <= self.keeps


class _QueueCollector(Collector):
    """Gives what was measured of the queues to a registry. `collect` runs on any thread.

    Args:
        latest: returns what each reporter of this machine that shares the registry has measured last.
    """

    def __init__(self, latest: Callable[[], Iterable[_Measured]]) -> None:
        self._latest = latest

    def describe(self) -> Iterable[Metric]:
        """Names the metrics, without measuring anything."""
        return _families([])

    def collect(self) -> Iterable[Metric]:
        """Returns what was measured last, without what is old."""
        return _families([each for each in self._latest() if each.is_new])


def _families(measured: Sequence[_Measured]) -> list[Metric]:
    """Makes the metrics of the queues. Those without a value have no sample."""
    depth = GaugeMetricFamily("asyncq_queue_depth", "Jobs that wait in a queue.", labels=["queue"])
    oldest = GaugeMetricFamily(
        "asyncq_queue_oldest_seconds", "How long the oldest job of a queue has waited.", labels=["queue"]
    )
    workers = GaugeMetricFamily("asyncq_workers", "Workers of the namespace.")
    dead = GaugeMetricFamily("asyncq_dead_jobs", "Dead letters of the namespace.")
    embedded = GaugeMetricFamily("asyncq_embedded", "1 if the server is the embedded one, else 0.")
    # By queue: the lease on one may have gone from one worker of this machine to another.
    queues: dict[str, QueueFigures] = {}
    whole: _Measured | None = None
    for each in sorted(measured, key=lambda each: each.at):
        queues |= each.figures.queues
        whole = each if each.figures.namespace is not None else whole
    for queue, figures in queues.items():
        depth.add_metric([queue], figures.waiting)
        oldest.add_metric([queue], figures.oldest)
    if whole is not None and whole.figures.namespace is not None:
        workers.add_metric([], whole.figures.namespace.workers)
        dead.add_metric([], whole.figures.namespace.dead)
        embedded.add_metric([], int(whole.is_embedded))
    return [depth, oldest, workers, dead, embedded]


@asynccontextmanager
async def report_queues(
    app: AsyncQ,
    *,
    queues: Sequence[str] | None = None,
    every: float | timedelta = EVERY,
    registry: CollectorRegistry = REGISTRY,
) -> AsyncIterator[None]:
    """Measures the queues of an app for as long as the block is open, and adds them to a registry.

    | metric | what |
    |---|---|
    | `asyncq_queue_depth{queue}` | how many jobs wait |
    | `asyncq_queue_oldest_seconds{queue}` | for how long the oldest of them has waited |
    | `asyncq_workers`, `asyncq_dead_jobs` | of the namespace: workers, dead letters |
    | `asyncq_embedded` | 1 if the server is the embedded one, else 0 |

    Of all blocks of all processes, one reports each queue, and one the last three. When it ends, another one
    follows after three times `every`. While the server is away, nothing is reported.

    Args:
        app: the app. The block opens it.
        queues: the queues to report (default: those that a worker of the app serves).
        every: seconds between two measurements, or a timedelta.
        registry: where the metrics are registered (default: that of prometheus-client).

    Raises:
        BrokerUnavailable, BrokerNotConfigured: as `AsyncQ.open`.
        ValueError: `every` is no time; the registry has another such block already.

    Example:
        ```python
        async with Worker(app), report_queues(app):
            start_http_server(9100)  # of prometheus_client
            await stopped.wait()
        ```
    """
    pause = config.duration("every", every)
    async with app:
        commands = app.sessions.current().broker.commands
        meter = QueueMeter(commands, list(queues or app.queues()), LEASES * pause)
        is_embedded = app.settings.url.startswith(("embedded://", "memory://"))
        with _published(registry) as publish:

            async def measure() -> None:
                began = time.monotonic()
                await publish(_Measured(await meter.measure(), began, is_embedded, LEASES * pause))
                await asyncio.sleep(pause)

            errors = ErrorLog(log, "the queues could not be measured for the metrics; trying again")
            task = asyncio.create_task(forever(measure, errors), name="asyncq-metrics")
            try:
                yield
            finally:
                await cancel_and_wait(task)


@contextlib.contextmanager
def _published(registry: CollectorRegistry) -> Iterator[Callable[[_Measured], Awaitable[None]]]:
    """Gives a function that makes the figures visible for whoever serves the metrics of this process."""
    directory = os.environ.get(DIRECTORY_VARIABLE)
    if directory is not None and registry is REGISTRY:
        file = Path(directory) / f"asyncq_queues_{os.getpid()}.json"

        async def write(measured: _Measured) -> None:
            await asyncio.to_thread(_replace, file, measured.dumped())

        try:
            yield write
        finally:
            file.unlink(missing_ok=True)
        return
    latest: list[_Measured] = []

    async def keep(measured: _Measured) -> None:
        latest[:] = [measured]

    collector = _QueueCollector(lambda: list(latest))
    registry.register(collector)
    try:
        yield keep
    finally:
        registry.unregister(collector)


def _replace(file: Path, text: str) -> None:
    """Writes a file in one step: a reader sees the old text or the new one."""
    new = file.with_suffix(".new")
    new.write_text(text, "utf-8")
    new.replace(file)


# -- serving --


class MetricsServer:
    """Serves metrics over HTTP, at `/metrics` and any other path, on threads of its own, until it is closed.

    Args:
        port: the TCP port.
        address: where it listens (default: on all addresses of IPv4).

    Raises:
        OSError: it cannot listen there.

    Example:
        ```python
        server = MetricsServer(9100)
        ...
        server.close()
        ```
    """

    def __init__(self, port: int, address: str = "0.0.0.0") -> None:  # noqa: S104  as prometheus-client does
        directory = os.environ.get(DIRECTORY_VARIABLE)
        registry = REGISTRY if directory is None else _shared_registry(directory)
        self._server, self._thread = start_http_server(port, address, registry)

    def close(self) -> None:
        """Ends the server, and waits for its thread. A second call has no effect."""
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


@contextlib.contextmanager
def shared_directory() -> Iterator[None]:
    """Makes a directory in which the processes that are started inside the block share their metrics, unless
    the environment names one already. Deletes it at the end.
    """
    if os.environ.get(DIRECTORY_VARIABLE) is not None:
        yield
        return
    directory = tempfile.mkdtemp(prefix="asyncq-metrics-")
    os.environ[DIRECTORY_VARIABLE] = directory
    try:
        yield
    finally:
        del os.environ[DIRECTORY_VARIABLE]
        shutil.rmtree(directory, ignore_errors=True)


def _shared_registry(directory: str) -> CollectorRegistry:
    """Returns a registry with the metrics of all processes that share a directory."""
    registry = CollectorRegistry()
    registry.register(_ProcessCollector(directory))
    registry.register(_QueueCollector(lambda: _measured_in(directory)))
    return registry


class _ProcessCollector(Collector):
    """Adds up the metrics of the processes that share a directory, also of those that have ended; but not the
    gauges of those.
    """

    def __init__(self, directory: str) -> None:
        self._directory = directory
        self._all: Any = MultiProcessCollector(None, path=directory)  # type: ignore[no-untyped-call]
        self._lock = threading.Lock()

    def describe(self) -> Iterable[Metric]:
        """Names no metric: what the processes count is known when they have done so."""
        return []

    def collect(self) -> Iterable[Metric]:
        """Reads the files of the processes."""
        with self._lock:
            for file in Path(self._directory).glob("gauge_live*_*.db"):
                pid = file.stem.rpartition("_")[2]
                if pid.isdecimal() and not _runs(int(pid)):
                    mark_process_dead(int(pid), self._directory)  # type: ignore[no-untyped-call]
            found: Iterable[Metric] = list(self._all.collect())
        return found


def _measured_in(directory: str) -> Iterator[_Measured]:
    for file in Path(directory).glob("asyncq_queues_*.json"):
        with suppress(FileNotFoundError):  # its process has just ended
            yield _Measured.loaded(file.read_text("utf-8"))


def _runs(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True
