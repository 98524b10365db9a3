"""Streams: what a generator task yields, item by item.

A `Stream` is what the user iterates over, on any loop or thread; its reader runs on the loop of the session
that serves the first step. Items are numbered from 1 without a gap, and a reader gives each once, in order.
"""

from __future__ import annotations

import asyncio
import logging
import weakref
from collections import deque
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Generic, Protocol, TypeVar

from asyncq import sync_bridge, wire
from asyncq.broker.job_channel import JobChannel
from asyncq.broker.schema import damaged_data
from asyncq.broker.schema.records import Flags
from asyncq.errors import BrokerUnavailable, DecodeError, ResultNotFound

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Sequence

    from asyncq.broker.waiters import Waiter
    from asyncq.client.session import Session
    from asyncq.results.followed import Followed
    from asyncq.sync_bridge import LoopOwner

T = TypeVar("T")

log: logging.Logger = logging.getLogger(__name__)

POLL_INTERVAL = 3.0
"""After so many seconds of silence a reader reads the items itself, for a push may have been lost. A reader
that takes items slowly says as often that it is there."""
KEPT = 2000
"""How many pushed items wait to be taken, at most. The others are read when there is room again."""


class Readable(Protocol):
    """Gives items to one stream.

    Attributes:
        buffer: the items at hand, each with its number, still encoded.
        offset: the number of the last item that was taken.
    """

    buffer: deque[tuple[int, bytes]]
    offset: int
    session: Session | None
    """The session that serves it, once it has subscribed."""
    report_at: int
    """The stream calls `report` when it takes an item with this number or a higher one."""

    async def fill(self) -> bool:
        """Waits until an item is at hand; False at the end. Raises what `get` would raise."""
        ...

    def report(self) -> None:
        """Tells the generator's worker how far the reader is. From any thread."""
        ...

    def close(self) -> None:
        """Ends the reading. From any thread; twice is once."""
        ...


class Reader:
    """Reads the items of a job at the server, for one stream.

    It must not refer to its `Stream`, so that a stream which nobody holds any more is collected and closed.

    Small items are pushed. When the number of a pushed item does not follow the last one, the reader reads
    what it missed.
    """

    def __init__(self, job: Followed, after: int) -> None:
        settings = job.app.settings
        self.buffer: deque[tuple[int, bytes]] = deque()
        self.offset = after
        # Often enough that the generator never waits for a reader that keeps up.
        self._stride = max(1, settings.stream_window // 4)
        self.report_at: int = after + self._stride
        self._pause = min(POLL_INTERVAL, settings.stream_idle / 3) if settings.stream_idle else POLL_INTERVAL
        self._job = job
        self._fetched = after
        self._reported = -1
        self._complete = False
        self._job_channel: JobChannel | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._closed = False
        self._filling = asyncio.Lock()
        self.session: Session | None = None

    async def fill(self) -> bool:
        """See `Readable`."""
        async with self._filling:  # two tasks may step the same stream
            return await self._fill()

    async def _fill(self) -> bool:
        waiter = self._job.waiter()
        while not self.buffer:
            if self._closed:
                return False
            if self._complete:
                return self._end()
            if self._job_channel is None:
                await self._open(waiter)
            elif self._job_channel.stale or waiter.ended is not None:
                await self._read(self._job_channel, waiter)
            elif not await self._job_channel.wait_for_message(self._pause):
                self._job_channel.stale = True
        return True

    def report(self) -> None:
        """See `Readable`."""
        self.report_at = self.offset + self._stride
        if self.session is not None:
            self.session.call(self._report_here)

    def close(self) -> None:
        """See `Readable`."""
        self._closed = True
        if self._job_channel is not None:
            self._job_channel.close()

    # -- on the app's loop --

    async def _open(self, waiter: Waiter) -> None:
        app = self._job.app
        self.session = app.sessions.current()
        channel = app.sessions.shards.of(self._job.id).events + self._job.id
        self._job_channel = await JobChannel.open(self.session.listener, waiter, channel, self._on_message)
        self._tick()

    def _tick(self) -> None:
        """Reports the position of a reader that takes items slowly, so that the worker knows of it."""
        if self._complete or self._closed:
            return
        if self.offset != self._reported:
            self._report_here()
        self._timer = asyncio.get_running_loop().call_later(self._pause, self._tick)

    def _report_here(self) -> None:
        session = self.session
        if session is not None and session.is_open and not self._complete:
            self._reported = self.offset
            session.broker.note_position(self._job.id, self.offset)

    async def _read(self, job_channel: JobChannel, waiter: Waiter) -> None:
        job_channel.stale = False
        app, taken = self._job.app, self.offset
        try:
            snapshot, complete, items = await app.sessions.current().broker.read_items(
                self._job.id, self._fetched, taken
            )
        except BrokerUnavailable as error:
            # The server may come back, as in `get`.
            log.debug("the stream of job %r could not be read (%s); trying again", self._job.id, error)
            job_channel.stale = not await job_channel.wait_for_message(self._pause) or job_channel.stale
            return
        self._reported = max(self._reported, taken)
        self._extend(items)
        if snapshot is None or (isinstance(snapshot, str) and Flags(snapshot).is_ignored):
            app.sessions.current().listener.learn(waiter, snapshot)
            raise ResultNotFound(
                f"no stream under the id {self._job.id!r}: unknown, forgotten, expired (result_ttl), or "
                "its task ignores results"
            )
        if isinstance(snapshot, wire.Ended):
            app.sessions.current().listener.learn(waiter, snapshot)
            self._complete = complete
        elif len(items) > 0:
            job_channel.stale = True  # there may be more

    def _extend(self, items: list[tuple[int, bytes]]) -> None:
        for number, item in items:
            if number > self._fetched:
                self.buffer.append((number, item))
                self._fetched = number

    def _on_message(self, message: bytes) -> None:
        kind = message[:1]
        if kind not in {b"i", b"n"} or self._job_channel is None:
            return
        try:
            if kind == b"n":
                self._job_channel.stale = self._job_channel.stale or int(message[1:]) > self._fetched
                return
            first, items = wire.split_items(message)
        except (DecodeError, ValueError) as error:
            # Anybody who may publish can send rubbish. The query finds the truth.
            damaged_data.warn(log, "item", f"items of job {self._job.id!r} could not be read", error)
            self._job_channel.stale = True
            return
        if first > self._fetched + 1 or len(self.buffer) > KEPT:
            self._job_channel.stale = True
        else:
            self._extend(list(enumerate(items, first)))

    def _end(self) -> bool:
        """Ends the stream of a job that has ended, when all items were given."""
        self.close()
        outcome = self._job.known()
        if outcome is not None and outcome.error is not None:
            outcome.unwrap()
        return False


class KeptItems:
    """Gives the items of a call that this process ran.

    Args:
        items: all of them.
        after: the number of the last item that the caller has already.
        end: called after the last item; raises what the call raised.
    """

    def __init__(self, items: Sequence[bytes], after: int, end: Callable[[], object]) -> None:
        self.buffer: deque[tuple[int, bytes]] = deque(list(enumerate(items, 1))[after:])
        self.offset = after
        self.report_at: int = len(items) + 1
        self.session: Session | None = None
        self._end = end

    async def fill(self) -> bool:
        """See `Readable`."""
        self._end()
        return False

    def report(self) -> None:
        """Does nothing: no generator waits."""

    def close(self) -> None:
        """Does nothing: nothing is open."""


@dataclass(slots=True)
class Source:
    """Is where a stream takes its items from.

    Attributes:
        reader: has the items at hand.
        fill: lets the reader fetch more, on the loop that serves it; False at the end.
        decode: makes an item of its bytes.
        loop_owner: runs `fill` for the blocking stream.
    """

    reader: Readable
    fill: Callable[[], Coroutine[Any, Any, bool]]
    decode: Callable[[bytes], Any]
    loop_owner: LoopOwner


class _Items(Generic[T]):
    """Has what both kinds of stream have."""

    def __init__(self, source: Source) -> None:
        self._source = source
        self._reader = source.reader
        self._finalizer = weakref.finalize(self, self._reader.close)
        # At the end of the process nothing is to be closed: the connections end with it.
        self._finalizer.atexit = False

    @property
    def offset(self) -> int:
        """The number of the item that it gave last; before the first, that of `after`. `stream(after=offset)`
        goes on from there, in any process.
        """
        return self._reader.offset

    def _take(self) -> T:
        reader = self._reader
        number, data = reader.buffer.popleft()
        reader.offset = number
        if number >= reader.report_at:
            reader.report()
        try:
            item: T = self._source.decode(data)
        except DecodeError as error:
            # Names the item as the error does where an item cannot be written: `item 3.at: ...`.
            before, found, reason = str(error).partition("item")
            error.args = (f"item {number}{reason}" if found and not before else f"item {number}: {error}",)
            raise
        return item


class Stream(_Items[T]):
    """Iterates over the items of a generator task, with `async for`. `AsyncResult.stream` makes it."""

    def __aiter__(self) -> Stream[T]:
        return self

    async def __anext__(self) -> T:
        while not self._reader.buffer:
            if not await self._source.fill():
                raise StopAsyncIteration
        return self._take()

    async def aclose(self) -> None:
        """Ends the reading: the next step ends the loop. A stream that nobody holds is closed by itself. A
        second call does nothing.
        """
        self._finalizer()


class SyncStream(_Items[T]):
    """Iterates over the items of a generator task, with `for`. `AsyncResult.stream_sync` makes it."""

    def __iter__(self) -> SyncStream[T]:
        return self

    def __next__(self) -> T:
        while not self._reader.buffer:
            if not sync_bridge.wait(self._source.loop_owner, self._source.fill()):
                raise StopIteration
        return self._take()

    def close(self) -> None:
        """Ends the reading: the next step ends the loop. A stream that nobody holds is closed by itself. A
        second call does nothing.
        """
        self._finalizer()
