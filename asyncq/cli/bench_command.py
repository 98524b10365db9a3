"""`asyncq bench`: measures the latency and the throughput of jobs, on this machine and its server.

The commands are here. The measurements are in `bench/`: `latency` (open loop) and `throughput` (drain and
closed loop). Unless `--no-worker` is given, the worker is a child process, and the namespace is deleted at
the end.
"""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from asyncq import __version__
from asyncq.broker.schema.keys import token
from asyncq.broker.transport.url import mask
from asyncq.cli import console, loop, parameters, target as targets
from asyncq.cli.bench.environment import BenchEnvironment
from asyncq.cli.bench.latency import LatencyPlan
from asyncq.cli.bench.throughput import IN_FLIGHT, ThroughputPlan
from asyncq.cli.exits import CliError, Code
from asyncq.cli.invocation import Invocation, command
from asyncq.system import cores

if TYPE_CHECKING:
    from asyncq.app import AsyncQ
    from asyncq.tasks.task import Task

bench: typer.Typer = typer.Typer(
    help="Measures this machine and its server.", no_args_is_help=True, rich_markup_mode=None
)

Payload = Annotated[str, typer.Option(metavar="SIZE", help="Size of each job's argument.")]
NoWorker = Annotated[
    bool,
    typer.Option(
        "--no-worker", help="Use workers that already run: asyncq worker asyncq.cli.bench_tasks:app."
    ),
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
    warmup: Annotated[
        str, typer.Option(metavar="TIME", help="How long to warm up before, not counted.")
    ] = "2s",
    payload: Payload = "200b",
    no_worker: NoWorker = False,
    save: Save = None,
) -> int:
    """Measures how long a job takes at a fixed rate of arrivals.

    The loop is open: jobs arrive whether or not earlier jobs have ended, and each is timed from the moment
    when it was due. A load generator that waits for a slow system would leave out the worst seconds.
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
        raise typer.BadParameter("no job arrives in that time", param_hint="--duration")
    return _measured(ctx.obj, plan, save, own_worker=not no_worker)


@bench.command(name="throughput")
@command
def throughput(
    ctx: typer.Context,
    jobs: Annotated[
        int, typer.Option(min=IN_FLIGHT, metavar="N", help="Number of jobs in each of the two parts.")
    ] = 10_000,
    payload: Payload = "200b",
    no_worker: NoWorker = False,
    save: Save = None,
) -> int:
    """Measures how many jobs run per second: from a backlog, and for 100 callers in a closed loop.

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
                report = await plan.run(BenchEnvironment(app, noop, own_worker=own_worker))
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
    """Returns the bench's app and task. With a worker of its own, the bench gets a namespace of its own."""
    from asyncq.cli.bench_tasks import app, noop

    extra = {"namespace": f"asyncq-bench-{token()[:8]}"} if own_worker else {}
    targets.reconfigure(app, {**invocation.settings, **extra})
    return app, noop


def _save(name: str, tree: dict[str, Any]) -> None:
    try:
        Path(name).write_text(console.as_json(tree) + "\n", "utf-8")
    except OSError as error:
        raise CliError(f"cannot write {name}: {error.strerror}") from error
    console.say(f"saved {name}")


async def _about(app: AsyncQ, *, own_worker: bool) -> dict[str, Any]:
    version = (await app.sessions.current().broker.server_version()).capitalize()
    local = targets.is_local(app)
    return {
        "asyncq": __version__,
        "server": f"embedded {version}" if local else f"{version} at {mask(app.settings.url)}",
        "worker": "1 worker process" if own_worker else "workers that run already",
        "loop": type(asyncio.get_running_loop()).__module__.partition(".")[0],
        "cores": cores.usable(),
    }


async def _clean(app: AsyncQ) -> None:
    """Deletes every key of the bench's namespace, a thousand at a time."""
    broker = app.sessions.current().broker
    send, anywhere = broker.commands.send, broker.shards[0]
    ours = f"{{{app.settings.namespace}:*"  # of all shards
    cursor = b"0"
    while True:
        cursor, keys = await send(anywhere, "SCAN", cursor, "MATCH", ours, "COUNT", 1000)
        if keys:
            await send(anywhere, "UNLINK", *keys)
        if cursor == b"0":
            return
