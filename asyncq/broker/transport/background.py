"""Runs background tasks: loops that no error ends (`forever`), and tasks that nobody awaits
(`BackgroundTasks`). Used by workers and sessions, on their loops.

A worker whose loop for delayed jobs has died looks healthy and moves no delayed job any more. So an error in
one turn of a loop is logged, and the loop goes on after a backoff. Only a cancellation ends a loop, or an
error that is not an `Exception`.
"""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING, Any

from asyncq import failures
from asyncq.broker.transport.pipe import PipeBroken
from asyncq.broker.transport.reconnect import pause
from asyncq.errors import AsyncQError

if TYPE_CHECKING:
    import logging
    from collections.abc import Awaitable, Callable, Coroutine

REPEAT = 60.0
"""Seconds after which the same unexpected error is logged again."""

_EXPECTED = (AsyncQError, PipeBroken)
"""The errors that mean: the server is away, or it refuses."""


def unexpected(error: Exception) -> Exception | None:
    """Returns the error if it is unexpected, and None if the server is away or refuses. Use it as
    `exc_info=unexpected(error)`: the log then shows a traceback for unexpected errors only.
    """
    return None if isinstance(error, _EXPECTED) else error


class ErrorLog:
    """Logs the errors of one background task that goes on all the same. Used by one thread at a time.

    If the server is away or refuses, that is a DEBUG record: it may last for hours and is logged elsewhere.
    Any other error is a fault of asyncq or of the machine. It is an ERROR record with the traceback, and the
    same error from the same line is logged at most once a minute.

    Args:
        log: the logger of the task's module.
        what: what went wrong, as a sentence without its full stop.
    """

    def __init__(self, log: logging.Logger, what: str) -> None:
        self._log = log
        self._what = what
        self._last: tuple[type[Exception], str, int] | None = None
        self._logged_at = 0.0

    def add(self, error: Exception) -> None:
        """Logs one error."""
        if unexpected(error) is None:
            self._log.debug("%s (%s)", self._what, error)
            return
        origin = _origin(error)
        now = time.monotonic()
        if origin == self._last and now - self._logged_at < REPEAT:
            self._log.debug("%s (%s)", self._what, failures.one_line(error))
            return
        self._last = origin
        self._logged_at = now
        self._log.error("%s (unexpected error: %s)", self._what, failures.one_line(error), exc_info=error)


def _origin(error: Exception) -> tuple[type[Exception], str, int]:
    """Returns what identifies an error: its class, and the file and line that raised it. The text does not
    count: it may hold an address or a time.
    """
    trace = error.__traceback__
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    if trace is None:
        return type(error), "", 0
    return type(error), trace.tb_frame.f_code.co_filename, trace.tb_lineno


async def forever(turn: Callable[[], Awaitable[None]], errors: ErrorLog) -> None:
    """Calls `turn` again and again until it is cancelled. After a turn that raised, it waits for a backoff.

    Args:
        turn: one turn of the loop. It must wait for its time itself.
        errors: logs what a turn raises.
    """
    attempt = 0
    while True:
        try:
            await turn()
        except Exception as error:  # noqa: BLE001  any error, see the module's docstring
            attempt += 1
            errors.add(error)
            await asyncio.sleep(pause(attempt))
        else:
            attempt = 0


class BackgroundTasks:
    """Tasks that their starter need not await. Their errors are logged here, for nobody else may see them.

    Args:
        log: the logger of the module that starts them.
    """

    def __init__(self, log: logging.Logger) -> None:
        self._errors = ErrorLog(log, "a background task failed")
        self._loop = asyncio.get_running_loop()
        self._tasks: set[asyncio.Task[Any]] = set()

    def __bool__(self) -> bool:
        return bool(self._tasks)

    def start(self, coroutine: Coroutine[Any, Any, Any]) -> asyncio.Task[Any]:
        """Starts a task, and holds it until it is done (asyncio itself holds tasks weakly)."""
        task = self._loop.create_task(coroutine)
        self._tasks.add(task)
        task.add_done_callback(self._done)
        return task

    async def wait(self, timeout: float | None = None) -> None:
        """Waits for the tasks that run now, at most `timeout` seconds. If the wait is cancelled, the tasks go
        on.
        """
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=timeout)

    async def finish(self) -> None:
        """Waits until no task is left, also those that other tasks start meanwhile. If the wait is cancelled,
        it cancels the tasks that are left.
        """
        try:
            while self._tasks:
                # Not `gather`: from Python 3.12 on, it does not give the loop a turn if all tasks are done.
                # Then `_done`, which removes them from the set, would never run.
                await asyncio.wait(self._tasks)
        except asyncio.CancelledError:
            self.cancel()
            raise

    def cancel(self) -> None:
        """Cancels all tasks. Does not wait for their end."""
        for task in self._tasks:
            task.cancel()

    def _done(self, task: asyncio.Task[Any]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and isinstance(error := task.exception(), Exception):
            self._errors.add(error)
