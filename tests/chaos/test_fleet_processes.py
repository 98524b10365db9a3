"""Runs short forms of the trials with real processes. `make chaos` runs the full ones."""

from __future__ import annotations

from functools import partial

import pytest

from chaos.together import Reports
from chaos.trials import crashes, kills, restarts, shards, values, wires, workflows

pytestmark = pytest.mark.timeout(600)
LEASE = 3.0  # a worker that gets no core for two seconds must not be taken for dead
SEED = 20260611
STRUCK = ("enqueue.answered=kill", "finish.answered=kill", "read.answered=stop")

TRIALS = {
    "no job is lost when workers and server are killed under load": partial(
        kills.kill_everything, 0.02, SEED, LEASE
    ),
    "jobs of a killed worker start again within the bound": partial(kills.redelivery, 0.03, SEED, LEASE),
    "lost replies make no second job and no second run": partial(wires.lost_replies, 0.015, SEED, LEASE),
    "an enqueue whose reply was lost exists once": partial(wires.lost_enqueue, 0.1, SEED, LEASE),
    "cancelled calls put no reply at the wrong caller": partial(wires.cancelled_calls, 0.02, SEED, LEASE),
    "of a workflow no job starts before its parents or with other values": partial(
        workflows.workflows, 0.05, SEED, LEASE
    ),
    "a value for many is kept once, and reaches all of them": partial(values.large_values, 0.05, SEED, LEASE),
    "of a workflow through shards no job is lost or runs too early": partial(
        shards.shards, 0.03, SEED, LEASE
    ),
    "of a release with a new task no job fails while old workers are replaced": partial(
        restarts.rolling_deployment, 0.02, SEED, LEASE
    ),
    **{
        f"struck at {order}, nothing is lost": partial(crashes.one_crash, order, SEED, LEASE)
        for order in STRUCK
    },
}


@pytest.fixture(scope="module")
def reports() -> Reports:
    return Reports(TRIALS, at_once=5)


@pytest.mark.parametrize("trial", TRIALS)
def test_what_was_promised_holds_when_processes_and_connections_die(reports, trial):
    reports.check(trial)
