r"""The states of a job: what they are, and which may follow which.

A new state begins here. Then it needs a letter: see `wire.STATE_OF` and `broker/schema/records.py`. A
job is in exactly one state, and the table `TRANSITIONS` says which states may follow. `SUCCESS`, `FAILURE`
and `REVOKED` are final: nothing follows them, and the first of them to be written stays.

```
            delay                    due
   (new) ----------> SCHEDULED ------------+
     |                                     v
     +-----------------------------------> PENDING <---- due ---- RETRY
                                           |  ^  (or its worker died)  ^
                                           v  |                        |
                                          STARTED -- failed, again ----+
                                           |
                                           v
                                SUCCESS  FAILURE  REVOKED    (REVOKED from any state that has not ended)
```

`UNKNOWN` is not a state of a job but of a handle that was made from an id and has not asked the server yet.
"""

from __future__ import annotations

from enum import StrEnum
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping


class State(StrEnum):
    """Where a job is. It equals its name: `result.state == "SUCCESS"`."""

    UNKNOWN = "UNKNOWN"
    """The handle has not asked the server yet, or there is no such job (any more)."""
    PENDING = "PENDING"
    """Accepted. The job waits for a worker, for a limit of its task, or for jobs on which it depends."""
    SCHEDULED = "SCHEDULED"
    """Accepted, to start at a later time."""
    STARTED = "STARTED"
    """A worker has the job."""
    RETRY = "RETRY"
    """Failed. The job waits for its next attempt."""
    SUCCESS = "SUCCESS"
    """Ended with a value."""
    FAILURE = "FAILURE"
    """Ended with an error."""
    REVOKED = "REVOKED"
    """Ended by `revoke`, or because it expired before it started."""


TRANSITIONS: Mapping[State, frozenset[State]] = {
    State.UNKNOWN: frozenset({State.PENDING, State.SCHEDULED, State.FAILURE, State.REVOKED}),
    State.PENDING: frozenset({State.SCHEDULED, State.STARTED, State.FAILURE, State.REVOKED}),
    State.SCHEDULED: frozenset({State.PENDING, State.REVOKED}),
    State.STARTED: frozenset(
        {State.PENDING, State.SCHEDULED, State.RETRY, State.SUCCESS, State.FAILURE, State.REVOKED}
    ),
    State.RETRY: frozenset({State.PENDING, State.FAILURE, State.REVOKED}),
    State.SUCCESS: frozenset(),
    State.FAILURE: frozenset(),
    State.REVOKED: frozenset(),
}
"""Which states may follow which. `UNKNOWN` stands for "no record". A job that waited for other jobs begins
its countdown after that. A job that was replaced waits again. A job that expires between two tries has
failed."""

READY_STATES: frozenset[State] = frozenset(
    state for state, following in TRANSITIONS.items() if not following and state is not State.UNKNOWN
)
"""The final states: the job has an outcome."""

UNREADY_STATES: frozenset[State] = frozenset(TRANSITIONS) - READY_STATES - {State.UNKNOWN}
"""The states of a job that has not ended."""

EXCEPTION_STATES: frozenset[State] = frozenset({State.RETRY, State.FAILURE, State.REVOKED})
"""The states in which a job carries an error."""

PROPAGATE_STATES: frozenset[State] = frozenset({State.FAILURE, State.REVOKED})
"""The final states in which `get` raises."""

_PRECEDENCE: tuple[str, ...] = (
    "SUCCESS",
    "FAILURE",
    "REVOKED",
    "STARTED",
    "RETRY",
    "SCHEDULED",
    "PENDING",
    "UNKNOWN",
)


def precedence(state: str) -> int:
    """Returns the rank of a state, as in Celery: the lower the number, the further the job has come.

    A state of the user's own (`PROGRESS`) ranks with `STARTED`, because only a running task can set one.

    >>> precedence("SUCCESS") < precedence("PENDING")
    True
    """
    try:
        return _PRECEDENCE.index(state)
    except ValueError:
        return _PRECEDENCE.index("STARTED")
