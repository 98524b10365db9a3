"""What `asyncq inspect` and `asyncq top` show: the server, queues, workers and schedules at one moment."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import TYPE_CHECKING

from asyncq.broker.broker import version_in
from asyncq.broker.transport.server_error import ServerError
from asyncq.cli import console, queues_command, schedule_command, workers_command

if TYPE_CHECKING:
    from asyncq.app import AsyncQ
    from asyncq.broker.broker import Broker
    from asyncq.control.queues import QueueInfo
    from asyncq.control.stats import Stats
    from asyncq.control.workers import WorkerInfo
    from asyncq.schedules.schedule import Schedule

MOST_SCHEDULES = 10
"""So many schedules are shown: those that are due next."""


@dataclass(frozen=True, slots=True)
class ServerFigures:
    """The server.

    Attributes:
        version: its name and version.
        address: where it is, without a password.
        namespace: the namespace of the app.
        memory: how many bytes its data take; None if its user may not ask.
        max_memory: how many they may take; 0 for no limit, None if its user may not ask.
        clients: how many connections it has; None if its user may not ask.
        round_trip: how many seconds it took to answer.
    """

    version: str | None
    address: str
    namespace: str
    memory: int | None
    max_memory: int | None
    clients: int | None
    round_trip: float


@dataclass(frozen=True, slots=True)
class Overview:
    """All of it.

    Attributes:
        server: the server.
        queues: all queues, by their names.
        stats: how many jobs are in no queue.
        workers: all workers, by their names.
        schedules: those that are due next, the earliest first; at most `MOST_SCHEDULES`.
    """

    server: ServerFigures
    queues: list[QueueInfo]
    stats: Stats
    workers: list[WorkerInfo]
    schedules: list[Schedule]


async def of(app: AsyncQ) -> Overview:
    """Collects an overview. The app is open.

    Raises:
        BrokerUnavailable: no answer within the operation timeout.
    """
    broker = app.sessions.current().broker
    took = await broker.round_trip()  # alone: beside other questions it would take longer
    server, queues, stats, workers, schedules = await asyncio.gather(
        _server(broker, app.settings.namespace, took),
        app.control.queues(),
        app.control.stats(),
        app.control.workers(),
        app.schedules.list(),
    )
    due = sorted(
        (one for one in schedules if one.next_at is not None and not one.paused),
        key=lambda one: (one.next_at.timestamp() if one.next_at else 0.0, one.name),
    )
    return Overview(server, queues, stats, workers, due[:MOST_SCHEDULES])


async def _server(broker: Broker, namespace: str, took: float) -> ServerFigures:
    try:
        info = await broker.server_info()
    except ServerError as error:
        if error.code != "NOPERM":
            raise
        info = {}  # an operator's rights need not include INFO
    return ServerFigures(
        version_in(info) if info else None,
        broker.address.safe_url,
        namespace,
        _number(info.get("used_memory")),
        _number(info.get("maxmemory")),
        _number(info.get("connected_clients")),
        took,
    )


def _number(text: str | None) -> int | None:
    return None if text is None else int(text)


def page(overview: Overview) -> str:
    """Returns an overview as text of one page."""
    parts = [_head(overview.server)]
    sections = (
        ("queues", [queues_command.row(one) for one in overview.queues]),
        ("workers", [workers_command.row(one) for one in overview.workers]),
        ("schedules, due next", [schedule_command.row(one) for one in overview.schedules]),
    )
    for title, rows in sections:
        parts.append(f"{title}\n{console.aligned(rows) if rows else '  none'}")
    parts.insert(2, outside(overview.stats))
    return "\n\n".join(parts)


def outside(stats: Stats) -> str:
    """Returns how many jobs are in no queue, as text."""
    about = "" if stats.exact else "  (about)"
    return (
        f"in no queue\n  {stats.delayed} delayed, {stats.retrying} of them retrying  "
        f"{stats.waiting_for_parents} waiting for parents  {stats.dead} dead{about}"
    )


def _head(server: ServerFigures) -> str:
    where = f"{server.version or '?'} at {server.address}, namespace {server.namespace}"
    return f"server\n  {where}\n  {figures(server)}"


def figures(server: ServerFigures) -> str:
    """Returns the figures of a server as one line."""
    known = []
    if server.memory is not None:
        limit = f" of {_mebibytes(server.max_memory)}" if server.max_memory else ""
        known.append(f"memory {_mebibytes(server.memory)}{limit}")
    if server.clients is not None:
        known.append(f"{server.clients} clients")
    return "  ".join([*known, f"round trip {server.round_trip * 1000:.2f} ms"])


def _mebibytes(count: int) -> str:
    return f"{count / 2**20:,.1f} MiB"
