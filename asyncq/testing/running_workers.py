"""The workers of a harness, on its loop: they are started, stopped and killed here."""

from __future__ import annotations

from typing import TYPE_CHECKING

from asyncq.worker import Worker

if TYPE_CHECKING:
    from collections.abc import Coroutine
    from typing import Any

    from asyncq.app import AsyncQ


class RunningWorkers:
    """The workers that run now.

    Args:
        app: the app.

    Attributes:
        own: the harness's own worker, if it has one. Another one takes its place when it is killed.
    """

    def __init__(self, app: AsyncQ) -> None:
        self._app = app
        self._running: list[Worker] = []
        self._dead: list[str] = []  # the sessions whose jobs nobody has taken yet
        self.own: Worker | None = None

    def __bool__(self) -> bool:
        return bool(self._running)

    async def start_own(self) -> None:
        """Starts the harness's own worker. Its jobs get no grace: when it stops, they are leaks already."""
        self.own = Worker(self._app, grace=0)
        await self.start(self.own)

    async def start(self, worker: Worker) -> None:
        """Starts a worker. It takes over the jobs of those that were killed while no other worker ran."""
        await worker.__aenter__()
        self._running.append(worker)
        await self._take_over(worker)

    async def stop(self, worker: Worker) -> None:
        """Stops a worker. Does nothing if it was killed."""
        if worker in self._running:
            self._running.remove(worker)
            await worker.__aexit__(None, None, None)

    async def stop_all(self) -> None:
        """Stops all workers."""
        for worker in list(self._running):
            await self.stop(worker)

    def kill(self, worker: Worker | None) -> Coroutine[Any, Any, None]:
        """Kills a worker at once: by default the own one, else the one that was started last. The coroutine
        that it returns has the jobs of the dead worker taken over.

        Raises:
            RuntimeError: no such worker runs.
        """
        if worker is None and self._running:
            worker = self.own if self.own in self._running else self._running[-1]
        if worker is None or worker not in self._running:
            raise RuntimeError("kill_worker(): no such worker runs")
        self._running.remove(worker)
        return self._after_death(worker, worker.kill())

    async def _after_death(self, worker: Worker, session_id: str | None) -> None:
        await worker.__aexit__(None, None, None)
        if session_id is not None:
            self._dead.append(session_id)
        if worker is self.own:
            await self.start_own()
        elif self._running:
            await self._take_over(self._running[-1])

    async def _take_over(self, worker: Worker) -> None:
        """Makes a worker take the jobs of all dead sessions, without waiting for their leases."""
        assert worker.session is not None, "it runs"
        dead, self._dead = self._dead, []
        for session_id in dead:
            await worker.session.take_over(session_id)
