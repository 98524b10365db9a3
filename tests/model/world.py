"""`World`: one state of the model, with the server's keys, the processes around it, and the history of jobs.

Everything is an immutable named tuple. So a state is its own hash key, and scripts are functions from world
to world. The text of a class or field names the key of the server; `T` is the hash tag of a shard.
"""

from __future__ import annotations

from typing import NamedTuple

# --- states of a record (`T:r:<id>`) --------------------------------------------------------------
LIVE = "live"  # in a stream, claimed or not
DELAYED = "delayed"
WAITING = "waiting"  # for the jobs that it depends on
SUCCESS = "success"
FAILURE = "failure"
REVOKED = "revoked"
DEAD = "dead"  # dead-lettered: it crashed its worker too often
OTHERS = "another's"  # a job of another call has this id; its state does not matter here
TOMBSTONE = "tombstone"  # ended and forgotten; kept until no enqueue can be sent again
EARLIER_CALL = (
    "earlier call"  # `T:u:<id>:<request id>`: its tombstone made room for another call under its id
)
ENDED = frozenset({SUCCESS, FAILURE, REVOKED, DEAD, OTHERS, TOMBSTONE, EARLIER_CALL})
FAILED = frozenset({FAILURE, DEAD})

# --- a call of a client ---------------------------------------------------------------------------
UNSENT = "unsent"
UNSURE = "unsure"  # sent, reply lost: will be sent again
SENT = "sent"

# --- a waiter -------------------------------------------------------------------------------------
NEW = "new"
POLLED = "polled, not subscribed"  # only where the mutant reads the record first
SUBSCRIBED = "subscribed"
CUT_OFF = "cut off"
ANSWERED = "answered"

# --- what a worker does with an entry -------------------------------------------------------------
IN_FLIGHT = "in flight"  # given by the server, the reply not yet read
HELD = "held"  # in the worker, the body not started
NOTED = "noted"  # the same, and the server has a note that the body starts
RUNNING = "running"
FINISHING = "finishing"  # the body ended; `finish` is to be sent
FAILING = "failing"  # the body failed for good; `finish` is to be sent
RETRYING = "retrying"  # the body failed; `retry` is to be sent
REPLACING = "replacing"  # the body replaced its job by a workflow; `replace` is to be sent
RELEASING = "releasing"  # the worker was asked to stop; `release` is to be sent
# There is no thread for it here; `release` into an executor queue is to be sent.
QUEUEING_FOR_EXECUTOR = "queueing for an executor"
DEFERRING = "deferring"  # its task is not known here; `defer` is to be sent
REVOKING = "revoking"  # cancelled by a signal or a deadline; `finish` is to be sent
NOT_STARTED = frozenset({IN_FLIGHT, HELD, NOTED})

# --- the lease of a worker, as the worker itself sees it ------------------------------------------
FRESH = "fresh"
PAUSED = "paused"
WOKEN = "woken"  # runs again, and has not beaten since


class Entry(NamedTuple):
    """An entry of a stream: fields `i` (job), `c` (crashes), `a` (retries), `u` (how often it was deferred),
    and whether it is in an executor queue, which is no stream of its own here. The message is left out.
    """

    id: int
    job: int
    crashes: int = 0
    retries: int = 0
    deferrals: int = 0
    in_executor_queue: bool = False


class Stream(NamedTuple):
    """A stream with its group: the entries that are not deleted, and the group's last delivered id."""

    entries: tuple[Entry, ...] = ()
    cursor: int = 0

    def undelivered(self) -> Entry | None:
        """Returns the entry that the next read gets, or None."""
        for entry in self.entries:
            if entry.id > self.cursor:
                return entry
        return None


class Record(NamedTuple):
    """`T:r:<id>`: the state of a job and, while it lives, the id of its entry."""

    state: str
    entry: int = 0
    signal: bool = False
    forget: bool = False
    channels: tuple[int, ...] = ()
    """The waiters that are notified of the outcome."""
    dependents: tuple[int, ...] = ()
    """`T:dep:<id>`, and the flag that says that it exists."""
    missing: int = 0
    """Field `n` of `T:m:<id>`: how many of its parents have not ended."""


class Delayed(NamedTuple):
    """A member of `T:d`, with its message from `T:m:<id>`. In the model it may be due at any time."""

    job: int
    crashes: int
    retries: int
    deferrals: int = 0


class Pending(NamedTuple):
    """An item of the pending list: this entry was delivered to this worker session. This is the claim."""

    entry: int
    name: int


class Beat(NamedTuple):
    """A field of `T:w`: the beat counter of a worker session."""

    name: int
    value: int


class Signal(NamedTuple):
    """A member of `T:x:<session id>`: this worker session holds a job that was revoked."""

    name: int
    job: int


class StartNote(NamedTuple):
    """A field of `T:bg:<session id>`: the body of the job in this entry starts, after an earlier crash."""

    name: int
    entry: int


class StreamNote(NamedTuple):
    """A field `<stream>` of `T:bg:<session id>`: a session that fetches ahead has begun bodies up to this
    entry. While it has begun none, there is no note in the model.
    """

    name: int
    entry: int


class Held(NamedTuple):
    """An entry that a worker holds, known by entry id *and* job: after a flush, ids may come twice."""

    entry: Entry
    name: int
    """The worker session that claimed it. A body outlives its worker session when the lease is lost."""
    phase: str
    again: bool = False
    """The call was executed once and its reply was lost: it will be sent again."""


class Worker(NamedTuple):
    """A worker process."""

    name: int
    """Its session id, which is also the consumer's name."""
    lease: str = FRESH
    held_entries: tuple[Held, ...] = ()
    unknown: tuple[Entry, ...] = ()
    """The answer of unknown_entries.lua on its way to the worker: its pending entries that it did not hold
    when it asked.
    """
    stopping: bool = False


class Rest(NamedTuple):
    """`T:rest:<id>:<request id>`, and its member of `T:d`: dependents that are still to be notified."""

    parent: int
    outcome: str
    children: tuple[int, ...]
    inherited: bool


class Message(NamedTuple):
    """An entry of an outbox, for the other shard: a batch of jobs, or the end of one job, for a dependent."""

    id: int
    jobs: tuple[int, ...] = ()
    """The jobs of a batch; empty for the end of a job."""
    child: int = -1
    parent: int = -1
    outcome: str = ""


class Forwarder(NamedTuple):
    """A forwarder: any process, at any speed."""

    shard: int = -1
    """The shard whose outbox it has read."""
    messages: tuple[Message, ...] = ()
    """The entries that it must still deliver and delete."""
    half: bool = False
    """The first of them was delivered, and must be deleted."""


class SecondCall(NamedTuple):
    """The second half of a step that a mutant does in two calls. It is lost if its process dies."""

    call: str
    by: int
    job: int
    entry: Entry | None = None
    outcome: str = ""


class History(NamedTuple):
    """The past of a job, for the checks of `questions.py`. No script reads it."""

    outcome: str = ""
    """The first outcome that was written."""
    lost_outcome: str = ""
    """An outcome that was written, and that a failover has lost."""
    starts_left: int = 1
    """1 + takeovers + retries + releases + replacements - starts."""
    noted_starts: int = 0
    """How often a worker noted that its body starts."""
    started_entry: int = 0
    """The newest entry with which its body began; only where workers fetch ahead."""
    poison_left: int = 0
    """For the job that kills its worker: how often it may still be started."""
    revoke_answer: str = ""
    revoke_horizon: int = 0
    """The newest entry id at the time of that answer."""


class Copy(NamedTuple):
    """The keys of a server as another server has them, which is behind; with the history up to there."""

    records: tuple[Record | None, ...]
    stream: Stream
    last_attempts: Stream
    last_id: int
    pending: tuple[Pending, ...]
    delayed: tuple[Delayed, ...]
    beats: tuple[Beat, ...]
    signals: tuple[Signal, ...]
    announced: tuple[int, ...]
    start_notes: tuple[StartNote, ...]
    stream_notes: tuple[StreamNote, ...]
    rests: tuple[Rest, ...]
    needs: tuple[int, ...]
    outboxes: tuple[tuple[Message, ...], ...]
    applied: tuple[int, ...]
    history: tuple[History, ...]


class World(NamedTuple):
    """One state."""

    # keys of the server
    records: tuple[Record | None, ...]
    stream: Stream
    """`T:q:<queue>`"""
    last_attempts: Stream
    """`T:q:<queue>!`: the last-attempt queue. Both streams share one counter, so an id names one entry."""
    last_id: int
    pending: tuple[Pending, ...]
    delayed: tuple[Delayed, ...]
    beats: tuple[Beat, ...]
    signals: tuple[Signal, ...]
    announced: tuple[int, ...]
    """`T:a:<session id>`: the sessions that have announced the task that the first worker does not know."""
    start_notes: tuple[StartNote, ...]
    stream_notes: tuple[StreamNote, ...]
    rests: tuple[Rest, ...]
    needs: tuple[int, ...]
    """`T:hn:<id>`: the jobs that need the kept value. The value exists while any of them needs it."""
    # processes
    clients: tuple[str, ...]
    """The state of each job's enqueue. A workflow is one call; the job that `replace` adds has none."""
    control: str
    """The state of the call that revokes or expires."""
    waiters: tuple[str, ...]
    workers: tuple[Worker, ...]
    next_name: int
    seen: tuple[Beat, ...]
    """The beats that an observer saw stand still for a whole lease: it may send `take` at any later time."""
    orphans: tuple[int, ...]
    """The worker sessions that are gone and whose read is still blocked at the server."""
    second_calls: tuple[SecondCall, ...]
    # between shards; empty if there is one
    outboxes: tuple[tuple[Message, ...], ...]
    """`T:out` of each shard."""
    written: int
    """The newest entry id of the outboxes. Both share one counter: only the order in one of them matters."""
    applied: tuple[int, ...]
    """For each shard's outbox, the last entry that was applied: the only field of the other's `T:in`."""
    forwarders: tuple[Forwarder, ...]
    # bookkeeping of the model
    faults_left: int
    history: tuple[History, ...]
    broken: str = ""
    """The promise that was broken, in words. The exploration ends there."""
    replica: Copy | None = None
    """What the replica has, which receives nothing any more; None while it has all that the server has."""

    # --- reading ----------------------------------------------------------------------------------

    def owner(self, entry: int) -> int | None:
        """Returns the worker session for which an entry is pending, or None."""
        for claim in self.pending:
            if claim.entry == entry:
                return claim.name
        return None

    def beat_of(self, name: int) -> int:
        """Returns a session's beat counter; 0 if the field is missing: the session is dead for ever."""
        for beat in self.beats:
            if beat.name == name:
                return beat.value
        return 0

    def started_until(self, name: int) -> int:
        """Returns up to which entry a session has begun bodies, as it has noted."""
        return max((note.entry for note in self.stream_notes if note.name == name), default=0)

    def entry(self, entry: int) -> Entry | None:
        """Returns an entry by its id, as XRANGE does, or None."""
        for found in (*self.stream.entries, *self.last_attempts.entries):
            if found.id == entry:
                return found
        return None

    def ended(self, job: int) -> bool:
        """Returns whether a poll would end a wait: the job has an outcome, or does not exist (any more)."""
        record = self.records[job]
        return record is None or record.state in ENDED

    def findable(self, job: int) -> bool:
        """Returns whether a client may ask for a job: it exists, or no outbox has it."""
        return self.records[job] is not None or not any(self.outboxes)

    def worker_named(self, name: int) -> Worker | None:
        """Returns the live worker with a session id, or None."""
        for worker in self.workers:
            if worker.name == name:
                return worker
        return None

    def copy(self) -> Copy:
        """Returns the keys of the server, and the history up to now."""
        return Copy(**{name: getattr(self, name) for name in Copy._fields})

    # --- writing ----------------------------------------------------------------------------------

    def with_record(self, job: int, record: Record | None) -> World:
        """Sets a record, or deletes it (None)."""
        return self._replace(records=(*self.records[:job], record, *self.records[job + 1 :]))

    def with_history(self, job: int, history: History) -> World:
        """Sets the history of a job."""
        return self._replace(history=(*self.history[:job], history, *self.history[job + 1 :]))

    def with_worker(self, index: int, worker: Worker) -> World:
        """Sets the worker with an index."""
        return self._replace(workers=(*self.workers[:index], worker, *self.workers[index + 1 :]))

    def with_held_entries(self, index: int, held_entries: tuple[Held, ...]) -> World:
        """Sets the entries that a worker holds. They are sorted: the order of their arrival is irrelevant."""
        return self.with_worker(index, self.workers[index]._replace(held_entries=tuple(sorted(held_entries))))

    def with_message(self, shard: int, message: Message) -> World:
        """Adds an entry to an outbox, under a new id."""
        message = message._replace(id=self.written + 1)
        return self.with_outbox(shard, (*self.outboxes[shard], message))._replace(written=message.id)

    def with_outbox(self, shard: int, messages: tuple[Message, ...]) -> World:
        """Sets the entries of an outbox."""
        return self._replace(outboxes=(*self.outboxes[:shard], messages, *self.outboxes[shard + 1 :]))

    def with_forwarder(self, index: int, forwarder: Forwarder) -> World:
        """Sets the forwarder with an index. They are sorted, so that equal worlds compare equal."""
        forwarders = (*self.forwarders[:index], forwarder, *self.forwarders[index + 1 :])
        return self._replace(forwarders=tuple(sorted(forwarders)))

    def with_waiter(self, waiter: int, state: str) -> World:
        """Sets the state of a waiter."""
        return self._replace(waiters=(*self.waiters[:waiter], state, *self.waiters[waiter + 1 :]))

    def with_client(self, job: int, state: str) -> World:
        """Sets the state of a job's enqueue."""
        return self._replace(clients=(*self.clients[:job], state, *self.clients[job + 1 :]))
