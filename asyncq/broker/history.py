"""The history: the newest ended jobs of each final state, so that an operator can list them when their
results have expired.

Whoever ends a job notes it here, on the session's loop: a worker or a client. A script that ends jobs its
caller does not know of (those that waited for a job which failed, say, or those of a purge) names them in its
answer, see `Commands.without_ends`. Nothing waits for a note. Notes leave together, half a second after the
first of them, so a batch of outcomes costs at most one command more. All failures and revocations are noted,
and of the successes up to a hundred a second. The history is for people: a process that is killed loses its
last notes, and so does one whose connection breaks. It is deleted when nothing was noted for a week.
"""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import msgpack

from asyncq import failures, wire
from asyncq.broker.delayed_call import DelayedCall
from asyncq.broker.schema.keys import DAY_MS, queue_of, text_of
from asyncq.errors import DecodeError
from asyncq.states import State

if TYPE_CHECKING:
    from collections.abc import Sequence

    from asyncq.broker.commands import Commands
    from asyncq.broker.schema.keys import Keys
    from asyncq.broker.signing.seal import Seal

log: logging.Logger = logging.getLogger(__name__)

SUCCESSES_PER_SECOND = 100
"""How many jobs that have succeeded are noted within a second."""
DELAY = 0.5
"""Seconds for which notes are gathered."""
MOST_AT_ONCE = 250
"""With so many notes, the script has enough to do."""
LONGEST_ERROR = 200
"""Most characters of an error that are kept."""

_LETTERS: Final = {
    State.SUCCESS: wire.SUCCEEDED,
    State.FAILURE: wire.FAILED,
    State.REVOKED: wire.REVOKED,
}
"""The letter at the end of the key for each final state."""


class EndedJob(NamedTuple):
    """A job in the history. Times are in ms since the epoch, and None if they are not known.

    Attributes:
        id, task, queue: as they were; empty if whoever ended the job did not know them.
        letter: of its record.
        attempts: how many there were.
        worker: the name of the worker that ended it; empty for a job that no worker has ended.
        error: the first line of its error, or why it was revoked.
    """

    id: str
    task: str
    queue: str
    letter: str
    enqueued: int | None
    started: int | None
    finished: int | None
    attempts: int
    worker: str
    error: str


class History:
    """Notes ended jobs, and lists them.

    Args:
        commands: of the session.
    """

    def __init__(self, commands: Commands) -> None:
        self._commands = commands
        self._most = commands.settings.history
        self._pending: dict[int, list[Any]] = {}
        self._flush_later = DelayedCall(DELAY, self.flush)
        # Not the time of the last second: to ask for the time would cost each batch more than the rest here.
        self._room = SUCCESSES_PER_SECOND if self._most else 0

    def note_batch(
        self, keys: Keys, batch: Sequence[tuple[wire.Delivery, str, bytes]], answer: int | list[int]
    ) -> None:
        """Notes the jobs of a batch whose outcomes the server has accepted.

        Args:
            keys: of their shard.
            batch: the jobs, with letter and outcome.
            answer: of the script: a number if all were accepted, else 1 for each that was.
        """
        room = self._room
        for number, (delivery, letter, outcome) in enumerate(batch):
            if letter == wire.SUCCEEDED:
                if not room:
                    continue
                room -= 1
            if self._most and (isinstance(answer, int) or answer[number] == 1):
                self._note(keys, delivery, letter, outcome)
        if room != self._room:
            if self._room == SUCCESSES_PER_SECOND:
                asyncio.get_running_loop().call_later(1, self._make_room)
            self._room = room

    def _make_room(self) -> None:
        """Lets successes be noted again, a second after the first of them was."""
        self._room = SUCCESSES_PER_SECOND

    def note(self, keys: Keys, delivery: wire.Delivery, letter: str, outcome: bytes) -> None:
        """Notes one job that its worker has ended otherwise than by `finish`.

        Args:
            keys: of its shard.
            delivery: the job.
            letter: how it ended.
            outcome: the same, encoded.
        """
        if self._most:
            self._note(keys, delivery, letter, outcome)

    def note_ends(self, keys: Keys, ends: Sequence[Sequence[Any]]) -> None:
        """Notes the jobs that a script has ended, as `Commands.on_ends` gets them.

        Args:
            keys: of their shard.
            ends: of each its id, letter, queue, task, when it was enqueued (ms), and its outcome. An outcome
                of 0 is that of the job before.
        """
        if not self._most:
            return
        latest, ended = b"", None
        for id_, code, queue, task, enqueued, outcome in ends:
            letter, is_new = text_of(code), type(outcome) is bytes
            latest = outcome if is_new else latest
            if is_new or ended is None or ended.letter != letter:
                ended = _decoded(letter, latest)
            if ended is not None:
                at = enqueued or ended.enqueued
                self._add(keys, _ended_job(text_of(id_), text_of(task), queue_of(text_of(queue)), at, ended))

    def _note(self, keys: Keys, delivery: wire.Delivery, letter: str, outcome: bytes) -> None:
        ended, job = _decoded(letter, outcome), delivery.job
        if ended is not None:
            self._add(keys, _ended_job(job.id, job.name, job.queue, job.enqueued, ended))

    def _add(self, keys: Keys, job: EndedJob) -> None:
        pending = self._pending.setdefault(keys.shard, [])
        letter, note = _LETTERS[wire.STATE_OF[job.letter]], wire.packed(job)
        if (seal := self._commands.seal) is not None:
            note = seal.close("history", letter, note)
        pending += (letter, note)
        if len(pending) >= 2 * MOST_AT_ONCE:
            self.flush()
        else:
            self._flush_later.request()

    def flush(self) -> None:
        """Sends the notes that were gathered. Without a connection they are lost."""
        self._flush_later.cancel()
        pending, self._pending = self._pending, {}
        for shard, notes in pending.items():
            keys = self._commands.shards[shard]
            command = self._commands.build(
                keys, "note_history", (), (keys.history, self._most, 7 * DAY_MS, *notes)
            )
            self._commands.post(keys, command, _check)

    async def page(self, keys: Keys, state: State, after: str, most: int) -> list[tuple[str, EndedJob]]:
        """Returns ended jobs of a shard, the newest first, each with the place behind it. Raises as
        `Commands.run`.

        Args:
            keys: of the shard.
            state: the final state.
            after: the place behind which to begin; empty for the newest.
            most: at most so many.
        """
        end = f"({after}" if after else "+"
        letter = _LETTERS[state]
        found = await self._commands.send(keys, "XREVRANGE", keys.history + letter, end, "-", "COUNT", most)
        return [(entry.decode(), _read(fields, letter, self._commands.seal)) for entry, fields in found]


def _decoded(letter: str, outcome: bytes) -> wire.Ended | None:
    try:
        return wire.decode_ended(letter, outcome)
    except DecodeError as error:  # an outcome of ours is always readable; a note is not worth more
        log.debug("an outcome is left out of the history: %s", error)
        return None


def _ended_job(id: str, task: str, queue: str, enqueued: int | None, ended: wire.Ended) -> EndedJob:
    return EndedJob(
        *(id, task, queue, ended.letter, enqueued, ended.started, ended.finished),
        *(ended.attempts, ended.worker, _first_line(ended)),
    )


def _first_line(ended: wire.Ended) -> str:
    """Returns the first line of the error of a failed job, or the reason of a revoked one."""
    if ended.letter == wire.FAILED:
        try:
            failure = failures.decode(ended.payload)
        except DecodeError:
            return ""
        text = f"{failure.type_name}: {failure.message}"
    elif ended.letter == wire.REVOKED:
        text = text_of(ended.payload)
    else:
        return ""
    return text.partition("\n")[0][:LONGEST_ERROR]


def _check(answer: Any) -> None:
    if isinstance(answer, Exception):
        log.debug("some ended jobs are missing in the history: %s", answer)


def _read(fields: Sequence[bytes], letter: str, seal: Seal | None) -> EndedJob:
    """Reads an entry. One that is none of asyncq's is shown without anything."""
    try:
        values = msgpack.unpackb(fields[1] if seal is None else seal.open("history", letter, fields[1]))
        job = EndedJob(*values)
        if job.letter in wire.FINAL and all(isinstance(each, str) for each in (job.id, job.task, job.queue)):
            return job
    except (ValueError, TypeError, IndexError, msgpack.UnpackException):
        pass
    return EndedJob("", "", "", letter, None, None, None, 0, "", "this entry cannot be read")
