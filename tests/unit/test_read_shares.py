"""Fetchers of one session read no more jobs together than the session has room for."""

from __future__ import annotations

from hypothesis import given, strategies as st

from asyncq.worker.read_shares import ReadShare, SharedRoom


def shares(count: int) -> list[ReadShare]:
    room = SharedRoom(count, lambda: None)
    return [ReadShare(room) for _ in range(count)]


def test_the_room_is_split_among_those_that_want_to_read():
    one, two, three, four = shares(4)
    assert [each.take(100) for each in (one, two, three, four)] == [25, 25, 25, 25]
    assert one.take(100) == 0, "all is taken"


def test_a_fetcher_that_waits_for_a_job_leaves_its_part_to_the_others():
    one, two, three = shares(3)
    with two.waiting(), three.waiting():
        assert one.take(90) == 90
    one.give_back()
    assert two.take(90) == 30


def test_a_share_that_is_given_back_twice_counts_once():
    one, two = shares(2)
    assert one.take(10) == 5
    one.give_back()
    one.give_back()
    assert two.take(10) == 5


def test_a_small_room_goes_to_those_that_come_first():
    fetchers = shares(8)
    assert [each.take(2) for each in fetchers] == [1, 1, 0, 0, 0, 0, 0, 0]


def test_whoever_finds_no_room_learns_when_a_share_is_given_back():
    learned: list[int] = []
    room = SharedRoom(2, lambda: learned.append(1))
    one, two = ReadShare(room), ReadShare(room)
    assert one.take(1) == 1
    assert two.take(1) == 0
    one.give_back()
    assert learned == [1]
    assert two.take(1) == 1


@given(st.lists(st.tuples(st.integers(0, 3), st.sampled_from("tgw")), max_size=60), st.integers(0, 50))
def test_the_shares_are_never_more_than_the_room(steps, room):
    fetchers, taken = shares(4), [0] * 4
    for number, step in steps:
        if step == "t" and not taken[number]:
            taken[number] = fetchers[number].take(room)
        elif step == "g":
            fetchers[number].give_back()
            taken[number] = 0
        elif step == "w":
            with fetchers[number].waiting():
                taken[number] = 0
        assert sum(taken) <= room
