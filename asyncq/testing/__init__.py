"""Tests of code that uses asyncq: `harness` gives an app a private server and a worker for a block of a test.

Under pytest the fixtures `asyncq_harness` and `asyncq_harness_sync` do the same, see `pytest_plugin`. Nothing
here needs pytest.
"""

from __future__ import annotations

from asyncq.testing.enqueued_jobs import EnqueuedJob
from asyncq.testing.harness import Harness, InlineHarness, harness
from asyncq.testing.leaks import LeakError
from asyncq.testing.sync_harness import SyncHarness, sync_harness

__all__ = [
    "EnqueuedJob",
    "Harness",
    "InlineHarness",
    "LeakError",
    "SyncHarness",
    "harness",
    "sync_harness",
]
