"""Checks around every test: no blocking call on a loop, no lost exception, no open descriptor, no leaked key.

They are autouse fixtures, so each test of a folder whose conftest imports them is checked.

`tests/conftest.py` imports them:

    from helpers.checks import (  # noqa: F401  autouse fixtures: importing them is what turns them on
        _modules_are_frozen,
        _opened_once,
        _runner_raises,
        blocking_calls_raise,
        descriptors_are_closed,
        leaves_descriptors,
        leaves_keys,
        no_exception_is_lost,
        no_key_is_left_behind,
    )

A test that breaks a rule on purpose asks for the fixture that allows it: `leaves_keys`, `leaves_descriptors`.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import logging
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from blockbuster import BlockBuster

import asyncq
from helpers import leftovers, meter

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterator
    from types import FrameType

PACKAGE = str(Path(asyncq.__file__).parent)
MAY_BLOCK = (
    ("asyncq/sync_bridge.py", {"__init__"}),  # the start of the background thread, once an app: some 0.1 ms
    ("asyncq/execution/runner.py", {"_body"}),  # a task's body: its author decides what it does on the loop
    (
        "asyncq/app.py",
        {"__init__", "_register"},
    ),  # read pyproject.toml and find a source, at import as a rule
    # It reads the scripts once a process, from beside the code.
    ("asyncq/broker/transport/scripts.py", {"load", "load_for_cluster"}),
    ("asyncq/broker/commands.py", {"_seal_of"}),  # imports, once a process
    ("asyncq/app.py", {"_warn_once"}),  # logs
    ("asyncq/embedded/launch.py", {"find"}),  # tests search the server's program on their loop
    (
        "asyncq/embedded/server_handle.py",
        {"forked", "close_all"},
    ),  # a fork or the end of the process waits for it
    ("logging/__init__.py", {"emit", "flush"}),  # the handlers are the application's
    ("acceptance/cli/test_bench.py", {"arrive"}),  # the busy loop that it measures
    ("asyncq/failpoints.py", {"pull"}),  # its purpose is to block
)


@pytest.fixture(autouse=True, scope="session")
def blocking_calls_raise() -> Iterator[None]:
    """Makes a blocking call of asyncq on a running loop raise `BlockingError`."""
    guard = BlockBuster("asyncq")
    for function in guard.functions.values():
        function.can_block_predicate = _or_is_foreign(function.can_block_predicate)
        for file, functions in MAY_BLOCK:
            function.can_block_in(file, functions)
    guard.activate()
    yield
    guard.deactivate()


def _or_is_foreign(may_block: Callable[..., bool]) -> Callable[..., bool]:
    """Returns a faster check: a call from outside of asyncq may block, without a slow search of the stack."""

    def may_block_or_is_foreign(*args: Any, **kwargs: Any) -> bool:
        return may_block(*args, **kwargs) or not _is_called_by_asyncq()

    return may_block_or_is_foreign


def _is_called_by_asyncq() -> bool:
    frame: FrameType | None = sys._getframe()
    while frame is not None:
        if frame.f_code.co_filename.startswith(PACKAGE):
            return True
        frame = frame.f_back
    return False


class _Complaints(logging.Handler):
    """Keeps the messages of asyncio's default exception handler, which only go to a log and fail no test."""

    def __init__(self) -> None:
        super().__init__(logging.ERROR)
        self.messages: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.messages.append(self.format(record))


SLOW_COLLECTION = 0.01
"""How many seconds a garbage collection may take. One runs after each of thousands of tests."""


@pytest.fixture(autouse=True, scope="session")
def _modules_are_frozen() -> None:
    """Freezes all imported modules, which stay: a collection after a test takes some 2 ms and not 60."""
    gc.collect()
    gc.freeze()


@pytest.fixture
async def _runner_raises() -> AsyncIterator[None]:
    """Has the runner of asynchronous tests raise what loops complain about: it keeps that from the log, and
    raises it at the end of the test or fixture that it runs then.
    """
    yield
    await asyncio.sleep(0)


@pytest.fixture(autouse=True)
def no_exception_is_lost(request: pytest.FixtureRequest) -> Iterator[None]:
    """Fails a test if an exception of a task was never retrieved, or a callback raised."""
    handler = _Complaints()
    logger = logging.getLogger("asyncio")
    logger.addHandler(handler)
    if "anyio_backend" in request.fixturenames:
        request.getfixturevalue("_runner_raises")  # pytest ends it after this fixture
    yield
    # A task complains when it is collected, and one in a cycle is collected only now.
    started = time.perf_counter()
    gc.collect()
    if time.perf_counter() - started > SLOW_COLLECTION:
        # What is there now serves many tests: what a library has loaded, fixtures of the run.
        gc.freeze()
    logger.removeHandler(handler)
    if handler.messages:
        pytest.fail("asyncio complains: " + "; ".join(handler.messages))


@pytest.fixture(autouse=True, scope="session")
def _opened_once() -> None:
    """Makes one uvloop before all tests: libuv opens a pipe with a process's first loop and keeps it."""
    with contextlib.suppress(ImportError):
        import uvloop

        uvloop.new_event_loop().close()


@pytest.fixture
def leaves_descriptors() -> None:
    """Allows a test to leave descriptors open, which others close."""


@pytest.fixture(autouse=True)
def descriptors_are_closed(request: pytest.FixtureRequest) -> Iterator[None]:
    """Fails a test that leaves a file descriptor open."""
    if "server_url" in request.fixturenames:
        request.getfixturevalue("server_url")  # for the whole run: it is not this test's
    if "harness_servers" in request.fixturenames:
        request.getfixturevalue("harness_servers")  # likewise
    before = set(meter.descriptors())
    yield
    if "leaves_descriptors" in request.fixturenames:
        return
    # What a transport or a thread has released is closed a little later.
    end = time.monotonic() + 2.0
    while new := {number: to for number, to in meter.descriptors().items() if number not in before}:
        if time.monotonic() > end:
            pytest.fail(f"left open: {new}")
        gc.collect()
        time.sleep(0.01)


@pytest.fixture
def leaves_keys() -> None:
    """Allows a test to leave keys, because it breaks the server's data on purpose."""


@pytest.fixture(autouse=True)
def no_key_is_left_behind(request: pytest.FixtureRequest) -> Iterator[None]:
    """Fails a test that leaves a key without owner and expiry in its namespace. Then deletes all keys."""
    if not {"server_url", "namespace"} <= set(request.fixturenames):
        yield
        return
    # Asked for here, they are torn down after this check.
    url = request.getfixturevalue("server_url")
    namespace = request.getfixturevalue("namespace")
    yield
    left = leftovers.clear(url, namespace)
    if left and "leaves_keys" not in request.fixturenames:
        pytest.fail("left behind: " + "; ".join(left))
