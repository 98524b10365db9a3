"""The clock of a test: one seam in Python, and scripts of their own for the test server."""

from __future__ import annotations

import re
import time
from pathlib import Path

import pytest

import asyncq
from asyncq.broker.transport import scripts, virtual_time
from asyncq.system import clock

PACKAGE = Path(asyncq.__file__).parent
REAL = ("embedded/", "cli/", "system/clock.py")
"""Where the machine's clock is meant: when a server started, how long a benchmark took."""
_READS = re.compile(r"(?<!`)\btime\.time\(|\btime_ns\(|datetime\.now\((?!UTC\) \+ \.\.\.)|utcnow\(")
"""Not in a docstring, nor in the error that says how to write a time."""


def test_no_module_that_decides_by_the_time_reads_the_machines_clock():
    readers = [
        str(path.relative_to(PACKAGE)) for path in PACKAGE.rglob("*.py") if _READS.search(path.read_text())
    ]
    assert [path for path in readers if not path.startswith(REAL)] == [], "they must call clock.now()"


def test_the_clock_is_the_machines_unless_a_test_sets_it_ahead():
    assert clock.now is time.time
    try:
        clock.set_ahead(3600)
        assert 3599 < clock.now() - time.time() < 3601
    finally:
        clock.set_ahead(0)
    assert clock.now is time.time


def test_no_script_of_production_knows_the_virtual_clock():
    for script in scripts.load().values():
        assert "virtual" not in script.source
        assert virtual_time.KEY not in script.source


@pytest.mark.parametrize("name", sorted(scripts.load()))
def test_every_script_of_a_test_server_reads_the_time_of_the_virtual_clock(name):
    production, script = scripts.load()[name], scripts.load_for_tests()[name]
    own = script.source.replace(virtual_time.FUNCTIONS, "")

    calls = own.count("redis.call('TIME')")
    assert calls == (1 if name == "check_in" else 0), "the observations of workers go by real time"
    times = production.source.count("redis.call('TIME')")
    assert own.count("virtual_time()") == times - calls
    assert script.keys == production.keys
    assert script.arguments == production.arguments
    assert script.fills_outbox == production.fills_outbox


def test_all_dead_letters_of_a_test_server_have_ids_by_the_virtual_clock():
    source = "".join(script.source for script in scripts.load_for_tests().values())
    assert "redis.call('XADD', dead, virtual_id()" in source
    assert "redis.call('XADD', dead, '*'" not in source
