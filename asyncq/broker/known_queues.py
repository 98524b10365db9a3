"""Notes at the server which queues there are, so that an operator can list them. A session notes each queue
once, when it first enqueues to the queue or reads from it. On the session's loop; nobody waits for it.

The notes of some time leave together, so that they delay no enqueue.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from asyncq.broker.delayed_call import DelayedCall
from asyncq.broker.schema.keys import queue_of

if TYPE_CHECKING:
    from collections.abc import Iterable

    from asyncq.broker.commands import Commands

NOTED_AFTER = 0.5
"""Seconds after which a queue is noted at the latest."""


class KnownQueues:
    """The queues that a session has noted, or is about to note.

    Args:
        commands: of the session.

    Attributes:
        names: of these queues and their levels.
    """

    def __init__(self, commands: Commands) -> None:
        self.names: set[str] = set()
        self._commands = commands
        self._new: set[str] = set()
        self._send_later = DelayedCall(NOTED_AFTER, self.send)

    def add(self, names: Iterable[str]) -> None:
        """Notes queues soon, by their own names or those of their levels. Does nothing for known ones.

        If the server did not take the note, the next call for these queues sends it again.
        """
        new = [name for name in names if name not in self.names]
        if not new:
            return
        self.names.update(new)
        self._new.update(new)
        self._send_later.request()

    def send(self) -> None:
        """Sends at once what is to be noted. Sends nothing if there is nothing."""
        self._send_later.cancel()
        new, self._new = self._new, set()
        if not new:
            return

        def check(answer: object) -> None:
            if isinstance(answer, Exception):
                self.names.difference_update(new)

        keys = self._commands.shards[0]
        queues = sorted(set(map(queue_of, new)))
        self._commands.post(keys, ("SADD", keys.known_queues, *queues), check, now=True)
