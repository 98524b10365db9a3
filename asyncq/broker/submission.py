"""The jobs of a workflow as the scripts that accept them take them: those of one shard at once, and parcels
for the outbox with those of others.
"""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Any

from msgpack import packb

from asyncq import failures, wire
from asyncq.broker.keys import leveled

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from asyncq.broker.commands import Commands
    from asyncq.broker.shards import Shards

PARCEL = 500
"""So many jobs in a parcel at most: it is accepted in one step, in which nobody else has a turn."""
PARCEL_BYTES = 4 * 1024 * 1024
"""So many bytes of messages in a parcel, and the rest of the last one."""


class Submission:
    """The jobs of a workflow, parents before children, apportioned to the shards in which they lie.

    A parcel is accepted after those with the jobs that wait for its own: nobody can end before who waits for
    it is there. So parcels stand in the order of how far their jobs are from the end.

    Args:
        jobs: with their messages.
        shards: of the namespace.
        home: the number of the shard that accepts the whole; None for the one in which most of them lie.

    Attributes:
        abroad: the ids of the jobs in other shards, by shard.
        repeated: the ids that more than one of the jobs has.
    """

    def __init__(
        self, jobs: Sequence[tuple[wire.Job, bytes]], shards: Shards, home: int | None = None
    ) -> None:
        self._jobs = jobs
        self._where = {job.id: shards.number(job.id) for job, _ in jobs}
        self.home: int = Counter(self._where.values()).most_common(1)[0][0] if home is None else home
        self.abroad: dict[int, list[str]] = shards.apportion(self._where)
        self.abroad.pop(self.home, None)
        self.repeated: list[str] = []
        if len(self._where) < len(jobs):
            counts = Counter(job.id for job, _ in jobs)
            self.repeated = [id_ for id_, count in counts.items() if count > 1]
        self._edges: dict[str, list[str]] = {}
        for job, _ in jobs:
            for place, parent in enumerate(job.parents):
                self._edges.setdefault(parent, []).append(self._edge(job, place, parent))

    def _edge(self, child: wire.Job, place: int, parent: str) -> str:
        shard = self._where[child.id]
        far = f" {shard}" if shard != self._where[parent] else ""
        return f"{child.id} {'e' if child.on_error else place} {child.nonce}{far}"

    async def taken(self, commands: Commands, patience: float) -> list[bytes]:
        """The ids of jobs in other shards that others have, or that are there twice. What is taken after this
        look is refused there. Raises as `Commands.run`.
        """
        if not self.abroad:
            return []
        taken = [id_.encode() for id_ in self.repeated]
        for number, ids in self.abroad.items():
            shard = commands.shards[number]
            records = [shard.records + id_ for id_ in ids]
            found = await commands.send(shard, "MGET", *records, patience=patience)
            # A tombstone makes room for another call.
            taken += [
                id_.encode()
                for id_, record in zip(ids, found, strict=True)
                if record and record[:1] != wire.TOMBSTONE.encode()
            ]
        return taken

    def arguments(self, but: wire.Job | None = None) -> Iterator[Any]:
        """What is accepted at home, without one of the jobs."""
        for job, message in self._jobs:
            if self._where[job.id] == self.home and job is not but:
                yield from self._words(job, message)

    def parcels(self, channel: str) -> bytes:
        """Those for other shards, in the order in which they are to be accepted; empty if there are none.

        Args:
            channel: of who waits for the results.
        """
        if not self.abroad:
            return b""
        heights = self._heights()
        parcels: dict[tuple[int, int, int], list[Any]] = {}
        packed: Counter[tuple[int, int]] = Counter()
        for job, message in self._jobs:
            height, shard = where = (heights[job.id], self._where[job.id])
            if shard != self.home:
                parcels.setdefault((height, shard, packed[where] // PARCEL), []).extend(
                    self._words(job, message)
                )
                # A long message takes the room of several jobs.
                packed[where] += 1 + len(message) * PARCEL // PARCEL_BYTES
        flat = [
            [shard, wire.encode_parcel(channel, _REFUSAL, words)]
            for (_, shard, _), words in sorted(parcels.items())
        ]
        # The server's own unpacker knows no type for bytes, only text, which is the same to it.
        return packb(flat, use_bin_type=False)  # type: ignore[no-any-return]

    def _heights(self) -> dict[str, int]:
        """How far each job is from the end: the length of the longest way there."""
        heights: dict[str, int] = {}
        for job, _ in reversed(self._jobs):
            height = heights.setdefault(job.id, 0)
            for parent in job.parents:
                heights[parent] = max(heights.get(parent, 0), height + 1)
        return heights

    def _words(self, job: wire.Job, message: bytes) -> Iterator[Any]:
        flags = ("-", "i" if job.ignore_result else "-", "d" if job.dependents else "-")
        queue = leveled(job.queue, job.priority)
        yield from (job.id, queue, job.nonce, "".join(flags), "" if job.wait is None else job.wait)
        yield from (job.result_ttl, " ".join(job.parents), "\n".join(self._edges.get(job.id, ())))
        yield from ("1" if job.shape is not None else "", message)


_REFUSAL = wire.encode_ended(
    wire.Ended(
        wire.FAILED,
        failures.encode(
            ValueError("another job took this task_id before the workflow was accepted everywhere")
        ),
    )
)
