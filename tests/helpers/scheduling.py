"""In which order the processes of pytest-xdist run the tests, and which tests one process runs one after the
other, because they share a costly fixture.
"""

from __future__ import annotations

import zlib
from typing import TYPE_CHECKING

from xdist.scheduler import LoadScopeScheduling

if TYPE_CHECKING:
    from collections.abc import Sequence

    import pytest

TOGETHER = (
    # One fixture runs all trials of a file at once, in many processes: two files would starve each other.
    "tests/chaos/test_bad_days.py",
    "tests/chaos/test_fleet_processes.py",
    "tests/chaos/test_revocations.py",
)
BY_FILE = (
    "tests/acceptance/examples/",  # one fixture starts all examples
    "tests/acceptance/sentry/",  # one program, whose output all tests read
    "tests/acceptance/web/",  # the tests of a file share a worker
    # What they share takes a second to make.
    "tests/integration/test_counts.py",
    "tests/integration/test_exceptions.py",
    "tests/test_layers.py",
    "tests/test_server_cluster.py",
    "tests/unit/test_exception_table.py",
    "tests/unit/test_reference_pages.py",
)


class Scheduling(LoadScopeScheduling):
    """Gives each test to a process that is free, except for tests that share a costly fixture.

    It replaces `--dist loadgroup`: pytest-xdist 3.8 writes the groups into ids, and pytest 9.2 forbids that.
    """

    def _split_scope(self, nodeid: str) -> str:
        file = nodeid.partition("::")[0]
        if file in TOGETHER:
            return "trials"
        return file if file.startswith(BY_FILE) else nodeid


def mixed(tests: Sequence[pytest.Item]) -> list[pytest.Item]:
    """Returns the tests in another order, which is the same in each process: that of a hash of their files.

    Some files need the processor, and in others the tests wait. In the order of their names the processor was
    idle for half of the last minute.
    """
    return sorted(tests, key=lambda test: zlib.crc32(test.nodeid.partition("::")[0].encode()))
