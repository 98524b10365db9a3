"""SIGUSR1 and SIGUSR2 of a worker process: the first shows in the log what each job does, the second makes
the worker quiet, or ends that.

Both are Python's own handlers, and not those of the event loop: the stacks are wanted most when a body blocks
the loop. A handler only passes the signal on, because it may have interrupted anything.
"""

from __future__ import annotations

import asyncio
import logging
import signal
import threading
from typing import TYPE_CHECKING

from asyncq.system import forks

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import FrameType

    from asyncq.worker import Worker
    from asyncq.worker.attempt import RunningJob
    from asyncq.worker.stacks import JobStack

log: logging.Logger = logging.getLogger("asyncq.cli.worker")

LOOP_TIMEOUT = 1.0
"""Seconds in which the loop may look at its jobs itself. A loop that is late is blocked, and another thread
looks at them.
"""
_NUMBERS = (signal.SIGUSR1, signal.SIGUSR2)


def hold() -> None:
    """Makes this process survive both signals until there is a worker for them. Their default is to kill it.

    A signal that is ignored, or that has a handler, stays so. To be called on the main thread.
    """
    for number in _NUMBERS:
        if signal.getsignal(number) is signal.SIG_DFL:
            signal.signal(number, _too_early)
    forks.reset_in_children(_too_early)


def _too_early(_number: int, _frame: FrameType | None) -> None:
    """Does nothing: no job runs yet."""


class WorkerSignals:
    """What the two signals do to one worker. Made on the worker's loop, which runs on the main thread.

    Args:
        worker: the worker.
    """

    def __init__(self, worker: Worker) -> None:
        self._worker = worker
        self._loop = asyncio.get_running_loop()
        self._thread = threading.get_ident()

    def handle(self, *, both: bool) -> None:
        """Handles the signals from now on. One for which the app has set a handler of its own keeps it.

        Args:
            both: False leaves out SIGUSR2: the supervisor of this process says when it is to be quiet. A
                service manager may signal all processes of a service at once, and two changes would be none.
        """
        for number in _NUMBERS if both else _NUMBERS[:1]:
            if signal.getsignal(number) is _too_early:
                signal.signal(number, self._on_signal)
        forks.reset_in_children(self._on_signal)

    def _on_signal(self, number: int, _frame: FrameType | None) -> None:
        if number == signal.SIGUSR1:
            self.show_stacks()
        else:
            self._on_loop(lambda: self._be_quiet(on=not self._worker.is_quiet))

    def be_quiet(self, *, on: bool) -> None:
        """Makes the worker take no more jobs, or take jobs again, soon. May be called on any thread."""
        self._on_loop(lambda: self._be_quiet(on=on))

    def _on_loop(self, call: Callable[[], object]) -> None:
        try:
            self._loop.call_soon_threadsafe(call)
        except RuntimeError:
            log.debug("the event loop is closed: this process is about to end")

    def _be_quiet(self, *, on: bool) -> None:
        if on == self._worker.is_quiet:
            return
        self._worker.quiet(on=on)
        session = self._worker.session
        if session is not None:  # otherwise the next session says it when it begins
            session.attempts.background.start(session.report_status())

    def show_stacks(self) -> None:
        """Writes to the log what each job does now, soon. May be called on any thread."""
        threading.Thread(target=self._show_stacks, name="asyncq-stacks", daemon=True).start()

    def _show_stacks(self) -> None:
        # Imported only here: most workers are never asked, and each saves its memory.
        from asyncq.worker.stacks import formatted

        stacks = self._stacks()
        what = f"{len(stacks)} {'job' if len(stacks) == 1 else 'jobs'} here (SIGUSR1)"
        text = f"{what}\n{formatted(stacks)}".rstrip()
        # At a level that is logged in any case: somebody has asked for it.
        log.log(max(logging.INFO, log.getEffectiveLevel()), "%s", text, extra={"worker": self._worker.name})

    def _stacks(self) -> list[JobStack]:
        """Returns what the jobs do. The loop looks at them itself, so that nothing changes meanwhile; if it
        is blocked, this thread does.
        """
        from asyncq.worker.stacks import stacks_of

        found: list[list[JobStack]] = []
        looked = threading.Event()

        def look() -> None:
            found.append(stacks_of(self._jobs()))
            looked.set()

        self._on_loop(look)
        if looked.wait(LOOP_TIMEOUT):
            return found[0]
        return stacks_of(self._jobs(), asyncio.current_task(self._loop), self._thread)

    def _jobs(self) -> list[RunningJob]:
        session = self._worker.session
        return [] if session is None else list(session.held.jobs.values())
