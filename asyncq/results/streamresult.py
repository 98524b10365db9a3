"""The handle of a generator's job: an `AsyncResult` whose items have a type.

It adds nothing but types; `streams` reads the items.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Generic, TypeVar

from asyncq.results import handle_serialization
from asyncq.results.handle import AsyncResult

if TYPE_CHECKING:
    from asyncq.results.streams import Stream, SyncStream

Y_co = TypeVar("Y_co", covariant=True)


class StreamResult(AsyncResult[None], Generic[Y_co]):
    """Is the handle of a job that yields: an `AsyncResult` whose value is None, and whose items have a type.

    Example:
        ```python
        result = await numbers.delay(3)
        print([item async for item in result.stream()])
        ```
    """

    __slots__ = ()

    def stream(self, after: int | None = None) -> Stream[Y_co]:
        """Gives what the task yields, as `AsyncResult.stream` does, with its type.

        Args:
            after: the number of the last item that the caller has already; None for all items.

        Raises:
            ValueError, ResultNotFound, BrokerUnavailable, WouldDeadlock: see `AsyncResult.stream`.
        """
        return super().stream(after)

    def stream_sync(self, after: int | None = None) -> SyncStream[Y_co]:
        """Blocking twin of `stream`."""
        return super().stream_sync(after)


handle_serialization.register(handle_serialization.STREAM, StreamResult)
