"""`asyncq bench`: measures the latency and the throughput of jobs, on this machine and its server.

The commands are here. The measurements are in `bench/`: `latency` (open loop), `throughput` (drain and closed
loop) and `load` (open loop at rising rates). Each is made of blocks, and unless `--no-worker` is given, each
block has a new child process as its worker. The namespace is deleted at the end.
"""

from __future__ import annotations

from typing import Annotated

import typer

from asyncq.cli import parameters
from asyncq.cli.bench import IN_FLIGHT
from asyncq.cli.invocation import command

# The measurements and the pages are imported by the commands: each worker loads this module, and has no use
# for them.

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
    from asyncq.cli.bench.latency import LatencyPlan
    from asyncq.cli.bench.measuring import Outputs, measured

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
    return measured(ctx.obj, plan, outputs, own_worker=not no_worker)


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
    from asyncq.cli.bench.measuring import Outputs, measured
    from asyncq.cli.bench.throughput import ThroughputPlan

    plan = ThroughputPlan(jobs, parameters.size("--payload", payload), blocks)
    outputs = Outputs(save, html, compare, fail_if_slower)
    return measured(ctx.obj, plan, outputs, own_worker=not no_worker)


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
    from asyncq.cli.bench.load import LoadPlan, rising
    from asyncq.cli.bench.measuring import Outputs, measured

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
    return measured(ctx.obj, plan, outputs, own_worker=not no_worker)
