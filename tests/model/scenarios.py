"""The scenarios that must hold: each a world and a number of faults, in a quick and in a full form."""

from __future__ import annotations

from typing import NamedTuple

from stage import Stage


class Scenario(NamedTuple):
    """A world in which the protocol must hold."""

    name: str
    full: Stage
    """Explored by `run.py --full`, in minutes."""
    quick: Stage
    """Explored by pytest, in seconds: the same world with fewer faults."""


SCENARIOS = (
    Scenario(
        "dependency; crash, pause, lost replies, lost PUBLISH, lost subscription",
        full=Stage(faults=2),
        quick=Stage(faults=1),
    ),
    Scenario(
        "retry of a job that was enqueued for later",
        full=Stage(faults=2, retries=1, delayed=True, waiters=1),
        quick=Stage(faults=1, retries=1, delayed=True, waiters=1),
    ),
    Scenario(
        "revoke the parent, retry",
        full=Stage(faults=2, revoke=0, retries=1, waiters=1),
        quick=Stage(faults=1, revoke=0, retries=1, waiters=1),
    ),
    Scenario(
        "revoke the parent, running bodies are cancelled",
        full=Stage(faults=2, revoke=0, terminate=True),
        quick=Stage(faults=1, revoke=0, terminate=True, waiters=1),
    ),
    Scenario(
        "revoke the child, running bodies are cancelled",
        full=Stage(faults=2, revoke=1, terminate=True, waiters=1),
        quick=Stage(faults=1, revoke=1, terminate=True, waiters=1),
    ),
    Scenario(
        "one job, retry and revoke",
        full=Stage(
            faults=3,
            jobs=1,
            chain=False,
            waiters=1,
            retries=1,
            revoke=0,
            lost_publishes=False,
            lost_connections=False,
        ),
        quick=Stage(
            faults=1,
            jobs=1,
            chain=False,
            waiters=1,
            retries=1,
            revoke=0,
            lost_publishes=False,
            lost_connections=False,
        ),
    ),
    Scenario(
        "the parent expires and is forgotten, records expire",
        full=Stage(faults=2, expire=0, forget=0, pauses=False, records_expire=True),
        quick=Stage(faults=1, expire=0, forget=0, pauses=False, records_expire=True),
    ),
    Scenario(
        "the child is forgotten, records expire",
        full=Stage(faults=2, forget=1, waiters=1, pauses=False, records_expire=True),
        quick=Stage(faults=1, forget=1, waiters=1, pauses=False, records_expire=True),
    ),
    Scenario(
        "reads of dead processes stay at the server",
        full=Stage(faults=2, orphan_reads=True, chain=False, waiters=1, pauses=False),
        quick=Stage(faults=1, orphan_reads=True, chain=False, waiters=1, pauses=False),
    ),
    Scenario(
        "reads of dead and of renamed processes stay at the server, one job",
        full=Stage(faults=2, orphan_reads=True, jobs=1, chain=False, waiters=1),
        quick=Stage(faults=1, orphan_reads=True, jobs=1, chain=False, waiters=1),
    ),
    Scenario(
        "pauses and crashes, one job",
        full=Stage(faults=3, jobs=1, chain=False, waiters=1),
        quick=Stage(faults=2, jobs=1, chain=False, waiters=1),
    ),
    Scenario(
        "flush: the server loses everything, ids start again",
        full=Stage(faults=2, flushes=True, chain=False, waiters=1),
        quick=Stage(faults=1, flushes=True, chain=False, waiters=1),
    ),
    Scenario(
        "a worker is told to stop: release and leave",
        full=Stage(
            faults=2, stops=True, chain=False, waiters=1, lost_publishes=False, lost_connections=False
        ),
        # With one fault there is no reply to lose beside the stop, and leaving with a claim would go unseen.
        quick=Stage(
            faults=2, stops=True, jobs=1, chain=False, waiters=1, lost_publishes=False, lost_connections=False
        ),
    ),
    Scenario(
        "a job that kills its worker, beside an innocent one",
        full=Stage(faults=0, chain=False, poison=0, waiters=1),
        quick=Stage(faults=0, chain=False, poison=0, waiters=1),
    ),
    Scenario(
        "a job that kills its worker, beside an innocent one, and a fault",
        full=Stage(faults=1, chain=False, poison=0, waiters=1, lost_publishes=False, lost_connections=False),
        quick=Stage(
            faults=1, jobs=1, chain=False, poison=0, waiters=1, lost_publishes=False, lost_connections=False
        ),
    ),
)
