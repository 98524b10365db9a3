"""Logs whether this worker signs what it stores, and which other workers do not work together with it.

On the worker's loop. A worker asks when it begins, and then twice a day: each question reads something of
every other worker. One that is started later asks, too, and each job that this worker refuses is an error in
its log.
"""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING

from asyncq.broker.schema.keys import DAY_MS
from asyncq.broker.transport.background import ErrorLog, forever

if TYPE_CHECKING:
    from asyncq.broker.broker import Broker

log: logging.Logger = logging.getLogger(__name__)

AGAIN = DAY_MS / 2000
"""Seconds between two questions for the other workers."""


class SigningLog:
    """Logs what an operator must know of secrets.

    Args:
        broker: of the session.
    """

    def __init__(self, broker: Broker) -> None:
        self._broker = broker
        self._logged: set[str] = set()

    async def run(self) -> None:
        """Logs whether messages are signed, and compares, now and then, until it is cancelled."""
        settings, seal = self._broker.settings, self._broker.commands.seal
        if seal is not None:
            log.info(
                "messages of namespace %r are signed%s with secret %s%s",
                settings.namespace,
                " and encrypted" if settings.encrypt else "",
                seal.names[0],
                f"; accepted with {', '.join(seal.names[1:])}, too" if seal.names[1:] else "",
            )
        await forever(self._turn, ErrorLog(log, "the secrets of other workers could not be compared"))

    async def _turn(self) -> None:
        await self.compare()
        await asyncio.sleep(AGAIN)

    async def compare(self) -> None:
        """Logs a warning for each worker that does not work together with this one, once."""
        seal = self._broker.commands.seal
        others, refusing = await self._broker.workers.strangers()
        for name in others:
            if seal is None:
                self._warn(
                    name,
                    "worker %r signs its messages, and this worker has no secrets: each refuses the jobs and "
                    "outcomes of the other; set ASYNCQ_SECRETS here, too",
                )
            else:
                self._warn(
                    name,
                    "worker %r has no secrets, and this worker signs its messages: each refuses the jobs and "
                    "outcomes of the other; set ASYNCQ_SECRETS there, too",
                )
        for name in refusing:
            self._warn(
                name,
                "worker %r does not accept the secret with which this worker signs: add it there, behind "
                "the others",
            )

    def _warn(self, name: str, text: str) -> None:
        if name not in self._logged:
            self._logged.add(name)
            log.warning(text, name)
