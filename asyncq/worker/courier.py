"""Sees to it that what one shard has for another gets there, also when whoever should have told it died."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from asyncq.broker.commands import Commands


class Courier:
    """Looks into the outbox of every shard, three times a lease.

    Args:
        commands: of the session.
        lease: in seconds.
    """

    def __init__(self, commands: Commands, lease: float) -> None:
        self._commands = commands
        self._lease = lease

    async def run(self) -> None:
        """For ever; with one shard there is nothing to do."""
        while not self._commands.shards.is_one:
            self._commands.forward(*self._commands.shards)
            await asyncio.sleep(self._lease / 3)
