"""Runs several trials on one loop, side by side. They mostly wait for leases and backoff, so side by side
they take a third of the time.
"""

from __future__ import annotations

import asyncio
import gc
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping

    from chaos.report import Report


class Reports:
    """The reports of trials that ran together. A test of its own checks each report.

    Args:
        trials: the trials, by name.
        at_once: how many of them run at the same time.
    """

    def __init__(self, trials: Mapping[str, Callable[[], Awaitable[Report]]], at_once: int) -> None:
        self._complaints: list[str] = []
        self._found = asyncio.run(self._run(trials, at_once))
        gc.collect()  # a task whose exception nobody retrieved complains to the loop when it is collected

    async def _run(
        self, trials: Mapping[str, Callable[[], Awaitable[Report]]], at_once: int
    ) -> dict[str, Any]:
        asyncio.get_running_loop().set_exception_handler(self._complain)
        limit = asyncio.Semaphore(at_once)

        async def one(trial: Callable[[], Awaitable[Report]]) -> Report:
            async with limit:
                return await trial()

        found = await asyncio.gather(*(one(trial) for trial in trials.values()), return_exceptions=True)
        return dict(zip(trials, found, strict=True))

    def _complain(self, _loop: asyncio.AbstractEventLoop, context: Mapping[str, Any]) -> None:
        self._complaints.append(str(context))

    def check(self, name: str) -> None:
        """Fails if a limit was not kept, if the trial raised, or if the loop reported an error."""
        report = self._found[name]
        if isinstance(report, BaseException):
            raise report
        assert report.good, report.complaint()
        assert self._complaints == []
