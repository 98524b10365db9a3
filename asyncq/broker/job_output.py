"""Writes what a running job publishes before it ends: progress reports and stream items. Also asks how far
the readers of its stream are. Runs on the worker's loop.

Every call names the job's entry. The server refuses the call if the job has ended or runs elsewhere (the
fence). Reports and items are numbered, so a call that is sent again adds nothing twice.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from asyncq import wire
from asyncq.broker.commands import FOREVER
from asyncq.broker.schema import answer_tags
from asyncq.broker.schema.keys import DAY_MS
from asyncq.system import clock

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from asyncq.broker.commands import Commands
    from asyncq.broker.schema.keys import Keys


class JobOutput:
    """The output of one attempt of a job.

    Args:
        commands: of the app's session.
        keys: of the job's shard.
        delivery: the job.

    Attributes:
        delivery: as given.
        events: the job channel.
    """

    def __init__(self, commands: Commands, keys: Keys, delivery: wire.Delivery) -> None:
        self.delivery = delivery
        self.events: str = keys.events + delivery.job.id
        self._commands = commands
        self._keys = keys

    async def report(self, number: int, state: str, meta: bytes) -> int:
        """Stores a progress report, and publishes it on the job channel. Is sent again for as long as it
        takes.

        Args:
            number: of the report, counted within the attempt.
            state: the state that the job reports.
            meta: the report's value, encoded.

        Returns:
            1 done, also if a newer report is stored already; 0 refused.
        """
        keys, id_, at = self._keys, self.delivery.job.id, int(clock.now() * 1000)
        if (seal := self._commands.seal) is not None:
            meta = seal.meta(id_, self.delivery.entry, number, at, state, meta)
        answer: int = await self._commands.run(
            keys,
            "progress",
            (keys.records + id_, keys.latest + id_),
            (
                *(self.delivery.entry, number, at, state, meta),
                *(DAY_MS, self.events, wire.PUSH_LIMIT),
            ),
            timeout=FOREVER,
        )
        return answer

    async def let_report_go(self) -> None:
        """Has the job's latest report expire together with its result. Raises as `Commands.send`."""
        keys, job = self._keys, self.delivery.job
        await self._commands.send(keys, "PEXPIRE", keys.latest + job.id, job.result_ttl)

    def post_items(
        self, known: int, number: int, items: Sequence[bytes], on_reply: Callable[[Any], None]
    ) -> None:
        """Appends items to the job's stream, in one try, see `Commands.post`.

        Args:
            known: the server has had all items up to this number.
            number: of the first of the items.
            items: encoded.
            on_reply: gets the script's answer, see `append_items.lua`, or the error as a value.
        """
        self._commands.post(self._keys, self._items(known, number, items), on_reply)

    async def append_items(self, known: int, items: Sequence[bytes]) -> list[Any]:
        """Appends the items behind number `known`. Is sent again for as long as it takes. Returns the
        script's answer, see `append_items.lua`.
        """
        command = self._items(known, known + 1, items)
        answer: list[Any] = await self._commands.send(self._keys, *command, timeout=FOREVER)
        return answer

    def _items(self, known: int, number: int, items: Sequence[bytes]) -> tuple[Any, ...]:
        """Returns the command that appends items, see `post_items`."""
        keys, id_ = self._keys, self.delivery.job.id
        if (seal := self._commands.seal) is not None:
            items = [seal.item(id_, each, item) for each, item in enumerate(items, number)]
        return self._commands.build(
            self._keys,
            "append_items",
            (keys.records + id_, keys.items + id_, keys.reader_positions + id_),
            (self.delivery.entry, self.events, wire.PUSH_LIMIT, DAY_MS, known, number, *items),
        )

    async def reader_position(self, *, notify_at: int = 0, ttl: int = DAY_MS) -> tuple[int, int, int] | None:
        """Asks how far the readers of the job's stream are, and sets how long the stream is kept.

        Args:
            notify_at: the first reader that reaches this number says so on the job channel; 0 for none.
            ttl: how long to keep the stream from now on, in ms.

        Returns:
            The number of the last item that the furthest reader took (-1: nobody yet), ms since that one
            read, and ms since any reader did (-1: nobody). None if the job has ended or runs elsewhere.
        """
        keys, id_ = self._keys, self.delivery.job.id
        answer = await self._commands.run(
            keys,
            "reader_position",
            (keys.records + id_, keys.items + id_, keys.reader_positions + id_),
            (self.delivery.entry, ttl, notify_at, ttl),
            timeout=FOREVER,
        )
        if answer[0] == answer_tags.REFUSED:
            return None
        _, number, since_it_read, since_any_read = answer
        return number, since_it_read, since_any_read
