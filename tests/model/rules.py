"""The rules of the protocol, one switch each.

The protocol is what these switches describe when all of them are on. A mutant of `mutants.py` is the protocol
with one of them off, and the explorer must find out what breaks.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Rules:
    """Which rules hold. `Rules()` is the protocol as it is built."""

    # --- the fence: who may end, delay or give back a job -----------------------------------------

    fence_pending: bool = True
    """A call acts only if its entry is pending for the worker session that sends it.

    Closes: a worker that was stopped past its lease wakes up and ends a job that was given to somebody else.
    """
    fence_record: bool = True
    """A call acts only if the record names exactly this entry.

    Closes: after a flush the server gives out the same entry ids again. A worker that still runs job X under
    entry 7 would acknowledge job Y's entry 7, which was given to the same worker session, and Y would be
    lost.
    """
    fence_live: bool = True
    """A call acts only on a job that lives. Alone it is no fence: the job may live under another entry."""

    # --- atomic steps: what is decided together is written together -------------------------------

    atomic_dependents: bool = True
    """The script that ends a job also lets its dependents go.

    Closes: the worker dies between the two calls, and the dependents wait for ever.
    """
    atomic_rest: bool = True
    """The script that ends a job for which too many wait puts those aside that it does not tell.

    Closes: whoever ended it dies before the next call, and they wait for ever.
    """
    submit_whole: bool = True
    """All jobs of a workflow are accepted in one step.

    Closes: the parent ends before its child is there, and nobody will ever tell the child.
    """
    atomic_count: bool = True
    """The script that ends a parent also counts it down at its child.

    Closes: as a call of its own it is not safe to send twice. Its reply is lost, the second one counts
    another parent, and the child runs before that has ended.
    """
    atomic_set_free: bool = True
    """The script that adds the entry of a job which waits no more also writes its id into the record.

    Closes: between the two calls a worker has the job, and a revoke takes it for one that waits.
    """
    child_still_waits: bool = True
    """The script that ends a parent looks whether its child still waits.

    Closes: the child was revoked meanwhile, and ends twice.
    """
    atomic_replace: bool = True
    """The script that puts a workflow in the place of a job also acknowledges its entry.

    Closes: between the two calls the worker finds the entry again as its own, and the job runs before
    the others of its workflow have.
    """
    atomic_record: bool = True
    """The script that adds a new entry for a job also writes its id into the record.

    Closes: between the two calls the record names an entry that is gone. The new claimant is refused, and a
    revoke looks for the wrong entry in the pending list.
    """
    atomic_release: bool = True
    """The script that acknowledges a job which is handed back, or put in line, also adds its new entry.

    Closes: the worker dies in between, and the job is in no key any more.
    """
    atomic_retry: bool = True
    """The script that acknowledges a failed attempt also puts the job into the delayed set.

    Closes: the worker dies in between, and the job is in no key any more.
    """
    atomic_promote: bool = True
    """The script that takes a due job out of the delayed set also adds it to the stream.

    Closes: the same gap.
    """

    kept_until_end: bool = True
    """A value that is kept once for several jobs is there until the last of them has ended.

    Closes: they have read it, one of their workers dies, and the job that comes back finds no value.
    """

    # --- between shards ---------------------------------------------------------------------------

    dependents_first: bool = True
    """Of the batches of a workflow, that with the job that waits comes before that with what it waits for.

    Closes: the parent runs and ends before its child is there, and nobody will ever tell the child.
    """
    told_before_deleted: bool = True
    """A forwarder deletes an entry of an outbox when it was delivered, not before.

    Closes: it dies in between, and the entry is in no key any more.
    """
    accept_once: bool = True
    """`accept` looks whether the batch is behind the last entry that its shard was told.

    Closes: it is told again, by somebody who stood still or because its bearer died before deleting it. The
    record of a job that has run may be gone by then, and the job runs again.
    """
    deliver_ends_once: bool = True
    """`deliver_ends` looks whether the entry is behind the last one that its shard was told.

    Closes: one parent counts twice, and the child runs too early.
    """
    forwarder_in_order: bool = True
    """A forwarder goes on to the next entry when the one before was answered, and starts again after an
    error.

    Closes: the later one is told, the earlier one is no news any more, and its jobs wait for ever.
    """
    ask_behind_outboxes: bool = True
    """Who finds a job unknown asks again when the outboxes have been told.

    Closes: the workflow was accepted, its client's telling failed, and `get` says that there is no such job.
    """

    # --- claims that nobody knows of --------------------------------------------------------------

    own_look: bool = True
    """A worker asks what is pending in its own name and runs what it does not know of.

    Closes: the reply of a read is lost. The worker beats on, so nobody takes the entry over, and nobody runs
    it.
    """
    own_look_snapshot: bool = True
    """Unknown is what was not in hand when the question was *sent*.

    Closes: a job ends between question and answer. Compared with the hands of now, it looks unknown and runs
    twice.
    """
    own_look_between_reads: bool = True
    """The question goes over the connection of the reader, between two reads.

    Closes: an entry whose reply is still on its way looks unknown, is started, arrives, and is started again.
    """

    # --- life and death of a worker ---------------------------------------------------------------

    fresh_names: bool = True
    """Each worker session has a random name of its own: each process, and each life after `lost`.

    Closes: the new process finds the entry that killed the old one as its own unknown entry, runs it again,
    and nobody ever counts the crash.
    """
    compare_beat: bool = True
    """`take` acts only if the beat is still the one that the observer saw stand still.

    Closes: the worker wakes, beats, and then the call that was decided before arrives and takes its live
    claims.
    """
    look_at_consumers: bool = True
    """Observers go by the consumers that have something pending, at every look, not by who still has a beat.

    Closes: the read of a dead process is still blocked at the server and is given an entry after the
    takeover.
    """
    leave_asks_pending: bool = True
    """`unregister` deletes the consumer only if nothing is pending for it; else it is taken over as a dead
    one.

    Closes: DELCONSUMER drops pending entries for good. They stay in the stream and are never delivered again.
    """
    start_on_fresh_lease: bool = True
    """A body starts only while the last acknowledged beat is young; else the worker beats first.

    Closes: the worker is stopped with a claimed job in hand, the job is taken over and revoked (it is
    undelivered again, so the answer is `revoked`), and then the worker wakes and starts it.
    """
    crash_count: bool = True
    """A takeover adds one to the crash count of the entry.

    Closes: a job that kills its worker runs for ever.
    """
    only_begun_count: bool = True
    """From the second crash on, a takeover adds one only for a job whose body was noted to begin.

    Closes: jobs that waited in a worker for a thread when it died are given up for what others did.
    """
    note_before_body: bool = True
    """The body of a job with a crash is noted to begin before it begins.

    Closes: it kills its worker before it is noted, and runs for ever.
    """
    last_try_alone: bool = True
    """The last try of a job goes to the last-attempt queue and is taken with empty hands.

    Closes: everything that a dead worker had claimed is counted as crashed and comes back side by side. After
    three rounds the neighbours of a job that kills its worker are dead-lettered with it.
    """

    # --- tasks that a worker does not know --------------------------------------------------------

    unknown_asks: bool = True
    """A worker that does not know the task of a job asks whether another does, and puts the job off.

    Closes: new code is rolled out, and a job of a new task dies with the old worker that is given it.
    """
    announced_and_beats: bool = True
    """What a worker session has announced counts only while it beats.

    Closes: the only worker that knew a task is dead, and jobs of the task are put off for ever.
    """

    # --- waiting ----------------------------------------------------------------------------------

    subscribe_first: bool = True
    """A waiter is subscribed before it looks, and the look registers it in the same step.

    Closes: the job ends between look and registration, and the message is published to nobody.
    """
    recheck: bool = True
    """After each (re)connection a waiter looks again. Closes: the message was published while it was away."""
    poll: bool = True
    """A waiter looks again at an interval. Closes: the one PUBLISH was lost, which nobody can notice."""

    # --- revoke -----------------------------------------------------------------------------------

    revoke_asks_pending: bool = True
    """`revoke` answers `revoked` only for an entry that is not pending.

    Closes: a worker holds the job already and starts it after all.
    """
    revoke_marks: bool = True
    """`revoke` of a claimed job leaves a mark in the record.

    Closes: the signal is lost with its worker, and the job comes back.
    """
    mark_ends_requeue: bool = True
    """`retry`, `take` and `release` end a marked job instead of adding it again.

    Closes: the job was revoked while it ran, fails, and is tried again.
    """

    # --- enqueue ----------------------------------------------------------------------------------

    enqueue_once: bool = True
    """`enqueue` of an id that has a record writes nothing.

    Closes: the reply is lost, the call is sent again, and there are two jobs.
    """
    tombstones: bool = True
    """Nothing is deleted while a client may still send its enqueue again; a tombstone stays in its place.

    Closes: the job ran, was forgotten, its record is gone, and the late second enqueue makes a second job.
    """
    calls_kept: bool = True
    """When a tombstone makes room for another call under its id, its own call is kept as long as it would be.

    Closes: the first job ran and was forgotten, the second too, and the late second enqueue of the first
    finds nothing but the tombstone of the second, and makes a job more.
    """
