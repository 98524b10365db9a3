"""A worker's work at the level of the scripts, one step at a time: a test claims, ends and reads jobs."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from asyncq import wire
from asyncq.serializers import PLAIN_ARGUMENTS, dumps
from helpers.claiming import ClaimingConsumer

if TYPE_CHECKING:
    from typing import Self

    from asyncq.broker.broker import Broker
    from asyncq.states import State

QUEUE = "default"


class Steps:
    """Two consumers, `worker` and `successor`, with the steps of a worker. `async with` calls `begin` at the
    start and `close` at the end.
    """

    def __init__(self, broker: Broker, raw: Any) -> None:
        self.broker = broker
        self.raw = raw
        self.worker = ClaimingConsumer(broker.commands, "w", [QUEUE])
        self.successor = ClaimingConsumer(broker.commands, "heir", [QUEUE])

    async def __aenter__(self) -> Self:
        await self.begin()
        return self

    async def __aexit__(self, *_: object) -> None:
        self.close()

    async def begin(self) -> None:
        """Makes the groups, and lets both consumers beat in all shards."""
        await self.worker.make_groups()
        for shard in self.broker.shards:
            for worker in (self.worker, self.successor):
                await worker.beat(shard)

    def close(self) -> None:
        """Closes the connections of both consumers."""
        self.worker.close()
        self.successor.close()

    def job(self, id_: str, *args: Any, **options: Any) -> tuple[wire.Job, bytes]:
        body = PLAIN_ARGUMENTS.dumps(args, {})
        job = wire.Job(id_, "t", QUEUE, body, f"n-{id_}", self.broker.channel, 0, 100_000, **options)
        return job, wire.encode_job(job)

    async def claim(self, by: ClaimingConsumer | None = None) -> wire.Delivery | None:
        worker = by or self.worker
        await worker.find_levels()
        for stream in (*worker.served.streams, *worker.served.last_attempt_queues):
            if entries := await worker.read([stream], 1, block=False):
                return worker.delivery(entries[0])
        return None

    async def end(
        self,
        delivery: wire.Delivery,
        value: Any = None,
        letter: str = wire.SUCCEEDED,
        by: ClaimingConsumer | None = None,
    ) -> None:
        payload = dumps(value) if letter == wire.SUCCEEDED else value
        outcome = wire.encode_ended(wire.Ended(letter, payload, 1, 2, 1, "w", "t", QUEUE, 0))
        assert (
            await (by or self.worker).claims.finish_now(delivery.stream, [(delivery, letter, outcome)]) == 1
        )

    async def run(self, value: Any = None) -> str:
        """Claims the next job and ends it with a value. Returns its id."""
        delivery = await self.claim()
        assert delivery is not None
        await self.end(delivery, value)
        return delivery.job.id

    async def state(self, id_: str) -> State | None:
        answer = await self.broker.state(id_)
        return None if answer is None else answer.state

    async def ended(self, id_: str) -> wire.Ended:
        answer = await self.broker.state(id_)
        assert isinstance(answer, wire.Ended)
        return answer

    async def keys(self, *kinds: str) -> list[str]:
        space = self.broker.shards[0].key_prefix
        found = [key.decode().removeprefix(space) async for key in self.raw.scan_iter(match=f"{space}*")]
        return sorted(key for key in found if key.startswith(kinds))
