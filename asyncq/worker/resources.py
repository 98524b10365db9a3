"""What a worker has for as long as it runs, over all of its sessions: processes, hooks, the lifespan."""

from __future__ import annotations

import contextvars
from typing import TYPE_CHECKING

from asyncq.execution.injector import Injector
from asyncq.worker.lifespan import Lifespan
from asyncq.worker.outcome_events import OutcomeEvents
from asyncq.worker.processes.pool import Pool

if TYPE_CHECKING:
    from asyncq.worker.shutdown import StopRequest
    from asyncq.worker.worker import Worker


class Resources:
    """The resources of one run of a worker.

    Args:
        worker: the worker.
        stop: what the calls of `Worker.stop` have asked for.

    Attributes:
        pool: the child processes.
        events: calls the outcome hooks.
        lifespan: the lifespan of the app.
        injector: makes the instances of dependencies.
    """

    def __init__(self, worker: Worker, stop: StopRequest) -> None:
        self._stop = stop
        self._grace = worker.grace
        self.pool: Pool = Pool(worker.app, worker.name, worker.target)
        self.events: OutcomeEvents = OutcomeEvents(worker.app, worker.name)
        self.injector: Injector = Injector(worker.app.overrides, contextvars.copy_context())
        self.lifespan: Lifespan = Lifespan(worker.app, contextvars.copy_context(), worker.stop)

    async def close(self, *, is_cancelled: bool) -> None:
        """Ends all of them, when no job of the worker runs any more.

        Args:
            is_cancelled: whether the worker was cancelled, and so has no grace.

        Raises:
            AsyncQError: the lifespan raised when it was left. Everything else has ended.
        """
        try:
            until = self._stop.asked_at + (0.0 if is_cancelled else self._grace)
            await self.events.finish(until, self._stop.stops_at_once)
        finally:
            await self.injector.close()  # before the lifespan: they may use what it holds
            try:
                await self.lifespan.leave(self._stop.stops_at_once)
            finally:
                await self.pool.close()
