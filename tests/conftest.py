"""Fixtures for every test: a real server, an app with its own namespace."""

from __future__ import annotations

import asyncio
import functools
import logging
import os
import signal
import subprocess
import sys
import uuid
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import redis
from helpers import server_program, servers
from helpers.apps import closed_at_the_end
from helpers.checks import (  # noqa: F401 - autouse fixtures: importing them is what turns them on
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
from helpers.examples import examples
from helpers.signed import of_secrets
from hypothesis import HealthCheck, settings

from asyncq import AsyncQ, logs

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterator


# The time of an example depends on the machine.
settings.register_profile(
    "suite", settings(max_examples=examples()), deadline=None, suppress_health_check=[HealthCheck.too_slow]
)
settings.load_profile("suite")


# redis-py reads its own version from the disk for each connection. Here it does so once, and not on a loop.
redis.utils.get_lib_version = functools.cache(redis.utils.get_lib_version)
redis.utils.get_lib_version()


def pytest_configure() -> None:
    os.environ.update(
        of_secrets()
    )  # for fixtures that live longer than a test, see `_no_settings_from_outside`
    server_program.use()
    # A shell ignores these for what it starts in the background, and so would every process of a test.
    for number, handler in ((signal.SIGINT, signal.default_int_handler), (signal.SIGHUP, signal.SIG_DFL)):
        if signal.getsignal(number) is signal.SIG_IGN:
            signal.signal(number, handler)


@pytest.hookimpl(optionalhook=True)  # without pytest-xdist there is none
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    if config.getvalue("dist") != "loadscope":
        return None
    from helpers.scheduling import Scheduling

    return Scheduling(config, log)


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    left_out = [item for item in items if servers.left_out(item)]
    if left_out:
        config.hook.pytest_deselected(items=left_out)
        items[:] = [item for item in items if item not in set(left_out)]
    if server_program.chosen():
        kept = [item for item in items if not item.get_closest_marker("bundled")]
        config.hook.pytest_deselected(items=[item for item in items if item not in set(kept)])
        items[:] = kept
    if of_secrets():
        skipped = pytest.mark.skip(
            reason="it reads or writes the bytes of messages, and they are sealed here"
        )
        prints_more = pytest.mark.skip(
            reason="it compares what a process prints or takes that has no secrets, and this one has them"
        )
        for item in items:
            if item.get_closest_marker("reads_bytes"):
                item.add_marker(skipped)
            if item.get_closest_marker("without_secrets"):
                item.add_marker(prints_more)
    if hasattr(config, "workerinput"):
        from helpers.scheduling import mixed

        items[:] = mixed(items)


@pytest.hookimpl(tryfirst=True)
def pytest_collection(session: pytest.Session) -> None:
    if hasattr(session.config, "workerinput") and not sys.dont_write_bytecode:
        from helpers.rewriting import rewrite_share

        rewrite_share(session.config)


@pytest.fixture(autouse=True)
def _no_settings_from_outside(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in list(os.environ):
        # PYTHONUNBUFFERED and the like change what the processes do that a test starts.
        if name.startswith(("ASYNCQ_", "PYTHON")):
            monkeypatch.delenv(name)
    if shards := servers.shards_of(request.node):
        monkeypatch.setenv("ASYNCQ_SHARDS", shards)
    # To run them with signed, or encrypted, messages: those that read or write no messages must pass.
    for name, value in of_secrets().items():
        monkeypatch.setenv(name, value)


@pytest.fixture
def root_logger() -> Iterator[logging.Logger]:
    """The root logger without handlers. What the test does to the set-up of logging is undone."""
    root, ours = logging.getLogger(), logging.getLogger("asyncq")
    before = root.handlers[:], root.level, ours.level, logs._setup
    disabled = {name: getattr(logger, "disabled", False) for name, logger in root.manager.loggerDict.items()}
    root.handlers[:] = []
    yield root
    root.handlers[:] = before[0]
    root.setLevel(before[1])
    ours.setLevel(before[2])
    logs._setup = before[3]
    for name, is_disabled in disabled.items():  # `dictConfig` silences the loggers that it does not name
        logging.getLogger(name).disabled = is_disabled


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture(scope="session")
def server_url() -> Iterator[str]:
    """One real server, or Cluster, for the whole run, in its own process: tests of the embedded server kill
    theirs.
    """
    pipe = subprocess.PIPE
    path = {**os.environ, "PYTHONPATH": str(Path(__file__).parent)}
    holder = subprocess.Popen(
        [sys.executable, "-c", servers.PROGRAM], stdin=pipe, stdout=pipe, text=True, env=path
    )
    assert holder.stdin is not None
    assert holder.stdout is not None
    url = holder.stdout.readline().strip()
    with servers.client(url) as client:
        client.config_set("save", "3600 1")  # else every app would warn that it may lose jobs
    yield url
    holder.stdin.close()
    holder.stdout.close()
    holder.wait(10)


@pytest.fixture
def harness_servers() -> None:
    """Two servers of the testing kit run: a test that starts one would leave the pipes to it open.

    Tests of the embedded server end all servers of their process.
    """
    from asyncq.testing import harness, private_servers

    async def start() -> None:
        app, other = (AsyncQ("redis://127.0.0.1:1/0") for _ in range(2))
        async with harness(app, worker=False), harness(other, worker=False):
            pass

    if private_servers.count_free() < 2:
        asyncio.run(start())


@pytest.fixture
def namespace() -> str:
    """A namespace of its own for each test, instead of flushing."""
    return f"t{uuid.uuid4().hex[:12]}"


@pytest.fixture
def make_app(server_url: str, namespace: str) -> Iterator[Callable[..., AsyncQ]]:
    """Makes apps on the test's server and namespace. Blocks are closed by the test; background sessions are
    closed here.
    """

    def make(url: str | None = None, **settings: Any) -> AsyncQ:
        defaults = {"namespace": namespace, "lease": 2, "unknown_task_wait": 0}
        return AsyncQ(url or server_url, **{**defaults, **settings})

    with closed_at_the_end(make) as make_app:
        yield make_app


@pytest.fixture
async def app(make_app: Callable[..., AsyncQ]) -> AsyncIterator[AsyncQ]:
    """An open app."""
    app = make_app()
    async with app:
        yield app
