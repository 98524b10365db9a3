"""A line to the server that is taken up again when it breaks: one pipe at a time, made by whoever needs it
first.
"""

from __future__ import annotations

import asyncio
import contextvars
import random
from typing import TYPE_CHECKING, Any

from asyncq.broker.transport.pipe import Pipe
from asyncq.broker.transport.server_error import ServerError
from asyncq.errors import BrokerUnavailable
from asyncq.system.threads import in_daemon_thread

if TYPE_CHECKING:
    from asyncq.broker.transport.connection import Address

FIRST_PAUSE, LONGEST_PAUSE = 0.05, 1.0


def pause(attempt: int) -> float:
    """Seconds to wait before try number `attempt` (from 1): exponential from 50 ms to 1 s, the upper half of
    it random.

    Full jitter (https://aws.amazon.com/blogs/architecture/exponential-backoff-and-jitter/) would sometimes
    wait nothing at all; half of it spreads a herd as well and never spins.
    """
    longest: float = min(LONGEST_PAUSE, FIRST_PAUSE * 2.0 ** min(attempt - 1, 10))
    return longest * (0.5 + random.random() / 2)


class Line:
    """Gives a connected pipe, the same one to everybody, for as long as it holds.

    Args:
        address: the server.
        name: how the connection is called in the server's CLIENT LIST.
        options: those of `Pipe`.

    Attributes:
        latest: the pipe that was made last, which may be broken by now; None if there was none yet.
    """

    def __init__(self, address: Address, name: str, **options: Any) -> None:
        self._address = address
        self._name = name
        self._options = options
        self._opening: asyncio.Task[Pipe] | None = None
        self.latest: Pipe | None = None
        self._closed = False

    @property
    def current(self) -> Pipe | None:
        """The pipe, if there is one that is not known to be broken."""
        pipe = self.latest
        return pipe if pipe is not None and pipe.broken is None else None

    async def pipe(self) -> Pipe:
        """The pipe, connected if need be: one try, shared by all who ask meanwhile. Cancelling one of them
        disturbs no other.

        Raises:
            BrokerUnavailable: no connection could be made now.
            ServerError: refused for a reason that stays.
        """
        pipe = self.current
        if pipe is not None:
            return pipe
        self._check_open()
        is_ours = self._opening is None or self._opening.done()
        if is_ours:
            # In a context of its own: transports keep that of whoever makes them, and would hand it to
            # everything that their data set off.
            self._opening = asyncio.get_running_loop().create_task(
                self._open(), context=contextvars.Context()
            )
            # Everybody who asked may have been cancelled by the time it fails.
            self._opening.add_done_callback(lambda task: task.cancelled() or task.exception())
        opening = self._opening
        assert opening is not None
        try:
            return await asyncio.shield(opening)
        except ServerError:
            if is_ours:
                raise
            # That try began before this call. A password that was wrong then may have been set right since.
            return await self.pipe()
        except asyncio.CancelledError:
            task = asyncio.current_task()
            if opening.cancelled() and task is not None and not task.cancelling():
                self._check_open()  # `close` has cancelled the opening, and nobody who asked for it
            raise

    async def _open(self) -> Pipe:
        try:
            pipe = await Pipe.open(self._address, self._name, **self._options)
        except BrokerUnavailable:
            if self._address.revive is None or self._closed:
                raise
            await in_daemon_thread(self._address.revive)
            pipe = await Pipe.open(self._address, self._name, **self._options)
        # Here and not by who asked: they may all have been cancelled, and nobody else would ever close it.
        self.latest = pipe
        if self._closed:
            pipe.abort()
            self._check_open()
        return pipe

    def _check_open(self) -> None:
        if self._closed:
            raise BrokerUnavailable("the app was closed")

    def drop(self) -> None:
        """Breaks the pipe; the next who asks gets a new one."""
        if self.latest is not None:
            self.latest.abort()

    def close(self) -> None:
        """Breaks the pipe for good. Twice is once."""
        self._closed = True
        if self._opening is not None:
            self._opening.cancel()
        self.drop()
