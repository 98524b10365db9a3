"""Takes the orders of an operator to this worker: to answer, to take no more jobs, to stop, to show stacks.

Orders come on the channel of the worker session, see `broker.order_messages`. Everything runs on the worker's
loop, so an answer also says that the loop turns.
"""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING

from asyncq.broker import order_messages as messages
from asyncq.broker.schema import damaged_data
from asyncq.system.threads import in_daemon_thread
from asyncq.wire import NotSigned

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine
    from typing import Any

    from asyncq.broker.commands import Commands
    from asyncq.broker.consumer import Consumer
    from asyncq.broker.transport.background import BackgroundTasks
    from asyncq.worker.held_jobs import HeldJobs
    from asyncq.worker.worker import Worker

log: logging.Logger = logging.getLogger(__name__)


class Orders:
    """Carries out the orders to one worker session.

    Args:
        worker: the worker.
        commands: publishes the answers.
        consumer: of the session.
        held: the jobs of the session.
        background: starts what takes longer.
        report: reports the status of the worker, when an order has changed it.
    """

    def __init__(
        self,
        worker: Worker,
        commands: Commands,
        consumer: Consumer,
        held: HeldJobs,
        background: BackgroundTasks,
        report: Callable[[], Coroutine[Any, Any, None]],
    ) -> None:
        self._worker = worker
        self._commands = commands
        self._consumer = consumer
        self._held = held
        self._background = background
        self._report = report

    def on_message(self, data: bytes) -> None:
        """Handles a message on the channel of the session. Ignores what is no order."""
        if not data.startswith(messages.SIGN):
            return
        consumer = self._consumer
        if consumer.seal is not None:
            try:
                data = messages.opened(data, consumer.name, consumer.seal)
            except NotSigned as error:
                damaged_data.warn(log, "order", "an order to this worker is ignored", error)
                return
        order = messages.order_in(data, consumer.shards[0].replies)
        match order:
            case (messages.PING, channel):
                self._answer(channel)
            case (messages.PAUSES, channel):
                self._background.start(self._read_pauses(channel))
            case (messages.QUIET | messages.GO_ON as what, channel):
                self._worker.quiet(on=what == messages.QUIET)
                self._background.start(self._report())
                self._answer(channel)
            case (messages.STOP, channel):
                self._stop()
                self._answer(channel)
            case (messages.STACKS, channel):
                self._background.start(self._show_stacks(channel))
            case _:
                damaged_data.warn(log, "order", "an order to this worker could not be read", repr(data[:200]))

    def _answer(self, channel: str, text: str = "") -> None:
        keys, publish = self._consumer.shards[0], self._commands.connections.pubsub.publish
        seal = self._consumer.seal
        for part in messages.parts_of(self._consumer.name, text):
            if seal is not None:
                part = seal.close("answer", channel, part)  # noqa: PLW2901
            self._commands.post(keys, (publish, channel, part), None, now=True)

    def _stop(self) -> None:
        if self._worker.stopping_since is None:
            grace = self._worker.grace
            log.info("an operator has asked this worker to stop: running jobs have %g s to end", grace)
        self._worker.drain()

    async def _read_pauses(self, channel: str) -> None:
        """Answers when this session reads from no paused queue any more."""
        await self._consumer.find_paused()
        # A read that was given up is closed by the loop a turn later, and the answer must come behind that:
        # the server must not give jobs to that read when the operator has the answer.
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        self._answer(channel)

    async def _show_stacks(self, channel: str) -> None:
        # Imported only here: most workers are never asked, and each saves its memory.
        from asyncq.worker.stacks import formatted, stacks_of

        jobs = list(self._held.jobs.values())
        stacks = stacks_of(jobs)
        # In a thread, because it reads the lines of the source.
        text = await in_daemon_thread(formatted, stacks)
        self._answer(channel, f"worker {self._worker.name}, {len(jobs)} jobs\n\n{text}")
