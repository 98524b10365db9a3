"""Sends the orders of an operator to workers, and collects their answers. On the loop of the session.

A client sends an order on the channel of a worker session, on which revocation signals come, too, and names a
channel for the answer: see `order_messages`.
"""

from __future__ import annotations

import asyncio
import logging
from contextlib import suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from asyncq.broker.order_messages import MOST_PARTS, SIGN, sealed
from asyncq.broker.schema import damaged_data
from asyncq.broker.schema.keys import name_to, text_of, token
from asyncq.wire import NotSigned

if TYPE_CHECKING:
    from collections.abc import Callable, Collection

    from asyncq.broker.commands import Commands
    from asyncq.broker.signing.seal import Seal
    from asyncq.broker.subscription import Subscription

log: logging.Logger = logging.getLogger(__name__)

REPEAT_AFTER = 0.5
"""Seconds after which an order is sent again to the workers that have not answered."""


@dataclass(slots=True)
class OrderAnswer:
    """What one worker session has answered.

    Attributes:
        seconds: from when the order was last sent until the answer was complete.
        parts: of the text, by their numbers.
        count: how many parts there are; 0 before the first has come.
    """

    seconds: float = 0.0
    parts: dict[int, bytes] = field(default_factory=dict)
    count: int = 0

    def is_complete(self) -> bool:
        """Whether all parts have come."""
        return 0 < self.count <= len(self.parts)

    @property
    def text(self) -> str:
        """The text of all parts."""
        return b"".join(self.parts[number] for number in sorted(self.parts)).decode("utf-8", "replace")


class WorkerOrders:
    """Sends orders to worker sessions, and collects their answers.

    Args:
        commands: of the session.
        subscription: of the session.
    """

    def __init__(self, commands: Commands, subscription: Subscription) -> None:
        self._commands = commands
        self._subscription = subscription
        self._loop = asyncio.get_running_loop()

    async def send(self, order: str, sessions: Collection[str], timeout: float) -> dict[str, OrderAnswer]:
        """Sends an order to worker sessions, and waits until all have answered or the time is over.

        Args:
            order: one of `order_messages`.
            sessions: the session ids.
            timeout: in seconds.

        Returns:
            The answers that were complete in time, by session id.

        Raises:
            BrokerUnavailable: the server cannot be reached.
        """
        if not sessions:
            return {}
        keys, publish = self._commands.shards[0], self._commands.connections.pubsub.publish
        channel = keys.replies + token()
        answers = {session_id: OrderAnswer() for session_id in sessions}
        seal = self._commands.seal
        call = _Call(answers, self._loop.time, channel, seal)
        await self._subscription.subscribe(channel, call.on_message)
        try:
            deadline = self._loop.time() + timeout
            while call.missing():
                call.sent_at = self._loop.time()
                message = SIGN + f"{order} {channel}".encode()
                await asyncio.gather(
                    *(
                        self._commands.send(
                            *(keys, publish, keys.signals.encode() + name_to(session_id)),
                            message if seal is None else sealed(message, session_id, seal),
                        )
                        for session_id in call.missing()
                    )
                )
                left = deadline - self._loop.time()
                await call.until_complete(min(REPEAT_AFTER, left))
                if self._loop.time() >= deadline:
                    break
        finally:
            self._subscription.unsubscribe(channel, call.on_message)
        return {session_id: answer for session_id, answer in answers.items() if answer.is_complete()}


class _Call:
    """One order that was sent, and the answers that have come to it."""

    def __init__(
        self, answers: dict[str, OrderAnswer], now: Callable[[], float], channel: str, seal: Seal | None
    ) -> None:
        self.sent_at = 0.0
        self._channel = channel
        self._seal = seal
        self._answers = answers
        self._now = now
        self._complete = asyncio.Event()

    def missing(self) -> list[str]:
        """Returns the sessions that have not answered."""
        return [session_id for session_id, answer in self._answers.items() if not answer.is_complete()]

    def on_message(self, data: bytes) -> None:
        """Takes one part of an answer."""
        if self._seal is not None:
            try:
                data = self._seal.open("answer", self._channel, data)
            except NotSigned as error:
                damaged_data.warn(log, "answer to an order", "an answer is ignored", error)
                return
        head, _, text = data.partition(b"\n")
        words = text_of(head).split(" ")
        if len(words) != 3 or not (words[1].isdecimal() and words[2].isdecimal()) or len(head) > 500:
            damaged_data.warn(log, "answer to an order", "an answer could not be read", repr(head[:100]))
            return
        answer = self._answers.get(words[0])
        number, count = int(words[1]), int(words[2])
        if answer is None or answer.is_complete() or not number < count <= MOST_PARTS:
            return
        answer.count = count
        answer.parts[number] = text
        if answer.is_complete():
            answer.seconds = self._now() - self.sent_at
            if not self.missing():
                self._complete.set()

    async def until_complete(self, timeout: float) -> None:
        """Waits until all have answered, at most so many seconds."""
        with suppress(TimeoutError):
            async with asyncio.timeout(max(0.0, timeout)):
                await self._complete.wait()
