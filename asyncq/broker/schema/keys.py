"""The names of all keys and channels, in one place, and how long keys are kept.

Every key of one shard carries the same hash tag, `{namespace:shard}`, so that a script may touch any of them
on a cluster too. No script touches those of two shards.
"""

from __future__ import annotations

import os
from dataclasses import dataclass, field

GROUP = "g"
"""The consumer group of every queue. Made at `0`: a group made at `$` would never see what was enqueued
before it."""

LAST_TRY = "!"
"""Suffix of the last-attempt queue of a queue that holds jobs on their last try, which run alone (they may be
poison).
"""

LEVEL = "^"
"""Between the name of a queue and a level of priority: each level but 0 has a stream of its own."""

EXECUTORS = {"thread": "t", "process": "p"}
"""What stands behind a level of priority in the name of a line: a stream of jobs for which a worker had no
thread, or no process."""

TOMBSTONE_MS = 60_000
DAY_MS = 86_400_000


def result_ttl_ms(seconds: float) -> int:
    """A result's time to live. Nothing about a job is deleted in under a minute: an enqueue sent again late
    must find it.
    """
    return max(TOMBSTONE_MS, round(seconds * 1000))


def name_from(data: bytes) -> str:
    """A name that somebody else may have written. Bytes that are no text come back by `name_to` as they
    were.
    """
    return data.decode("utf-8", "surrogateescape")


def name_to(name: str) -> bytes:
    """What `name_from` was given."""
    return name.encode("utf-8", "surrogateescape")


def text_of(data: bytes) -> str:
    """A text that somebody else may have written. Bytes that are no text are escaped, and name nothing."""
    return data.decode("utf-8", "backslashreplace")


def token() -> str:
    """A random name for a process's life: never reused, also not after a fork."""
    return os.urandom(8).hex()


def leveled(queue: str, level: int | str) -> str:
    """What records and streams call a level of a queue. Level 0 has no sign."""
    return f"{queue}{LEVEL}{level}" if level else queue


def queue_of(name: str) -> str:
    """The queue that a level or a last-attempt queue belongs to.

    >>> queue_of("mail^5"), queue_of("mail!"), queue_of("mail")
    ('mail', 'mail', 'mail')
    """
    return name.removesuffix(LAST_TRY).partition(LEVEL)[0]


@dataclass(frozen=True, slots=True)
class Keys:
    """Key names of one shard of a namespace."""

    namespace: str
    shard: int = 0
    tag: str = field(init=False)
    space: str = field(init=False)
    dependents: str = field(init=False)
    kept: str = field(init=False)
    needs: str = field(init=False)
    untold: str = field(init=False)
    calls: str = field(init=False)
    records: str = field(init=False)
    queues: str = field(init=False)
    beats: str = field(init=False)
    beaten: str = field(init=False)
    looks: str = field(init=False)
    ages: str = field(init=False)
    marks: str = field(init=False)
    abouts: str = field(init=False)
    begun: str = field(init=False)
    watchers: str = field(init=False)
    dead: str = field(init=False)
    delayed: str = field(init=False)
    steady: str = field(init=False)
    messages: str = field(init=False)
    wake: str = field(init=False)
    replies: str = field(init=False)
    groups: str = field(init=False)
    latest: str = field(init=False)
    items: str = field(init=False)
    places: str = field(init=False)
    events: str = field(init=False)
    blocks: str = field(init=False)
    outbox: str = field(init=False)
    inbox: str = field(init=False)
    count: str = field(init=False)
    permits_held: str = field(init=False)
    permits_waiting: str = field(init=False)
    rates: str = field(init=False)
    levels: str = field(init=False)
    new_levels: str = field(init=False)

    def __post_init__(self) -> None:
        tag = f"{{{self.namespace}:{self.shard}}}"
        for name, value in (
            ("tag", tag),
            ("space", f"{tag}:"),  # what every key begins with, for scripts that derive names
            ("dependents", f"{tag}:dep:"),  # + id: hash, who waits for it -> its place for the value
            ("records", f"{tag}:r:"),  # + id: the record, a string
            # + <id>:<request id>: hash, a value that several jobs need, and how many still do
            ("kept", f"{tag}:h:"),
            ("needs", f"{tag}:hn:"),  # + id: set, the names of the values of that kind that a job needs
            # + <id>:<request id>: stream, who waited for an ended job and is still to be told: they were too
            # many
            ("untold", f"{tag}:rest:"),
            ("calls", f"{tag}:u:"),  # + <id>:<request id>: the id stood for that call before its present one
            ("queues", f"{tag}:q:"),  # + queue: the stream
            ("levels", f"{tag}:lv:"),  # + queue: set of the levels of priority, other than 0, that it has
            ("new_levels", f"{tag}:levels"),  # channel: a queue has a level that it had not before
            ("beats", f"{tag}:w"),  # hash: session id -> beat counter
            # sorted set: session id -> number of the latest look of any worker before its last beat; for one
            # that was taken for dead the number of the latest look then, negative
            ("beaten", f"{tag}:wb"),
            ("looks", f"{tag}:wl"),  # number of the latest look of any worker at the others; a string
            ("ages", f"{tag}:wa"),  # numbers of looks, and how long ago each was at least; a string
            # + session id: hash, id of a marked job that it holds -> its mark; and a channel of that name
            ("marks", f"{tag}:x:"),
            # + session id: hash, which tasks it knows and which queues it serves
            ("abouts", f"{tag}:a:"),
            # + session id: hash, "<entry> <id>" of jobs that crashed and begin again
            ("begun", f"{tag}:bg:"),
            ("watchers", f"{tag}:ww:"),  # + queue: the worker session that lists the readers of its stream
            ("delayed", f"{tag}:d"),  # sorted set: id -> when it is due, in ms
            ("messages", f"{tag}:m:"),  # + id: hash of a delayed job: message, crashes, retries, last error
            ("steady", f"{tag}:t"),  # what the server's clock was set back by so far, in ms; a string
            ("wake", f"{tag}:wake"),  # channel: the earliest due time has changed
            ("dead", f"{tag}:dlq"),  # stream: dead letters
            ("replies", f"{tag}:c:"),  # + client: its channel of outcomes
            ("blocks", f"{tag}:b:"),  # + id: for whom a running job waits, "<entry> <id> <mark>" each
            ("groups", f"{tag}:g:"),  # + id: what `GroupResult.save` saved, a string
            ("latest", f"{tag}:e:"),  # + id: what the running job said of itself last, a string
            ("items", f"{tag}:s:"),  # + id: what a generator yielded, a stream with entries <number>-0
            ("places", f"{tag}:sp:"),  # + id: where the readers of that are, a string
            ("outbox", f"{tag}:out"),  # stream: what is to be told to other shards
            ("inbox", f"{tag}:in"),  # hash: another shard -> the entry of its outbox that was told here last
            ("count", f"{tag}:n"),  # of shard 0 only: how many shards there are, if more than one; a string
            ("events", f"{tag}:ev:"),  # + id: channel of whoever follows one job
            ("permits_held", f"{tag}:lim:"),  # + task: hash, "<entry> <id>" of a running job -> session id
            ("permits_waiting", f"{tag}:limw:"),  # + task: sorted set of ids that wait for a permit
            ("rates", f"{tag}:limr:"),  # + task: when its next job may start, a string
        ):
            object.__setattr__(self, name, value)

    def stream(self, queue: str) -> str:
        """The stream of a queue."""
        return self.queues + queue
