"""The handle of a generator task."""

from __future__ import annotations

from typing import TYPE_CHECKING, Generic, TypeVar

from asyncq.results import handle_serialization
from asyncq.results.handle import AsyncResult

if TYPE_CHECKING:
    from asyncq.results.streams import Stream, SyncStream

Y_co = TypeVar("Y_co", covariant=True)


class StreamResult(AsyncResult[None], Generic[Y_co]):
    """The handle of a job that yields: an `AsyncResult` whose value is None, and whose items have a type.

    Example:
        ```python
        result = await numbers.delay(3)
        print([item async for item in result.stream()])
        ```
    """

    __slots__ = ()
    kind = handle_serialization.STREAM

    def stream(self, after: int | None = None) -> Stream[Y_co]:
        """Gives what the task yields, as `AsyncResult.stream` does, with its type.

        Args:
            after: the number of the last item that is not wanted any more; None for all.

        Raises:
            ValueError, ResultNotFound, BrokerUnavailable, WouldDeadlock: as `AsyncResult.stream`.
        """
        return super().stream(after)

    def stream_sync(self, after: int | None = None) -> SyncStream[Y_co]:
        """Blocking twin of `stream`."""
        return super().stream_sync(after)


handle_serialization.register(handle_serialization.STREAM, StreamResult)
