"""The table of states, and the sets that are derived from it."""

from __future__ import annotations

import itertools

import pytest

from asyncq import states
from asyncq.states import (
    EXCEPTION_STATES,
    PROPAGATE_STATES,
    READY_STATES,
    TRANSITIONS,
    UNREADY_STATES,
    State,
    precedence,
)


def test_the_table_has_every_state():
    assert set(TRANSITIONS) == set(State)
    assert set().union(*TRANSITIONS.values()) <= set(State)


def test_no_transition_leaves_a_final_state_or_goes_back_to_unknown():
    assert {state for state, following in TRANSITIONS.items() if not following} == READY_STATES
    assert all(State.UNKNOWN not in following for following in TRANSITIONS.values())


def test_every_state_can_be_reached_and_every_job_can_end():
    for start in TRANSITIONS:
        seen, ahead = {start}, [start]
        while ahead:
            for following in TRANSITIONS[ahead.pop()] - seen:
                seen.add(following)
                ahead.append(following)
        assert seen & READY_STATES
        if start is State.UNKNOWN:
            assert seen == set(State)


def test_the_sets_of_states_are_those_of_celery():
    assert {"SUCCESS", "FAILURE", "REVOKED"} == READY_STATES
    assert {"PENDING", "SCHEDULED", "STARTED", "RETRY"} == UNREADY_STATES
    assert {"FAILURE", "REVOKED"} == PROPAGATE_STATES
    assert {"RETRY", "FAILURE", "REVOKED"} == EXCEPTION_STATES
    assert READY_STATES.isdisjoint(UNREADY_STATES)


def test_a_state_is_equal_to_its_name():
    for state in State:
        assert state == state.name == str(state) == f"{state}"


def test_precedence_orders_every_state_strictly():
    order = [*READY_STATES, *UNREADY_STATES, State.UNKNOWN]
    assert len({precedence(state) for state in order}) == len(State)
    for ended, live in itertools.product(READY_STATES, UNREADY_STATES):
        assert precedence(ended) < precedence(live) < precedence(State.UNKNOWN)


def test_a_custom_state_ranks_with_started():
    assert precedence("PROGRESS") == precedence("STARTED")


@pytest.mark.parametrize("state", list(State))
def test_the_diagram_shows_every_state(state):
    if state is not State.UNKNOWN:
        assert state.name in (states.__doc__ or "").partition("```")[2].partition("```")[0]
