"""Polls the outboxes, so that entries reach their shards also when the process that wrote them has died. Runs
on the worker's loop.
"""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING

from asyncq.broker.background import ErrorLog, forever

if TYPE_CHECKING:
    from asyncq.broker.commands import Commands

log: logging.Logger = logging.getLogger(__name__)


class OutboxPoller:
    """Polls the outbox of every shard, three times a lease.

    Args:
        commands: of the session.
        lease: in seconds.
    """

    def __init__(self, commands: Commands, lease: float) -> None:
        self._commands = commands
        self._lease = lease

    async def run(self) -> None:
        """For ever."""
        await forever(self._look, ErrorLog(log, "the outboxes could not be looked at; trying again"))

    async def _look(self) -> None:
        self._commands.forward(*self._commands.shards)
        await asyncio.sleep(self._lease / 3)
