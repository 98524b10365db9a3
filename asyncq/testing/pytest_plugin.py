"""The pytest plugin: the fixtures `asyncq_harness` and `asyncq_harness_sync`. pytest loads it by its entry
point, so this module imports no client of a server: a harness does that when it begins.

Each fixture is a function that makes a block, and no async fixture itself. So it belongs to no event loop,
and works under pytest-asyncio in either mode, under anyio, and in plain tests. Under pytest-xdist each
process has servers of its own.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from asyncq.testing.harness import harness
from asyncq.testing.sync_harness import SyncHarness, sync_harness

if TYPE_CHECKING:
    from collections.abc import Callable
    from contextlib import AbstractAsyncContextManager, AbstractContextManager
    from typing import Any


@pytest.fixture
def asyncq_harness() -> Callable[..., AbstractAsyncContextManager[Any]]:
    """Gives the function `asyncq.testing.harness`. An app gets a private server and a worker on this loop by
    `async with asyncq_harness(app) as t`.
    """
    return harness


@pytest.fixture
def asyncq_harness_sync() -> Callable[..., AbstractContextManager[SyncHarness]]:
    """Gives the function `asyncq.testing.sync_harness`. An app gets a private server and a worker in a thread
    by `with asyncq_harness_sync(app) as t`.
    """
    return sync_harness
