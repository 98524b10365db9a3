"""Sends the progress reports of a running job to the server. Runs on the worker's loop.

`RunningJob.report` makes one `Reporter` for an attempt when the job reports for the first time.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine

    from asyncq.broker.job_output import JobOutput


class Reporter:
    """Sends the reports of one attempt, one call at a time.

    Of the reports that come during a call, only the newest is sent next.

    Args:
        output: the output of the attempt.
        spawn: starts a background task that ends with the session.
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
        """Returns True when this report or a newer one is stored, and False if the server refused it, because
        the job is no longer ours.

        If one caller is cancelled, the report stays on its way. It is sent again while the worker runs.

        Raises:
            ServerError: an answer that would be the same on another try.
        """
        number = self._newest[0] + 1
        self._newest = (number, state, meta)
        while self._accepted and self._stored < number:
            if self._call is None or self._call.done():
                self._call = self._spawn(self._send())
            await asyncio.shield(self._call)
        return self._accepted

    def drop(self) -> None:
        """Lets the last report expire with the result, because the body has ended."""
        self._spawn(self._output.let_report_go())

    async def _send(self) -> None:
        number, state, meta = self._newest
        self._accepted = bool(await self._output.report(number, state, meta))
        self._stored = number
