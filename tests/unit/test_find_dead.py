"""When a worker session is dead: it sent no heartbeat for a whole lease of the observers' own clocks."""

from __future__ import annotations

from hypothesis import given, strategies as st

from asyncq.broker.consumer import Observation, ObservationAge
from asyncq.worker.recovery import Observations

LEASE = 3.0


def observation(number: int, at: int = 0, **ages: float) -> Observation:
    """Makes an observation, and the ages that another observer stored at observation `at`.

    `l5=1.5` is number 5, 1.5 s before.
    """
    return Observation(number, {}, [], [ObservationAge(int(name[1:]), age) for name, age in ages.items()], at)


def observe(*made: tuple[int, float]) -> tuple[Observations, list[bool]]:
    observations = Observations(LEASE)
    return observations, [observations.add(observation(number), now) for number, now in made]


def test_the_first_observation_follows_none_and_finds_no_dead_session():
    seen, follows = observe((5, 0.0))
    assert follows == [False]
    assert (seen.last, seen.a_lease_ago(2.9), seen.a_lease_ago(3.0)) == (5, 0, 5)


def test_a_gap_of_more_than_two_thirds_of_a_lease_starts_the_observations_again():
    seen, follows = observe((5, 0.0), (6, 2.0), (7, 4.1))
    assert follows == [False, True, False]
    assert seen.a_lease_ago(7.0) == 0
    assert seen.a_lease_ago(7.1) == 7


def test_a_number_that_does_not_grow_means_that_the_server_has_lost_its_data():
    seen, follows = observe((5, 0.0), (6, 1.0), (6, 2.0), (3, 3.0))
    assert follows == [False, True, False, False]
    assert (seen.last, seen.a_lease_ago(5.9)) == (3, 0)


def test_an_error_starts_the_observations_again():
    seen, _ = observe((5, 0.0), (6, 1.0))
    seen.forget()
    assert (seen.last, seen.a_lease_ago(9.0)) == (0, 0)
    assert not seen.add(observation(7), 2.0)


@given(st.lists(st.tuples(st.floats(0.1, 5), st.integers(-1, 3), st.integers(0, 3)), max_size=20))
def test_a_session_with_a_heartbeat_within_a_lease_is_not_dead(steps):
    seen = Observations(LEASE)
    now, number, beats = 0.0, 10, {}
    for pause, more, beating in steps:
        now += pause
        before = seen.a_lease_ago(now)
        silent = [name for name, (noted, _) in beats.items() if noted < before]
        number += more
        if seen.add(observation(number), now):
            assert all(now - beats[name][1] >= LEASE for name in silent)
        if more <= 0:
            beats = {}  # the server has lost its data
        beats[beating] = (number, now)


def test_a_new_observer_continues_with_the_ages_of_another_observer():
    seen = Observations(LEASE)
    assert not seen.add(observation(5000, at=4000, l1500=2.0, l3000=0.9), 70.0), (
        "its own first observation finds no dead session"
    )
    assert (seen.a_lease_ago(70.9), seen.a_lease_ago(71.0), seen.a_lease_ago(72.2)) == (0, 1500, 3000)
    assert seen.add(observation(6000), 71.0)
    assert [(one.number, round(one.age, 3)) for one in seen.ages(71.5)] == [
        (1500, 3.5),
        (3000, 2.4),
        (5000, 1.5),
        (6000, 0.5),
    ]


def test_a_new_observer_ignores_ages_that_are_old_unconfirmed_or_invalid():
    for what, first in {
        "two thirds of a lease are over": observation(6001, at=4000, l1500=2.0),
        "an age that the server's clock does not confirm": observation(5000, at=4000, l1500=3.6),
        "numbers in no order": observation(5000, at=4000, l3000=0.9, l1500=2.0),
        "a number twice": observation(5000, at=4000, l1500=0.9, l01500=2.0),
        "written at a later observation": observation(5000, at=5000, l1500=2.0),
        "no observation before the one at which it was written": observation(5000, at=4000, l4000=1.0),
    }.items():
        seen = Observations(LEASE)
        seen.add(first, 70.0)
        assert seen.a_lease_ago(72.9) == 0, what


def test_observers_that_are_replaced_all_the_time_find_a_dead_session_together():
    """Each observer makes two observations, a second apart. The second between two observers does not count,
    because no observer's clock has measured it.
    """
    passed, found = observation(0), None
    for turn in range(6):
        observer = Observations(LEASE)
        for step in (0.0, 1.0):
            now = turn * 2.0 + step
            if observer.a_lease_ago(now) and found is None:
                found = now
            number = round(now * 1000) + 1
            ages = observer.ages(now)
            observer.add(Observation(number, {}, [], passed.ages, passed.ages_at), now)
            if ages:
                passed = Observation(0, {}, [], ages, number)
    assert found == 5.0


@given(
    st.lists(
        st.tuples(
            st.floats(0.05, 2.5),
            st.sampled_from(
                ["observe", "observe", "observe", "beat", "replace", "server away", "clock back"]
            ),
            st.integers(0, 2),
        ),
        max_size=60,
    )
)
def test_many_observers_find_no_session_dead_that_has_a_heartbeat_within_a_lease(steps):
    observers, beats = [Observations(LEASE) for _ in range(3)], {}
    passed, now, clock, last = observation(0), 0.0, 1000.0, 0
    for pause, what, which in steps:
        now, clock = now + pause, clock + pause
        if what == "clock back":
            clock -= 5 * pause
        elif what == "replace":
            observers[which] = Observations(LEASE)
        elif what == "beat":
            beats[which] = (last, now)
        elif what == "observe":
            observer, last = observers[which], max(round(clock * 1000), last + 1)
            before, ages = observer.a_lease_ago(now), observer.ages(now)
            silent = [name for name, (noted, _) in beats.items() if noted < before]
            if observer.add(Observation(last, {}, [], passed.ages, passed.ages_at), now):
                assert all(now - beats[name][1] >= LEASE for name in silent)
            if ages:
                passed = Observation(0, {}, [], ages, last)
