"""`asyncq bench`: how long a job takes and how many go through, on this machine and this server."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import time
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from asyncq import __version__
from asyncq.broker.broker import token
from asyncq.broker.connection import mask
from asyncq.cli import console, loop, parameters, target as targets
from asyncq.cli.arrivals import arrivals
from asyncq.cli.exits import Code, Refusal
from asyncq.cli.histogram import Histogram
from asyncq.cli.invocation import Invocation, command
from asyncq.errors import AsyncQError, ResultTimeout

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from asyncq.app import AsyncQ
    from asyncq.tasks import Task

bench = typer.Typer(help="Measures this machine and its server.", no_args_is_help=True, rich_markup_mode=None)

_PATIENCE = 15.0
"""Seconds after the last arrival in which answers still count; then a job is lost."""
_PROBE = 1.0
"""Seconds in which a worker that runs already must answer."""
_IN_FLIGHT = 100
_QUANTILES = (("p50", 0.5), ("p90", 0.9), ("p99", 0.99), ("p99.9", 0.999), ("max", 1.0))

Payload = Annotated[str, typer.Option(metavar="SIZE", help="Size of each job's argument.")]
NoWorker = Annotated[
    bool, typer.Option("--no-worker", help="Use workers that run: asyncq worker asyncq.cli.bench_tasks:app.")
]
Save = Annotated[
    str | None, typer.Option(metavar="FILE", help="Also write everything to this file, as JSON.")
]


@bench.command(name="latency")
@command
def latency(
    ctx: typer.Context,
    rate: Annotated[str, typer.Option(metavar="RATE", help="Arrivals per second.")] = "500/s",
    duration: Annotated[str, typer.Option(metavar="TIME", help="How long to measure.")] = "10s",
    warmup: Annotated[str, typer.Option(metavar="TIME", help="How long before that, not counted.")] = "2s",
    payload: Payload = "200b",
    no_worker: NoWorker = False,
    save: Save = None,
) -> int:
    """Measures how long a job takes at a fixed rate of arrivals.

    Open loop: jobs arrive whether or not the earlier ones are answered, and each is timed from the moment
    it was due. A generator that waits for a slow system would leave the worst seconds out.
    Exit code 1 if jobs were lost.

    \b
    Example:
      asyncq bench latency --rate 500/s --duration 10s --payload 200b
    """  # noqa: D301  \b is typer's mark for lines that stay as they are
    plan = LatencyPlan(
        parameters.rate("--rate", rate),
        parameters.duration("--duration", duration),
        parameters.duration("--warmup", warmup),
        parameters.size("--payload", payload),
    )
    if plan.rate * plan.seconds < 1:
        raise typer.BadParameter("not one job arrives in that time", param_hint="--duration")
    return _measured(ctx.obj, plan, save, own_worker=not no_worker)


@bench.command(name="throughput")
@command
def throughput(
    ctx: typer.Context,
    jobs: Annotated[
        int, typer.Option(min=_IN_FLIGHT, metavar="N", help="How many jobs, in each of the two parts.")
    ] = 10_000,
    payload: Payload = "200b",
    no_worker: NoWorker = False,
    save: Save = None,
) -> int:
    """Measures how many jobs go through: a backlog drained, and 100 callers in a closed loop.

    \b
    Example:
      asyncq bench throughput --jobs 20000
    """  # noqa: D301  \b is typer's mark for lines that stay as they are
    plan = ThroughputPlan(jobs, parameters.size("--payload", payload))
    return _measured(ctx.obj, plan, save, own_worker=not no_worker)


def _measured(
    invocation: Invocation, plan: LatencyPlan | ThroughputPlan, save: str | None, *, own_worker: bool
) -> int:
    invocation.begin(banner=True)
    app, noop = _app(invocation, own_worker=own_worker)

    async def measure() -> int:
        async with app:
            about = await _about(app, own_worker=own_worker)
            if not invocation.json:
                console.data(f"{plan.title}, {about['worker']}, {about['server']}")
            try:
                report = await plan.run(Stage(app, noop, own_worker=own_worker))
            finally:
                if own_worker:
                    await _clean(app)
        tree = {"about": about, **report.tree}
        if invocation.json:
            console.document(tree)
        else:
            console.data("\n".join(report.lines))
        if save is not None:
            _save(save, tree)
        return Code.FAILED if report.lost else Code.OK

    return loop.run(measure())


def _app(invocation: Invocation, *, own_worker: bool) -> tuple[AsyncQ, Task[..., None]]:
    """The app of the bench's tasks, in a namespace of its own if the worker is its own, too."""
    from asyncq.cli.bench_tasks import app, noop

    extra = {"namespace": f"asyncq-bench-{token()[:8]}"} if own_worker else {}
    targets.reconfigure(app, {**invocation.settings, **extra})
    return app, noop


def _save(name: str, tree: dict[str, Any]) -> None:
    try:
        Path(name).write_text(console.as_json(tree) + "\n", "utf-8")
    except OSError as error:
        raise Refusal(f"cannot write {name}: {error.strerror}") from error
    console.say(f"saved {name}")


async def _about(app: AsyncQ, *, own_worker: bool) -> dict[str, Any]:
    version = (await app._broker_here().server_version()).capitalize()
    local = targets.is_local(app)
    return {
        "asyncq": __version__,
        "server": f"embedded {version}" if local else f"{version} at {mask(app.settings.url)}",
        "worker": "1 worker process" if own_worker else "workers that run already",
        "loop": type(asyncio.get_running_loop()).__module__.partition(".")[0],
        "cores": os.cpu_count(),
    }


async def _clean(app: AsyncQ) -> None:
    """Removes every key of the bench's namespace, a thousand at a time."""
    broker = app._broker_here()
    cursor = b"0"
    while True:
        pipe = await broker.line.pipe()
        cursor, keys = await pipe.call("SCAN", cursor, "MATCH", f"{broker.keys.tag}:*", "COUNT", 1000)
        if keys:
            await pipe.call("UNLINK", *keys)
        if cursor == b"0":
            return


@dataclass(frozen=True, slots=True)
class Stage:
    """What a plan is run on."""

    app: AsyncQ
    noop: Task[..., None]
    own_worker: bool

    @asynccontextmanager
    async def worker(self) -> AsyncIterator[None]:
        """A worker process for the time of the block, ready when it begins; or whoever runs already.

        Raises:
            Refusal: it does not answer.
        """
        if not self.own_worker:
            await self._probe()
            yield
            return
        process = self._start()
        try:
            await self._ready(process)
            yield
        finally:
            await asyncio.to_thread(_end, process)

    async def _probe(self) -> None:
        """One job, answered: a worker that was killed is listed as listening until others have noticed."""
        job = await self.noop.delay("")
        try:
            await job.get(timeout=_PROBE)
        except ResultTimeout:
            await job.revoke()
            queue = self.app.settings.default_queue
            raise Refusal(
                f"no worker answers on queue {queue!r}", "start one: asyncq worker asyncq.cli.bench_tasks:app"
            ) from None

    def _start(self) -> subprocess.Popen[bytes]:
        app = self.app
        server = app._server
        # A private server is this process's own: the other process reaches it by the URL of its socket.
        url = server.url if server is not None else app.settings.url
        environment = {**os.environ, "ASYNCQ_URL": url, "ASYNCQ_NAMESPACE": app.settings.namespace}
        words = [
            sys.executable,
            "-m",
            "asyncq",
            "--quiet",
            "worker",
            "asyncq.cli.bench_tasks:app",
            "--grace",
            "1s",
        ]
        return subprocess.Popen(words, env=environment, stdout=subprocess.DEVNULL)  # noqa: S603  our own

    async def _ready(self, process: subprocess.Popen[bytes]) -> None:
        broker, queue = self.app._broker_here(), self.app.settings.default_queue
        end = time.monotonic() + 10.0
        while not await broker.listened_to(queue):
            if process.poll() is not None:
                raise Refusal(f"the worker ended with exit code {process.returncode}")
            if time.monotonic() > end:
                raise Refusal("the worker did not begin to listen within 10 s")
            await asyncio.sleep(0.01)


def _end(process: subprocess.Popen[bytes]) -> None:
    process.send_signal(signal.SIGTERM)
    try:
        process.wait(5)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


@dataclass(slots=True)
class Report:
    """What was measured: lines for a person, a tree for a machine, and how many jobs were lost."""

    lines: list[str]
    tree: dict[str, Any]
    lost: int = 0

    def add(self, name: str, key: str, per_second: float) -> None:
        """Adds a rate."""
        self.lines.append(f"  {name:<18} {per_second:>9,.0f} jobs/s")
        self.tree[key] = round(per_second)


@dataclass(frozen=True, slots=True)
class LatencyPlan:
    """Arrivals at a fixed rate, in an open loop."""

    rate: int
    seconds: float
    warmup: float
    payload: int

    @property
    def title(self) -> str:
        """The plan in one line."""
        times = f"{self.seconds:g} s after {self.warmup:g} s warm-up"
        return f"open loop, {self.rate}/s for {times}, payload {self.payload} B"

    async def run(self, stage: Stage) -> Report:
        """Runs the warm-up and the measurement."""
        payload = "x" * self.payload
        async with stage.worker():
            await OpenLoop(stage.noop, payload, self.rate, int(self.rate * self.warmup)).run()
            measured = OpenLoop(stage.noop, payload, self.rate, int(self.rate * self.seconds))
            await measured.run()
        return Report(
            [
                quantiles("enqueue", measured.enqueued),
                quantiles("enqueue -> result", measured.answered),
                f"  {bars(measured.answered)}",
                f"  {measured.count:,} sent, {measured.answered.count:,} done, {measured.lost:,} lost",
            ],
            {
                "rate": self.rate,
                "seconds": self.seconds,
                "payload": self.payload,
                "lost": measured.lost,
                "enqueue": summary(measured.enqueued),
                "result": summary(measured.answered),
            },
            measured.lost,
        )


@dataclass(slots=True)
class OpenLoop:
    """One run of arrivals, each a task of its own that enqueues a job and waits for it."""

    noop: Task[..., None]
    payload: str
    rate: int
    count: int
    enqueued: Histogram = field(default_factory=Histogram)
    answered: Histogram = field(default_factory=Histogram)
    lost: int = 0

    async def run(self) -> None:
        """Fills the histograms. A job that is not answered in time is lost, and not in them.

        Raises:
            Exception: what the first job that failed has raised.
        """
        pending: set[asyncio.Task[None]] = set()
        failed: list[asyncio.Task[None]] = []
        over = asyncio.Event()
        if not self.count:
            return

        def arrive(due: int) -> None:
            task = asyncio.create_task(self._one(due))
            pending.add(task)
            task.add_done_callback(ended)

        def ended(task: asyncio.Task[None]) -> None:
            pending.discard(task)
            if not task.cancelled() and task.exception() is not None:
                failed.append(task)
            if failed or self.answered.count + self.lost == self.count:
                over.set()

        with arrivals(self.rate, self.count, arrive) as last, suppress(TimeoutError):
            async with asyncio.timeout((last - time.monotonic_ns()) / 1e9 + 2 * _PATIENCE):
                await over.wait()
        unanswered = list(pending)
        for task in unanswered:
            task.cancel()
        await asyncio.gather(*unanswered, return_exceptions=True)
        for task in failed:
            task.result()
        self.lost = self.count - self.answered.count

    async def _one(self, due: int) -> None:
        result = await self.noop.delay(self.payload)
        self.enqueued.record(time.monotonic_ns() - due)
        try:
            await result.get(timeout=_PATIENCE)
        except ResultTimeout:
            self.lost += 1
        else:
            self.answered.record(time.monotonic_ns() - due)


@dataclass(frozen=True, slots=True)
class ThroughputPlan:
    """A backlog drained by one worker, then a closed loop of many callers."""

    jobs: int
    payload: int

    @property
    def title(self) -> str:
        """The plan in one line."""
        return f"{self.jobs:,} jobs, payload {self.payload} B"

    async def run(self, stage: Stage) -> Report:
        """Drains first: the worker that is started for it finds a backlog. Those that run leave none."""
        payload = "x" * self.payload
        report = Report([], {"jobs": self.jobs, "payload": self.payload, "in_flight": _IN_FLIGHT})
        if stage.own_worker:
            report.add("enqueue in batches", "enqueue_per_s", await self._enqueue(stage, payload))
        async with stage.worker():
            if stage.own_worker:
                report.add("drain of a backlog", "drain_per_s", await self._drain(stage))
            times = Histogram()
            report.add(
                f"{_IN_FLIGHT} in flight", "in_flight_per_s", await self._closed(stage, payload, times)
            )
        report.lines.append(quantiles("one of these", times))
        report.tree["in_flight_times"] = summary(times)
        return report

    async def _enqueue(self, stage: Stage, payload: str) -> float:
        began = time.perf_counter()
        for size in _chunks(self.jobs, 1000):
            await stage.noop.map([(payload,)] * size)
        return self.jobs / (time.perf_counter() - began)

    async def _drain(self, stage: Stage) -> float:
        """Jobs per second, from the first look that finds the worker at work to the empty queue.

        A job leaves the queue in the step that stores its result, so its length says how many have none.
        Looking costs the server 1 us.
        """
        broker = stage.app._broker_here()
        stream = broker.keys.stream(stage.app.settings.default_queue)
        pipe = await broker.line.pipe()
        end = time.monotonic() + 60.0
        first, began = 0, 0.0
        while left := await pipe.call("XLEN", stream):
            if not began and left < self.jobs:
                first, began = left, time.perf_counter()
            if time.monotonic() > end:
                raise Refusal(f"{left:,} of {self.jobs:,} jobs were not done within 60 s")
            await asyncio.sleep(0.002)
        if not began:
            raise Refusal(
                "the backlog was gone before it could be watched", "use more --jobs, and no other worker"
            )
        return first / (time.perf_counter() - began)

    async def _closed(self, stage: Stage, payload: str, times: Histogram) -> float:
        """Jobs per second of callers that each enqueue the next job when they have the value of the last."""

        async def caller(jobs: int) -> None:
            for _ in range(jobs):
                start = time.perf_counter_ns()
                await stage.noop.call(payload)
                times.record(time.perf_counter_ns() - start)

        each = self.jobs // _IN_FLIGHT
        began = time.perf_counter()
        try:
            async with asyncio.TaskGroup() as group:
                for _ in range(_IN_FLIGHT):
                    group.create_task(caller(each))
        except* AsyncQError as errors:
            raise errors.exceptions[0] from None
        return times.count / (time.perf_counter() - began)


def _chunks(total: int, most: int) -> list[int]:
    return [most] * (total // most) + [total % most] * bool(total % most)


def summary(times: Histogram) -> dict[str, Any]:
    """A histogram as a tree, with its percentiles in milliseconds."""
    shown = {f"{name}_ms": times.ms(q) for name, q in _QUANTILES} if times.count else {}
    return {**shown, "histogram": times.to_json()}


def quantiles(name: str, times: Histogram) -> str:
    """A line of percentiles."""
    if not times.count:
        return f"  {name:<18} nothing"
    return f"  {name:<18} " + "  ".join(f"{label} {_short(times.ms(q))}" for label, q in _QUANTILES) + " ms"


def _short(ms: float) -> str:
    return f"{ms:.0f}" if ms >= 100 else f"{ms:.3g}" if ms >= 1 else f"{ms:.2f}"


def bars(times: Histogram) -> str:
    """How many records fall into each power of two of milliseconds, as little blocks: `0.5 ████▍  1 ▏`."""
    if not times.count:
        return "nothing"
    rows: dict[int, int] = {}
    for low, held in times.to_json()["buckets"].items():
        power = (int(low) // 125_000).bit_length()  # 0: below 0.125 ms; each next one twice as much
        rows[power] = rows.get(power, 0) + held
    most = max(rows.values())
    blocks = " ▏▎▍▌▋▊▉█"
    parts = []
    for power in range(min(rows), max(rows) + 1):
        eighths = -(-rows.get(power, 0) * 96 // most)
        bar = "█" * (eighths // 8) + blocks[eighths % 8].strip()
        parts.append(f"<{0.125 * 2**power:g} {bar}".rstrip())
    return "  ".join(parts) + "   (ms)"
