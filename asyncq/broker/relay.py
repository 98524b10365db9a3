"""Brings what a shard has in its outbox to the shards that it is for.

What ends a job, or accepts a workflow, writes in the same step what another shard must hear. Here it is read
in order, told there by a script to which twice is once, and then deleted. So a crash between any two of these
means that it is told again, by whoever looks next: every worker does, in every shard.

The order matters: a job is accepted in its shard before anything that ends can concern it. Who tells starts
from the oldest, and goes on to the next only when the server has answered; what somebody else has told
meanwhile may be told again.
"""

from __future__ import annotations

import asyncio
import itertools
import logging
from typing import TYPE_CHECKING, Any

from asyncq import failpoints, wire
from asyncq.broker.connection import ServerError
from asyncq.broker.pipe import PipeBroken
from asyncq.errors import AsyncQError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from asyncq.broker.broker import Broker
    from asyncq.broker.keys import Keys

log: logging.Logger = logging.getLogger("asyncq")

AT_ONCE = 100
PATIENCE_MS = 30_000
"""What was read longer ago is not told any more, but read again: a job that was accepted and has ended since
is remembered for a minute at least, and must not be accepted again after that."""

Fields = dict[bytes, bytes]


class Relay:
    """The errands of one process between shards.

    Args:
        broker: whose command connection it uses.
    """

    def __init__(self, broker: Broker) -> None:
        self._broker = broker
        self._wanted: set[int] = set()
        self._errands: dict[int, asyncio.Task[None]] = {}

    def call(self, shard: Keys) -> asyncio.Task[None] | None:
        """There may be something in the outbox of a shard. It is told in the background; the task ends when
        the outbox is empty, or cannot be emptied now. None if there is only one shard.
        """
        if self._broker.shards.is_one:
            return None
        self._wanted.add(shard.shard)
        errand = self._errands.get(shard.shard)
        if errand is None:
            errand = self._errands[shard.shard] = asyncio.create_task(self._run(shard))
        return errand

    def close(self) -> list[asyncio.Task[None]]:
        """Ends all errands; the tasks, to be waited for. What is left in an outbox is for others."""
        for errand in self._errands.values():
            errand.cancel()
        return list(self._errands.values())

    async def _run(self, shard: Keys) -> None:
        try:
            while shard.shard in self._wanted:
                self._wanted.discard(shard.shard)
                await self._empty(shard)
        except (AsyncQError, PipeBroken, ServerError) as error:
            log.warning(
                "what shard %d has for others could not be told (%s); a worker will", shard.shard, error
            )
        finally:
            del self._errands[shard.shard]

    async def _empty(self, shard: Keys) -> None:
        while True:
            asked, *entries = await self._broker.run("outbox", (shard.outbox,), (AT_ONCE,))
            if not entries:
                return
            letters = [(entry, dict(zip(flat[::2], flat[1::2], strict=True))) for entry, flat in entries]
            for (to, is_parcel), some in itertools.groupby(
                letters, lambda one: (one[1][b"to"], b"b" in one[1])
            ):
                told = list(some)
                there = self._broker.shards[int(to)]
                failpoints.hit("relay.tell")
                if not is_parcel:
                    await self._inform(there, [fields for _, fields in told])
                elif not all([await self._deliver(there, asked, fields) for _, fields in told]):
                    break  # too late: what is left is read again
                failpoints.hit("relay.told")
                await self._forget(shard, [entry for entry, _ in told])

    async def _deliver(self, there: Keys, asked: int, fields: Fields) -> bool:
        channel, refusal, words = wire.decode_parcel(fields[b"b"])
        arguments = (there.space, asked, PATIENCE_MS, channel, wire.PUSH_LIMIT, refusal, *words)
        return bool(await self._broker.run("accept", (), arguments))

    async def _inform(self, there: Keys, letters: Sequence[Fields]) -> None:
        words = [fields[name] for fields in letters for name in (b"i", b"e", b"p", b"h", b"w")]
        await self._broker.run("inform", (), (there.space, wire.PUSH_LIMIT, *words))

    async def _forget(self, shard: Keys, entries: Sequence[Any]) -> None:
        command = ("XDEL", shard.outbox, *entries)
        await self._broker.until_answered(self._broker.line, command, self._broker.settings.operation_timeout)
