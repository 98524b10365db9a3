"""What a running job writes to the server before it ends: reports of its progress, and what it yields.

Every call names the job's entry, and the server refuses it when the job has ended or runs elsewhere (the
fence). Lives on the worker's loop.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

from asyncq import wire
from asyncq.broker.commands import FOREVER
from asyncq.broker.schema.keys import DAY_MS

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from asyncq.broker.commands import Commands
    from asyncq.broker.schema.keys import Keys


class JobOutput:
    """The output of one attempt of a job. Its calls are sent for as long as it takes.

    Args:
        commands: of the app's session.
        keys: of the shard that the job's stream lies in.
        delivery: the job.

    Attributes:
        delivery: as given.
        events: the channel of whoever follows the job.
    """

    def __init__(self, commands: Commands, keys: Keys, delivery: wire.Delivery) -> None:
        self.delivery = delivery
        self.events: str = keys.events + delivery.job.id
        self._commands = commands
        self._keys = keys

    async def report(self, number: int, state: str, meta: bytes) -> int:
        """Stores what the job says of itself, as its report number `number`: 1 done, 0 refused."""
        keys, id_ = self._keys, self.delivery.job.id
        answer: int = await self._commands.run(
            keys,
            "progress",
            (keys.records + id_, keys.latest + id_),
            (
                *(self.delivery.entry, number, int(time.time() * 1000), state, meta),
                *(DAY_MS, self.events, wire.PUSH_LIMIT),
            ),
            timeout=FOREVER,
        )
        return answer

    async def let_report_go(self) -> None:
        """What the job said of itself goes when its result does, if nobody says more."""
        keys, job = self._keys, self.delivery.job
        await self._commands.send(keys, "PEXPIRE", keys.latest + job.id, job.result_ttl)

    def post_items(
        self, known: int, number: int, items: Sequence[bytes], on_reply: Callable[[Any], None]
    ) -> None:
        """Appends items from number `number` on, in one try, see `Commands.post`; the server has had all up
        to `known`.
        """
        self._commands.post(self._keys, self._items(known, number, items), on_reply)

    async def append_items(self, known: int, items: Sequence[bytes]) -> list[int]:
        """Appends the items that follow those that the server is known to have."""
        command = self._items(known, known + 1, items)
        answer: list[int] = await self._commands.send(self._keys, *command, timeout=FOREVER)
        return answer

    def _items(self, known: int, number: int, items: Sequence[bytes]) -> tuple[Any, ...]:
        keys, id_ = self._keys, self.delivery.job.id
        return self._commands.build(
            "append_items",
            (keys.records + id_, keys.items + id_, keys.places + id_),
            (self.delivery.entry, self.events, wire.PUSH_LIMIT, DAY_MS, known, number, *items),
        )

    async def reader_position(self, *, wanted: int = 0, ttl: int = DAY_MS) -> tuple[int, int, int] | None:
        """Where the readers of the job's stream are: the number that the furthest took (-1: nobody yet), ms
        since it read, and ms since anybody did (-1: nobody). None if the job has ended or runs elsewhere.

        Args:
            wanted: the number that a reader is to come to, who says so on the job's channel; 0 for none.
            ttl: how long to keep the stream from now on, in ms.
        """
        keys, id_ = self._keys, self.delivery.job.id
        answer = await self._commands.run(
            keys,
            "reader_position",
            (keys.records + id_, keys.items + id_, keys.places + id_),
            (self.delivery.entry, ttl, wanted, ttl),
            timeout=FOREVER,
        )
        return tuple(answer) if len(answer) == 3 else None
