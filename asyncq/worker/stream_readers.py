"""Follows how far the readers of a generator's stream are: slow readers make the generator wait, and a stream
without readers ends its job.

Runs on the worker's loop; a generator in a thread calls only `StreamReaders.is_behind`.
"""

from __future__ import annotations

import asyncio
import time
from contextlib import suppress
from typing import TYPE_CHECKING

from asyncq.broker.broker import READER_AWAY_MS
from asyncq.broker.transport.pipe import PipeBroken
from asyncq.config import shown
from asyncq.errors import BrokerUnavailable

if TYPE_CHECKING:
    from asyncq.broker.job_output import JobOutput
    from asyncq.worker.attempt import RunningJob
    from asyncq.worker.item_buffer import ItemBuffer

SLOW_POLL = 1.0
"""Seconds between two requests for the reader position while a generator waits for its readers. The message
may be lost, and the readers may have gone away."""
TOUCH = 3600.0
"""Seconds between two renewals of a stream whose generator yields nothing. The stream expires after a day."""


class StreamReaders:
    """The readers of the stream of one attempt. Runs on the worker's loop, except for `is_behind`.

    Args:
        running: the job.
        output: the output of its attempt.
        buffer: its items; says whether more are sent.
    """

    def __init__(self, running: RunningJob, output: JobOutput, buffer: ItemBuffer) -> None:
        self._running = running
        self._output = output
        self._buffer = buffer
        self._settings = running.attempts.consumer.settings
        self._position = (-1, 0.0)  # the number of the furthest reader, and until when that number counts
        self._started = time.monotonic()
        self._timer = self._wake_up_later()

    def note(self, number: int, age: int) -> None:
        """Stores that the furthest reader has taken the item with that number, `age` ms ago."""
        self._position = (number, time.monotonic() + (READER_AWAY_MS - age) / 1000)

    def is_behind(self) -> bool:
        """Whether there are readers, and all of them are more than a window behind.

        It may be called on any thread.
        """
        number, until = self._position
        return (
            self._buffer.number - number > self._settings.stream_window
            and number >= 0
            and time.monotonic() < until
        )

    async def catch_up(self) -> None:
        """Waits until the furthest reader has caught up by half a window, or until no reader is left."""
        channel = self._output.events
        target = self._buffer.number - self._settings.stream_window // 2
        subscription = self._running.attempts.session.broker.listener.subscription
        notified = asyncio.Event()

        def on_message(message: bytes) -> None:
            if message[:1] == b"w":
                notified.set()

        try:
            # Subscribed before the first request, so that no message after its answer is missed.
            with suppress(BrokerUnavailable, PipeBroken):  # the next connection will subscribe
                await subscription.subscribe(channel, on_message)
            while not self._buffer.is_closed and await self._must_wait(target):
                with suppress(TimeoutError):
                    async with asyncio.timeout(SLOW_POLL):
                        await notified.wait()
                notified.clear()
        finally:
            subscription.unsubscribe(channel, on_message)

    async def _must_wait(self, target: int) -> bool:
        """Asks the server for the reader position. Returns whether the generator has to wait."""
        position = await self._output.reader_position(notify_at=target)
        if position is None:
            self.refuse()
            return False
        number, age, _ = position
        self.note(number, age)
        return number < target and age < READER_AWAY_MS

    def refuse(self) -> None:
        """Ends the stream of this attempt, because the job has ended or another worker has it."""
        self._running.revoked = True
        self.stop()
        self._buffer.close()

    # -- while nothing is yielded --

    def _wake_up_later(self) -> asyncio.TimerHandle:
        idle = self._settings.stream_idle
        seconds = min(TOUCH, idle / 4) if idle else TOUCH
        return self._running.loop.call_later(seconds, self._wake_up)

    def _wake_up(self) -> None:
        if not self._buffer.is_closed:
            self._running.attempts.background.start(self._touch())

    async def _touch(self) -> None:
        """Keeps the stream for another day, and ends the job if nobody has read the stream for too long."""
        try:
            position = await self._output.reader_position()
        finally:
            if not self._buffer.is_closed:  # also after an error: the next call may succeed
                self._timer = self._wake_up_later()
        if position is None:
            self.refuse()
            return
        idle = self._settings.stream_idle
        alone = time.monotonic() - self._started
        if position[2] >= 0:
            alone = min(alone, position[2] / 1000)
        if idle and alone > idle:
            self.stop()
            self._running.abandon(f"nobody has read its stream for {shown(idle)}")

    def stop(self) -> None:
        """Stops the timer. A second call has no effect."""
        self._timer.cancel()
