"""The states of an attempt: which state may follow which, and what happens when a thread and a revocation
meet.
"""

from __future__ import annotations

import sys
import threading

import pytest

from asyncq.execution.executors import (
    CANCELLED,
    CANCELLING,
    DROPPED,
    ENDED,
    NEXT_STATES,
    RUNNING,
    STARTING,
    AttemptState,
    JobControl,
)


def test_each_state_has_a_row_in_the_table():
    assert set(NEXT_STATES) == set(AttemptState)


def test_every_state_can_lead_to_a_final_state_and_no_final_state_leads_on():
    def ends(state: AttemptState, seen: frozenset[AttemptState]) -> bool:
        following = [after for after in NEXT_STATES[state] if after not in seen]
        return state in {ENDED, CANCELLED} or any(ends(after, seen | {state}) for after in following)

    assert all(ends(state, frozenset()) for state in AttemptState)
    assert NEXT_STATES[ENDED] == NEXT_STATES[CANCELLED] == ()


@pytest.mark.parametrize("state", AttemptState)
def test_an_outcome_is_needed_until_the_attempt_is_cancelled(state):
    control = JobControl()
    control.state = state
    assert control.is_wanted == (state not in {DROPPED, CANCELLING, CANCELLED})


@pytest.mark.parametrize("state", AttemptState)
def test_a_body_starts_only_while_its_attempt_is_starting(state):
    control = JobControl()
    control.state = state
    assert control.begin() == (state is STARTING)
    assert control.state is (RUNNING if state is STARTING else state)


@pytest.mark.parametrize("state", AttemptState)
def test_a_move_from_another_state_changes_nothing(state):
    control = JobControl()
    control.state = state
    assert control.move(CANCELLING, STARTING, RUNNING) is state
    assert control.state is (CANCELLING if state in {STARTING, RUNNING} else state)


def test_a_body_in_a_thread_either_starts_or_was_cancelled_before():
    """The thread that begins the body and the revocation exclude each other: the first one decides."""
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        for _ in range(2000):
            control = JobControl()
            started: list[bool] = []
            thread = threading.Thread(
                target=lambda control=control, started=started: started.append(control.begin())
            )
            thread.start()
            before = control.move(CANCELLING, STARTING)
            thread.join()
            assert started == [before is RUNNING]
            assert control.state is (RUNNING if before is RUNNING else CANCELLING)
    finally:
        sys.setswitchinterval(interval)
