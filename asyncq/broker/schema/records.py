"""What stands in Redis about one job: its record, taken apart and in words. Scripts read and write it, see
`lua/_record.lua`; Python reads it. `docs/protocol.md` has the table of its letters, which is made from here.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import Self

from asyncq import wire
from asyncq.broker.schema import damaged_data
from asyncq.errors import DecodeError

log: logging.Logger = logging.getLogger(__name__)

STATES: dict[str, str] = {
    "L": "live; whether it runs is read off the pending list, and written nowhere",
    "D": "waits for its time",
    "R": "failed, waits for its next try",
    "P": "put aside before it began: its task has a limit, or its worker does not know the task",
    "W": "waits for other jobs of its workflow",
    "S": "returned a value",
    "F": "raised, or could not be run",
    "X": "took its worker down `max_crashes` times",
    "C": "revoked",
    "E": "its expiry or deadline had passed before it started",
    "T": "tombstone: ended, and nobody wants or may have the result",
}
"""By the first letter of a record."""

SIGNALS: dict[str, str] = {
    "-": "",
    "c": "revoked: it is not to run again",
    "i": "revoked: it is to end now (SIGINT for a process)",
    "t": "revoked: it is to end now (SIGTERM for a process)",
    "k": "revoked: it is to end now (SIGKILL for a process)",
}
"""By the second letter."""

WISHES: dict[str, str] = {"-": "", "i": "its result is ignored", "f": "its result is to be forgotten"}
"""By the third letter."""

LINKS: dict[str, str] = {
    "-": "",
    "d": "other jobs wait for its end",
    "h": "it needs values that are kept once for several jobs",
    "b": "other jobs wait for its end, and it needs values that are kept once for several jobs",
}
"""By the fourth letter."""


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
        """Whether nobody is to have its result, from the start."""
        return self[2:3] == "i"

    @property
    def is_forgotten(self) -> bool:
        """Whether somebody has forgotten its result while it was live."""
        return self[2:3] == "f"

    @property
    def has_dependents(self) -> bool:
        """Whether other jobs wait for its end."""
        return self[3:4] in {"d", "b"}

    def words(self) -> list[str]:
        """What each of the letters means, but for those that say nothing."""
        tables = (STATES, SIGNALS, WISHES, LINKS)
        meanings = [
            table.get(letter, f"unknown letter {letter!r}")
            for letter, table in zip(self, tables, strict=False)
        ]
        return [meaning for meaning in meanings if meaning]


@dataclass(frozen=True, slots=True)
class RequestId:
    """What tells a call that is sent again from another call with the same job id.

    Attributes:
        random: new for each call.
        signature: of a call with a key, a hash of the task and the arguments; else empty.
        hides_start: nobody is to see the job run (`track_started=False`).
        expires: when the job expires, in ms since the epoch; None if it does not.
        has_started: the job would have expired, and has started in time.

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
        """Takes it apart.

        Raises:
            DecodeError: it is none.
        """
        call, tilde, expiry = text.partition("~")
        signature, _, random = call.rpartition(".")
        expires = None if expiry in {"", "-"} else wire.number_in(expiry.encode(), wire.LATEST)
        if tilde and expires is None and expiry != "-":
            raise DecodeError(f"a request id says no time that can be: {text[:100]!r}")
        return cls(random.removesuffix("_"), signature, random.endswith("_"), expires, expiry == "-")

    def format(self) -> str:
        """Returns it as it stands in a record."""
        signature = f"{self.signature}." if self.signature else ""
        expiry = "~-" if self.has_started else f"~{self.expires}" if self.expires is not None else ""
        return f"{signature}{self.random}{'_' if self.hides_start else ''}{expiry}"


@dataclass(frozen=True, slots=True)
class Record:
    """The record of one job.

    Attributes:
        flags: its state, and three flags.
        entry: its entry in the stream, `0` for a job that has none.
        queue: of a live job, with its level or last-attempt queue, as the stream is called; else empty.
        consumer: who ended an ended job, `-` for a client; else empty.
        request_id: tells its call from others, see `RequestId`.
        channels: on which the outcome of a live job will be published.
        outcome: of an ended job, encoded; empty for a tombstone, and where a script ended the job by itself.

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
        """Takes a record apart.

        Raises:
            DecodeError: it is none of asyncq.
        """
        parts = data.split(b" ", 4)
        if len(parts) < 4 or len(parts[0]) != 4 or not b"".join(parts[:4]).isascii():
            raise DecodeError("a record is not one of asyncq")
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
            DecodeError: it has not, or its outcome cannot be read.
        """
        if self.flags[0] not in wire.FINAL:
            raise DecodeError(f"a record with the letter {self.flags[0]!r} has no outcome")
        return wire.decode_ended(self.flags[0], self.outcome)

    def format(self) -> bytes:
        """Returns it as it stands in Redis."""
        tail = [*map(str.encode, self.channels)] if self.flags.is_live else [self.outcome]
        if self.flags[0] == wire.TOMBSTONE:
            tail = []
        head = (self.flags, self.entry, self.queue or self.consumer, self.request_id)
        return b" ".join([*(part.encode() for part in head), *tail])


JobStatus = wire.Ended | str | None
"""The outcome of a job that has ended; of one that has not its flags, and after a space when it expires,
in ms since the epoch, if it does; None for an unknown one."""


def status_of(answer: bytes | None) -> JobStatus:
    """What a script answered about one job. One whose record cannot be read is unknown: the answers about all
    others came with this one.
    """
    if answer is None:
        return None
    try:
        if Flags(answer[:4].decode()).is_live and (len(answer) == 4 or answer[4:5] == b" "):
            return _flags(answer)
        return Record.parse(answer).ended()
    except (DecodeError, UnicodeDecodeError) as error:
        damaged_data.warn(log, "record", "a record could not be read, so that its job is unknown", error)
        return None


def _flags(answer: bytes) -> str:
    """The flags of a live job, and when it expires. A time that Python has no date for never comes."""
    expires = answer[5:]
    if expires and wire.number_in(expires, wire.LATEST) is None:
        answer = answer[:4]
    return answer.decode()
