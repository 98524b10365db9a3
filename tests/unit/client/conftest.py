"""Fixtures for client logic on a fake server in this process. `app` and `make_app` are otherwise as
everywhere.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from helpers.apps import closed_at_the_end
from helpers.fake_broker import FakeServer, fake_app
from helpers.hand_worker import HandWorker, hand_worker

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterator

    from asyncq import AsyncQ, Task


@pytest.fixture
def server() -> FakeServer:
    return FakeServer()


@pytest.fixture
def make_app(server: FakeServer) -> Iterator[Callable[..., AsyncQ]]:
    """Makes apps that use the test's fake server."""

    def make(**settings: Any) -> AsyncQ:
        return fake_app(server, **{"namespace": "t", **settings})

    with closed_at_the_end(make) as make_app:
        yield make_app


@pytest.fixture
async def app(make_app: Callable[..., AsyncQ]) -> AsyncIterator[AsyncQ]:
    """An open app."""
    async with (app := make_app()):
        yield app


@pytest.fixture
async def hand(app: AsyncQ) -> AsyncIterator[HandWorker]:
    """A worker whose jobs the test ends."""
    async with hand_worker(app) as worker:
        yield worker


@pytest.fixture
def add(app: AsyncQ) -> Task[..., int]:
    @app.task
    async def add(x: int, y: int) -> int:
        return x + y

    return add


@pytest.fixture
def fail(app: AsyncQ) -> Task[..., None]:
    @app.task
    async def fail(*_args: object) -> None:
        raise ValueError("no")

    return fail
