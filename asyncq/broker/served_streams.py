"""Knows which streams a worker session reads from: in which order, and in which shard each lies. The consumer
owns it, and the modules of the worker read it, on the worker's loop. It talks to no server.

The set only grows: a queue gets a stream for each level of priority, for each executor queue and for each
returned queue that comes into use.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from asyncq import wire
from asyncq.broker.schema.keys import EXECUTORS, LAST_ATTEMPT, LEVEL, RETURNED, leveled, queue_of

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Sequence

    from asyncq.broker.schema.keys import Keys
    from asyncq.broker.schema.shards import Shards

_OF_LEVEL = (RETURNED, *EXECUTORS.values(), "")
"""The streams of one level in the order in which they are read. The jobs of its returned queue and of its
executor queues have been read from the level before, so they are older.
"""

_ORDER = tuple(
    tuple(f"{level or ''}{stream}" for stream in _OF_LEVEL)
    for level in range(wire.HIGHEST, wire.LOWEST - 1, -1)
)
"""The streams of each level, the highest level first."""

_EXECUTOR_OF = {sign: executor for executor, sign in EXECUTORS.items()}

_LEVELS = {name.encode(): name for names in _ORDER for name in names if name}


class Served:
    """The streams of some queues in all shards.

    Args:
        shards: of the namespace.
        queues: the most urgent first.

    Attributes:
        streams: the streams to read from, the most urgent first, each with its name in records. Queues are in
            their given order, and the highest level of priority of each is first. A new level makes a new
            dictionary, so a loop over the old one may await.
        last_attempt_queues: the streams of the last-attempt queues, each with its name in records.
        keys: the shard that each stream lies in.
        queues: the queue that each stream belongs to, whatever its level.
        executor_queues: the streams that are executor queues, each with the executor that its jobs wait for.
        paused: those of the served queues that are paused.
        open_streams: those of `streams` that are read from now: not those of paused queues, and none while
            the worker is quiet.
        open_last_attempt_queues: the same of `last_attempt_queues`.
    """

    def __init__(self, shards: Shards, queues: Sequence[str]) -> None:
        self.streams: dict[str, str] = {}
        self.last_attempt_queues: dict[str, str] = {}
        self.keys: dict[str, Keys] = {}
        self.queues: dict[str, str] = {}
        self.executor_queues: dict[str, str] = {}
        self.open_streams: dict[str, str] = {}
        self.open_last_attempt_queues: dict[str, str] = {}
        self._shards = shards
        self.paused: frozenset[str] = frozenset()
        self._is_quiet = False
        # By queue and number of the shard.
        self._levels: dict[tuple[str, int], set[str]] = {
            (queue, keys.shard): {""} for queue in queues for keys in shards
        }
        for queue, shard in self._levels:
            self._add(self.last_attempt_queues, shards[shard], queue + LAST_ATTEMPT)
        self._arrange()

    def _add(self, streams: dict[str, str], keys: Keys, name: str) -> None:
        """Adds a stream to one of the dictionaries, and notes its shard, its queue and its executor."""
        stream = keys.stream(name)
        streams[stream] = name
        self.keys[stream] = keys
        self.queues[stream] = queue_of(name)
        executor = _EXECUTOR_OF.get(name[-1])
        if executor is not None and LEVEL in name:
            self.executor_queues[stream] = executor

    def _arrange(self) -> None:
        """Puts the streams in the order in which they are read."""
        streams: dict[str, str] = {}
        for queue in dict.fromkeys(queue for queue, _ in self._levels):
            for names in _ORDER:
                # The streams of one level and shard follow each other, so that one call reads them all.
                for keys in self._shards:
                    for name in names:
                        if name in self._levels[queue, keys.shard]:
                            self._add(streams, keys, leveled(queue, name))
        self.streams = streams
        self._choose_open()

    def _choose_open(self) -> None:
        """Chooses the streams that are read from now. Without a pause, these are the very dictionaries of
        all streams: every read goes through them.
        """
        self.open_streams = self._open_of(self.streams)
        self.open_last_attempt_queues = self._open_of(self.last_attempt_queues)

    def _open_of(self, streams: dict[str, str]) -> dict[str, str]:
        if self._is_quiet:
            return {}
        if not self.paused:
            return streams
        return {stream: name for stream, name in streams.items() if self.queues[stream] not in self.paused}

    def pause(self, paused: Collection[str]) -> bool:
        """Leaves out the streams of these queues from now on, and of no others. Returns False if it did so
        before.
        """
        mine = frozenset(paused).intersection(queue for queue, _ in self._levels)
        if mine == self.paused:
            return False
        self.paused = mine
        self._choose_open()
        return True

    def be_quiet(self, *, on: bool) -> bool:
        """Leaves out all streams from now on, or leaves them out no longer. Returns False if that was so
        before.
        """
        if on == self._is_quiet:
            return False
        self._is_quiet = on
        self._choose_open()
        return True

    def is_open(self, stream: str) -> bool:
        """Returns whether a stream is read from now."""
        return stream in self.open_streams or stream in self.open_last_attempt_queues

    def all_queues(self) -> list[str]:
        """Returns the queues that are served, the most urgent first."""
        return list(dict.fromkeys(queue for queue, _ in self._levels))

    def streams_in(self, shard: Keys) -> list[str]:
        """Returns the streams of a shard, with its last-attempt queues."""
        return [stream for stream in (*self.streams, *self.last_attempt_queues) if self.keys[stream] is shard]

    def queues_in(self, shard: Keys) -> list[str]:
        """Returns the queues that are served in a shard."""
        return [queue for queue, number in self._levels if number == shard.shard]

    def executor_queue_of(self, stream: str, executor: str) -> tuple[str, str]:
        """Returns the executor queue that belongs to a stream: its own stream, and its name in records."""
        level = self.streams[stream].partition(LEVEL)[2].removesuffix(RETURNED)
        name = leveled(self.queues[stream], level + EXECUTORS[executor])
        return self.keys[stream].stream(name), name

    def returned_queue_of(self, stream: str) -> tuple[str, str]:
        """Returns the returned queue that belongs to a stream: its own stream, and its name in records. Jobs
        of an executor queue or of a last-attempt queue stay there: for these, it returns the stream itself.
        """
        name = self.streams.get(stream)
        if name is None:
            return stream, self.last_attempt_queues[stream]
        if stream not in self.executor_queues and not (LEVEL in name and name.endswith(RETURNED)):
            name = leveled(self.queues[stream], name.partition(LEVEL)[2] + RETURNED)
        return self.keys[stream].stream(name), name

    def new_levels(self, queue: str, shard: Keys, levels: Iterable[bytes]) -> set[str]:
        """Returns those of the levels that are not read yet. Returns none for a queue that is not served, and
        ignores names that are no levels.
        """
        known = self._levels.get((queue, shard.shard))
        return set() if known is None else {_LEVELS[one] for one in levels if one in _LEVELS} - known

    def add_level(self, queue: str, shard: Keys, level: str) -> bool:
        """Adds the stream of a level. Returns False if it was there already."""
        known = self._levels[queue, shard.shard]
        if level in known:
            return False
        known.add(level)
        self._arrange()
        return True
