"""Reads and deletes dead letters: the jobs that were given up, kept for an operator in one stream per shard.
`control.dead_letters` calls it, on the session's loop. `Claims` writes them, in the step that ends the job.
"""

from __future__ import annotations

import asyncio
import re
from contextlib import suppress
from typing import TYPE_CHECKING, Final

from asyncq import wire
from asyncq.broker.schema.keys import queue_of, text_of
from asyncq.errors import DecodeError
from asyncq.system import clock
from asyncq.wire import NotSigned

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from asyncq.broker.commands import Commands
    from asyncq.broker.kept_values import KeptValues
    from asyncq.broker.schema.keys import Keys

AT_ONCE = 10
"""Most dead letters that one command reads."""
LARGEST = 2**64 - 1
"""The server refuses an entry id with a larger number in one of its two parts."""

PROBLEM: Final = b"problem"
"""Not a field at the server: why the message of a dead letter is left out."""

_LETTER = re.compile(r"([0-9]{1,20}-[0-9]{1,20})(?:\.([0-9]{1,3}))?")
"""The id of a dead letter: its entry, and behind a point its shard if there are several."""


class DeadLetterStore:
    """The dead letters of all shards. Everything here raises as `Commands.run`.

    Args:
        commands: of the session.
        kept: reads the values that a job shares with others.
    """

    def __init__(self, commands: Commands, kept: KeptValues) -> None:
        self._commands = commands
        self._kept = kept

    async def newest(self, limit: int) -> list[tuple[str, dict[bytes, bytes]]]:
        """Returns the ids and fields of the newest dead letters, the newest first. Leaves out those that are
        older than `dead_ttl`.

        Args:
            limit: at most so many.
        """
        answers = await asyncio.gather(*(self._newest_in(keys, limit) for keys in self._commands.shards))
        letters = [
            (entry.decode(), shard, fields)
            for shard, answer in enumerate(answers)
            for entry, fields in answer
        ]
        letters.sort(key=lambda letter: [int(part) for part in letter[0].split("-")], reverse=True)
        return [
            (entry if self._commands.shards.is_one else f"{entry}.{shard}", self._opened(_pairs(fields)))
            for entry, shard, fields in letters[:limit]
        ]

    async def _newest_in(self, keys: Keys, limit: int) -> list[tuple[bytes, list[bytes]]]:
        """Returns the newest of one shard. Reads few at a time: each may hold a long message."""
        oldest = int((clock.now() - self._commands.settings.dead_ttl) * 1000)
        found: list[tuple[bytes, list[bytes]]] = []
        before = "+"
        while len(found) < limit:
            count = min(AT_ONCE, limit - len(found))
            some = await self._commands.send(keys, "XREVRANGE", keys.dead, before, oldest, "COUNT", count)
            found += some
            if len(some) < count:
                break
            before = f"({some[-1][0].decode()}"
        return found

    async def one(self, id: str) -> dict[bytes, bytes] | None:
        """Returns the fields of one dead letter, with the values that its job shared with others; None if
        there is no such letter.
        """
        for keys, entry in self._places([id]):
            if answer := await self._commands.send(keys, "XRANGE", keys.dead, entry, entry):
                fields = self._opened(_pairs(answer[0][1]))
                if b"v" in fields:
                    try:
                        fields[b"v"] = await self._kept.filled(keys, fields[b"v"])
                    except NotSigned as error:
                        del fields[b"v"]
                        fields[PROBLEM] = str(error).encode("utf-8", "replace")
                return fields
        return None

    def _opened(self, fields: dict[bytes, bytes]) -> dict[bytes, bytes]:
        """Returns the fields of a dead letter as they were before they were signed or encrypted. What is not
        signed is left out, and `PROBLEM` says what is wrong with the message.
        """
        seal = self._commands.seal
        if seal is None:
            return fields
        id_, queue = text_of(fields.get(b"i", b"")), queue_of(text_of(fields.get(b"q", b"")))
        opened = {name: value for name, value in fields.items() if name not in {b"m", b"o"}}
        try:
            if b"m" in fields:
                values = fields.get(b"v")
                message = seal.open_message(id_, queue, fields[b"m"], values, any_age=True)
                job = wire.decode_job(id_, queue, message)
                opened[b"m"] = message
                if values is not None:
                    opened[b"v"] = seal.checked_values(job, values)
        except DecodeError as error:
            opened[PROBLEM] = str(error).encode("utf-8", "replace")
        for letter in (wire.FAILED, wire.LOST):  # a job that took its worker down has the second
            with suppress(DecodeError):
                if b"o" in fields:
                    opened[b"o"] = seal.open_outcome(id_, letter, fields[b"o"])
                    break
        return opened

    async def delete(self, ids: list[str]) -> int:
        """Deletes dead letters. Returns how many of them existed."""
        by_shard: dict[int, list[str]] = {}
        for keys, entry in self._places(ids):
            by_shard.setdefault(keys.shard, []).append(entry)
        deleted = 0
        for number, entries in by_shard.items():
            keys = self._commands.shards[number]
            deleted += await self._commands.send(keys, "XDEL", keys.dead, *entries)
        return deleted

    def _places(self, ids: Iterable[str]) -> Iterator[tuple[Keys, str]]:
        """Yields the shard and the entry of each id. Skips a text that cannot be an id."""
        for id_ in ids:
            found = _LETTER.fullmatch(id_)
            if found is None or max(map(int, found[1].split("-"))) > LARGEST:
                continue
            if (shard := int(found[2] or 0)) < self._commands.shards.count:
                yield self._commands.shards[shard], found[1]


def _pairs(fields: list[bytes]) -> dict[bytes, bytes]:
    return dict(zip(fields[::2], fields[1::2], strict=True))
