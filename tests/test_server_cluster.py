"""The cluster that tests start: it is ready soon, fails over, moves slots, grows, shrinks and breaks, as it
says.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import redis
from helpers import server_cluster as module
from helpers.own_server import OwnServer
from helpers.processes import is_gone
from helpers.server_cluster import SLOTS, ServerCluster, server_cluster, slot_of
from helpers.stopwatch import Stopwatch
from helpers.waiting import until_sync
from redis.crc import key_slot

if TYPE_CHECKING:
    from collections.abc import Iterator

# Connections of the nodes go through the gateway, which lives as long as the cluster.
pytestmark = pytest.mark.usefixtures("leaves_descriptors")

SLOT = key_slot(b"x")
REDIS = shutil.which("redis-server")


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerCluster]:
    directory = tmp_path_factory.mktemp("cluster")
    with server_cluster(directory, node_timeout=500, divisible=True) as running:
        yield running


@pytest.fixture
def cluster(shared: ServerCluster) -> Iterator[ServerCluster]:
    """The cluster of all tests of this file. Each test leaves it well."""
    yield shared
    for node in shared.nodes:
        if node.process is None:
            node.start()
    shared.heal()
    shared.wait_until_well()


@pytest.fixture
def client(cluster: ServerCluster) -> Iterator[redis.RedisCluster]:
    with contextlib.closing(cluster.client()) as client:
        yield client


def answer(node: module.ClusterNode, *command: str) -> str:
    """Returns the first word of a node's answer, also if that is an error."""
    try:
        return str(node.do(*command))
    except redis.exceptions.ResponseError as error:
        kinds = {"MovedError": "MOVED", "AskError": "ASK", "TryAgainError": "TRYAGAIN"}
        kinds["ClusterDownError"] = "CLUSTERDOWN"
        return kinds.get(type(error).__name__, str(error).split()[0])


def test_a_cluster_has_all_slots_on_three_primaries_with_a_replica_each(cluster, client):
    primaries = cluster.primaries()
    assert len(primaries) == 3
    assert [len(cluster.replicas(primary)) for primary in primaries] == [1, 1, 1]
    assert {cluster.serving(slot) for slot in range(0, SLOTS, 100)} == set(primaries)
    for number in range(50):
        client.set(f"key{number}", number)
        assert int(client.get(f"key{number}")) == number


def test_shards_of_a_namespace_are_where_their_keys_are(cluster, client):
    for shard, node in cluster.shards("shop", 8).items():
        client.set(f"{{shop:{shard}}}:x", "y")
        assert node.do("GET", f"{{shop:{shard}}}:x") == b"y"
        assert node.do("CLUSTER", "COUNTKEYSINSLOT", slot_of("shop", shard)) == 1


def test_a_replica_takes_the_place_of_a_primary_by_order_and_nothing_is_lost(cluster, client):
    old = cluster.serving(SLOT)
    client.set("x", "kept")
    new = cluster.fail_over(old)
    assert new is cluster.serving(SLOT)
    assert old.role() == "slave"
    assert client.get("x") == b"kept"


def test_a_replica_takes_the_place_of_a_killed_primary_which_comes_back_as_a_replica(cluster, client):
    old = cluster.serving(SLOT)
    (new,) = cluster.replicas(old)
    old.kill()
    cluster.wait_until_primary(new)
    assert cluster.serving(SLOT) is new
    client.set("x", "at the new one")
    old.start()
    until_sync(lambda: cluster.replicas(new) == [old], "the old one to be a replica")
    cluster.wait_until_well()


def test_a_slot_on_its_way_answers_ask_and_tryagain_and_afterwards_moved(cluster, client):
    client.set("{x}1", "a")
    client.set("{x}2", "b")
    source = cluster.serving(SLOT)
    target = next(node for node in cluster.primaries() if node is not source)
    migration = cluster.migration(SLOT, target)
    assert answer(target, "GET", "{x}1") == "MOVED"
    migration.begin()
    assert answer(source, "GET", "{x}1") == "b'a'"
    assert answer(source, "GET", "{x}none") == "ASK"
    assert migration.move_keys([b"{x}1"]) == 1
    assert answer(source, "GET", "{x}1") == "ASK"
    assert answer(source, "MGET", "{x}1", "{x}2") == "TRYAGAIN"
    assert set(migration.keys()) >= {b"{x}2"}
    assert migration.move_keys() >= 1
    migration.finish()
    assert answer(source, "GET", "{x}1") == "MOVED"
    assert answer(target, "MGET", "{x}1", "{x}2") == "[b'a', b'b']"
    cluster.move(SLOT, source)
    assert cluster.serving(SLOT) is source
    assert client.mget("{x}1", "{x}2") == [b"a", b"b"]


def test_a_node_is_added_gets_a_slot_and_is_removed(cluster, client):
    client.set("x", "kept")
    source = cluster.serving(SLOT)
    new = cluster.add_node()
    assert new not in cluster.primaries()
    cluster.move(SLOT, new)
    assert len(cluster.primaries()) == 4
    assert client.get("x") == b"kept"
    cluster.move(SLOT, source)
    cluster.remove_node(new)
    assert len(cluster.nodes) == 6
    assert client.get("x") == b"kept"


def test_a_primary_that_is_cut_off_from_the_others_refuses_writes_and_comes_back_as_a_replica(cluster):
    old = cluster.serving(SLOT)
    (new,) = cluster.replicas(old)
    cluster.cut_off(old)
    cluster.wait_until_primary(new, [node for node in cluster.living() if node is not old])
    until_sync(lambda: answer(old, "SET", "x", "lost") == "CLUSTERDOWN", "the old one to give up")
    with contextlib.closing(redis.Redis(port=old.announced, socket_timeout=5)) as through_the_gateway:
        assert through_the_gateway.ping(), "clients still reach it"
    cluster.heal()
    until_sync(lambda: cluster.replicas(new) == [old], "the old one to be a replica")
    cluster.wait_until_well()


def test_a_client_of_a_primary_that_is_cut_off_from_clients_gets_no_answer(cluster):
    node = cluster.serving(SLOT)
    open_before = redis.Redis(port=node.announced, socket_timeout=0.3, retry=None)
    made_later = redis.Redis(port=node.announced, socket_timeout=0.3, retry=None)
    assert open_before.ping()
    cluster.cut_off(node, clients=True)
    for client in (open_before, made_later):
        with pytest.raises(redis.exceptions.TimeoutError):
            client.ping()
        client.close()
    cluster.heal()
    with contextlib.closing(redis.Redis(port=node.announced)) as client:
        assert client.ping()


def test_a_cluster_without_replicas_is_ready_within_seconds_and_has_a_password(tmp_path):
    stopwatch = Stopwatch()
    with server_cluster(tmp_path, replicas=0, password="a b#c") as cluster:
        assert stopwatch.took < 10, "some two seconds on a machine with nothing else to do"
        assert len(cluster.nodes) == 3
        with contextlib.closing(cluster.client()) as client:
            client.set("x", "y")
            source = cluster.serving(SLOT)
            cluster.move(SLOT, next(node for node in cluster.primaries() if node is not source))
            assert client.get("x") == b"y"
        with (
            contextlib.closing(redis.Redis(port=source.port)) as stranger,
            pytest.raises(redis.exceptions.AuthenticationError),
        ):
            stranger.ping()


HOLDER = """
import pathlib, signal, sys
from helpers.server_cluster import server_cluster
with server_cluster(pathlib.Path(sys.argv[1]), replicas=0) as cluster:
    print(*(node.process.pid for node in cluster.nodes), flush=True)
    signal.pause()
"""


def test_no_node_outlives_the_process_that_started_it(tmp_path):
    words = [sys.executable, "-c", HOLDER, str(tmp_path)]
    path = {**os.environ, "PYTHONPATH": str(Path(__file__).parent)}
    with subprocess.Popen(words, stdout=subprocess.PIPE, text=True, env=path) as holder:
        pids = [int(pid) for pid in holder.stdout.readline().split()]
        assert len(pids) == 3
        holder.kill()
    until_sync(lambda: all(is_gone(pid) for pid in pids), "the nodes to end")


@pytest.mark.skipif(REDIS is None, reason="no redis-server")
def test_the_server_of_this_system_makes_a_cluster_too(tmp_path):
    with server_cluster(tmp_path, binary=REDIS, node_timeout=500) as cluster:
        cluster.fail_over(cluster.serving(SLOT))
        cluster.wait_until_well()


def test_a_node_whose_port_is_taken_meanwhile_gets_another_one(tmp_path: Path, monkeypatch):
    free_pair, given = module._free_pair, []
    other = OwnServer(tmp_path / "other", port=free_pair())

    def first_a_taken_one() -> int:
        given.append(free_pair() if given else other.port)
        return given[-1]

    monkeypatch.setattr(module, "_free_pair", first_a_taken_one)
    try:
        other.start()
        with server_cluster(tmp_path / "cluster", primaries=3, replicas=0) as cluster:
            assert other.port not in [node.port for node in cluster.nodes]
            assert len(given) == 4
    finally:
        other.kill()
