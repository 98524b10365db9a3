"""Who serves a shard of a Cluster: the newest answer of any node counts."""

from __future__ import annotations

import pytest

from asyncq import BrokerUnavailable
from asyncq.broker.schema.shards import Shards
from asyncq.broker.transport import topology
from asyncq.broker.transport.connection import parse, slot_of
from asyncq.broker.transport.server_error import Unfit

pytestmark = pytest.mark.anyio

A, B, C = ("a", 1), ("b", 2), ("c", 3)
URL = "redis+cluster://a:1,b:2,c:3"


def answer(epoch: int, owner: topology.Node, *, is_up: bool = True) -> topology._Answer:
    """Returns an answer by which one node has all slots."""
    return topology._Answer(epoch, is_up, [(0, 16383, owner)], [A, B, C])


@pytest.fixture
def ask(monkeypatch):
    """Makes a topology whose nodes answer what the test wants: an answer, or an error."""

    def make(answers):
        async def answer_of(self, node):
            found = answers[node]
            if isinstance(found, Exception):
                raise found
            return found

        monkeypatch.setattr(topology.Topology, "_answer_of", answer_of)
        return topology.Topology(parse(URL), Shards("shop", 2), "test")

    return make


async def test_of_several_answers_the_one_with_the_highest_epoch_counts(ask):
    who = ask({A: answer(3, A), B: answer(5, B), C: answer(4, C)})
    for _ in range(10):  # the nodes are asked in any order
        who.owners = [None, None]
        assert await who.owner(0) == B


async def test_a_node_that_is_cut_off_does_not_take_a_shard_back(ask):
    answers = {A: answer(5, B), B: answer(5, B), C: answer(5, B)}
    who = ask(answers)
    assert await who.owner(0) == B
    answers.update({A: answer(3, A), B: BrokerUnavailable("away"), C: BrokerUnavailable("away")})
    await who.refresh()
    assert await who.owner(0) == B


async def test_a_cluster_that_was_made_anew_counts_after_a_while(ask, monkeypatch):
    answers = {A: answer(5, A), B: answer(5, A), C: answer(5, A)}
    who = ask(answers)
    assert await who.owner(0) == A
    answers.update(dict.fromkeys((A, B, C), answer(1, C)))
    monkeypatch.setattr(topology, "_TRUST", 0.0)
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
    who.moved(1, "MOVED 77 b:2")
    assert learned[1:] == [{1}]
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
    nothing = topology._Answer(1, False, [(0, 1, A)], [A])
    who = ask({A: nothing, B: nothing, C: nothing})
    slot = slot_of("{shop:0}")
    with pytest.raises(BrokerUnavailable, match=f"no node serves slot {slot}, in which shard 0 lies"):
        await who.owner(0)


def test_the_answers_of_a_node_are_read():
    info = b"cluster_state:ok\r\ncluster_current_epoch:6\r\ncluster_size:2\r\n"
    slots = [
        [0, 8191, [b"10.0.0.1", 7001, b"id1", []], [b"10.0.0.2", 7002, b"id2", []]],
        [8192, 16383, [b"", 7003, b"id3", []]],
    ]
    found = topology._answer(info, slots, ("asked", 9))
    assert found.epoch == 6
    assert found.is_up
    assert found.ranges == [(0, 8191, ("10.0.0.1", 7001)), (8192, 16383, ("asked", 7003))]
    assert set(found.nodes) == {("10.0.0.1", 7001), ("10.0.0.2", 7002), ("asked", 7003)}


def test_a_cluster_without_slots_is_said_in_one_line():
    with pytest.raises(Unfit, match=r"the Cluster has no slots\n.*--cluster create"):
        topology._answer(b"cluster_state:fail\r\n", [], A)
