"""Sends the items that a generator yields to the server, and makes the generator wait for slow readers.

`RunningJob.sink` makes one `StreamSink` for each attempt. A generator that is a plain function adds its items
on its own thread; sending and waiting happen on the worker's loop. Items are numbered, so the server stores
each once and in order, however often a call is repeated.
"""

from __future__ import annotations

import asyncio
from functools import partial
from typing import TYPE_CHECKING, Any

from asyncq.broker.schema import answer_tags
from asyncq.errors import PayloadTooLarge
from asyncq.worker.item_buffer import ItemBuffer
from asyncq.worker.stream_readers import StreamReaders

if TYPE_CHECKING:
    from asyncq.broker.job_output import JobOutput
    from asyncq.serializers import ValueCodec
    from asyncq.worker.attempt import RunningJob

UNDER_WAY = 2
A_TURN = 100
"""After so many items, a generator that never waits lets the loop turn, even if the server keeps up."""


class StreamSink:
    """Takes the items of one attempt.

    Args:
        running: the job.
        codec: encodes the items.
    """

    def __init__(self, running: RunningJob, codec: ValueCodec) -> None:
        self._running = running
        self._codec = codec
        self._settings = running.attempts.consumer.settings
        self._buffer = ItemBuffer(running.delivery.job.id)
        self._output = running.attempts.consumer.output(running.delivery)
        self._readers = StreamReaders(running, self._output, self._buffer)
        self._sender = ItemSender(running, self._output, self._buffer, self._readers)
        self._dropped = False

    def add(self, item: Any) -> bool:
        """Takes an item. Returns True if the caller must await `until_capacity` before the next one.

        It may be called on any thread.

        Raises:
            SerializationError: the item cannot be encoded.
            PayloadTooLarge: the item takes more than `max_payload`, or is one more than `stream_limit` items.
            Exception: earlier items cannot be stored.
        """
        buffer, settings = self._buffer, self._settings
        number = buffer.number + 1
        if buffer.error is not None:
            raise buffer.error
        if number > settings.stream_limit:
            raise PayloadTooLarge(
                f"{self._name} yielded more than stream_limit={settings.stream_limit:,} items; let another "
                "job yield the rest, or raise stream_limit"
            )
        data = self._codec.dumps(item, path=f"item {number}")
        if len(data) > settings.max_payload:
            raise PayloadTooLarge(
                f"item {number} of {self._name} takes {len(data):,} bytes, more than "
                f"max_payload={settings.max_payload:,}"
            )
        buffer.append(data)
        sender = self._sender
        if not sender.is_scheduled:
            sender.is_scheduled = True
            self._running.loop.call_soon_threadsafe(sender.send)
        return number % A_TURN == 0 or buffer.is_full() or self._readers.is_behind()

    async def until_capacity(self) -> None:
        """Waits until the server and the readers have caught up. Runs on the worker's loop.

        Raises:
            Exception: the server has no memory left, or the job runs elsewhere.
        """
        await asyncio.sleep(0)
        while self._buffer.is_full():
            await self._buffer.answer()
        if self._readers.is_behind():
            await self._readers.catch_up()

    async def close(self) -> None:
        """Waits until the server has all items. Then the stream lives as long as the result.

        Raises:
            Exception: as `until_capacity`.
        """
        while self._buffer.known < self._buffer.number:
            await self._buffer.answer()
        self.drop()

    def drop(self) -> None:
        """Stops sending. The stream then lives as long as the result. A second call has no effect."""
        self._readers.stop()
        if self._dropped:
            return
        self._dropped = True
        self._buffer.close()  # a thread that runs on after its time is stopped when it adds its next item
        self._running.attempts.background.start(self._leave())

    async def _leave(self) -> None:
        await self._output.reader_position(ttl=self._running.delivery.job.result_ttl)

    @property
    def _name(self) -> str:
        return self._running.delivery.job.name


class ItemSender:
    """Sends the items of one attempt. Runs on the worker's loop.

    All items that are yielded in one turn of the loop leave in one call. At most two calls are under way, and
    the next items gather meanwhile. When a call fails, all items that the server is not known to have are
    sent again, one call after the other. The server takes no item twice, and none after a gap.

    Args:
        running: the job.
        output: the output of its attempt.
        buffer: its items.
        readers: learn from the answers how far the readers are.

    Attributes:
        is_scheduled: whether `send` is about to run.
    """

    def __init__(
        self, running: RunningJob, output: JobOutput, buffer: ItemBuffer, readers: StreamReaders
    ) -> None:
        self._running = running
        self._output = output
        self._buffer = buffer
        self._readers = readers
        self._under_way = 0
        self._is_mending = False
        self.is_scheduled: bool = False

    def send(self) -> None:
        """Sends the items that have gathered, in as many calls as may be under way."""
        # This comes first. An item that another thread adds after the loop below has looked schedules a new
        # call.
        self.is_scheduled = False
        buffer = self._buffer
        while (
            buffer.sent < buffer.number
            and self._under_way < UNDER_WAY
            and not (self._is_mending or buffer.is_closed)
        ):
            number, batch = buffer.sent + 1, buffer.batch(buffer.sent)
            self._under_way += 1
            buffer.sent = last = buffer.sent + len(batch)
            self._output.post_items(buffer.known, number, batch, partial(self._answered, last))

    def _answered(self, last: int, answer: Any) -> None:
        self._under_way -= 1
        self._buffer.changed.set()
        # A gap: the server lacks an item before these.
        if isinstance(answer, Exception) or answer[0] == answer_tags.GAP:
            self._mend()
            return
        self._take(last, answer)
        self.send()

    def _take(self, last: int, answer: list[Any]) -> None:
        """Stores what a reply says about the items and their readers."""
        if answer[0] == answer_tags.REFUSED:  # the job has ended, or another worker has it
            self._readers.refuse()
            return
        self._buffer.stored(last)
        self._readers.note(answer[2], answer[3])
        self._buffer.changed.set()

    def _mend(self) -> None:
        """Starts sending again, after a failed call or a gap."""
        if not self._is_mending and not self._buffer.is_closed:
            self._is_mending = True
            self._running.attempts.background.start(self._send_again())

    async def _send_again(self) -> None:
        """Sends the items that the server is not known to have, one call after the other.

        Each call is repeated until it is answered.
        """
        buffer = self._buffer
        try:
            while self._under_way:  # their answers or their errors still come
                await buffer.answer()
            while buffer.known < buffer.number and not buffer.is_closed:
                batch = buffer.batch(buffer.known)
                last = buffer.known + len(batch)
                self._take(last, await self._output.append_items(buffer.known, batch))
            buffer.sent = buffer.known
        except Exception as error:  # noqa: BLE001  whatever it is, the generator waits for it and must get it
            buffer.error = error
        finally:
            self._is_mending = False
            buffer.changed.set()
        self.send()
