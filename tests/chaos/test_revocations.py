"""Runs the race between revocations and the runs of their jobs, with a tenth of the jobs. `make chaos` runs
the full race.
"""

from __future__ import annotations

import asyncio

from chaos.trials import revocations


def test_each_job_either_runs_or_is_revoked_and_all_its_waiters_get_the_same_state():
    report = asyncio.run(revocations.race(0.1, seed=20260611, lease=2.0))
    assert report.good, report.complaint()
