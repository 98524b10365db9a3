"""The job channel: messages about one job, and its end, while somebody follows the job. Runs on the session's
loop.
"""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING

from asyncq.broker.transport.pipe import PipeBroken
from asyncq.errors import BrokerUnavailable

if TYPE_CHECKING:
    from collections.abc import Callable

    from asyncq.broker.waiters import Listener, Waiter

log: logging.Logger = logging.getLogger(__name__)


class JobChannel:
    """The channel of one job on the process's one subscription, and its waiter.

    Messages are hints that may be lost: a follower fetches the status when `stale` is set, and now and then
    anyway.

    Args:
        listener: the process's subscription.
        waiter: of the job.
        channel: of the job.
        on_message: called with each message.

    Attributes:
        received: how many messages came so far.
        stale: messages may have been missed; whoever looks sets it back before.
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
        """Subscribes; returns when the server has confirmed, or when it is not there at the moment."""
        job_channel = cls(listener, waiter, channel, on_message)
        subscription = listener.subscription
        subscription.renewed.add(job_channel._missed)
        try:
            await subscription.subscribe(channel, job_channel._receive)
        except (BrokerUnavailable, PipeBroken) as error:
            log.debug("%s is not subscribed yet: %s", channel, error)  # with the next connection it is
        except BaseException:
            job_channel.close()
            raise
        return job_channel

    async def wait_for_message(self, timeout: float | None) -> bool:
        """Waits until there is any: a message, the job's end, or a reason to look. False if there was none in
        time.

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
        """Unsubscribes. From any thread; twice is once."""
        try:
            self._loop.call_soon_threadsafe(self._close_here)
        except RuntimeError:
            log.debug("%s: its loop is closed, and the subscription with it", self._channel)

    def _close_here(self) -> None:
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
        if self._leave is not None:
            self._leave()
            self._leave = None
        self._closed = self._closed or future.exception()
        self._changed.set()

    def _receive(self, message: bytes) -> None:
        self.received += 1
        self._on_message(message)
        self._changed.set()

    def _missed(self) -> None:
        self.stale = True
        self._changed.set()
