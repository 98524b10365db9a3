"""Who owns a shard of a Cluster: the newest of the nodes' answers counts."""

from __future__ import annotations

import pytest

from asyncq.broker.transport import cluster_view
from asyncq.broker.transport.cluster_view import ClusterView, NodeAnswer, SlotRange, named_owner
from asyncq.broker.transport.server_error import Unfit

A, B = ("a", 1), ("b", 2)
LONG = cluster_view._TRUST + 1
INFO = b"cluster_state:ok\r\ncluster_current_epoch:%d\r\ncluster_size:2\r\n"
NODES = b"""\
id1 10.0.0.1:7001@17001 myself,master - 0 0 4 connected 0-8191
id2 10.0.0.2:7002@17002,host slave id1 0 1 4 connected
id3 :7003@17003 master - 0 1 6 connected 8192-16383 [77->-id1]
"""


def answer(epoch: int, owner: cluster_view.Node, since: int = 0, *, is_up: bool = True) -> NodeAnswer:
    """Returns an answer by which one node has all slots, since an epoch."""
    return NodeAnswer(epoch, is_up, [SlotRange(0, 16383, owner, since or epoch)], [A, B])


@pytest.fixture
def view() -> ClusterView:
    """Returns the view of a Cluster of which B became the owner in epoch 5."""
    view = ClusterView([7], [A, B])
    view.take(answer(4, A), 0)
    change = view.take(answer(5, B), 0)
    assert (change.is_up, change.has_risen, change.changed) == (True, True, {0})
    return view


def test_an_answer_with_an_older_epoch_does_not_count(view):
    change = view.take(answer(4, A), LONG)
    assert (change.is_up, change.has_risen, change.changed) == (False, False, set())
    assert view.owners == [B]
    assert view.epoch == 5


def test_an_owner_with_an_older_epoch_does_not_count_though_the_answer_is_new(view):
    # The node knows of the election and not of its end.
    change = view.take(answer(5, A, since=4), LONG)
    assert (change.is_up, change.has_risen, change.changed) == (True, False, set())
    assert view.owners == [B]


def test_answers_with_an_older_epoch_count_after_a_while_without_others(view):
    view.take(answer(3, A), 100)
    view.take(answer(5, B), 101)
    view.take(answer(3, A), 102)
    view.take(answer(3, A), 102 + cluster_view._TRUST - 0.1)
    assert view.owners == [B]
    change = view.take(answer(3, A), 102 + cluster_view._TRUST)
    assert (change.is_up, change.changed) == (True, {0})
    assert (view.owners, view.epoch) == ([A], 3)


def test_an_owner_with_an_older_epoch_counts_after_a_while_in_which_nobody_names_another_one(view):
    view.take(answer(5, A, since=4), 100)
    view.take(answer(5, B), 101)
    view.take(answer(5, A, since=4), 102)
    view.take(answer(5, A, since=4), 102 + cluster_view._TRUST - 0.1)
    assert view.owners == [B]
    assert view.take(answer(5, A, since=4), 102 + cluster_view._TRUST).changed == {0}
    assert view.owners == [A]
    assert not view.take(answer(5, A, since=4), 102 + cluster_view._TRUST).changed
    view.take(answer(6, B), 200)
    assert view.owners == [B]


def test_the_same_owner_with_an_older_epoch_opens_no_door_for_others(view):
    view.take(answer(5, B, since=3), 100)
    view.take(answer(5, A, since=4), 100)
    assert view.owners == [B]


def test_a_slot_without_an_owner_leaves_the_shard_as_it_was(view):
    view.take(NodeAnswer(6, False, [SlotRange(0, 6, A, 6)], [A]), 1)
    assert view.owners == [B]


def test_the_owner_in_a_moved_is_understood():
    assert named_owner("MOVED 77 b:2", 77) == B
    assert named_owner("MOVED 77 [::1]:7001", 77) == ("::1", 7001)
    assert named_owner("MOVED 77 host.example:7001", 77) == ("host.example", 7001)
    assert named_owner("MOVED 77 b:2", 78) is None, "that is for another shard on the same connection"
    assert named_owner("MOVED 77 ?:7001", 77) is None, "the node does not know the host"
    assert named_owner("ASK 77 b:2", 77) is None


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
