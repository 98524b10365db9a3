"""Fixtures of the integration tests: a raw Redis client beside asyncq, and common tasks."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest
from helpers import servers

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    import redis.asyncio


@pytest.fixture
async def raw(server_url: str) -> AsyncIterator[redis.asyncio.Redis]:
    """A raw client: tests read the server with it, and change what asyncq would not change."""
    client = servers.async_client(server_url)
    await client.ping()  # tests measure what follows, and may cancel it
    yield client
    await client.aclose()


@pytest.fixture
def add(app):
    @app.task
    async def add(x: int, y: int) -> int:
        return x + y

    return add


@pytest.fixture
def nap(app):
    @app.task
    async def nap(seconds: float) -> float:
        await asyncio.sleep(seconds)
        return seconds

    return nap


@pytest.fixture
def order() -> list[str]:
    """The words that `say` was given, in the order in which its jobs began."""
    return []


@pytest.fixture
def say(app, order):
    @app.task(name="say")
    async def say(word: str) -> str:
        order.append(word)
        return word

    return say
