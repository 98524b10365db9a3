"""`asyncq bench`: measures the latency and the throughput of jobs, on this machine and its server.

The commands are here. The measurements are in `bench/`: `latency` (open loop), `throughput` (drain and closed
loop) and `load` (open loop at rising rates). Each is made of blocks, and unless `--no-worker` is given, each
block has a new child process as its worker. The namespace is deleted at the end.
"""

from __future__ import annotations

import asyncio
import platform
import sys
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from asyncq import __version__
from asyncq.broker.schema.keys import token
from asyncq.broker.transport.url import mask
from asyncq.cli import console, loop, parameters, target as targets
from asyncq.cli.bench import bench_page, saved
from asyncq.cli.bench.comparison import SLOWER, compared, enough_blocks
from asyncq.cli.bench.environment import BenchEnvironment, cpu_model
from asyncq.cli.bench.latency import LatencyPlan
from asyncq.cli.bench.load import LoadPlan, rising
from asyncq.cli.bench.others import OthersMeter
from asyncq.cli.bench.report import verdict_lines
from asyncq.cli.bench.throughput import IN_FLIGHT, ThroughputPlan
from asyncq.cli.exits import Code
from asyncq.cli.invocation import Invocation, command
from asyncq.json_values import plain
from asyncq.system import cores

if TYPE_CHECKING:
    from collections.abc import Mapping

    from asyncq.app import AsyncQ
    from asyncq.cli.bench.comparison import Verdict
    from asyncq.cli.bench.report import BenchReport
    from asyncq.cli.bench.saved import Saved
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
Html = Annotated[str | None, typer.Option(metavar="FILE", help="Also draw a page: one HTML file.")]
Compare = Annotated[str | None, typer.Option(metavar="FILE", help="Compare with a file that --save wrote.")]
FailIfSlower = Annotated[
    bool, typer.Option("--fail-if-slower", help="With --compare: exit code 1 if a figure is slower.")
]
Blocks = Annotated[int, typer.Option(min=1, metavar="N", help="Repetitions, each with a new worker.")]
BLOCKS = 7
"""With so many blocks, a difference can be certain even among fifteen figures, see `bench/comparison.py`."""


AnyPlan = LatencyPlan | ThroughputPlan | LoadPlan
"""What a command measures."""


@dataclass(frozen=True, slots=True)
class Outputs:
    """What is done with a measurement: the files that are written, and the file that it is compared with.

    Raises:
        BadParameter: `fail_if_slower` without a file to compare with.
    """

    save: str | None
    html: str | None
    compare: str | None
    fail_if_slower: bool

    def __post_init__(self) -> None:
        if self.fail_if_slower and self.compare is None:
            raise typer.BadParameter(
                "there is nothing to compare with: add --compare FILE", param_hint="--fail-if-slower"
            )


@bench.command(name="latency")
@command
def latency(
    ctx: typer.Context,
    rate: Annotated[str, typer.Option(metavar="RATE", help="Arrivals per second.")] = "500/s",
    duration: Annotated[
        str, typer.Option(metavar="TIME", help="How long to measure, all blocks together.")
    ] = "10s",
    warmup: Annotated[
        str, typer.Option(metavar="TIME", help="How long to warm up before each block, not counted.")
    ] = "500ms",
    payload: Payload = "200b",
    blocks: Blocks = BLOCKS,
    no_worker: NoWorker = False,
    save: Save = None,
    html: Html = None,
    compare: Compare = None,
    fail_if_slower: FailIfSlower = False,
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
        blocks,
    )
    if plan.rate * plan.seconds < 1:
        raise typer.BadParameter("no job arrives in that time", param_hint="--duration")
    outputs = Outputs(save, html, compare, fail_if_slower)
    return _measured(ctx.obj, plan, outputs, own_worker=not no_worker)


@bench.command(name="throughput")
@command
def throughput(
    ctx: typer.Context,
    jobs: Annotated[
        int, typer.Option(min=IN_FLIGHT, metavar="N", help="Jobs in each of the two parts of a block.")
    ] = 10_000,
    payload: Payload = "200b",
    blocks: Blocks = BLOCKS,
    no_worker: NoWorker = False,
    save: Save = None,
    html: Html = None,
    compare: Compare = None,
    fail_if_slower: FailIfSlower = False,
) -> int:
    """Measures how many jobs run per second: from a backlog, and for 100 callers in a closed loop.

    \b
    Example:
      asyncq bench throughput --jobs 20000
    """  # noqa: D301  \b is typer's mark for lines that stay as they are
    plan = ThroughputPlan(jobs, parameters.size("--payload", payload), blocks)
    outputs = Outputs(save, html, compare, fail_if_slower)
    return _measured(ctx.obj, plan, outputs, own_worker=not no_worker)


@bench.command(name="load")
@command
def load(
    ctx: typer.Context,
    lowest: Annotated[str, typer.Option("--from", metavar="RATE", help="Lowest rate.")] = "500/s",
    highest: Annotated[str, typer.Option("--to", metavar="RATE", help="Highest rate.")] = "20000/s",
    steps: Annotated[
        int, typer.Option(min=1, metavar="N", help="Rates, each the same factor above the last.")
    ] = 8,
    p99: Annotated[
        str, typer.Option("--p99", metavar="TIME", help="Slowest 99th percentile that keeps up.")
    ] = "100ms",
    duration: Annotated[
        str, typer.Option(metavar="TIME", help="How long to measure each rate, in all.")
    ] = "7s",
    warmup: Annotated[
        str, typer.Option(metavar="TIME", help="How long to warm up before each block.")
    ] = "500ms",
    payload: Payload = "200b",
    blocks: Blocks = BLOCKS,
    no_worker: NoWorker = False,
    save: Save = None,
    html: Html = None,
    compare: Compare = None,
    fail_if_slower: FailIfSlower = False,
) -> int:
    """Finds the highest rate of arrivals that is kept up.

    Raises the rate of an open loop until jobs are lost or --p99 is exceeded.
    Exit code 1 if even the lowest rate was not kept up.

    \b
    Example:
      asyncq bench load --from 1000/s --to 30000/s --steps 10
    """  # noqa: D301  \b is typer's mark for lines that stay as they are
    low, high = parameters.rate("--from", lowest), parameters.rate("--to", highest)
    if high < low:
        raise typer.BadParameter(f"{high} is less than --from {low}", param_hint="--to")
    plan = LoadPlan(
        rising(low, high, steps),
        parameters.duration("--duration", duration),
        parameters.duration("--warmup", warmup),
        parameters.size("--payload", payload),
        parameters.duration("--p99", p99),
        blocks,
    )
    if low * plan.seconds < blocks:
        raise typer.BadParameter("no job arrives in a block of that time", param_hint="--duration")
    outputs = Outputs(save, html, compare, fail_if_slower)
    return _measured(ctx.obj, plan, outputs, own_worker=not no_worker)


def _measured(invocation: Invocation, plan: AnyPlan, outputs: Outputs, *, own_worker: bool) -> int:
    # Before minutes are spent on measuring.
    base = None if outputs.compare is None else saved.read(outputs.compare, plan.command)
    if base is not None:
        base.insist_same(plan.parameters)
    invocation.begin(banner=True)
    app, noop = _app(invocation, own_worker=own_worker)

    async def measure() -> int:
        async with app:
            about = await _about(app, own_worker=own_worker)
            if not invocation.json:
                console.data(f"{plan.title}, {about['worker']}, {about['server']}")
            try:
                others = OthersMeter(await _embedded_server(app))
                report = await plan.run(BenchEnvironment(app, noop, own_worker=own_worker))
                about["others"] = others.share()
            finally:
                if own_worker:
                    await _clean(app)
        tree = {"schema": saved.SCHEMA, "command": plan.command, "about": about, **report.to_json()}
        verdicts: list[Verdict] = []
        if base is not None:
            verdicts = compared(base.figures, report.figures, alike=base.was_as_busy(about))
            tree["comparison"] = _comparison(base, verdicts, about)
            report.lines += _comparison_lines(tree["comparison"], verdicts)
        if (about["others"] or 0.0) > saved.OTHERS:
            console.say(f"others used {about['others']:.0%} of the machine meanwhile")
        _put_out(invocation, report, tree, outputs)
        slower = outputs.fail_if_slower and any(each.verdict == SLOWER for each in verdicts)
        return Code.FAILED if report.failed or slower else Code.OK

    return loop.run(measure())


def _put_out(invocation: Invocation, report: BenchReport, tree: dict[str, Any], outputs: Outputs) -> None:
    """Prints the measurement and writes the files."""
    tree = plain(tree)
    if invocation.json:
        console.document(tree)
    else:
        console.data("\n".join(report.lines))
    if outputs.save is not None:
        saved.write(outputs.save, console.as_json(tree) + "\n")
        console.say(f"saved {outputs.save}")
    if outputs.html is not None:
        saved.write(outputs.html, bench_page.draw(tree))
        console.say(f"drew {outputs.html}")


def _comparison(base: Saved, verdicts: list[Verdict], about: Mapping[str, Any]) -> dict[str, Any]:
    notes = base.differences(about)
    if not base.was_as_busy(about):
        then, now = (f"{each['others']:.0%} of the machine" for each in (base.about, about))
        notes.append(f"others used {then} then, {now} now: no verdict, repeat both when it is quiet")
    if not enough_blocks(verdicts):
        notes.append("too few blocks for any verdict but that: use more --blocks for both measurements")
    return {
        "base": {"name": Path(base.name).name, "about": base.about},
        "notes": notes,
        "verdicts": [verdict.to_json() for verdict in verdicts],
    }


def _comparison_lines(comparison: Mapping[str, Any], verdicts: list[Verdict]) -> list[str]:
    base = comparison["base"]
    return [
        f"against {base['name']}, of {base['about'].get('date')}:",
        *verdict_lines(verdicts),
        *(f"  {note}" for note in comparison["notes"]),
    ]


def _app(invocation: Invocation, *, own_worker: bool) -> tuple[AsyncQ, Task[..., None]]:
    """Returns the bench's app and task. With a worker of its own, the bench gets a namespace of its own."""
    from asyncq.cli.bench_tasks import app, noop

    extra = {"namespace": f"asyncq-bench-{token()[:8]}"} if own_worker else {}
    targets.reconfigure(app, {**invocation.settings, **extra})
    return app, noop


async def _embedded_server(app: AsyncQ) -> int | None:
    """Returns the process id of the embedded server. None for another one: it may be on another machine."""
    if not targets.is_local(app):
        return None
    broker = app.sessions.current().broker
    lines = (await broker.commands.send(broker.shards[0], "INFO", "server")).decode().splitlines()
    return next((int(line.partition(":")[2]) for line in lines if line.startswith("process_id:")), None)


async def _about(app: AsyncQ, *, own_worker: bool) -> dict[str, Any]:
    version = (await app.sessions.current().broker.server_version()).capitalize()
    local = targets.is_local(app)
    return {
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "invocation": " ".join(["asyncq", *map(mask, sys.argv[1:])]),
        "asyncq": __version__,
        "python": platform.python_version(),
        "system": f"{platform.system()} {platform.machine()}",
        "cpu": cpu_model(),
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
