r"""Every byte that crosses Redis, and nothing else.

A **message** is what the stream entry carries: a msgpack array whose first item is `SCHEMA`. What every job
has stands at a fixed place; what few have stands in a map at the end, whose unknown keys a reader ignores, so
that options can be added without a new schema.

    [SCHEMA, task name, body, request id, reply channel, enqueued at (ms), result TTL (ms), more | nil]

`more` has an entry for each field of `EXTRAS` that says something.

A job of a workflow that waits for others gets what they returned with its entry: each parent's outcome,
framed as in a notification, in the order of its parents. An outcome that is kept once for several jobs is
replaced by `<id> <letter> @<request id>\\n`. The **value template** says what the job makes of them: the
index of a parent (`0`) is the value of that parent, a list of templates (`[0, 1, [2]]`) is a list of values,
and `"e"` is the failure of the one parent. The result goes in front of the job's own arguments.

The body is the encoded argument list (`serializers.ArgumentCodec`), bytes within bytes: it is decoded only by
who knows the task, and a body that cannot be decoded is that job's failure, not a broken message.

A **record** is the one truth about a job: a string under `{ns:0}:r:<id>`, text up to the body, so that a
script can read it by pattern and a person by eye.

    live:   L--- <entry id> <queue> <request id> <reply channel> ...
            (of a job with a priority, the queue is <queue>^<priority>; on its last try, <queue>!)
    ended:  S--- <entry id> <consumer that wrote it> <request id> <outcome>
    later:  D--- 0 <queue> <request id> ...    (R--- after a failure): the message waits under its own key
    waits:  W--- 0 <queue> <request id> ...    until its parents have ended: the same
    aside:  P--- 0 <queue> <request id> ...    until a limit of its task lets it start: the same
            ^ state; then three flags: mark, forget/ignore, dependents

An **outcome** is what the worker writes when a job ends, again a msgpack array; for the letters `C`, `E` and
`X` it may be empty, when a script ended the job by itself.

    [SCHEMA, payload, started at (ms), finished at (ms), attempts, worker, task name, queue, enqueued at (ms),
     ids of the jobs that it started, body of the call if the worker keeps it]

Of more than `MOST_CHILDREN` jobs that it started, the first are named, and nil stands behind them.

A job that never ran because one that it waited for came to a bad end has that one's outcome, after `^<id of
that one> `.

In front of a long outcome of a job that did not succeed stands its **short form**, which is an outcome, too:
`~<length of the short form> <short form><outcome>`. It is what the server hands on to those that waited for
the job.

A **request id** tells an enqueue that is sent again from another call that has the same id. If the job
expires, it says when: `<random>~<ms since the epoch>`, so that whoever waits for the job knows. A call with a
key has `<hash of the call>.<random>`: equal calls are equal up to the point. A `_` behind the random part
says that nobody is to see the job run (`track_started=False`).

A **report** is what a running job says of itself, under `{ns:0}:e:<id>`. It counts for as long as the record
names its entry.

    <entry id> <number> <at (ms)> <state> <encoded value>

An **event** is published on a job's own channel, `{ns:0}:ev:<id>`, for whoever follows that job. Its first
byte says what it is:

    p<report>                               the job has said something
    r<entry id> <retries> <encoded error>   the attempt under that entry failed, and there will be another
    q<entry id>                             it waits for a worker again, under that entry
    l                                       something that is too large for a message: look
    i<number> <length> <length>...\\n<items>  a generator yielded these, the first of them under that number
    n<number>                               it yielded up to that number, too much for a message
    w<number>                               a reader has come to the number that the generator waits for

A **batch** is an entry in the outbox of a shard: the jobs of a workflow that lie in another shard, as the
script `accept` takes them, with the reply channel of the client, and the outcome of jobs that wait for a job
that was not accepted.

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
"""Largest outcome that travels inside a notification, in bytes. Above 16 KiB Valkey 9.1 does not count a
message against a stalled subscriber's buffer limit, so that its memory would grow without bound (measured:
1.1 GB); below, the server drops such a client."""

MOST_HANDED_ON = 8 * 1024
"""Largest outcome of a job that did not succeed that is handed on as it is to those that waited for it; of a
larger one they get the short form. There may be 10,000 of them, and each keeps it."""

MOST_CHILDREN = 10_000
"""So many of the jobs that a job started are named in its outcome; of more, that there were more."""

LONGEST_TTL = 100 * 366 * 86_400_000
"""The longest that a result is kept, in ms: a century. The server refuses a time that does not fit into 64
bits, and with it the whole call that ends jobs."""

MOST_FIELDS = 16
"""Most fields of an entry with a job in it. Ours have eight; a script can hand on no more than some 4,000."""

MOST_COUNTED = 1_000_000
"""The most crashes, or retries, that an entry may say."""

LATEST = 253_402_300_799_999
"""The last moment that Python has a date for: the end of the year 9999, in ms since the epoch."""

LIVE, SCHEDULED, RETRYING, WAITING, TOMBSTONE = "L", "D", "R", "W", "T"
ASIDE = "P"
SUCCEEDED, FAILED, REVOKED, EXPIRED, LOST = "S", "F", "C", "E", "X"

STATE_OF: dict[str, State] = {
    LIVE: State.PENDING,
    SCHEDULED: State.SCHEDULED,
    RETRYING: State.RETRY,
    WAITING: State.PENDING,
    ASIDE: State.PENDING,
    SUCCEEDED: State.SUCCESS,
    FAILED: State.FAILURE,
    LOST: State.FAILURE,
    REVOKED: State.REVOKED,
    EXPIRED: State.REVOKED,
}
"""The letter a record begins with, and the state that it means."""

LOWEST, HIGHEST = -9, 9
"""Levels of priority: a larger one is sooner, and 0 is what is not said."""

UNTRACKED = "_"
"""Sign in a request id: that the job runs is not shown."""

NOT_AGAIN = "c"
"""The mark of a running job that is not to be started again."""

Signal = Literal["SIGTERM", "SIGINT", "SIGKILL"]
"""What a process can be sent by a revocation."""

MARK_OF: Mapping[str, str] = {"SIGINT": "i", "SIGTERM": "t", "SIGKILL": "k"}
"""The mark of a running job that is to end now, by the signal that a process gets; the weakest first."""

MARKS = NOT_AGAIN + "".join(MARK_OF.values())
"""All marks of a running job, the weakest first."""

NOT_ENDED: frozenset[str] = frozenset((LIVE, SCHEDULED, RETRYING, WAITING, ASIDE))

FINAL: frozenset[str] = frozenset(STATE_OF) - NOT_ENDED
"""The letters of final states."""


_BUFFER: Final = 1024
"""Bytes that a packer begins with; it takes more when it needs more. Its own choice is 256 KiB, and each job
is packed four times."""


def packed(value: Any) -> bytes:
    """Packs a value as `msgpack.packb` does, in seven eighths of its instructions.

    One packer for all calls would be quicker still. It would keep the memory of the largest value, and a
    finalizer that runs in the middle of a call and packs something itself would spoil both.

    Raises:
        TypeError, ValueError, OverflowError: as `packb`.
    """
    return Packer(buf_size=_BUFFER).pack(value)  # type: ignore[no-any-return]


@dataclass(slots=True)
class Job:
    """What a client asks for. `body` is the encoded argument list; times are in milliseconds since the
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
    """Milliseconds until it may start; not part of the message, the server turns it into a time of its
    own."""
    parents: tuple[str, ...] = ()
    """Ids of the jobs that it waits for, in the order in which its value template numbers them; not part of
    the message.
    """
    on_error: bool = False
    """Whether it waits for its parent to fail; not part of the message."""
    value_template: Any = None
    dependents: tuple[str, ...] | list[str] = ()
    priority: int = 0


class Extra(NamedTuple):
    """A field that only some jobs have: where it stands in the map at the end of the message.

    Attributes:
        key: its key there.
        field: the field of `Job`.
        text: what it is, as `docs/protocol.md` says it.
        kinds: the types that a value may have.
        fits: whether a value of such a type is one; None if all are.
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
"""What the map at the end of a message may have, in the order in which it is written."""

_EXTRA_OF = {extra.key: (extra.field, frozenset(extra.kinds), extra.fits) for extra in EXTRAS}


@dataclass(slots=True)
class Delivery:
    """A job as a worker was given it: the message, and the stream entry that is the worker's claim to it.

    `crashes` counts the workers that died with it, `retries` the times it was tried again after a failure;
    `values` are the outcomes of the jobs that it waited for, see the module; `limiter_state` is what a limit
    of its task has said of it, for the next time it is asked; `put_off` is how often and how long it was put
    off by workers that do not know its task; `last` is the outcome of the try before, of a job that expires.
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
        """1 for the first run."""
        return 1 + self.crashes + self.retries

    @property
    def claim(self) -> str:
        """What names this delivery among all of a shard: two streams may give out one entry id."""
        return f"{self.entry} {self.job.id}"


class Ended(NamedTuple):
    """How a job ended, as stored: `letter` is the record's, `payload` the encoded value or failure. Times are
    in ms since the epoch. With a `member` (its id and its task's name), it never ran: this is how that job
    ended, which it waited for. `children_truncated`: it started more jobs than `children` names.

    A tuple: there is one a job on either side, and a frozen dataclass takes several times as long to make.
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
        """The final state that the letter stands for."""
        return STATE_OF[self.letter]


@dataclass(slots=True, frozen=True)
class Report:
    """What a running job said of itself: `state` is its own word, `meta` an encoded value, `at` in ms since
    the epoch. Reports of one attempt are numbered.
    """

    entry: str
    number: int
    at: int
    state: str
    meta: bytes


@dataclass(slots=True, frozen=True)
class JobSnapshot:
    """Where a job is that has not ended."""

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
        """Whether it runs is not in the flags: a worker that has it is what makes it run. Then it may have
        said more.
        """
        if self.report is not None:
            return self.report.state
        if self.worker is not None:
            return State.STARTED
        return STATE_OF[self.flags[0]]


_unpack = cast("Callable[[bytes], Any]", msgpack.unpackb)


def encode_job(job: Job) -> bytes:
    """The message of a job.

    Raises:
        TypeError, ValueError, OverflowError: the headers hold something that msgpack cannot carry.
    """
    return packed(
        (SCHEMA, job.name, job.body, job.request_id, job.channel, job.enqueued, job.result_ttl, _extras(job))
    )


def encode_plain(job: Job) -> bytes:
    """The message of a job that has nothing but what every job has."""
    return packed(
        (SCHEMA, job.name, job.body, job.request_id, job.channel, job.enqueued, job.result_ttl, None)
    )


def _extras(job: Job) -> dict[str, Any] | None:  # noqa: C901  see below
    """The map at the end of a message. Written out, for a loop over `EXTRAS` takes half as long again."""
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


def decode_job(id: str, queue: str, message: bytes) -> Job:
    """The job in a message.

    Raises:
        DecodeError: not a message of this schema.
    """
    try:
        schema, name, body, request_id, channel, enqueued, ttl, more = _unpack(message)
    except Exception as error:  # msgpack raises half a dozen unrelated types on garbage, recursion among them
        raise DecodeError(f"job {id!r}: the message is not one of asyncq ({type(error).__name__})") from error
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
    """The name of the task in a message, of which the first bytes are enough; `?` if it is not there.

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
        if extra is None:  # it is of a newer version
            continue
        field, kinds, fits = extra
        if type(value) not in kinds or (fits is not None and not fits(value)):
            raise DecodeError(f"job {job.id!r}: an option of the message has the wrong type")
        setattr(job, field, value)


def encode_ended(ended: Ended) -> bytes:
    """The outcome as stored, without its letter."""
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
    """The outcome as stored of a job that did not succeed; a long one with its short form in front.

    Args:
        ended: how it ended.
        short_payload: makes the payload of the short form.
    """
    outcome = encode_ended(ended)
    if len(outcome) <= MOST_HANDED_ON:
        return outcome
    short = encode_ended(ended._replace(payload=short_payload(), children=(), body=b""))
    return b"~%d %s%s" % (len(short), short, outcome)


def _without_short_form(outcome: bytes) -> bytes:
    head, _, rest = outcome[1:].partition(b" ")
    length = number_in(head, len(rest))
    if length is None:
        raise DecodeError("the short form of an outcome has a length that cannot be")
    return rest[length:]


def decode_ended(letter: str, outcome: bytes) -> Ended:
    """The outcome that follows a letter; an empty one was written by a script, which knows no more than the
    letter.

    Raises:
        DecodeError: not an outcome of this schema.
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
        outcome = _without_short_form(outcome)
    try:
        schema, *rest = _unpack(outcome)
    except Exception as error:  # see decode_job
        raise DecodeError(f"an outcome is not one of asyncq ({type(error).__name__})") from error
    if schema != SCHEMA:
        raise _other_schema("the outcome", schema)
    if tuple(map(type, rest)) not in _OUTCOME_FIELDS:
        raise DecodeError("an outcome has too few fields, too many, or one of the wrong type")
    children = rest[8]
    is_truncated = bool(children) and children[-1] is None
    if is_truncated:
        children.pop()
    if children and not _are_ids(children):
        raise DecodeError("an outcome has a child whose id is no text")
    ended = Ended(letter, *rest)
    return ended._replace(children_truncated=True) if is_truncated else ended


_OUTCOME_FIELDS = frozenset(
    (bytes, started, finished, int, str, str, str, enqueued, list, *body)
    for started in (int, NoneType)
    for finished in (int, NoneType)
    for enqueued in (int, NoneType)
    for body in ((), (bytes,))
)
"""The types that the fields of an outcome may have."""


def encode_batch(channel: str, refusal: bytes, job_arguments: Sequence[str | int | bytes]) -> bytes:
    """The jobs of a workflow that lie in another shard."""
    return packed((SCHEMA, channel, refusal, job_arguments))


def decode_batch(batch: bytes) -> tuple[str, bytes, list[str | int | bytes]]:
    """Decodes a batch into its reply channel, the outcome of refused jobs, and the arguments of all jobs.

    Raises:
        DecodeError: not a batch of this schema.
    """
    try:
        schema, channel, refusal, job_arguments = _unpack(batch)
    except Exception as error:  # see decode_job
        raise DecodeError(f"a batch is not one of asyncq ({type(error).__name__})") from error
    if schema != SCHEMA:
        raise _other_schema("the batch", schema)
    if type(channel) is not str or type(refusal) is not bytes or type(job_arguments) is not list:
        raise DecodeError("a field of a batch has the wrong type")
    if not all(type(word) in {str, int, bytes} for word in job_arguments):
        raise DecodeError("an argument in a batch is neither text nor a number nor bytes")
    return channel, refusal, job_arguments


def decode_report(data: bytes) -> Report:
    """The report in a string, or in an event behind its first byte.

    Raises:
        DecodeError: not a report.
    """
    try:
        entry, number, at, state, meta = data.split(b" ", 4)
        entry_order(entry.decode())
        report = Report(entry.decode(), int(number), int(at), state.decode(), meta)
    except ValueError as error:  # also a UnicodeDecodeError
        raise DecodeError(f"a report is not one of asyncq ({error})") from error
    if not 0 <= report.at <= LATEST or (report.state in State.__members__ and report.state != State.STARTED):
        raise DecodeError("a report says a time or a state that no job says")
    return report


def split_items(data: bytes) -> tuple[int, list[bytes]]:
    """The number of the first item in an event, and all of them.

    Raises:
        DecodeError: the framing is broken.
    """
    head, _, rest = data[1:].partition(b"\n")
    try:
        number, *sizes = map(int, head.split())
    except ValueError as error:
        raise DecodeError(f"items are not of asyncq ({error})") from error
    if number < 1 or any(size < 0 for size in sizes):
        raise DecodeError("items are not of asyncq (a number is negative)")
    items, start = [], 0
    for size in sizes:
        items.append(rest[start : start + size])
        start += size
    if start != len(rest):
        raise DecodeError("items are not of asyncq (they have another length)")
    return number, items


def count_of(data: bytes) -> int:
    """A count in an entry: of crashes, or of retries.

    Raises:
        DecodeError: no number, or one that no job comes to.
    """
    count = number_in(data, MOST_COUNTED)
    if count is None:
        raise DecodeError(f"a count says {data[:20]!r}, which no job comes to")
    return count


def number_in(data: bytes, most: int) -> int | None:
    """The number that a text of the server is, from 0 up to a bound; None if it is none. To read one of a
    million digits takes Python seconds.
    """
    fits = data.isdigit() and len(data) <= len(str(most)) and int(data) <= most
    return int(data) if fits else None


def entry_order(entry: str) -> tuple[int, int]:
    """Entry ids in the order in which the server gave them out. A job's later attempt has a larger one.

    Raises:
        ValueError: not an entry id.
    """
    milliseconds, _, number = entry.partition("-")
    return int(milliseconds), int(number)


def frame(id: str, letter: str, outcome: bytes) -> bytes:
    """An outcome as it stands in a notification."""
    return b"%s %s %d\n%s" % (id.encode(), letter.encode(), len(outcome), outcome)


def split_notification(data: bytes) -> Iterator[tuple[str, str, bytes | None]]:
    """(id, letter, outcome) of each job in a notification; None where the outcome must be fetched.

    Raises:
        DecodeError: the framing is broken.
    """
    start, end = 0, len(data)
    while start < end:
        newline = data.find(b"\n", start)
        head = data[start:newline].split(b" ")
        if newline < 0 or len(head) != 3:
            raise DecodeError("a notification is not one of asyncq")
        start = newline + 1
        if head[2] == b"-":
            yield head[0].decode(), head[1].decode(), None
            continue
        # A negative one would lead back, and round and round.
        length = int(head[2]) if head[2].isdigit() else -1
        if not 0 <= length <= end - start:
            if head[2][:1] == b"@":
                yield head[0].decode(), head[1].decode(), None
                continue
            raise DecodeError("an outcome in a notification has a length that cannot be")
        yield head[0].decode(), head[1].decode(), data[start : start + length]
        start += length


class Kept(NamedTuple):
    """The place of an outcome that is kept once for several jobs, among the values of one of them.

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
    r"""The values of the jobs that one waited for, cut where an outcome is not among them but kept once for
    several jobs.

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
            raise DecodeError("the values of the jobs that one waited for are not framed as by asyncq")
        if length is None:
            id_, letter, request_id = head[0].decode(), head[1].decode(), head[2][1:].decode()
            pieces += (values[copied:start], Kept(f"{id_}:{request_id}", id_, letter, values[start:after]))
            copied = after
        start = after + (length or 0)
    return [piece for piece in (*pieces, values[copied:]) if piece]
