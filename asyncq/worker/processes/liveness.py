"""How a worker knows that a child for jobs on their last try still runs, and how a child of any kind knows
that its worker does. The child's side runs on threads of its own; the worker's side is on its loop.

Child and worker share a pipe. A thread of the child writes a byte each second. If the child was stopped
(SIGSTOP), or if code in C never releases the GIL, nothing is written. Then no beat is sent either: the other
workers take the child's job for lost, and the child would take up one of the worker's few places for children
for ever. So its worker kills it. A server that hangs delays the beats, but not the bytes.

Another thread of the child watches the worker's process. The end of the pipe would not do: whatever the
worker has forked has a copy of the pipe. A child that is stopped when the worker dies must first go on, see
`resume_when_parent_dies`.
"""

from __future__ import annotations

import asyncio
import os
import select
import signal
import sys
import threading
import time
from contextlib import suppress
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

_PR_SET_PDEATHSIG = 1

INTERVAL = 1.0
"""Seconds between two bytes."""
CHECK_INTERVAL = 0.5
"""Seconds between two checks whether the worker lives, where the system cannot report its end."""
SHORTEST_SILENCE = 5.0
"""Seconds. A machine that is far too busy lets a child wait for a second or two, whatever the lease is."""


def until_parent_ends(parent: int) -> None:
    """Blocks until the parent process, which has this id, has ended."""
    if sys.platform == "linux":
        with suppress(OSError):  # a kernel older than 5.3, or it has ended already
            watched = os.pidfd_open(parent)
            end = select.poll()
            end.register(watched, select.POLLIN)
            if os.getppid() == parent:
                end.poll()
            os.close(watched)
            return
    while os.getppid() == parent:
        time.sleep(CHECK_INTERVAL)


def resume_when_parent_dies() -> None:
    """Has Linux send SIGCONT to this process when its parent dies.

    A stopped process notices nothing, and its parent cannot kill it any more: it would stay for ever. SIGKILL
    would be too much, because a healthy child may end its job. To a process that runs, SIGCONT does nothing.
    Other systems have no such call, see prctl(2), PR_SET_PDEATHSIG.
    """
    if sys.platform == "linux":
        import ctypes  # only child processes need it

        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGCONT)


class LifeSigns:
    """The child's end of the pipe.

    Args:
        pipe: the descriptor to write to.
        parent: the worker's process id.
        on_parent_end: called once, on a thread of this object, when the worker has ended. It may be replaced
            at any time.
    """

    def __init__(self, pipe: int, parent: int, on_parent_end: Callable[[], object]) -> None:
        self.on_parent_end: Callable[[], object] = on_parent_end
        self._pipe = pipe
        self._parent = parent
        os.set_inheritable(pipe, False)  # programs that a job starts must not hold the pipe open
        resume_when_parent_dies()
        threading.Thread(target=self._write, name="asyncq-life-signs", daemon=True).start()
        threading.Thread(target=self._watch, name="asyncq-watch", daemon=True).start()

    def _write(self) -> None:
        with suppress(OSError):  # nobody reads any more
            while True:
                os.write(self._pipe, b".")
                time.sleep(INTERVAL)

    def _watch(self) -> None:
        until_parent_ends(self._parent)
        self.on_parent_end()


class LifeWatch:
    """The worker's end of the pipe, as a context manager. Lives on the worker's loop.

    Args:
        lease: of the child, in seconds.

    Attributes:
        child_end: the descriptor for the child. Whoever has started the child calls `started`.
    """

    def __init__(self, lease: float) -> None:
        self.silence: float = max(lease, SHORTEST_SILENCE)
        self.child_end: int
        self._read_end, self.child_end = os.pipe()
        self._reader = asyncio.StreamReader()
        self._transport: asyncio.BaseTransport | None = None

    async def __aenter__(self) -> LifeWatch:
        loop = asyncio.get_running_loop()
        self._transport, _ = await loop.connect_read_pipe(
            lambda: asyncio.StreamReaderProtocol(self._reader), os.fdopen(self._read_end, "rb", 0)
        )
        return self

    async def __aexit__(self, *_: object) -> None:
        self.started()
        if self._transport is not None:
            self._transport.close()

    def started(self) -> None:
        """Closes the child's descriptor in this process, so that the pipe ends with the child. A second call
        does nothing.
        """
        if self.child_end >= 0:
            os.close(self.child_end)
            self.child_end = -1

    async def until_silent(self) -> bool:
        """Waits until the child stands still; returns False if the child has ended.

        A child that has not written yet is starting, however long that takes. Two silences in a row are
        needed: after a standstill of the whole machine, the first timer is over before the child can write.
        """
        if not await self._reader.read(1):
            return False
        silences = 0
        while silences < 2:
            try:
                async with asyncio.timeout(self.silence):
                    if not await self._reader.read(4096):
                        return False
                silences = 0
            except TimeoutError:
                silences += 1
        return True
