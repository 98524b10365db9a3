"""Sends off what has ended: all that ended in one turn of the loop in one call, and at most two calls under
way, so that the next one gathers while they are. A lone job never waits for company.
"""

from __future__ import annotations

import asyncio
import logging
from functools import partial
from typing import TYPE_CHECKING, Any

from asyncq import failpoints
from asyncq.broker.background import BackgroundTasks, unexpected
from asyncq.broker.commands import FOREVER

if TYPE_CHECKING:
    from collections.abc import Callable

    from asyncq import wire
    from asyncq.broker.commands import Commands
    from asyncq.broker.consumer import Consumer

log: logging.Logger = logging.getLogger(__name__)

BATCH = 250
UNDER_WAY = 2


class Finisher:
    """Stores outcomes in batches.

    Args:
        commands: of the session.
        consumer: the incarnation that holds the entries.
        held: how many entries the worker holds, at the moment of asking.
        on_done: called for each delivery when the server has answered: it is no longer held.
    """

    def __init__(
        self,
        commands: Commands,
        consumer: Consumer,
        held: Callable[[], int],
        on_done: Callable[[wire.Delivery], None],
    ) -> None:
        self._commands = commands
        self._consumer = consumer
        self._held = held
        self._on_done = on_done
        self._loop = asyncio.get_running_loop()
        self._waiting: dict[str, list[tuple[wire.Delivery, str, bytes]]] = {}
        self._scheduled = False
        self._under_way = 0
        self._tasks = BackgroundTasks(log)
        self._empty = asyncio.Event()
        self._empty.set()

    def add(self, delivery: wire.Delivery, letter: str, outcome: bytes) -> None:
        """A job has ended."""
        waiting = self._waiting.get(delivery.stream)
        if waiting is None:
            self._waiting[delivery.stream] = [(delivery, letter, outcome)]
            self._empty.clear()
        else:
            waiting.append((delivery, letter, outcome))
        if not self._scheduled and self._under_way < UNDER_WAY:
            self._scheduled = True
            self._loop.call_soon(self._send)

    async def drain(self) -> None:
        """Waits until everything that was added is stored."""
        await self._empty.wait()

    def _send(self) -> None:
        self._scheduled = False
        while self._waiting and self._under_way < UNDER_WAY:
            stream, waiting = next(iter(self._waiting.items()))
            batch, rest = waiting[:BATCH], waiting[BATCH:]
            if rest:
                self._waiting[stream] = rest
            else:
                del self._waiting[stream]
            self._under_way += 1
            try:
                command = self._consumer.finish_command(stream, self._held(), batch)
                failpoints.hit("finish.send")
                shard = self._consumer.shard(stream)
                self._commands.post(shard, command, partial(self._answered, command, batch))
            except Exception as error:  # noqa: BLE001  nothing that one batch does may keep the others here
                self._give_up(batch, error)

    def _answered(
        self, command: tuple[Any, ...], batch: list[tuple[wire.Delivery, str, bytes]], answer: Any
    ) -> None:
        if isinstance(answer, Exception):
            self._again(command, batch)
            return
        failpoints.hit("finish.answered")
        self._done(batch, answer)

    def _again(self, command: tuple[Any, ...], batch: list[tuple[wire.Delivery, str, bytes]]) -> None:
        self._tasks.start(self._persist(command, batch))

    async def _persist(self, command: tuple[Any, ...], batch: list[tuple[wire.Delivery, str, bytes]]) -> None:
        """The first try failed: try until there is an answer. Sent twice is once."""
        try:
            answer = await self._commands.send(
                self._consumer.shard(batch[0][0].stream), *command, patience=FOREVER
            )
        except Exception as error:  # noqa: BLE001  each call under way must come to its end, see `UNDER_WAY`
            self._give_up(batch, error)
        else:
            self._done(batch, answer)

    def _give_up(self, batch: list[tuple[wire.Delivery, str, bytes]], error: Exception) -> None:
        """Lets go of outcomes that cannot be stored: the entries stay pending, and the jobs run again.

        NOGROUP: the server lost its data, and the jobs with it. The app was closed while the server was away.
        Or it is a fault that sending again would not mend.
        """
        log.error("%d outcomes could not be stored: %s", len(batch), error, exc_info=unexpected(error))
        self._done(batch, len(batch))

    def _done(self, batch: list[tuple[wire.Delivery, str, bytes]], answer: Any) -> None:
        for delivery, _, _ in batch:
            self._on_done(delivery)
        # Before anything that could fail: a call that is counted for ever would leave no room for another.
        self._under_way -= 1
        if type(answer) is not int:
            for (delivery, _, _), accepted in zip(batch, answer, strict=True):
                if not accepted:
                    log.warning(
                        "the outcome of job %r was refused: it was taken over while this worker was away",
                        delivery.job.id,
                    )
        if not self._commands.shards.is_one:
            self._consumer.passed_on(batch)
        if self._waiting:
            self._send()
        elif not self._under_way:
            self._empty.set()
