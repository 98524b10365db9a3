"""Sees to it that what one shard has for another gets there, also when whoever should have told it died."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from asyncq.broker.broker import Broker


class Courier:
    """Looks into the outbox of every shard, three times a lease.

    Args:
        broker: whose errands it runs.
        lease: in seconds.
    """

    def __init__(self, broker: Broker, lease: float) -> None:
        self._broker = broker
        self._lease = lease

    async def run(self) -> None:
        """For ever; with one shard there is nothing to do."""
        while not self._broker.shards.is_one:
            for shard in self._broker.shards:
                self._broker.relay.call(shard)
            await asyncio.sleep(self._lease / 3)
