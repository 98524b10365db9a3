"""Polls the outboxes of all shards, so that their entries are delivered even if their writer died.

A background task of a worker session, on the worker's loop. Normally the writer's own forwarder delivers the
entries at once.
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
        commands: the commands of the session.
        lease: the lease in seconds.
    """

    def __init__(self, commands: Commands, lease: float) -> None:
        self._commands = commands
        self._lease = lease

    async def run(self) -> None:
        """Polls until it is cancelled."""
        await forever(self._poll, ErrorLog(log, "the outboxes could not be read; trying again"))

    async def _poll(self) -> None:
        self._commands.forward(*self._commands.shards)
        await asyncio.sleep(self._lease / 3)
