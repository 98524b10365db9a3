"""SIGTERM and Ctrl-C before an event loop handles them: while the app is imported, above all."""

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

    Nothing has begun then that would have to be ended. The default of SIGTERM would not do: the first process
    of a container ignores it.
    """
    global _is_worker, _watcher
    try:
        with leaving(_leave) as _watcher:
            yield
    finally:
        _is_worker, _watcher = False, None


def stop_is_success() -> None:
    """The command is a worker: to be stopped is what it is there for, and its exit code is 0."""
    global _is_worker  # noqa: PLW0603  one process, one command
    _is_worker = True


def hand_over() -> None:
    """Gives Ctrl-C to the event loop that is about to run: asyncio takes it from nobody but Python."""
    if _watcher is not None:
        _watcher.close()
    if signal.getsignal(signal.SIGINT) is _leave:
        signal.signal(signal.SIGINT, signal.default_int_handler)


def _leave(number: int, _frame: FrameType | None) -> None:
    for stream in (sys.stdout, sys.stderr):
        with suppress(Exception):  # it may have been interrupted in the middle of a write
            stream.flush()
    os._exit(Code.OK if _is_worker else _CODES[signal.Signals(number)])
