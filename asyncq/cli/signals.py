"""SIGTERM and Ctrl-C before an event loop handles them, above all while the app is imported.

Until then each ends the process at once. `loop.run` hands the signals over to its event loop. Runs on the
main thread, as signal handlers of Python do.
"""

from __future__ import annotations

import os
import signal
import sys
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING

from asyncq.cli.exits import Code
from asyncq.system.early_signals import leaving

if TYPE_CHECKING:
    from collections.abc import Iterator
    from types import FrameType

    from asyncq.system.early_signals import Watcher

_CODES = {signal.SIGINT: Code.INTERRUPTED, signal.SIGTERM: Code.TERMINATED}
_is_worker = False
_watcher: Watcher | None = None


@contextmanager
def immediate() -> Iterator[None]:
    """Lets SIGTERM and Ctrl-C end the process at once, until a loop or a command takes them over.

    Nothing has begun by then that would need an orderly end. The default action of SIGTERM would not do: the
    kernel ignores it for the first process of a container.
    """
    global _is_worker, _watcher
    try:
        with leaving(_leave) as _watcher:
            yield
    finally:
        _is_worker, _watcher = False, None


def stop_is_success() -> None:
    """Makes a stop by a signal exit with code 0. For a worker, a stop is the normal end."""
    global _is_worker  # noqa: PLW0603  one process, one command
    _is_worker = True


def hand_over() -> None:
    """Hands Ctrl-C over to the event loop that is about to run.

    asyncio handles Ctrl-C only if Python's default handler is set, so that one is put back.
    """
    if _watcher is not None:
        _watcher.close()
    if signal.getsignal(signal.SIGINT) is _leave:
        signal.signal(signal.SIGINT, signal.default_int_handler)


def _leave(number: int, _frame: FrameType | None) -> None:
    for stream in (sys.stdout, sys.stderr):
        with suppress(Exception):  # it may have been interrupted in the middle of a write
            stream.flush()
    os._exit(Code.OK if _is_worker else _CODES[signal.Signals(number)])
