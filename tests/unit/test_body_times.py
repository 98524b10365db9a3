"""How many jobs a worker session may fetch ahead, by how long its bodies took."""

from __future__ import annotations

import pytest

from asyncq.worker.body_times import MOST, MOST_LONG, PAUSE, SHORT, VALID, WINDOW, WORK, BodyTimes


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def times(clock: Clock) -> BodyTimes:
    return BodyTimes(clock)


def window(times: BodyTimes, clock: Clock, rate: float, long: int = 0) -> None:
    """Adds a full read and a window of bodies that end at this rate per second, the long ones first."""
    times.add_read(is_full=True)
    for number in range(WINDOW):
        clock.now += 1 / rate
        times.add(SHORT if number < long else SHORT / 2)


def test_nothing_is_fetched_ahead_before_a_window_of_bodies_has_ended(times: BodyTimes, clock: Clock) -> None:
    times.add_read(is_full=True)
    for _ in range(WINDOW - 1):
        clock.now += 0.0001
        times.add(0.0)
    assert times.most == 0


def test_short_bodies_allow_as_many_jobs_as_begin_in_five_milliseconds(
    times: BodyTimes, clock: Clock
) -> None:
    window(times, clock, rate=40_000)
    assert times.most == pytest.approx(40_000 * WORK, abs=1)
    window(times, clock, rate=2_000)
    assert times.most == pytest.approx(2_000 * WORK, abs=1)


def test_never_more_than_a_fixed_number_of_jobs_is_fetched_ahead(times: BodyTimes, clock: Clock) -> None:
    window(times, clock, rate=1e9)
    assert times.most == MOST


def test_nothing_is_fetched_ahead_where_half_of_the_reads_find_fewer_jobs_than_they_ask_for(
    times: BodyTimes, clock: Clock
) -> None:
    times.add_read(is_full=False)
    window(times, clock, rate=40_000)
    assert times.most == 0
    times.add_read(is_full=False)
    times.add_read(is_full=True)
    window(times, clock, rate=40_000)
    assert times.most > 0


def test_a_window_without_a_read_changes_nothing(times: BodyTimes, clock: Clock) -> None:
    window(times, clock, rate=40_000)
    for _ in range(WINDOW):
        clock.now += 1 / 40_000
        times.add(0.0)
    assert times.most > 0


def test_one_long_body_in_a_hundred_is_allowed_and_more_are_not(times: BodyTimes, clock: Clock) -> None:
    window(times, clock, rate=40_000, long=MOST_LONG)
    assert times.most > 0
    window(times, clock, rate=40_000, long=MOST_LONG + 1)
    assert times.most == 0


def test_long_bodies_end_it_within_their_window(times: BodyTimes, clock: Clock) -> None:
    window(times, clock, rate=40_000)
    for _ in range(MOST_LONG + 1):
        assert times.most > 0
        times.add(1.0)
    assert times.most == 0


def test_a_judgement_expires_when_the_worker_has_little_to_do(times: BodyTimes, clock: Clock) -> None:
    window(times, clock, rate=40_000)
    clock.now += VALID
    times.expire()
    assert times.most > 0
    clock.now += 0.01
    times.expire()
    assert times.most == 0


def test_after_a_pause_nothing_is_fetched_ahead_for_a_while(times: BodyTimes, clock: Clock) -> None:
    window(times, clock, rate=40_000)
    times.pause()
    assert times.most == 0
    window(times, clock, rate=40_000)
    assert times.most == 0, "the pause is not over"
    clock.now += PAUSE
    window(times, clock, rate=40_000)  # it began during the pause
    window(times, clock, rate=40_000)
    assert times.most > 0
