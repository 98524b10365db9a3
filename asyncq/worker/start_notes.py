"""Tells the server which bodies of a session may have begun, so that its death counts as a crash for no other
job.

There are two kinds of notes (`begin.lua`). A stream from which the session fetches ahead has the entry up to
which its bodies have begun. A job with which a worker has died before has a note of its own. Runs on the
worker's loop.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, Protocol

from asyncq.broker.transport.reconnect import pause

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Iterable, Sequence

    from asyncq import wire
    from asyncq.broker.consumer import Consumer

_Number = tuple[int, int]
"""An entry id, as numbers, which have an order."""


class EntryHolder(Protocol):
    """What it needs of the jobs that the session holds, see `HeldJobs`."""

    stop: asyncio.Event

    def holds(self, key: tuple[str, str]) -> bool:
        """Returns whether a job is held, by its entry and id."""
        ...

    def entries_of(self, stream: str) -> list[str]:
        """Returns the entries of a stream that are held."""
        ...


class StartNotes:
    """The notes of one session.

    Args:
        consumer: sends them.
        held: says which jobs the session holds.
        background: starts a background task that the session waits for before it ends.
        on_stored: called when the server has notes that it had not acknowledged.

    Attributes:
        streams: the streams for which the server knows what has begun, each with the last entry that has.
        is_behind: whether the server has not acknowledged a note of a stream. Nothing of these streams may
            begin.
    """

    def __init__(
        self,
        consumer: Consumer,
        held: EntryHolder,
        background: Callable[[Coroutine[Any, Any, None]], object],
        on_stored: Callable[[], None],
    ) -> None:
        self.streams: dict[str, _Number] = {}
        self.is_behind: bool = False
        self._consumer = consumer
        self._held = held
        self._background = background
        self._on_stored = on_stored
        self._jobs: set[tuple[str, str]] = set()  # entry and id of the jobs that have a note of their own

    # -- of streams --

    async def open(self, stream: str) -> None:
        """Notes what has begun of a stream: all that the session holds of it. The caller sees to it that
        nothing of the stream begins meanwhile. Raises as `Consumer.note`.
        """
        last = max(map(_number, self._held.entries_of(stream)), default=(0, 0))
        if await self._consumer.note(self._consumer.served.keys[stream], {stream: _text(last)}):
            self.streams[stream] = last

    async def close(self, streams: Sequence[str]) -> None:
        """Deletes the notes of some streams: from now on, all that the session holds of them may have
        begun.
        """
        for stream in streams:
            # Answered before the stream leaves `streams`. If the note stayed at the server, no crash would
            # ever count for what begins from now on.
            await self._consumer.note(self._consumer.served.keys[stream], {stream: ""})
            del self.streams[stream]

    def send(self, started: dict[str, str]) -> bool:
        """Notes that bodies of some streams begin, up to these entries. Returns False if nothing could be
        sent; then nothing may begin until `on_stored` is called.

        The caller starts the bodies' asyncio tasks afterwards, so the note is on its way before the first
        step of a body: a pipe writes at once. A process that is killed then has told the server what may have
        killed it. The answer is not awaited: the worker would stand still for a round trip. If the connection
        breaks at this very moment and the note is lost with it, nothing else begins until the server has the
        note.
        """
        for stream, entry in started.items():
            self.streams[stream] = max(self.streams[stream], _number(entry))
        for reply in self._post(started):
            if reply.done():
                self._take_reply(reply)
                return False
            reply.add_done_callback(self._take_reply)
        return True

    def _post(self, streams: Iterable[str]) -> list[asyncio.Future[Any]]:
        """Sends the notes of some streams, one call for each shard. Returns the futures of the answers."""
        notes: dict[int, dict[str, str]] = {}
        keys = self._consumer.served.keys
        for stream in streams:
            notes.setdefault(keys[stream].shard, {})[stream] = _text(self.streams[stream])
        return [self._consumer.post_note(keys[next(iter(some))], some) for some in notes.values()]

    def _take_reply(self, reply: asyncio.Future[Any]) -> None:
        """Takes the answer to notes. After an error, the notes of all streams are sent again."""
        if isinstance(reply.result(), Exception) and not self.is_behind:
            self.is_behind = True
            self._background(self._until_stored())

    async def _until_stored(self) -> None:
        """Sends the notes of all streams until the server has them or the session ends. Each try has what has
        begun by then: a late one must not say less than an earlier one.
        """
        attempt = 0
        while any(isinstance(one, Exception) for one in await asyncio.gather(*self._post(self.streams))):
            if self._held.stop.is_set():
                return
            attempt += 1
            await asyncio.sleep(pause(attempt))
        self.is_behind = False
        self._on_stored()

    # -- of single jobs --

    async def begin(self, delivery: wire.Delivery) -> bool:
        """Notes that the body of a job begins with which a worker has died before. If this worker dies, too,
        the death counts for this job, and not for other such jobs that only wait here. Returns False if the
        job is another worker's by now. Raises as `Consumer.begin`.
        """
        ended = {key for key in self._jobs if not self._held.holds(key)}
        self._jobs -= ended
        self._jobs.add((delivery.entry, delivery.job.id))
        return await self._consumer.begin(delivery, [" ".join(key) for key in ended])


def _number(entry: str) -> _Number:
    ms, _, number = entry.partition("-")
    return int(ms), int(number or 0)


def _text(number: _Number) -> str:
    return f"{number[0]}-{number[1]}"
