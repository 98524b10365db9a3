"""The checks around every test find what they must find."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest
from blockbuster import BlockingError

import asyncq

pytestmark = pytest.mark.anyio

TESTS = Path(__file__).parent

BLOCKING = """
import time

def block():
    time.sleep(0)

def call(function):
    function()
"""

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


@pytest.fixture
def ours():
    """Functions as asyncq might have them."""
    functions: dict = {}
    exec(compile(BLOCKING, Path(asyncq.__file__).with_name("made_up.py"), "exec"), functions)
    return functions


async def test_a_blocking_call_that_asyncq_makes_on_a_loop_raises(ours):
    with pytest.raises(BlockingError, match="sleep"):
        ours["block"]()
    with pytest.raises(BlockingError, match="sleep"):
        ours["call"](lambda: time.sleep(0))


async def test_a_test_may_block_its_own_loop():
    time.sleep(0)  # noqa: ASYNC251


def test_a_blocking_call_of_asyncq_is_allowed_where_no_loop_runs(ours):
    ours["block"]()


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
