"""Reads entries from the streams of some shards, over one connection, for a worker session. Reading an entry
claims it.

Runs on the worker's loop. One server has one reader, for all shards. On a Cluster each shard has a reader: a
command with keys of two shards is refused there, and each read that waits needs a connection of its own.
"""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING, Any

from asyncq import failpoints
from asyncq.broker.schema.keys import GROUP, level_of
from asyncq.broker.transport.pipe import PipeBroken

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from asyncq.broker.commands import Commands
    from asyncq.broker.read_limit import ReadLimit
    from asyncq.broker.schema.keys import Keys
    from asyncq.broker.served_streams import Served
    from asyncq.broker.transport.pipe import Pipe

BLOCK_MS = 5000
"""How long an idle read stays at the server, in ms. Short, because the server still gives entries to the read
of a process that has died. Long, because an idle worker should send few commands."""
MAX_UNKNOWN = 1000
"""Most unknown pending entries that one question finds."""
NO_OTHER: Mapping[str, int] = {}
"""No other limits for single streams."""

Entry = tuple[str, str, list[Any]]
"""What a read returns for each job: stream, entry id, fields."""


class Interrupted(PipeBroken):
    """A blocking read was given up: a stream was added meanwhile, or a queue paused."""


class EntryReader:
    """The reader of some shards.

    Args:
        commands: of the session.
        served: the streams that the worker session reads from.
        session_id: of the worker session.
        limit: how many entries a read asks for at most.
        numbers: of the shards.

    Attributes:
        shards: the key names of its shards.
    """

    def __init__(
        self, commands: Commands, served: Served, session_id: str, limit: ReadLimit, numbers: Sequence[int]
    ) -> None:
        self.shards: tuple[Keys, ...] = tuple(commands.shards[number] for number in numbers)
        self._commands = commands
        self._served = served
        self._session_id = session_id
        self._limit = limit
        self._numbers = frozenset(numbers)
        self._turn = 0
        self._waits = self._has_more = False
        self._connection = commands.new_connection(
            f"asyncq-read:{session_id}", shard=numbers[0], timeout=BLOCK_MS / 1000 + 5
        )

    def own(self, streams: Iterable[str]) -> list[str]:
        """Returns the streams that lie in its shards."""
        if len(self._numbers) == self._commands.shards.count:
            return list(streams)
        keys = self._served.keys
        return [stream for stream in streams if keys[stream].shard in self._numbers]

    def choose_anew(self) -> None:
        """Makes the next read begin soon, because there are other streams to read from: gives up one that
        waits at the old streams, perhaps for seconds. Only breaking the connection ends it. That happens once
        for each level and pause, so it is cheap enough.
        """
        self._has_more = True
        if self._waits:
            self._connection.drop()

    def drop(self) -> None:
        """Gives up a blocking read, so that the next command does not wait behind it.

        The server may give entries to this read all the same. `unknown_entries` finds them, or the recovery
        of other workers does.
        """
        self._connection.drop()

    def close(self) -> None:
        """Closes the connection."""
        self._connection.close()

    async def read(
        self,
        streams: Sequence[str],
        count: int,
        *,
        block: bool,
        most: Mapping[str, int] = NO_OTHER,
        timeout: int = BLOCK_MS,
    ) -> list[Entry]:
        """Claims up to `count` entries of the first stream that has some. If all streams are empty, it waits
        for an entry if `block` is set, and returns an empty list otherwise.

        Args:
            streams: in the order in which they are read; they lie in its shards.
            count: at most so many entries.
            block: whether to wait.
            most: other limits than `count`, by stream.
            timeout: how long to wait, in ms.

        Raises:
            Interrupted: a stream was added, or left out, while the read waited.
            PipeBroken, BrokerUnavailable: the connection was lost; entries may have been claimed, see
                `unknown_entries`.
            ServerError: the server refuses.
        """
        self._has_more = False
        if len(streams) > 1:
            # COUNT holds for each stream: a COUNT of 5 over two streams gave 10 entries. So a script tries
            # one stream after the other, and a blocking read of several asks for one entry.
            for some in self._in_turn(streams):
                if entries := await self._claim(some, count, most):
                    return entries
            return await self._read(streams, 1, timeout) if block else []
        return await self._read(streams, most.get(streams[0], count), timeout if block else None)

    async def wait(self, streams: Sequence[str], timeout: int, *, chosen_now: bool) -> list[Entry]:
        """Waits for an entry of any stream, and claims it: one of each stream at most. Other arguments and
        errors as of `read`.

        Args:
            streams: as of `read`.
            timeout: as of `read`.
            chosen_now: whether the streams were chosen right before. Else they were chosen before the last
                `read`, and it does not wait if there are others since then.
        """
        if chosen_now:
            self._has_more = False
        return await self._read(streams, 1, timeout)

    def _in_turn(self, streams: Sequence[str]) -> Sequence[Sequence[str]]:
        """Returns the streams in their order, and groups those that one call may claim from: all, if there is
        one shard, else those of a level in a shard. Of each level, every call puts another shard first.
        Otherwise a shard that is never empty would starve the others.
        """
        if len(self._numbers) == 1:
            return [streams]
        self._turn += 1
        groups: list[Sequence[str]] = []
        names, keys = self._served.streams, self._served.keys
        for _, of_level in itertools.groupby(
            streams, lambda stream: level_of(names.get(stream) or self._served.last_attempt_queues[stream])
        ):
            some = [list(group) for _, group in itertools.groupby(of_level, keys.__getitem__)]
            first = self._turn % len(some)
            groups += some[first:] + some[:first]
        return groups

    async def _claim(self, streams: Sequence[str], count: int, most: Mapping[str, int]) -> list[Entry]:
        """Claims up to `count` entries of some streams of a shard, by one call that does not wait."""
        if len(streams) == 1:
            return await self._read(streams, most.get(streams[0], count), None)
        pipe = self._connection.current or await self._new_pipe()
        limit, received = self._limit, pipe.received
        count = min(count, limit.entries)
        bounds = [min(count, most.get(one, count)) for one in streams] if most else ()
        arguments = (GROUP, self._session_id, count, *bounds)
        command = self._commands.build(self._served.keys[streams[0]], "claim", streams, arguments)
        found = await pipe.call(*command, now=True)
        entries = entries_of(dict([found]) if found else None)
        limit.note(len(entries), pipe.received - received)
        return entries

    async def _read(self, streams: Sequence[str], count: int, block: int | None) -> list[Entry]:
        """Sends one XREADGROUP. `block` is how long it waits, in ms; None for a read that does not wait."""
        blocking = () if block is None else ("BLOCK", block)
        pipe = self._connection.current or await self._new_pipe()
        if block is not None and self._has_more:
            # A stream was added or left out while the calls that do not wait were under way. Blocking on the
            # old streams would be wrong, so the caller must choose the streams anew.
            return []
        self._waits = block is not None
        limit, received = self._limit, pipe.received
        try:
            answer = await pipe.call(
                "XREADGROUP",
                "GROUP",
                GROUP,
                self._session_id,
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
        entries = entries_of(answer)
        limit.note(len(entries), pipe.received - received)
        return entries

    async def _new_pipe(self) -> Pipe:
        """Waits for the connection that reads.

        Raises:
            Interrupted: other streams than before are to be read from now, so the caller must choose anew.
            BrokerUnavailable: see `Connection.pipe`.
        """
        pipe = await self._connection.pipe()
        if self._has_more:
            raise Interrupted("a stream was added or left out before the read was sent")
        return pipe

    async def unknown_entries(self, stream: str, held: Iterable[str]) -> list[Entry]:
        """Returns the unknown pending entries of a stream: they are pending for this worker session but not
        among those that it holds, for the reply that named them was lost. If the content of an entry was
        deleted, its fields are None.

        The question goes over the reading connection and between two reads, so no reply of a read can be on
        its way while the server answers. Raises as `read`.

        Args:
            stream: a stream of its shards.
            held: the entries that it holds.
        """
        pipe = self._connection.current or await self._connection.pipe()
        held = list(held)
        # The server lists the oldest entries first, and those are of jobs that wait for others: there may be
        # many of them, and the unknown ones are behind them.
        arguments = (GROUP, self._session_id, len(held) + MAX_UNKNOWN, *held)
        keys = self._served.keys[stream]
        answer = await pipe.call(*self._commands.build(keys, "unknown_entries", (stream,), arguments))
        return [(stream, entry.decode(), fields) for entry, fields in answer]


def entries_of(answer: Any) -> list[Entry]:
    """Makes a list of entries of a reply to XREADGROUP."""
    if not answer:
        return []
    failpoints.hit("read.answered")
    return [
        (stream.decode(), entry.decode(), fields)
        for stream, entries in answer.items()
        for entry, fields in entries
    ]
