"""Queues for an operator: which there are and how full they are, and the purge of one. Runs on the session's
loop; `Control` is what users call.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

from asyncq import failures, wire
from asyncq.broker.order_messages import PAUSES
from asyncq.system import clock

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from asyncq.broker.broker import Broker
    from asyncq.broker.worker_store import RegisteredWorker

CONFIRM_TIMEOUT = 1.0
"""Seconds that workers have to confirm a pause."""
PURGED = "its queue was purged"
"""Why a job has ended, as `TaskRevoked` says it."""


@dataclass(frozen=True, slots=True)
class QueueInfo:
    """A queue as a listing shows it, with all of its levels of priority.

    Attributes:
        name: of the queue.
        waiting: how many jobs wait in it for a worker. Jobs that wait for their time, for other jobs or for a
            limit of their task are not in the queue yet.
        running: how many jobs of it workers have.
        oldest_wait: how many seconds the job that came first has waited; 0 if none waits.
        paused: whether it is paused.
        consumers: how many live workers serve it.
    """

    name: str
    waiting: int
    running: int
    oldest_wait: float
    paused: bool
    consumers: int


async def infos(
    broker: Broker, names: Iterable[str] | None = None, workers: Sequence[RegisteredWorker] | None = None
) -> list[QueueInfo]:
    """Returns queues, by their names.

    Args:
        broker: of the session.
        names: of the queues; None for all that were ever used.
        workers: all workers; None if the caller does not know them.

    Raises:
        BrokerUnavailable: no answer within the operation timeout.
    """
    queues = await broker.queues.known() if names is None else list(names)
    figures, paused = await asyncio.gather(broker.queues.figures(queues), broker.queues.paused(queues))
    if workers is None:
        workers = await broker.workers.all()
    return [
        QueueInfo(
            queue,
            figures[queue].waiting,
            figures[queue].running,
            figures[queue].oldest,
            queue in paused,
            len(serving(queue, workers)),
        )
        for queue in queues
    ]


def serving(queue: str, workers: Iterable[RegisteredWorker]) -> list[RegisteredWorker]:
    """Returns the live workers that serve a queue."""
    return [one for one in workers if one.is_live and one.status is not None and queue in one.status.queues]


async def pause(broker: Broker, queue: str) -> None:
    """Pauses a queue, and waits until its workers have confirmed that they read it no more, or a second."""
    await broker.queues.set_paused(queue, paused=True)
    workers = serving(queue, await broker.workers.all())
    await broker.orders.send(PAUSES, [one.session_id for one in workers], CONFIRM_TIMEOUT)


async def purge(broker: Broker, queue: str, older_than: float) -> int:
    """Ends the jobs of a queue that no worker has, and returns how many.

    Args:
        broker: of the session.
        queue: the queue.
        older_than: only jobs that have been in the queue for so many seconds.
    """
    ended = wire.Ended(wire.REVOKED, PURGED.encode(), finished=int(clock.now() * 1000))
    outcome = wire.encode_bad_end(ended, partial(failures.short, PURGED))
    return await broker.queues.purge(queue, older_than, outcome)
