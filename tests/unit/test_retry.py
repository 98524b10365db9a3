"""The pure function that decides what becomes of a failure, tested over all policies."""

from __future__ import annotations

import itertools
import random
from datetime import timedelta

import pytest
from hypothesis import example, given, settings, strategies as st

from asyncq import DecodeError, Retry, RetryLater
from asyncq.execution.retry import DEFAULT, delay, from_wire

# Each example is pure arithmetic, but a shared machine may stall now and then, so there is no deadline.
unhurried = settings(deadline=None)

durations = st.floats(0, 1e6, allow_nan=False)
policies = st.builds(
    Retry,
    max_retries=st.integers(0, 1000),
    on=st.sampled_from([(Exception,), (OSError,), (ValueError, KeyError), (LookupError,)]),
    backoff=durations,
    max_backoff=durations,
    jitter=st.booleans(),
)
CENTURY = 100 * 366 * 86400.0
errors = st.sampled_from([ValueError("v"), KeyError("k"), ConnectionError("c"), RuntimeError("r")])


def upper(_least: float, most: float) -> float:
    return most


@unhurried
@given(policies, st.integers(0, 2000), errors)
def test_a_retry_waits_no_longer_than_its_backoff_doubled_each_time(policy, retries, error):
    wait = delay(policy, retries, error)
    if retries >= policy.max_retries or not isinstance(error, policy.on):
        assert wait is None
        return
    longest = min(policy.max_backoff, policy.backoff * 2.0 ** min(retries, 60))
    assert wait is not None
    assert 0 <= wait <= longest
    assert policy.jitter or wait == longest
    assert delay(policy, retries, error, upper) == longest, "full jitter reaches up to the whole backoff"


@unhurried
@given(policies, st.integers(0, 10), errors)
def test_a_policy_that_was_encoded_and_decoded_decides_as_the_original(policy, retries, error):
    travelled = from_wire(policy.to_wire())
    assert delay(travelled, retries, error, upper) == delay(policy, retries, error, upper)


@unhurried
@given(st.one_of(st.none(), policies), st.integers(0, 10), durations, st.integers(0, 10))
def test_the_request_of_the_task_overrides_the_policy(policy, retries, countdown, limit):
    asked = RetryLater(countdown=countdown, max_retries=limit)
    assert delay(policy, retries, asked) == (countdown if retries < limit else None)


@unhurried
@given(st.one_of(st.none(), policies), st.integers(0, 10))
def test_a_task_that_asks_for_a_retry_without_a_time_gets_the_backoff_of_the_policy(policy, retries):
    wait = delay(policy, retries, RetryLater(), upper)
    rule = policy or DEFAULT
    if retries >= rule.max_retries:
        assert wait is None
    else:
        assert wait == min(rule.max_backoff, rule.backoff * 2.0**retries)


def test_without_a_policy_an_error_is_not_retried():
    assert delay(None, 0, OSError()) is None


def test_the_backoff_doubles_up_to_its_maximum():
    policy = Retry(max_retries=100, backoff=1, max_backoff=10, jitter=False)
    assert [delay(policy, n, OSError()) for n in range(6)] == [1, 2, 4, 8, 10, 10]
    assert delay(policy, 99, OSError()) == 10


def test_full_jitter_spreads_many_retries_evenly():
    source = random.Random(7)
    policy = Retry(backoff=10)
    waits = sorted(delay(policy, 0, OSError(), source.uniform) or 0.0 for _ in range(2000))
    per_second = [sum(second <= wait < second + 1 for wait in waits) for second in range(10)]
    assert sum(per_second) == 2000
    assert min(per_second) > 140, f"200 are due in each second: {per_second}"
    assert max(per_second) < 260, f"200 are due in each second: {per_second}"
    assert max(b - a for a, b in itertools.pairwise(waits)) < 0.1


def test_a_policy_covers_subclasses_by_class_and_by_name():
    class Lost(ConnectionError):
        pass

    policy = Retry(on=(OSError,), jitter=False)
    assert delay(policy, 0, Lost()) == delay(from_wire(policy.to_wire()), 0, Lost()) == 1.0


@pytest.mark.parametrize("way", [timedelta(seconds=2), "2s", 2])
def test_a_duration_may_be_given_in_any_form(way):
    policy = Retry(backoff=way, max_backoff=way, jitter=False)
    assert delay(policy, 0, OSError()) == 2.0
    assert delay(from_wire(policy.to_wire()), 0, OSError()) == 2.0


def test_a_countdown_may_be_a_timedelta():
    assert delay(None, 0, RetryLater(countdown=timedelta(seconds=2))) == 2.0


@pytest.mark.parametrize("countdown", [-1, float("nan"), float("inf"), 1e300])
def test_a_countdown_that_is_not_a_duration_is_refused(countdown):
    with pytest.raises(ValueError, match="countdown"):
        RetryLater(countdown=countdown)


@pytest.mark.parametrize(
    ("wrong", "error"),
    [
        ({"max_retries": -1}, ValueError),
        ({"max_retries": None}, TypeError),
        ({"max_retries": 1.5}, TypeError),
        ({"backoff": -1}, ValueError),
        ({"max_backoff": float("nan")}, ValueError),
        ({"on": ("OSError",)}, TypeError),
        ({"on": (KeyboardInterrupt,)}, TypeError),
    ],
)
def test_an_invalid_policy_is_refused(wrong, error):
    with pytest.raises(error, match=next(iter(wrong))):
        Retry(**wrong)


def test_one_class_may_be_given_without_a_tuple():
    assert Retry(on=OSError).on == (OSError,)  # type: ignore[arg-type]


anything = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.binary(),
    lambda inner: st.lists(inner, max_size=6) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)


@unhurried
@given(anything)
def test_an_invalid_policy_in_a_message_is_a_decode_error(data):
    try:
        policy = from_wire(data)
    except DecodeError:
        return
    assert isinstance(policy.max_retries, int)


numbers = st.one_of(st.integers(), st.floats(), st.none(), st.text(max_size=3))


@unhurried
@given(st.tuples(numbers, numbers, numbers, numbers, st.lists(st.text(max_size=3), max_size=3)))
@example((float("inf"), 1.0, 1.0, True, []))
@example((3, float("nan"), 1.0, True, []))
@example((3, -1.0, 1.0, True, []))
@example((3, float("inf"), float("inf"), False, []))
def test_a_policy_with_random_fields_is_a_decode_error_or_gives_a_valid_delay(data):
    try:
        policy = from_wire(list(data))
    except DecodeError:
        return
    wait = delay(policy, 0, RetryLater(), upper)
    assert wait is None or 0 <= wait <= CENTURY
