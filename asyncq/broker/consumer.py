"""What one worker session does to the queues that it serves. Runs on the worker's loop.

A worker session has a session id that is never used again; it is the stream's consumer, and being listed
as the holder of an entry is the claim. A name that came back would find its predecessor's entries as its own
and no crash would ever be counted.
"""

from __future__ import annotations

import asyncio
import itertools
import logging
from typing import TYPE_CHECKING, Any, NamedTuple

from asyncq import failpoints, failures, wire
from asyncq.broker.commands import FOREVER
from asyncq.broker.early_end import early_end
from asyncq.broker.job_output import JobOutput
from asyncq.broker.preflight import rights
from asyncq.broker.read_limit import ReadLimit
from asyncq.broker.schema import damaged_data
from asyncq.broker.schema.keys import DAY_MS, GROUP, leveled, name_from, text_of, token
from asyncq.broker.served_streams import Served
from asyncq.broker.transport.pipe import PipeBroken
from asyncq.broker.transport.server_error import ErrorAction, ServerError
from asyncq.errors import DecodeError

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from asyncq.broker.commands import Commands
    from asyncq.broker.schema.keys import Keys
    from asyncq.broker.schema.shards import Shards
    from asyncq.broker.transport.connection import BlockingConnection
    from asyncq.config import Settings

log: logging.Logger = logging.getLogger(__name__)

BLOCK_MS = 3000
"""How long an idle read stays at the server. Short, for a read of a process that died is still served; long,
for an idle worker should send about one command a second."""
MAX_UNKNOWN = 1000
_NAMES_AT_ONCE = 1000
_LAST_LOOK = 2**52
"""No look has a higher number."""
_MOST_AGES = 20
"""An observer leaves the ages of some five looks behind."""
_KNOWN_AS_DEAD = 4
"""Leases for which it is kept that a worker was taken for dead."""
_MOST_NOTED = 999_999_999
"""No note of a watcher counts more."""
PROMOTE_AT_ONCE = 100

_NO_OTHER: Mapping[str, int] = {}

Entry = tuple[str, str, list[Any]]
"""What a read brings: stream, entry id, fields."""


class Interrupted(PipeBroken):
    """A read that waited was given up: there is more to read from."""


class Consumer:
    """One worker session, as the server sees it.

    Args:
        commands: of the session.
        worker: the worker's name, the readable part of the session id.
        queues: to read from, the most urgent first.

    Attributes:
        name: the session id.
        served: the streams that it reads from.
        marks_channels: one a shard; what is published there concerns jobs that it holds.
    """

    def __init__(self, commands: Commands, worker: str, queues: Sequence[str]) -> None:
        self.name: str = f"{worker}-{token()}"
        self.shards: Shards = commands.shards
        self.settings: Settings = commands.settings
        self.served: Served = Served(commands.shards, queues)
        self._turn = 0
        self._aside: asyncio.Future[Any] | None = None  # the reply to the latest `read_aside`
        self._waits = self._has_more = False
        self._levels_noted: dict[str, int] = {}
        self.marks_channels: tuple[str, ...] = tuple(keys.marks + self.name for keys in self.shards)
        self._commands = commands
        self._limit = ReadLimit()
        self._reads = commands.new_line(f"asyncq-read:{self.name}", timeout=BLOCK_MS / 1000 + 5)

    # -- coming and going --

    async def check_rights(self) -> None:
        """Sees to it that the user may do all that a worker of these queues does; raises as
        `rights.require`.
        """
        calls = [
            call for keys in self.shards for call in rights.of_worker(keys, self.served.streams_in(keys))
        ]
        await rights.require(self._commands, calls)

    async def make_groups(self, timeout: float = FOREVER) -> None:
        """Makes the group of every stream it reads from, where there is none: at start-up, and after the
        server lost its data. For ever by default, which takes a missing permission for a passing one.
        """
        for stream in (*self.served.streams, *self.served.last_attempt_queues):
            await self._make_group(self.served.keys[stream], stream, timeout)

    async def _make_group(self, keys: Keys, stream: str, timeout: float) -> None:
        try:
            # At 0: what was enqueued before the first worker came is work too.
            await self._commands.send(
                keys, "XGROUP", "CREATE", stream, GROUP, "0", "MKSTREAM", timeout=timeout
            )
        except ServerError as error:
            if error.code != "BUSYGROUP":
                raise

    async def look_for_levels(self, timeout: float = FOREVER) -> None:
        """Looks which levels of priority its queues have, and reads from all of them from now on."""
        for queue, keys in self.served.queues_by_shard():
            levels = await self._commands.send(keys, "SMEMBERS", keys.levels + queue, timeout=timeout)
            await self._adopt(queue, keys, levels, timeout)

    async def add_level(self, keys: Keys, name: bytes) -> None:
        """A level has come into use in a shard, under that name: reads from it if the queue is one of its
        own.
        """
        queue, _, level = name.rpartition(b"^")
        await self._adopt(queue.decode("utf-8", "replace"), keys, (level,), FOREVER)

    async def read_line(self, stream: str, executor: str) -> None:
        """Reads from the line of an executor behind a stream from now on: from before the news of it comes
        back, or jobs that come later would start before those that this worker session has put in line.
        """
        line, name = self.served.line_of(stream, executor)
        if line not in self.served.streams:
            await self.add_level(self.served.keys[stream], name.encode())

    async def _adopt(self, queue: str, keys: Keys, levels: Iterable[bytes], timeout: float) -> None:
        for level in self.served.new_levels(queue, keys, levels):
            await self._make_group(keys, keys.stream(leveled(queue, level)), timeout)
            if not self.served.add_level(queue, keys, level):
                continue  # heard of twice
            self._has_more = True
            if self._waits:
                # Not for this stream, and maybe for seconds. It happens once in the life of a level, so the
                # connection is not too much to pay.
                self._reads.drop()

    def beating(self) -> Beating:
        """The blocking side of the lease, for its thread."""
        name = f"asyncq-beat:{self.name}"
        return Beating(self, self._commands.new_blocking_connection(name, self.settings.lease / 3))

    def beat_commands(self, count: int) -> list[tuple[Any, ...]]:
        """The beat, as EVALSHA, for each shard."""
        return [
            self._commands.build("beat", (keys.beats, keys.beaten, keys.looks, marks), (self.name, count))
            for keys, marks in zip(self.shards, self.marks_channels, strict=True)
        ]

    def beat_source(self) -> str:
        """The beat's script, to be loaded where the server does not know it."""
        return self._commands.scripts["beat"].source

    async def announce(self, tasks: Iterable[str], timeout: float = FOREVER) -> None:
        """Says which tasks this worker session knows, and which queues it serves."""
        for keys in self.shards:
            fields = (
                *(f"q{queue}" for queue in self.served.queues_in(keys)),
                *(f"t{task}" for task in tasks),
            )
            await self._commands.run(
                keys,
                "announce",
                (keys.beats, keys.abouts + self.name),
                (self.name, DAY_MS, *fields),
                timeout=timeout,
            )

    async def is_task_known(self, delivery: wire.Delivery, task: str) -> bool:
        """Whether a worker that lives knows a task, and serves the queue of a job."""
        keys = self.served.keys[delivery.stream]
        queue = self.served.queues[delivery.stream]
        answer = await self._commands.run(
            keys, "is_task_known", (keys.beats,), (keys.abouts, queue, task), timeout=FOREVER
        )
        return bool(answer)

    async def begin(self, delivery: wire.Delivery, over: Iterable[str]) -> bool:
        """Notes that the body of a job is about to begin; False if this worker session was taken for dead.

        Args:
            delivery: the job.
            over: the claims of jobs that were noted before, and that it does not have any more.
        """
        keys = self.served.keys[delivery.stream]
        answer = await self._commands.run(
            keys,
            "begin",
            (keys.beats, keys.begun + self.name),
            (self.name, delivery.claim, DAY_MS, *over),
            timeout=FOREVER,
        )
        return bool(answer)

    async def unregister(self) -> bool:
        """Goes in peace; False if it still holds something and may not."""
        left = True
        for keys, marks in zip(self.shards, self.marks_channels, strict=True):
            streams = self.served.streams_in(keys)
            own = (keys.beats, keys.beaten, marks, keys.abouts + self.name, keys.begun + self.name)
            answer = await self._commands.run(keys, "unregister", (*own, *streams), (GROUP, self.name))
            left &= bool(answer)
        return left

    def drop_read(self) -> None:
        """Gives up a read that waits at the server, so that the next command need not wait behind it.

        It may still be served: `unknown_entries` finds what it took, or the others do.
        """
        self._reads.drop()

    def close(self) -> None:
        """Closes the reading connection."""
        self._reads.close()

    # -- reading --

    async def read(
        self,
        streams: Sequence[str],
        count: int,
        *,
        block: bool,
        most: Mapping[str, int] = _NO_OTHER,
        timeout: int = BLOCK_MS,
    ) -> list[Entry]:
        """Claims up to `count` entries from the streams, the first that has some; waits a while if told to
        and all are empty.

        Args:
            streams: in the order in which they are read.
            count: at most so many entries.
            block: whether to wait.
            most: at most so many of some streams, and not `count`.
            timeout: how long to wait, in ms.

        Raises:
            PipeBroken, BrokerUnavailable: the connection was lost; entries may have been claimed, see
                `unknown_entries`.
            ServerError: the server refuses.
        """
        self._has_more = False
        if len(streams) > 1:
            # COUNT is per stream: 5 over two streams gave 10. So one stream at a time, and one entry where
            # several block.
            for stream in self._in_turn(streams):
                if entries := await self._read((stream,), most.get(stream, count), None):
                    return entries
            return await self._read(streams, 1, timeout) if block else []
        return await self._read(streams, most.get(streams[0], count), timeout if block else None)

    async def read_aside(self, stream: str, count: int) -> list[Entry]:
        """Claims up to `count` entries of a stream while another read may be waiting. Not between a question
        for unknown entries and its answer: what it claims would seem unknown. Cancelled, it may still claim
        some; `unknown_entries` waits until that is known.

        Raises:
            PipeBroken: the connection was lost; entries may have been claimed, see `unknown_entries`.
            ServerError: the server refuses.
        """
        reply = self._aside = asyncio.get_running_loop().create_future()
        command = ("XREADGROUP", "GROUP", GROUP, self.name, "COUNT", count, "STREAMS", stream, ">")
        # Once: sent again, it would claim others.
        self._commands.post(self.served.keys[stream], command, reply.set_result)
        answer = await asyncio.shield(reply)
        if isinstance(answer, Exception):
            raise answer
        return _entries(answer)

    def _in_turn(self, streams: Sequence[str]) -> Sequence[str]:
        """The streams in their order, but those of one name in several shards each first in its turn: one
        shard that is never empty must not starve the others.
        """
        if self.shards.is_one:
            return streams
        self._turn += 1
        ordered: list[str] = []
        for _, same in itertools.groupby(
            streams, lambda stream: stream.removeprefix(self.served.keys[stream].tag)
        ):
            some = list(same)
            first = self._turn % len(some)
            ordered += some[first:] + some[:first]
        return ordered

    async def _read(self, streams: Sequence[str], count: int, block: int | None) -> list[Entry]:
        blocking = () if block is None else ("BLOCK", block)
        pipe = self._reads.current or await self._reads.pipe()
        if block is not None and self._has_more:
            return []  # than was known when this read was asked for
        self._waits = block is not None
        limit, received = self._limit, pipe.received
        try:
            answer = await pipe.call(
                "XREADGROUP",
                "GROUP",
                GROUP,
                self.name,
                "COUNT",
                min(count, limit.entries),
                *blocking,
                "STREAMS",
                *streams,
                *[">"] * len(streams),
                now=True,
            )
        except PipeBroken as error:
            if self._waits and self._has_more:
                raise Interrupted(str(error)) from error
            raise
        finally:
            self._waits = False
        entries = _entries(answer)
        limit.note(len(entries), pipe.received - received)
        return entries

    async def unknown_entries(self, stream: str, held: Iterable[str]) -> list[Entry]:
        """Entries that are pending for this worker session, but not among those that it held when it asked:
        their reply was lost.

        To be asked on the connection that reads, between two reads, which is what this does. May come with an
        entry whose content was deleted: then its fields are None.
        """
        if self._aside is not None:
            # It reads on another connection, and whoever asked for it may be gone.
            await asyncio.wait({self._aside})
        pipe = self._reads.current or await self._reads.pipe()
        held = list(held)
        most = (
            len(held) + MAX_UNKNOWN
        )  # jobs that wait for others may be many, and the oldest are listed first
        arguments = (GROUP, self.name, most, *held)
        answer = await pipe.call(*self._commands.build("unknown_entries", (stream,), arguments))
        return [(stream, entry.decode(), fields) for entry, fields in answer]

    def job_id(self, item: Entry) -> str | None:
        """The id of the job in an entry, also in one whose message cannot be read; None if it has none."""
        fields = item[2] or []
        named = dict(zip(fields[::2], fields[1::2], strict=False))
        id_ = named.get(b"i")
        return None if id_ is None else text_of(id_)

    def delivery(self, item: Entry) -> wire.Delivery:
        """The job in an entry.

        Raises:
            DecodeError: no message of asyncq.
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
        job = wire.decode_job(id_.decode(), queue, message)
        return wire.Delivery(entry, stream, crashes, retries, job, values, limiter_state, put_off, last)

    async def promote(self, keys: Keys) -> float | None:
        """Moves due jobs of a shard into their queues; seconds until the next is due, None if there is
        none.
        """
        steady_time = self._commands.steady_time
        moved, left, steady, *damaged = await self._commands.run(
            keys,
            "promote",
            (keys.delayed,),
            (
                *(keys.space, keys.records, keys.messages, keys.queues, PROMOTE_AT_ONCE, keys.events),
                *(steady_time.expected(keys.shard), wire.PUSH_LIMIT),
            ),
        )
        steady_time.update(keys.shard, steady)
        for id_, is_lost, why in damaged:
            await self._put_off(keys, id_, why.decode("utf-8", "replace"), is_lost=bool(is_lost))
        if moved >= PROMOTE_AT_ONCE:
            return 0.0
        return None if left < 0 else left / 1000

    async def _put_off(self, keys: Keys, id_: bytes, why: str, *, is_lost: bool) -> None:
        """A job that was due could not be moved, and is tried again in a minute. One whose message is lost
        fails instead, for nobody can run it.

        Args:
            keys: of its shard.
            id_: of the job; it may be no text.
            why: it could not be moved.
            is_lost: whether its message is.
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
        call = early_end(keys, id_, wire.FAILED, outcome, self.settings.result_ttl, mark="")
        await self._commands.run(keys, "revoke", call.keys, call.arguments)

    def output(self, delivery: wire.Delivery) -> JobOutput:
        """What a job that it holds writes before it ends."""
        return JobOutput(self._commands, self.served.keys[delivery.stream], delivery)

    # -- the others --

    async def observe(self, keys: Keys, before: int, last: int, ages: Sequence[LookAge] = ()) -> Observation:
        """Looks at the other workers of a shard. Costs the server the same however many there are.

        Args:
            keys: of the shard.
            before: the number of an earlier look; who has not beaten since is named. 0 is none.
            last: the number of the last look; who was taken for dead since is named.
            ages: the earlier looks that this observer knows of, the oldest first, for others who begin to
                observe; empty to leave what the server has.
        """
        number, ages_before, *found = await self._commands.run(
            keys,
            "observe_workers",
            (keys.beats, keys.beaten, keys.looks, keys.ages),
            (
                *(before, last, round(self.settings.lease * 1000 * _KNOWN_AS_DEAD)),
                " ".join(f"{one.number}:{int(one.age * 1000)}" for one in ages),
            ),
        )
        silent = {name_from(one[0]): one[1] and name_from(one[1]) for one in found if len(one) > 1}
        taken = [name_from(one[0]) for one in found if len(one) == 1]
        return Observation(number, silent, taken, *_ages_in(ages_before))

    async def watch_streams(self, keys: Keys) -> StreamWatch:
        """Finds what it must know of its streams in a shard, three times a lease: from the notes of those who
        watch them, and where there is no watcher, or it is the one, by looking.
        """
        streams = self.served.streams_in(keys)
        # To read the notes is one command, also for the many workers that watch nothing.
        places = [keys.watchers + stream.removeprefix(keys.queues) for stream in streams]
        found = await self._commands.send(keys, "MGET", *places)
        notes: dict[str, bytes | None] = dict(zip(streams, found, strict=True))
        me = self.name.encode()
        mine = [stream for stream, note in notes.items() if note is None or _watcher(note) == me]
        if mine:
            watch_ttl = round(self.settings.lease * 1000 * 2 / 3)
            found = await self._commands.run(
                keys, "watch_streams", mine, (GROUP, keys.levels, keys.watchers, self.name, watch_ttl)
            )
            notes.update(zip(mine, found, strict=True))
        noted = {stream: note for stream, note in notes.items() if note is not None}
        return StreamWatch(
            await self._unread(keys, noted),
            [stream for stream in mine if _watcher(noted[stream]) == me],
            sum(_number(noted[stream]) for stream in streams if stream in self.served.last_attempt_queues),
        )

    async def _unread(self, keys: Keys, notes: dict[str, bytes]) -> list[bytes]:
        """The levels of its queues in a shard that it does not read, where their number has changed."""
        unread: list[bytes] = []
        for queue in self.served.queues_in(keys):
            stream = keys.stream(queue)
            number = _number(notes[stream])
            if number and number != self._levels_noted.get(stream):
                levels = await self._commands.send(keys, "SMEMBERS", keys.levels + queue)
                new = self.served.new_levels(queue, keys, levels)
                unread += [leveled(queue, level).encode() for level in new]
                if new:
                    continue  # until it reads them
            self._levels_noted[stream] = number
        return unread

    async def last_tries(self, keys: Keys) -> int:
        """Returns how many entries of the last-attempt queues of a shard that it serves no worker has."""
        waiting = 0
        for stream in self.served.streams_in(keys):
            if stream not in self.served.last_attempt_queues:
                continue
            if length := await self._commands.send(keys, "XLEN", stream):
                pending, *_ = await self._commands.send(keys, "XPENDING", stream, GROUP)
                waiting += max(0, length - pending)
        return waiting

    async def without_beat(self, keys: Keys, streams: Sequence[str]) -> list[dict[str, bool]]:
        """Those among the readers of some streams of a shard who have no beat: for each stream their names,
        and whether they were taken for dead not long ago.
        """
        send = self._commands.send
        # In this order: who begins to read has a beat already.
        listed = await asyncio.gather(*(send(keys, "XINFO", "CONSUMERS", one, GROUP) for one in streams))
        names = list({reader[b"name"]: None for readers in listed for reader in readers})
        taken: dict[bytes, bool] = {}
        for first in range(0, len(names), _NAMES_AT_ONCE):
            some = names[first : first + _NAMES_AT_ONCE]
            counts, looks = await asyncio.gather(
                send(keys, "HMGET", keys.beats, *some), send(keys, "ZMSCORE", keys.beaten, *some)
            )
            taken |= {
                name: look is not None and look < 0
                for name, count, look in zip(some, counts, looks, strict=True)
                if count is None
            }
        return [
            {name_from(one[b"name"]): taken[one[b"name"]] for one in readers if one[b"name"] in taken}
            for readers in listed
        ]


class LookAge(NamedTuple):
    """The number of an earlier look, and how many seconds ago it was made, at least."""

    number: int
    age: float


class Observation(NamedTuple):
    """What a worker sees of the others.

    Attributes:
        number: of this look: every later look of any worker has a higher one.
        silent: who has not beaten since the look that was named, and the count of its beats; None if it has
            none any more.
        taken: who was taken for dead since the last look.
        ages: of earlier looks, as the last observer that said so knew them, the oldest first.
        ages_at: the number of the look at which that observer said it; 0 if none did.
    """

    number: int
    silent: dict[str, str | None]
    taken: list[str]
    ages: Sequence[LookAge] = ()
    ages_at: int = 0


class StreamWatch(NamedTuple):
    """What a worker must know of its streams.

    Attributes:
        levels: names of levels of priority that its queues have and that it does not read.
        watched: the streams whose readers it is to look at, for nobody else does.
        last_tries: how many entries of the last-attempt queues that it serves no worker has.
    """

    levels: list[bytes]
    watched: list[str]
    last_tries: int


def _ages_in(text: bytes) -> tuple[Sequence[LookAge], int]:
    """The ages of looks that an observer left behind, and the number of the look at which it did."""
    at, *each = text.split()[:_MOST_AGES] or [b"0"]
    pairs = [one.partition(b":")[::2] for one in each]
    numbers = [wire.number_in(part, _LAST_LOOK) for part in (at, *itertools.chain.from_iterable(pairs))]
    if None in numbers:
        damaged_data.warn(
            log, "ages of looks", "the ages of other workers' looks are dropped", repr(text[:100])
        )
        return (), 0
    first, *rest = [number for number in numbers if number is not None]
    return [LookAge(*one) for one in zip(rest[::2], [age / 1000 for age in rest[1::2]], strict=True)], first


def _watcher(note: bytes) -> bytes:
    return note.rpartition(b" ")[0]


def _number(note: bytes) -> int:
    """The number in a note; 0 in one that somebody has damaged."""
    return wire.number_in(note.rpartition(b" ")[2], _MOST_NOTED) or 0


class Beating:
    """Sends the beats of one worker session, blocking, for the thread of the lease."""

    def __init__(self, consumer: Consumer, connection: BlockingConnection) -> None:
        self._consumer = consumer
        self._connection = connection

    def beat(self, count: int) -> list[str] | None:
        """One beat in every shard: the marks on jobs that the worker session holds, or None if it was taken
        for dead in one of them.

        Raises:
            BrokerUnavailable, ServerError: it was not acknowledged.
        """
        failpoints.hit("beat.send")
        marks: list[str] = []
        for command in self._consumer.beat_commands(count):
            answer = self._call(command)
            if answer is None:
                return None
            texts = list(map(text_of, answer))
            marks += sorted(map(_signal, texts[::2], texts[1::2]))
        failpoints.hit("beat.answered")
        return marks

    def _call(self, command: tuple[Any, ...]) -> Any:
        try:
            return self._connection.call(*command)
        except ServerError as error:
            if error.action is not ErrorAction.LOAD:
                raise
            self._connection.call("SCRIPT", "LOAD", self._consumer.beat_source())
            return self._connection.call(*command)

    def close(self) -> None:
        """Closes the connection."""
        self._connection.close()


def _signal(id: str, mark: str) -> str:
    """The mark of a job as it is published: the reason stands behind the id."""
    return f"{mark[:1]}{id} {mark[1:]}" if mark[1:] else f"{mark}{id}"


def _entries(answer: Any) -> list[Entry]:
    if not answer:
        return []
    failpoints.hit("read.answered")
    return [
        (stream.decode(), entry.decode(), fields)
        for stream, entries in answer.items()
        for entry, fields in entries
    ]
