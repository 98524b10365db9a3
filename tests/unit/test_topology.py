"""Who serves a shard of a Cluster: the newest answer of any node counts."""

from __future__ import annotations

import asyncio

import pytest
from helpers.waiting import until

from asyncq import BrokerUnavailable
from asyncq.broker.schema.shards import Shards
from asyncq.broker.transport import cluster_view, topology_watch
from asyncq.broker.transport.cluster_view import NodeAnswer, SlotRange
from asyncq.broker.transport.connection import parse, slot_of
from asyncq.broker.transport.server_error import Unfit
from asyncq.broker.transport.topology import Topology
from asyncq.broker.transport.topology_watch import TopologyWatch

pytestmark = pytest.mark.anyio

A, B, C, D, E, F = ((host, number) for number, host in enumerate("abcdef", 1))
URL = "redis+cluster://a:1,b:2,c:3"
INFO = b"cluster_state:ok\r\ncluster_current_epoch:%d\r\ncluster_size:2\r\n"
NODES = b"""\
id1 10.0.0.1:7001@17001 myself,master - 0 0 4 connected 0-8191
id2 10.0.0.2:7002@17002,host slave id1 0 1 4 connected
id3 :7003@17003 master - 0 1 6 connected 8192-16383 [77->-id1]
"""


def answer(
    epoch: int, owner: cluster_view.Node, *, is_up: bool = True, since: int = 0, nodes=(A, B, C)
) -> NodeAnswer:
    """Returns an answer by which one node has all slots, since an epoch."""
    return NodeAnswer(epoch, is_up, [SlotRange(0, 16383, owner, since or epoch)], nodes)


@pytest.fixture
def ask(monkeypatch):
    """Makes a topology whose nodes answer what the test wants: an answer, an error, or what a function of the
    test returns.
    """

    def make(answers):
        async def answer_of(self, node):
            found = answers[node]
            if callable(found):
                return await found()
            if isinstance(found, Exception):
                raise found
            return found

        monkeypatch.setattr(Topology, "_answer_of", answer_of)
        return Topology(parse(URL), Shards("shop", 2), "test")

    return make


class Node:
    """A node behind a connection. It answers as `state` says."""

    def __init__(self, endpoint, epoch, owner, since):
        self.endpoint = endpoint
        self.state = (epoch, owner, since)
        self.calls = 0

    async def call(self, *words, now=False):
        self.calls += 1
        epoch, owner, since = self.state
        host, port = owner
        match words:
            case ("CLUSTER", "INFO"):
                return INFO % epoch
            case ("CLUSTER", "SLOTS"):
                return [[0, 16383, [host.encode(), port, b"id"]]]
            case ("CLUSTER", "NODES"):
                return b"id %s:%d@9 master - 0 0 %d connected 0-16383\n" % (host.encode(), port, since)
        raise AssertionError(words)


async def test_of_several_answers_the_one_with_the_highest_epoch_counts(ask):
    for _ in range(10):  # the nodes are asked in any order
        who = ask({A: answer(3, A), B: answer(5, B), C: answer(4, C)})
        await who.owner(0)
        await who.refresh()
        assert await who.owner(0) == B


async def test_a_node_that_is_cut_off_does_not_take_a_shard_back(ask):
    answers = {A: answer(5, B), B: answer(5, B), C: answer(5, B)}
    who = ask(answers)
    assert await who.owner(0) == B
    answers.update({A: answer(3, A), B: BrokerUnavailable("away"), C: BrokerUnavailable("away")})
    await who.refresh()
    assert await who.owner(0) == B


async def test_a_node_that_knows_of_an_election_but_not_of_its_end_does_not_take_a_shard_back(ask):
    answers = dict.fromkeys((A, B, C), answer(5, B))
    who = ask(answers)
    assert await who.owner(0) == B
    answers.update(dict.fromkeys((A, B, C), answer(5, A, since=4)))
    await who.refresh()
    assert await who.owner(0) == B


async def test_a_cluster_that_was_made_anew_counts_after_a_while(ask, monkeypatch):
    answers = {A: answer(5, A), B: answer(5, A), C: answer(5, A)}
    who = ask(answers)
    assert await who.owner(0) == A
    answers.update(dict.fromkeys((A, B, C), answer(1, C)))
    monkeypatch.setattr(cluster_view, "_TRUST", 0.0)
    await who.refresh()
    assert await who.owner(0) == C


async def test_everybody_learns_which_shards_have_other_owners(ask):
    answers = dict.fromkeys((A, B, C), answer(1, A))
    who = ask(answers)
    learned: list[set[int]] = []
    who.on_change.append(learned.append)
    await who.refresh()
    await who.refresh()
    assert learned == [{0, 1}]
    change = who.next_change()
    who.moved(1, "MOVED 77 b:2")
    assert learned[1:] == [{1}]
    assert change.done()
    assert who.owners == [A, B]
    await who.close()


async def test_a_moved_with_an_ipv6_address_is_understood(ask):
    who = ask(dict.fromkeys((A, B, C), answer(1, A)))
    who.moved(0, "MOVED 77 [::1]:7001")
    assert who.owners[0] == ("::1", 7001)
    await who.close()


async def test_without_an_answer_the_reason_is_raised(ask):
    who = ask(dict.fromkeys((A, B, C), BrokerUnavailable("nobody there")))
    with pytest.raises(BrokerUnavailable, match="nobody there"):
        await who.owner(0)


async def test_a_slot_that_nobody_serves_is_named(ask):
    nothing = NodeAnswer(1, False, [SlotRange(0, 1, A, 1)], [A])
    who = ask({A: nothing, B: nothing, C: nothing})
    slot = slot_of("{shop:0}")
    with pytest.raises(BrokerUnavailable, match=f"no node serves slot {slot}, in which shard 0 lies"):
        await who.owner(0)


async def test_while_the_cluster_is_down_all_nodes_are_asked_though_one_is_silent(ask):
    everybody = (A, B, C, D, E, F)
    asked = asyncio.Event()

    async def silent():
        # It hangs until all others were asked: who waits for it first, asks them too late.
        await asyncio.Event().wait()

    def down(node):
        async def tell():
            have_answered.add(node)
            if len(have_answered) == 5:
                asked.set()
            return answer(1, A, is_up=False, nodes=everybody)

        return tell

    have_answered: set[cluster_view.Node] = set()
    who = ask({A: silent, **{node: down(node) for node in everybody[1:]}})
    who.view.nodes = everybody
    refreshing = asyncio.create_task(who.refresh())
    async with asyncio.timeout(5):
        await asked.wait()
    assert who.late == set(), "nobody was given up yet"
    await refreshing
    assert who.late == {A}


async def test_a_node_that_was_silent_is_asked_last(ask):
    asked = []

    async def silent():
        asked.append(A)
        await asyncio.Event().wait()

    who = ask({A: silent, **dict.fromkeys((B, C, D), answer(1, B, nodes=(A, B, C, D)))})
    who.view.nodes = (A, B, C, D)
    while not asked:
        await who.refresh()
    for _ in range(10):
        await who.refresh()
    assert asked == [A]


async def test_a_new_owner_is_found_though_the_node_knew_the_epoch_before_it_knew_the_owner(ask, monkeypatch):
    monkeypatch.setattr(topology_watch, "INTERVAL", 0.01)
    monkeypatch.setattr(topology_watch, "ALARMED", 0.01)
    who = ask(dict.fromkeys((A, B, C), answer(5, A)))
    await who.refresh()
    node = Node(C, 5, A, 5)
    watch = TopologyWatch(who, lambda: [node])
    watch.start()
    node.state = (6, A, 5)  # the election has begun
    await until(lambda: who.view.epoch == 6, "the new epoch to be seen")
    assert who.owners == [A, A]
    node.state = (6, B, 6)  # it has ended
    await until(lambda: who.owners == [B, B], "the new owner to be seen")
    await watch.close()


async def test_as_long_as_nothing_happens_one_node_in_turn_is_asked_for_its_epoch_alone(ask, monkeypatch):
    monkeypatch.setattr(topology_watch, "INTERVAL", 0.01)
    who = ask(dict.fromkeys((A, B, C), answer(5, A)))
    await who.refresh()
    nodes = [Node(each, 5, A, 5) for each in (A, B, C)]
    watch = TopologyWatch(who, lambda: [*nodes, *nodes])  # two connections to each
    watch.start()
    await until(lambda: sum(node.calls for node in nodes) >= 12, "some turns")
    await watch.close()
    calls = [node.calls for node in nodes]
    assert max(calls) - min(calls) <= 1


async def test_a_silent_owner_is_passed_over_and_asked_now_and_then(ask, monkeypatch):
    monkeypatch.setattr(topology_watch, "INTERVAL", 0.01)
    monkeypatch.setattr(topology_watch, "ALARMED", 0.01)
    monkeypatch.setattr(topology_watch, "ANSWER", 0.02)
    who = ask(dict.fromkeys((A, B, C), answer(5, A)))
    await who.refresh()
    owner, other = Node(A, 5, A, 5), Node(B, 5, A, 5)
    talk, owner.call = owner.call, lambda *_, now=False: asyncio.Event().wait()
    watch = TopologyWatch(who, lambda: [owner, other])
    watch.start()
    await until(lambda: A in who.late, "the silent owner to be noticed")
    before = other.calls
    await until(lambda: other.calls >= before + 30, "the other node to be asked for everything")
    owner.call = talk
    await until(lambda: A not in who.late, "the owner to be taken back")
    await watch.close()


def test_the_answers_of_a_node_are_read():
    slots = [
        [0, 8191, [b"10.0.0.1", 7001, b"id1", []], [b"10.0.0.2", 7002, b"id2", []]],
        [8192, 16383, [b"", 7003, b"id3", []]],
    ]
    found = cluster_view.read_answer(INFO % 6, slots, NODES, ("asked", 9))
    assert found.epoch == 6
    assert found.is_up
    assert found.ranges == [(0, 8191, ("10.0.0.1", 7001), 4), (8192, 16383, ("asked", 7003), 6)]
    assert set(found.nodes) == {("10.0.0.1", 7001), ("10.0.0.2", 7002), ("asked", 7003)}


def test_a_cluster_without_slots_is_said_in_one_line():
    with pytest.raises(Unfit, match=r"the Cluster has no slots\n.*--cluster create"):
        cluster_view.read_answer(b"cluster_state:fail\r\n", [], b"", A)
