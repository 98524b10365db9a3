"""Starts the processes in which jobs on their last try run. Runs on the worker's loop.

The death of a worker takes all of its jobs with it, and nobody can tell which job was the cause. So a job
that was there each time, and that would be given up the next time, runs where it can harm no other job:
alone, in a child process. The child ends when no such job is left. Several children may run side by side. If
a job takes its child down, too, it is a poison job and becomes a dead letter. An innocent job succeeds.

    python -m asyncq.worker MODULE:ATTRIBUTE    # its setup comes as JSON on standard input, see __main__
"""

from __future__ import annotations

import asyncio
import json
import logging
import os
import signal
from contextlib import suppress
from typing import TYPE_CHECKING

from asyncq.broker.transport.background import BackgroundTasks
from asyncq.worker.processes import interpreter
from asyncq.worker.processes.app_source import NO_APP, WORKER_FAILED, AppSource, child_setup
from asyncq.worker.processes.liveness import LifeWatch

if TYPE_CHECKING:
    from collections.abc import Sequence

    from asyncq.app import AsyncQ

log: logging.Logger = logging.getLogger(__name__)

HAND_BACK_TIMEOUT = 2.0
"""Seconds in which a child hands back its job and ends."""


class Spawner:
    """Starts child processes for jobs on their last try.

    Args:
        app: the app that the children import.
        target: `module:attribute` of the app. Without it, the spawner searches for it when it is needed.
        queues: the queues whose last tries the children run. They are the worker's and not always the app's.
        url: the URL of the server. The app's own URL will not do: `memory://` would be another server in the
            child.
    """

    def __init__(self, app: AsyncQ, target: str | None, queues: Sequence[str], url: str) -> None:
        self._app = app
        self._target = target
        self._queues = queues
        self._url = url
        self._source = None if target is None else AppSource(target)
        self._is_sought = target is not None
        self._tasks = BackgroundTasks(log)
        self._running: set[asyncio.Task[None]] = set()
        self._children: set[asyncio.subprocess.Process] = set()
        self._stops = False

    def start(self, waiting: int) -> bool:
        """Starts a child for each job that waits, up to the setting `last_tries`.

        If a start fails, the next call tries again. Returns False if no other process can import the app.
        """
        if not self._is_sought:
            self._is_sought = True
            self._source = AppSource.find(self._app)
        if self._source is None:
            return False
        for _ in range(min(waiting, self._app.settings.last_tries - len(self._running))):
            task = self._tasks.start(self._run(self._source))
            self._running.add(task)
            task.add_done_callback(self._running.discard)
        return True

    async def _run(self, source: AppSource) -> None:
        async with LifeWatch(self._app.settings.lease) as watch:
            setup = self._setup(source, watch.child_end)
            child = await interpreter.start(
                *("asyncq.worker", source.target),
                descriptors=[watch.child_end],
                stdin=asyncio.subprocess.PIPE,
            )
            watch.started()
            self._children.add(child)
            killing = asyncio.create_task(self._kill_if_silent(child, watch))
            if self._stops:
                child.terminate()
            try:
                # The setup goes to standard input and not into arguments: the URL may hold a password.
                with suppress(BrokenPipeError, ConnectionResetError):
                    await child.communicate(setup)
                self._note_end(source, await child.wait())
            finally:
                self._children.discard(child)
                killing.cancel()

    @staticmethod
    async def _kill_if_silent(child: asyncio.subprocess.Process, watch: LifeWatch) -> None:
        if await watch.until_silent():
            log.error(
                "a process for jobs on their last try did not respond for %.0f s; it is killed",
                2 * watch.silence,
            )
            with suppress(ProcessLookupError):
                child.kill()

    def _setup(self, source: AppSource, pipe: int) -> bytes:
        """Returns what a child must know, as JSON, see `__main__`."""
        setup = {
            **child_setup(self._app, self._target, self._url),
            "modules": source.modules,
            "tasks": source.tasks,
            "queues": self._queues,
            "pipe": pipe,
            "parent": os.getpid(),
        }
        return json.dumps(setup).encode()

    def _note_end(self, source: AppSource, code: int) -> None:
        """Logs how a child ended. One that could not import the app is the last one that is started."""
        if code == NO_APP:
            self._source = None
            log.warning(
                "a process for jobs on their last try could not import %s; from now on such jobs run in this "
                "process",
                source.target,
            )
        elif code == WORKER_FAILED:
            log.warning(
                "a process for jobs on their last try has ended by an error of its own, see above; another "
                "one is started while such jobs wait"
            )
        elif code:
            log.error(
                "a job on its last try has killed its process (%s)",
                f"signal {-code}" if code < 0 else f"exit {code}",
            )

    async def stop(self, grace: float, at_once: asyncio.Event) -> None:
        """Waits until the children have ended, at most for the grace and some seconds.

        Args:
            grace: seconds that their jobs may take. Then the children hand them back.
            at_once: set when the children must not wait for their jobs.
        """
        self._stops = True
        if not self._running:
            return
        ended, hurry = asyncio.create_task(self._until_ended()), asyncio.create_task(at_once.wait())
        try:
            self._send(signal.SIGTERM)
            await asyncio.wait({ended, hurry}, timeout=grace, return_when=asyncio.FIRST_COMPLETED)
            if not ended.done():
                self._send(signal.SIGINT)  # the second asks a worker not to wait for its jobs
                await asyncio.wait({ended}, timeout=HAND_BACK_TIMEOUT)
            if not ended.done():
                log.error("a process for jobs on their last try does not end; it is killed")
                self._send(signal.SIGKILL)
                await ended
        finally:
            ended.cancel()
            hurry.cancel()

    async def _until_ended(self) -> None:
        await asyncio.wait(self._running)

    def _send(self, number: signal.Signals) -> None:
        for child in self._children:
            with suppress(ProcessLookupError):
                child.send_signal(number)
