"""A raw client beside asyncq, to look at the server and to do to it what asyncq would not."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
import redis.asyncio

if TYPE_CHECKING:
    from collections.abc import AsyncIterator


@pytest.fixture
async def raw(server_url: str) -> AsyncIterator[redis.asyncio.Redis]:
    client = redis.asyncio.Redis.from_url(server_url)
    yield client
    await client.aclose()
