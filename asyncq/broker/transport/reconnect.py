"""Keeps one connection to the server: makes a pipe when it is first needed, and another one when that has
broken. Also the backoff of all retries (`pause`).

Runs on the loop of its user: the session's for commands and the subscription, the worker's for reads. There
is one pipe at a time. Nothing reconnects in the background: whoever needs a pipe next makes it.
"""

from __future__ import annotations

import asyncio
import contextvars
import random
from functools import partial
from typing import TYPE_CHECKING, Any

from asyncq.broker.transport.pipe import Pipe
from asyncq.broker.transport.server_error import ServerError
from asyncq.errors import BrokerUnavailable
from asyncq.system.tasks import read_error
from asyncq.system.threads import in_daemon_thread

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine

    from asyncq.broker.transport.connection import Address

FIRST_PAUSE, LONGEST_PAUSE = 0.05, 1.0
"""Seconds before the first retry, and the most before any."""


def pause(attempt: int) -> float:
    """Returns the seconds of backoff before retry number `attempt` (from 1): exponential from 50 ms to 1 s,
    and the upper half of that is random.

    Full jitter (https://aws.amazon.com/blogs/architecture/exponential-backoff-and-jitter/) would sometimes
    not wait at all. Half of it spreads the clients as well, and never makes a busy loop.
    """
    longest: float = min(LONGEST_PAUSE, FIRST_PAUSE * 2.0 ** min(attempt - 1, 10))
    return longest * (0.5 + random.random() / 2)


class ReconnectingConnection:
    """A reconnecting connection: it hands one connected pipe to all its users until that pipe breaks.

    Args:
        address: of the server.
        name: of the connection, in the server's CLIENT LIST.
        make: makes a pipe, if the address does not say where the server is. Raises as `Pipe.open`.
        options: those of `Pipe`.

    Attributes:
        latest: the pipe that was made last, which may be broken by now; None if there was none yet.
    """

    def __init__(
        self,
        address: Address,
        name: str,
        make: Callable[[], Coroutine[Any, Any, Pipe]] | None = None,
        **options: Any,
    ) -> None:
        self._make = make
        self._address = address
        self._name = name
        self._options = options
        self._opening: asyncio.Task[Pipe] | None = None
        self.latest: Pipe | None = None
        self._closed = False

    @property
    def current(self) -> Pipe | None:
        """The pipe; None if there is none, or if it is known to be broken."""
        pipe = self.latest
        return pipe if pipe is not None and pipe.broken is None else None

    async def pipe(self) -> Pipe:
        """Returns the pipe. Connects if need be, in one try, which all callers share that ask meanwhile.
        Cancelling one caller disturbs no other.

        Raises:
            BrokerUnavailable: no connection could be made now, or `close` was called.
            ServerError: the server refuses for a reason that stays.
        """
        pipe = self.current
        if pipe is not None:
            return pipe
        self._check_open()
        is_ours = self._opening is None or self._opening.done()
        if is_ours:
            # In an empty context: a transport keeps the context in which it is made, and every callback for
            # its data would run with the context variables of this caller.
            self._opening = asyncio.get_running_loop().create_task(
                self._open(), context=contextvars.Context()
            )
            self._opening.add_done_callback(read_error)  # by then all callers may have been cancelled
        opening = self._opening
        assert opening is not None
        try:
            return await asyncio.shield(opening)
        except ServerError:
            if is_ours:
                raise
            # The try that failed began before this call. Somebody may have corrected the password since, so
            # this caller makes a try of its own.
            return await self.pipe()
        except asyncio.CancelledError:
            task = asyncio.current_task()
            if opening.cancelled() and task is not None and not task.cancelling():
                # `close` has cancelled the opening. Nobody has cancelled this caller, so it gets an error.
                self._check_open()
            raise

    async def _open(self) -> Pipe:
        """Opens a pipe and stores it as the latest. If that fails, it starts an embedded server again and
        tries once more.
        """
        make = self._make or partial(Pipe.open, self._address, self._name, **self._options)
        try:
            pipe = await make()
        except BrokerUnavailable:
            if self._address.revive is None or self._closed:
                raise
            await in_daemon_thread(self._address.revive)
            pipe = await make()
        # Stored here and not by the callers: they may all have been cancelled, and then nobody would ever
        # close the pipe.
        self.latest = pipe
        if self._closed:
            pipe.abort()
            self._check_open()
        return pipe

    @property
    def endpoint(self) -> tuple[str, int] | None:
        """The host and the port of the pipe; None if there is none, or for a socket."""
        pipe = self.current
        return None if pipe is None else pipe.endpoint

    def _check_open(self) -> None:
        if self._closed:
            raise BrokerUnavailable("the app was closed")

    def drop(self) -> None:
        """Breaks the pipe. The next call of `pipe` makes a new one."""
        if self.latest is not None:
            self.latest.abort()

    def close(self) -> None:
        """Breaks the pipe for good. A second call does nothing."""
        self._closed = True
        if self._opening is not None:
            self._opening.cancel()
        self.drop()
