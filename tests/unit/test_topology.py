"""Who serves a shard of a Cluster: which nodes are asked, and when."""

from __future__ import annotations

import asyncio
from collections import Counter

import pytest
from helpers.waiting import until

from asyncq import BrokerUnavailable
from asyncq.broker.schema.shards import Shards
from asyncq.broker.transport import cluster_view, topology_watch
from asyncq.broker.transport.cluster_view import NodeAnswer, SlotRange
from asyncq.broker.transport.connection import parse, slot_of
from asyncq.broker.transport.topology import Topology
from asyncq.broker.transport.topology_watch import TopologyWatch

pytestmark = pytest.mark.anyio

A, B, C, D, E, F = ((host, number) for number, host in enumerate("abcdef", 1))
SLOT_1 = slot_of("{shop:1}")
URL = "redis+cluster://a:1,b:2,c:3"
INFO = b"cluster_state:ok\r\ncluster_current_epoch:%d\r\ncluster_size:2\r\n"


def answer(
    epoch: int, owner: cluster_view.Node, *, is_up: bool = True, nodes=(A, B, C), second=None
) -> NodeAnswer:
    """Returns an answer by which one node has all slots, or all but that of shard 1."""
    ranges = [SlotRange(0, 16383, owner, epoch), SlotRange(SLOT_1, SLOT_1, second or owner, epoch)]
    return NodeAnswer(epoch, is_up, ranges, nodes)


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


@pytest.fixture
def quick(monkeypatch):
    """Has the watch ask often."""
    monkeypatch.setattr(topology_watch, "INTERVAL", 0.01)
    monkeypatch.setattr(topology_watch, "ALARMED", 0.01)


class Node:
    """A node behind a connection. It answers as `state` says."""

    def __init__(self, endpoint, epoch, owner, since, second=None):
        self.endpoint = endpoint
        self.state = (epoch, owner, since)
        self.second = second
        self.is_silent = False
        self.calls: Counter[str] = Counter()

    async def call(self, *words, now=False):
        self.calls[words[1]] += 1
        if self.is_silent:
            await asyncio.Event().wait()
        epoch, owner, since = self.state
        host, port = owner
        match words:
            case ("CLUSTER", "INFO"):
                return INFO % epoch
            case ("CLUSTER", "SLOTS"):
                other, other_port = self.second or owner
                return [
                    [0, 16383, [host.encode(), port, b"id"]],
                    [SLOT_1, SLOT_1, [other.encode(), other_port, b"id"]],
                ]
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


async def test_everybody_learns_which_shards_have_other_owners(ask):
    answers = dict.fromkeys((A, B, C), answer(1, A))
    who = ask(answers)
    learned: list[set[int]] = []
    who.on_change.append(learned.append)
    await who.refresh()
    await who.refresh()
    assert learned == [{0, 1}]
    change = who.next_change()
    who.moved(1, f"MOVED {SLOT_1} b:2")
    assert learned[1:] == [{1}]
    assert change.done()
    assert who.owners == [A, B]
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
        # Who waits for it first, gives it up before all others were asked.
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


@pytest.mark.usefixtures("quick")
async def test_a_new_owner_is_found_though_the_node_knew_the_epoch_before_it_knew_the_owner(ask):
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


@pytest.mark.usefixtures("quick")
async def test_as_long_as_nothing_happens_one_node_in_turn_is_asked_for_its_epoch_alone(ask):
    who = ask(dict.fromkeys((A, B, C), answer(5, A)))
    await who.refresh()
    nodes = [Node(each, 5, A, 5) for each in (A, B, C)]
    watch = TopologyWatch(who, lambda: [*nodes, *nodes])  # two connections to each
    watch.start()
    await until(lambda: sum(node.calls["INFO"] for node in nodes) >= 12, "some turns")
    await watch.close()
    calls = [node.calls["INFO"] for node in nodes]
    assert max(calls) - min(calls) <= 1
    assert all(set(node.calls) == {"INFO"} for node in nodes)


@pytest.mark.usefixtures("quick")
async def test_a_silent_owner_is_asked_now_and_then_and_the_others_for_everything(ask, monkeypatch):
    monkeypatch.setattr(topology_watch, "ANSWER", 0.02)
    who = ask(dict.fromkeys((A, B, C), answer(5, A)))
    await who.refresh()
    owner, other = Node(A, 5, A, 5), Node(B, 5, A, 5)
    owner.is_silent = True
    watch = TopologyWatch(who, lambda: [owner, other])
    watch.start()
    await until(lambda: A in who.late, "the silent owner to be noticed")
    owner.calls.clear()
    other.calls.clear()
    await until(lambda: other.calls["SLOTS"] >= 12, "the other node to be asked for everything")
    assert 1 <= owner.calls["INFO"] <= other.calls["INFO"] / 2
    owner.is_silent = False
    await until(lambda: A not in who.late, "the owner to be taken back")
    await watch.close()


@pytest.mark.usefixtures("quick")
async def test_an_owner_that_stays_away_does_not_hide_that_another_one_is_silent(ask, monkeypatch):
    monkeypatch.setattr(topology_watch, "ANSWER", 0.02)
    monkeypatch.setattr(topology_watch, "_SILENCE", 0.2)
    who = ask(dict.fromkeys((A, B, C), answer(5, A, second=B)))
    await who.refresh()
    assert who.owners == [A, B]
    first, second, other = nodes = [Node(each, 5, A, 5, second=B) for each in (A, B, C)]
    watch = TopologyWatch(who, lambda: nodes)
    first.is_silent = True
    watch.start()
    await until(lambda: other.calls["SLOTS"], "an alarm")
    other.calls.clear()
    await until(lambda: other.calls["INFO"] >= other.calls["SLOTS"] + 5, "the end of the alarm")
    other.calls.clear()
    second.is_silent = True
    await until(lambda: other.calls["SLOTS"] >= 3, "another alarm")
    assert who.late == {A, B}
    await watch.close()


async def test_owners_are_confirmed_by_answers_to_questions_of_the_last_second(ask):
    asked = []

    async def tell():
        asked.append(1)
        return answer(5, A)

    who = ask(dict.fromkeys((A, B, C), tell))
    await who.confirm()
    assert asked
    asked.clear()
    await who.confirm()
    assert not asked, "that was less than a second ago"


async def test_nobody_is_confirmed_while_the_cluster_is_down(ask):
    who = ask(dict.fromkeys((A, B, C), answer(5, A, is_up=False)))
    with pytest.raises(BrokerUnavailable, match="the Cluster is down"):
        await who.confirm()


async def test_after_its_end_nothing_is_asked(ask):
    who = ask(dict.fromkeys((A, B, C), answer(5, A)))
    await who.close()
    who.ask()
    with pytest.raises(BrokerUnavailable, match="the app was closed"):
        await who.owner(0)


async def test_an_answer_that_cannot_be_read_is_logged_and_the_other_answers_count(ask, caplog):
    who = ask({A: ValueError("no epoch"), B: ValueError("no epoch"), C: answer(5, A)})
    assert await who.owner(0) == A
    assert "no epoch" in caplog.text


async def test_if_no_answer_can_be_read_the_error_says_so_and_the_next_question_goes_on(ask):
    answers = dict.fromkeys((A, B, C), ValueError("no epoch"))
    who = ask(answers)
    with pytest.raises(BrokerUnavailable, match=r"the answer of the node at .* cannot be used .*no epoch"):
        await who.owner(0)
    answers.update(dict.fromkeys((A, B, C), answer(5, A)))
    assert await who.owner(0) == A


async def test_the_error_of_a_node_that_fails_as_its_question_is_cancelled_is_not_lost(ask):
    asked = asyncio.Event()

    async def fail():
        asked.set()
        try:
            await asyncio.Event().wait()
        finally:
            raise BrokerUnavailable("away")

    who = ask(dict.fromkeys((A, B, C), fail))
    who.ask()
    await asked.wait()
    await who.close()
