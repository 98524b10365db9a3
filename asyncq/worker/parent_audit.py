"""Ends jobs that wait for a job which was lost with a primary of a Cluster, see `lost_parents`.

A background task of a worker session, on the worker's loop. It looks after the start of the session, and
whenever another node serves a shard. It looks twice, some seconds apart: an end may be under way. One worker
of a namespace looks at a time.
"""

from __future__ import annotations

import asyncio
import logging
import random
from typing import TYPE_CHECKING

from asyncq.broker.lost_parents import LostParents
from asyncq.broker.transport.background import ErrorLog, forever

if TYPE_CHECKING:
    from asyncq.broker.commands import Commands

log: logging.Logger = logging.getLogger(__name__)

PAUSE = 1.0
"""Seconds after a change, and between the two looks."""
TURN = 3000
"""Milliseconds for which no other worker begins to look."""


class ParentAudit:
    """Looks for jobs that wait in vain, for one worker session.

    Args:
        commands: of the session.
        session_id: of the worker session.
    """

    def __init__(self, commands: Commands, session_id: str) -> None:
        self._commands = commands
        self._session_id = session_id
        self._parents = LostParents(commands)
        self._called = asyncio.Event()

    async def run(self) -> None:
        """Looks at once and after each change, until it is cancelled."""
        on_move = self._commands.connections.on_move
        self._called.set()
        on_move.append(self._called.set)
        try:
            await forever(self._turn, ErrorLog(log, "lost jobs could not be looked for; trying again"))
        finally:
            on_move.remove(self._called.set)

    async def _turn(self) -> None:
        await self._called.wait()
        await asyncio.sleep(PAUSE * random.uniform(1.0, 1.5))
        self._called.clear()
        try:
            if await self._is_my_turn():
                await self._look()
            else:
                # The other worker may have begun before the change.
                await asyncio.sleep(TURN / 1000)
                if await self._is_my_turn():
                    await self._look()
        except BaseException:
            self._called.set()
            raise

    async def _is_my_turn(self) -> bool:
        keys = self._commands.shards[0]
        answer = await self._commands.send(
            keys, "SET", f"{keys.reporters}~parents", self._session_id, "NX", "PX", TURN
        )
        return answer is not None

    async def _look(self) -> None:
        for keys in self._commands.shards:
            await self._commands.forwarded(*self._commands.shards)
            suspects = await self._parents.waiting_in_vain(keys)
            if not suspects:
                continue
            await asyncio.sleep(PAUSE)
            await self._commands.forwarded(*self._commands.shards)
            found = await self._parents.waiting_in_vain(keys)
            lost = [id_ for id_, left in found.items() if suspects.get(id_) == left]
            for id_ in lost:
                await self._parents.end(keys, id_)
            if lost:
                log.warning(
                    "%d jobs waited for jobs that were lost with a server, and fail now: %s",
                    len(lost),
                    ", ".join(lost[:5]) + (" ..." if len(lost) > 5 else ""),
                )
