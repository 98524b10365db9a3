"""The server that the tests of a run share: one server, or a Cluster; and plain clients to look into it.

`TEST_SERVER=cluster` runs tests on a Cluster of three primaries, with the number of shards that asyncq
chooses there. Three kinds of tests need a word:

- A test that counts, orders or reads what lies in one shard is marked `one_shard`. Its namespace has one
  shard on any server, so it runs on a node of the Cluster.
- A test that is about one server is marked `one_server`, with the reason. It is left out on a Cluster.
- A test that does not ask for `server_url` has servers of its own. It is left out: it would be the same test.

`TEST_SHARDS=3` runs the tests on one server with another number of shards.
"""

from __future__ import annotations

import os
from collections import Counter
from typing import TYPE_CHECKING, Any

import redis
import redis.asyncio

if TYPE_CHECKING:
    from collections.abc import Sequence

    import pytest

IS_CLUSTER = os.environ.get("TEST_SERVER") == "cluster"
NODES = 3 if IS_CLUSTER else 1
"""How many servers there are."""
_SCHEME = "redis+cluster://"
_OF_A_SERVER = {"CLIENT", "CONFIG", "SCRIPT", "SLOWLOG"}
"""The first words of commands that tests mean for all nodes."""

_ONE = """
import sys
from asyncq import embedded
from helpers import server_program
server_program.use()
with embedded.private() as server:
    print(server.url, flush=True)
    sys.stdin.read()
"""
_CLUSTER = """
import pathlib, sys, tempfile
from helpers import server_program
from helpers.server_cluster import server_cluster
server_program.use()
with tempfile.TemporaryDirectory() as folder:
    # With `save`, or every app would warn that it may lose jobs.
    with server_cluster(pathlib.Path(folder), replicas=0, save="3600 1") as cluster:
        print(cluster.url, flush=True)
        sys.stdin.read()
"""
PROGRAM = _CLUSTER if IS_CLUSTER else _ONE
"""A program that runs the server, prints its URL, and ends when its standard input ends."""


def shards_of(test: pytest.Item) -> str | None:
    """Returns the number of shards that a test has to have, as text; None for asyncq's own choice."""
    chosen = os.environ.get("TEST_SHARDS")
    if (IS_CLUSTER or chosen) and test.get_closest_marker("one_shard"):
        return "1"
    return chosen


def for_processes() -> dict[str, str]:
    """Returns what the environment of a process must have for as many shards as the test's own app has."""
    shards = os.environ.get("ASYNCQ_SHARDS")
    return {"ASYNCQ_SHARDS": shards} if shards else {}


def left_out(test: pytest.Item) -> str | None:
    """Returns why a test is left out on the server of this run; None if it is not."""
    if not IS_CLUSTER:
        return None
    if marker := test.get_closest_marker("one_server"):
        return str(marker.args[0])
    if "server_url" not in getattr(test, "fixturenames", ()):
        return "has servers of its own"
    return None


def client(url: str, **options: Any) -> Any:
    """Returns a blocking client of the server, or of the whole Cluster."""
    if not url.startswith(_SCHEME):
        return redis.Redis.from_url(url, **options)
    return redis.RedisCluster(startup_nodes=_nodes(url, redis.cluster.ClusterNode), **options)


def async_client(url: str) -> Any:
    """Returns a client of the server, or of the whole Cluster."""
    if not url.startswith(_SCHEME):
        return redis.asyncio.Redis.from_url(url)
    return ClusterClient(startup_nodes=_nodes(url, redis.asyncio.cluster.ClusterNode))


def _nodes(url: str, kind: Any) -> list[Any]:
    hosts = [host.rpartition(":") for host in url.removeprefix(_SCHEME).split(",")]
    return [kind(host, int(port)) for host, _, port in hosts]


class ClusterClient(redis.asyncio.RedisCluster):
    """A client of a whole Cluster that answers as that of one server does."""

    async def execute_command(self, *args: Any, **options: Any) -> Any:
        if args[0].split()[0] not in _OF_A_SERVER or "target_nodes" in options:
            return await super().execute_command(*args, **options)
        return next(iter((await self._of_each(*args)).values()))

    async def _of_each(self, *args: Any) -> dict[str, Any]:
        """Returns the answers of all primaries, by their names."""
        await self.initialize()
        return {
            node.name: await redis.asyncio.RedisCluster.execute_command(self, *args, target_nodes=[node])
            for node in self.get_primaries()
        }

    async def keys(self, pattern: Any = "*") -> list[bytes]:
        """Returns the names of keys at all nodes."""
        found = await self._of_each("KEYS", pattern)
        return [key for names in found.values() for key in names]

    async def info(self, section: str = "default") -> dict[str, Any]:
        """Returns the facts of all nodes: numbers are added up, of all else the last node's stay."""
        total: dict[str, Any] = {}
        for facts in (await self._of_each("INFO", section)).values():
            _add(total, facts)
        return total

    async def client_list(self) -> list[dict[str, Any]]:
        """Returns the connections of all nodes. An id begins with the name of the node."""
        found = await self._of_each("CLIENT LIST")
        return [{**each, "id": f"{name} {each['id']}"} for name, clients in found.items() for each in clients]

    async def client_kill_filter(self, _id: str | None = None, _type: str | None = None) -> None:
        """Kills a connection that `client_list` has named, or all of a type at all nodes."""
        if _type:
            await self.execute_command("CLIENT", "KILL", "TYPE", _type)
        if _id:
            name, _, number = _id.rpartition(" ")
            node = self.get_node(node_name=name)
            await self.execute_command("CLIENT", "KILL", "ID", number, target_nodes=node)

    async def client_pause(self, timeout: int) -> None:
        """Lets no node answer for so many ms."""
        await self.execute_command("CLIENT", "PAUSE", timeout, "ALL")

    async def client_unpause(self) -> None:
        """Lets all nodes answer again."""
        await self.execute_command("CLIENT", "UNPAUSE")

    async def publish(self, channel: Any, message: Any) -> None:
        """Publishes to those that have subscribed to a channel of one shard, and to all others."""
        await super().execute_command("SPUBLISH", channel, message)
        await super().execute_command("PUBLISH", channel, message)

    async def pubsub_numsub(self, *channels: Any) -> list[tuple[Any, int]]:
        """Returns how many have subscribed to each channel, at all nodes and in both ways."""
        total: Counter[Any] = Counter()
        for command in ("PUBSUB NUMSUB", "PUBSUB SHARDNUMSUB"):
            for answer in (await self._of_each(command, *channels)).values():
                pairs = answer if answer and isinstance(answer[0], tuple) else _pairs(answer)
                for channel, count in pairs:
                    total[channel] += count
        return list(total.items())

    async def time(self) -> tuple[int, int]:
        """Returns the time of one node. All are on this machine."""
        return next(iter((await self._of_each("TIME")).values()))


def _pairs(answer: Sequence[Any]) -> list[tuple[Any, int]]:
    return list(zip(answer[::2], answer[1::2], strict=True))


def _add(total: dict[str, Any], facts: dict[str, Any]) -> None:
    for name, value in facts.items():
        if isinstance(value, dict):
            _add(total.setdefault(name, {}), value)
        elif isinstance(value, int | float) and isinstance(total.get(name), int | float):
            total[name] += value
        else:
            total[name] = value
