"""An app of the tests of the testing kit. It has no server of its own: only the kit gives it one."""

from __future__ import annotations

import asyncio

import pytest

from asyncq import AsyncQ


@pytest.fixture(autouse=True)
def _servers_run(harness_servers: None) -> None:
    """Every test here uses a harness."""


@pytest.fixture
def app() -> AsyncQ:
    return AsyncQ("redis://127.0.0.1:1/0", namespace="own")  # no server listens there


@pytest.fixture
def add(app: AsyncQ):
    @app.task
    async def add(x: int, y: int = 1) -> int:
        return x + y

    return add


@pytest.fixture
def hold(app: AsyncQ):
    """A task that runs until it is ended."""

    @app.task
    async def hold() -> None:
        await asyncio.Event().wait()

    return hold
