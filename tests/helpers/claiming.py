"""A worker's two sides at the level of the scripts: it reads, and what it has read leaves its hands."""

from __future__ import annotations

from typing import TYPE_CHECKING

from asyncq.broker.claims import Claims
from asyncq.broker.consumer import Consumer

if TYPE_CHECKING:
    from collections.abc import Sequence

    from asyncq.broker.commands import Commands


class ClaimingConsumer(Consumer):
    """A consumer with its claims."""

    def __init__(self, commands: Commands, worker: str, queues: Sequence[str]) -> None:
        super().__init__(commands, worker, queues)
        self.claims = Claims(commands, self.served, self.name, lambda: 1, lambda _: None)
