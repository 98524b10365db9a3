"""What tests look at, or break, inside of an app or a worker, where nothing public shows or does it.

Everything here uses private names of asyncq, so that a change of one is mended in this file alone.
"""

from __future__ import annotations

import contextlib
import weakref
from typing import TYPE_CHECKING, Any

from asyncq.broker.schema import damaged_data
from asyncq.client import deadlock, sessions

if TYPE_CHECKING:
    from collections.abc import Iterator

    import pytest
    import redis.asyncio

    from asyncq import AsyncQ, Worker
    from asyncq.broker.commands import Commands
    from asyncq.broker.cross_shard.forwarder import Forwarder, OutboxTask
    from asyncq.broker.transport.reconnect import Line
    from asyncq.broker.waiters import Waiter
    from asyncq.execution.slots import Slots
    from asyncq.worker.worker_session import WorkerSession

release_slot = deadlock._release_slot
reacquire_slot = deadlock._reacquire_slot


# -- apps --


def be_the_only_app(monkeypatch: pytest.MonkeyPatch, app: AsyncQ) -> None:
    """What is unpickled finds this app; other tests have made others, which may not have been collected."""
    monkeypatch.setattr(sessions, "_everyones", weakref.WeakSet([app.sessions]))


def waiters_of(app: AsyncQ) -> list[Waiter]:
    """What the session of this loop knows of jobs, for as long as somebody holds it."""
    return list(app.sessions.current().listener._waiters)


def line_of(commands: Commands) -> Line:
    """The connection for commands."""
    return commands._line


def is_connecting(line: Line) -> bool:
    """Whether a connection is being made at this moment."""
    return line._opening is not None and not line._opening.done()


def drop_subscription(app: AsyncQ) -> None:
    """Breaks the subscription of the session of this loop, which takes it up again."""
    app.sessions.current().listener.subscription._line.drop()


def outbox_tasks_of(forwarder: Forwarder) -> dict[int, OutboxTask]:
    """The outboxes that are being emptied, by the number of their shard."""
    return forwarder._outbox_tasks


@contextlib.contextmanager
def dies_before_it_deletes(forwarder: Forwarder) -> Iterator[None]:
    """What the forwarder tells stays in the outbox meanwhile, as if its process had died in between."""

    async def nothing(*_: Any) -> None:
        pass

    delete, forwarder._forget = forwarder._forget, nothing
    yield
    forwarder._forget = delete


def forwards_nothing(monkeypatch: pytest.MonkeyPatch, forwarder: Forwarder) -> None:
    """What is in the outboxes stays there unless the test delivers it."""

    async def nothing(*_: Any, **__: Any) -> None:
        pass

    monkeypatch.setattr(forwarder, "call", lambda _: None)
    monkeypatch.setattr(forwarder, "delivered", nothing)


# -- workers --


def session_of(worker: Worker) -> WorkerSession:
    """The worker's session at this moment."""
    session = worker._session
    assert session is not None
    return session


def slots_of(worker: Worker) -> Slots:
    """The slots that its jobs run in."""
    return session_of(worker).held.slots


def limiter_of(worker: Worker) -> Any:
    """What holds jobs of limited tasks up."""
    return session_of(worker).fetcher._limiter


async def ended(worker: Worker) -> None:
    """Waits for the end of a worker in an `async with` block, before the block ends it."""
    assert worker._task is not None
    await worker._task


# -- what is logged of damaged data --


def say_damage_anew(monkeypatch: pytest.MonkeyPatch) -> None:
    """Damaged data is logged as if none had been met in this process: another test may have said it."""
    monkeypatch.setattr(damaged_data, "_kinds", {})


# -- the server's clock --


async def set_clock_back(app: AsyncQ, raw: redis.asyncio.Redis, seconds: float, task: str) -> None:
    """Makes everything as if the server's clock had just been set back: what was written by it, and what this
    process was told of it, is ahead by that much. The clock itself is the machine's, and stays.
    """
    commands = app.sessions.current().broker.commands
    step = round(seconds * 1000)
    for keys in app.sessions.shards:
        for id_, due in await raw.zrange(keys.delayed, 0, -1, withscores=True):
            await raw.zadd(keys.delayed, {id_: due + step})
        if rate := await raw.get(keys.rates + task):
            opens, free, interval = rate.split()
            ahead = [b"%.2f" % (float(moment) + step * 1000) for moment in (opens, free)]
            await raw.set(keys.rates + task, b" ".join([*ahead, interval]))
    received = commands.steady_time._reported
    received.update({shard: (steady + step, at) for shard, (steady, at) in received.items()})
