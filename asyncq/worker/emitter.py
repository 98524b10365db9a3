"""What a generator yields, on its way to the server, and how fast it may."""

from __future__ import annotations

import asyncio
import time
from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING, Any

from asyncq.broker.broker import READER_AWAY_MS
from asyncq.broker.commands import FOREVER
from asyncq.broker.pipe import PipeBroken
from asyncq.config import shown
from asyncq.errors import AsyncQError, BrokerUnavailable, PayloadTooLarge

if TYPE_CHECKING:
    from asyncq.serializers import ValueCodec
    from asyncq.worker.attempt import Attempts, RunningJob

BATCH = 500
BATCH_BYTES = 1024 * 1024
UNDER_WAY = 2
A_TURN = 100
"""After so many items a generator that never waits lets the loop turn, whether the server keeps up or not."""
SLOW_LOOK = 1.0
"""Seconds between two looks at the readers while a generator waits for them: should the push be lost, and to
notice that they have left."""
TOUCH = 3600.0
"""Seconds between two signs of life of a stream whose generator yields nothing: it expires after a day."""


class Emitter:
    """Sends the items of one attempt: all that are yielded in one turn of the loop in one call, and at most
    two calls under way, so that the next one gathers while they are.

    Items are numbered from 1, and kept here until the server has them. When a call fails, what is not known
    to be there goes again, one call after the other: the server takes no item twice, and none before a gap.

    Args:
        running: the job.
        codec: of the items.
    """

    def __init__(self, running: RunningJob, codec: ValueCodec) -> None:
        self._running = running
        self._attempts: Attempts = running.attempts
        self._consumer = self._attempts.consumer
        self._commands = self._attempts.session.broker.commands
        self._shard = self._consumer.shard(running.delivery.stream)
        self._settings = self._consumer.settings
        self._codec = codec
        self._loop = asyncio.get_running_loop()
        self._items: list[bytes] = []  # those that the server is not known to have
        # Written by one thread each: the generator's, and the loop's.
        self._added = self._gone = 0  # bytes
        self._number = 0  # of the last item that was yielded
        self._known = 0  # of the last that the server is known to have
        self._sent = 0  # of the last that is on its way
        self._under_way = 0
        self._scheduled = False
        self._mending = False
        self._over = False
        self._dropped = False
        self._error: Exception | None = None
        self._news = asyncio.Event()
        self._place = (-1, 0.0)  # the furthest reader's number, and until when that counts
        self._begun = time.monotonic()
        self._timer = self._keep_going()

    # -- yielding --

    def add(self, item: Any) -> bool:
        """Takes an item, on any thread. True if `room` is to be awaited before the next.

        Raises:
            SerializationError: the item cannot travel.
            PayloadTooLarge: it takes more than `max_payload`, or is one more than `stream_limit` items.
            AsyncQError: the items before it cannot be stored.
        """
        number, settings = self._number + 1, self._settings
        if self._error is not None:
            raise self._error
        if number > settings.stream_limit:
            raise PayloadTooLarge(
                f"{self._name} yielded more than stream_limit={settings.stream_limit:,} items; let another "
                "job yield the rest, or raise it"
            )
        data = self._codec.dumps(item, path=f"item {number}")
        if len(data) > settings.max_payload:
            raise PayloadTooLarge(
                f"item {number} of {self._name} takes {len(data):,} bytes, more than "
                f"max_payload={settings.max_payload:,}"
            )
        self._items.append(data)
        self._added += len(data)
        self._number = number
        if not self._scheduled:
            self._scheduled = True
            self._loop.call_soon_threadsafe(self._send)
        return number % A_TURN == 0 or self._is_full() or self._is_ahead()

    async def room(self) -> None:
        """Waits until the server and the readers have caught up.

        Raises:
            AsyncQError: the server has no memory left, or the job runs elsewhere.
        """
        await asyncio.sleep(0)
        while self._is_full():
            await self._answer()
        if self._is_ahead():
            await self._until_read()

    async def close(self) -> None:
        """Waits until the server has everything; then the stream lives as long as the result. Raises as
        `room`.
        """
        while self._known < self._number:
            await self._answer()
        self.drop()

    def drop(self) -> None:
        """Sends nothing more; the stream lives as long as the result. Twice is once."""
        self._timer.cancel()
        if self._dropped:
            return
        self._dropped = self._over = True
        # A thread that goes on after its time is stopped by its next item.
        self._error = self._error or self._ended()
        self._attempts.background.start(self._leave())

    async def _leave(self) -> None:
        await self._consumer.pace(self._running.delivery, ttl=self._running.delivery.job.result_ttl)

    @property
    def _name(self) -> str:
        return self._running.delivery.job.name

    def _is_full(self) -> bool:
        return len(self._items) >= BATCH or self._added - self._gone >= BATCH_BYTES

    async def _answer(self) -> None:
        """Waits for an answer of the server."""
        if self._error is None:
            self._news.clear()
            await self._news.wait()
        if self._error is not None:
            raise self._error

    # -- sending --

    def _send(self) -> None:
        self._scheduled = False
        while self._sent < self._number and self._under_way < UNDER_WAY and not (self._mending or self._over):
            command, last = self._command(self._sent)
            self._under_way += 1
            self._sent = last
            self._commands.post(self._shard, command, partial(self._answered, last))

    def _command(self, sent: int) -> tuple[tuple[Any, ...], int]:
        """The call for the items after a number, and the number of the last that it takes."""
        first = sent - self._known
        batch: list[bytes] = []
        size = 0
        for data in self._items[first : first + BATCH]:
            size += len(data)
            if batch and size > BATCH_BYTES:
                break
            batch.append(data)
        command = self._consumer.emit_command(self._running.delivery, self._known, sent + 1, batch)
        return command, sent + len(batch)

    def _answered(self, last: int, answer: Any) -> None:
        self._under_way -= 1
        self._news.set()
        if isinstance(answer, Exception) or answer[0] == -2:
            self._mend()
            return
        self._take(last, answer)
        self._send()

    def _take(self, last: int, answer: list[int]) -> None:
        if answer[0] == -1:
            self._refused()
            return
        done = last - self._known
        if done > 0:
            self._gone += sum(map(len, self._items[:done]))
            del self._items[:done]
            self._known = last
        self._note(answer[1], answer[2])
        self._news.set()

    def _mend(self) -> None:
        if not self._mending and not self._over:
            self._mending = True
            self._attempts.background.start(self._send_again())

    async def _send_again(self) -> None:
        """One call after the other, each until it is answered, from the first item on that is not known to be
        there.
        """
        try:
            while self._under_way:  # their answers, or the news that none will come, are on the way
                await self._answer()
            while self._known < self._number and not self._over:
                command, last = self._command(self._known)
                answer = await self._commands.send(self._shard, *command, patience=FOREVER)
                self._take(last, answer)
            self._sent = self._known
        except Exception as error:  # noqa: BLE001  whatever it is, the generator must hear of it: it waits here
            self._error = error
        finally:
            self._mending = False
            self._news.set()
        self._send()

    def _refused(self) -> None:
        """Another worker has the job, or it has ended: nothing of this attempt counts any more."""
        self._over = True
        self._running.revoked = True
        self._timer.cancel()
        self._error = self._ended()
        self._news.set()

    def _ended(self) -> AsyncQError:
        return BrokerUnavailable(
            f"job {self._running.delivery.job.id} has ended here; what it yields goes nowhere"
        )

    # -- readers --

    def _note(self, number: int, age: int) -> None:
        self._place = (number, time.monotonic() + (READER_AWAY_MS - age) / 1000)

    def _is_ahead(self) -> bool:
        number, until = self._place
        return (
            self._number - number > self._settings.stream_window and number >= 0 and time.monotonic() < until
        )

    async def _until_read(self) -> None:
        """Waits until the furthest reader has caught up by half a window, or none is left."""
        channel = self._consumer.events_of(self._running.delivery)
        wanted = self._number - self._settings.stream_window // 2
        listener = self._attempts.session.broker.listener
        told = asyncio.Event()

        def hear(message: bytes) -> None:
            if message[:1] == b"w":
                told.set()

        try:
            with suppress(BrokerUnavailable, PipeBroken):  # with the next connection it will be
                await listener.subscribe(channel, hear)
            while not self._over and await self._must_wait(wanted):
                with suppress(TimeoutError):
                    async with asyncio.timeout(SLOW_LOOK):
                        await told.wait()
                told.clear()
        finally:
            listener.unsubscribe(channel, hear)

    async def _must_wait(self, wanted: int) -> bool:
        place = await self._consumer.pace(self._running.delivery, wanted=wanted)
        if place is None:
            self._refused()
            return False
        number, age, _ = place
        self._note(number, age)
        return number < wanted and age < READER_AWAY_MS

    # -- while nothing is yielded --

    def _keep_going(self) -> asyncio.TimerHandle:
        idle = self._settings.stream_idle
        return self._loop.call_later(min(TOUCH, idle / 4) if idle else TOUCH, self._look_around)

    def _look_around(self) -> None:
        if not self._over:
            self._attempts.background.start(self._touch())

    async def _touch(self) -> None:
        try:
            place = await self._consumer.pace(self._running.delivery)
        finally:
            if not self._over:  # one look that failed is not the last
                self._timer = self._keep_going()
        if place is None:
            self._refused()
            return
        idle = self._settings.stream_idle
        alone = time.monotonic() - self._begun
        if place[2] >= 0:
            alone = min(alone, place[2] / 1000)
        if idle and alone > idle:
            self._timer.cancel()
            self._running.abandon(f"nobody has read its stream for {shown(idle)}")
