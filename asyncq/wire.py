r"""Every byte that crosses Redis, and nothing else: encodes and decodes jobs, records, outcomes and events.

Pure functions; none belongs to a loop. `docs/protocol.md` says the same in prose, and a test compares the
two. Bytes that are not asyncq's raise `DecodeError`. A new option of a job goes into `Job` and `EXTRAS`, a
new letter into `STATE_OF`.

A **message** is what the stream entry carries: a msgpack array whose first item is `SCHEMA`. What every job
has stands at a fixed place. What only some jobs have stands in a map at the end. A reader ignores unknown
keys of that map, so options can be added without a new schema.

    [SCHEMA, task name, body, request id, reply channel, enqueued at (ms), result TTL (ms), more | nil]

`more` has an entry for each field of `EXTRAS` whose value is not the default.

A job of a workflow that waits for others gets their results with its entry: each parent's outcome, framed as
in a notification, in the order of its parents. An outcome that is kept once for several jobs is replaced by
`<id> <letter> @<request id>\\n`. The **value template** says what the job makes of these values: the index of
a parent (`0`) is the value of that parent, a list of templates (`[0, 1, [2]]`) is a list of values, and `"e"`
is the failure of the one parent. The result is put before the job's own arguments.

The body is the encoded argument list (`serializers.ArgumentCodec`), bytes within bytes. Only a process that
knows the task decodes it. A body that cannot be decoded is the failure of that job, and not a broken message.

A **record** is the one truth about a job: a string under `{ns:0}:r:<id>`. It is text up to the body, so that
a script can read it by pattern and a person by eye.

    live:   L--- <entry id> <queue> <request id> <reply channel> ...
            (of a job with a priority, the queue is <queue>^<priority>; on its last try, <queue>!)
    ended:  S--- <entry id> <consumer that wrote it> <request id> <outcome>
    later:  D--- 0 <queue> <request id> ...    (R--- after a failure): the message waits under its own key
    waits:  W--- 0 <queue> <request id> ...    until its parents have ended: the message waits there, too
    aside:  P--- 0 <queue> <request id> ...    until a limit of its task lets it start: the same (deferred)
            ^ state; then three flags: revocation signal, forget/ignore, dependents

An **outcome** is what the worker writes when a job ends, again a msgpack array. For the letters `C`, `E` and
`X` it may be empty, if a script ended the job by itself.

    [SCHEMA, payload, started at (ms), finished at (ms), attempts, worker, task name, queue, enqueued at (ms),
     ids of the jobs that it started, body of the call if the worker keeps it]

If the job started more than `MOST_CHILDREN` jobs, the first of them are named, and nil stands behind them.

If a job never ran because a job for which it waited came to a bad end, its outcome is that of the other job,
after `^<id of the other job> `.

Before a long outcome of a job that did not succeed stands its **short form**, which is an outcome, too:
`~<length of the short form> <short form><outcome>`. The server hands on only the short form.

A **request id** tells an enqueue that is sent again from another call with the same id. If the job expires,
the request id says when: `<random>~<ms since the epoch>`, so that whoever waits for the job knows. A call
with a key has `<hash of the call>.<random>`: equal calls have equal hashes. A `_` after the random part means
that nobody is to see that the job runs (`track_started=False`).

A **report** is what a running job says about its progress, under `{ns:0}:e:<id>`. It counts as long as the
record names its entry.

    <entry id> <number> <at (ms)> <state> <encoded value>

An **event** is published on a job's own channel, `{ns:0}:ev:<id>`, for whoever follows that job. Its first
byte says what it is:

    p<report>                               the job has reported its progress
    r<entry id> <retries> <encoded error>   the attempt under that entry failed, and there will be another
    q<entry id>                             the job waits for a worker again, under that entry
    l                                       something is too large for a message: read it from the server
    i<number> <length> <length>...\\n<items>  a generator yielded these items, the first has that number
    n<number>                               it yielded items up to that number, too large for a message
    w<number>                               a reader has come to the number for which the generator waits

A **batch** is an entry in the outbox of a shard: the jobs of a workflow that lie in another shard, as the
script `accept` takes them, with the reply channel of the client, and the outcome for jobs whose parent was
not accepted.

    [SCHEMA, reply channel, outcome, [argument, ...]]

A **notification** is one or more outcomes, published on a reply channel, each framed as `<id> <letter>
<length>\\n<outcome>`. Above `PUSH_LIMIT` bytes the length is `-` and nothing follows: the reader fetches it.
"""

from __future__ import annotations

from dataclasses import dataclass
from types import NoneType
from typing import TYPE_CHECKING, Any, Final, Literal, NamedTuple, cast

import msgpack
from msgpack import Packer

from asyncq.errors import DecodeError
from asyncq.states import State

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

SCHEMA = 2

PUSH_LIMIT = 8 * 1024
"""The largest outcome that travels inside a notification, in bytes. Above 16 KiB Valkey 9.1 does not count a
message against a stalled subscriber's buffer limit, so its memory would grow without bound (measured: 1.1
GB). Below that, the server drops such a client."""

MOST_HANDED_ON = 8 * 1024 - 64
"""The largest outcome of a job that did not succeed that is handed on in full to the jobs that waited for it,
in bytes. Of a larger one they get the short form: there may be 10,000 such jobs, and each stores it. The
script's own limit is 64 bytes higher, because a signature may follow the outcome."""

TOO_LARGE = b"!"
"""What the server sends instead of values that are too large to hand on."""

SIGNED, ENCRYPTED = b"\xc1s", b"\xc1e"
"""The marks of sealed data: before the signature at the end of what is signed, and at the beginning of what
is encrypted. `broker.signing.seal` makes and reads both."""

MOST_CHILDREN = 10_000
"""So many of the jobs that a job started are named in its outcome. If there were more, it says only that."""

LONGEST_TTL = 100 * 366 * 86_400_000
"""The longest time that a result is kept, in ms: a century. The server refuses a time that does not fit into
64 bits, and with it the whole call that ends jobs."""

MOST_FIELDS = 16
"""The most fields of an entry with a job. Ours have eight; a script can hand on no more than some 4,000."""

MOST_COUNTED = 1_000_000
"""The highest count of crashes, or of retries, that an entry may have."""

LATEST = 253_402_300_799_999
"""The latest time for which Python has a date: the end of the year 9999, in ms since the epoch."""

LIVE, SCHEDULED, RETRYING, WAITING, TOMBSTONE = "L", "D", "R", "W", "T"
DEFERRED = "P"
SUCCEEDED, FAILED, REVOKED, EXPIRED, LOST = "S", "F", "C", "E", "X"

STATE_OF: dict[str, State] = {
    LIVE: State.PENDING,
    SCHEDULED: State.SCHEDULED,
    RETRYING: State.RETRY,
    WAITING: State.PENDING,
    DEFERRED: State.PENDING,
    SUCCEEDED: State.SUCCESS,
    FAILED: State.FAILURE,
    LOST: State.FAILURE,
    REVOKED: State.REVOKED,
    EXPIRED: State.REVOKED,
}
"""The letter with which a record begins, and the state that it means."""

LOWEST, HIGHEST = -9, 9
"""The levels of priority. Higher runs first; 0 is the default and is not encoded."""

UNTRACKED = "_"
"""The sign in a request id of a job whose `STARTED` is not shown."""

NOT_AGAIN = "c"
"""The revocation signal to a job that is not to start (again)."""

Signal = Literal["SIGTERM", "SIGINT", "SIGKILL"]
"""The signals that a revocation can send to a process."""

SIGNAL_OF: Mapping[str, str] = {"SIGINT": "i", "SIGTERM": "t", "SIGKILL": "k"}
"""The revocation signal to a job that is to end now, by the signal that a process gets; the weakest first."""

SIGNALS = NOT_AGAIN + "".join(SIGNAL_OF.values())
"""All revocation signals, the weakest first."""

NOT_ENDED: frozenset[str] = frozenset((LIVE, SCHEDULED, RETRYING, WAITING, DEFERRED))

FINAL: frozenset[str] = frozenset(STATE_OF) - NOT_ENDED
"""The letters of final states."""


class NotSigned(DecodeError):
    """Data at the server that must be neither run nor handed out, because nobody who has the secrets vouches
    for them.

    Attributes:
        reason: `not signed`, `too old`, or `cannot be decrypted`; the reason of the dead letter.
    """

    def __init__(self, text: str, reason: str = "not signed") -> None:
        super().__init__(text)
        self.reason: str = reason


_BUFFER: Final = 1024
"""The bytes with which a packer begins; it takes more when it needs more. Its own default is 256 KiB, and
each job is packed four times."""


def packed(value: Any) -> bytes:
    """Packs a value as `msgpack.packb` does, in seven eighths of its instructions.

    One packer for all calls would be faster still. But it would keep the memory of the largest value. And a
    finalizer that runs in the middle of a call and packs something itself would spoil both values.

    Raises:
        TypeError, ValueError, OverflowError: as `packb`.
    """
    return Packer(buf_size=_BUFFER).pack(value)  # type: ignore[no-any-return]


@dataclass(slots=True)
class Job:
    """What a client asks for. `body` is the encoded argument list. Times are in milliseconds since the
    epoch.
    """

    id: str
    name: str
    queue: str
    body: bytes
    request_id: str
    channel: str
    enqueued: int
    result_ttl: int
    expires: int | None = None
    ignore_result: bool = False
    parent_id: str | None = None
    root_id: str | None = None
    headers: Mapping[str, Any] | None = None
    deadline: int | None = None
    retry: list[Any] | None = None
    timeout: int | None = None
    ancestors: list[str] | None = None
    """The jobs above the parent, the nearest first."""
    wait: int | None = None
    """Milliseconds until it may start. Not part of the message: the server makes a time of its own of it."""
    parents: tuple[str, ...] = ()
    """Ids of the jobs for which it waits, in the order in which its value template numbers them. They are not
    part of the message.
    """
    on_error: bool = False
    """Whether it waits for its parent to fail. It is not part of the message."""
    value_template: Any = None
    dependents: tuple[str, ...] | list[str] = ()
    priority: int = 0


class Extra(NamedTuple):
    """A field that only some jobs have, and its place in the map at the end of the message.

    Attributes:
        key: its key in the map.
        field: the field of `Job`.
        text: its description, as `docs/protocol.md` has it.
        kinds: the types that a value may have.
        fits: says whether a value of such a type is valid; None if all are.
    """

    key: str
    field: str
    text: str
    kinds: tuple[type[Any], ...]
    fits: Callable[[Any], bool] | None = None


def _are_ids(value: Any) -> bool:
    return value is None or all(type(id_) is str for id_ in value)


def _is_timestamp(value: Any) -> bool:
    return value is None or 0 <= value <= LATEST


def _is_time_limit(value: Any) -> bool:
    return value is None or 0 <= value <= LONGEST_TTL


def _is_value_template(value: Any) -> bool:
    return type(value) is not str or value == "e"


def _is_level(value: int) -> bool:
    return LOWEST <= value <= HIGHEST


EXTRAS = (
    Extra("x", "expires", "expires (ms)", (int, NoneType), _is_timestamp),
    Extra("i", "ignore_result", "result ignored", (bool,)),
    Extra("p", "parent_id", "parent id", (str, NoneType)),
    Extra("r", "root_id", "root id", (str, NoneType)),
    Extra("h", "headers", "headers", (dict, NoneType)),
    Extra("d", "deadline", "deadline (ms)", (int, NoneType), _is_timestamp),
    Extra("y", "retry", "retry policy", (list, NoneType)),
    Extra("t", "timeout", "time limit (ms)", (int, NoneType), _is_time_limit),
    Extra(
        "v",
        "value_template",
        "template of its parents' values",
        (int, list, str, NoneType),
        _is_value_template,
    ),
    Extra("c", "dependents", "ids of the jobs that wait for it", (list,), _are_ids),
    Extra(
        "a",
        "ancestors",
        "ids of the jobs above the one that started it, the nearest first, at most 63",
        (list, NoneType),
        _are_ids,
    ),
    Extra("g", "priority", "priority, from -9 to 9", (int,), _is_level),
)
"""What the map at the end of a message may hold, in the order in which it is written."""

_EXTRA_OF = {extra.key: (extra.field, frozenset(extra.kinds), extra.fits) for extra in EXTRAS}


@dataclass(slots=True)
class Delivery:
    """A job as a worker has got it: the message, and the stream entry that is the worker's claim.

    Attributes:
        entry, stream: the entry and its stream.
        crashes: how many workers have died with the job.
        retries: how often the job was tried again after a failure.
        job: the message.
        values: the outcomes of the jobs for which it waited, see the module.
        limiter_state: what the limiter has answered this job so far, for the next time it asks.
        put_off: how often and for how long workers that do not know its task have deferred it.
        last: the outcome of the try before, if the job expires.
    """

    entry: str
    stream: str
    crashes: int
    retries: int
    job: Job
    values: bytes = b""
    limiter_state: bytes = b""
    put_off: bytes = b""
    last: bytes = b""

    @property
    def attempt(self) -> int:
        """The number of this attempt, 1 for the first."""
        return 1 + self.crashes + self.retries

    @property
    def claim(self) -> str:
        """The name of this delivery among all of a shard. Two streams may give out the same entry id."""
        return f"{self.entry} {self.job.id}"


class Ended(NamedTuple):
    """How a job ended, as stored. Times are in ms since the epoch.

    A tuple: each end of a job makes one on either side, and a frozen dataclass takes several times as long.

    Attributes:
        letter: the letter of the record.
        payload: the encoded value or failure.
        member: the id of another job and the name of its task. This job waited for that one and never ran,
            and this is how the other one ended.
        children_truncated: whether the job started more jobs than `children` names.
    """

    letter: str
    payload: bytes = b""
    started: int | None = None
    finished: int | None = None
    attempts: int = 0
    worker: str = ""
    name: str = ""
    queue: str = ""
    enqueued: int | None = None
    children: tuple[str, ...] | list[str] = ()
    body: bytes = b""
    member: tuple[str, str] | None = None
    children_truncated: bool = False

    @property
    def state(self) -> State:
        """The final state for which the letter stands."""
        return STATE_OF[self.letter]


@dataclass(slots=True, frozen=True)
class Report:
    """What a running job has reported about its progress. Reports of one attempt are numbered.

    Attributes:
        at: when, in ms since the epoch.
        state: a word of the job's own.
        meta: an encoded value.
    """

    entry: str
    number: int
    at: int
    state: str
    meta: bytes


class WorkerStatus(NamedTuple):
    """What a worker session says of itself, for listings of workers.

    Attributes:
        host, pid: where it runs.
        started: when the worker was started, in ms since the epoch.
        queues: those that it serves, the most urgent first.
        concurrency: how many bodies may run at once.
        busy: how many bodies run now.
        done, failed: how many jobs have ended there, and how many of them have failed.
        version: of asyncq.
        lease: its lease, in ms.
        is_quiet: whether it reads no jobs, because somebody has asked for that.
    """

    host: str
    pid: int
    started: int
    queues: list[str]
    concurrency: int
    busy: int
    done: int
    failed: int
    version: str
    lease: int
    is_quiet: bool


@dataclass(slots=True, frozen=True)
class JobSnapshot:
    """Where a job is that has not ended, as the server has answered."""

    flags: str
    queue: str
    entry: str = ""
    worker: str | None = None
    started: int | None = None
    retries: int = 0
    failure: bytes = b""
    report: Report | None = None

    @property
    def state(self) -> State | str:
        """`STARTED` is not stored: it follows from a worker holding the entry. A report may say more."""
        if self.report is not None:
            return self.report.state
        if self.worker is not None:
            return State.STARTED
        return STATE_OF[self.flags[0]]


_unpack = cast("Callable[[bytes], Any]", msgpack.unpackb)


def encode_job(job: Job) -> bytes:
    """Encodes a job as a message.

    Raises:
        TypeError, ValueError, OverflowError: msgpack cannot encode something in the headers.
    """
    return packed(
        (SCHEMA, job.name, job.body, job.request_id, job.channel, job.enqueued, job.result_ttl, _extras(job))
    )


def encode_plain(job: Job) -> bytes:
    """Encodes a job that has only the fields that every job has. It is the fast path of `encode_job`."""
    return packed(
        (SCHEMA, job.name, job.body, job.request_id, job.channel, job.enqueued, job.result_ttl, None)
    )


def _extras(job: Job) -> dict[str, Any] | None:  # noqa: C901  see below
    """Makes the map at the end of a message. It is no loop over `EXTRAS`, which takes half as long again."""
    more: dict[str, Any] = {}
    if job.expires is not None:
        more["x"] = job.expires
    if job.ignore_result:
        more["i"] = True
    if job.parent_id is not None:
        more["p"] = job.parent_id
    if job.root_id is not None:
        more["r"] = job.root_id
    if job.headers:
        more["h"] = dict(job.headers)
    if job.deadline is not None:
        more["d"] = job.deadline
    if job.retry is not None:
        more["y"] = job.retry
    if job.timeout is not None:
        more["t"] = job.timeout
    if job.value_template is not None:
        more["v"] = job.value_template
    if job.dependents:
        more["c"] = job.dependents
    if job.ancestors:
        more["a"] = job.ancestors
    if job.priority:
        more["g"] = job.priority
    return more or None


def _other_schema(what: str, schema: Any) -> DecodeError:
    return DecodeError(
        f"{what} has schema {schema!r} and this version of asyncq reads schema {SCHEMA}: run the same "
        f"version where jobs are sent and where they run"
    )


def _refuse_sealed(what: str, data: bytes) -> None:
    """Raises `NotSigned` if data that could not be decoded seem to be sealed: this process has no secrets, or
    they would have been opened before.
    """
    # The letter behind the mark is that of signed data, or the flags of a message.
    is_signed = data[-18:-17] == SIGNED[:1] and (data[-17:-16] == SIGNED[1:] or data[-17] & ~7 == 0x40)
    if is_signed or data[:2] == ENCRYPTED:
        raise NotSigned(
            f"{what} is signed or encrypted, and this process has no secrets: set ASYNCQ_SECRETS",
            "signed, and the worker has no secrets",
        )


def decode_job(id: str, queue: str, message: bytes) -> Job:
    """Decodes the job in a message.

    Raises:
        DecodeError: it is no message of this schema.
    """
    try:
        schema, name, body, request_id, channel, enqueued, ttl, more = _unpack(message)
    except Exception as error:  # msgpack raises half a dozen unrelated types on garbage, recursion among them
        _refuse_sealed(f"the message of job {id!r}", message)
        raise DecodeError(
            f"job {id!r}: the message is not in the format of asyncq ({type(error).__name__})"
        ) from error
    if schema != SCHEMA:
        raise _other_schema(f"job {id!r}: the message", schema)
    fits = (
        type(name) is str
        and type(body) is bytes
        and type(request_id) is str
        and type(channel) is str
        and type(enqueued) is int
        and type(ttl) is int
        and 0 < ttl <= LONGEST_TTL
    )
    if not fits or " " in request_id or " " in channel:
        raise DecodeError(f"job {id!r}: a field of the message has the wrong type")
    job = Job(id, name, queue, body, request_id, channel, enqueued, ttl)
    if more:
        _add_more(job, more)
    return job


def task_name(head: bytes) -> str:
    """Returns the name of the task in a message, of which the first bytes are enough; `?` if it is not there.

    >>> task_name(encode_plain(Job("id", "add", "default", b"x" * 100, "", "", 0, 1))[:20])
    'add'
    """
    unpacker = msgpack.Unpacker()
    unpacker.feed(head)
    try:
        unpacker.read_array_header()
        unpacker.skip()
        name = unpacker.unpack()
    except Exception:  # noqa: BLE001  see decode_job; it is only for a log line
        return "?"
    return name if type(name) is str else "?"


def _add_more(job: Job, more: dict[str, Any]) -> None:
    if not isinstance(more, dict):
        raise DecodeError(f"job {job.id!r}: the options are not a map")
    for key, value in more.items():
        extra = _EXTRA_OF.get(key)
        if extra is None:  # an option of a newer version
            continue
        field, kinds, fits = extra
        if type(value) not in kinds or (fits is not None and not fits(value)):
            raise DecodeError(f"job {job.id!r}: an option of the message has the wrong type")
        setattr(job, field, value)


def encode_ended(ended: Ended) -> bytes:
    """Encodes an outcome as it is stored, without its letter."""
    outcome: tuple[Any, ...] = (
        SCHEMA,
        ended.payload,
        ended.started,
        ended.finished,
        ended.attempts,
        ended.worker,
        ended.name,
        ended.queue,
        ended.enqueued,
        ended.children if len(ended.children) <= MOST_CHILDREN else (*ended.children[:MOST_CHILDREN], None),
    )
    return packed((*outcome, ended.body) if ended.body else outcome)


def encode_bad_end(ended: Ended, short_payload: Callable[[], bytes]) -> bytes:
    """Encodes the outcome of a job that did not succeed. A long one begins with its short form.

    Args:
        ended: how the job ended.
        short_payload: makes the payload of the short form.
    """
    outcome = encode_ended(ended)
    if len(outcome) <= MOST_HANDED_ON:
        return outcome
    short = encode_ended(ended._replace(payload=short_payload(), children=(), body=b""))
    return b"~%d %s%s" % (len(short), short, outcome)


def split_short_form(outcome: bytes) -> tuple[bytes, bytes]:
    """Returns the short form that stands before an outcome, and the outcome.

    Raises:
        DecodeError: its length is impossible.
    """
    head, _, rest = outcome[1:].partition(b" ")
    length = number_in(head, len(rest))
    if length is None:
        raise DecodeError("the short form of an outcome has an impossible length")
    return rest[:length], rest[length:]


def decode_ended(letter: str, outcome: bytes) -> Ended:
    """Decodes the outcome after a letter. A script writes an empty one if it knows only the letter.

    Raises:
        DecodeError: it is no outcome of this schema.
    """
    if letter not in FINAL:
        raise DecodeError(f"{letter!r} is not the letter of a final state")
    if not outcome:
        return Ended(letter)
    if outcome[:1] == b"^":
        member, _, outcome = outcome[1:].partition(b" ")
        theirs = decode_ended(letter, outcome)
        ours = Ended(letter, theirs.payload, finished=theirs.finished)
        return ours._replace(member=(member.decode("utf-8", "replace"), theirs.name))
    if outcome[:1] == b"~":
        outcome = split_short_form(outcome)[1]
    try:
        schema, *rest = _unpack(outcome)
    except Exception as error:  # see decode_job
        _refuse_sealed("an outcome", outcome)
        raise DecodeError(f"an outcome is not in the format of asyncq ({type(error).__name__})") from error
    if schema != SCHEMA:
        raise _other_schema("the outcome", schema)
    if tuple(map(type, rest)) not in _OUTCOME_FIELDS:
        raise DecodeError("an outcome has too few fields, too many, or one of the wrong type")
    children = rest[8]
    is_truncated = bool(children) and children[-1] is None
    if is_truncated:
        children.pop()
    if children and not _are_ids(children):
        raise DecodeError("an outcome has a child whose id is not a text")
    ended = Ended(letter, *rest)
    return ended._replace(children_truncated=True) if is_truncated else ended


_OUTCOME_FIELDS = frozenset(
    (bytes, started, finished, int, str, str, str, enqueued, list, *body)
    for started in (int, NoneType)
    for finished in (int, NoneType)
    for enqueued in (int, NoneType)
    for body in ((), (bytes,))
)
"""The combinations of types that the fields of an outcome may have."""


def encode_batch(channel: str, refusal: bytes, job_arguments: Sequence[str | int | bytes]) -> bytes:
    """Encodes the jobs of a workflow that lie in another shard."""
    return packed((SCHEMA, channel, refusal, job_arguments))


def decode_batch(batch: bytes) -> tuple[str, bytes, list[str | int | bytes]]:
    """Decodes a batch into its reply channel, the outcome of refused jobs, and the arguments of all jobs.

    Raises:
        DecodeError: it is no batch of this schema.
    """
    try:
        schema, channel, refusal, job_arguments = _unpack(batch)
    except Exception as error:  # see decode_job
        raise DecodeError(f"a batch is not in the format of asyncq ({type(error).__name__})") from error
    if schema != SCHEMA:
        raise _other_schema("the batch", schema)
    if type(channel) is not str or type(refusal) is not bytes or type(job_arguments) is not list:
        raise DecodeError("a field of a batch has the wrong type")
    if not all(type(word) in {str, int, bytes} for word in job_arguments):
        raise DecodeError("an argument in a batch is neither text nor a number nor bytes")
    return channel, refusal, job_arguments


def decode_report(data: bytes) -> Report:
    """Decodes the report in a string, or in an event after its first byte.

    Raises:
        DecodeError: it is no report.
    """
    try:
        entry, number, at, state, meta = data.split(b" ", 4)
        entry_order(entry.decode())
        report = Report(entry.decode(), int(number), int(at), state.decode(), meta)
    except ValueError as error:  # also a UnicodeDecodeError
        raise DecodeError(f"a report is not in the format of asyncq ({error})") from error
    if not 0 <= report.at <= LATEST or (report.state in State.__members__ and report.state != State.STARTED):
        raise DecodeError("a report has a time or a state that no job can have")
    return report


_STATUS_TYPES = (str, int, int, list, int, int, int, int, str, int, bool)
"""The types of the fields of a `WorkerStatus`, in their order."""


def encode_status(status: WorkerStatus) -> bytes:
    """Encodes what a worker session says of itself."""
    return packed((SCHEMA, *status))


def decode_status(data: bytes) -> WorkerStatus:
    """Decodes what a worker session says of itself. Fields that a later version has added are left out.

    Raises:
        DecodeError: it is no status of this schema.
    """
    try:
        schema, *found = _unpack(data)
    except Exception as error:  # see decode_job
        raise DecodeError(f"a status is not in the format of asyncq ({type(error).__name__})") from error
    if schema != SCHEMA:
        raise _other_schema("the status of a worker", schema)
    fields = found[: len(_STATUS_TYPES)]
    if [type(field) for field in fields] != list(_STATUS_TYPES) or not all(
        type(queue) is str for queue in fields[3]
    ):
        raise DecodeError("a field of the status of a worker has the wrong type")
    return WorkerStatus(*fields)


def split_items(data: bytes) -> tuple[int, list[bytes]]:
    """Returns the number of the first item in an event, and all of its items.

    Raises:
        DecodeError: the framing is broken.
    """
    head, _, rest = data[1:].partition(b"\n")
    try:
        number, *sizes = map(int, head.split())
    except ValueError as error:
        raise DecodeError(f"items are not in the format of asyncq ({error})") from error
    if number < 1 or any(size < 0 for size in sizes):
        raise DecodeError("items are not in the format of asyncq (a number is negative)")
    items, start = [], 0
    for size in sizes:
        items.append(rest[start : start + size])
        start += size
    if start != len(rest):
        raise DecodeError("items are not in the format of asyncq (their length differs from the stated one)")
    return number, items


def count_of(data: bytes) -> int:
    """Returns a count in an entry: of crashes, or of retries.

    Raises:
        DecodeError: it is no number, or one that no job reaches.
    """
    count = number_in(data, MOST_COUNTED)
    if count is None:
        raise DecodeError(f"a count is {data[:20]!r}, which no job can reach")
    return count


def number_in(data: bytes, most: int) -> int | None:
    """Returns the number in a text of the server, from 0 up to a bound; None if it is no such number.

    The length is tested first: to convert a million digits takes Python seconds.
    """
    fits = data.isdigit() and len(data) <= len(str(most)) and int(data) <= most
    return int(data) if fits else None


def entry_order(entry: str) -> tuple[int, int]:
    """Returns a key that sorts entry ids as the server gave them out. A job's later attempt has a larger one.

    Raises:
        ValueError: it is no entry id.
    """
    milliseconds, _, number = entry.partition("-")
    return int(milliseconds), int(number)


def frame(id: str, letter: str, outcome: bytes) -> bytes:
    """Encodes an outcome as it stands in a notification."""
    return b"%s %s %d\n%s" % (id.encode(), letter.encode(), len(outcome), outcome)


def split_notification(data: bytes) -> Iterator[tuple[str, str, bytes | None]]:
    """Yields (id, letter, outcome) of each job in a notification; None where the outcome must be fetched.

    Raises:
        DecodeError: the framing is broken.
    """
    start, end = 0, len(data)
    while start < end:
        newline = data.find(b"\n", start)
        head = data[start:newline].split(b" ")
        if newline < 0 or len(head) != 3:
            raise DecodeError("a notification is not in the format of asyncq")
        start = newline + 1
        if head[2] == b"-":
            yield head[0].decode(), head[1].decode(), None
            continue
        # A negative length would lead back, in an endless loop.
        length = int(head[2]) if head[2].isdigit() else -1
        if not 0 <= length <= end - start:
            if head[2][:1] == b"@":
                yield head[0].decode(), head[1].decode(), None
                continue
            raise DecodeError("an outcome in a notification has an impossible length")
        yield head[0].decode(), head[1].decode(), data[start : start + length]
        start += length


class Kept(NamedTuple):
    """An outcome that is kept once for several jobs, where it stands among the values of one of them.

    Attributes:
        name: the end of its key, `<id>:<request id>`.
        id, letter: as in a notification.
        frame: the bytes that stand in its place.
    """

    name: str
    id: str
    letter: str
    frame: bytes


def pieces_of(values: bytes) -> list[bytes | Kept]:
    r"""Cuts the values of a job's parents where an outcome is not among them but kept once for several jobs.

    >>> pieces_of(b"a S 1\n7b S @997f\n")
    [b'a S 1\n7', Kept(name='b:997f', id='b', letter='S', frame=b'b S @997f\n')]

    Raises:
        DecodeError: the framing is broken.
    """
    if b" @" not in values:
        return [values]
    pieces: list[bytes | Kept] = []
    start = copied = 0
    while start < len(values):
        after = values.find(b"\n", start) + 1
        head = values[start : max(after - 1, start)].split(b" ")
        length = number_in(head[2], len(values) - after) if len(head) == 3 else None
        if length is None and (len(head) != 3 or head[2][:1] != b"@"):
            raise DecodeError("the values of a job's parents are not in the format of asyncq")
        if length is None:
            id_, letter, request_id = head[0].decode(), head[1].decode(), head[2][1:].decode()
            pieces += (values[copied:start], Kept(f"{id_}:{request_id}", id_, letter, values[start:after]))
            copied = after
        start = after + (length or 0)
    return [piece for piece in (*pieces, values[copied:]) if piece]
