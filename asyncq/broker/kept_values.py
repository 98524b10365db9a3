"""Values of ended jobs that are kept once for several jobs, which waited for them: read by each when it runs.

A job's entry has the name of such a value in its place. It is there until the last of those jobs has ended,
so one that is taken from a dead worker reads it again.
"""

from __future__ import annotations

import asyncio
from functools import partial
from typing import TYPE_CHECKING

from asyncq import wire
from asyncq.broker.transport.server_error import ErrorAction, ServerError
from asyncq.errors import DecodeError

if TYPE_CHECKING:
    from asyncq.broker.commands import Commands
    from asyncq.broker.schema.keys import Keys


class KeptValues:
    """Reads them. Those that several jobs of this process ask for at the same time are read once.

    Args:
        commands: of the session.
    """

    def __init__(self, commands: Commands) -> None:
        self._commands = commands
        self._reads: dict[str, asyncio.Task[bytes | None]] = {}

    async def filled(self, keys: Keys, values: bytes, timeout: float | None = None) -> bytes:
        """The values that a job gets, with those that are kept once in their places. One that is not there,
        or values that nobody can read, are left as they are: the job fails then.

        Args:
            keys: of the shard of the job.
            values: as its entry has them.
            timeout: as of `Commands.send`, whose errors it raises.
        """
        try:
            pieces = wire.pieces_of(values)
        except (DecodeError, UnicodeDecodeError):
            return values
        filled: list[bytes] = []
        for piece in pieces:
            if isinstance(piece, bytes):
                filled.append(piece)
                continue
            outcome = await self._read(keys.kept + piece.name, keys, timeout)
            filled.append(piece.frame if outcome is None else wire.frame(piece.id, piece.letter, outcome))
        return b"".join(filled)

    async def _read(self, key: str, keys: Keys, timeout: float | None) -> bytes | None:
        read = self._reads.get(key)
        if read is None:
            read = self._reads[key] = asyncio.create_task(self._fetch(key, keys, timeout))
            read.add_done_callback(partial(self._done, key))
        # Others may wait for the same: one that is cancelled takes it from nobody.
        return await asyncio.shield(read)

    def _done(self, key: str, read: asyncio.Task[bytes | None]) -> None:
        del self._reads[key]
        if not read.cancelled():
            read.exception()  # whoever waited has been told; where nobody waits any more, nobody need be

    async def _fetch(self, key: str, keys: Keys, timeout: float | None) -> bytes | None:
        try:
            [outcome] = await self._commands.send(keys, "HMGET", key, "o", timeout=timeout)
        except ServerError as error:
            if error.action is not ErrorAction.FATAL:
                raise
            return None  # no hash of ours
        return outcome  # type: ignore[no-any-return]
