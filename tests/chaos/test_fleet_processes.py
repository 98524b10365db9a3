"""Runs short forms of the trials with real processes. `make chaos` runs the full ones."""

from __future__ import annotations

from functools import partial

import pytest

from chaos.together import Reports
from chaos.trials import crashes, kills, restarts, schedules, shards, values, wires, workflows

pytestmark = pytest.mark.timeout(600)
LEASE = 3.0  # a worker that gets no core for two seconds must not be taken for dead
SEED = 20260611
STRUCK = ("enqueue.answered=kill", "finish.answered=kill", "read.answered=stop")

TRIALS = {
    "no job is lost when workers and server are killed under load": partial(
        kills.kill_everything, 0.02, SEED, LEASE
    ),
    "jobs of a killed worker start again within the bound": partial(kills.redelivery, 0.03, SEED, LEASE),
    "lost replies cause no second job and no second run": partial(wires.lost_replies, 0.015, SEED, LEASE),
    "an enqueue whose reply is lost creates one job": partial(wires.lost_enqueue, 0.1, SEED, LEASE),
    "after cancelled calls, every caller gets its own reply": partial(
        wires.cancelled_calls, 0.02, SEED, LEASE
    ),
    "no job of a workflow starts before its parents or with wrong values": partial(
        workflows.workflows, 0.05, SEED, LEASE
    ),
    "a value that many jobs need is stored once and reaches all of them": partial(
        values.large_values, 0.05, SEED, LEASE
    ),
    "no job of a workflow across shards is lost or starts too early": partial(
        shards.shards, 0.03, SEED, LEASE
    ),
    "no job of a new task fails while old workers are replaced": partial(
        restarts.rolling_deployment, 0.02, SEED, LEASE
    ),
    "no tick of a schedule is lost or doubled when workers are killed around it": partial(
        schedules.ticks, 0.04, SEED, LEASE
    ),
    **{
        f"nothing is lost when {order} strikes": partial(crashes.one_crash, order, SEED, LEASE)
        for order in STRUCK
    },
}


@pytest.fixture(scope="module")
def reports() -> Reports:
    return Reports(TRIALS, at_once=5)


@pytest.mark.parametrize("trial", TRIALS)
def test_the_guarantees_hold_when_processes_and_connections_die(reports, trial):
    reports.check(trial)
