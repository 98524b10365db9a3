"""The server side of one worker session: it reads jobs from the queues, registers, sends the heartbeat, moves
due jobs, and observes other workers. `claims` ends what is read here.

Runs on the worker's loop, all but `Beating`, which the heartbeat's thread calls.

The session id is the name of the stream's consumer, and being listed as the holder of a pending entry is the
claim. A session id is never used again: a second session of the same name would find its predecessor's
entries as its own, and no crash would ever be counted.
"""

from __future__ import annotations

import asyncio
import itertools
import logging
from contextlib import suppress
from typing import TYPE_CHECKING, Any, NamedTuple

from asyncq import failpoints, failures, wire
from asyncq.broker.announcements import Announcements
from asyncq.broker.commands import FOREVER
from asyncq.broker.early_end import early_end
from asyncq.broker.entry_reader import BLOCK_MS, NO_OTHER, Entry, EntryReader, entries_of
from asyncq.broker.job_output import JobOutput
from asyncq.broker.known_queues import KnownQueues
from asyncq.broker.preflight import rights
from asyncq.broker.read_limit import ReadLimit
from asyncq.broker.schema import answer_tags, damaged_data
from asyncq.broker.schema.keys import DAY_MS, GROUP, leveled, name_from, text_of, token
from asyncq.broker.served_streams import Served
from asyncq.broker.transport.server_error import ErrorAction, ServerError
from asyncq.errors import BrokerUnavailable, DecodeError

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from asyncq.broker.commands import Commands
    from asyncq.broker.schema.keys import Keys
    from asyncq.broker.schema.shards import Shards
    from asyncq.broker.signing.seal import Seal
    from asyncq.broker.transport.connections import BlockingConnections
    from asyncq.config import Settings

log: logging.Logger = logging.getLogger(__name__)

_LAST_OBSERVATION = 2**52
"""No observation has a higher number."""
_MOST_AGES = 20
"""Most words that are read of an observer's ages. An observer leaves those of some five observations."""
_KNOWN_AS_DEAD = 4
"""For so many leases the server remembers that a worker was taken for dead."""
_MOST_NOTED = 999_999_999
"""No note of a watcher counts more."""
PROMOTE_AT_ONCE = 100
"""Most due jobs that one call moves."""

_LISTED_AT_ONCE = 10
"""Most streams whose consumers one call lists. With a thousand consumers each, the server takes 10 ms."""

OTHER_PAUSES = b"^"
"""The message that other queues than before are paused. It comes on the channel of new levels."""


class Consumer:
    """One worker session, as the server sees it.

    Args:
        commands: of the session.
        worker: the worker's name, the readable part of the session id.
        queues: to read from, the most urgent first.

    Attributes:
        name: the session id.
        shards: of the namespace.
        settings: of the app.
        served: the streams that it reads from.
        announcements: what it announces to other workers.
        limit: how many entries a read asks for at most.
        readers: of its shards; each shard has one.
        signal_channels: one for each shard: the channels with the revocation signals for jobs that it holds,
            and in shard 0 with the orders of operators.
        streams_changed: set when other streams than before are to be read from.
    """

    def __init__(self, commands: Commands, worker: str, queues: Sequence[str]) -> None:
        self.name: str = f"{worker}-{token()}"
        self.shards: Shards = commands.shards
        self.settings: Settings = commands.settings
        self.served: Served = Served(commands.shards, queues)
        self.announcements: Announcements = Announcements(commands, self.served, self.name)
        self._separate_read: asyncio.Future[Any] | None = None  # the reply to the latest `read_separately`
        self._levels_noted: dict[str, int] = {}
        self.signal_channels: tuple[str, ...] = tuple(keys.signals + self.name for keys in self.shards)
        self._commands = commands
        self.limit: ReadLimit = ReadLimit()
        self.streams_changed: asyncio.Event = asyncio.Event()
        self.readers: tuple[EntryReader, ...] = tuple(
            EntryReader(commands, self.served, self.name, self.limit, numbers)
            for numbers in commands.connections.together
        )
        self._reader_of = {
            number: which for which, numbers in enumerate(commands.connections.together) for number in numbers
        }

    @property
    def seal(self) -> Seal | None:
        """The seal of the session; None without secrets."""
        return self._commands.seal

    # -- coming and going --

    async def check_rights(self) -> None:
        """Checks that the server's user may do all that a worker of these queues does. Raises as
        `rights.require`.
        """
        calls = [
            call
            for keys in self.shards
            for call in rights.of_worker(
                keys, self.served.streams_in(keys), is_cluster=self._commands.address.is_cluster
            )
        ]
        await rights.require(self._commands, calls)

    async def make_groups(self, timeout: float = FOREVER) -> None:
        """Makes the consumer group of every stream that it reads from, where there is none: at start-up, and
        after the server lost its data. Tries for ever by default, so a missing permission counts as passing.
        Returns at once for a group that exists.
        """
        for stream in (*self.served.streams, *self.served.last_attempt_queues):
            await self._make_group(self.served.keys[stream], stream, timeout)
        known = KnownQueues(self._commands)
        known.add(self.served.all_queues())
        known.send()

    async def _make_group(self, keys: Keys, stream: str, timeout: float) -> None:
        """Makes the consumer group of one stream. Does nothing if it exists."""
        try:
            # From entry 0 on: jobs that were enqueued before the first worker started must run, too.
            await self._commands.send(
                keys, "XGROUP", "CREATE", stream, GROUP, "0", "MKSTREAM", timeout=timeout
            )
        except ServerError as error:
            if error.code != "BUSYGROUP":
                raise

    async def find_levels(self, timeout: float = FOREVER, shards: Sequence[Keys] = ()) -> None:
        """Asks which levels of priority its queues have, and reads from all of them from now on.

        Args:
            timeout: in seconds, of each call.
            shards: those that are asked for; none for all.
        """
        for keys in shards or self.shards:
            for queue in self.served.queues_in(keys):
                levels = await self._commands.send(keys, "SMEMBERS", keys.levels + queue, timeout=timeout)
                await self._add_levels(queue, keys, levels, timeout)

    async def find_paused(self, timeout: float = FOREVER) -> None:
        """Asks which of its queues are paused, and reads only from the others from now on."""
        keys, queues = self.shards[0], self.served.all_queues()
        since = await self._commands.send(
            keys, "MGET", *(keys.paused + queue for queue in queues), timeout=timeout
        )
        self._pause(queues, since)

    def _pause(self, queues: Iterable[str], since: Iterable[bytes | None]) -> None:
        """Takes in which of its queues are paused: those that have a time."""
        paused = {queue for queue, at in zip(queues, since, strict=True) if at is not None}
        if self.served.pause(paused):
            self._choose_streams_anew()

    def be_quiet(self, *, on: bool) -> None:
        """Reads from no stream from now on, or from all of its streams again. What it holds goes on."""
        if self.served.be_quiet(on=on):
            self._choose_streams_anew()

    def _choose_streams_anew(self) -> None:
        """Makes the next reads begin soon, because there are other streams to read from."""
        self.streams_changed.set()
        for reader in self.readers:
            reader.choose_anew()

    async def until_streams_change(self) -> None:
        """Waits until other streams than now are to be read from, or for as long as an idle read."""
        self.streams_changed.clear()
        with suppress(TimeoutError):
            async with asyncio.timeout(BLOCK_MS / 1000):
                await self.streams_changed.wait()

    async def add_level(self, keys: Keys, name: bytes) -> None:
        """Reads from a level that has come into use in a shard, if this worker session serves its queue.

        Args:
            keys: of the shard.
            name: of the level's stream in records: `<queue>^<level>`.
        """
        queue, _, level = name.rpartition(b"^")
        await self._add_levels(queue.decode("utf-8", "replace"), keys, (level,), FOREVER)

    async def read_executor_queue(self, stream: str, executor: str) -> None:
        """Reads from the executor queue of a stream from now on. Does not wait until the server announces
        the new queue: until then, jobs that come later would start before those that this worker session has
        just released into it.
        """
        await self._read_also(self.served.keys[stream], *self.served.executor_queue_of(stream, executor))

    async def read_returned_queue(self, stream: str) -> None:
        """Reads from the returned queue of a stream from now on, as `read_executor_queue` does."""
        await self._read_also(self.served.keys[stream], *self.served.returned_queue_of(stream))

    async def _read_also(self, keys: Keys, stream: str, name: str) -> None:
        if stream not in self.served.streams and stream not in self.served.last_attempt_queues:
            await self.add_level(keys, name.encode())

    async def _add_levels(self, queue: str, keys: Keys, levels: Iterable[bytes], timeout: float) -> None:
        """Reads from levels that are not read yet, from now on. Makes their groups first."""
        for level in self.served.new_levels(queue, keys, levels):
            await self._make_group(keys, keys.stream(leveled(queue, level)), timeout)
            if not self.served.add_level(queue, keys, level):
                continue  # another call added it while this one made the group
            self._choose_streams_anew()

    def beating(self) -> Beating:
        """Makes what the heartbeat's thread calls, with a connection of its own."""
        name = f"asyncq-beat:{self.name}"
        return Beating(self, self._commands.new_blocking_connections(name, self.settings.lease / 3))

    def beat_commands(self, count: int) -> list[tuple[Keys, tuple[Any, ...]]]:
        """Returns for each shard the command that sends the heartbeat number `count`. On any thread."""
        return [
            (
                keys,
                self._commands.build(
                    keys,
                    "beat",
                    (keys.beats, keys.beat_observations, keys.observations, signals),
                    (self.name, count),
                ),
            )
            for keys, signals in zip(self.shards, self.signal_channels, strict=True)
        ]

    def beat_source(self) -> str:
        """Returns the source of the heartbeat's script, for a server that does not know it. On any thread."""
        return self._commands.scripts["beat"].source

    async def begin(self, delivery: wire.Delivery, ended: Iterable[str]) -> bool:
        """Notes that the body of a job is about to start. Recovery then counts a crash only for bodies that
        had started. Returns False if this worker session was taken for dead: the body must not start.

        Args:
            delivery: the job.
            ended: the claims of jobs that were noted before and that this worker session has ended; their
                notes are deleted.
        """
        notes = {delivery.claim: "1", **dict.fromkeys(ended, "")}
        return await self.note(self.served.keys[delivery.stream], notes)

    async def note(self, keys: Keys, notes: Mapping[str, str]) -> bool:
        """Stores at a shard which bodies may have begun, see `begin.lua`, and sends that until it is
        answered. Returns False if this worker session was taken for dead.

        Args:
            keys: of the shard.
            notes: what is noted, by the claim of a job or by a stream; an empty value removes a note.
        """
        answer = await self._commands.send(keys, *self._note_command(keys, notes), timeout=FOREVER)
        return bool(answer)

    def post_note(self, keys: Keys, notes: Mapping[str, str]) -> asyncio.Future[Any]:
        """Sends notes once, and at once. Returns a future of the answer, or of the error as a value. It is
        done on return if there is no connection, and then nothing was sent.
        """
        reply: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        self._commands.post(keys, self._note_command(keys, notes), reply.set_result, now=True)
        return reply

    def _note_command(self, keys: Keys, notes: Mapping[str, str]) -> tuple[Any, ...]:
        return self._commands.build(
            keys,
            "begin",
            (keys.beats, keys.started + self.name),
            (self.name, DAY_MS, *itertools.chain.from_iterable(notes.items())),
        )

    async def unregister(self) -> bool:
        """Ends the registration in every shard, and deletes the consumer. A shard in which an entry is still
        pending for it refuses: deleting the consumer would drop the entry from the pending list, and nobody
        would ever run the job. Returns False if a shard refused.
        """
        left = True
        for keys, signals in zip(self.shards, self.signal_channels, strict=True):
            streams = self.served.streams_in(keys)
            own = (
                keys.beats,
                keys.beat_observations,
                signals,
                keys.announcements + self.name,
                keys.started + self.name,
            )
            answer = await self._commands.run(keys, "unregister", (*own, *streams), (GROUP, self.name))
            left &= bool(answer)
        return left

    def drop_read(self) -> None:
        """Gives up all blocking reads, see `EntryReader.drop`."""
        for reader in self.readers:
            reader.drop()

    def close(self) -> None:
        """Closes the reading connections."""
        for reader in self.readers:
            reader.close()

    # -- reading --

    async def read(
        self, streams: Sequence[str], count: int, *, block: bool, most: Mapping[str, int] = NO_OTHER
    ) -> list[Entry]:
        """Claims entries, by whichever reader serves the streams; see `EntryReader.read`. With several
        readers, it cannot wait: `block` then counts as False.
        """
        if len(self.readers) == 1:
            return await self.readers[0].read(streams, count, block=block, most=most)
        for reader in self.readers:
            own = reader.own(streams)
            if own and (entries := await reader.read(own, count, block=False, most=most)):
                return entries
        return []

    async def read_separately(self, stream: str, count: int) -> list[Entry]:
        """Claims up to `count` entries of a stream while another read may be waiting, on the connection for
        commands. If the caller is cancelled, entries may still be claimed; `unknown_entries` waits for that
        reply.

        Must not be called between a question for unknown entries and its answer: the entries that this read
        claims would count as unknown.

        Raises:
            PipeBroken: the connection was lost; entries may have been claimed, see `unknown_entries`.
            ServerError: the server refuses.
        """
        reply = self._separate_read = asyncio.get_running_loop().create_future()
        command = ("XREADGROUP", "GROUP", GROUP, self.name, "COUNT", count, "STREAMS", stream, ">")
        # `post` sends once. Sent again after a lost reply, it would claim other entries.
        self._commands.post(self.served.keys[stream], command, reply.set_result)
        # The shield keeps the future alive for `unknown_entries` when the caller is cancelled.
        answer = await asyncio.shield(reply)
        if isinstance(answer, Exception):
            raise answer
        return entries_of(answer)

    async def unknown_entries(self, stream: str, held: Iterable[str]) -> list[Entry]:
        """Returns the unknown pending entries of a stream, see `EntryReader.unknown_entries`."""
        if self._separate_read is not None:
            # That read uses another connection, and its caller may have been cancelled. Its entries would
            # count as unknown, so its reply must come first.
            await asyncio.wait({self._separate_read})
        number = self.served.keys[stream].shard
        return await self.readers[self._reader_of[number]].unknown_entries(stream, held)

    def job_id(self, item: Entry) -> str | None:
        """Returns the id of the job in an entry, also if its message cannot be read; None if it has no id."""
        fields = item[2] or []
        named = dict(zip(fields[::2], fields[1::2], strict=False))
        id_ = named.get(b"i")
        return None if id_ is None else text_of(id_)

    def delivery(self, item: Entry) -> wire.Delivery:
        """Decodes the job in an entry.

        Raises:
            DecodeError: the entry holds no message of asyncq, or with secrets one that is not signed.
        """
        stream, entry, fields = item
        queue = self.served.queues[stream]
        if fields and len(fields) == 4 and fields[0] == b"i" and fields[2] == b"m":
            crashes = retries = 0
            id_, message, values = fields[1], fields[3], b""
            limiter_state = put_off = last = b""
        else:
            named = dict(zip(fields[::2], fields[1::2], strict=True)) if fields else {}
            if b"i" not in named or b"m" not in named or len(named) > wire.MOST_FIELDS:
                raise DecodeError(f"entry {entry} of queue {queue!r} has no job in it, or too many fields")
            id_, message = named[b"i"], named[b"m"]
            crashes = wire.count_of(named.get(b"c", b"0"))
            retries = wire.count_of(named.get(b"a", b"0"))
            values, limiter_state, put_off, last = (named.get(name, b"") for name in (b"v", b"g", b"u", b"l"))
        id_ = id_.decode()
        seal = self._commands.seal
        if seal is not None:
            message = seal.open_message(id_, queue, message, values)
            last = seal.open_outcome(id_, wire.FAILED, last) if last else last
        job = wire.decode_job(id_, queue, message)
        if values and seal is not None:
            values = seal.checked_values(job, values)
        return wire.Delivery(entry, stream, crashes, retries, job, values, limiter_state, put_off, last)

    async def promote(self, keys: Keys) -> float | None:
        """Moves due jobs of a shard into their queues. Raises as `Commands.run`.

        Returns:
            Seconds until the next job is due; 0 if more may be due already; None if no job is delayed.
        """
        monotonic_time = self._commands.monotonic_time
        moved, left, monotonic, *damaged = await self._commands.run(
            keys,
            "promote",
            (keys.delayed,),
            (
                *(keys.key_prefix, keys.records, keys.messages, keys.queues, PROMOTE_AT_ONCE, keys.events),
                *(monotonic_time.expected(keys.shard), wire.PUSH_LIMIT),
            ),
        )
        monotonic_time.update(keys.shard, monotonic)
        for id_, is_lost, why in damaged:
            await self._put_off(keys, id_, why.decode("utf-8", "replace"), is_lost=bool(is_lost))
        if moved >= PROMOTE_AT_ONCE:
            return 0.0
        return None if left < 0 else left / 1000

    async def _put_off(self, keys: Keys, id_: bytes, why: str, *, is_lost: bool) -> None:
        """Logs that a due job could not be moved; it is tried again in a minute. Ends a job whose message is
        lost with a failure, for nobody can run it.

        Args:
            keys: of its shard.
            id_: of the job; it may be no text.
            why: it could not be moved.
            is_lost: whether its message is lost.
        """
        name = text_of(id_)
        if not is_lost:
            what = f"job {name!r} is due and could not be moved into its queue; trying again in a minute"
            damaged_data.warn(log, "delayed job", what, why)
            return
        damaged_data.warn(
            log, "message of a delayed job", f"job {name!r} is due and fails: it cannot be run", why
        )
        error = DecodeError(f"job {name!r} was due, and could not be run: {why}")
        outcome = wire.encode_ended(wire.Ended(wire.FAILED, failures.encode(error)))
        ttl = self.settings.result_ttl
        call = early_end(keys, name_from(id_), wire.FAILED, outcome, ttl, signal="", seal=self.seal)
        await self._commands.run(keys, "revoke", call.keys, call.arguments)

    def output(self, delivery: wire.Delivery) -> JobOutput:
        """Returns the writer for the progress reports and stream items of a job that this session holds."""
        return JobOutput(self._commands, self.served.keys[delivery.stream], delivery)

    # -- the others --

    async def check_in(
        self,
        keys: Keys,
        seen: SeenBefore | None = None,
        listed: Sequence[str] = (),
        status: bytes = b"",
    ) -> CheckIn:
        """Checks in at a shard: says what this session is, and learns what it must know of the other workers,
        of its streams, of pauses and of the outbox. Called three times a lease. Costs the server the same
        however many workers there are, but for what is listed.

        Each stream has one worker as its watcher, which looks at the stream and leaves a note at the server.
        All others read the note. This session becomes the watcher of a stream that has none.

        Args:
            keys: of the shard.
            seen: what this session knows from earlier observations; None before the first one.
            listed: streams of which it is the watcher, and whose consumers are to be listed.
            status: what the session says of itself, encoded; empty: the server keeps what it has.
        """
        seen = seen or SeenBefore(0, 0, ())
        streams = self.served.streams_in(keys)
        notes = [keys.watchers + stream.removeprefix(keys.queues) for stream in streams]
        queues = [] if keys.shard else self.served.all_queues()
        number, ages, waiting, problem, values, absent, *others = await self._commands.run(
            keys,
            "check_in",
            (
                *(keys.beats, keys.beat_observations, keys.observations, keys.observation_ages),
                *(keys.announcements + self.name, keys.outbox),
                *(*notes, *(keys.paused + queue for queue in queues)),
            ),
            (
                *(GROUP, self.name, status, DAY_MS, seen.before, seen.last),
                round(self.settings.lease * 1000 * _KNOWN_AS_DEAD),
                " ".join(f"{one.number}:{int(one.age * 1000)}" for one in seen.ages),
                *(keys.queues, keys.levels, keys.watchers, len(notes)),
                *(round(self.settings.lease * 1000 * 2 / 3), *listed[:_LISTED_AT_ONCE]),
            ),
        )
        _warn(problem)
        if waiting:
            # Normally the process that has filled the outbox has it delivered at once. It may have died.
            self._commands.forward(keys)
        if queues:
            # It was told when a queue was paused, but that message may have been lost.
            self._pause(queues, values[len(notes) :])
        note_of = dict(zip(streams, values[: len(notes)], strict=True))
        me = self.name.encode()
        return CheckIn(
            _observation(number, ages, others),
            await self._unread(keys, note_of),
            [stream for stream in streams if _watcher(note_of[stream]) == me],
            sum(
                _number(note_of[stream])
                for stream in streams
                if stream in self.served.open_last_attempt_queues
            ),
            [*_absent(absent), *await self._list(keys, listed[_LISTED_AT_ONCE:])],
        )

    async def _list(self, keys: Keys, streams: Sequence[str]) -> list[dict[str, bool]]:
        """Lists the consumers of streams that have no heartbeat."""
        found: list[dict[str, bool]] = []
        for first in range(0, len(streams), _LISTED_AT_ONCE):
            # One after the other, so that the server can do something else between them.
            some = streams[first : first + _LISTED_AT_ONCE]
            problem, absent = await self._commands.run(
                keys, "list_consumers", (keys.beats, keys.beat_observations, *some), (GROUP,)
            )
            _warn(problem)
            found += _absent(absent)
        return found

    async def beat_of(self, keys: Keys, session_id: str) -> str | None:
        """Returns the count of a session's heartbeat in a shard; None if it has none."""
        count = await self._commands.send(keys, "HGET", keys.beats, session_id)
        return None if count is None else name_from(count)

    async def _unread(self, keys: Keys, notes: dict[str, bytes]) -> list[bytes]:
        """Returns the levels of its queues in a shard that it does not read yet. Asks only for queues whose
        number of levels has changed since it last read all of them.
        """
        unread: list[bytes] = []
        for queue in self.served.queues_in(keys):
            stream = keys.stream(queue)
            number = _number(notes[stream])
            if number and number != self._levels_noted.get(stream):
                levels = await self._commands.send(keys, "SMEMBERS", keys.levels + queue)
                new = self.served.new_levels(queue, keys, levels)
                unread += [leveled(queue, level).encode() for level in new]
                if new:
                    continue  # not noted, so the next call asks again until the session reads them
            self._levels_noted[stream] = number
        return unread

    async def last_tries(self, keys: Keys) -> int:
        """Returns how many entries are in the last-attempt queues of a shard and are not claimed. Counts only
        queues that this worker session serves.
        """
        waiting = 0
        for stream in self.served.streams_in(keys):
            if stream not in self.served.open_last_attempt_queues:
                continue
            if length := await self._commands.send(keys, "XLEN", stream):
                pending, *_ = await self._commands.send(keys, "XPENDING", stream, GROUP)
                waiting += max(0, length - pending)
        return waiting


class ObservationAge(NamedTuple):
    """The number of an earlier observation, and how many seconds ago it was made, at least."""

    number: int
    age: float


class Observation(NamedTuple):
    """What one observation shows a worker of the others.

    Attributes:
        number: of this observation: every later one of any worker has a higher number.
        silent: the session ids without a heartbeat since the observation `before`, and the count of each
            one's heartbeat; None if somebody has deleted it.
        taken: the session ids that were taken for dead since the observation `last`.
        ages: of earlier observations, as another observer has left them, the oldest first.
        ages_at: the number of the observation at which that observer left them; 0 if there is none.
    """

    number: int
    silent: dict[str, str | None]
    taken: list[str]
    ages: Sequence[ObservationAge] = ()
    ages_at: int = 0


class SeenBefore(NamedTuple):
    """What a worker knows from its earlier observations.

    Attributes:
        before: the number of one that was made a lease ago or earlier. Workers without a heartbeat since then
            are named. 0: none.
        last: the number of the last one. Workers that were taken for dead since then are named.
        ages: of those that it knows of, the oldest first. The server keeps them for workers that begin to
            observe. Empty: the server keeps what it has.
    """

    before: int
    last: int
    ages: Sequence[ObservationAge]


class CheckIn(NamedTuple):
    """What a worker learns when it checks in.

    Attributes:
        observation: of the other workers.
        levels: names of the levels of priority that its queues have and that it does not read yet.
        watched: the streams of which it is the watcher: it must check their consumers, for nobody else does.
        last_tries: how many entries of the last-attempt queues that it serves are not claimed.
        absent: for each stream that was listed, the names of its consumers that have no heartbeat, and for
            each whether it was taken for dead not long ago.
    """

    observation: Observation
    levels: list[bytes]
    watched: list[str]
    last_tries: int
    absent: list[dict[str, bool]]


def _warn(problem: bytes) -> None:
    """Logs why a part of a check-in failed, if one did."""
    if problem:
        damaged_data.warn(log, "check-in", "a part of a check-in at the server failed", text_of(problem))


def _absent(found: Iterable[Iterable[tuple[bytes, int]]]) -> list[dict[str, bool]]:
    """Reads for each stream which of its consumers have no heartbeat."""
    return [{name_from(name): bool(taken) for name, taken in each} for each in found]


def _observation(number: int, ages: bytes, others: Iterable[Sequence[Any]]) -> Observation:
    """Reads what an observation has shown."""
    silent = {
        name_from(name): count[0] and name_from(count[0])
        for tag, name, *count in others
        if tag == answer_tags.SILENT
    }
    taken = [name_from(name) for tag, name, *_ in others if tag == answer_tags.DEAD]
    return Observation(number, silent, taken, *_ages_in(ages))


def _ages_in(text: bytes) -> tuple[Sequence[ObservationAge], int]:
    """Reads the ages of observations that an observer has left, and the number of the one at which it did."""
    at, *each = text.split()[:_MOST_AGES] or [b"0"]
    pairs = [one.partition(b":")[::2] for one in each]
    numbers = [
        wire.number_in(part, _LAST_OBSERVATION) for part in (at, *itertools.chain.from_iterable(pairs))
    ]
    if None in numbers:
        damaged_data.warn(
            log,
            "ages of observations",
            "the ages of the observations of other workers are dropped",
            repr(text[:100]),
        )
        return (), 0
    first, *rest = [number for number in numbers if number is not None]
    return [
        ObservationAge(*one) for one in zip(rest[::2], [age / 1000 for age in rest[1::2]], strict=True)
    ], first


def _watcher(note: bytes) -> bytes:
    return note.rpartition(b" ")[0]


def _number(note: bytes) -> int:
    """Returns the number in a note; 0 if somebody has damaged it."""
    return wire.number_in(note.rpartition(b" ")[2], _MOST_NOTED) or 0


class Beating:
    """Sends the heartbeat of one worker session over a blocking connection. Used on the heartbeat's thread
    only: the lease must not end because the loop is blocked.
    """

    def __init__(self, consumer: Consumer, connections: BlockingConnections) -> None:
        self._consumer = consumer
        self._connections = connections

    def beat(self, count: int) -> list[str] | None:
        """Sends heartbeat number `count` to every shard, also after an error of one.

        Returns:
            The revocation signals for jobs that the worker session holds, or None if a shard has taken it for
            dead.

        Raises:
            BrokerUnavailable, ServerError: a shard has not acknowledged it.
        """
        failpoints.hit("beat.send")
        signals: list[str] = []
        problem: BrokerUnavailable | ServerError | None = None
        for keys, command in self._consumer.beat_commands(count):
            try:
                answer = self._call(keys, command)
            except (BrokerUnavailable, ServerError) as error:
                problem = problem or error
                continue
            if answer is None:
                return None
            texts = list(map(text_of, answer))
            signals += sorted(map(_as_published, texts[::2], texts[1::2]))
        if problem is not None:
            raise problem
        failpoints.hit("beat.answered")
        return signals

    def _call(self, keys: Keys, command: tuple[Any, ...]) -> Any:
        """Sends a command to the server of a shard. If the server does not know the script, or has given the
        shard away, makes good for that and sends the command again.
        """
        try:
            return self._connections.of(keys).call(*command)
        except ServerError as error:
            if error.action is ErrorAction.MOVED:
                self._connections.refuse(keys, error)
            elif error.action is not ErrorAction.LOAD:
                raise
            connection = self._connections.of(keys)
            connection.call("SCRIPT", "LOAD", self._consumer.beat_source())
            return connection.call(*command)

    def close(self) -> None:
        """Closes the connections."""
        self._connections.close()


def _as_published(id: str, signal: str) -> str:
    """Returns a revocation signal in the form in which it is published, with the reason behind the id."""
    return f"{signal[:1]}{id} {signal[1:]}" if signal[1:] else f"{signal}{id}"
