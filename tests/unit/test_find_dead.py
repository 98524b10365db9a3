"""Who is dead: an incarnation whose beat stood still through a whole lease of the observer's own clock."""

from __future__ import annotations

from hypothesis import given, strategies as st

from asyncq.worker.reclaimer import Sighting, find_dead

LEASE = 3.0


def look(seen: dict[str, Sighting], now: float, beats: dict[str, str], readers: dict[str, int] | None = None):
    return find_dead(seen, readers or {}, beats, "me", now, LEASE)


def test_a_beat_that_moves_is_alive_for_ever():
    seen: dict[str, Sighting] = {}
    assert [look(seen, float(now), {"a": str(now)}) for now in range(20)] == [[]] * 20


def test_a_beat_that_stands_is_dead_after_a_lease_and_not_before():
    seen: dict[str, Sighting] = {}
    assert [look(seen, now, {"a": "7"}) for now in (0.0, 1.0, 2.9)] == [[]] * 3
    assert look(seen, 3.0, {"a": "7"}) == [("a", "7")]


def test_a_beat_that_moves_once_begins_a_new_lease():
    seen: dict[str, Sighting] = {}
    look(seen, 0.0, {"a": "1"})
    assert look(seen, 2.5, {"a": "2"}) == []
    assert look(seen, 5.4, {"a": "2"}) == []
    assert look(seen, 5.5, {"a": "2"}) == [("a", "2")]


def test_a_reader_without_a_beat_is_seen_through_a_whole_lease_too():
    # After a flush every living worker lacks its beat until the next one.
    seen: dict[str, Sighting] = {}
    assert look(seen, 0.0, {}, {"a": 1}) == []
    assert look(seen, 2.9, {}, {"a": 1}) == []
    assert look(seen, 3.0, {}, {"a": 1}) == [("a", None)]


def test_an_observer_never_takes_itself_for_dead():
    seen: dict[str, Sighting] = {}
    assert [find_dead(seen, {"me": 1}, {"me": "1"}, "me", now, LEASE) for now in (0.0, 9.0)] == [[], []]


def test_who_has_left_is_forgotten_and_starts_anew_when_it_comes_back():
    seen: dict[str, Sighting] = {}
    look(seen, 0.0, {"a": "1"})
    look(seen, 1.0, {})
    assert seen == {}
    assert look(seen, 3.5, {"a": "1"}) == []


@given(
    st.lists(
        st.tuples(st.floats(0.1, 5), st.dictionaries(st.sampled_from("abc"), st.sampled_from("12"))),
        max_size=20,
    )
)
def test_nobody_is_called_dead_who_was_not_seen_to_stand_still_for_a_lease(looks):
    seen: dict[str, Sighting] = {}
    now, since = 0.0, {}
    for gap, beats in looks:
        now += gap
        since = {name: since.get(name, {}) for name in beats}
        for name, count in beats.items():
            since[name] = {count: since[name].get(count, now)}
        for name, count in look(seen, now, dict(beats)):
            assert now - since[name][count] >= LEASE
