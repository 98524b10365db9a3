"""What every test may ask for: a real server, an app with a namespace of its own, waiting with a deadline."""

from __future__ import annotations

import asyncio
import os
import time
import uuid
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

import pytest

from asyncq import AsyncQ
from asyncq.broker import embedded


@pytest.fixture(autouse=True)
def _no_settings_from_outside(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in list(os.environ):
        if name.startswith("ASYNCQ_"):
            monkeypatch.delenv(name)


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture(scope="session")
def server_url() -> Iterator[str]:
    """One real, private server for the whole run."""
    server = embedded.private()
    yield server.url
    server.release()


@pytest.fixture
def namespace() -> str:
    """A namespace of its own for each test, instead of flushing."""
    return f"t{uuid.uuid4().hex[:12]}"


@pytest.fixture
def make_app(server_url: str, namespace: str) -> Callable[..., AsyncQ]:
    """Makes apps on the test's server and namespace; closed by the test."""

    def make(url: str | None = None, **settings: Any) -> AsyncQ:
        return AsyncQ(url or server_url, **{"namespace": namespace, "lease": 2, **settings})

    return make


@pytest.fixture
async def app(make_app: Callable[..., AsyncQ]) -> AsyncIterator[AsyncQ]:
    """An open app."""
    app = make_app()
    async with app:
        yield app


async def wait_until(condition: Callable[[], Any], what: str, timeout: float = 10.0) -> Any:
    """Polls a condition (which may be async) until it holds; fails with `what` when the deadline passes."""
    end = time.monotonic() + timeout
    while True:
        value = condition()
        if asyncio.iscoroutine(value):
            value = await value
        if value:
            return value
        if time.monotonic() > end:
            pytest.fail(f"not within {timeout:g} s: {what}")
        await asyncio.sleep(0.005)
