"""Nodes of a Cluster die, change their roles, are cut off, come and go, and slots move, under load.

What a primary that takes over never received may be lost, and its waiters must learn it. Where no primary
dies or is cut off, nothing may be lost.
"""

from __future__ import annotations

import asyncio
import itertools
import time
from typing import TYPE_CHECKING, ClassVar

from helpers.server_cluster import slot_of
from helpers.waiting import until_sync

from asyncq.broker.schema.shards import Shards
from chaos.stage import NAMESPACE, Stage
from chaos.trials.workflows import Draft
from chaos.under_load import calls_at_a_rate, diamonds_at_a_rate, judge_losses, not_found, service_is_back

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from helpers.server_cluster import ClusterNode, ServerCluster

    from chaos.report import Report

CALLS, DIAMONDS = 160.0, 10.0
"""How many single calls, and workflows of four jobs each, are made a second: 200 jobs/s."""
WORKERS = 2
SHARDS = 8
PROBES, MEMBERS = 1_000_000, 10_000_000
"""The numbers of the first call that measures the way back to service, and of the first job of a workflow."""
MIDWAY = 0.5
"""Seconds for which a slot stays on its way with all of its keys, and then with half of them."""


class _Change:
    """One change of the cluster. Its methods block.

    Args:
        cluster: that changes.
        old: the primary that is hit.
    """

    name: ClassVar[str]
    may_lose: ClassVar[bool] = False
    """Whether jobs may be lost."""

    def __init__(self, cluster: ServerCluster, old: ClusterNode) -> None:
        self.cluster = cluster
        self.old = old
        self.shards = [shard for shard, node in cluster.shards(NAMESPACE, SHARDS).items() if node is old]
        """The shards that the primary had."""

    def go(self) -> Sequence[int]:
        """Changes the cluster. Returns when it accepts writes again, and which shards were away."""
        raise NotImplementedError

    def come_back(self) -> None:
        """Makes the cluster whole again."""


class _Order(_Change):
    name = "CLUSTER FAILOVER"

    def go(self) -> Sequence[int]:
        self.cluster.fail_over(self.old)
        return self.shards


class _Kill(_Change):
    name = "kill -9"
    may_lose = True

    def go(self) -> Sequence[int]:
        (new,) = self.cluster.replicas(self.old)
        self.old.kill()
        self.cluster.wait_until_primary(new)
        return self.shards

    def come_back(self) -> None:
        self.old.start()


class _CutOff(_Change):
    name = "cut off from the other nodes"
    may_lose = True
    clients: ClassVar[bool] = False

    def go(self) -> Sequence[int]:
        (new,) = self.cluster.replicas(self.old)
        self.cluster.cut_off(self.old, clients=self.clients)
        self.cluster.wait_until_primary(new, [node for node in self.cluster.living() if node is not self.old])
        return self.shards

    def come_back(self) -> None:
        self.cluster.heal()
        until_sync(lambda: self.old.role() == "slave", "the old primary to be a replica", 60)


class _CutOffFromAll(_CutOff):
    name = "cut off from nodes and clients"
    clients = True


class _Move(_Change):
    name = "slot away and back"

    def go(self) -> Sequence[int]:
        self._migrate(self._target())
        return self.shards[:1]

    def _target(self) -> ClusterNode:
        return next(node for node in self.cluster.primaries() if node is not self.old)

    def _migrate(self, target: ClusterNode) -> None:
        migration = self.cluster.migration(slot_of(NAMESPACE, self.shards[0]), target)
        migration.begin()
        time.sleep(MIDWAY)
        migration.move_keys(migration.keys()[::2])
        time.sleep(MIDWAY)
        migration.move_keys()
        migration.finish()

    def come_back(self) -> None:
        # On a busy machine its replica may have taken its place meanwhile.
        self._migrate(self.cluster.primary_of(self.old))


class _Add(_Move):
    name = "node added and removed"

    def _target(self) -> ClusterNode:
        return self.cluster.add_node()

    def come_back(self) -> None:
        super().come_back()
        self.cluster.remove_node(self.cluster.nodes[-1])


CHANGES = (_Order, _Kill, _Move, _CutOff, _Add, _CutOffFromAll)


async def quick(scale: float, seed: int, lease: float = 5.0) -> Report:
    """200 jobs/s, 8 shards, 3 primaries that die, are cut off, come, go, lose slots; node timeout 500 ms."""
    return await _changes("cluster, node timeout 500 ms", 500, 2, scale, seed, lease)


async def slow(scale: float, seed: int, lease: float = 5.0) -> Report:
    """The same with a node timeout of 5 s."""
    return await _changes("cluster, node timeout 5 s", 5000, 1, scale, seed, lease)


async def _changes(
    name: str, node_timeout: int, rounds: int, scale: float, seed: int, lease: float
) -> Report:
    async with Stage(name, scale=scale, seed=seed, lease=lease, cluster=node_timeout, shards=SHARDS) as stage:
        await stage.workers(WORKERS)
        stop, numbers = asyncio.Event(), itertools.count(PROBES)
        draft = Draft(stage.tasks, stage.random, MEMBERS)
        load = asyncio.create_task(calls_at_a_rate(stage, stop, CALLS))
        workflows = asyncio.create_task(diamonds_at_a_rate(stage, stop, DIAMONDS, draft))
        try:
            for _ in range(stage.count(rounds)):
                for kind in CHANGES:
                    await asyncio.sleep(2.0)
                    await _one(stage, await asyncio.to_thread(_some, stage, kind), numbers)
        finally:
            stop.set()
            await load
            parents = await workflows
        await stage.all_answered()
        await judge_losses(stage, parents)
        return stage.report


def _some(stage: Stage, kind: type[_Change]) -> _Change:
    """Returns the change of a random primary that has a shard: with few shards, some may have none."""
    changes = [kind(stage.cluster, primary) for primary in stage.cluster.primaries()]
    return stage.random.choice([each for each in changes if each.shards])


async def _one(stage: Stage, change: _Change, numbers: Iterator[int]) -> None:
    """Lets the cluster change once, and measures when the service is back and when all waits have ended."""
    before = await asyncio.to_thread(not_found, stage)
    shards = await asyncio.to_thread(change.go)
    await service_is_back(stage, change.name, [_number_in(shard, numbers) for shard in shards])
    await asyncio.to_thread(change.come_back)
    await asyncio.to_thread(stage.cluster.wait_until_well)
    lost = await asyncio.to_thread(not_found, stage) - before
    if change.may_lose:
        stage.report.fact(f"{change.name}: waiters that got ResultNotFound", lost)
    else:
        stage.report.equal(f"{change.name}: waiters that got ResultNotFound", lost, 0)


def _number_in(shard: int, numbers: Iterator[int]) -> int:
    """Returns the next number whose job lies in a shard."""
    shards = Shards(NAMESPACE, SHARDS)
    return next(number for number in numbers if shards.number(f"job-{number}") == shard)
