"""Measures as a command of `asyncq bench` says, compares, and writes what was asked for."""

from __future__ import annotations

import asyncio
import platform
import sys
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from asyncq import __version__
from asyncq.broker.schema.keys import token
from asyncq.broker.transport.url import mask
from asyncq.cli import console, loop, target as targets
from asyncq.cli.bench import bench_page, saved
from asyncq.cli.bench.comparison import SLOWER, compared, enough_blocks
from asyncq.cli.bench.environment import BenchEnvironment, cpu_model
from asyncq.cli.bench.latency import LatencyPlan
from asyncq.cli.bench.load import LoadPlan
from asyncq.cli.bench.others import OthersMeter
from asyncq.cli.bench.report import verdict_lines
from asyncq.cli.bench.throughput import ThroughputPlan
from asyncq.cli.exits import Code
from asyncq.json_values import plain
from asyncq.system import cores

if TYPE_CHECKING:
    from collections.abc import Mapping

    from asyncq.app import AsyncQ
    from asyncq.cli.bench.comparison import Verdict
    from asyncq.cli.bench.report import BenchReport
    from asyncq.cli.bench.saved import Saved
    from asyncq.cli.invocation import Invocation
    from asyncq.tasks.task import Task

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


def measured(invocation: Invocation, plan: AnyPlan, outputs: Outputs, *, own_worker: bool) -> int:
    """Measures, and returns the exit code.

    Args:
        invocation: the global options of the command line.
        plan: what is measured.
        outputs: what is done with it.
        own_worker: whether each block starts a worker.

    Raises:
        CliError: the file to compare with cannot be read, or is of another measurement.
        BrokerUnavailable, BrokerNotConfigured: there is no server.
    """
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
