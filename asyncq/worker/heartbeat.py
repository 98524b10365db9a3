"""Keeps the lease of one worker session: a thread of its own sends the beats, so a task that blocks the event
loop does not lose the lease.

A beat raises a counter at the server. If the counter stands still for a whole lease, other workers take the
session for dead and recover its jobs. The lease is not what makes this safe. The fence in `finish` is: a
worker that was stopped and goes on may still believe that it holds jobs. So a body starts only while the last
acknowledged beat is younger than two thirds of the lease, counted from before that beat was sent, by a clock
that goes on while the machine is suspended.

Only the thread writes `_acknowledged` and `_refused`, and the loop reads them. Everything else reaches the
loop by `call_soon_threadsafe`.
"""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from contextlib import suppress
from typing import TYPE_CHECKING

from asyncq.broker.transport.background import ErrorLog
from asyncq.broker.transport.server_error import ErrorAction, ServerError
from asyncq.errors import BrokerUnavailable
from asyncq.worker.stall_watch import StallWatch

if TYPE_CHECKING:
    from collections.abc import Callable

    from asyncq.broker.consumer import Beating

log: logging.Logger = logging.getLogger(__name__)

_LAST_BEAT = 0.3
"""Seconds that the thread gets to end its last beat."""
_CLOCK: int = getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC)


def _now() -> float:
    """Returns a monotonic time in seconds. On Linux it goes on while the machine is suspended."""
    return time.clock_gettime(_CLOCK)


class Lease:
    """The lease of one worker session.

    Args:
        beating: sends the beats.
        length: the lease in seconds. There is one beat every third of it.
        on_signals: called on the loop with the revocation signals that the answer to a beat has brought.
        on_lost: called on the loop, once, when the session was taken for dead.
        stall_warning: seconds after which a loop that does not turn is reported, with the stack of what
            blocks it. 0 means never.
        what_runs: says which job the loop runs; called on the thread of the stall watch.
    """

    def __init__(
        self,
        beating: Beating,
        length: float,
        on_signals: Callable[[list[str]], None],
        on_lost: Callable[[], None],
        stall_warning: float,
        what_runs: Callable[[], str],
    ) -> None:
        self._beating = beating
        self._length = length
        self._on_signals = on_signals
        self._on_lost = on_lost
        self._loop = asyncio.get_running_loop()
        self._stop = threading.Event()
        self._acknowledged = float("-inf")
        self._renewed = asyncio.Event()
        self._ended = asyncio.Event()
        self._refused: ServerError | None = None
        self._stall_watch = StallWatch(stall_warning, what_runs)
        self._thread: threading.Thread | None = None

    def is_fresh(self) -> bool:
        """Whether a body may start now."""
        return _now() - self._acknowledged < self._length * 2 / 3

    async def until_fresh(self) -> None:
        """Waits until a body may start, or the first beat was refused."""
        while not self.is_fresh() and self._refused is None:
            self._renewed.clear()
            await self._renewed.wait()

    async def start(self) -> None:
        """Starts the thread, and waits until the first beat is acknowledged; that must be before the first
        read. Later beats follow every third of the lease.

        Raises:
            ServerError: the user may not send beats.
        """
        self._thread = threading.Thread(target=self._run, name="asyncq-lease", daemon=True)
        self._thread.start()
        self._stall_watch.start()
        await self.until_fresh()
        if self._refused is not None:
            raise self._refused

    async def stop(self) -> None:
        """Ends the beats. A second call has no effect.

        A beat that is under way gets `_LAST_BEAT` seconds. If the server takes it after that, the beat is
        refused, because the session has left by then.
        """
        self._stop.set()
        self._stall_watch.stop()
        if self._thread is not None:
            with suppress(TimeoutError):
                async with asyncio.timeout(_LAST_BEAT):
                    await self._ended.wait()

    def _run(self) -> None:
        """Runs on the lease's thread, from the first beat to the end of the connection."""
        try:
            self._beat()
        finally:
            self._beating.close()
            self._tell(self._ended.set)

    def _beat(self) -> None:
        """Sends beats until `stop`, on the lease's thread.

        It ends early if the first beat is refused, or if the session was taken for dead. After any other
        error it tries again, at most a second later.
        """
        errors = ErrorLog(log, "a heartbeat could not be sent; trying again")
        count = 1
        failures = 0
        while not self._stop.is_set():
            sent = _now()
            try:
                signals = self._beating.beat(count)
            except Exception as error:  # noqa: BLE001  without beats, others would take over all that runs here
                first = self._acknowledged == float("-inf")
                if first and isinstance(error, ServerError) and error.action is ErrorAction.DENIED:
                    self._refused = error
                    self._tell(self._renewed.set)
                    return
                failures += 1
                if not isinstance(error, (BrokerUnavailable, ServerError)):
                    errors.add(error)
                elif failures == 3:
                    log.warning("the lease cannot be renewed at the moment (%s); trying again", error)
                self._stop.wait(min(1.0, self._length / 15))
                continue
            if signals is None:
                self._tell(self._on_lost)
                return
            count += 1
            failures = 0
            self._acknowledged = sent
            self._tell(self._renewed.set)
            if signals:
                self._tell(self._on_signals, signals)
            self._stop.wait(self._length / 3)

    def _tell(self, call: Callable[..., None], *args: object) -> None:
        """Makes a call on the worker's loop. It is used on the lease's thread."""
        try:
            self._loop.call_soon_threadsafe(call, *args)
        except RuntimeError:
            # The loop was closed while this thread ran, so nobody is left to notify.
            self._stop.set()
