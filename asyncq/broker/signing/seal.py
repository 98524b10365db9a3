r"""Seals what asyncq keeps at the server, and opens it again: everything that holds data of users, or that
decides which code runs with which arguments. `Commands` has the seal of a session; None without secrets.

The modules of `broker` seal a text just before it goes into a command, and open it when it comes with a
reply. All other packages see plain bytes only. So the body of a job in a child process, a call with the
inline harness, and everything else that never passes the server need no secret.

What is sealed is either signed, and ends with the signature, or encrypted, which proves its origin, too:

    <data> \xc1 s <signature>            \xc1 e <24 random bytes> <encrypted data and tag>

msgpack has no text that begins with `\xc1`, and UTF-8 has none either, so sealed data is never taken for
plain. A message is always signed. With encryption it is another message inside, of which only the task's name
and the enqueue time stay readable, for the scripts that list jobs:

    <message> <digest of its parents' ids>? <from when it counts, ms> \xc1 <flags> <signature>

Signed, but not sent, is also where the text belongs (its **head**): the namespace, the purpose, and the id
with what else tells one place from another. A text that somebody has copied to another place does not fit
there.

What scripts write without knowing it stays unsigned: the letter and flags of a record, counts of crashes and
retries, the empty outcome of a job that a script has ended. `docs/howto/security.md` says what follows.
Pure functions, on any thread.
"""

from __future__ import annotations

import logging
import re
from base64 import b64decode, b64encode
from hashlib import blake2b
from typing import TYPE_CHECKING, Any, Final, Literal

import msgpack

from asyncq import failures, wire
from asyncq.broker.schema import damaged_data
from asyncq.broker.signing.keyring import MAC_BYTES, RANDOM_BYTES, TAG_BYTES, Keyring, check
from asyncq.config import shown
from asyncq.errors import BrokerNotConfigured, DecodeError
from asyncq.system import clock
from asyncq.wire import ENCRYPTED, SIGNED, NotSigned

if TYPE_CHECKING:
    from collections.abc import Sequence

    from asyncq.config import Settings

log: logging.Logger = logging.getLogger(__name__)

Purpose = Literal["report", "item", "failure", "reason", "schedule", "group", "history", "order", "answer"]
"""What is sealed beside messages and outcomes. What was sealed for one purpose is refused for every other."""
JOB, TICK, HIDDEN = b"job", b"tick", b"hidden"
OUTCOME, SHARED = b"outcome", b"shared"
"""The purposes of messages and of outcomes."""

_WITH_PARENTS, _IS_HIDDEN, _IS_TICK = 1, 2, 4
"""The flags of a message: a digest of its parents' ids follows it; the message inside is encrypted; a
schedule has made the job."""
_FLAGS = 0x40
"""A byte of flags has this bit, so that it is a letter."""
_TIME, _DIGEST = 6, 16
_SHORTEST = _TIME + 2 + MAC_BYTES
LONGER_BY: Final = 2 + RANDOM_BYTES + TAG_BYTES
"""The most bytes by which sealing makes a text longer, other than a message."""
_NUMBERED = re.compile(r"(.+)\.\d+", re.DOTALL)
"""The id of a tick's job, where another job has had the id: a script has put a number behind it."""
_SECRETS = "with one of the secrets of this process (setting `secrets`)"


class Seal:
    """Seals and opens the texts of one namespace, with the secrets of an app.

    Args:
        settings: of the app; they have secrets.

    Attributes:
        names: a name for each secret, see `Keyring`.

    Raises:
        BrokerNotConfigured: the setting `encrypt` is on, and `cryptography` is not installed.
    """

    def __init__(self, settings: Settings) -> None:
        self._encrypts = settings.encrypt
        self._max_age = round(settings.max_age * 1000)
        self._keyring = Keyring(settings.secrets, settings.namespace, encrypts=settings.encrypt)
        self.names: list[str] = self._keyring.names
        self._signers: dict[bytes, list[Any]] = {}
        self._of_jobs, self._of_outcomes = self._signers_of(JOB), self._signers_of(OUTCOME)

    def __repr__(self) -> str:
        return f"<Seal {' '.join(self.names)}>"

    # -- messages of jobs --

    def message(self, job: wire.Job, message: bytes) -> bytes:
        """Seals the message of a job that is enqueued.

        Args:
            job: with its id and its parents.
            message: of the job, encoded.
        """
        return self._message(self._of_jobs, 0, job, message)

    def tick(self, job: wire.Job, message: bytes) -> bytes:
        """Seals the message of a job that a schedule makes. The script may put a number behind its id."""
        return self._message(self._signers_of(TICK), _IS_TICK, job, message)

    def _message(self, signers: list[Any], flags: int, job: wire.Job, message: bytes) -> bytes:
        head = _head(job.id, job.queue)
        if self._encrypts:
            flags |= _IS_HIDDEN
            hidden = self._keyring.encrypt(HIDDEN, head, message)
            message = wire.encode_plain(
                wire.Job(job.id, job.name, job.queue, hidden, "", "", job.enqueued, 1)
            )
        if job.value_template is not None and job.parents:
            flags |= _WITH_PARENTS
            message += _digest(job.parents[-1:] if job.value_template == "e" else job.parents)
        since = max(0, min(job.enqueued + (job.wait or 0), wire.LATEST)).to_bytes(_TIME, "big")
        data = b"%b%b\xc1%c" % (message, since, _FLAGS | flags)
        mac = signers[0].copy()
        mac.update(head)
        mac.update(data)
        return data + mac.digest()  # type: ignore[no-any-return]

    def open_message(
        self, id: str, queue: str, message: bytes, values: bytes | None = None, *, any_age: bool = False
    ) -> bytes:
        """Returns the message of a job as it was before it was sealed.

        Args:
            id: of the job, as its entry has it.
            queue: the queue of the job, without a level.
            message: sealed.
            values: what its entry has of its parents' outcomes; None: they are not looked at.
            any_age: whether it may be older than `max_age`, because an operator has asked for it.

        Raises:
            NotSigned: nobody with the secrets has signed it for this id and this queue, it is too old, or
                the values are not of the jobs for which it waited.
        """
        data, mac = message[:-MAC_BYTES], message[-MAC_BYTES:]
        if len(message) < _SHORTEST or data[-2] != _MARK or data[-1] & ~7 != _FLAGS:
            raise NotSigned(f"job {id!r}: the message is not signed {_SECRETS}")
        flags = data[-1]
        head = _head(id, queue)
        if flags & _IS_TICK:
            is_signed = self._is_tick(id, queue, data, mac)
        else:
            is_signed = check(self._of_jobs, mac, head, data)
        if not is_signed:
            raise NotSigned(f"job {id!r}: the message is not signed {_SECRETS} for this id and queue")
        end = len(data) - 2 - _TIME
        if self._max_age and not any_age:
            self._check_age(id, int.from_bytes(data[end:-2], "big"))
        if flags & _WITH_PARENTS:
            end -= _DIGEST
            if values is not None:
                _check_parents(id, data[end : end + _DIGEST], values)
        plain = data[:end]
        return self._unhidden(id, queue, plain) if flags & _IS_HIDDEN else plain

    def _is_tick(self, id_: str, queue: str, data: bytes, mac: bytes) -> bool:
        signers, numbered = self._signers_of(TICK), _NUMBERED.fullmatch(id_)
        return check(signers, mac, _head(id_, queue), data) or (
            numbered is not None and check(signers, mac, _head(numbered[1], queue), data)
        )

    def _check_age(self, id_: str, since: int) -> None:
        if clock.now() * 1000 - since > self._max_age:
            raise NotSigned(
                f"job {id_!r}: the message is older than max_age={shown(self._max_age / 1000)}", "too old"
            )

    def _unhidden(self, id_: str, queue: str, message: bytes) -> bytes:
        try:
            hidden = msgpack.unpackb(message)[2]
            heads = [_head(id_, queue)]
            if (numbered := _NUMBERED.fullmatch(id_)) is not None:  # see `_is_tick`
                heads.append(_head(numbered[1], queue))
            found = (self._keyring.decrypt(HIDDEN, head, hidden) for head in heads)
            plain = next((one for one in found if one is not None), None)
        except BrokerNotConfigured as error:
            raise NotSigned(f"job {id_!r}: {error}", "cannot be decrypted") from error
        if plain is None:
            raise NotSigned(f"job {id_!r}: the message cannot be decrypted {_SECRETS}")
        return plain

    # -- outcomes --

    def outcome(self, id: str, letter: str, outcome: bytes) -> bytes:
        """Seals the outcome of a job, with its short form if it has one.

        Args:
            id: of the job.
            letter: its status code.
            outcome: encoded; an empty one says no more than the letter, and stays empty.
        """
        head = _head(id, letter)
        if outcome[:1] != b"~":
            return self._close(OUTCOME, self._of_outcomes, head, outcome) if outcome else outcome
        short, whole = (
            self._close(OUTCOME, self._of_outcomes, head, part) for part in wire.split_short_form(outcome)
        )
        return b"~%d %b%b" % (len(short), short, whole)

    def shared_outcome(self, letter: str, outcome: bytes) -> bytes:
        """Seals an outcome that a script gives to any of several jobs. It is no success."""
        assert letter != wire.SUCCEEDED, "a value belongs to one job"
        head = _head("", letter)
        parts = wire.split_short_form(outcome) if outcome[:1] == b"~" else (outcome,)
        first, *rest = (self._close(SHARED, self._signers_of(SHARED), head, part) for part in parts)
        return b"~%d %b%b" % (len(first), first, rest[0]) if rest else first

    def open_outcome(self, id: str, letter: str, outcome: bytes) -> bytes:
        """Returns the outcome of a job as it was before it was sealed. An empty outcome of a job that did not
        succeed is returned as it is: a script has ended the job, and has said no more than the letter.

        Raises:
            NotSigned: nobody with the secrets has signed it for this job.
        """
        if outcome[:1] == b"^":  # the job never ran, and this is how the other job ended
            member, space, theirs = outcome.partition(b" ")
            if letter != wire.SUCCEEDED and space:
                return member + space + self._open_own(member[1:].decode("utf-8", "replace"), letter, theirs)
        return self._open_own(id, letter, outcome)

    def _open_own(self, id_: str, letter: str, outcome: bytes) -> bytes:
        if not outcome and letter != wire.SUCCEEDED:
            return outcome
        if outcome[:1] == b"~":
            outcome = wire.split_short_form(outcome)[1]
        plain = self._opened(OUTCOME, self._of_outcomes, _head(id_, letter), outcome)
        if plain is None and letter != wire.SUCCEEDED:
            plain = self._opened(SHARED, self._signers_of(SHARED), _head("", letter), outcome)
        if plain is None:
            raise NotSigned(f"the outcome of job {id_!r} is not signed {_SECRETS}")
        return plain

    def record(self, id: str, record: bytes) -> bytes:
        """Opens the outcome in the record of an ended job. If that is not signed, the record is that of a job
        which failed with a `DecodeError`. Any other record is returned as it is.
        """
        head = record.split(b" ", 4)
        letter = record[:1].decode("latin-1")
        if letter not in wire.FINAL or len(head) < 4:
            return record
        outcome = head.pop() if len(head) == 5 else b""
        try:
            outcome = self.open_outcome(id, letter, outcome)
        except DecodeError as error:
            head[0] = wire.FAILED.encode() + head[0][1:]
            outcome = refusal(error)
        return b" ".join((*head, outcome))

    def checked_values(self, job: wire.Job, values: bytes) -> bytes:
        """Returns what a job gets from its parents, if it is what the job waited for: values, or a failure. A
        job that waits for no values gets none. `KeptValues.filled` opens the outcomes.

        Args:
            job: the job, whose message was opened: that has checked of which jobs the values are.
            values: one outcome of each parent, framed as in a notification.

        Raises:
            NotSigned: one of them is of a job that has ended otherwise.
            DecodeError: the framing is broken.
        """
        if job.value_template is None:
            return b""
        wants_failure = job.value_template == "e"
        for id_, letter, _ in wire.split_notification(b"" if values == wire.TOO_LARGE else values):
            if (letter == wire.SUCCEEDED) is wants_failure:
                raise NotSigned(f"job {job.id!r} is given an end of job {id_!r} for which it did not wait")
        return values

    def open_values(self, values: bytes) -> bytes:
        """Opens the outcomes that a job gets from its parents.

        Args:
            values: one outcome of each parent, framed as in a notification, with those that are kept once
                for several jobs in their places.

        Raises:
            NotSigned: one of them is not signed.
            DecodeError: the framing is broken.
        """
        opened: list[bytes] = []
        for id_, letter, outcome in wire.split_notification(values):
            if outcome is None:  # a kept value that is gone; the job fails and says so
                opened.append(b"%b %b -\n" % (id_.encode(), letter.encode()))
            else:
                opened.append(wire.frame(id_, letter, self.open_outcome(id_, letter, outcome)))
        return b"".join(opened)

    # -- everything else --

    def close(self, purpose: Purpose, place: str, data: bytes) -> bytes:
        """Seals other data.

        Args:
            purpose: what they are.
            place: what tells where it belongs, such as the id of the job and the number of the item.
            data: the bytes.
        """
        key = purpose.encode()
        return self._close(key, self._signers_of(key), _head(place, ""), data)

    def open(self, purpose: Purpose, place: str, data: bytes) -> bytes:
        """Returns data as they were before they were sealed for this purpose and place.

        Raises:
            NotSigned: nobody with the secrets has done that.
        """
        key = purpose.encode()
        plain = self._opened(key, self._signers_of(key), _head(place, ""), data)
        if plain is None:
            raise NotSigned(f"the {purpose} of {place!r} is not signed {_SECRETS}")
        return plain

    def item(self, id: str, number: int, item: bytes) -> bytes:
        """Seals an item of a generator."""
        return self.close("item", f"{id} {number}", item)

    def open_item(self, id: str, number: int, item: bytes) -> bytes:
        """Returns an item of a generator as it was before it was sealed. Raises as `open`."""
        return self.open("item", f"{id} {number}", item)

    def meta(self, id: str, entry: str, number: int, at: int, state: str, meta: bytes) -> bytes:
        """Seals what a report of a running job says, together with its state."""
        return self.close("report", f"{id} {entry} {number} {at} {state}", meta)

    def open_report(self, id: str, report: bytes) -> bytes:
        """Returns a report as it was before what it says was sealed. Raises as `open`."""
        head, space, meta = _cut(report, 4)
        place = f"{id} {head.decode('utf-8', 'replace')}"
        return head + space + self.open("report", place, meta)

    def opened_failure(self, id: str, failure: bytes) -> bytes:
        """Returns the error of an attempt as it was before it was sealed; empty if it is not signed, for the
        job goes on all the same.
        """
        if not failure:
            return failure
        try:
            return self.open("failure", id, failure)
        except DecodeError as error:
            damaged_data.warn(log, "failure", "the error of a failed attempt could not be read", error)
            return b""

    def reason(self, id: str, reason: bytes) -> bytes:
        """Seals why a job is revoked. The result is a text without spaces, as it goes into a signal."""
        return b64encode(self.close("reason", id, reason))

    def opened_reason(self, id: str, reason: str) -> str:
        """Returns a reason as it was before it was sealed; empty if it is not signed, for the job is revoked
        all the same.
        """
        try:
            return self.open("reason", id, b64decode(reason, validate=True)).decode("utf-8", "replace")
        except ValueError as error:  # also a DecodeError
            damaged_data.warn(log, "reason", f"why job {id!r} is revoked could not be read", error)
            return ""

    def open_event(self, id: str, event: bytes) -> bytes:
        """Returns an event of a job's own channel as it was before its data were sealed.

        Raises:
            DecodeError: they are not signed, or it is no event.
        """
        kind = event[:1]
        if kind == b"p":
            return kind + self.open_report(id, event[1:])
        if kind == b"r":
            head, space, failure = _cut(event, 2)
            return head + space + self.open("failure", id, failure)
        if kind == b"i":
            first, items = wire.split_items(event)
            plain = [self.open_item(id, number, item) for number, item in enumerate(items, first)]
            return b"i%d %b\n%b" % (first, b" ".join(b"%d" % len(one) for one in plain), b"".join(plain))
        return event

    def _signers_of(self, purpose: bytes) -> list[Any]:
        signers = self._signers.get(purpose)
        if signers is None:
            signers = self._signers[purpose] = self._keyring.signers(purpose)
        return signers

    def _close(self, purpose: bytes, signers: list[Any], head: bytes, data: bytes) -> bytes:
        if self._encrypts:
            return ENCRYPTED + self._keyring.encrypt(purpose, head, data)
        mac = signers[0].copy()
        mac.update(head)
        mac.update(data)
        return b"%b%b%b" % (data, SIGNED, mac.digest())

    def _opened(self, purpose: bytes, signers: list[Any], head: bytes, data: bytes) -> bytes | None:
        """Returns sealed data as they were; None if they are not ours."""
        if data[:2] == ENCRYPTED:
            try:
                return self._keyring.decrypt(purpose, head, data[2:])
            except BrokerNotConfigured as error:
                raise NotSigned(str(error), "cannot be decrypted") from error
        end = len(data) - 2 - MAC_BYTES
        if end < 0 or data[end:-MAC_BYTES] != SIGNED:
            return None
        plain = data[:end]
        return plain if check(signers, data[-MAC_BYTES:], head, plain) else None


_MARK = ENCRYPTED[0]


def _head(place: str, more: str) -> bytes:
    """Returns what is signed in front of data. The length keeps one place from being taken for another."""
    text = place.encode("utf-8", "surrogateescape")
    return b"%d %b %b\n" % (len(text), text, more.encode())


def _cut(text: bytes, words: int) -> tuple[bytes, bytes, bytes]:
    """Returns the first words of a text, the space behind them, and the rest."""
    parts = text.split(b" ", words)
    if len(parts) <= words:
        raise DecodeError(f"{text[:50]!r} has less than {words + 1} words")
    return b" ".join(parts[:words]), b" ", parts[words]


def _digest(parents: Sequence[str]) -> bytes:
    return blake2b("\n".join(parents).encode(), digest_size=_DIGEST).digest()


def _check_parents(id_: str, digest: bytes, values: bytes) -> None:
    """Checks that these values are of the jobs for which a job waited, in their order."""
    if values == wire.TOO_LARGE:  # the job fails and says so
        return
    parents = [parent for parent, _, _ in wire.split_notification(values)]
    if _digest(parents) != digest:
        raise NotSigned(f"job {id_!r} is given values of jobs for which it did not wait")


def refusal(error: Exception) -> bytes:
    """Returns the outcome that a reader puts in the place of one that it refuses: a `DecodeError`."""
    return wire.encode_ended(wire.Ended(wire.FAILED, failures.encode(DecodeError(str(error)))))
