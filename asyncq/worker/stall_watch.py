"""Watches the event loop of a worker from a thread of its own, and warns when the loop does not turn.

A task that blocks the loop does not lose the lease, but every other job of the worker waits for it. The
thread of the lease cannot watch: each of its beats blocks until the server answers, and it would miss stalls
meanwhile.
"""

from __future__ import annotations

import asyncio
import logging
import threading
import time
import traceback
from typing import TYPE_CHECKING

from asyncq.broker.transport.background import ErrorLog
from asyncq.system import threads

if TYPE_CHECKING:
    from collections.abc import Callable

log: logging.Logger = logging.getLogger("asyncq")

_LONGEST_PAUSE = 1.0
"""Seconds between two checks. A stall that begins right after a check is measured from the next one."""
_MERCY = 0.1
"""Seconds that the loop gets to answer when this thread stood still, too: the whole process was stopped, or C
code kept the GIL."""


class StallWatch:
    """Warns of a loop that does not turn, with the stack of what blocks it.

    A stall is reported when it has lasted `limit` seconds, at most one second later, and again every `limit`
    seconds. A shorter stall is never reported. The object is made on the thread of the loop.

    Args:
        limit: seconds; 0 means that no stall is reported.
        what_runs: says which job the loop runs, for the warning. It is called on the thread of the watch.
    """

    def __init__(self, limit: float, what_runs: Callable[[], str]) -> None:
        self._limit = limit
        self._what_runs = what_runs
        self._loop = asyncio.get_running_loop()
        self._loop_thread = threading.get_ident()
        self._stop = threading.Event()

    def start(self) -> None:
        """Starts the thread, unless the limit is 0."""
        if self._limit:
            threading.Thread(target=self._run, name="asyncq-stall-watch", daemon=True).start()

    def stop(self) -> None:
        """Makes the thread end. A second call has no effect."""
        self._stop.set()

    def _run(self) -> None:
        """Checks the loop again and again, on the watch's own thread."""
        errors = ErrorLog(log, "the check for stalls of the event loop failed; trying again")
        while not self._stop.wait(min(_LONGEST_PAUSE, self._limit / 2)):
            answered = threading.Event()
            asked = time.monotonic()
            try:
                self._loop.call_soon_threadsafe(answered.set)
            except RuntimeError:
                return  # the loop was closed while this thread ran
            try:
                self._await(answered, asked)
            except Exception as error:  # noqa: BLE001  it reads jobs and stacks that change at the same time
                errors.add(error)

    def _await(self, answered: threading.Event, asked: float) -> None:
        """Returns when the loop has turned, or when there is no loop to watch any more."""
        due = asked
        while True:
            due += self._limit
            if answered.wait(max(0.0, due - time.monotonic())):
                return
            if time.monotonic() - due > _MERCY and answered.wait(_MERCY):
                return
            # A loop that was closed or left will not turn, and blocks nobody.
            if self._stop.is_set() or not self._loop.is_running():
                return
            self._warn(time.monotonic() - asked)
            due = max(due, time.monotonic() - self._limit)

    def _warn(self, blocked: float) -> None:
        frame = threads.frames().get(self._loop_thread)
        stack = "".join(traceback.format_stack(frame)[-8:]) if frame is not None else "(no stack)"
        log.warning(
            "the event loop has been blocked for %.1f s by %s:\n%s", blocked, self._what_runs(), stack
        )
