"""Ends what a client waits for when the client goes away.

This module knows no framework: it is given a coroutine that returns when the client has gone. On the loop of
the site.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Coroutine
    from types import TracebackType


class WhileConnected:
    """Cancels its block when the client goes away: `async with WhileConnected(gone()) as client:`.

    A block that was cancelled ends without an error, and `client.is_gone` is true. An error of the coroutine
    is raised at the end of the block.

    Args:
        gone: returns when the client has gone.

    Attributes:
        is_gone: whether the client has gone.
    """

    def __init__(self, gone: Coroutine[Any, Any, None]) -> None:
        self.is_gone: bool = False
        self._gone = gone
        self._block: asyncio.Task[Any] | None = None
        self._cancellations = 0
        self._watch: asyncio.Task[None] | None = None

    async def __aenter__(self) -> WhileConnected:
        self._block = asyncio.current_task()
        assert self._block is not None
        self._cancellations = self._block.cancelling()
        self._watch = asyncio.create_task(self._wait())
        return self

    async def _wait(self) -> None:
        await self._gone
        self.is_gone = True
        if self._block is not None:
            self._block.cancel()

    async def __aexit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> bool:
        block, self._block = self._block, None  # from here on, nothing is cancelled any more
        assert block is not None
        assert self._watch is not None
        self._watch.cancel()
        was_cancelled = self.is_gone and block.uncancel() <= self._cancellations
        # An ASGI server may be asked for the next message only when nobody else waits for it.
        await asyncio.wait({self._watch})
        self._gone.close()  # a block that never waits ends before anybody watches
        if not self._watch.cancelled() and (error := self._watch.exception()) is not None:
            raise error
        return was_cancelled and exc_type is asyncio.CancelledError
