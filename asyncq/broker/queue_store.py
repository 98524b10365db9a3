"""Reads and changes queues for an operator: which there are, how many jobs each has, whether it is paused.

`control.queues` calls it, on the session's loop. Each call to the server is for a bounded part: some queues,
or some hundred jobs. So a queue of a million jobs holds up nobody.

Which queues there are, and which of them are paused, is stored in shard 0 only. Workers read it there, see
`Consumer.find_paused`, and clients and workers add the queues that they use, see `known_queues`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from asyncq import wire
from asyncq.broker.queue_figures import measured
from asyncq.broker.schema.keys import GROUP, LAST_ATTEMPT, leveled, result_ttl_ms, text_of

if TYPE_CHECKING:
    from collections.abc import Sequence

    from asyncq.broker.commands import Commands
    from asyncq.broker.known_queues import KnownQueues
    from asyncq.broker.queue_figures import QueueFigures
    from asyncq.broker.schema.keys import Keys

MEASURED_AT_ONCE = 20
"""Most queues that one call measures: a queue may have 75 streams."""
PAUSES_AT_ONCE = 1000
"""Most queues of which one command asks whether they are paused."""
PURGED_AT_ONCE = 100
"""Most jobs that one call ends. The server serves nobody else during a call: two milliseconds."""
PURGED_BYTES = 1024 * 1024
"""With so many bytes of messages a call ends no further job: it reads them."""


class QueueStore:
    """The queues of all shards. Everything here raises as `Commands.run`.

    Args:
        commands: of the session.
        own: the queues that the session itself notes.
    """

    def __init__(self, commands: Commands, own: KnownQueues) -> None:
        self._commands = commands
        self._own = own

    async def known(self) -> list[str]:
        """Returns the names of all queues that were ever served, paused, or enqueued to, sorted."""
        keys = self._commands.shards[0]
        self._own.send()  # on the same connection, so the answer has them
        return sorted(map(text_of, await self._commands.send(keys, "SMEMBERS", keys.known_queues)))

    async def paused(self, queues: Sequence[str]) -> set[str]:
        """Returns those of the queues that are paused."""
        keys = self._commands.shards[0]
        found: set[str] = set()
        for first in range(0, len(queues), PAUSES_AT_ONCE):
            some = queues[first : first + PAUSES_AT_ONCE]
            since = await self._commands.send(keys, "MGET", *(keys.paused + queue for queue in some))
            found.update(queue for queue, at in zip(some, since, strict=True) if at is not None)
        return found

    async def set_paused(self, queue: str, *, paused: bool) -> bool:
        """Pauses a queue, or lets it go on. Returns whether that changes anything."""
        keys = self._commands.shards[0]
        arguments = (queue, keys.new_levels, "1" if paused else "")
        answer = await self._commands.run(keys, "pause", (keys.paused + queue, keys.known_queues), arguments)
        return bool(answer)

    async def figures(self, queues: Sequence[str]) -> dict[str, QueueFigures]:
        """Returns how many jobs each of the queues has, in all shards together."""
        found: dict[str, QueueFigures] = {}
        for first in range(0, len(queues), MEASURED_AT_ONCE):
            found |= await measured(self._commands, queues[first : first + MEASURED_AT_ONCE])
        return found

    async def streams(self, keys: Keys, queue: str) -> list[str]:
        """Returns the streams of a queue in a shard, by their names in records: that of each level, of each
        executor queue and returned queue, and of the last-attempt queue.
        """
        levels = sorted(map(text_of, await self._commands.send(keys, "SMEMBERS", keys.levels + queue)))
        return [queue + LAST_ATTEMPT, queue, *(leveled(queue, level) for level in levels)]

    async def purge(self, queue: str, older_than: float, outcome: bytes) -> int:
        """Ends the jobs of a queue that no worker has, and returns how many.

        Args:
            queue: the queue.
            older_than: only jobs that have been in the queue for so many seconds. Jobs that come while this
                runs stay in any case.
            outcome: of each of the jobs, encoded.
        """
        counts = [
            await self._purge_in(keys, name, older_than, outcome)
            for keys in self._commands.shards
            for name in await self.streams(keys, queue)
        ]
        if not self._commands.shards.is_one:
            # Jobs in other shards may wait for these. There may be no worker that would forward their ends.
            await self._commands.forwarded(*self._commands.shards)
        return sum(counts)

    async def _purge_in(self, keys: Keys, name: str, older_than: float, outcome: bytes) -> int:
        seconds, microseconds = await self._commands.send(keys, "TIME")
        if (seal := self._commands.seal) is not None:
            outcome = seal.shared_outcome(wire.REVOKED, outcome)
        until = int(seconds) * 1000 + int(microseconds) // 1000 - round(older_than * 1000)
        ttl = result_ttl_ms(self._commands.settings.result_ttl)
        arguments = (
            *(keys.key_prefix, GROUP, max(0, until), PURGED_AT_ONCE, PURGED_BYTES),
            *(outcome, ttl, wire.PUSH_LIMIT),
        )
        ended: int = 0
        while True:
            count: int
            count, has_more = await self._commands.run(keys, "purge", (keys.stream(name),), arguments)
            ended += count
            if not has_more:
                return ended
