"""The streams that one session of a worker reads from: which there are, in which order, and where each lies.

Lives on the worker's loop. The set only grows: a queue gets a stream for each level of priority that comes
into use.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from asyncq import wire
from asyncq.broker.schema.keys import EXECUTORS, LAST_TRY, LEVEL, leveled, queue_of

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from asyncq.broker.schema.keys import Keys
    from asyncq.broker.schema.shards import Shards

_ORDER = tuple(
    f"{level or ''}{line}"
    for level in range(wire.HIGHEST, wire.LOWEST - 1, -1)
    # What stands in a line was there before what is in the queue.
    for line in (*EXECUTORS.values(), "")
)
"""The levels of a queue as they are read, with the lines of each."""

_EXECUTOR_OF = {sign: executor for executor, sign in EXECUTORS.items()}

_LEVELS = {name.encode(): name for name in _ORDER if name}


class Served:
    """The streams of some queues in all shards.

    Args:
        shards: of the namespace.
        queues: the most urgent first.

    Attributes:
        streams: to read from, the most urgent first, and what records call them: queues in their given order,
            and of each the highest level of priority first. A level that comes into use makes another
            dictionary, so a loop over this one may await.
        last_attempt_queues: the same of last tries.
        keys: the shard that each stream lies in.
        queues: the queue that each stream belongs to, whatever its level.
        lines: those of the streams that are lines, and the executor that their jobs wait for.
    """

    def __init__(self, shards: Shards, queues: Sequence[str]) -> None:
        self.streams: dict[str, str] = {}
        self.last_attempt_queues: dict[str, str] = {}
        self.keys: dict[str, Keys] = {}
        self.queues: dict[str, str] = {}
        self.lines: dict[str, str] = {}
        self._shards = shards
        # By queue and number of the shard.
        self._levels: dict[tuple[str, int], set[str]] = {
            (queue, keys.shard): {""} for queue in queues for keys in shards
        }
        for queue, shard in self._levels:
            self._add(self.last_attempt_queues, shards[shard], queue + LAST_TRY)
        self._arrange()

    def _add(self, streams: dict[str, str], keys: Keys, name: str) -> None:
        stream = keys.stream(name)
        streams[stream] = name
        self.keys[stream] = keys
        self.queues[stream] = queue_of(name)
        executor = _EXECUTOR_OF.get(name[-1])
        if executor is not None and LEVEL in name:
            self.lines[stream] = executor

    def _arrange(self) -> None:
        """Puts the streams in the order in which they are read."""
        streams: dict[str, str] = {}
        for queue in dict.fromkeys(queue for queue, _ in self._levels):
            for level in _ORDER:
                for keys in self._shards:
                    if level in self._levels[queue, keys.shard]:
                        self._add(streams, keys, leveled(queue, level))
        self.streams = streams

    def streams_in(self, shard: Keys) -> list[str]:
        """The streams and last-attempt queues of a shard."""
        return [stream for stream in (*self.streams, *self.last_attempt_queues) if self.keys[stream] is shard]

    def queues_by_shard(self) -> Iterator[tuple[str, Keys]]:
        """Every queue in every shard."""
        return ((queue, self._shards[number]) for queue, number in list(self._levels))

    def queues_in(self, shard: Keys) -> list[str]:
        """The queues, for a shard."""
        return [queue for queue, number in self._levels if number == shard.shard]

    def line_of(self, stream: str, executor: str) -> tuple[str, str]:
        """The line of an executor behind a stream: the stream that it is, and what records call that."""
        name = self.streams[stream]
        level = name.partition(LEVEL)[2]
        line = leveled(self.queues[stream], level + EXECUTORS[executor])
        return self.keys[stream].stream(line), line

    def new_levels(self, queue: str, shard: Keys, levels: Iterable[bytes]) -> set[str]:
        """The levels among these that are not read yet, if the queue is served."""
        known = self._levels.get((queue, shard.shard))
        return set() if known is None else {_LEVELS[one] for one in levels if one in _LEVELS} - known

    def add_level(self, queue: str, shard: Keys, level: str) -> bool:
        """Begins to read a level; False if it is read already."""
        known = self._levels[queue, shard.shard]
        if level in known:
            return False
        known.add(level)
        self._arrange()
        return True
