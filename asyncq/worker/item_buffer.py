"""The items of a generator, from its `yield` until the server has stored them.

The thread of the generator and the worker's loop share one `ItemBuffer` without a lock, see the class.
"""

from __future__ import annotations

import asyncio

from asyncq.errors import BrokerUnavailable

BATCH = 500
BATCH_BYTES = 1024 * 1024


class ItemBuffer:
    """The items of one attempt that the server is not known to have. Items are numbered from 1.

    `append` and `is_full` run on the generator's thread, everything else on the worker's loop. Only one of
    the two writes each field, so no lock is needed. A reader may see an old number; then it waits once more.

    Args:
        id: the id of the job, for the error.

    Attributes:
        number: the number of the last item that was yielded.
        known: the number of the last item that the server is known to have.
        sent: the number of the last item that is on its way.
        is_closed: whether nothing more is sent.
        error: the error that the generator gets next.
        changed: set when the server has answered.
    """

    def __init__(self, id: str) -> None:
        self._id = id
        self._items: list[bytes] = []
        self._added = 0  # bytes; only the generator's thread writes it
        self._gone = 0  # bytes; only the loop writes it
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
        """Whether so many items wait that the generator has to wait, too."""
        return len(self._items) >= BATCH or self._added - self._gone >= BATCH_BYTES

    def batch(self, sent: int) -> list[bytes]:
        """Returns the items after the number `sent`, as many as fit into one call."""
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
        """Removes the items up to the number `last`, because the server has stored them."""
        done = last - self.known
        if done > 0:
            self._gone += sum(map(len, self._items[:done]))
            del self._items[:done]
            self.known = last

    async def answer(self) -> None:
        """Waits for an answer of the server, and raises the error of the generator if there is one."""
        if self.error is None:
            self.changed.clear()
            await self.changed.wait()
        if self.error is not None:
            raise self.error

    def close(self) -> None:
        """Stops sending. A generator that yields another item gets an error."""
        self.is_closed = True
        self.error = self.error or BrokerUnavailable(
            f"job {self._id} has ended here; its further items are not sent"
        )
        self.changed.set()
