"""The checks around every test find what they must find."""

from __future__ import annotations

import time
from pathlib import Path

import pytest
from blockbuster import BlockingError

import asyncq

pytestmark = pytest.mark.anyio

BLOCKING = """
import time

def block():
    time.sleep(0)

def call(function):
    function()
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
