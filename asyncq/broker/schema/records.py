"""Parses the record of a job, and says in words what its letters mean: the status of a job is decided here
and nowhere else in Python. Pure functions, on any thread.

The record is the truth about a job. Scripts read and write it, see `lua/_record.lua`; Python only reads it.
A new flag goes here, into `_record.lua`, and into the table of letters in `docs/protocol.md`, which a test
compares with this module. A new state begins in `states.py`, and has its letter here and in `wire.STATE_OF`.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import TYPE_CHECKING, Self

from asyncq import failures, wire
from asyncq.broker.schema import damaged_data
from asyncq.errors import DecodeError

if TYPE_CHECKING:
    from asyncq.broker.signing.seal import Seal

log: logging.Logger = logging.getLogger(__name__)

NO_FLAG = "-"
IGNORED, FORGOTTEN = "i", "f"
DEPENDENTS, VALUES, BOTH_LINKS = "d", "h", "b"
EXPIRES, STARTED_IN_TIME = "~", "-"
"""In the request id of a job that expires, this is in front of the time; and this is in the place of the time
when the job has started in time."""

STATES: dict[str, str] = {
    wire.LIVE: "live: it is in its queue, or runs; only the list of pending entries shows which",
    wire.SCHEDULED: "waits for its time",
    wire.RETRYING: "failed, and waits for its next try",
    wire.DEFERRED: "deferred before its start: its task has a limit, or its worker does not know the task",
    wire.WAITING: "waits for other jobs of its workflow",
    wire.SUCCEEDED: "returned a value",
    wire.FAILED: "raised, or could not be run",
    wire.LOST: "killed its worker `max_crashes` times",
    wire.REVOKED: "revoked",
    wire.EXPIRED: "its expiry or deadline passed before it started",
    wire.TOMBSTONE: "tombstone: ended, and its result is not kept",
}
"""What the first letter of a record means: the state of the job."""

SIGNALS: dict[str, str] = {
    NO_FLAG: "",
    wire.NOT_AGAIN: "revoked: it must not run again",
    **{letter: f"revoked: it must end now ({name} for a process)" for name, letter in wire.SIGNAL_OF.items()},
}
"""What the second letter means: the revocation signal."""

WISHES: dict[str, str] = {
    NO_FLAG: "",
    IGNORED: "its result is ignored",
    FORGOTTEN: "its result will be forgotten",
}
"""What the third letter means: what becomes of the result."""

LINKS: dict[str, str] = {
    NO_FLAG: "",
    DEPENDENTS: "other jobs wait for its end",
    VALUES: "it needs values that are kept once for several jobs",
    BOTH_LINKS: "other jobs wait for its end, and it needs values that are kept once for several jobs",
}
"""What the fourth letter means: how the job depends on other jobs."""


class Flags(str):
    """The four letters that a record begins with.

    >>> Flags("Lc-d").has_dependents, Flags("Lc-d").is_live
    (True, True)
    """

    __slots__ = ()

    @property
    def is_live(self) -> bool:
        """Whether the job has neither ended nor been forgotten."""
        return self[:1] in wire.NOT_ENDED

    @property
    def is_ignored(self) -> bool:
        """Whether its call asked for no result (`ignore_result`)."""
        return self[2:3] == IGNORED

    @property
    def is_forgotten(self) -> bool:
        """Whether somebody has forgotten its result while the job was live."""
        return self[2:3] == FORGOTTEN

    @property
    def has_dependents(self) -> bool:
        """Whether other jobs wait for its end."""
        return self[3:4] in {DEPENDENTS, BOTH_LINKS}

    def words(self) -> list[str]:
        """Returns what each letter means. A letter for "nothing" has no words."""
        tables = (STATES, SIGNALS, WISHES, LINKS)
        meanings = [
            table.get(letter, f"unknown letter {letter!r}")
            for letter, table in zip(self, tables, strict=False)
        ]
        return [meaning for meaning in meanings if meaning]


@dataclass(frozen=True, slots=True)
class RequestId:
    """The request id in a record. It tells a call that is sent again from another call with the same job id.

    Attributes:
        random: new for each call.
        signature: of a call with a key, a hash of the task and the arguments; else empty.
        hides_start: the status must not show that the job runs (`track_started=False`).
        expires: when the job expires, in ms since 1970; None if it does not.
        has_started: the job had an expiry, and has started in time.

    >>> RequestId.parse("997f8317~1795392354261")
    RequestId(random='997f8317', signature='', hides_start=False, expires=1795392354261, has_started=False)
    >>> RequestId.parse("5a1b.997f_~-").format()
    '5a1b.997f_~-'
    """

    random: str
    signature: str = ""
    hides_start: bool = False
    expires: int | None = None
    has_started: bool = False

    @classmethod
    def parse(cls, text: str) -> Self:
        """Parses a request id.

        Raises:
            DecodeError: the text is no request id.
        """
        call, tilde, expiry = text.partition(EXPIRES)
        signature, _, random = call.rpartition(".")
        expires = None if expiry in {"", STARTED_IN_TIME} else wire.number_in(expiry.encode(), wire.LATEST)
        if tilde and expires is None and expiry != STARTED_IN_TIME:
            raise DecodeError(f"the expiry in a request id is not a valid time: {text[:100]!r}")
        hides_start = random.endswith(wire.UNTRACKED)
        random = random.removesuffix(wire.UNTRACKED)
        return cls(random, signature, hides_start, expires, expiry == STARTED_IN_TIME)

    def format(self) -> str:
        """Returns the request id as it is written in a record."""
        signature = f"{self.signature}." if self.signature else ""
        time = STARTED_IN_TIME if self.has_started else self.expires
        expiry = "" if time is None else f"{EXPIRES}{time}"
        return f"{signature}{self.random}{wire.UNTRACKED if self.hides_start else ''}{expiry}"


@dataclass(frozen=True, slots=True)
class Record:
    """The record of one job.

    Attributes:
        flags: the state of the job, and three flags.
        entry: the job's entry in the stream; `0` if it has none.
        queue: of a live job, the name of its stream, with level or last-attempt sign; else empty.
        consumer: of an ended job, the session id that ended it, or `-` for a client; else empty.
        request_id: see `RequestId`.
        channels: of a live job, the reply channels on which its outcome will be published.
        outcome: of an ended job, encoded; empty for a tombstone, and if a script ended the job by itself.

    >>> Record.parse(b"L--d 1795-0 default 997f {asyncq:0}:c:69").channels
    ('{asyncq:0}:c:69',)
    """

    flags: Flags
    entry: str
    queue: str
    consumer: str
    request_id: str
    channels: tuple[str, ...] = ()
    outcome: bytes = b""

    @classmethod
    def parse(cls, data: bytes) -> Self:
        """Parses a record.

        Raises:
            DecodeError: the bytes are no record of asyncq.
        """
        parts = data.split(b" ", 4)
        if len(parts) < 4 or len(parts[0]) != 4 or not b"".join(parts[:4]).isascii():
            raise DecodeError("a record is not in the format of asyncq")
        flags = Flags(parts[0].decode())
        if flags[0] not in STATES:
            raise DecodeError(f"a record begins with the unknown letter {flags[0]!r}")
        entry, holder, request_id = (part.decode() for part in parts[1:4])
        tail = parts[4] if len(parts) == 5 else b""
        if flags.is_live:
            channels = tuple(part.decode("utf-8", "replace") for part in tail.split())
            return cls(flags, entry, holder, "", request_id, channels)
        return cls(flags, entry, "", holder, request_id, outcome=tail)

    def ended(self) -> wire.Ended:
        """Returns how the job ended.

        Raises:
            DecodeError: the job has not ended, or its outcome cannot be read.
        """
        if self.flags[0] not in wire.FINAL:
            raise DecodeError(f"a record with the letter {self.flags[0]!r} has no outcome")
        return wire.decode_ended(self.flags[0], self.outcome)

    def format(self) -> bytes:
        """Returns the record as it is written in Redis."""
        tail = [*map(str.encode, self.channels)] if self.flags.is_live else [self.outcome]
        if self.flags[0] == wire.TOMBSTONE:
            tail = []
        head = (self.flags, self.entry, self.queue or self.consumer, self.request_id)
        return b" ".join([*(part.encode() for part in head), *tail])


JobStatus = wire.Ended | str | None
"""The outcome of an ended job; the flags of a live job, and, after a space, when it expires (in ms since
1970) if it does; None for an unknown job."""


def status_of(answer: bytes | None, id: str, seal: Seal | None) -> JobStatus:
    """Decodes what a script answered about one job. Returns None for a record that cannot be read, and does
    not raise: the answers about other jobs came in the same reply. An outcome that must not be handed out is
    that of a job which failed with a `DecodeError`.

    Args:
        answer: of the script.
        id: of the job.
        seal: of the session.
    """
    if answer is None:
        return None
    try:
        if Flags(answer[:4].decode()).is_live and (len(answer) == 4 or answer[4:5] == b" "):
            return _flags(answer)
        return Record.parse(answer if seal is None else seal.record(id, answer)).ended()
    except wire.NotSigned as error:
        return wire.Ended(wire.FAILED, failures.encode(DecodeError(str(error))))
    except (DecodeError, UnicodeDecodeError) as error:
        damaged_data.warn(log, "record", "a record could not be read, so its job is unknown", error)
        return None


def _flags(answer: bytes) -> str:
    """Returns the flags of a live job, and when it expires. Drops a time that is too late for a Python date:
    it never comes.
    """
    expires = answer[5:]
    if expires and wire.number_in(expires, wire.LATEST) is None:
        answer = answer[:4]
    return answer.decode()
