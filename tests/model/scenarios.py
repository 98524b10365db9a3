"""The scenarios in which the protocol must hold: each is a world and a number of faults, in two sizes."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, NamedTuple

from model.setup import ALONE, APART, DIAMOND, FAN_IN, FAN_OUT, ROW, Setup


class Scenario(NamedTuple):
    """A world in which the protocol must hold."""

    name: str
    full: Setup
    """Explored by `run.py --full`, in minutes."""
    quick: Setup
    """Explored by pytest, in seconds: the same world with fewer faults."""


def _scenario(name: str, full: Setup, **quick: Any) -> Scenario:
    """Makes a scenario. Its quick form is the full one with one fault, and with the given changes."""
    return Scenario(name, full, replace(full, **{"faults": 1, **quick}))


_ABOUT_FORWARDERS: dict[str, Any] = {
    "workers": 1,
    "most_held": 1,
    "waiters": 1,
    "pauses": False,
    "lost_publishes": False,
    "lost_connections": False,
}
"""Other scenarios explore the faults of workers and waiters; here they would only multiply the states."""

_ONLY_FAILOVERS: dict[str, Any] = {
    "crashes": False,
    "pauses": False,
    "lost_replies": False,
    "lost_publishes": False,
    "lost_connections": False,
}

SCENARIOS = (
    _scenario(
        "chain; crash, pause, lost replies, lost PUBLISH, lost subscription",
        Setup(faults=2),
    ),
    _scenario(
        "retry of a job that was enqueued for later",
        Setup(faults=2, retries=1, delayed=True, waiters=1),
    ),
    _scenario(
        "revoke the parent, retry",
        Setup(faults=2, revoke=0, retries=1, waiters=1),
    ),
    _scenario(
        "revoke the parent, running bodies are cancelled",
        Setup(faults=2, revoke=0, terminate=True),
        waiters=1,
    ),
    _scenario(
        "revoke the child, running bodies are cancelled",
        Setup(faults=2, revoke=1, terminate=True, waiters=1),
    ),
    _scenario(
        "fan-in: the child starts after the last parent",
        Setup(faults=2, parents=FAN_IN, waiters=1, most_held=1, lost_publishes=False, lost_connections=False),
    ),
    _scenario(
        "fan-in: a parent fails, the child is revoked",
        Setup(faults=1, parents=FAN_IN, waiters=1, fails=0, revoke=2, terminate=True),
        waiters=0,
        most_held=1,
        lost_publishes=False,
    ),
    _scenario(
        "fan-in: a parent fails or is revoked",
        Setup(faults=1, parents=FAN_IN, waiters=1, fails=1, revoke=0, lost_connections=False),
        waiters=0,
        most_held=1,
        lost_publishes=False,
    ),
    _scenario(
        "a value for two jobs, the parent is forgotten, one of the two is revoked",
        Setup(
            faults=2, parents=FAN_OUT, kept=0, forget=0, revoke=1, waiters=0, most_held=1, records_expire=True
        ),
        pauses=False,
    ),
    _scenario(
        "three jobs wait for one job, which may fail, and are notified one by one",
        Setup(
            faults=2,
            parents=((), (0,), (0,), (0, 2)),
            fails=0,
            notified_at_once=1,
            waiters=1,
            most_held=1,
        ),
        waiters=0,
        pauses=False,
    ),
    _scenario(
        "a value for one job of a replacement",
        Setup(faults=2, kept=0, replaced=1, waiters=0, most_held=1),
    ),
    _scenario(
        "shards: a value for two jobs of another shard",
        Setup(faults=2, parents=FAN_OUT, shards=(0, 1, 1), kept=0, forwarders=2, **_ABOUT_FORWARDERS),
        forwarders=1,
    ),
    _scenario(
        "chain: the child expires while it waits, the parent may fail",
        Setup(faults=2, expire=1, fails=0, waiters=1),
    ),
    _scenario(
        "an error callback, of a job that may fail or be revoked",
        Setup(faults=2, on_error=1, fails=0, revoke=0, waiters=1),
    ),
    _scenario(
        "an error callback of a chain, whose first job may fail and whose second may be revoked",
        Setup(
            faults=2,
            parents=((), (0,), (0, 1)),
            on_error=2,
            fails=0,
            revoke=1,
            waiters=1,
            most_held=1,
            lost_publishes=False,
            lost_connections=False,
        ),
    ),
    _scenario(
        "an id is used again after its job was forgotten",
        Setup(faults=2, parents=APART, same_id=True, waiters=0, most_held=1, pauses=False),
    ),
    _scenario(
        "a workflow replaces a job that has a waiter and a dependent",
        Setup(faults=2, replaced=0, most_held=1, lost_connections=False),
    ),
    _scenario(
        "a workflow replaces a job that is revoked",
        Setup(faults=2, parents=ALONE, replaced=0, revoke=0, waiters=1, lost_connections=False),
    ),
    _scenario(
        "a chain that is too long for one step, two forwarders",
        Setup(faults=2, parents=ROW, shards=(0, 0, 0), at_once=1, forwarders=2, **_ABOUT_FORWARDERS),
    ),
    _scenario(
        "a fan-in that is too large for one step, in two shards; messages about forgotten jobs come again",
        Setup(
            faults=2,
            parents=FAN_IN,
            shards=(0, 1, 0),
            at_once=1,
            forwarders=2,
            records_expire=True,
            **_ABOUT_FORWARDERS,
        ),
        forwarders=1,
    ),
    _scenario(
        "shards: a chain crosses to the other shard and back, two forwarders",
        Setup(faults=2, parents=ROW, shards=(0, 1, 0), forwarders=2, **_ABOUT_FORWARDERS),
    ),
    _scenario(
        "shards: a diamond, two forwarders",
        Setup(faults=1, parents=DIAMOND, shards=(1, 0, 1, 0), forwarders=2, **_ABOUT_FORWARDERS),
        forwarders=1,
    ),
    _scenario(
        "shards: another call takes the id of a member for which jobs in both shards wait",
        Setup(
            faults=2,
            parents=((), (0,), (1,), (1,)),
            shards=(0, 1, 0, 1),
            forwarders=2,
            taken=1,
            **_ABOUT_FORWARDERS,
        ),
        forwarders=1,
    ),
    _scenario(
        "shards: a member fails, one is revoked",
        Setup(faults=2, parents=ROW, shards=(1, 0, 1), forwarders=2, fails=0, revoke=1, **_ABOUT_FORWARDERS),
        forwarders=1,
    ),
    _scenario(
        "shards: a workflow in another shard replaces a job",
        Setup(faults=2, shards=(0, 1, 1), forwarders=2, replaced=0, **_ABOUT_FORWARDERS),
    ),
    _scenario(
        "shards: messages about forgotten jobs are delivered again",
        Setup(
            faults=2, parents=FAN_IN, shards=(1, 0, 1), forwarders=2, records_expire=True, **_ABOUT_FORWARDERS
        ),
        forwarders=1,
    ),
    _scenario(
        "one job, retry and revoke",
        Setup(
            faults=3,
            parents=ALONE,
            waiters=1,
            retries=1,
            revoke=0,
            lost_publishes=False,
            lost_connections=False,
        ),
    ),
    _scenario(
        "the parent expires and is forgotten, records expire",
        Setup(faults=2, expire=0, forget=0, pauses=False, records_expire=True),
    ),
    _scenario(
        "the child is forgotten, records expire",
        Setup(faults=2, forget=1, waiters=1, pauses=False, records_expire=True),
    ),
    _scenario(
        "reads of dead processes stay at the server",
        Setup(faults=2, orphan_reads=True, parents=APART, waiters=1, pauses=False),
    ),
    _scenario(
        "reads of dead processes and of ended sessions stay at the server, one job",
        Setup(faults=2, orphan_reads=True, parents=ALONE, waiters=1),
    ),
    _scenario(
        "pauses and crashes, one job",
        Setup(faults=3, parents=ALONE, waiters=1),
        faults=2,
    ),
    _scenario(
        "flush: the server loses everything, ids start again",
        Setup(
            faults=2,
            flushes=True,
            parents=APART,
            waiters=1,
            most_held=1,
            pauses=False,
            lost_publishes=False,
            lost_connections=False,
        ),
        faults=1,
        most_held=2,
        pauses=True,
        lost_publishes=True,
        lost_connections=True,
    ),
    _scenario(
        "flush: the server loses everything, ids start again, one job",
        Setup(faults=2, flushes=True, parents=ALONE, waiters=1),
    ),
    _scenario(
        "failover: the replica lacks the newest writes, one job",
        Setup(
            faults=2,
            failovers=True,
            parents=ALONE,
            waiters=1,
            pauses=False,
            lost_publishes=False,
            lost_connections=False,
        ),
        pauses=True,
    ),
    _scenario(
        "failover: the replica lacks the newest writes, one job with two waiters",
        Setup(faults=1, failovers=True, parents=ALONE, waiters=2),
        waiters=1,
        crashes=False,
        pauses=False,
    ),
    _scenario(
        "failover: the replica lacks the newest writes, a retry of a job that was enqueued for later",
        Setup(faults=1, failovers=True, parents=ALONE, retries=1, delayed=True, waiters=1),
        **_ONLY_FAILOVERS,
    ),
    _scenario(
        "failover: the replica lacks the newest writes, two jobs whose ids come again",
        Setup(faults=1, failovers=True, parents=APART, waiters=1, **_ONLY_FAILOVERS),
        most_held=1,
    ),
    _scenario(
        "failover: the replica lacks the newest writes, a chain",
        Setup(faults=1, failovers=True, waiters=2),
        waiters=1,
        **_ONLY_FAILOVERS,
    ),
    _scenario(
        "failover: the replica lacks the newest writes, twice, a chain",
        Setup(faults=2, failovers=True, waiters=1, most_held=1, **_ONLY_FAILOVERS),
    ),
    _scenario(
        "shards of a Cluster that loses nothing: no job is given up; a replaced job",
        Setup(
            faults=1,
            shards=(0, 1, 1),
            replaced=0,
            on_cluster=True,
            forwarders=2,
            **_ABOUT_FORWARDERS,
        ),
    ),
    _scenario(
        "shards of a Cluster that loses nothing: no job is given up; a diamond",
        Setup(
            faults=1,
            parents=DIAMOND,
            shards=(1, 0, 1, 0),
            on_cluster=True,
            forwarders=1,
            **_ABOUT_FORWARDERS,
        ),
    ),
    _scenario(
        "failover of one shard of two, a chain that crosses to the other shard",
        Setup(
            faults=2,
            failovers=True,
            on_cluster=True,
            shards=(0, 1),
            forwarders=1,
            **{**_ABOUT_FORWARDERS, **_ONLY_FAILOVERS, "lost_replies": True},
        ),
        **_ONLY_FAILOVERS,
    ),
    _scenario(
        "failover of one shard of two, a chain that begins in the other shard",
        Setup(
            faults=2,
            failovers=True,
            on_cluster=True,
            shards=(1, 0),
            forwarders=1,
            **{**_ABOUT_FORWARDERS, **_ONLY_FAILOVERS, "lost_replies": True},
        ),
        **_ONLY_FAILOVERS,
    ),
    _scenario(
        "failover of one shard of two, a chain that crosses to the other shard and back",
        Setup(
            faults=1,
            failovers=True,
            on_cluster=True,
            parents=ROW,
            shards=(0, 1, 0),
            forwarders=2,
            **{**_ABOUT_FORWARDERS, **_ONLY_FAILOVERS},
        ),
        waiters=0,
        forwarders=1,
    ),
    _scenario(
        "failover of one shard of two, a diamond",
        Setup(
            faults=1,
            failovers=True,
            on_cluster=True,
            parents=DIAMOND,
            shards=(1, 0, 1, 0),
            forwarders=1,
            **{**_ABOUT_FORWARDERS, **_ONLY_FAILOVERS},
        ),
        waiters=0,
    ),
    _scenario(
        "failover: the replica lacks the newest writes, a fan-in whose first parent may fail",
        Setup(
            faults=1,
            failovers=True,
            parents=FAN_IN,
            fails=0,
            waiters=1,
            most_held=1,
            lost_publishes=False,
            lost_connections=False,
        ),
        workers=1,
        **_ONLY_FAILOVERS,
    ),
    _scenario(
        "a worker is asked to stop: it releases its jobs and unregisters",
        Setup(faults=2, stops=True, parents=APART, waiters=1, lost_publishes=False, lost_connections=False),
        # With one fault there is no reply to lose beside the stop: nobody would notice that a worker
        # unregisters with a claim.
        faults=2,
        parents=ALONE,
    ),
    _scenario(
        "a worker has no thread for a job, which is revoked, and puts it into an executor queue",
        Setup(
            faults=2,
            parents=ALONE,
            executor_queues=True,
            revoke=0,
            waiters=1,
            stops=True,
            lost_publishes=False,
            lost_connections=False,
        ),
    ),
    _scenario(
        "a worker does not know the task of a job, another does",
        Setup(faults=2, parents=ALONE, unknown=0, waiters=1, stops=True, lost_publishes=False),
    ),
    _scenario(
        "a worker does not know the task of a job that is revoked",
        Setup(faults=2, parents=ALONE, unknown=0, revoke=0, waiters=1, lost_publishes=False),
    ),
    _scenario(
        "no worker knows the task of a job",
        Setup(faults=2, parents=ALONE, unknown=0, workers=1, waiters=1),
    ),
    _scenario(
        "the second crash of a job counts only if the job had started",
        Setup(
            faults=3, parents=ALONE, max_crashes=2, waiters=1, lost_publishes=False, lost_connections=False
        ),
        faults=2,
    ),
    _scenario(
        "jobs are fetched ahead, and a crash counts for none that had not begun",
        Setup(
            faults=2,
            parents=APART,
            fetches_ahead=True,
            waiters=1,
            max_crashes=2,
            lost_publishes=False,
            lost_connections=False,
        ),
    ),
    _scenario(
        "jobs are fetched ahead, one is revoked, and their worker is asked to stop",
        Setup(
            faults=2,
            parents=APART,
            fetches_ahead=True,
            revoke=1,
            stops=True,
            waiters=0,
            pauses=False,
            lost_publishes=False,
            lost_connections=False,
        ),
    ),
    _scenario(
        "jobs are fetched ahead behind a job that kills its worker",
        Setup(faults=0, parents=APART, fetches_ahead=True, poison=0, waiters=1),
        faults=0,
    ),
    _scenario(
        "a job that kills its worker, beside another job",
        Setup(faults=0, parents=APART, poison=0, waiters=1),
        faults=0,
    ),
    _scenario(
        "a job that kills its worker, beside another job, and a fault",
        Setup(faults=1, parents=APART, poison=0, waiters=1, lost_publishes=False, lost_connections=False),
        parents=ALONE,
    ),
)
