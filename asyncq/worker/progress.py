"""What a running job says of itself, on its way to the server."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine

    from asyncq.broker.job_output import JobOutput


class Reporter:
    """Sends the reports of one attempt, one call at a time: of what is reported meanwhile, the newest is
    next.

    Args:
        output: the attempt's.
        spawn: starts a task that ends with the worker's life.
    """

    def __init__(
        self,
        output: JobOutput,
        spawn: Callable[[Coroutine[Any, Any, None]], asyncio.Task[None]],
    ) -> None:
        self._output = output
        self._spawn = spawn
        self._newest: tuple[int, str, bytes] = (0, "", b"")
        self._stored = 0
        self._accepted = True
        self._call: asyncio.Task[None] | None = None

    async def report(self, state: str, meta: bytes) -> bool:
        """Returns when this report or a newer one is stored; False if it was refused: the job is not ours any
        more.

        Cancelling one caller leaves the report on its way. Tries for as long as the worker lives.

        Raises:
            ServerError: an answer that trying again will not change.
        """
        number = self._newest[0] + 1
        self._newest = (number, state, meta)
        while self._accepted and self._stored < number:
            if self._call is None or self._call.done():
                self._call = self._spawn(self._send())
            await asyncio.shield(self._call)
        return self._accepted

    def drop(self) -> None:
        """The body has ended: what it said last is kept no longer than a result."""
        self._spawn(self._output.let_report_go())

    async def _send(self) -> None:
        number, state, meta = self._newest
        self._accepted = bool(await self._output.report(number, state, meta))
        self._stored = number
