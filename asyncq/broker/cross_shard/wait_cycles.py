"""Notes at the server for which jobs a running job waits, and finds the wait cycle that a wait would close.

The deadlock guard uses this before a wait inside a task, on the session's loop. Within a shard the server
finds a cycle in the same step that notes the wait (`block.lua`). Through several shards, `find_cycle` follows
the noted waits, after the step that notes the wait.
"""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING, Any

from asyncq.broker.schema.keys import DAY_MS, text_of
from asyncq.broker.transport.background import BackgroundTasks
from asyncq.errors import AsyncQError

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from asyncq.broker.commands import Commands
    from asyncq.broker.schema.keys import Keys

log: logging.Logger = logging.getLogger(__name__)

MOST_FOLLOWED = 10_000
"""How many jobs a search for a cycle may visit: some 20 ms of the server's time."""


class Waits:
    """The waits of running jobs for other jobs.

    Args:
        commands: of the session.
    """

    def __init__(self, commands: Commands) -> None:
        self._commands = commands
        self._unblocking = BackgroundTasks(log)

    async def block(
        self, id: str, entry: str, wait_token: str, targets: Sequence[str], timeout: float
    ) -> list[str]:
        """Notes for which jobs a running job waits. If one of them waits for this job, itself or through
        others, nothing stays noted. Raises as `Commands.run`.

        Within a shard this is one step. Through several shards it is two steps: the wait is noted first, and
        then the cycle is searched for. So of two jobs that begin to wait for each other at the same time,
        one at least finds the cycle, and maybe both do.

        Args:
            id: of the running job.
            entry: the job's entry. Notes of an earlier attempt name another entry, and do not count.
            wait_token: the random name of this wait.
            targets: the ids of the jobs that it waits for.
            timeout: seconds for each command.

        Returns:
            The ids on the way from one of the targets back to the job; empty if there is no cycle.
        """
        shards = self._commands.shards
        keys = shards.of(id)
        arguments = (keys.key_prefix, id, entry, wait_token, DAY_MS, MOST_FOLLOWED, *targets)
        answer = await self._commands.run(
            keys, "block", (keys.records + id, keys.blocks + id), arguments, timeout=timeout
        )
        if answer or shards.is_one:
            return [text_of(one) for one in answer]
        cycle = await find_cycle(self._commands, id, targets, most=MOST_FOLLOWED, timeout=timeout)
        if cycle:
            self.unblock(id, entry, wait_token, targets)
        return cycle

    def unblock(self, id: str, entry: str, wait_token: str, targets: Sequence[str]) -> None:
        """Removes the note of a wait that is over, in the background. Does nothing if the app is being
        closed.
        """
        if self._commands.is_closed:
            return
        edges = [f"{entry} {target} {wait_token}" for target in targets]
        keys = self._commands.shards.of(id)
        self._unblocking.start(self._unblock(keys, ("SREM", keys.blocks + id, *edges)))

    async def _unblock(self, keys: Keys, command: tuple[Any, ...]) -> None:
        try:
            await self._commands.send(keys, *command)
        except AsyncQError as error:
            log.debug(
                "the note of a wait that ended could not be deleted (%s); it stays until the attempt of the "
                "job ends",
                error,
            )

    async def close(self) -> None:
        """Waits up to 0.25 s for the commands under way, and cancels the rest."""
        # A job may close the app that it waited with, and go on. A note that stayed would say that the job
        # still waits, and other jobs would be refused a wait for it.
        await self._unblocking.wait(0.25)
        self._unblocking.cancel()


async def find_cycle(
    commands: Commands, id: str, targets: Sequence[str], *, most: int, timeout: float
) -> list[str]:
    """Returns the ids on the shortest way from one of the targets to a job; each job on the way waits for the
    next one. Returns nothing if there is no such way. Raises as `Commands.run`.

    Args:
        commands: sends the questions.
        id: the job.
        targets: the jobs that it waits for.
        most: the search ends when it has visited so many jobs.
        timeout: seconds for each question.
    """
    came_from: dict[str, str | None] = dict.fromkeys(targets)
    level = list(came_from)
    while level and id not in came_from and len(came_from) < most:
        following: list[str] = []
        for node, awaited in await _awaited_by(commands, level, timeout):
            for target in awaited:
                if target not in came_from:
                    came_from[target] = node
                    following.append(target)
        level = following
    way: list[str] = []
    step = id if id in came_from else None
    while step is not None:
        way.insert(0, step)
        step = came_from[step]
    return way


async def _awaited_by(commands: Commands, ids: Iterable[str], timeout: float) -> list[tuple[str, list[str]]]:
    """Returns for each job the ids of the jobs that it waits for."""
    shards = commands.shards
    by_shard = shards.apportion(ids)
    asked = [
        commands.run(shards[shard], "waits", (), (shards[shard].key_prefix, *some), timeout=timeout)
        for shard, some in by_shard.items()
    ]
    return [
        (id_, [text_of(one) for one in awaited])
        for some, answer in zip(by_shard.values(), await asyncio.gather(*asked), strict=True)
        for id_, awaited in zip(some, answer, strict=True)
    ]
