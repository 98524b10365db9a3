"""Items of a generator between its `yield` and the server's answer."""

from __future__ import annotations

import asyncio

from asyncq.errors import BrokerUnavailable

BATCH = 500
BATCH_BYTES = 1024 * 1024


class ItemBuffer:
    """The items of one attempt that the server is not known to have. They are numbered from 1.

    `append` and `is_full` run on the generator's thread, all else on the worker's loop. Each field is written
    by one of them only, so that they need no lock: a reader may see an old number, and waits once more.

    Args:
        id: of the job, for the error.

    Attributes:
        number: of the last item that was yielded.
        known: of the last that the server is known to have.
        sent: of the last that is on its way.
        is_closed: nothing more is sent.
        error: what the generator is to hear.
        changed: set when the server has answered.
    """

    def __init__(self, id: str) -> None:
        self._id = id
        self._items: list[bytes] = []
        self._added = 0  # bytes, by the generator's thread
        self._gone = 0  # bytes, by the loop
        self.number: int = 0
        self.known: int = 0
        self.sent: int = 0
        self.is_closed: bool = False
        self.error: Exception | None = None
        self.changed: asyncio.Event = asyncio.Event()

    def append(self, data: bytes) -> None:
        """Adds an encoded item."""
        self._items.append(data)
        self._added += len(data)
        self.number += 1

    def is_full(self) -> bool:
        """Whether so much is waiting that the generator is to wait, too."""
        return len(self._items) >= BATCH or self._added - self._gone >= BATCH_BYTES

    def batch(self, sent: int) -> list[bytes]:
        """The items after a number, as many as go in one call."""
        first = sent - self.known
        batch: list[bytes] = []
        size = 0
        for data in self._items[first : first + BATCH]:
            size += len(data)
            if batch and size > BATCH_BYTES:
                break
            batch.append(data)
        return batch

    def stored(self, last: int) -> None:
        """The server has all items up to that number."""
        done = last - self.known
        if done > 0:
            self._gone += sum(map(len, self._items[:done]))
            del self._items[:done]
            self.known = last

    async def answer(self) -> None:
        """Waits for an answer of the server, and raises what the generator is to hear."""
        if self.error is None:
            self.changed.clear()
            await self.changed.wait()
        if self.error is not None:
            raise self.error

    def close(self) -> None:
        """Nothing more is sent. Whoever yields another item hears of it."""
        self.is_closed = True
        self.error = self.error or BrokerUnavailable(
            f"job {self._id} has ended here; what it yields goes nowhere"
        )
        self.changed.set()
