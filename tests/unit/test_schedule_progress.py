"""What a worker does with a schedule that is due: on time, late, after a jump of the clock, with new zone
data."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import pytest
from hypothesis import given, strategies

from asyncq import DecodeError, wire
from asyncq.schedules import cron
from asyncq.schedules.cron import Cron
from asyncq.schedules.definition import Definition
from asyncq.schedules.rule import At, Every
from asyncq.schedules.schedule_progress import (
    MOST_CAUGHT_UP,
    ON_TIME,
    Progress,
    Step,
    begin,
    due_ms,
    next_tick,
    review,
    step,
)
from asyncq.schedules.terms import Terms

NOON = int(datetime(2026, 6, 1, 12, tzinfo=UTC).timestamp())
HOUR = 3600
TEMPLATE = wire.Job("", "task", "default", b"\x92\x90\x80", "", "", 0, 60_000)


def schedule(rule: Any, **terms: Any) -> Definition:
    return Definition("nightly", Terms(rule=rule, **terms), TEMPLATE)


def test_a_tick_is_given_out_so_long_ahead_as_the_worker_asks_for() -> None:
    pulse, progress = schedule(Every(HOUR)), Progress(NOON, NOON)
    before = (NOON + HOUR) * 1000 - 500
    assert step(pulse, progress, 0, before - 1, ahead_ms=500).tick is None
    assert step(pulse, progress, 0, before, ahead_ms=500).tick == NOON + HOUR


def done(definition: Definition, progress: Progress, now: float, runs: int = 0) -> Step:
    return step(definition, progress, runs, round(now * 1000))


EACH_MINUTE = Every(60)
HOURLY = Cron("0 * * * *", "UTC")


def test_every_counts_from_its_beginning_and_first_ticks_after_one_interval():
    definition = schedule(Every(30))
    progress = begin(definition, NOON)
    assert next_tick(definition, progress) == NOON + 30
    assert done(definition, progress, NOON + 30).next == NOON + 60


def test_every_with_a_start_ticks_at_the_start_and_counts_from_it():
    definition = schedule(Every(30), start=NOON + 100)
    assert next_tick(definition, begin(definition, NOON)) == NOON + 100
    definition = schedule(Every(30), start=NOON - 100)
    assert next_tick(definition, begin(definition, NOON)) == NOON + 20


def test_a_cron_text_does_not_tick_before_its_start_nor_after_its_end():
    definition = schedule(HOURLY, start=NOON + 5 * HOUR, until=NOON + 6 * HOUR)
    progress = begin(definition, NOON)
    first = done(definition, progress, NOON + 5 * HOUR)
    assert (first.tick, first.next) == (NOON + 5 * HOUR, NOON + 6 * HOUR)
    last = done(definition, first.progress, NOON + 6 * HOUR)
    assert (last.tick, last.next) == (NOON + 6 * HOUR, None)


def test_a_schedule_that_is_looked_at_too_early_makes_no_job():
    definition = schedule(EACH_MINUTE)
    progress = begin(definition, NOON)
    assert done(definition, progress, NOON + 59.999) == Step(progress, NOON + 60)


def test_after_its_last_run_a_schedule_has_no_next_tick():
    definition = schedule(EACH_MINUTE, max_runs=2)
    progress = begin(definition, NOON)
    assert done(definition, progress, NOON + 60, runs=1).tick == NOON + 60
    assert done(definition, progress, NOON + 60, runs=2) == Step(progress, None)


@pytest.mark.parametrize("catch_up", ["latest", "all", "none"])
def test_a_tick_that_is_a_little_late_runs_whatever_catch_up_says(catch_up):
    definition = schedule(Every(1), catch_up=catch_up)
    progress = begin(definition, NOON)
    found = []
    for _ in range(5):
        found.append(done(definition, progress, NOON + ON_TIME))
        progress = found[-1].progress
    assert [one.tick for one in found] == [NOON + n for n in range(1, 6)], "each of them, in order"
    assert not any(one.is_missed or one.left_out for one in found)


def test_after_a_time_without_a_worker_the_latest_tick_runs_once():
    definition = schedule(EACH_MINUTE)
    progress = begin(definition, NOON)
    late = done(definition, progress, NOON + HOUR + 30)
    assert (late.tick, late.next) == (NOON + HOUR, NOON + HOUR + 60)
    assert late.left_out == (NOON + 60, NOON + HOUR - 60)


def test_a_single_tick_that_was_missed_runs_and_none_is_left_out():
    definition = schedule(EACH_MINUTE)
    late = done(definition, begin(definition, NOON), NOON + 60 + 30)
    assert (late.tick, late.left_out, late.next) == (NOON + 60, None, NOON + 120)


def test_with_none_missed_ticks_do_not_run():
    definition = schedule(EACH_MINUTE, catch_up="none")
    late = done(definition, begin(definition, NOON), NOON + HOUR + 5)
    assert (late.tick, late.next) == (None, NOON + HOUR + 60)
    assert late.left_out == (NOON + 60, NOON + HOUR)


@pytest.mark.parametrize("rule", [EACH_MINUTE, Cron("* * * * *", "Europe/Paris")])
def test_with_all_each_missed_tick_runs_in_order(rule):
    definition = schedule(rule, catch_up="all")
    progress, found = begin(definition, NOON), []
    now = NOON + HOUR + 30
    while (one := done(definition, progress, now)).tick is not None:
        found.append(one)
        progress = one.progress
    assert [one.tick for one in found] == list(range(NOON + 60, NOON + HOUR + 1, 60))
    assert all(one.is_missed for one in found)


@pytest.mark.parametrize("rule", [EACH_MINUTE, Cron("* * * * *", "Europe/Paris")])
def test_with_all_only_the_latest_thousand_run(rule):
    definition = schedule(rule, catch_up="all")
    progress, found = begin(definition, NOON), []
    last = NOON + (MOST_CAUGHT_UP + 500) * 60
    while (one := done(definition, progress, last + 30)).tick is not None:
        found.append(one)
        progress = one.progress
    assert [one.tick for one in found] == list(range(last - (MOST_CAUGHT_UP - 1) * 60, last + 1, 60))
    assert found[0].left_out == (NOON + 60, found[0].tick - 1)
    assert not any(one.left_out for one in found[1:])
    on_time = done(definition, progress, last + 60)
    assert on_time.tick == last + 60
    assert on_time.progress.missed_until is None, "the next time without a worker is another one"


def test_jitter_is_the_same_for_all_workers_and_differs_from_tick_to_tick():
    definition = schedule(EACH_MINUTE, jitter=30.0)
    delays = [due_ms(definition, tick) - tick * 1000 for tick in range(NOON, NOON + 100 * 60, 60)]
    assert all(0 <= delay < 30_000 for delay in delays)
    assert len(set(delays)) > 90
    assert delays[7] == due_ms(schedule(EACH_MINUTE, jitter=30.0), NOON + 7 * 60) - (NOON + 7 * 60) * 1000


def test_with_jitter_a_tick_is_given_out_at_its_time_and_the_next_one_at_its_own():
    definition = schedule(EACH_MINUTE, jitter=30.0)
    progress = begin(definition, NOON)
    due = due_ms(definition, NOON + 60)
    assert step(definition, progress, 0, due - 1).tick is None
    assert step(definition, progress, 0, due).tick == NOON + 60


def test_a_latest_tick_whose_jitter_is_not_over_runs_when_it_is():
    definition = schedule(EACH_MINUTE, jitter=59.0)
    progress = begin(definition, NOON)
    tick = next(
        t for t in range(NOON + HOUR, NOON + 2 * HOUR, 60) if due_ms(definition, t) - t * 1000 > 20_000
    )
    late = step(definition, progress, 0, tick * 1000 + 1000)
    assert (late.tick, late.next, late.left_out) == (None, tick, (NOON + 60, tick - 60))
    assert step(definition, late.progress, 0, due_ms(definition, tick)).tick == tick


def test_one_time_in_the_past_is_a_tick_that_was_missed():
    for catch_up, expected in (("latest", NOON - HOUR), ("all", NOON - HOUR), ("none", None)):
        definition = schedule(At(NOON - HOUR), catch_up=catch_up)
        late = done(definition, begin(definition, NOON), NOON)
        assert (late.tick, late.next) == (expected, None)


# -- jumps of the server's clock -------------------------------------------------------------------


@pytest.mark.parametrize("back", [70, HOUR, 86_400 * 365])
@pytest.mark.parametrize("rule", [EACH_MINUTE, Every(5)])
def test_after_a_jump_back_every_is_due_at_once_and_then_at_its_interval(rule, back):
    definition = schedule(rule)
    progress = done(definition, begin(definition, NOON), NOON + rule.seconds).progress
    now = NOON + rule.seconds - back
    progress = review(definition, progress, now, is_set_back=True)
    first = done(definition, progress, now)
    assert first.tick is not None
    assert now - rule.seconds < first.tick <= now
    assert (first.tick - NOON) % rule.seconds == 0, "its ticks are those that it always had"
    assert first.next == first.tick + rule.seconds


def test_after_a_small_jump_back_every_keeps_its_next_tick():
    definition = schedule(Every(86_400))
    progress = done(definition, begin(definition, NOON), NOON + 86_400).progress
    assert review(definition, progress, NOON + 86_400 - 5, is_set_back=True) == progress


@pytest.mark.parametrize("back", [1, 90, 10 * HOUR, 100 * HOUR])
def test_after_a_jump_back_no_tick_of_a_cron_text_is_given_out_again(back):
    definition = schedule(HOURLY)
    progress, given_out = begin(definition, NOON), []
    for hour in range(1, 51):
        one = done(definition, progress, NOON + hour * HOUR)
        given_out.append(one.tick)
        progress = one.progress
    now = NOON + 50 * HOUR - back
    progress = review(definition, progress, now, is_set_back=True)
    upcoming = next_tick(definition, progress)
    expected = NOON + 51 * HOUR if back < 50 * HOUR else (now // HOUR + 1) * HOUR
    if back == 100 * HOUR:
        # Before the first tick that was given out there are some that never were.
        assert upcoming is not None
        assert upcoming not in given_out
    else:
        assert upcoming == expected


def test_after_a_jump_forward_and_back_the_ticks_between_run_and_the_one_of_the_jump_does_not():
    definition = schedule(HOURLY)
    progress = done(definition, begin(definition, NOON), NOON + HOUR).progress
    far = NOON + 1000 * HOUR
    jumped = done(definition, progress, far + 100)
    assert jumped.tick == far
    progress = review(definition, jumped.progress, NOON + HOUR + 100, is_set_back=True)
    assert next_tick(definition, progress) == NOON + 2 * HOUR, "it does not stand still until the far time"
    progress = replace(progress, after=far - 1)
    assert next_tick(definition, progress) == far + HOUR, "the far tick was given out"


def test_one_time_is_never_given_out_twice():
    definition = schedule(At(NOON + 60))
    one = done(definition, begin(definition, NOON), NOON + 60)
    assert one.tick == NOON + 60
    progress = review(definition, one.progress, NOON, is_set_back=True)
    assert next_tick(definition, progress) is None


def test_a_latest_tick_that_was_given_out_before_the_clock_was_set_back_does_not_run_again():
    definition = schedule(HOURLY)
    progress = done(definition, begin(definition, NOON), NOON + HOUR).progress
    progress = done(definition, progress, NOON + 10 * HOUR + 100).progress
    progress = review(definition, progress, NOON + 2 * HOUR - 100, is_set_back=True)
    late = done(definition, progress, NOON + 10 * HOUR + 1000)
    assert late.tick is None
    assert late.next == NOON + 11 * HOUR


def test_runs_of_ticks_that_were_given_out_stay_few():
    definition = schedule(HOURLY)
    progress, now = begin(definition, NOON), NOON
    for _ in range(100):
        now += 10 * HOUR
        one = done(definition, progress, now + 100)
        assert one.tick == now
        progress = one.progress
    assert len(progress.given_out) <= 16
    assert progress.run_of(now) is not None


# -- new zone data -----------------------------------------------------------------------------


@pytest.mark.parametrize("hours", [-1, 1])
def test_a_tick_that_new_zone_data_has_moved_runs_at_its_new_time_alone(monkeypatch, hours):
    definition = schedule(Cron("0 3 * * *", "Africa/Casablanca"))
    offset = 1
    monkeypatch.setattr(cron, "zone_of", lambda _: timezone(timedelta(hours=offset)))
    progress = begin(definition, NOON)
    old = next_tick(definition, progress)
    assert old is not None
    offset += hours
    new = old - hours * HOUR
    progress = review(definition, progress, NOON, is_set_back=False)
    assert next_tick(definition, progress) == new
    assert done(definition, progress, min(old, new)).tick == (new if new < old else None)
    assert done(definition, progress, new).tick == new


# -- kept at the server ------------------------------------------------------------------------


@given(
    strategies.builds(
        Progress,
        strategies.integers(0, 2**40),
        strategies.integers(-1, 2**40),
        strategies.lists(strategies.tuples(strategies.integers(0, 2**40), strategies.integers(0, 2**40))).map(
            tuple
        ),
        strategies.none() | strategies.integers(0, 2**40),
    )
)
def test_progress_comes_back_as_it_was_stored(progress):
    assert Progress.decode(progress.encode()) == progress


@pytest.mark.parametrize("data", [b"", b"garbage", wire.packed([1]), wire.packed([1, 2, [3], None])])
def test_damaged_progress_is_a_decode_error(data):
    with pytest.raises(DecodeError):
        Progress.decode(data)


@pytest.mark.parametrize("rule", [Every(30), HOURLY, At(NOON)])
def test_a_definition_comes_back_as_it_was_stored(rule):
    definition = schedule(
        rule, catch_up="all", overlap=True, jitter=1.5, start=NOON, until=NOON + HOUR, max_runs=3
    )
    again = Definition.decode("nightly", definition.encode())
    assert again == definition
    assert again.fingerprint == definition.fingerprint
    assert again.fingerprint != schedule(rule).fingerprint


@pytest.mark.parametrize(
    "data", [b"", b"garbage", wire.packed([2, [], "q", b""]), wire.packed([1, [["when"], 1], "q", b""])]
)
def test_a_damaged_definition_is_a_decode_error(data):
    with pytest.raises(DecodeError, match="nightly"):
        Definition.decode("nightly", data)
