"""Waits for conditions, with a deadline: no test waits for a fixed time."""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable

TIMEOUT = 30.0
"""How many seconds a wait may take. A test that passes never waits so long, except on a busy machine."""


class NotWithinError(AssertionError):
    """A condition did not become true in time."""

    def __init__(self, what: str, timeout: float) -> None:
        super().__init__(f"not within {timeout:g} s: {what}")


async def until(
    condition: Callable[[], Any], what: str, timeout: float = TIMEOUT, every: float = 0.005
) -> Any:
    """Polls a condition (which may be async) until it is true, and returns its value.

    Raises:
        NotWithinError: it did not become true in time; the message is `what`.
    """
    end = time.monotonic() + timeout
    while True:
        value = condition()
        if asyncio.iscoroutine(value):
            value = await value
        if value:
            return value
        if time.monotonic() > end:
            raise NotWithinError(what, timeout)
        await asyncio.sleep(every)


def until_sync(condition: Callable[[], Any], what: str | Callable[[], str], timeout: float = TIMEOUT) -> Any:
    """Polls a condition like `until`, for a test without a loop. Blocks the thread. A text that tells how far
    things have come is given as a function, which is called at the end of the wait.
    """
    end = time.monotonic() + timeout
    while not (value := condition()):
        if time.monotonic() > end:
            raise NotWithinError(what if isinstance(what, str) else what(), timeout)
        time.sleep(0.005)
    return value


async def until_state(result: Any, state: str, timeout: float = TIMEOUT) -> None:
    """Refreshes a handle until it shows a state."""

    async def has_state() -> bool:
        return await result.refresh() == state

    await until(has_state, f"{result!r} to be {state}", timeout)
