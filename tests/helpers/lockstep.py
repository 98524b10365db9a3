"""Event loops that take turns in one thread, so that nothing of what they do depends on time.

A loop has its turn until it would wait. It reads its sockets only then, and only after the server has
answered all that it was sent before. The loops' clocks stand still, so no timer is due. How often a loop
turns, which replies come together and what leaves in one write are then the same in each run, however busy
the machine is.

The clock of the server goes on. A read that blocks there for some seconds ends as it does in a real worker.
"""

from __future__ import annotations

import asyncio
import contextlib
import selectors
import socket
import time
from typing import TYPE_CHECKING, Any, TypeVar

from helpers.waiting import TIMEOUT, NotWithinError

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Sequence
    from contextlib import AbstractContextManager

R = TypeVar("R")

_READ_AT_ONCE = 16 * 1024
"""So many bytes of one client the server reads before it serves the next client."""


class Server:
    """The server, as one asks it whether it has answered everything.

    Args:
        path: of its unix socket. What is sent on such a socket is at the server at once, so a command that is
            sent later is never read earlier.
    """

    def __init__(self, path: str) -> None:
        self._socket = socket.socket(socket.AF_UNIX)
        self._socket.connect(path)

    def has_answered(self, sent: int) -> None:
        """Blocks until the server has answered all commands that were sent before.

        Args:
            sent: how many bytes they have.
        """
        # The reply to a PING says that the server has begun to read what was there before the PING. Then it
        # writes all replies before it reads again, so one more PING is enough for these.
        for _ in range(2 + sent // _READ_AT_ONCE):
            self._socket.sendall(b"PING\r\n")
            reply = self._socket.recv(64)
            assert reply == b"+PONG\r\n", reply

    def close(self) -> None:
        self._socket.close()


class Loop(asyncio.SelectorEventLoop):
    """One of the loops.

    Args:
        before_reading: called each time before the loop reads its sockets.

    Attributes:
        during_turn: makes a context manager that surrounds each turn.
    """

    def __init__(self, before_reading: Callable[[], None]) -> None:
        self.during_turn: Callable[[], AbstractContextManager[Any]] = contextlib.nullcontext
        self._sockets = _Sockets(before_reading, self.stop)
        super().__init__(self._sockets)

    def time(self) -> float:
        """Returns the time at which the clock stands."""
        return 0.0

    def turn(self) -> bool:
        """Runs until the loop would wait. Returns whether it has read anything."""
        self._sockets.has_read = False
        with self.during_turn():
            self.run_forever()
        return self._sockets.has_read


class _Sockets(selectors.DefaultSelector):  # type: ignore[misc, valid-type]
    """The sockets of a loop.

    Attributes:
        has_read: whether the loop has read anything since the beginning of its turn.
    """

    def __init__(self, before_reading: Callable[[], None], stop: Callable[[], None]) -> None:
        super().__init__()
        self._before_reading = before_reading
        self._stop = stop
        self.has_read = False

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        """Returns the sockets that can be read, in a fixed order. If there is none, ends the loop's turn."""
        if timeout is not None and timeout <= 0:
            return []  # the loop has callbacks to run: they come before what the server has sent meanwhile
        self._before_reading()
        found = sorted(super().select(0), key=lambda item: item[0].fd)
        if found:
            self.has_read = True
        else:
            self._stop()
        return found


def run(first: Loop, others: Sequence[Loop], main: Coroutine[Any, Any, R]) -> R:
    """Runs a coroutine on the first loop, and the others beside it. Returns its result when it has ended and
    all loops would wait.

    Raises:
        NotWithinError: it has not ended within `TIMEOUT` seconds.
    """
    task = first.create_task(main)
    end = time.monotonic() + TIMEOUT
    while True:
        is_anything_read = [loop.turn() for loop in (first, *others)]
        if any(is_anything_read):
            continue
        if task.done():
            return task.result()
        # It waits for a thread, as a worker does while its first heartbeat is sent.
        if time.monotonic() > end:
            task.cancel()
            raise NotWithinError(f"the end of {task!r}", TIMEOUT)
        time.sleep(0.001)
