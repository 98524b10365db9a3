"""What a worker session announces to the other workers: the tasks that it knows, the queues that it serves,
and the schedules that its code declares. Runs on the session's loop.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from asyncq.broker.commands import FOREVER
from asyncq.broker.schema.keys import DAY_MS

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from asyncq import wire
    from asyncq.broker.commands import Commands
    from asyncq.broker.schema.keys import Keys
    from asyncq.broker.served_streams import Served


SIGNS = "k"
"""The field of a worker session that signs. The same with the name of a secret: it accepts that secret."""


class Announcements:
    """The announcements of one worker session. Everything here raises as `Commands.run`.

    Args:
        commands: of the app's session.
        served: the streams that the worker session reads from.
        session_id: of the worker session.
    """

    def __init__(self, commands: Commands, served: Served, session_id: str) -> None:
        self._commands = commands
        self._served = served
        self._session_id = session_id

    async def of_tasks(self, tasks: Iterable[str], timeout: float = FOREVER) -> None:
        """Stores which tasks this worker session knows and which queues it serves. Adds to what it has stored
        before.
        """
        named = [*(f"t{task}" for task in tasks), *self._of_secrets()]
        for keys in self._commands.shards:
            queues = [f"q{queue}" for queue in self._served.queues_in(keys)]
            await self._store(keys, [*queues, *named], timeout)

    async def of_schedules(self, keys: Keys, fingerprints: Mapping[str, str]) -> None:
        """Stores which schedules in code this worker session declares in a shard. Adds to what it has stored
        before.

        Args:
            keys: of the shard.
            fingerprints: what tells each schedule from another one of the same name, by the names.
        """
        named = [f"s{fingerprint}{name}" for name, fingerprint in fingerprints.items()]
        await self._store(keys, named, FOREVER)

    def _of_secrets(self) -> list[str]:
        """Returns the fields that say that this session signs, and with which secrets it accepts."""
        seal = self._commands.seal
        return [] if seal is None else [SIGNS, *(SIGNS + name for name in seal.names)]

    async def _store(self, keys: Keys, fields: Sequence[str], timeout: float) -> None:
        own = (keys.beats, keys.announcements + self._session_id)
        await self._commands.run(keys, "announce", own, (self._session_id, DAY_MS, *fields), timeout=timeout)

    async def is_task_known(self, delivery: wire.Delivery, task: str) -> bool:
        """Returns whether any worker with a heartbeat knows a task and serves the queue of a job."""
        keys, queue = self._served.keys[delivery.stream], self._served.queues[delivery.stream]
        answer = await self._commands.run(
            keys, "is_task_known", (keys.beats,), (keys.announcements, queue, task), timeout=FOREVER
        )
        return bool(answer)
