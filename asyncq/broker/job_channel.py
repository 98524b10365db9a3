"""The job channel: it delivers the messages about one job, and its end, while somebody follows the job.

`results.events` and `results.streams` use it, on the session's loop. A message is a hint and may be lost, so
a follower must also read the job's status when `stale` is set, and now and then anyway.
"""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING

from asyncq.broker.schema import damaged_data
from asyncq.broker.transport.pipe import PipeBroken
from asyncq.errors import BrokerUnavailable, DecodeError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from asyncq.broker.schema.keys import Keys
    from asyncq.broker.waiters import Listener, Waiter

log: logging.Logger = logging.getLogger(__name__)


class JobChannel:
    """The channel of one job on the one subscription of the session, and the job's waiter.

    Args:
        listener: of the session.
        waiter: of the job.
        channel: the name of the job's channel.
        on_message: called with each message.

    Attributes:
        received: how many messages came so far.
        stale: messages may have been missed. The follower clears it before it reads the status.
    """

    def __init__(
        self, listener: Listener, waiter: Waiter, channel: str, on_message: Callable[[bytes], None]
    ) -> None:
        self.received: int = 0
        self.stale: bool = True
        self._listener = listener
        self._waiter = waiter
        self._channel = channel
        self._on_message = on_message
        self._loop = asyncio.get_running_loop()
        self._changed = asyncio.Event()
        self._leave: Callable[[], None] | None = None
        self._closed: BaseException | None = None

    @classmethod
    async def open(
        cls, listener: Listener, waiter: Waiter, channel: str, on_message: Callable[[bytes], None]
    ) -> JobChannel:
        """Subscribes. Returns when the server has confirmed, or when there is no connection now: the next
        connection subscribes then.
        """
        job_channel = cls(listener, waiter, channel, on_message)
        subscription = listener.subscription
        subscription.renewed.add(job_channel._missed)
        try:
            await subscription.subscribe(channel, job_channel._receive)
        except (BrokerUnavailable, PipeBroken) as error:
            log.debug("%s is not subscribed yet: %s", channel, error)  # the next connection subscribes it
        except BaseException:
            job_channel.close()
            raise
        return job_channel

    async def wait_for_message(self, timeout: float | None) -> bool:
        """Waits until there is a message, or the job has ended, or messages may have been missed (`stale`).

        Args:
            timeout: in seconds; None for no limit.

        Returns:
            False if nothing happened in time.

        Raises:
            BrokerUnavailable: the app was closed.
        """
        self._attend()
        try:
            async with asyncio.timeout(timeout):
                await self._changed.wait()
        except TimeoutError:
            return False
        self._changed.clear()
        if self._closed is not None:
            raise BrokerUnavailable(str(self._closed))
        return True

    def close(self) -> None:
        """Unsubscribes, soon. May be called on any thread. A second call does nothing."""
        try:
            self._loop.call_soon_threadsafe(self._close_here)
        except RuntimeError:
            log.debug("%s: its loop is closed, and the subscription with it", self._channel)

    def _close_here(self) -> None:
        """Unsubscribes, on the loop of the session."""
        subscription = self._listener.subscription
        subscription.renewed.discard(self._missed)
        subscription.unsubscribe(self._channel, self._receive)
        if self._leave is not None:
            self._leave()
            self._leave = None

    def _attend(self) -> None:
        if self._leave is None and self._waiter.ended is None:
            self._leave = self._listener.attend(self._waiter, self._on_change)

    def _on_change(self, future: asyncio.Future[None]) -> None:
        """Takes in that something about the job has changed, or that the app was closed."""
        if self._leave is not None:
            self._leave()
            self._leave = None
        self._closed = self._closed or future.exception()
        self._changed.set()

    def _receive(self, message: bytes) -> None:
        self.received += 1
        try:
            if (seal := self._listener.seal) is not None:
                message = seal.open_event(self._waiter.id, message)
        except DecodeError as error:
            damaged_data.warn(log, "event", f"an event of job {self._waiter.id!r} is ignored", error)
            self.stale = True
        else:
            self._on_message(message)
        self._changed.set()

    def _missed(self, shards: Sequence[Keys]) -> None:
        if any(self._channel.startswith(keys.tag) for keys in shards):
            self.stale = True
            self._changed.set()
