"""One state of the model: the keys of the server, the processes around it, and what has happened so far.

Everything is an immutable named tuple, so that a state is its own hash key and scripts are functions from
world to world. The comment beside a field names the key it stands for; `T` is the hash tag of a shard.
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
OTHERS = "another's"  # a job of another call has this id; how it fares does not matter here
TOMBSTONE = "tombstone"  # ended and forgotten; stands until no enqueue can be sent again
BEFORE = "before"  # `T:u:<id>:<request id>`: its tombstone made room for another call under its id
ENDED = frozenset({SUCCESS, FAILURE, REVOKED, DEAD, OTHERS, TOMBSTONE, BEFORE})
FAILED = frozenset({FAILURE, DEAD})

# --- a call of a client ---------------------------------------------------------------------------
UNSENT = "unsent"
UNSURE = "unsure"  # sent, reply lost: will be sent again
SENT = "sent"

# --- a waiter -------------------------------------------------------------------------------------
NEW = "new"
LOOKED = "looked, not subscribed"  # only where the mutant looks first
SUBSCRIBED = "subscribed"
CUT_OFF = "cut off"
ANSWERED = "answered"

# --- what a worker does with an entry -------------------------------------------------------------
IN_FLIGHT = "in flight"  # given by the server, the reply not yet read
HELD = "held"  # in the worker, the body not started
NOTED = "noted"  # the same, and its body is noted to begin
RUNNING = "running"
FINISHING = "finishing"  # the body ended; `finish` is to be sent
FAILING = "failing"  # the body failed for good; `finish` is to be sent
RETRYING = "retrying"  # the body failed; `retry` is to be sent
REPLACING = "replacing"  # the body left a workflow in its place; `replace` is to be sent
RELEASING = "releasing"  # given back by a worker that was told to stop; `release` is to be sent
LINING_UP = "lining up"  # there is no thread for it here; `release` into a line is to be sent
PUTTING_OFF = "putting off"  # its task is not known here; `defer` is to be sent
REVOKING = "revoking"  # cancelled by a mark or a deadline; `finish` is to be sent
NOT_STARTED = frozenset({IN_FLIGHT, HELD, NOTED})

# --- the lease of a worker, as the worker itself sees it ------------------------------------------
FRESH = "fresh"
PAUSED = "paused"
WOKEN = "woken"  # runs again, and has not beaten since


class Entry(NamedTuple):
    """A stream entry: fields `i` (job), `c` (crashes), `a` (retries), `u` (how often it was put off), and
    whether it stands in a line, which is no stream of its own here. The message does not matter here.
    """

    id: int
    job: int
    crashes: int = 0
    retries: int = 0
    put_off: int = 0
    in_line: bool = False


class Stream(NamedTuple):
    """A stream with its group: the entries that were not deleted, and the group's last delivered id."""

    entries: tuple[Entry, ...] = ()
    cursor: int = 0

    def undelivered(self) -> Entry | None:
        """The entry that the next read is given."""
        for entry in self.entries:
            if entry.id > self.cursor:
                return entry
        return None


class Record(NamedTuple):
    """`T:r:<id>`: where the job is, and while it lives which entry stands for it."""

    state: str
    entry: int = 0
    mark: bool = False
    forget: bool = False
    channels: tuple[int, ...] = ()
    """The waiters that are told of the outcome."""
    dependents: tuple[int, ...] = ()
    """`T:dep:<id>` together with the flag that says it is there."""
    missing: int = 0
    """Field `n` of `T:m:<id>`: how many of the jobs that it waits for have not ended."""


class Delayed(NamedTuple):
    """A member of `T:d`, with its message from `T:m:<id>`. When it is due is left open: at any moment."""

    job: int
    crashes: int
    retries: int
    put_off: int = 0


class Pending(NamedTuple):
    """A line of the pending list: this entry was given to this worker session. This is the claim."""

    entry: int
    name: int


class Beat(NamedTuple):
    """A field of `T:w`: the beat counter of a worker session."""

    name: int
    value: int


class Mark(NamedTuple):
    """A member of `T:x:<worker session>`: this worker session holds a job that was revoked."""

    name: int
    job: int


class Begun(NamedTuple):
    """A field of `T:a:<worker session>`: the body of the job in this entry begins, with a crash behind it."""

    name: int
    entry: int


class Held(NamedTuple):
    """An entry in the hands of a worker. What is held is known by entry id *and* job: ids may come twice."""

    entry: Entry
    name: int
    """The worker session that claimed it; a body outlives its worker session when the lease was lost."""
    phase: str
    again: bool = False
    """The call was executed once, the reply was lost: it will be sent again."""


class Worker(NamedTuple):
    """A worker process."""

    name: int
    """Its worker session, and its consumer name."""
    lease: str = FRESH
    hands: tuple[Held, ...] = ()
    unknown: tuple[Entry, ...] = ()
    """The answer of `unknown_entries` on its way to the worker: pending in its name, not in hand when it
    asked."""
    stopping: bool = False


class Rest(NamedTuple):
    """`T:rest:<id>:<request id>`, and its member of `T:d`: jobs that are still to be told how one ended."""

    parent: int
    outcome: str
    children: tuple[int, ...]
    inherited: bool


class Letter(NamedTuple):
    """An entry of an outbox, for the other shard: a batch of jobs, or how one job ended, for another."""

    id: int
    jobs: tuple[int, ...] = ()
    """Of a batch."""
    child: int = -1
    parent: int = -1
    outcome: str = ""


class Forwarder(NamedTuple):
    """A forwarder: any process, at any speed."""

    shard: int = -1
    """Whose outbox it has read."""
    letters: tuple[Letter, ...] = ()
    """What of it is still to be done."""
    half: bool = False
    """The first of them was told, and is to be deleted."""


class Owed(NamedTuple):
    """The second half of a step that a mutant does in two calls. It dies with the process that owes it."""

    call: str
    by: int
    job: int
    entry: Entry | None = None
    outcome: str = ""


class History(NamedTuple):
    """What the questions of `questions.py` need to know of a job's past. No script reads it."""

    outcome: str = ""
    """The first that was written."""
    starts_left: int = 1
    """1 + takeovers + retries + releases + replacements - starts."""
    begun: int = 0
    """How often its body was noted to begin."""
    poison_left: int = 0
    """For the job that kills its worker: how often it may still be started."""
    revoke_answer: str = ""
    revoke_horizon: int = 0
    """The newest entry id at the moment of that answer."""


class World(NamedTuple):
    """One state."""

    # keys of the server
    records: tuple[Record | None, ...]
    stream: Stream
    """`T:q:<queue>`"""
    last_attempts: Stream
    """`T:q:<queue>!`: last tries. Its ids continue those of the stream, so that an id names one entry."""
    last_id: int
    pending: tuple[Pending, ...]
    delayed: tuple[Delayed, ...]
    beats: tuple[Beat, ...]
    marks: tuple[Mark, ...]
    announced: tuple[int, ...]
    """`T:a:<worker session>`: the worker sessions that know the task of the job which the first worker does
    not.
    """
    begun: tuple[Begun, ...]
    rests: tuple[Rest, ...]
    needs: tuple[int, ...]
    """`T:hn:<id>`: the jobs that need the value which is kept once for them; it is there while any does."""
    # processes
    clients: tuple[str, ...]
    """The enqueue of each job. Those of a workflow are one call; a job that `replace` brings has none."""
    control: str
    """The call that revokes or expires."""
    waiters: tuple[str, ...]
    workers: tuple[Worker, ...]
    next_name: int
    seen: tuple[Beat, ...]
    """Beats that an observer saw stand still for a whole lease: it may send `take` at any later moment."""
    orphans: tuple[int, ...]
    """Worker sessions that are gone, whose read is still blocked at the server."""
    owed: tuple[Owed, ...]
    # between shards; empty if there is one
    outboxes: tuple[tuple[Letter, ...], ...]
    """`T:out` of each shard."""
    written: int
    """The id of the newest letter. One count for both: only the order of one outbox's letters matters."""
    applied: tuple[int, ...]
    """Of each shard's outbox, the last letter that was told: the one field of `T:in` of the other shard."""
    forwarders: tuple[Forwarder, ...]
    # bookkeeping of the model
    faults_left: int
    history: tuple[History, ...]
    broken: str = ""
    """What was promised and did not hold, in words; the exploration ends there."""

    # --- reading ----------------------------------------------------------------------------------

    def owner(self, entry: int) -> int | None:
        """The worker session for which an entry is pending."""
        for line in self.pending:
            if line.entry == entry:
                return line.name
        return None

    def beat_of(self, name: int) -> int:
        """The beat counter of a worker session; 0 if the field is missing, which means dead, for ever."""
        for beat in self.beats:
            if beat.name == name:
                return beat.value
        return 0

    def entry(self, entry: int) -> Entry | None:
        """An entry by its id, as XRANGE finds it."""
        for found in (*self.stream.entries, *self.last_attempts.entries):
            if found.id == entry:
                return found
        return None

    def ended(self, job: int) -> bool:
        """Whether a look would end the wait: an outcome stands, or there is no such job any more."""
        record = self.records[job]
        return record is None or record.state in ENDED

    def findable(self, job: int) -> bool:
        """Whether there is a job to be found, or none to come."""
        return self.records[job] is not None or not any(self.outboxes)

    def worker_named(self, name: int) -> Worker | None:
        """The living worker of that name."""
        for worker in self.workers:
            if worker.name == name:
                return worker
        return None

    # --- writing ----------------------------------------------------------------------------------

    def with_record(self, job: int, record: Record | None) -> World:
        """SET, or DEL."""
        return self._replace(records=(*self.records[:job], record, *self.records[job + 1 :]))

    def with_history(self, job: int, history: History) -> World:
        """Write down what happened to a job."""
        return self._replace(history=(*self.history[:job], history, *self.history[job + 1 :]))

    def with_worker(self, place: int, worker: Worker) -> World:
        """Put a worker in its place."""
        return self._replace(workers=(*self.workers[:place], worker, *self.workers[place + 1 :]))

    def with_hands(self, place: int, hands: tuple[Held, ...]) -> World:
        """Put entries into a worker's hands. Sorted: the order in which they came makes no difference."""
        return self.with_worker(place, self.workers[place]._replace(hands=tuple(sorted(hands))))

    def with_letter(self, shard: int, letter: Letter) -> World:
        """XADD to an outbox."""
        letter = letter._replace(id=self.written + 1)
        return self.with_outbox(shard, (*self.outboxes[shard], letter))._replace(written=letter.id)

    def with_outbox(self, shard: int, letters: tuple[Letter, ...]) -> World:
        """Put letters into an outbox."""
        return self._replace(outboxes=(*self.outboxes[:shard], letters, *self.outboxes[shard + 1 :]))

    def with_forwarder(self, place: int, forwarder: Forwarder) -> World:
        """Put a forwarder in its place. Sorted: one is as good as the other."""
        forwarders = (*self.forwarders[:place], forwarder, *self.forwarders[place + 1 :])
        return self._replace(forwarders=tuple(sorted(forwarders)))

    def with_waiter(self, waiter: int, state: str) -> World:
        """Put a waiter into a state."""
        return self._replace(waiters=(*self.waiters[:waiter], state, *self.waiters[waiter + 1 :]))

    def with_client(self, job: int, state: str) -> World:
        """Put the enqueue of a job into a state."""
        return self._replace(clients=(*self.clients[:job], state, *self.clients[job + 1 :]))
