"""Hands jobs back that a session has fetched ahead and cannot begin soon. Runs on the worker's loop."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

from asyncq.broker.transport.reconnect import pause

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Coroutine, Sequence

    from asyncq import wire


class JobReturns:
    """The jobs of a session that are being handed back.

    Args:
        hand_back: makes new entries of jobs of one stream, in their order, and lets go of the jobs. Returns
            False if that is not possible now.
        background: starts a background task that the session waits for before it ends.

    Attributes:
        under_way: how many calls of `start` have not ended.
    """

    def __init__(
        self,
        hand_back: Callable[[str, Sequence[wire.Delivery]], Awaitable[bool]],
        background: Callable[[Coroutine[Any, Any, None]], object],
    ) -> None:
        self.under_way: int = 0
        self._hand_back = hand_back
        self._background = background
        self._is_closed = False

    def start(self, stream: str, deliveries: Sequence[wire.Delivery]) -> None:
        """Hands jobs of one stream back, in the background. Tries again until the server has answered or the
        session ends; then other workers recover them.
        """
        self.under_way += 1
        self._background(self._until_answered(stream, deliveries))

    async def _until_answered(self, stream: str, deliveries: Sequence[wire.Delivery]) -> None:
        attempt = 0
        try:
            while not await self._hand_back(stream, deliveries) and not self._is_closed:
                attempt += 1
                await asyncio.sleep(pause(attempt))
        finally:
            self.under_way -= 1

    def close(self) -> None:
        """Tries no further, because the session ends. A second call does nothing."""
        self._is_closed = True
