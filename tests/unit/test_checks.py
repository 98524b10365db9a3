"""The checks around every test find what they are for."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

TESTS = Path(__file__).parent.parent

CONFTEST = """
from helpers.checks import _modules_are_frozen, _runner_raises, no_exception_is_lost
"""

LOSES_AN_ERROR = """
import asyncio
import pytest

async def fail():
    raise ValueError("lost")

async def lose():
    task = asyncio.ensure_future(fail())
    await asyncio.wait([task])
    in_a_cycle = [task]
    in_a_cycle.append(in_a_cycle)
"""

ASYNCHRONOUS = """
@pytest.mark.anyio
async def test_it():
    await lose()
"""

SYNCHRONOUS = """
def test_it():
    asyncio.run(lose())
"""


@pytest.mark.parametrize("test", [ASYNCHRONOUS, SYNCHRONOUS], ids=["asynchronous", "synchronous"])
def test_a_test_that_loses_the_error_of_a_task_has_an_error(tmp_path, test):
    (tmp_path / "conftest.py").write_text(CONFTEST)
    (tmp_path / "test_it.py").write_text(LOSES_AN_ERROR + test)
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "--rootdir", tmp_path, tmp_path],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": f"{TESTS}{os.pathsep}{TESTS.parent}"},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert "1 passed, 1 error" in done.stdout, done.stdout
    assert "ValueError: lost" in done.stdout
