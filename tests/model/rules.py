"""The rules of the protocol, as one switch each. Read this file first to learn the protocol.

With all switches on, they describe the protocol. A mutant in `mutants.py` is the protocol with a switch off,
and the explorer must find what breaks. Each text says the rule, and after "Closes" what happens without it.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Rules:
    """Which rules hold. `Rules()` is the protocol as it is built."""

    # --- the fence: who may end, delay or give back a job -----------------------------------------

    fence_pending: bool = True
    """A call that moves a job acts only if its entry is pending for the worker session that sends it. A call
    that ends a job does not ask: its record is enough.

    Closes: a worker that was stopped past its lease wakes up and ends a job that was given to somebody else.
    """
    fence_record: bool = True
    """A call acts only if the record names exactly this entry.

    Closes: after a flush the server gives out the same entry ids again. A worker that still runs job X under
    entry 7 would acknowledge job Y's entry 7, which was given to the same worker session, and Y would be
    lost.
    """
    fence_live: bool = True
    """A call acts only on a live job. This rule alone is no fence: the job may live under another entry."""

    # --- atomic steps: what is decided together is written together -------------------------------

    atomic_dependents: bool = True
    """The script that ends a job also notifies its dependents.

    Closes: the worker dies between the two calls, and the dependents wait for ever.
    """
    atomic_rest: bool = True
    """A script that ends a job with too many dependents stores those that it does not notify itself.

    Closes: the worker that ended the job dies before its next call, and those dependents wait for ever.
    """
    submit_whole: bool = True
    """All jobs of a workflow are accepted in one step.

    Closes: the parent ends before its child exists, and nothing ever notifies the child.
    """
    atomic_count: bool = True
    """The script that ends a parent also decrements the child's counter of parents.

    Closes: a call of its own is not safe to send twice. Its reply is lost, the second call counts another
    parent, and the child runs before that parent has ended.
    """
    atomic_child_entry: bool = True
    """The script that adds the entry of a job whose parents have ended also writes it into the record.

    Closes: between the two calls a worker has the job, and a revoke takes it for a job that still waits.
    """
    child_still_waits: bool = True
    """The script that ends a parent checks whether its child still waits.

    Closes: the child was revoked meanwhile, and ends twice.
    """
    atomic_replace: bool = True
    """The script that replaces a job by a workflow also acknowledges the job's entry.

    Closes: between the two calls the worker finds the entry again among its own, and the job runs before the
    other jobs of its workflow.
    """
    atomic_record: bool = True
    """The script that adds a new entry for a job also writes the entry's id into the record.

    Closes: between the two calls the record names an entry that is gone. The new claimant is refused, and a
    revoke looks for the wrong entry in the pending list.
    """
    atomic_release: bool = True
    """The script that acknowledges a job which is released, or queued for an executor, adds its new entry.

    Closes: the worker dies between the two, and no key has the job any more.
    """
    atomic_retry: bool = True
    """The script that acknowledges a failed attempt also puts the job into the delayed set.

    Closes: the worker dies between the two, and no key has the job any more.
    """
    atomic_promote: bool = True
    """The script that takes a due job out of the delayed set also adds it to the stream.

    Closes: the same gap.
    """

    kept_until_end: bool = True
    """A value that is kept once for several jobs exists until the last of them has ended.

    Closes: all of them have read it, one of their workers dies, and the job that runs again finds no value.
    """

    # --- between shards ---------------------------------------------------------------------------

    dependents_first: bool = True
    """Of the batches of a workflow, the batch with a waiting job comes before the batch with its parent.

    Closes: the parent runs and ends before its child exists, and nothing ever notifies the child.
    """
    delivered_before_deleted: bool = True
    """A forwarder deletes an entry of an outbox only after its delivery.

    Closes: the forwarder dies between the two, and no key has the entry any more.
    """
    accept_once: bool = True
    """`accept` applies a batch only if its entry is newer than the last entry that was applied in its shard.

    Closes: the batch is delivered again, by a forwarder that stood still, or because a forwarder died before
    it deleted the entry. The record of a job that has run may be gone by then, and the job runs again.
    """
    deliver_ends_once: bool = True
    """`deliver_ends` applies an entry only if it is newer than the last entry that was applied in its shard.

    Closes: one parent counts twice, and the child runs too early.
    """
    forwarder_in_order: bool = True
    """A forwarder goes on only when an entry was answered. After an error it starts again.

    Closes: the later entry is applied, the earlier one then counts as applied, too, and its jobs wait for
    ever.
    """
    ask_again_after_outboxes: bool = True
    """A client that finds a job unknown asks again after the outboxes have been delivered.

    Closes: the workflow was accepted, its client could not deliver the outbox, and `get` says that there is
    no such job.
    """

    end_what_waits_in_vain: bool = True
    """A worker ends jobs that wait for more ends than they have parents which have not ended.

    Closes: a replica takes over one shard, and lacks a job whose dependent lies in the other shard, or the
    end of a job in the other shard that it had been told. No message is left that would start the dependent.
    """

    # --- unknown pending entries ------------------------------------------------------------------

    check_unknown_entries: bool = True
    """A worker asks for its own pending entries, and runs those that it does not know.

    Closes: the reply of a read is lost. The worker goes on beating, so no other worker takes the entry over,
    and no worker runs it.
    """
    unknown_entries_by_snapshot: bool = True
    """An entry is unknown if the worker did not hold it when it *sent* the question.

    Closes: a job ends between question and answer. Compared with the entries that are held now, it seems
    unknown and runs twice.
    """
    unknown_entries_between_reads: bool = True
    """The question goes over the connection of the reader, between two reads.

    Closes: an entry whose reply is still on its way seems unknown, is started, arrives, and is started again.
    """

    # --- life and death of a worker ---------------------------------------------------------------

    fresh_session_ids: bool = True
    """Each worker session has a random name of its own: in each process, and again after each `lost`.

    Closes: the new process finds the entry that killed the old one as its own unknown entry, runs it again,
    and nobody ever counts the crash.
    """
    compare_beat: bool = True
    """`take` acts only if the beat is the one that the observer saw stand still.

    Closes: the worker wakes and beats. Then the call that was decided before arrives, and takes its live
    claims.
    """
    check_consumers: bool = True
    """Each time, observers check the consumers with pending entries, and not the workers that have a beat.

    Closes: the read of a dead process is still blocked at the server, and gets an entry after the takeover.
    """
    unregister_checks_pending: bool = True
    """`unregister` deletes the consumer only if it has no pending entries. Else it is taken over like a dead
    one.

    Closes: DELCONSUMER drops pending entries for good. They stay in the stream and are never delivered again.
    """
    start_on_fresh_lease: bool = True
    """A body starts only while the last acknowledged beat is young; else the worker beats first.

    Closes: the worker is stopped while it holds a claimed job. The job is taken over and revoked (it is
    undelivered again, so the answer is `revoked`). Then the worker wakes and starts it.
    """
    crash_count: bool = True
    """A takeover adds one to the crash count of the entry.

    Closes: a job that kills its worker runs for ever.
    """
    only_noted_starts_count: bool = True
    """From the second crash on, a takeover counts a crash only for a job whose start was noted.

    Closes: jobs that waited for a thread when their worker died are dead-lettered for crashes of other jobs.
    """
    note_before_body: bool = True
    """A worker notes at the server that the body of a job with a crash starts, and only then starts the body.

    Closes: the job kills its worker before the note, and runs for ever.
    """
    fetched_ahead_never_counts: bool = True
    """A takeover counts no crash for a job that was fetched ahead and whose body had not begun.

    Closes: a worker fetches many jobs ahead, and each death of it brings all of them nearer to the dead
        letters.
    """
    note_before_bodies: bool = True
    """A worker that fetches ahead notes up to which entry its bodies begin, and only then begins them.

    Closes: the job kills its worker before the note, and runs for ever.
    """
    last_attempt_alone: bool = True
    """The last attempt of a job goes to the last-attempt queue, and a worker without other jobs takes it.

    Closes: all jobs that a dead worker had claimed count a crash and run again side by side. After three
    rounds the neighbours of a job that kills its worker are dead-lettered with it.
    """

    # --- tasks that a worker does not know --------------------------------------------------------

    defer_unknown_tasks: bool = True
    """A worker that does not know the task of a job asks whether another worker does, and defers the job.

    Closes: new code is rolled out, and a job of a new task fails because an old worker claims it.
    """
    announcements_need_a_beat: bool = True
    """The tasks that a worker session has announced count only while it beats.

    Closes: the only worker that knew a task is dead, and jobs of the task are deferred for ever.
    """

    # --- waiting ----------------------------------------------------------------------------------

    subscribe_first: bool = True
    """A waiter is subscribed before it polls the record, and that poll registers it in the same step.

    Closes: the job ends between poll and registration, and the message is published to nobody.
    """
    recheck: bool = True
    """A waiter polls after each (re)connection. Closes: it missed a message while it was disconnected."""
    asks_the_master: bool = True
    """A waiter believes only the master that a job is unknown.

    Closes: a replica has not received the job yet, or a master does not know that another one has taken its
    place. It is asked, and the waiter gets `ResultNotFound` for a job that runs.
    """
    poll: bool = True
    """A waiter polls at an interval. Closes: the only PUBLISH was lost, which nothing can notice."""

    # --- revoke -----------------------------------------------------------------------------------

    revoke_checks_pending: bool = True
    """`revoke` answers `revoked` only for an entry that is not pending.

    Closes: a worker has claimed the job already, and starts it after all.
    """
    revoke_signals: bool = True
    """`revoke` of a claimed job sets a revocation signal in the record.

    Closes: the signal is lost with its worker, and the job runs again.
    """
    signal_ends_requeue: bool = True
    """`retry`, `take` and `release` end a signalled job, and do not add it again.

    Closes: the job was revoked while it ran, fails, and is tried again.
    """

    # --- enqueue ----------------------------------------------------------------------------------

    enqueue_once: bool = True
    """`enqueue` of an id that has a record writes nothing.

    Closes: the reply is lost, the call is sent again, and there are two jobs.
    """
    tombstones: bool = True
    """No record is deleted while a client may still resend its enqueue: a tombstone takes its place.

    Closes: the job ran and was forgotten, its record is gone, and the late resend makes a second job.
    """
    earlier_calls_kept: bool = True
    """If another call gets the id of a tombstone, the request id of the earlier call is kept as long as the
    tombstone would be.

    Closes: the first job ran and was forgotten, and so was the second. The late resend of the first enqueue
    finds only the tombstone of the second, and makes another job.
    """
