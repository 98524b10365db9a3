"""The worker's verbs: what one incarnation of a worker does to the queues it serves.

An incarnation has a name of its own that is never used again; it is the stream's consumer, and being listed
as the holder of an entry is the claim. A name that came back would find its predecessor's entries as its own
and no crash would ever be counted.
"""

from __future__ import annotations

import itertools
import logging
import time
from typing import TYPE_CHECKING, Any, NamedTuple

from asyncq import failpoints, wire
from asyncq.broker import rights
from asyncq.broker.commands import FOREVER
from asyncq.broker.connection import ServerError, Verdict
from asyncq.broker.keys import DAY_MS, GROUP, LAST_TRY, leveled, queue_of, result_ttl_ms, token
from asyncq.broker.pipe import PipeBroken
from asyncq.broker.submission import Submission
from asyncq.errors import DecodeError

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from asyncq.broker.commands import Commands
    from asyncq.broker.connection import BlockingConnection
    from asyncq.broker.keys import Keys
    from asyncq.broker.shards import Shards
    from asyncq.config import Settings

log: logging.Logger = logging.getLogger(__name__)

BLOCK_MS = 3000
"""How long an idle read stays at the server. Short, for a read of a process that died is still served; long,
for an idle worker should send about one command a second."""
GHOSTS = 1000
PROMOTE_AT_ONCE = 100

_LEVELS = {str(level).encode(): level for level in range(wire.LOWEST, wire.HIGHEST + 1) if level}

Entry = tuple[str, str, list[Any]]
"""What a read brings: stream, entry id, fields."""


class Taken(NamedTuple):
    """What became of the jobs of a dead incarnation.

    `put_back` and `revoked` count jobs that go on and that have ended as revoked; `lost` names the id and the
    task of those that ended as lost; `has_more` says to call again.
    """

    put_back: int = 0
    revoked: int = 0
    lost: Sequence[tuple[str, str]] = ()
    has_more: bool = False


class Interrupted(PipeBroken):
    """A read that waited was given up: there is more to read from."""


class Consumer:
    """One incarnation of a worker, as the server sees it.

    Args:
        commands: of the session.
        worker: the worker's name, the readable part of the incarnation's.
        queues: to read from, the most urgent first.

    Attributes:
        streams: that it reads from, the most urgent first, and what records call them: queues in their given
            order, and of each the highest level of priority first.
        lanes: the same of last tries.
    """

    def __init__(self, commands: Commands, worker: str, queues: Sequence[str]) -> None:
        self.name: str = f"{worker}-{token()}"
        self.shards: Shards = commands.shards
        self.settings: Settings = commands.settings
        self.streams: dict[str, str] = {}
        self.lanes: dict[str, str] = {}
        self._keys: dict[str, Keys] = {}
        self._turn = 0
        self._queues: dict[str, str] = {}
        # By queue and number of the shard.
        self._levels: dict[tuple[str, int], set[int]] = {
            (queue, keys.shard): {0} for queue in queues for keys in self.shards
        }
        for queue, shard in self._levels:
            self._add(self.lanes, self.shards[shard], queue + LAST_TRY)
        self._arrange()
        self._waits = self._has_more = False
        self.marks_channels: tuple[str, ...] = tuple(keys.marks + self.name for keys in self.shards)
        self._commands = commands
        self._reads = commands.new_line(f"asyncq-read:{self.name}", patience=BLOCK_MS / 1000 + 5)

    # -- coming and going --

    async def check_rights(self) -> None:
        """Sees to it that the user may do all that a worker of these queues does; raises as
        `rights.require`.
        """
        calls = [call for keys in self.shards for call in rights.of_worker(keys, self._streams_in(keys))]
        await rights.require(self._commands, calls)

    def _add(self, streams: dict[str, str], keys: Keys, name: str) -> None:
        stream = keys.stream(name)
        streams[stream] = name
        self._keys[stream] = keys
        self._queues[stream] = queue_of(name)

    def _arrange(self) -> None:
        """Puts the streams in the order in which they are read."""
        streams: dict[str, str] = {}
        for queue in dict.fromkeys(queue for queue, _ in self._levels):
            for level in range(wire.HIGHEST, wire.LOWEST - 1, -1):
                for keys in self.shards:
                    if level in self._levels[queue, keys.shard]:
                        self._add(streams, keys, leveled(queue, level))
        self.streams = streams

    def _streams_in(self, shard: Keys) -> list[str]:
        """The streams and lanes that it reads from in a shard."""
        return [stream for stream in (*self.streams, *self.lanes) if self._keys[stream] is shard]

    def queue(self, stream: str) -> str:
        """The queue that a stream belongs to, whatever its level."""
        return self._queues[stream]

    def shard(self, stream: str) -> Keys:
        """The shard that a stream lies in."""
        return self._keys[stream]

    def events_of(self, delivery: wire.Delivery) -> str:
        """The channel of whoever follows a job."""
        return self._keys[delivery.stream].events + delivery.job.id

    async def make_groups(self, patience: float = FOREVER) -> None:
        """Makes the group of every stream it reads from, where there is none: at start-up, and after the
        server lost its data. For ever by default, which takes a missing permission for a passing one.
        """
        for stream in (*self.streams, *self.lanes):
            await self._make_group(self._keys[stream], stream, patience)

    async def _make_group(self, keys: Keys, stream: str, patience: float) -> None:
        try:
            # At 0: what was enqueued before the first worker came is work too.
            await self._commands.send(
                keys, "XGROUP", "CREATE", stream, GROUP, "0", "MKSTREAM", patience=patience
            )
        except ServerError as error:
            if error.code != "BUSYGROUP":
                raise

    async def look_for_levels(self, patience: float = FOREVER) -> None:
        """Looks which levels of priority its queues have, and reads from all of them from now on."""
        for queue, shard in self._levels:
            keys = self.shards[shard]
            levels = await self._commands.send(keys, "SMEMBERS", keys.levels + queue, patience=patience)
            await self._adopt(queue, keys, levels, patience)

    async def hear_of_level(self, keys: Keys, name: bytes) -> None:
        """A level has come into use in a shard, under that name: reads from it if the queue is one of its
        own.
        """
        queue, _, level = name.rpartition(b"^")
        mine = queue.decode("utf-8", "replace")
        if (mine, keys.shard) in self._levels:
            await self._adopt(mine, keys, (level,), FOREVER)

    async def _adopt(self, queue: str, keys: Keys, levels: Iterable[bytes], patience: float) -> None:
        known = self._levels[queue, keys.shard]
        for level in {_LEVELS[one] for one in levels if one in _LEVELS} - known:
            await self._make_group(keys, keys.stream(leveled(queue, level)), patience)
            if level in known:
                continue  # heard of twice
            known.add(level)
            self._arrange()
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
            self._commands.build("beat", (keys.beats, marks), (self.name, count))
            for keys, marks in zip(self.shards, self.marks_channels, strict=True)
        ]

    def beat_source(self) -> str:
        """The beat's script, to be loaded where the server does not know it."""
        return self._commands.scripts["beat"].source

    async def leave(self) -> bool:
        """Goes in peace; False if it still holds something and may not."""
        left = True
        for keys, marks in zip(self.shards, self.marks_channels, strict=True):
            streams = self._streams_in(keys)
            answer = await self._commands.run(
                keys, "leave", (keys.beats, marks, *streams), (GROUP, self.name)
            )
            left &= bool(answer)
        return left

    def drop_read(self) -> None:
        """Gives up a read that waits at the server, so that the next command need not wait behind it.

        It may still be served: `ghosts` finds what it took, or the others do.
        """
        self._reads.drop()

    def close(self) -> None:
        """Closes the reading connection."""
        self._reads.close()

    # -- reading --

    async def read(self, streams: Sequence[str], count: int, *, block: bool) -> list[Entry]:
        """Claims up to `count` entries from the streams, the first that has some; waits a while if told to
        and all are empty.

        Raises:
            PipeBroken, BrokerUnavailable: the connection was lost; entries may have been claimed, see
                `ghosts`.
            ServerError: the server refuses.
        """
        self._has_more = False
        if len(streams) > 1:
            # COUNT is per stream: 5 over two streams gave 10. So one stream at a time, and one entry where
            # several block.
            for stream in self._in_turn(streams):
                if entries := await self._read((stream,), count, None):
                    return entries
            return await self._read(streams, 1, BLOCK_MS) if block else []
        return await self._read(streams, count, BLOCK_MS if block else None)

    def _in_turn(self, streams: Sequence[str]) -> Sequence[str]:
        """The streams in their order, but those of one name in several shards each first in its turn: one
        shard that is never empty must not starve the others.
        """
        if self.shards.is_one:
            return streams
        self._turn += 1
        ordered: list[str] = []
        for _, same in itertools.groupby(streams, lambda stream: stream.removeprefix(self._keys[stream].tag)):
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
        try:
            answer = await pipe.call(
                "XREADGROUP",
                "GROUP",
                GROUP,
                self.name,
                "COUNT",
                count,
                *blocking,
                "STREAMS",
                *streams,
                *[">"] * len(streams),
            )
        except PipeBroken as error:
            if self._waits and self._has_more:
                raise Interrupted(str(error)) from error
            raise
        finally:
            self._waits = False
        if not answer:
            return []
        failpoints.hit("read.answered")
        return [
            (stream.decode(), entry.decode(), fields)
            for stream, entries in answer.items()
            for entry, fields in entries
        ]

    async def ghosts(self, stream: str, held: Iterable[str]) -> list[Entry]:
        """Entries that are pending for this incarnation, but not among those that it held when it asked:
        their reply was lost.

        To be asked on the connection that reads, between two reads, which is what this does. May come with an
        entry whose content was deleted: then its fields are None.
        """
        pipe = self._reads.current or await self._reads.pipe()
        held = list(held)
        most = len(held) + GHOSTS  # jobs that wait for others may be many, and the oldest are listed first
        answer = await pipe.call(*self._commands.build("ghosts", (stream,), (GROUP, self.name, most, *held)))
        return [(stream, entry.decode(), fields) for entry, fields in answer]

    def job_id(self, item: Entry) -> str | None:
        """The id of the job in an entry, also in one whose message cannot be read; None if it has none."""
        fields = item[2] or []
        named = dict(zip(fields[::2], fields[1::2], strict=False))
        id_ = named.get(b"i")
        return None if id_ is None else id_.decode("utf-8", "backslashreplace")

    def delivery(self, item: Entry) -> wire.Delivery:
        """The job in an entry.

        Raises:
            DecodeError: no message of asyncq.
        """
        stream, entry, fields = item
        queue = self._queues[stream]
        if fields and len(fields) == 4 and fields[0] == b"i" and fields[2] == b"m":
            crashes = retries = 0
            id_, message, values, turn = fields[1], fields[3], b"", b""
        else:
            named = dict(zip(fields[::2], fields[1::2], strict=True)) if fields else {}
            if b"i" not in named or b"m" not in named:
                raise DecodeError(f"entry {entry} of queue {queue!r} has no job in it")
            id_, message = named[b"i"], named[b"m"]
            crashes, retries = int(named.get(b"c", 0)), int(named.get(b"a", 0))
            values, turn = named.get(b"v", b""), named.get(b"g", b"")
        job = wire.decode_job(id_.decode(), queue, message)
        return wire.Delivery(entry, stream, crashes, retries, job, values, turn)

    # -- ending --

    def finish_command(
        self, stream: str, held: int, batch: Sequence[tuple[wire.Delivery, str, bytes]]
    ) -> tuple[Any, ...]:
        """The call that ends jobs of one stream, each with a letter and an outcome; `held` is how many
        entries the worker has.
        """
        queue = self.streams.get(stream) or self.lanes[stream]
        keys = self._keys[stream]
        # One look over all pending entries is cheaper than one each as long as there are at most three times
        # as many (measured).
        span = held + 8 if len(batch) > 1 and held <= 3 * len(batch) else 0
        command: list[Any] = [
            "EVALSHA", self._commands.scripts["finish"].sha, 1, stream,
            keys.space, queue, GROUP, self.name, span, wire.PUSH_LIMIT, keys.marks,
        ]  # fmt: skip
        for delivery, letter, outcome in batch:
            job = delivery.job
            command += (delivery.entry, job.id, job.nonce, job.channel, letter, job.result_ttl, outcome)
        return tuple(command)

    def passed_on(self, batch: Sequence[tuple[wire.Delivery, str, bytes]]) -> None:
        """Jobs have ended, and those that wait for them may lie in another shard."""
        if self.shards.is_one:
            return
        delivery, _, _ = batch[0]  # all of one stream
        if any(delivery.job.dependents or letter != wire.SUCCEEDED for delivery, letter, _ in batch):
            self._commands.forward(self._keys[delivery.stream])

    async def finish_now(
        self, stream: str, held: int, batch: Sequence[tuple[wire.Delivery, str, bytes]]
    ) -> int | list[int]:
        """Ends jobs of one stream, for as long as it takes: how many there are, or for each 1 done, 0
        refused.
        """
        command = self.finish_command(stream, held, batch)
        answer: int | list[int] = await self._commands.send(self._keys[stream], *command, patience=FOREVER)
        return answer

    async def retry(self, delivery: wire.Delivery, wait: int, retries: int, failure: bytes) -> int:
        """Puts a failed job aside for `wait` ms: 1 done, 2 ended by a mark instead, 0 refused."""
        return await self._put_aside("retry", delivery, wait, retries, failure)

    async def postpone(self, delivery: wire.Delivery, wait: int, turn: bytes) -> int:
        """Puts a job aside that has not begun, for at most `wait` ms: 1 done, 2 ended by a mark instead, 0
        refused.
        """
        return await self._put_aside("postpone", delivery, wait, turn)

    async def _put_aside(self, script: str, delivery: wire.Delivery, *why: Any) -> int:
        keys, job = self._keys[delivery.stream], delivery.job
        revoked = self._last_words(wire.REVOKED, delivery.stream, self.name, delivery.attempt)
        arguments = (
            *(keys.space, GROUP, self.name, delivery.entry, job.id, *why),
            *(keys.messages, keys.wake, wire.PUSH_LIMIT, job.result_ttl, keys.marks, revoked),
        )
        answer: int = await self._commands.run(
            keys, script, (delivery.stream, keys.delayed), arguments, patience=FOREVER
        )
        return answer

    async def bury(self, delivery: wire.Delivery, outcome: bytes, reason: str) -> int:
        """Ends a job with a failure and keeps it with the dead letters: 1 done, 2 done before, 0 refused."""
        keys, job = self._keys[delivery.stream], delivery.job
        arguments = (
            *(keys.space, GROUP, self.name, delivery.entry, job.id, outcome, job.result_ttl),
            *(wire.PUSH_LIMIT, keys.marks, reason, *self._dead_limits()),
        )
        answer: int = await self._commands.run(
            keys, "bury", (delivery.stream, keys.dead), arguments, patience=FOREVER
        )
        return answer

    async def replace(self, delivery: wire.Delivery, jobs: Sequence[tuple[wire.Job, bytes]]) -> int:
        """Puts a workflow in the place of a job that runs; the last of its jobs takes the job's id: 1 done, 2
        ended by a mark instead, 0 refused, -1 another job has the id of one of them.
        """
        keys, job = self._keys[delivery.stream], delivery.job
        submission = Submission(jobs, self.shards, keys.shard)
        last, message = jobs[-1]
        queue = leveled(last.queue, last.priority)
        if await submission.taken(self._commands, FOREVER):
            return -1
        revoked = self._last_words(wire.REVOKED, delivery.stream, self.name, delivery.attempt)
        arguments = (
            *(keys.space, GROUP, self.name, delivery.entry, job.id, wire.PUSH_LIMIT, job.result_ttl),
            *(keys.marks, revoked, self._commands.channel, queue, "" if last.wait is None else last.wait),
            *(" ".join(last.parents), "1" if last.shape is not None else "", message),
            *(submission.parcels(self._commands.channel), *submission.arguments(but=last)),
        )
        answer: int = await self._commands.run(
            keys, "replace", (delivery.stream,), arguments, patience=FOREVER
        )
        return answer

    async def promote(self, keys: Keys) -> float | None:
        """Moves due jobs of a shard into their queues; seconds until the next is due, None if there is
        none.
        """
        arguments = (keys.records, keys.messages, keys.queues, PROMOTE_AT_ONCE, keys.events)
        moved, left = await self._commands.run(keys, "promote", (keys.delayed,), arguments)
        if moved >= PROMOTE_AT_ONCE:
            return 0.0
        return None if left < 0 else left / 1000

    def _dead_limits(self) -> tuple[int, int]:
        return round(self.settings.dead_ttl * 1000), self.settings.dead_cap

    async def release(self, stream: str, jobs: Sequence[tuple[str, str]]) -> list[int]:
        """Hands (entry, id)s back to their queue without counting a crash: for each 1 handed back, 2 ended by
        a mark, 0 not ours.
        """
        ttl = result_ttl_ms(self.settings.result_ttl)
        flat = [part for job in jobs for part in job]
        revoked = self._last_words(wire.REVOKED, stream, self.name, 0)
        keys = self._keys[stream]
        arguments = (
            keys.space,
            GROUP,
            self.name,
            wire.PUSH_LIMIT,
            ttl,
            keys.marks,
            revoked,
            *flat,
        )
        failpoints.hit("release.send")
        answer: list[int] = await self._commands.run(keys, "release", (stream,), arguments)
        failpoints.hit("release.answered")
        return answer

    async def discard(self, item: Entry, reason: str, outcome: bytes) -> None:
        """Sets an entry aside that is no message; a job that stands behind it fails with the outcome."""
        stream, entry, _ = item
        ttl = result_ttl_ms(self.settings.result_ttl)
        keys = self._keys[stream]
        arguments = (
            keys.space,
            GROUP,
            self.name,
            entry,
            reason,
            outcome,
            ttl,
            wire.PUSH_LIMIT,
            *self._dead_limits(),
        )
        await self._commands.run(keys, "discard", (stream, keys.dead), arguments, patience=FOREVER)

    async def report(self, delivery: wire.Delivery, number: int, state: str, meta: bytes) -> int:
        """Stores what a job says of itself, as its report number `number`: 1 done, 0 refused."""
        keys, job = self._keys[delivery.stream], delivery.job
        answer: int = await self._commands.run(
            keys,
            "progress",
            (keys.records + job.id, keys.latest + job.id),
            (
                *(delivery.entry, number, int(time.time() * 1000), state, meta),
                *(DAY_MS, keys.events + job.id, wire.PUSH_LIMIT),
            ),
            patience=FOREVER,
        )
        return answer

    def emit_command(
        self, delivery: wire.Delivery, known: int, number: int, items: Sequence[bytes]
    ) -> tuple[Any, ...]:
        """The call that appends items of a generator from number `number` on; the server has had all up to
        `known`.
        """
        keys, id_ = self._keys[delivery.stream], delivery.job.id
        return (
            *("EVALSHA", self._commands.scripts["emit"].sha, 3),
            *(keys.records + id_, keys.items + id_, keys.places + id_),
            *(delivery.entry, keys.events + id_, wire.PUSH_LIMIT, DAY_MS, known, number),
            *items,
        )

    async def let_report_go(self, delivery: wire.Delivery) -> None:
        """What a job said of itself goes when its result does, if nobody says more."""
        keys, job = self._keys[delivery.stream], delivery.job
        await self._commands.send(keys, "PEXPIRE", keys.latest + job.id, job.result_ttl)

    async def pace(
        self, delivery: wire.Delivery, *, wanted: int = 0, ttl: int = DAY_MS
    ) -> tuple[int, int, int] | None:
        """Where the readers of a stream are: the number that the furthest took (-1: nobody yet), ms since it
        read, and ms since anybody did (-1: nobody). None if the job has ended or runs elsewhere.

        Args:
            delivery: the job.
            wanted: the number that a reader is to come to, who says so on the job's channel; 0 for none.
            ttl: how long to keep the stream from now on, in ms.
        """
        keys, id_ = self._keys[delivery.stream], delivery.job.id
        answer = await self._commands.run(
            keys,
            "pace",
            (keys.records + id_, keys.items + id_, keys.places + id_),
            (delivery.entry, ttl, wanted, ttl),
            patience=FOREVER,
        )
        return tuple(answer) if len(answer) == 3 else None

    # -- the others --

    async def census(
        self, keys: Keys
    ) -> tuple[dict[str, str], dict[str, tuple[dict[str, int], int]], list[bytes]]:
        """How far each incarnation's beats in a shard have come; and for each stream and lane there that it
        reads from, who reads with how many entries pending, and how many entries nobody holds; and the names
        of levels of priority that its queues have and that it does not read.
        """
        streams = self._streams_in(keys)
        mine = [queue for queue, shard in self._levels if shard == keys.shard]
        answer = await self._commands.run(keys, "census", (keys.beats, *streams), (GROUP, keys.levels, *mine))
        beats, levels, queues = answer[0], answer[1 : 1 + len(mine)], answer[1 + len(mine) :]
        counts = {name.decode(): count.decode() for name, count in zip(beats[::2], beats[1::2], strict=True)}
        seen = {
            stream: ({name.decode(): pending for name, pending in readers}, waiting)
            for stream, (readers, waiting) in zip(streams, queues, strict=True)
        }
        unread = [
            b"%s^%s" % (queue.encode(), level)
            for queue, found in zip(mine, levels, strict=True)
            for level in found
            if _LEVELS.get(level, 0) not in self._levels[queue, keys.shard]
        ]
        return counts, seen, unread

    async def take(self, stream: str, dead: str, seen: str | None) -> Taken:
        """Takes what a dead incarnation held. Nothing if it beats after all."""
        ttl = result_ttl_ms(self.settings.result_ttl)
        keys = self._keys[stream]
        last_try = keys.stream(self._queues[stream] + LAST_TRY)
        failpoints.hit("take.send")
        looked, back, revoked, more, *lost = await self._commands.run(
            keys,
            "take",
            (stream, keys.beats, keys.dead, keys.marks + dead, last_try),
            (
                keys.space,
                GROUP,
                dead,
                seen or "",
                100,
                self.settings.max_crashes,
                self.name,
                wire.PUSH_LIMIT,
                ttl,
                self._last_words(wire.LOST, stream, dead, self.settings.max_crashes),
                self._last_words(wire.REVOKED, stream, dead, 0),
                *self._dead_limits(),
            ),
        )
        failpoints.hit("take.answered")
        if looked < 0:
            return Taken()
        jobs = [(id_.decode(), wire.task_name(head)) for id_, head in lost]
        return Taken(back, revoked, jobs, bool(more))

    def _last_words(self, letter: str, stream: str, dead: str, attempts: int) -> bytes:
        """The outcome of a job that a dead worker will not finish."""
        queue = self._queues[stream]
        worker = dead.rpartition("-")[0]
        finished = int(time.time() * 1000)
        return wire.encode_ended(
            wire.Ended(letter, finished=finished, attempts=attempts, worker=worker, queue=queue)
        )


class Beating:
    """Sends the beats of one incarnation, blocking, for the thread of the lease."""

    def __init__(self, consumer: Consumer, connection: BlockingConnection) -> None:
        self._consumer = consumer
        self._connection = connection

    def beat(self, count: int) -> list[str] | None:
        """One beat in every shard: the marks on jobs that the incarnation holds, or None if it was taken for
        dead in one of them.

        Raises:
            BrokerUnavailable, ServerError: it was not acknowledged.
        """
        failpoints.hit("beat.send")
        marks: list[str] = []
        for command in self._consumer.beat_commands(count):
            answer = self._call(command)
            if answer is None:
                return None
            marks += sorted(mark.decode() for mark in answer)
        failpoints.hit("beat.answered")
        return marks

    def _call(self, command: tuple[Any, ...]) -> Any:
        try:
            return self._connection.call(*command)
        except ServerError as error:
            if error.verdict is not Verdict.LOAD:
                raise
            self._connection.call("SCRIPT", "LOAD", self._consumer.beat_source())
            return self._connection.call(*command)

    def close(self) -> None:
        """Closes the connection."""
        self._connection.close()
