"""The pauses between two tries."""

from __future__ import annotations

import pytest
from hypothesis import given, strategies as st

from asyncq.broker.transport.reconnect import FIRST_PAUSE, LONGEST_PAUSE, pause


@pytest.mark.parametrize(
    ("attempt", "longest"), [(1, 0.05), (2, 0.1), (3, 0.2), (5, 0.8), (6, 1.0), (50, 1.0)]
)
def test_pauses_double_up_to_a_second_and_are_spread_over_their_upper_half(attempt, longest):
    pauses = [pause(attempt) for _ in range(300)]
    assert longest / 2 <= min(pauses) < longest * 0.6
    assert longest * 0.9 < max(pauses) <= longest


@given(st.integers(1, 10**9))
def test_a_pause_is_never_zero_and_never_too_long(attempt):
    assert FIRST_PAUSE / 2 <= pause(attempt) <= LONGEST_PAUSE
