"""Access to the inside of an app or a worker, for tests that read or break what no public name shows.

Tests use private names of asyncq only through this file, so a change of such a name changes this file alone.
"""

from __future__ import annotations

import asyncio
import contextlib
import weakref
from typing import TYPE_CHECKING, Any

from asyncq.broker.schema import damaged_data
from asyncq.broker.transport.reconnect import ReconnectingConnection
from asyncq.client import deadlock, sessions

if TYPE_CHECKING:
    from collections.abc import Iterator

    import pytest
    import redis.asyncio

    from asyncq import AsyncQ, Worker
    from asyncq.broker.commands import Commands
    from asyncq.broker.cross_shard.forwarder import Forwarder, OutboxTask
    from asyncq.broker.transport.pipe import Pipe
    from asyncq.broker.waiters import Waiter
    from asyncq.execution.slots import Slots
    from asyncq.worker.worker_session import WorkerSession

release_slot = deadlock._release_slot
reacquire_slot = deadlock._reacquire_slot


# -- apps --


def be_the_only_app(monkeypatch: pytest.MonkeyPatch, app: AsyncQ) -> None:
    """Makes unpickled handles find this app. Other tests have made apps that may not be collected yet."""
    monkeypatch.setattr(sessions, "_everyones", weakref.WeakSet([app.sessions]))


def waiters_of(app: AsyncQ) -> list[Waiter]:
    """Returns the waiters of this loop's session that something still references."""
    return list(app.sessions.current().listener._waiters)


def connection_of(commands: Commands) -> ReconnectingConnection:
    """Returns the reconnecting connection for commands."""
    connection = commands._serving[0]
    assert isinstance(connection, ReconnectingConnection), "on a Cluster there are several"
    return connection


def is_connecting(connection: ReconnectingConnection) -> bool:
    """Returns whether a connection is being made now."""
    return connection._opening is not None and not connection._opening.done()


def drop_subscription(app: AsyncQ) -> None:
    """Breaks the subscription of this loop's session, which then subscribes again."""
    app.sessions.current().listener.subscription._connections.drop()


def keep_from_subscribing(monkeypatch: pytest.MonkeyPatch, app: AsyncQ, group: int) -> asyncio.Event:
    """Has each new connection for a group of channels of this loop's session wait for the event that it
    returns.
    """
    connection = app.sessions.current().listener.subscription._connections.of[group]
    connect = connection.pipe
    may_connect = asyncio.Event()

    async def late() -> Pipe:
        await may_connect.wait()
        return await connect()

    monkeypatch.setattr(connection, "pipe", late)
    return may_connect


def outbox_tasks_of(forwarder: Forwarder) -> dict[int, OutboxTask]:
    """Returns the tasks that empty outboxes, by the number of the shard."""
    return forwarder._outbox_tasks


@contextlib.contextmanager
def dies_before_it_deletes(forwarder: Forwarder) -> Iterator[None]:
    """Makes the forwarder deliver entries and not delete them, as if its process died between the two."""

    async def nothing(*_: Any) -> None:
        pass

    delete, forwarder._forget = forwarder._forget, nothing
    yield
    forwarder._forget = delete


def forwards_nothing(monkeypatch: pytest.MonkeyPatch, forwarder: Forwarder) -> None:
    """Makes the forwarder deliver nothing: entries stay in the outboxes unless the test delivers them."""

    async def nothing(*_: Any, **__: Any) -> None:
        pass

    monkeypatch.setattr(forwarder, "call", lambda _: None)
    monkeypatch.setattr(forwarder, "delivered", nothing)


# -- workers --


def session_of(worker: Worker) -> WorkerSession:
    """Returns the worker's current session."""
    session = worker._session
    assert session is not None
    return session


def is_for_reads(connection: ReconnectingConnection) -> bool:
    """Returns whether this is the connection on which a worker reads."""
    return connection._name.startswith("asyncq-read:")


def slots_of(worker: Worker) -> Slots:
    """Returns the slots in which the worker's jobs run."""
    return session_of(worker).held.slots


def limiter_of(worker: Worker) -> Any:
    """Returns the limiter, which defers jobs of tasks with limits."""
    return session_of(worker).fetchers[0]._limiter


async def ended(worker: Worker) -> None:
    """Waits until a worker ends by itself inside its `async with` block."""
    assert worker._task is not None
    await worker._task


# -- what is logged of damaged data --


def log_damage_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """Makes damaged data be logged again: another test may have had the first of this process."""
    monkeypatch.setattr(damaged_data, "_kinds", {})


# -- the server's clock --


async def set_clock_back(app: AsyncQ, raw: redis.asyncio.Redis, seconds: float, task: str) -> None:
    """Simulates that the server's clock was just set back: moves all times that were written by it, and the
    time that it reported to this process, ahead by so many seconds. The clock itself is the machine's, and
    stays.
    """
    commands = app.sessions.current().broker.commands
    step = round(seconds * 1000)
    for keys in app.sessions.shards:
        for id_, due in await raw.zrange(keys.delayed, 0, -1, withscores=True):
            await raw.zadd(keys.delayed, {id_: due + step})
        if rate := await raw.get(keys.rates + task):
            opens, free, interval = rate.split()
            ahead = [b"%.2f" % (float(timestamp) + step * 1000) for timestamp in (opens, free)]
            await raw.set(keys.rates + task, b" ".join([*ahead, interval]))
    received = commands.monotonic_time._reported
    received.update({shard: (monotonic + step, at) for shard, (monotonic, at) in received.items()})
