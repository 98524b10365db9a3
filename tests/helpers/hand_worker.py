"""A worker whose jobs a test ends by hand: no body runs, and each step happens when the test calls it.

It claims, reports and ends jobs by the same scripts as a worker, so it works with a fake and with a real
server.
"""

from __future__ import annotations

import contextlib
import time
from typing import TYPE_CHECKING, Any

from asyncq import failures, wire
from asyncq.serializers import PLAIN_ARGUMENTS, PLAIN_VALUE
from helpers.claiming import ClaimingConsumer

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from asyncq import AsyncQ, AsyncResult

NAME = "by-hand"


class Claimed:
    """A job that a `HandWorker` has claimed. It runs until the test ends it."""

    def __init__(self, worker: HandWorker, delivery: wire.Delivery) -> None:
        self.delivery = delivery
        self.id = delivery.job.id
        self._worker = worker
        self._started = int(time.time() * 1000)
        self._reports = self._items = 0

    @property
    def args(self) -> list[Any]:
        """The positional arguments of the call, without values of parents."""
        return PLAIN_ARGUMENTS.loads(self.delivery.job.body)[0]

    async def succeed(self, value: Any = None, *, children: tuple[str, ...] = ()) -> None:
        """Ends the job with a value."""
        await self._end(wire.SUCCEEDED, PLAIN_VALUE.dumps(value), children)

    async def fail(self, error: Exception) -> None:
        """Ends the job with a failure."""
        await self._end(wire.FAILED, failures.encode(error))

    async def revoke(self, reason: str = "") -> None:
        """Ends the job as revoked, as a worker does after a revocation signal."""
        await self._end(wire.REVOKED, reason.encode())

    async def lose(self) -> None:
        """Ends the job as lost, like one that took too many workers down."""
        await self._end(wire.LOST, b"")

    async def retry(self, error: Exception, after: float = 0.0) -> None:
        """Ends the attempt with a failure. The next attempt comes `after` seconds later."""
        claims, retries = self._worker.consumer.claims, self.delivery.retries + 1
        assert await claims.retry(self.delivery, round(after * 1000), retries, failures.encode(error))

    async def release(self) -> None:
        """Hands the job back to its queue."""
        await self._worker.consumer.claims.release(self.delivery.stream, [(self.delivery.entry, self.id)])

    async def report(self, state: str, meta: Any = None) -> None:
        """Publishes a report, as `update_state` does."""
        self._reports += 1
        output = self._worker.consumer.output(self.delivery)
        assert await output.report(self._reports, state, PLAIN_VALUE.dumps(meta)) == 1

    async def give(self, *items: Any) -> None:
        """Appends items, as a generator does."""
        output = self._worker.consumer.output(self.delivery)
        await output.append_items(self._items, [PLAIN_VALUE.dumps(item) for item in items])
        self._items += len(items)

    async def _end(self, letter: str, payload: bytes, children: tuple[str, ...] = ()) -> None:
        delivery, job = self.delivery, self.delivery.job
        ended = wire.Ended(
            letter,
            payload,
            self._started,
            int(time.time() * 1000),
            delivery.attempt,
            NAME,
            job.name,
            job.queue,
            job.enqueued,
            children,
        )
        outcome = wire.encode_ended(ended)
        assert (
            await self._worker.consumer.claims.finish_now(delivery.stream, [(delivery, letter, outcome)]) == 1
        )
        await self._worker.forwarded(delivery)


class HandWorker:
    """Claims jobs one by one, in the order of their queue.

    Args:
        app: an app with an open session on this loop.
        queues: the queues that it reads.
    """

    def __init__(self, app: AsyncQ, queues: tuple[str, ...]) -> None:
        self._commands = app.sessions.current().broker.commands
        self.consumer = ClaimingConsumer(self._commands, NAME, queues)

    async def take(self) -> Claimed:
        """Claims the next job."""
        await self.consumer.find_levels()
        entries = await self.consumer.read(list(self.consumer.served.streams), 1, block=False)
        assert entries, "no job waits in the queue"
        return Claimed(self, self.consumer.delivery(entries[0]))

    async def take_all(self) -> list[Claimed]:
        """Claims every job that waits in a queue."""
        found: list[Claimed] = []
        while entries := await self.consumer.read(list(self.consumer.served.streams), 100, block=False):
            found += [Claimed(self, self.consumer.delivery(entry)) for entry in entries]
        return found

    async def succeed(self, result: AsyncResult[Any], value: Any = None) -> None:
        """Claims the next job, which must be that of a handle, and ends it with a value."""
        claimed = await self.take()
        assert claimed.id == result.id
        await claimed.succeed(value)

    async def fail(self, result: AsyncResult[Any], error: Exception) -> None:
        """Claims the next job, which must be that of a handle, and ends it with a failure."""
        claimed = await self.take()
        assert claimed.id == result.id
        await claimed.fail(error)

    async def promote(self) -> None:
        """Moves jobs whose time has come into their queues."""
        for keys in self._commands.shards:
            await self.consumer.promote(keys)

    async def forwarded(self, delivery: wire.Delivery) -> None:
        """Waits until the forwarder has delivered the end of this job to other shards."""
        await self._commands.forwarded(self.consumer.served.keys[delivery.stream])

    async def beat(self) -> None:
        """Sends one heartbeat to each shard."""
        for keys, command in self.consumer.beat_commands(1):
            await self._commands.send(keys, *command)


@contextlib.asynccontextmanager
async def hand_worker(app: AsyncQ, *queues: str) -> AsyncIterator[HandWorker]:
    """Gives a `HandWorker` for the time of the block."""
    worker = HandWorker(app, queues or (app.settings.default_queue,))
    await worker.consumer.make_groups()
    try:
        yield worker
    finally:
        worker.consumer.close()
