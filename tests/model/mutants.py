"""The mutants: the protocol with a rule broken, each in a small world in which the explorer must notice it.

Every rule of `rules.py` has a mutant; a test checks that. `why` names the promise that the mutant must break.
"""

from __future__ import annotations

from dataclasses import replace
from typing import NamedTuple

from model.explorer import BROKEN, STUCK, Result
from model.rules import Rules
from model.setup import ALONE, APART, CHAIN, FAN_IN, FAN_OUT, ROW, Setup

PROTOCOL = Rules()
TWO_JOBS = Setup(faults=1, parents=APART)
WORKFLOW = Setup(faults=1, waiters=1)
ONE_JOB = Setup(faults=1, parents=ALONE, waiters=1)
POISON = Setup(faults=0, parents=APART, poison=0, waiters=1)
AHEAD = replace(POISON, fetches_ahead=True)
STOP = Setup(faults=2, parents=ALONE, waiters=1, stops=True, lost_publishes=False, lost_connections=False)
FAILOVER = Setup(
    faults=1,
    failovers=True,
    parents=ALONE,
    waiters=1,
    crashes=False,
    pauses=False,
    lost_replies=False,
    lost_publishes=False,
    lost_connections=False,
)
REVOKE = Setup(faults=1, revoke=0, retries=1, waiters=1)
SHARDS = Setup(
    faults=1,
    shards=(0, 1),
    forwarders=1,
    workers=1,
    most_held=1,
    waiters=1,
    pauses=False,
    lost_publishes=False,
    lost_connections=False,
)


class Mutant(NamedTuple):
    """A broken protocol, a world that shows the defect, and how the explorer must catch it."""

    name: str
    rules: Rules
    world: Setup
    verdict: str
    why: str
    """A part of the explorer's message. Caught for another reason, the mutant would not test its rule."""

    @property
    def setup(self) -> Setup:
        """The world under the broken rules."""
        return replace(self.world, rules=self.rules)

    @property
    def unbroken(self) -> Setup:
        """The same world with no rule broken, except for polling where the mutant leaves it out.

        Polling hides the defects of the two other rules of a waiter. So the mutants of those rules have no
        polling, and this world has none, either.
        """
        return replace(self.world, rules=_without("poll")) if "(no poll)" in self.name else self.world

    def caught_by(self, result: Result) -> bool:
        """Returns whether the explorer noticed the mutant, and for the right reason."""
        return result.verdict == self.verdict and self.why in result.why


def _without(*rules: str) -> Rules:
    return replace(PROTOCOL, **dict.fromkeys(rules, False))


MUTANTS = (
    Mutant(
        "no fence",
        _without("fence_pending", "fence_record", "fence_live"),
        TWO_JOBS,
        BROKEN,
        "accepted without its claim",
    ),
    Mutant(
        "fence by job id only",
        _without("fence_pending", "fence_record"),
        TWO_JOBS,
        BROKEN,
        "accepted without its claim",
    ),
    Mutant(
        "fence by pending list only (flush, ids start again)",
        _without("fence_record", "fence_live"),
        replace(TWO_JOBS, flushes=True, waiters=1),
        BROKEN,
        "acknowledged entry 1, which is job 1's",
    ),
    Mutant(
        "fence by pending list only (failover, ids come again)",
        _without("fence_record", "fence_live"),
        replace(FAILOVER, parents=APART),
        BROKEN,
        "acknowledged entry 1, which is job 1's",
    ),
    Mutant(
        "takeover without crash count",
        _without("crash_count"),
        POISON,
        BROKEN,
        "kills its worker for the 4th time",
    ),
    Mutant(
        "dependents are notified in a second call",
        _without("atomic_dependents"),
        WORKFLOW,
        STUCK,
        "job 1 is waiting",
    ),
    Mutant(
        "the remaining dependents are notified in a second call",
        _without("atomic_rest"),
        replace(WORKFLOW, parents=FAN_OUT, notified_at_once=1, waiters=0, pauses=False),
        STUCK,
        "job 2 is waiting",
    ),
    Mutant(
        "a kept value is deleted at its first read",
        _without("kept_until_end"),
        replace(WORKFLOW, kept=0, waiters=0, pauses=False),
        BROKEN,
        "job 1 starts, and the kept value that it needs is gone",
    ),
    Mutant(
        "a workflow is submitted in two calls",
        _without("submit_whole"),
        replace(WORKFLOW, faults=0),
        STUCK,
        "waiter 0 is new",
    ),
    Mutant(
        "fan-in: the child's count of parents is decremented in a second call",
        _without("atomic_count"),
        replace(WORKFLOW, parents=FAN_IN, waiters=0, crashes=False, pauses=False),
        BROKEN,
        "job 2 starts, and job",
    ),
    Mutant(
        "a child's entry is added, and its record is written in a second call",
        _without("atomic_child_entry"),
        replace(WORKFLOW, faults=0, revoke=1),
        BROKEN,
        'job 1 starts after revoke answered "revoked"',
    ),
    Mutant(
        "the end of a parent does not check the child's record",
        _without("child_still_waits"),
        replace(WORKFLOW, faults=0, revoke=1, fails=0),
        BROKEN,
        "job 1: a second outcome was written",
    ),
    Mutant(
        "replace: the entry is acknowledged in a second call",
        _without("atomic_replace"),
        replace(WORKFLOW, faults=0, parents=ALONE, replaced=0),
        BROKEN,
        "job 0 starts, and job 1 has not ended",
    ),
    Mutant(
        "an outbox entry is deleted before it is delivered",
        _without("delivered_before_deleted"),
        replace(SHARDS, parents=FAN_IN, shards=(1, 0, 0)),
        STUCK,
        "job 2 is waiting",
    ),
    Mutant(
        "a batch is recognised only by the records of its jobs, which are forgotten",
        _without("accept_once"),
        replace(SHARDS, parents=FAN_IN, shards=(1, 0, 0), records_expire=True),
        BROKEN,
        "job 0 starts more often",
    ),
    Mutant(
        "the end of a parent counts at each delivery",
        _without("deliver_ends_once"),
        replace(SHARDS, parents=FAN_IN, shards=(0, 0, 1), waiters=0, most_held=2),
        BROKEN,
        "job 2 starts, and job",
    ),
    Mutant(
        "batches are sent in the order of the plan, not dependents first",
        _without("dependents_first"),
        replace(SHARDS, faults=0, parents=ROW, shards=(1, 1, 0)),
        STUCK,
        "job 2 is waiting",
    ),
    Mutant(
        "batches of the accepting shard are sent in the order of the plan",
        _without("dependents_first"),
        replace(SHARDS, faults=0, parents=ROW, shards=(0, 0, 0), at_once=1),
        STUCK,
        "waiter 0 is new",
    ),
    Mutant(
        "a batch of the accepting shard is recognised only by the records of its jobs",
        _without("accept_once"),
        replace(SHARDS, parents=FAN_IN, shards=(0, 0, 0), at_once=1, records_expire=True),
        BROKEN,
        "job 0 starts more often",
    ),
    Mutant(
        "a forwarder skips an entry after an error",
        _without("forwarder_in_order"),
        replace(SHARDS, parents=ROW, shards=(1, 1, 0)),
        STUCK,
        "waiter 0 is new",
    ),
    Mutant(
        "a job that is still in an outbox is reported as unknown",
        _without("ask_again_after_outboxes"),
        replace(SHARDS, faults=0),
        BROKEN,
        "waiter 0 got the answer that job 1 is unknown",
    ),
    Mutant(
        "no worker looks for jobs that wait in vain",
        _without("end_what_waits_in_vain"),
        replace(
            FAILOVER, parents=CHAIN, shards=(0, 1), on_cluster=True, forwarders=1, workers=1, most_held=1
        ),
        STUCK,
        "waiter 0 is new",
    ),
    Mutant(
        "a worker does not check for unknown pending entries",
        _without("check_unknown_entries"),
        WORKFLOW,
        STUCK,
        "job 0 is live",
    ),
    Mutant(
        "a worker does not check for unknown pending entries (failover)",
        _without("check_unknown_entries"),
        FAILOVER,
        STUCK,
        "job 0 is live",
    ),
    Mutant(
        "unknown pending entries are determined when the answer arrives",
        _without("unknown_entries_by_snapshot"),
        replace(TWO_JOBS, waiters=1),
        BROKEN,
        "starts more often",
    ),
    Mutant(
        "a worker checks for unknown pending entries while a read is in flight",
        _without("unknown_entries_between_reads"),
        replace(TWO_JOBS, faults=0, waiters=1),
        BROKEN,
        "starts more often",
    ),
    Mutant(
        "a waiter reads the record before it subscribes (no poll)",
        _without("subscribe_first", "poll"),
        Setup(faults=0),
        STUCK,
        "waiter 1 is",
    ),
    Mutant(
        "a waiter does not read the record after a reconnect (no poll)",
        _without("recheck", "poll"),
        Setup(faults=1, lost_publishes=False),
        STUCK,
        "waiter 1 is cut off",
    ),
    Mutant(
        "a waiter does not read the record after a failover (no poll)",
        _without("recheck", "poll"),
        FAILOVER,
        STUCK,
        "waiter 0 is cut off",
    ),
    Mutant(
        "a waiter believes a replica that a job is unknown",
        _without("asks_the_master"),
        FAILOVER,
        BROKEN,
        "waiter 0 is told that job 0 is unknown, and it is there",
    ),
    Mutant("no poll", _without("poll"), Setup(faults=1), STUCK, "waiter 1 is subscribed"),
    Mutant(
        "revoke sets no signal",
        _without("revoke_signals"),
        REVOKE,
        BROKEN,
        'after revoke answered "signalled"',
    ),
    Mutant(
        "retry and take do not check the signal",
        _without("signal_ends_requeue"),
        REVOKE,
        BROKEN,
        'after revoke answered "signalled"',
    ),
    Mutant(
        "revoke does not check the pending list",
        _without("revoke_checks_pending"),
        Setup(faults=0, revoke=0, waiters=1),
        BROKEN,
        'after revoke answered "revoked"',
    ),
    Mutant(
        "the record is written after XADD, in a second call",
        _without("atomic_record"),
        Setup(faults=2, waiters=1),
        BROKEN,
        "accepted without its claim",
    ),
    Mutant(
        "the record is written after XADD, in a second call; with revoke",
        _without("atomic_record"),
        Setup(faults=1, revoke=0, waiters=1),
        BROKEN,
        'after revoke answered "revoked"',
    ),
    Mutant(
        "same session id after a crash", _without("fresh_session_ids"), POISON, BROKEN, "starts more often"
    ),
    Mutant(
        "same session id after a pause, takeover does not compare the heartbeat",
        _without("fresh_session_ids", "compare_beat"),
        replace(TWO_JOBS, waiters=1),
        BROKEN,
        "which beats",
    ),
    Mutant(
        "takeover does not compare the heartbeat",
        _without("compare_beat"),
        replace(TWO_JOBS, waiters=1),
        BROKEN,
        "which beats",
    ),
    Mutant(
        "a dead consumer is checked only once (orphan read)",
        _without("check_consumers"),
        replace(ONE_JOB, orphan_reads=True),
        STUCK,
        "job 0 is live",
    ),
    Mutant(
        "enqueue is not idempotent", _without("enqueue_once"), replace(TWO_JOBS, waiters=1), BROKEN, "job 0"
    ),
    Mutant(
        "the record is deleted at forget and end (no tombstone)",
        _without("tombstones"),
        replace(ONE_JOB, forget=0, records_expire=True),
        BROKEN,
        "job 0",
    ),
    Mutant(
        "the request id of an earlier call is not kept when its id is used again",
        _without("earlier_calls_kept"),
        Setup(faults=1, parents=APART, same_id=True, waiters=0, workers=1, most_held=1, pauses=False),
        BROKEN,
        "job 0",
    ),
    Mutant(
        "retry: acknowledge, then delay in a second call",
        _without("atomic_retry"),
        replace(ONE_JOB, retries=1),
        STUCK,
        "job 0 is live",
    ),
    Mutant(
        "promote: ZREM, then XADD in a second call",
        _without("atomic_promote"),
        replace(ONE_JOB, delayed=True),
        STUCK,
        "job 0 is delayed",
    ),
    Mutant(
        "a body starts after a pause without a check of the lease",
        _without("start_on_fresh_lease"),
        replace(TWO_JOBS, revoke=0, waiters=1),
        BROKEN,
        'after revoke answered "revoked"',
    ),
    Mutant(
        "unregister deletes a consumer with pending entries",
        _without("unregister_checks_pending"),
        STOP,
        STUCK,
        "job 0 is live",
    ),
    Mutant(
        "release: acknowledge, then add again in a second call",
        _without("atomic_release"),
        replace(ONE_JOB, executor_queues=True),
        STUCK,
        "job 0 is live",
    ),
    Mutant(
        "release does not check the signal",
        _without("signal_ends_requeue"),
        replace(STOP, faults=1, revoke=0, crashes=False, pauses=False),
        BROKEN,
        'after revoke answered "signalled"',
    ),
    Mutant(
        "a job of an unknown task fails although another worker knows the task",
        _without("defer_unknown_tasks"),
        replace(ONE_JOB, faults=0, unknown=0),
        BROKEN,
        "job 0 is given up, and worker session 2 knows its task",
    ),
    Mutant(
        "the tasks that a dead worker announced still count",
        _without("announcements_need_a_beat"),
        replace(ONE_JOB, faults=0, unknown=0, workers=1),
        STUCK,
        "waiter 0 is new",
    ),
    Mutant(
        "a crash counts for jobs that had not started",
        _without("only_noted_starts_count"),
        replace(ONE_JOB, faults=2, max_crashes=2),
        BROKEN,
        "job 0 was dead-lettered, and its body had started 0 times",
    ),
    Mutant(
        "a body starts before its start is noted",
        _without("note_before_body"),
        POISON,
        BROKEN,
        "kills its worker for the 4th time",
    ),
    Mutant(
        "a crash counts for jobs that were fetched ahead and had not begun",
        _without("fetched_ahead_never_counts"),
        AHEAD,
        BROKEN,
        "which was fetched ahead and had not begun",
    ),
    Mutant(
        "bodies begin before they are noted to begin, where jobs are fetched ahead",
        _without("note_before_bodies"),
        AHEAD,
        BROKEN,
        "kills its worker for the 4th time",
    ),
    Mutant(
        "the last attempt does not run alone",
        _without("last_attempt_alone"),
        POISON,
        BROKEN,
        "job 1 was dead-lettered for a crash of its neighbour",
    ),
)
