"""Reads which worker sessions there are, what they say of themselves and what they announce, for an operator.
`control` calls it, on the session's loop; a worker stores with it what it says of itself.

A session is registered from its first heartbeat until it leaves or is taken for dead. If no other worker is
there, nobody takes a dead one for dead, so a listing says when each was last seen. All is read in shard 0,
for a worker registers in every shard.
"""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING, NamedTuple

from asyncq import wire
from asyncq.broker.announcements import SIGNS
from asyncq.broker.schema import damaged_data
from asyncq.broker.schema.keys import DAY_MS, name_from, name_to, text_of
from asyncq.errors import DecodeError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from asyncq.broker.commands import Commands

log: logging.Logger = logging.getLogger(__name__)

ASKED_AT_ONCE = 500
"""Most worker sessions that are asked for at once."""
STATUS_FIELD = "i"
"""The field of an announcement that has the status; the others begin with `t` or `q`."""


class RegisteredWorker(NamedTuple):
    """One worker session.

    Attributes:
        session_id: its id: the name of the worker, and a token.
        status: what it has said of itself; None if it has said nothing that can be read.
        seen: when it said that, in ms since the epoch by the server's clock.
        is_live: whether it has said something within its last two leases.
    """

    session_id: str
    status: wire.WorkerStatus | None
    seen: int | None
    is_live: bool

    @property
    def name(self) -> str:
        """The name of the worker."""
        return text_of(name_to(self.session_id)).rpartition("-")[0]


class WorkerStore:
    """The worker sessions of a namespace. Everything here raises as `Commands.run`.

    Args:
        commands: of the session.
    """

    def __init__(self, commands: Commands) -> None:
        self._commands = commands

    async def all(self) -> list[RegisteredWorker]:
        """Returns all registered worker sessions, by their names."""
        keys = self._commands.shards[0]
        beats, time = await asyncio.gather(
            self._commands.send(keys, "HGETALL", keys.beats), self._commands.send(keys, "TIME")
        )
        now = int(time[0]) * 1000 + int(time[1]) // 1000
        sessions = sorted(map(name_from, beats))
        found = await self.announced(sessions, STATUS_FIELD)
        return [_registered(one, data[0], now) for one, data in zip(sessions, found, strict=True)]

    async def report(self, session_id: str, status: wire.WorkerStatus) -> None:
        """Stores what a worker session says of itself, with what it announces."""
        keys = self._commands.shards[0]
        await self._commands.run(
            keys,
            "report_status",
            (keys.beats, keys.announcements + session_id),
            (session_id, wire.encode_status(status), DAY_MS),
        )

    async def strangers(self) -> tuple[list[str], list[str]]:
        """Returns the names of the live workers that do not work together with the secrets of this process:
        those that sign nothing, or, if this process has no secrets, those that sign; and those that do not
        accept the secret with which this process signs.
        """
        seal = self._commands.seal
        fields = [SIGNS] if seal is None else [SIGNS, SIGNS + seal.names[0]]
        live = [worker for worker in await self.all() if worker.is_live and worker.status is not None]
        found = await self.announced([worker.session_id for worker in live], *fields)
        others: list[str] = []
        refusing: list[str] = []
        for worker, (signs, *accepts) in zip(live, found, strict=True):
            if (signs is None) is (seal is not None):
                others.append(worker.name)
            elif None in accepts:
                refusing.append(worker.name)
        return others, refusing

    async def announced(self, sessions: Sequence[str], *fields: str) -> list[list[bytes | None]]:
        """Returns some fields of what each session announces: `q<queue>` for a queue that it serves,
        `t<task>` for a task that it knows.
        """
        keys = self._commands.shards[0]
        answers: list[list[bytes | None]] = []
        for first in range(0, len(sessions), ASKED_AT_ONCE):
            calls = [
                self._commands.send(keys, "HMGET", keys.announcements.encode() + name_to(session_id), *fields)
                for session_id in sessions[first : first + ASKED_AT_ONCE]
            ]
            answers += await asyncio.gather(*calls)
        return answers


def _registered(session_id: str, data: bytes | None, now: int) -> RegisteredWorker:
    if data is None:
        return RegisteredWorker(session_id, None, None, is_live=True)  # it has just begun to register
    at, _, rest = data.partition(b" ")
    seen = wire.number_in(at, wire.LATEST)
    try:
        status = wire.decode_status(rest)
    except DecodeError as error:
        damaged_data.warn(log, "status", f"the status of worker {session_id!r} could not be read", error)
        return RegisteredWorker(session_id, None, seen, is_live=True)
    return RegisteredWorker(session_id, status, seen, is_live=now - (seen or 0) <= 2 * status.lease)
