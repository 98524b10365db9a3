"""The race between revocations and what they revoke, at a tenth. The full one: `make chaos`."""

from __future__ import annotations

import asyncio

from chaos.trials import revocations


def test_each_job_either_ran_or_was_revoked_and_every_waiter_gets_the_same():
    report = asyncio.run(revocations.race(0.1, seed=20260611, lease=2.0))
    assert report.good, report.complaint()
