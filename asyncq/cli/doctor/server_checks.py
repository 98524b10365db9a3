"""Looks of `asyncq doctor` at the server: how far it is, its clock, its memory, whether it keeps jobs, and
what its user may do.
"""

from __future__ import annotations

import re
import statistics
import time
from collections import Counter
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from asyncq.broker.preflight import rights, server_check
from asyncq.broker.transport.server_error import ServerError
from asyncq.cli.doctor.diagnosis import error, good, warning
from asyncq.config import shown
from asyncq.system import clock

if TYPE_CHECKING:
    from collections.abc import Iterator

    from asyncq.app import AsyncQ
    from asyncq.broker.broker import Broker
    from asyncq.broker.schema.keys import Keys
    from asyncq.cli.doctor.diagnosis import Diagnosis

ROUND_TRIPS = 5
SLOW_ROUND_TRIP = 0.02
"""Seconds. A job needs a few round trips, each before the next."""
SKEW = 1.0
"""Seconds between two clocks from which on deadlines and times of jobs are visibly wrong."""
FULL = 0.9
"""The share of its memory from which on a server is nearly full."""


async def look(app: AsyncQ) -> list[Diagnosis]:
    """Looks at the server of an app that is open.

    Raises:
        BrokerUnavailable: the server has gone meanwhile.
    """
    broker = app.sessions.current().broker
    servers = broker.commands.shard_of_each_server()
    found = [await _round_trip(broker)]
    if broker.address.is_cluster:
        found.append(_nodes(broker))
    for place, keys in servers.items():
        seen = await _look_at_server(app, broker, keys)
        # Of several nodes, what is all right is said once.
        found += [
            replace(each, text=f"{place}: {each.text}") if len(servers) > 1 else each
            for each in seen
            if each.grade != "ok" or keys is next(iter(servers.values()))
        ]
    return [*found, await _rights(app, broker)]


def _nodes(broker: Broker) -> Diagnosis:
    """Says how the shards are spread over the nodes of a Cluster."""
    counts = Counter(broker.commands.connections.places())
    text = ", ".join(f"{count} at {place}" for place, count in sorted(counts.items()))
    what = f"{broker.shards.count} shards on {len(counts)} primaries: {text}"
    if broker.shards.count >= len(counts) and max(counts.values()) - min(counts.values()) <= 1:
        return good("cluster", what)
    return warning(
        "cluster",
        f"{what}, so one of them has more work than another",
        "move slots (valkey-cli --cluster reshard), or choose another number of `shards` for a new namespace",
    )


async def _look_at_server(app: AsyncQ, broker: Broker, keys: Keys) -> list[Diagnosis]:
    """Looks at one server, that of a shard."""
    info = await _asked(broker, keys, "INFO")
    return [
        await _clock(broker, keys),
        *await _safety(broker, keys),
        *_memory(info),
        *_replicas(info, app.settings.replicas),
    ]


async def _round_trip(broker: Broker) -> Diagnosis:
    times = []
    for _ in range(ROUND_TRIPS):
        start = time.perf_counter()
        await broker.commands.send(broker.shards[0], "PING")
        times.append(time.perf_counter() - start)
    took = statistics.median(times)
    text = f"{broker.address.safe_url}: a round trip takes {took * 1000:.2f} ms"
    if took > SLOW_ROUND_TRIP:
        return warning("server", text, "run workers and clients near the server")
    return good("server", text)


async def _clock(broker: Broker, keys: Keys) -> Diagnosis:
    before = clock.now()
    seconds, micros = await broker.commands.send(keys, "TIME")
    here = (before + clock.now()) / 2
    skew = int(seconds) + int(micros) / 1e6 - here
    if abs(skew) < SKEW:
        return good("clock", f"the server's clock differs by {abs(skew) * 1000:.0f} ms")
    which = "ahead of" if skew > 0 else "behind"
    return warning(
        "clock",
        f"the server's clock is {shown(abs(skew))} {which} this machine's: deadlines and delays are wrong",
        "let both set their clocks by NTP",
    )


async def _safety(broker: Broker, keys: Keys) -> list[Diagnosis]:
    """Looks at whether the server may lose jobs, as each app does when it opens."""
    options = await _asked(broker, keys, *server_check.QUESTION)
    found = server_check.findings(broker.address, server_check.options_in(options))
    if not found:
        hidden = isinstance(options, ServerError)
        text = (
            "the server does not show its configuration"
            if hidden
            else "the server keeps what it has accepted"
        )
        return [good("safety", text)]
    return [
        (error if each.loses_accepted_jobs else warning)("safety", each.problem, each.mend) for each in found
    ]


def _memory(info: Any) -> Iterator[Diagnosis]:
    if isinstance(info, ServerError):
        return
    fields = _fields(info)
    used, most = int(fields.get("used_memory", 0)), int(fields.get("maxmemory", 0))
    text = f"the server uses {used / 2**20:,.0f} MiB"
    if not most:
        yield good("memory", f"{text} of memory, without a limit")
    elif used < FULL * most:
        yield good("memory", f"{text} of {most / 2**20:,.0f} MiB")
    else:
        yield error(
            "memory",
            f"{text} of {most / 2**20:,.0f} MiB: when it is full, enqueues raise QueueFull",
            "give it more memory, or keep results for less time (result_ttl)",
        )


def _replicas(info: Any, wanted: int) -> Iterator[Diagnosis]:
    """Looks at whether there are as many replicas as enqueues wait for."""
    if not wanted or isinstance(info, ServerError):
        return
    lines = [value for name, value in _fields(info).items() if re.fullmatch(r"slave\d+", name)]
    connected = sum("state=online" in line for line in lines)
    text = (
        f"{connected} {'replica is' if connected == 1 else 'replicas are'} connected, and replicas={wanted}"
    )
    if connected >= wanted:
        yield good("replicas", text)
        return
    yield error(
        "replicas",
        f"{text}: every enqueue raises NotReplicated",
        "start more replicas (INFO replication at the server lists them), or lower `replicas`",
    )


def _fields(info: bytes) -> dict[str, str]:
    return dict(line.split(":", 1) for line in info.decode().splitlines() if ":" in line)


async def _rights(app: AsyncQ, broker: Broker) -> Diagnosis:
    streams = [keys.stream(queue) for keys in broker.shards for queue in app.queues()]
    try:
        for keys in broker.shards:
            await rights.require(
                broker.commands, rights.of_worker(keys, streams, is_cluster=broker.address.is_cluster)
            )
    except ServerError as refused:
        problem, _, mend = str(refused).partition("\n")
        return error("rights", f"a worker could not run: {problem}", mend)
    return good("rights", "the user may do what clients and workers need")


async def _asked(broker: Broker, keys: Keys, *question: str) -> Any:
    """Returns the answer of the server, or its error: an ACL may hide what is asked for."""
    try:
        return await broker.commands.send(keys, *question)
    except ServerError as refused:
        return refused
