"""The names of all keys and channels, in one place, and how long keys are kept. Pure, on any thread.

All keys of one shard have the same hash tag, `{namespace:shard}`, so a script may use any of them, on a
Cluster, too. No script uses keys of two shards.
"""

from __future__ import annotations

import os
from dataclasses import dataclass, field

GROUP = "g"
"""The consumer group of every queue. It is made at entry `0`: a group made at `$` would never see the jobs
that were enqueued before it."""

LAST_ATTEMPT = "!"
"""Suffix in the name of a last-attempt queue. It holds jobs whose earlier attempts have killed workers; each
of them runs alone.
"""

LEVEL = "^"
"""Sign between the name of a queue and a level of priority: each level but 0 has a stream of its own."""

EXECUTORS = {"thread": "t", "process": "p"}
"""The letter for each executor at the end of the name of an executor queue: a stream of jobs for which a
worker had no free thread, or no free process."""

RETURNED = "r"
"""The letter at the end of the name of a returned queue: a stream of jobs that workers had fetched and have
given back before their bodies began, or when they stopped. It is read before the queue itself, so these jobs
keep their turn.
"""

TOMBSTONE_MS = 60_000
"""How long anything about an ended job is kept at least, in ms."""
DAY_MS = 86_400_000
"""A day in ms: how long keys are kept that somebody renews while they are needed."""


def result_ttl_ms(seconds: float) -> int:
    """Returns the time to live of a result, in ms. It is a minute at least: an enqueue that is sent again
    late must find the record.
    """
    return max(TOMBSTONE_MS, round(seconds * 1000))


def name_from(data: bytes) -> str:
    """Decodes a name that another program may have written. `name_to` gives the same bytes back, also those
    that are not UTF-8.
    """
    return data.decode("utf-8", "surrogateescape")


def name_to(name: str) -> bytes:
    """Encodes a name from `name_from`: returns the bytes that it was given."""
    return name.encode("utf-8", "surrogateescape")


def text_of(data: bytes) -> str:
    """Decodes a text that another program may have written. Bytes that are not UTF-8 are escaped, so such a
    text may be shown, and is the name of nothing.
    """
    return data.decode("utf-8", "backslashreplace")


def token() -> str:
    """Returns a random name that is never used again, also not after a fork."""
    return os.urandom(8).hex()


def leveled(queue: str, level: int | str) -> str:
    """Returns the name of a level of a queue, as records and streams have it. Level 0 has no sign."""
    return f"{queue}{LEVEL}{level}" if level else queue


def queue_of(name: str) -> str:
    """Returns the queue that a level, an executor queue, a returned queue or a last-attempt queue belongs to.

    >>> queue_of("mail^5"), queue_of("mail!"), queue_of("mail^5r"), queue_of("mail")
    ('mail', 'mail', 'mail', 'mail')
    """
    return name.removesuffix(LAST_ATTEMPT).partition(LEVEL)[0]


def level_of(name: str) -> str:
    """Returns the level that a stream of a queue belongs to, by the names that records have for both.

    >>> level_of("mail^5r"), level_of("mail^t"), level_of("mail^-5"), level_of("mail")
    ('mail^5', 'mail', 'mail^-5', 'mail')
    """
    queue, _, level = name.partition(LEVEL)
    return leveled(queue, level.rstrip(RETURNED + "".join(EXECUTORS.values())))


@dataclass(frozen=True, slots=True)
class Keys:
    """Key names of one shard of a namespace."""

    namespace: str
    shard: int = 0
    tag: str = field(init=False)
    key_prefix: str = field(init=False)
    dependents: str = field(init=False)
    kept: str = field(init=False)
    needs: str = field(init=False)
    undelivered: str = field(init=False)
    calls: str = field(init=False)
    records: str = field(init=False)
    queues: str = field(init=False)
    beats: str = field(init=False)
    beat_observations: str = field(init=False)
    observations: str = field(init=False)
    observation_ages: str = field(init=False)
    signals: str = field(init=False)
    announcements: str = field(init=False)
    started: str = field(init=False)
    watchers: str = field(init=False)
    reporters: str = field(init=False)
    dead: str = field(init=False)
    history: str = field(init=False)
    delayed: str = field(init=False)
    clock_offset: str = field(init=False)
    messages: str = field(init=False)
    wake: str = field(init=False)
    replies: str = field(init=False)
    groups: str = field(init=False)
    latest: str = field(init=False)
    items: str = field(init=False)
    reader_positions: str = field(init=False)
    events: str = field(init=False)
    blocks: str = field(init=False)
    outbox: str = field(init=False)
    inbox: str = field(init=False)
    count: str = field(init=False)
    replica_mark: str = field(init=False)
    permits_held: str = field(init=False)
    permits_waiting: str = field(init=False)
    rates: str = field(init=False)
    levels: str = field(init=False)
    new_levels: str = field(init=False)
    known_queues: str = field(init=False)
    paused: str = field(init=False)
    schedules: str = field(init=False)
    schedules_due: str = field(init=False)
    schedules_declared: str = field(init=False)
    schedules_clock: str = field(init=False)
    schedules_wake: str = field(init=False)

    def __post_init__(self) -> None:
        tag = f"{{{self.namespace}:{self.shard}}}"
        for name, value in (
            ("tag", tag),
            ("key_prefix", f"{tag}:"),  # the beginning of every key, for scripts that derive names
            ("dependents", f"{tag}:dep:"),  # + id: hash, a job that waits for it -> index of the value there
            ("records", f"{tag}:r:"),  # + id: the record, a string
            # + <id>:<request id>: hash, a value that several jobs need, and how many still do
            ("kept", f"{tag}:h:"),
            ("needs", f"{tag}:hn:"),  # + id: set, the names of the kept values that a job needs
            # + <id>:<request id>: stream, the dependents of an ended job that are not notified yet, where
            # there were too many for one step
            ("undelivered", f"{tag}:rest:"),
            ("calls", f"{tag}:u:"),  # + <id>:<request id>: an earlier call whose job had this id
            ("queues", f"{tag}:q:"),  # + queue: the stream
            ("levels", f"{tag}:lv:"),  # + queue: set of the levels of priority, other than 0, that it has
            # channel: a queue has a new level; `^` alone: other queues than before are paused
            ("new_levels", f"{tag}:levels"),
            ("known_queues", f"{tag}:qs"),  # of shard 0 only: set, the queues that there are
            ("paused", f"{tag}:pq:"),  # of shard 0 only, + queue: since when it is paused, in ms; a string
            ("beats", f"{tag}:w"),  # hash: session id -> count of its heartbeat
            # sorted set: session id -> number of the latest observation of any worker before its last
            # heartbeat; for a session that was taken for dead the number of the latest one then, negative
            ("beat_observations", f"{tag}:wb"),
            ("observations", f"{tag}:wl"),  # number of the latest observation that any worker made; a string
            # numbers of observations, and how long ago each was at least; a string
            ("observation_ages", f"{tag}:wa"),
            # + session id: hash, id of a job that it holds -> its revocation signal; and a channel of that
            # name
            ("signals", f"{tag}:x:"),
            # + session id: hash, which tasks it knows and which queues it serves
            ("announcements", f"{tag}:a:"),
            # + session id: hash, "<entry> <id>" of jobs with which a worker has died and that start again
            ("started", f"{tag}:bg:"),
            ("watchers", f"{tag}:ww:"),  # + queue: the note of the worker session that watches its stream
            # + queue: which worker reports its metrics; + `~parents`: which one looks for lost jobs
            ("reporters", f"{tag}:mr:"),
            ("delayed", f"{tag}:d"),  # sorted set: id -> when it is due, in ms
            ("messages", f"{tag}:m:"),  # + id: hash of a delayed job: message, crashes, retries, last error
            ("clock_offset", f"{tag}:t"),  # by how many ms the server's clock was set back so far; a string
            ("wake", f"{tag}:wake"),  # channel: the earliest due time has changed
            ("dead", f"{tag}:dlq"),  # stream: dead letters
            ("history", f"{tag}:hi:"),  # + letter of a final state: stream, the newest jobs that ended so
            ("replies", f"{tag}:c:"),  # + client: its reply channel
            ("blocks", f"{tag}:b:"),  # + id: set, waits of a running job: "<entry> <id> <wait token>" each
            ("groups", f"{tag}:g:"),  # + id: what `GroupResult.save` stored, a string
            ("latest", f"{tag}:e:"),  # + id: the latest progress report of a running job, a string
            ("items", f"{tag}:s:"),  # + id: the items of a generator, a stream with entries <number>-0
            ("reader_positions", f"{tag}:sp:"),  # + id: how far the readers of these items are, a string
            ("outbox", f"{tag}:out"),  # stream: entries for other shards
            ("inbox", f"{tag}:in"),  # hash: another shard -> the last entry of its outbox that was applied
            ("count", f"{tag}:n"),  # of shard 0 only: how many shards there are, if more than one; a string
            ("replica_mark", f"{tag}:rp"),  # what is written before each WAIT, for a minute; a string
            ("events", f"{tag}:ev:"),  # + id: the job channel
            ("permits_held", f"{tag}:lim:"),  # + task: hash, "<entry> <id>" of a running job -> session id
            ("permits_waiting", f"{tag}:limw:"),  # + task: sorted set of ids that wait for a permit
            ("rates", f"{tag}:limr:"),  # + task: when its next job may start, a string
            ("schedules", f"{tag}:sch:"),  # + name: hash, a schedule
            # sorted set: name of every schedule -> when a worker is to look at it next, in ms
            ("schedules_due", f"{tag}:scd"),
            # sorted set: name of a schedule that is not kept for ever -> until when it is kept, in ms
            ("schedules_declared", f"{tag}:scx"),
            ("schedules_clock", f"{tag}:sct"),  # the latest time at which a schedule was changed, a string
            ("schedules_wake", f"{tag}:scw"),  # channel: a schedule is due soon
        ):
            object.__setattr__(self, name, value)

    def stream(self, queue: str) -> str:
        """Returns the stream of a queue, a level or a last-attempt queue."""
        return self.queues + queue
