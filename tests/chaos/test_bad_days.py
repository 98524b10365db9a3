"""Runs the quick trials of a server's bad days. `make chaos` runs all of them."""

from __future__ import annotations

from functools import partial

import pytest

from chaos.together import Reports
from chaos.trials import baddays, wires

pytestmark = pytest.mark.timeout(600)

QUICK = (
    baddays.restart_without_data,
    baddays.readonly,
    baddays.scripts_flushed_and_connections_cut,
    baddays.group_destroyed_while_out_of_memory,
    baddays.out_of_memory_and_worker_lost_its_lease,
    baddays.no_more_clients,
    baddays.password_changed,
)
TRIALS = {
    **{day.__name__: partial(baddays.one_day, day) for day in QUICK},
    "hung server": partial(wires.hung_server, 1.0, 1, 1.0),
}


@pytest.fixture(scope="module")
def reports() -> Reports:
    return Reports(TRIALS, at_once=8)


@pytest.mark.parametrize("day", TRIALS)
def test_workers_and_clients_recover_after_a_bad_day_of_the_server(reports, day):
    reports.check(day)
