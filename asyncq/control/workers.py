"""Workers for an operator: which there are, and what can be asked of them. Runs on the session's loop;
`Control` is what users call.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING

from asyncq.broker import order_messages as orders
from asyncq.config import shown
from asyncq.outcome import timestamp

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import datetime

    from asyncq.broker.broker import Broker
    from asyncq.broker.worker_store import RegisteredWorker

ANSWER_TIMEOUT = 5.0
"""Seconds that a worker has to answer an order."""


@dataclass(frozen=True, slots=True)
class WorkerInfo:
    """A worker as a listing shows it: what it said of itself when it was last seen, three times a lease.

    Attributes:
        name: of the worker. Two workers may have one name, for example while one replaces the other.
        host: where it runs; empty if the worker has not said.
        pid: its process there; 0 if the worker has not said.
        started: when it was started, in UTC.
        queues: those that it serves, the most urgent first.
        concurrency: how many jobs it runs at once.
        busy: how many it runs now.
        done: how many jobs have ended there.
        failed: how many of them have failed.
        version: of asyncq.
        quiet: whether it takes no jobs, because somebody has asked for that.
        last_seen: when it said so, in UTC. A worker that has died stays in the list until another worker
            notices, a lease later; if there is no other, until one comes.
    """

    name: str
    host: str
    pid: int
    started: datetime | None
    queues: list[str]
    concurrency: int
    busy: int
    done: int
    failed: int
    version: str
    quiet: bool
    last_seen: datetime | None


def info_of(worker: RegisteredWorker) -> WorkerInfo:
    """Returns a registered worker as a listing shows it."""
    status = worker.status
    if status is None:
        return WorkerInfo(
            worker.name, "", 0, None, [], 0, 0, 0, 0, "", quiet=False, last_seen=timestamp(worker.seen)
        )
    return WorkerInfo(
        worker.name,
        status.host,
        status.pid,
        timestamp(status.started),
        status.queues,
        status.concurrency,
        status.busy,
        status.done,
        status.failed,
        status.version,
        status.is_quiet,
        timestamp(worker.seen),
    )


async def ping(
    broker: Broker, timeout: float, workers: Sequence[RegisteredWorker] | None = None
) -> dict[str, float]:
    """Returns how many seconds each worker took to answer. Those that have not answered in time are left out.

    Args:
        broker: of the session.
        timeout: in seconds.
        workers: all workers; None if the caller does not know them.
    """
    if workers is None:
        workers = await broker.workers.all()
    answers = await broker.orders.send(orders.PING, [one.session_id for one in workers], timeout)
    names = _names(workers)
    return {names[session_id]: answer.seconds for session_id, answer in answers.items()}


def _names(workers: Sequence[RegisteredWorker]) -> dict[str, str]:
    """Returns the name of each worker by its session id. Where several have one name, each has its session id
    as its name.
    """
    count = Counter(worker.name for worker in workers)
    return {one.session_id: one.name if count[one.name] == 1 else one.session_id for one in workers}


async def named(broker: Broker, name: str) -> list[RegisteredWorker]:
    """Returns the workers of a name, or the one with that session id.

    Raises:
        LookupError: there is none.
    """
    workers = await broker.workers.all()
    found = [one for one in workers if name in (one.name, one.session_id)]
    if not found:
        known = ", ".join(sorted({repr(one.name) for one in workers})) or "none"
        raise LookupError(f"there is no worker {name!r}; registered workers: {known}")
    return found


async def order(broker: Broker, name: str, what: str) -> list[tuple[RegisteredWorker, str]]:
    """Sends an order to the workers of a name, again until each has answered. Returns the answers.

    Raises:
        LookupError: there is no such worker.
        TimeoutError: one of them has not answered in time.
        BrokerUnavailable: no answer of the server within the operation timeout.
    """
    workers = await named(broker, name)
    answers = await broker.orders.send(what, [one.session_id for one in workers], ANSWER_TIMEOUT)
    missing = [one for one in workers if one.session_id not in answers]
    if missing:
        registered = {one.session_id for one in await broker.workers.all()}
        missing = [one for one in missing if one.session_id in registered]
    if missing:
        seen = timestamp(missing[0].seen)
        raise TimeoutError(
            f"worker {missing[0].name!r} has not answered within {shown(ANSWER_TIMEOUT)}"
            f"{'' if seen is None else f'; it was last seen at {seen:%Y-%m-%d %H:%M:%S} UTC'}: it has died, "
            "it cannot reach the server, or a task blocks its event loop"
        )
    return [(one, answers[one.session_id].text) for one in workers if one.session_id in answers]
