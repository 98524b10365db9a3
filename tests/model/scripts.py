"""The server's side of the model: the scripts of `asyncq/broker/lua/`, as functions from world to world.

Most methods have the names of their scripts: `deliver` is `accept.lua` and `deliver_ends.lua`, `notify_rest`
is a part of `promote.lua`, and `claim` is a plain XREADGROUP. Each is atomic. A script that may
refuse returns None if it does, and has then written nothing.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from model import questions
from model.world import (
    ANSWERED,
    DEAD,
    DELAYED,
    EARLIER_CALL,
    ENDED,
    FAILED,
    FAILURE,
    LIVE,
    OTHERS,
    QUEUEING_FOR_EXECUTOR,
    REVOKED,
    SUBSCRIBED,
    SUCCESS,
    TOMBSTONE,
    WAITING,
    Beat,
    Delayed,
    Entry,
    Held,
    Message,
    Pending,
    Record,
    Rest,
    SecondCall,
    Signal,
    StartNote,
    Stream,
    StreamNote,
    World,
)

if TYPE_CHECKING:
    from model.setup import Setup

FIRST = 0
MOST_DEFERRALS = 2


@dataclass(frozen=True)
class Scripts:
    """The scripts under the rules of a setup."""

    setup: Setup

    # --- a job comes in ---------------------------------------------------------------------------

    def enqueue(self, world: World, job: int) -> World:
        """Accepts a job. A resend changes nothing."""
        if world.records[job] is not None and self.setup.rules.enqueue_once:
            return world
        if self.setup.same_id and (other := world.records[1 - job]) is not None:
            if other.state != TOMBSTONE:
                return world  # another call has the id
            before = Record(EARLIER_CALL) if self.setup.rules.earlier_calls_kept else None
            world = world.with_record(1 - job, before)
        return self._admit(world, job)

    def submit(self, world: World) -> World:
        """Accepts a workflow, parents before children. A resend changes nothing."""
        is_here = any(map(self._is_here, range(self.setup.enqueued), world.records))
        if is_here and self.setup.rules.enqueue_once:
            return world
        if self.setup.shards:
            return self._submit_apart(world)
        for job in range(self.setup.enqueued):
            world = self._admit(world, job)
        return world

    def _is_here(self, job: int, record: Record | None) -> bool:
        """Returns whether the shard that accepts a workflow has a job of it already."""
        return record is not None and not (self.setup.shards and self.setup.shards[job])

    def _submit_apart(self, world: World) -> World:
        """Accepts the jobs of shard 0 that fit into one step, and puts the others into its outbox: one batch
        for each shard and height.
        """
        setup = self.setup
        jobs = sorted(range(setup.enqueued), key=setup.height, reverse=not setup.rules.dependents_first)
        at_once = [job for job in jobs if setup.shards[job] == 0][: setup.at_once]
        for job in sorted(at_once):
            world = self._admit_member(world, job)
        batches: dict[tuple[int, int], list[int]] = {}
        for job in jobs:
            if job not in at_once:
                batches.setdefault((setup.height(job), setup.shards[job]), []).append(job)
        for some in batches.values():
            world = world.with_message(0, Message(0, tuple(some)))
        return world

    def _admit_member(self, world: World, job: int) -> World:
        """Puts a job with its dependents into the stream, or lets it wait for its parents."""
        channels = (0,) if self.setup.waiters and self.setup.waits_for(0) == job else ()
        new = Record(LIVE, channels=channels)
        if job >= self.setup.enqueued:  # the job that a replacement adds
            assert self.setup.replaced is not None
            return self._add(
                world.with_record(job, new._replace(dependents=(self.setup.replaced,))), Entry(0, job)
            )
        new = new._replace(dependents=self.setup.dependents(job))
        if missing := len(self.setup.parents[job]):
            return world.with_record(job, new._replace(state=WAITING, missing=missing))
        return self._add(world.with_record(job, new), Entry(0, job))

    def deliver(self, world: World, shard: int, message: Message) -> World:
        """Applies an entry of a shard's outbox in the other shard: `accept` or `deliver_ends`. A second time,
        nothing.
        """
        rules = self.setup.rules
        once = rules.accept_once if message.jobs else rules.deliver_ends_once
        if once and message.id <= world.applied[shard]:
            return world
        applied = (*world.applied[:shard], max(message.id, world.applied[shard]), *world.applied[shard + 1 :])
        world = world._replace(applied=applied)
        if not message.jobs:
            return self._apply_end_of_parent(world, message.child, message.outcome)
        for job in message.jobs:
            world = self._accept(world, job)
        return world

    def _accept(self, world: World, job: int) -> World:
        record = world.records[job]
        if record is None:
            return self._admit_member(world, job)
        if record.state != OTHERS:
            # Its request id says that it is this very call, which the other shard has lost and accepted anew.
            return world
        world = questions.refused(world, job)
        for child in self.setup.dependents(job):
            world = self._notify_dependent(world, child, job, FAILURE)
        return world

    def _notify_dependent(
        self,
        world: World,
        child: int,
        parent: int,
        outcome: str,
        *,
        publish: bool = True,
        by: int = 0,
        inherited: bool = False,
    ) -> World:
        """Notifies a job how one of its parents ended; through the outbox, if it is in the other shard."""
        world = questions.dependent_notified(world, child, parent, outcome)
        if child == self.setup.on_error and (inherited or outcome not in FAILED):
            outcome = SUCCESS  # nothing that it would be called for
        if self.setup.apart(parent, child):
            message = Message(0, child=child, parent=parent, outcome=outcome)
            return world.with_message(self.setup.shards[parent], message)
        return self._apply_end_of_parent(world, child, outcome, publish=publish, by=by)

    def _admit(self, world: World, job: int) -> World:
        """Puts a job into the stream or the delayed set, or lets it wait for its parents."""
        channels = (0,) if self.setup.waiters and self.setup.waits_for(0) == job else ()
        new = Record(LIVE, channels=channels)
        if self.setup.parents[job]:
            for number in self.setup.parents[job]:
                parent = world.records[number]
                if (
                    parent is not None and parent.state not in ENDED
                ):  # always, where a workflow is accepted whole
                    parent = parent._replace(dependents=(*parent.dependents, job))
                    world = world.with_record(number, parent)
            return world.with_record(job, new._replace(state=WAITING, missing=len(self.setup.parents[job])))
        if self.setup.delayed and job == FIRST:
            world = world.with_record(job, new._replace(state=DELAYED))
            return world._replace(delayed=(*world.delayed, Delayed(job, crashes=0, retries=0)))
        return self._add(world.with_record(job, new), Entry(0, job))

    def promote(self, world: World, due: Delayed, by: int) -> World:
        """Moves a due job from the delayed set to the stream."""
        world = world._replace(delayed=tuple(other for other in world.delayed if other != due))
        entry = Entry(0, due.job, due.crashes, due.retries, due.deferrals)
        if not self.setup.rules.atomic_promote:
            return world._replace(second_calls=(*world.second_calls, SecondCall("XADD", by, due.job, entry)))
        return self._add(world, entry)

    def notify_rest(self, world: World, rest: Rest, by: int) -> World:
        """Notifies some of the dependents that were left how the job ended, as `promote` does."""
        notified, left = (
            rest.children[: self.setup.notified_at_once],
            rest.children[self.setup.notified_at_once :],
        )
        others = tuple(other for other in world.rests if other != rest)
        if left:
            others = (*others, rest._replace(children=left))
        world = world._replace(rests=tuple(sorted(others)))
        for child in notified:
            world = self._notify_dependent(
                world, child, rest.parent, rest.outcome, by=by, inherited=rest.inherited
            )
        return world

    # --- a worker and its jobs --------------------------------------------------------------------

    def claim(self, world: World, name: int, *, on_last_attempt: bool = False) -> tuple[World, Entry] | None:
        """Delivers the next entry to a consumer, as XREADGROUP does. Returns None if there is none."""
        stream = world.last_attempts if on_last_attempt else world.stream
        entry = stream.undelivered()
        if entry is None:
            return None
        stream = stream._replace(cursor=entry.id)
        world = world._replace(pending=tuple(sorted((*world.pending, Pending(entry.id, name)))))
        return (
            world._replace(last_attempts=stream) if on_last_attempt else world._replace(stream=stream)
        ), entry

    def beat(self, world: World, name: int, count: int) -> World | None:
        """Writes the beat counter. Returns None, and makes no field, if the field is missing: the session was
        taken for dead.
        """
        if count > 1 and not world.beat_of(name):
            return None
        others = tuple(beat for beat in world.beats if beat.name != name)
        return world._replace(beats=tuple(sorted((*others, Beat(name, count)))))

    def unknown_entries(self, world: World, name: int) -> tuple[Entry, ...]:
        """Returns the pending entries of a consumer, in one step and without deleted ones."""
        found = (world.entry(claim.entry) for claim in world.pending if claim.name == name)
        return tuple(entry for entry in found if entry is not None)

    def finish(self, world: World, held: Held, outcome: str, *, publish: bool = True) -> World | None:
        """Ends a claimed job: outcome, acknowledgement, publication and dependents in one step. The record
        is its fence; a mutant without that check has the pending list.
        """
        names = self._is_named if self.setup.rules.fence_record else self._may_act
        if not names(world, held):
            return None
        world = questions.call_accepted(world, held, claims_get_lost=self.setup.loses_data)
        world = self._end(world, held.entry.job, outcome, publish=publish, by=held.name)
        return self._drop(world, held.entry.id)

    def read_value(self, world: World, held: Held) -> World:
        """Reads the value that is kept once for several jobs, as a worker does before a body begins."""
        job = held.entry.job
        if not self._gets_kept_value(world, job):
            return world
        world = questions.value_read(world, held)
        return world if self.setup.rules.kept_until_end else _without_need(world, job)

    def _gets_kept_value(self, world: World, job: int) -> bool:
        if job >= self.setup.enqueued or self.setup.kept not in self.setup.parents[job]:
            return False
        # The workflow that replaced a job has other parents.
        return job != self.setup.replaced or world.records[self.setup.jobs - 1] is None

    def begin(self, world: World, held: Held) -> World | None:
        """Notes that the body of a job with a crash begins. Refused if the session was taken for dead."""
        if not world.beat_of(held.name):
            return None
        note = StartNote(held.name, held.entry.id)
        if note in world.start_notes:
            return world
        return questions.noted(world, held.entry.job)._replace(
            start_notes=tuple(sorted((*world.start_notes, note)))
        )

    def begin_bodies(self, world: World, held: Held) -> World:
        """Notes that bodies begin up to an entry, if the session fetches ahead: `begin`, too. What begins
        later may have been delivered earlier, so the note never goes back.

        The note and the start of the body are one step in the model: the note is on its way before the body
        begins, and a process that is killed does not call it back.
        """
        if not self.setup.fetches_ahead or not self.setup.rules.note_before_bodies:
            return world
        until = max(world.started_until(held.name), held.entry.id)
        others = tuple(note for note in world.stream_notes if note.name != held.name)
        return world._replace(stream_notes=tuple(sorted((*others, StreamNote(held.name, until)))))

    def _take_from_worker(self, world: World, held: Held) -> tuple[World | None, bool]:
        """Begins each script that takes a claimed job from its worker without an outcome. Returns the world,
        or None if the script is refused, and whether there is more to do. A signalled job ends as revoked:
        that is all.
        """
        if not self._may_act(world, held):
            return None, False
        world = questions.call_accepted(world, held)
        if self._signalled(world, held.entry.job):
            ended = self._end(world, held.entry.job, REVOKED, by=held.name)
            return self._drop(ended, held.entry.id), False
        return world, True

    def retry(self, world: World, held: Held) -> World | None:
        """Puts a failed job into the delayed set. A signalled job ends as revoked."""
        taken, goes_on = self._take_from_worker(world, held)
        if taken is None or not goes_on:
            return taken
        job = held.entry.job
        world = self._drop(questions.delivered_again(taken, job), held.entry.id)
        tried = held.entry._replace(retries=held.entry.retries + 1)
        if not self.setup.rules.atomic_retry:
            return world._replace(
                second_calls=(*world.second_calls, SecondCall("ZADD", held.name, job, tried))
            )
        return self._delay(world, tried)

    def is_task_known(self, world: World) -> bool:
        """Returns whether a session that beats has announced the task that the first worker does not know."""
        return any(
            world.beat_of(name) or not self.setup.rules.announcements_need_a_beat for name in world.announced
        )

    def defer(self, world: World, held: Held) -> World | None:
        """Defers a job that has not started. A signalled job ends as revoked."""
        taken, goes_on = self._take_from_worker(world, held)
        if taken is None or not goes_on:
            return taken
        # More than twice makes no difference, and would make worlds without end.
        again = held.entry._replace(deferrals=min(held.entry.deferrals + 1, MOST_DEFERRALS))
        return self._delay(self._drop(taken, held.entry.id), again)

    def replace(self, world: World, held: Held) -> World | None:
        """Replaces a running job by another job and lets it wait for that one. A signalled job ends."""
        taken, goes_on = self._take_from_worker(world, held)
        if taken is None or not goes_on:
            return taken
        job, other = held.entry.job, self.setup.jobs - 1
        world = questions.delivered_again(taken, job)
        record = world.records[job] or Record(LIVE)  # None only where a mutant has no fence
        world = world.with_record(job, record._replace(state=WAITING, entry=0, missing=1))
        world = _without_need(world, job)
        if self.setup.apart(job, other):
            world = world.with_message(self.setup.shards[job], Message(0, (other,)))
        else:
            world = self._add(world.with_record(other, Record(LIVE, dependents=(job,))), Entry(0, other))
        if not self.setup.rules.atomic_replace:
            return world._replace(
                second_calls=(*world.second_calls, SecondCall("XACK", held.name, job, held.entry))
            )
        return self._drop(world, held.entry.id)

    def release(self, world: World, held: Held) -> World | None:
        """Gives a claimed job back, as if it had never been delivered, or puts it into an executor queue. A
        signalled job ends as revoked.
        """
        taken, goes_on = self._take_from_worker(world, held)
        if taken is None or not goes_on:
            return taken
        world = questions.delivered_again(taken, held.entry.job)
        again = held.entry._replace(
            in_executor_queue=held.entry.in_executor_queue or held.phase == QUEUEING_FOR_EXECUTOR
        )
        if not self.setup.rules.atomic_release:
            world = world._replace(
                second_calls=(*world.second_calls, SecondCall("XADD", held.name, again.job, again))
            )
            return self._drop(world, held.entry.id)
        return self._drop(self._add(world, again), held.entry.id)

    def unregister(self, world: World, name: int) -> World | None:
        """Deletes the consumer and its keys. Refused while it has pending entries, for those would be
        lost.
        """
        mine = [claim for claim in world.pending if claim.name == name]
        if mine and self.setup.rules.unregister_checks_pending:
            return None
        others = tuple(claim for claim in world.pending if claim.name != name)
        return self._forget_consumer(world._replace(pending=others), name)

    # --- a worker that is gone --------------------------------------------------------------------

    def take(self, world: World, name: int, seen: int, by: int) -> World | None:
        """Adds the jobs that a dead worker session had claimed again, with one more crash, or ends them.

        Refused if the worker session beats: its beat exists and is not the one that the observer saw stand
        still.
        """
        now = world.beat_of(name)
        if now and now != seen and self.setup.rules.compare_beat:
            return None
        for claim in world.pending:
            if claim.name == name:
                world = self._take_entry(world, claim, by)
        return self._forget_consumer(world, name)

    def _take_entry(self, world: World, claim: Pending, by: int) -> World:
        entry = world.entry(claim.entry)
        if entry is None:
            return self._drop(world, claim.entry)
        world = questions.taken_over(world, claim.name, entry, beats_go_back=self.setup.failovers)
        record = world.records[entry.job]
        if record is None or record.state != LIVE or record.entry != entry.id:
            return self._drop(world, entry.id)
        if self._signalled(world, entry.job):
            return self._drop(self._end(world, entry.job, REVOKED, by=by), entry.id)
        world = questions.delivered_again(world, entry.job)
        counts = self._is_crash(world, claim, entry) and self.setup.rules.crash_count
        again = entry._replace(crashes=entry.crashes + counts, deferrals=0 if counts else entry.deferrals)
        if counts and not entry.crashes and self.setup.fetches_ahead:
            world = questions.first_crash_counted(world, entry)
        if again.crashes >= self.setup.max_crashes:
            world = questions.dead_lettered(world, self.setup, entry.job)
            return self._drop(self._end(world, entry.job, DEAD, by=by), entry.id)
        record_later_by = 0 if self.setup.rules.atomic_record else by
        return self._drop(self._add(world, again, record_later_by=record_later_by), entry.id)

    def _is_crash(self, world: World, claim: Pending, entry: Entry) -> bool:
        """Returns whether the death of a session counts for a job that it held."""
        rules = self.setup.rules
        if entry.crashes:
            return StartNote(claim.name, entry.id) in world.start_notes or not rules.only_noted_starts_count
        if not self.setup.fetches_ahead or not rules.fetched_ahead_never_counts:
            return True
        return entry.id <= world.started_until(claim.name)

    # --- clients ----------------------------------------------------------------------------------

    def revoke(self, world: World, job: int) -> tuple[World, str]:
        """Ends a job that no worker has claimed, and signals a claimed one."""
        world, answer = self._stop(world, job, signal=True)
        if answer in {"revoked", "signalled"}:
            world = questions.revoke_answered(world, job, answer)
        return world, answer

    def expire(self, world: World, job: int) -> tuple[World, str]:
        """Ends a job that no worker has claimed. A worker checks the deadline of its claimed jobs itself."""
        return self._stop(world, job, signal=False)

    def _stop(self, world: World, job: int, *, signal: bool) -> tuple[World, str]:
        record = world.records[job]
        if record is None or record.state == TOMBSTONE:
            return world, "unknown"
        if record.state in ENDED:
            return world, "ended"
        if record.state in {DELAYED, WAITING}:
            world = world._replace(delayed=tuple(due for due in world.delayed if due.job != job))
            return self._end(world, job, REVOKED), "revoked"
        name = world.owner(record.entry) if self.setup.rules.revoke_checks_pending else None
        if name is None:
            return self._end(self._drop(world, record.entry), job, REVOKED), "revoked"
        if not signal:
            return world, "running"
        if self.setup.rules.revoke_signals:
            signals = tuple(sorted({*world.signals, Signal(name, job)}))
            world = world.with_record(job, record._replace(signal=True))._replace(signals=signals)
        return world, "signalled"

    def end_in_vain(self, world: World, job: int) -> World | None:
        """Ends a job that waits for more ends than it has parents which have not ended. Returns None if it is
        not so. Whoever looks has had all outboxes delivered.
        """
        record = world.records[job]
        if record is None or record.state != WAITING or any(world.outboxes):
            return None
        is_replaced = job == self.setup.replaced and world.records[self.setup.jobs - 1] is not None
        numbers = (self.setup.jobs - 1,) if is_replaced else self.setup.parents[job]
        parents = (world.records[number] for number in numbers)
        if record.missing <= sum(parent is not None and parent.state not in ENDED for parent in parents):
            return None
        return self._end(questions.waited_in_vain(world, self.setup, job), job, FAILURE)

    def fetch_status(self, world: World, waiter: int, job: int) -> World:
        """Answers a waiter whose job has ended, else registers its channel, in one step without a gap."""
        record = world.records[job]
        if record is None or record.state in ENDED:
            return world.with_waiter(waiter, ANSWERED)
        channels = tuple(sorted({*record.channels, waiter}))
        return world.with_record(job, record._replace(channels=channels)).with_waiter(waiter, SUBSCRIBED)

    def forget(self, world: World, job: int) -> World:
        """Replaces an outcome by a tombstone. For a live job, it makes the end of the job do so."""
        record = world.records[job]
        if record is None:
            return world
        if record.state not in ENDED:
            return world.with_record(job, record._replace(forget=True))
        return world.with_record(job, self._forgotten())

    # --- the parts that scripts share -------------------------------------------------------------

    def _may_act(self, world: World, held: Held) -> bool:
        is_owner = world.owner(held.entry.id) == held.name
        return (is_owner or not self.setup.rules.fence_pending) and self._is_named(world, held)

    def _is_named(self, world: World, held: Held) -> bool:
        rules, record = self.setup.rules, world.records[held.entry.job]
        if rules.fence_live and (record is None or record.state != LIVE):
            return False
        return not rules.fence_record or (record is not None and record.entry == held.entry.id)

    def _signalled(self, world: World, job: int) -> bool:
        record = world.records[job]
        return record is not None and record.signal and self.setup.rules.signal_ends_requeue

    def _forgotten(self) -> Record | None:
        return Record(TOMBSTONE) if self.setup.rules.tombstones else None

    def _end(
        self,
        world: World,
        job: int,
        outcome: str,
        *,
        publish: bool = True,
        by: int = 0,
        inherited: bool = False,
    ) -> World:
        """Writes the outcome, notifies the waiters, and notifies or stores the dependents."""
        world = questions.outcome_written(world, job, outcome)
        record = world.records[job] or Record(LIVE)  # None only where a mutant has no fence
        world = world.with_record(job, self._forgotten() if record.forget else Record(outcome))
        world = _without_need(world, job)
        if publish:
            for waiter in record.channels:
                if world.waiters[waiter] == SUBSCRIBED:
                    world = world.with_waiter(waiter, ANSWERED)
        notified, rest = (
            record.dependents[: self.setup.notified_at_once],
            record.dependents[self.setup.notified_at_once :],
        )
        if rest and self.setup.rules.atomic_rest:
            world = world._replace(rests=tuple(sorted((*world.rests, Rest(job, outcome, rest, inherited)))))
        elif rest:
            second_calls = (SecondCall("dependents", by, dependent, outcome=outcome) for dependent in rest)
            world = world._replace(second_calls=(*world.second_calls, *second_calls))
        for dependent in notified:
            if self.setup.rules.atomic_dependents:
                world = self._notify_dependent(
                    world, dependent, job, outcome, publish=publish, by=by, inherited=inherited
                )
            else:
                world = world._replace(
                    second_calls=(
                        *world.second_calls,
                        SecondCall("dependents", by, dependent, outcome=outcome),
                    )
                )
        return world

    def _apply_end_of_parent(
        self, world: World, child: int, outcome: str, *, publish: bool = True, by: int = 0
    ) -> World:
        """Applies the end of a parent to a job that waits for it."""
        rules, record = self.setup.rules, world.records[child]
        if record is None or (record.state != WAITING and rules.child_still_waits):
            return world
        if child == self.setup.on_error:
            return self._call_back(world, child, record, outcome, publish=publish, by=by)
        if outcome == SUCCESS:
            if self._gets_kept_value(world, child):
                world = world._replace(needs=tuple(sorted({*world.needs, child})))
            if not rules.atomic_count:
                return world._replace(second_calls=(*world.second_calls, SecondCall("HINCRBY", by, child)))
            return self._decrement_parents(world, child, by)
        replaced = child == self.setup.replaced  # it has started, so the failure is its own
        return self._end(world, child, outcome, publish=publish, by=by, inherited=not replaced)

    def _call_back(
        self, world: World, child: int, record: Record, outcome: str, *, publish: bool, by: int
    ) -> World:
        """Starts an error callback at the first failure. After the last success, no parent can fail any more,
        and the callback ends without running.
        """
        if outcome != SUCCESS:
            return self._add(
                world, Entry(0, child), record_later_by=0 if self.setup.rules.atomic_child_entry else by
            )
        record = record._replace(missing=record.missing - 1, forget=record.missing == 1)
        world = world.with_record(child, record)
        return world if record.missing else self._end(world, child, REVOKED, publish=publish, by=by)

    def _decrement_parents(self, world: World, child: int, by: int) -> World:
        record = world.records[child]
        if record is None or (record.state != WAITING and self.setup.rules.child_still_waits):
            return world
        world = world.with_record(child, record._replace(missing=record.missing - 1))
        if record.missing > 1:
            return world
        return self._add(
            world, Entry(0, child), record_later_by=0 if self.setup.rules.atomic_child_entry else by
        )

    def _add(self, world: World, entry: Entry, record_later_by: int = 0) -> World:
        """Adds an entry under a new id, and writes the id into the record; a mutant does it later."""
        entry = entry._replace(id=world.last_id + 1)
        is_last_attempt = (
            0 < self.setup.max_crashes - 1 <= entry.crashes and self.setup.rules.last_attempt_alone
        )
        world = world._replace(last_id=entry.id)
        if is_last_attempt:
            world = world._replace(
                last_attempts=world.last_attempts._replace(entries=(*world.last_attempts.entries, entry))
            )
        else:
            world = world._replace(stream=world.stream._replace(entries=(*world.stream.entries, entry)))
        if record_later_by:
            return world._replace(
                second_calls=(*world.second_calls, SecondCall("SET", record_later_by, entry.job, entry))
            )
        return self._write_entry_id(world, entry)

    def _write_entry_id(self, world: World, entry: Entry) -> World:
        record = world.records[entry.job] or Record(LIVE)  # None only where a mutant has no fence
        return world.with_record(entry.job, record._replace(state=LIVE, entry=entry.id))

    def _delay(self, world: World, entry: Entry) -> World:
        record = world.records[entry.job] or Record(LIVE)  # None only where a mutant has no fence
        world = world.with_record(entry.job, record._replace(state=DELAYED, entry=0))
        return world._replace(
            delayed=(*world.delayed, Delayed(entry.job, entry.crashes, entry.retries, entry.deferrals))
        )

    def _drop(self, world: World, entry: int) -> World:
        """Acknowledges and deletes an entry: XACK and XDEL."""
        return world._replace(
            pending=tuple(claim for claim in world.pending if claim.entry != entry),
            stream=_without(world.stream, entry),
            last_attempts=_without(world.last_attempts, entry),
            # The note of an entry that is gone means nothing; it is taken back some time later.
            start_notes=tuple(note for note in world.start_notes if note.entry != entry),
        )

    def _forget_consumer(self, world: World, name: int) -> World:
        """Deletes a consumer: DELCONSUMER, HDEL of its beat, DEL of its signals, announcements and notes."""
        return world._replace(
            beats=tuple(beat for beat in world.beats if beat.name != name),
            signals=tuple(signal for signal in world.signals if signal.name != name),
            announced=tuple(other for other in world.announced if other != name),
            start_notes=tuple(note for note in world.start_notes if note.name != name),
            stream_notes=tuple(note for note in world.stream_notes if note.name != name),
        )

    # --- what mutants leave for a second call -----------------------------------------------------

    def second_call(self, world: World, second: SecondCall) -> World:
        """Does the second half of a step that the protocol does in one script."""
        world = world._replace(second_calls=tuple(other for other in world.second_calls if other != second))
        if second.call == "HINCRBY":
            return self._decrement_parents(world, second.job, second.by)
        if second.entry is None:
            return self._apply_end_of_parent(world, second.job, second.outcome)
        if second.call == "XACK":
            return self._drop(world, second.entry.id)
        if second.call == "ZADD":
            return self._delay(world, second.entry)
        if second.call == "XADD":
            return self._add(world, second.entry)
        return world if world.ended(second.job) else self._write_entry_id(world, second.entry)


def _without_need(world: World, job: int) -> World:
    """Removes a job from those that need the kept value. The value is deleted with the last of them."""
    return world._replace(needs=tuple(other for other in world.needs if other != job))


def _without(stream: Stream, entry: int) -> Stream:
    entries = tuple(other for other in stream.entries if other.id != entry)
    return stream if len(entries) == len(stream.entries) else stream._replace(entries=entries)
