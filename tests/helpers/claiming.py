"""A consumer with its claims: a worker at the level of the scripts, which reads entries and ends claims."""

from __future__ import annotations

from typing import TYPE_CHECKING

from asyncq.broker.claims import Claims
from asyncq.broker.consumer import Consumer
from asyncq.broker.history import History

if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Any

    from asyncq.broker.commands import Commands
    from asyncq.broker.schema.keys import Keys


class ClaimingConsumer(Consumer):
    """A consumer with its claims. Its history is one of its own, or the given one."""

    def __init__(
        self, commands: Commands, worker: str, queues: Sequence[str], history: History | None = None
    ) -> None:
        super().__init__(commands, worker, queues)
        self._sends = commands
        self.claims = Claims(commands, self.served, self.name, lambda _: None, history or History(commands))

    async def beat(self, keys: Keys, count: int = 1) -> Any:
        """Beats in one shard. Returns the script's answer."""
        return await self._sends.run(
            keys,
            "beat",
            (keys.beats, keys.beat_observations, keys.observations, keys.signals + self.name),
            (self.name, count),
        )
