"""Jobs on their last try run in a process of their own.

A death takes every job of its worker with it, and nobody can tell which one did it. So a job that was there
each time, and would be given
up the next, runs where it can hurt no other: alone, in a child process that ends when there are no more of
its kind. If it takes that down too, it is a poison job, and goes to the dead letters; if it was innocent, it
succeeds.

    python -m asyncq.worker MODULE:ATTRIBUTE    # its set-up as JSON on standard input, see __main__
"""

from __future__ import annotations

import asyncio
import dataclasses
import json
import logging
import sys
from contextlib import suppress
from typing import TYPE_CHECKING

from asyncq import logs
from asyncq.broker.background import BackgroundTasks

if TYPE_CHECKING:
    from asyncq.config import Settings

log: logging.Logger = logging.getLogger(__name__)


class Spawner:
    """Starts the child when it is called for; one at a time.

    Args:
        target: `module:attribute` of the app.
        url: of the server itself: what the app calls `memory://` would be another one in the child.
        settings: the parent's, which the command line may have changed.
    """

    def __init__(self, target: str, url: str, settings: Settings) -> None:
        self._target = target
        given = {**dataclasses.asdict(settings), "url": url, "strict": False}
        self._setup = json.dumps({"settings": given, "logging": logs.for_children()})
        self._tasks = BackgroundTasks(log)
        self._running: asyncio.Task[None] | None = None
        self._child: asyncio.subprocess.Process | None = None

    def start(self) -> None:
        """Starts a child unless one runs. Should that fail, the next call tries again."""
        if self._running is None or self._running.done():
            self._running = self._tasks.start(self._run())

    async def _run(self) -> None:
        # On standard input, not as arguments: the URL may hold a password. In a session of its own: Ctrl-C is
        # for the parent, which passes it on.
        self._child = child = await asyncio.create_subprocess_exec(
            sys.executable,
            "-m",
            "asyncq.worker",
            self._target,
            stdin=asyncio.subprocess.PIPE,
            start_new_session=True,
        )
        with suppress(BrokenPipeError, ConnectionResetError):
            await child.communicate(self._setup.encode())
        code = await child.wait()
        if code:
            log.error(
                "a job on its last try took its process down (%s)",
                f"signal {-code}" if code < 0 else f"exit {code}",
            )

    async def stop(self) -> None:
        """Asks the child to hand back what it has, and waits for it."""
        if self._running is None or self._running.done():
            return
        if self._child is not None:
            with suppress(ProcessLookupError):
                self._child.terminate()
        await asyncio.wait({self._running}, timeout=5)
