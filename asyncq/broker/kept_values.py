"""Reads kept values: outcomes of ended jobs that several dependents need, and that the server stores once for
all of them. A worker reads one when it runs such a dependent. Runs on the loop of its session.

A job's entry holds the name of a kept value in the place of the value. The value is there until the last of
the dependents has ended, so a job that is taken from a dead worker can read it again.
"""

from __future__ import annotations

import asyncio
from functools import partial
from typing import TYPE_CHECKING

from asyncq import wire
from asyncq.broker.transport.server_error import ErrorAction, ServerError
from asyncq.errors import DecodeError
from asyncq.system.tasks import read_error

if TYPE_CHECKING:
    from asyncq.broker.commands import Commands
    from asyncq.broker.schema.keys import Keys


class KeptValues:
    """Reads kept values. A value that several jobs of this session ask for at the same time is read once.

    Args:
        commands: of the session.
    """

    def __init__(self, commands: Commands) -> None:
        self._commands = commands
        self._reads: dict[str, asyncio.Task[bytes | None]] = {}

    async def filled(self, keys: Keys, values: bytes, timeout: float | None = None) -> bytes:
        """Returns the values that a job gets from its parents, with each name replaced by the kept value. A
        name without a value, and values that cannot be decoded, stay as they are: the job then fails. Raises
        as `Commands.send`, and with secrets `NotSigned` if one of the values is not signed.

        Args:
            keys: of the job's shard.
            values: as the job's entry has them.
            timeout: as of `Commands.send`.
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
        if (seal := self._commands.seal) is not None:
            return seal.open_values(b"".join(filled))
        return b"".join(filled)

    async def _read(self, key: str, keys: Keys, timeout: float | None) -> bytes | None:
        """Returns a kept value, or None. Joins a read of the same value that is under way."""
        read = self._reads.get(key)
        if read is None:
            read = self._reads[key] = asyncio.create_task(self._fetch(key, keys, timeout))
            read.add_done_callback(partial(self._done, key))
        # Other jobs may wait for the same read. The shield keeps the cancellation of one from ending it.
        return await asyncio.shield(read)

    def _done(self, key: str, read: asyncio.Task[bytes | None]) -> None:
        del self._reads[key]
        read_error(read)  # all its waiters may have been cancelled

    async def _fetch(self, key: str, keys: Keys, timeout: float | None) -> bytes | None:
        """Reads a kept value; returns None if there is none."""
        try:
            [outcome] = await self._commands.send(keys, "HMGET", key, "o", timeout=timeout)
        except ServerError as error:
            if error.action is not ErrorAction.FATAL:
                raise
            return None  # the key holds no hash, so asyncq has not written it
        return outcome  # type: ignore[no-any-return]
