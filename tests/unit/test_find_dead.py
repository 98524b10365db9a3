"""Who is dead: an incarnation that has not beaten for a whole lease of the observer's own clock."""

from __future__ import annotations

from hypothesis import given, strategies as st

from asyncq.worker.reclaimer import Looks

LEASE = 3.0


def looks(*made: tuple[int, float]) -> tuple[Looks, list[bool]]:
    looks = Looks(LEASE)
    return looks, [looks.add(number, now) for number, now in made]


def test_the_first_look_follows_none_and_names_nobody():
    seen, follows = looks((5, 0.0))
    assert follows == [False]
    assert (seen.last, seen.a_lease_ago(2.9), seen.a_lease_ago(3.0)) == (5, 0, 5)


def test_over_a_gap_of_more_than_two_thirds_of_a_lease_it_counts_anew():
    seen, follows = looks((5, 0.0), (6, 2.0), (7, 4.1))
    assert follows == [False, True, False]
    assert seen.a_lease_ago(7.0) == 0
    assert seen.a_lease_ago(7.1) == 7


def test_a_server_that_gives_no_higher_number_has_lost_what_it_knew():
    seen, follows = looks((5, 0.0), (6, 1.0), (6, 2.0), (3, 3.0))
    assert follows == [False, True, False, False]
    assert (seen.last, seen.a_lease_ago(5.9)) == (3, 0)


def test_after_an_error_it_counts_anew():
    seen, _ = looks((5, 0.0), (6, 1.0))
    seen.forget()
    assert (seen.last, seen.a_lease_ago(9.0)) == (0, 0)
    assert not seen.add(7, 2.0)


@given(st.lists(st.tuples(st.floats(0.1, 5), st.integers(-1, 3), st.integers(0, 3)), max_size=20))
def test_nobody_is_called_dead_who_has_beaten_within_a_lease(steps):
    seen = Looks(LEASE)
    now, number, beats = 0.0, 10, {}
    for pause, more, beating in steps:
        now += pause
        before = seen.a_lease_ago(now)
        silent = [name for name, (noted, _) in beats.items() if noted < before]
        number += more
        if seen.add(number, now):
            assert all(now - beats[name][1] >= LEASE for name in silent)
        if more <= 0:
            beats = {}  # the server has lost what it knew
        beats[beating] = (number, now)
