"""Finds jobs that wait for an end which never comes, because a primary of a Cluster was lost with it.

Jobs of one workflow may lie in several shards, and the primaries of these are lost at different moments. A
new primary may lack a job whose dependent lies in another shard, or the end of a job in another shard that it
had been told. No message is under way then that would ever start the dependent.

Lives on the session's loop. A job waits for `n` ends. Of its parents, some have not ended yet. If these are
fewer than `n`, an end is on its way, or it is lost. So whoever asks has the outboxes delivered, and asks
twice.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from asyncq import failures, wire
from asyncq.broker.early_end import early_end
from asyncq.broker.schema.keys import name_from, name_to, text_of
from asyncq.errors import ResultNotFound

if TYPE_CHECKING:
    from collections.abc import Sequence

    from asyncq.broker.commands import Commands
    from asyncq.broker.schema.keys import Keys

AT_ONCE = 500
"""So many keys are looked at by one call, and so many records are read."""


class LostParents:
    """Finds the jobs of a namespace whose parents are lost, and ends them.

    Args:
        commands: of the session.
    """

    def __init__(self, commands: Commands) -> None:
        self._commands = commands

    async def waiting_in_vain(self, keys: Keys) -> dict[str, int]:
        """Returns the jobs of a shard that wait for more ends than they have parents which have not ended,
        each with the number of ends. Looks at all keys of the server that has the shard, a part in each call.
        Raises as `Commands.send`.
        """
        found: dict[str, int] = {}
        cursor = "0"
        start = len(keys.messages.encode())
        while True:
            answer, messages = await self._commands.send(
                keys, "SCAN", cursor, "MATCH", keys.messages + "*", "COUNT", AT_ONCE
            )
            found |= await self._in_vain(keys, [name_from(key[start:]) for key in messages])
            cursor = text_of(answer)
            if cursor == "0":
                return found

    async def _in_vain(self, keys: Keys, ids: Sequence[str]) -> dict[str, int]:
        send = self._commands.send
        descriptions = await asyncio.gather(
            *(send(keys, "HMGET", keys.messages.encode() + name_to(id_), "p", "n") for id_ in ids)
        )
        waits: dict[str, tuple[list[str], int]] = {}
        for id_, (parents, left) in zip(ids, descriptions, strict=True):
            number = None if left is None else wire.number_in(left, wire.MOST_COUNTED)
            if parents is not None and number is not None:
                waits[id_] = (text_of(parents).split(), number)
        letters = await self._letters([*waits, *{one for parents, _ in waits.values() for one in parents}])
        return {
            id_: left
            for id_, (parents, left) in waits.items()
            if letters[id_] == wire.WAITING and left > sum(letters[one] in wire.NOT_ENDED for one in parents)
        }

    async def _letters(self, ids: Sequence[str]) -> dict[str, str]:
        """Returns the status code of each job; empty for one without a record."""
        found: dict[str, str] = {}
        for number, some in self._commands.shards.apportion(ids).items():
            keys = self._commands.shards[number]
            for first in range(0, len(some), AT_ONCE):
                part = some[first : first + AT_ONCE]
                names = [keys.records.encode() + name_to(id_) for id_ in part]
                records = await self._commands.send(keys, "MGET", *names)
                found |= {id_: text_of(record or b"")[:1] for id_, record in zip(part, records, strict=True)}
        return found

    async def end(self, keys: Keys, id_: str) -> None:
        """Ends a job that waits in vain. Whoever waits for it gets `ResultNotFound`, as those who wait for a
        job that is lost. Raises as `Commands.run`.
        """
        error = ResultNotFound(
            f"job {id_!r} waited for another job, which was lost: the server that had it was replaced"
        )
        outcome = wire.encode_ended(wire.Ended(wire.FAILED, failures.encode(error)))
        ttl, seal = self._commands.settings.result_ttl, self._commands.seal
        call = early_end(keys, id_, wire.FAILED, outcome, ttl, signal="", seal=seal)
        await self._commands.run(keys, "revoke", call.keys, call.arguments)
