"""Handles SIGTERM and Ctrl-C while no event loop does so: above all while a program's modules are imported.

The command line and the processes for last tries use `leaving` on the main thread. A second thread runs the
handler when the main thread is blocked.
"""

from __future__ import annotations

import os
import signal
import threading
from contextlib import contextmanager
from typing import TYPE_CHECKING, Final

from asyncq.system import forks

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from types import FrameType

__all__ = ["Watcher", "leaving"]

NUMBERS: Final = (signal.SIGINT, signal.SIGTERM)


class Watcher:
    """Runs the handler of a signal for which the main thread would be too late.

    Python runs a handler between two steps of the main thread. A signal that comes after the last such step
    and before a call that blocks waits until the call returns. With `time.sleep(30)` that is half a minute,
    and it has happened. Python's C code writes each signal into a pipe at once. So a thread reads the pipe
    and runs the handler itself. The thread needs the GIL, so C code that holds the GIL still delays it.

    Args:
        handler: handles the signals. It must end the process, because it may run on both threads.
    """

    def __init__(self, handler: Callable[[int, FrameType | None], None]) -> None:
        self._handler = handler
        self._source, self._sink = os.pipe()
        os.set_blocking(self._sink, False)
        self._before = signal.set_wakeup_fd(self._sink, warn_on_full_buffer=False)
        # A process that a module forks during its import has the same pipe, and its signals are not for us.
        forks.close_in_children(self, self._source, self._sink)
        forks.reset_in_children(handler)
        forks.guard_signals()
        threading.Thread(target=self._watch, name="asyncq-signals", daemon=True).start()

    def close(self) -> None:
        """Restores the handling of signals. Runs on the main thread. A second call has no effect."""
        if self._sink < 0:
            return
        found = signal.set_wakeup_fd(self._before, warn_on_full_buffer=False)
        if found != self._sink:  # a loop has taken over the signals, and keeps them
            signal.set_wakeup_fd(found)
        sink, self._sink = self._sink, -1
        os.close(sink)  # this ends the thread, which closes the other end

    def _watch(self) -> None:
        while numbers := os.read(self._source, 16):
            for number in numbers:
                if signal.getsignal(number) == self._handler:
                    self._handler(number, None)
        os.close(self._source)


@contextmanager
def leaving(handler: Callable[[int, FrameType | None], None]) -> Iterator[Watcher | None]:
    """Handles SIGTERM and Ctrl-C with `handler` inside the block, at once, whatever the main thread does.

    A signal that is ignored (nohup, a background job of a script) stays ignored. One with a handler keeps it.

    Args:
        handler: ends the process by `os._exit`. An exception would not do: a module may catch it.

    Returns:
        The watcher, to be closed as soon as something else handles the signals. None on any other thread than
        the main one, where nothing is handled.
    """
    if threading.current_thread() is not threading.main_thread():
        yield None
        return
    free = (signal.SIG_DFL, signal.default_int_handler)
    before = {
        number: signal.signal(number, handler) for number in NUMBERS if signal.getsignal(number) in free
    }
    watcher = Watcher(handler)
    try:
        yield watcher
    finally:
        watcher.close()
        for number, handled in before.items():
            signal.signal(number, handled)
