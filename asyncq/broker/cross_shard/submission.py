"""Splits the jobs of a workflow by shard, for the scripts that accept workflows (`submit` and `replace`).

One shard accepts the workflow. Its script takes some jobs at once; all others are in batches, which the
script writes into the outbox. These are the jobs of other shards, and those that are too many for one step.
Runs on the session's loop. No job is accepted before the jobs that wait for it.
"""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Any

from msgpack import packb

from asyncq import failures, wire
from asyncq.broker.schema.keys import leveled

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from asyncq.broker.commands import Commands
    from asyncq.broker.schema.shards import Shards
    from asyncq.broker.signing.seal import Seal

BATCH = 500
"""Most jobs in one batch. The server accepts a batch in one step, and serves nobody else meanwhile."""
BATCH_BYTES = 4 * 1024 * 1024
"""Most bytes of messages in one batch. A longer message is a batch of its own."""
IDS_AT_ONCE = 1000
"""Most records that one MGET reads."""

_Item = tuple[wire.Job, bytes]
"""A job and its message."""


class Submission:
    """The jobs of a workflow, parents before children, apportioned to the shards in which they lie.

    A job is accepted after its dependents, or in the same step. Else it could end before a dependent is
    there to be informed. So the batches are ordered by how far their jobs are from the end of the workflow,
    the nearest first. For the same reason, the jobs that are accepted at once are those of their shard that
    are nearest to the end. A dependent in another shard may come later than a parent that is accepted at
    once: the parent's end goes through the same outbox, and there it is behind the batches.

    Args:
        jobs: with their messages.
        shards: of the namespace.
        main_shard: the number of the shard that accepts the workflow; None for the one with most of the jobs.
        apart: a job that is neither accepted at once nor in a batch: the script gets its arguments in a form
            of their own.
        seal: of the session; the messages are sealed already.

    Attributes:
        main_shard: the number of the shard that accepts the workflow.
        ids: the ids of all jobs, in their order.
        at_once: the ids of the jobs that the script accepts at once.
        in_batches: the ids of the jobs that are in batches, by shard.
        repeated: the ids that more than one of the jobs has.
    """

    def __init__(
        self,
        jobs: Sequence[tuple[wire.Job, bytes]],
        shards: Shards,
        main_shard: int | None = None,
        apart: wire.Job | None = None,
        *,
        seal: Seal | None = None,
    ) -> None:
        self._jobs = jobs
        self._seal = seal
        self._where = {job.id: shards.number(job.id) for job, _ in jobs}
        self.main_shard: int = (
            Counter(self._where.values()).most_common(1)[0][0] if main_shard is None else main_shard
        )
        self.repeated: list[str] = []
        if len(self._where) < len(jobs):
            counts = Counter(job.id for job, _ in jobs)
            self.repeated = [id_ for id_, count in counts.items() if count > 1]
        self._edges: dict[str, list[str]] = {}
        for job, _ in jobs:
            for index, parent in enumerate(job.parents):
                self._edges.setdefault(parent, []).append(self._edge(job, index, parent))
        self._at_once, self._later = self._split([item for item in jobs if item[0] is not apart])
        self.ids: list[str] = [job.id for job, _ in jobs]
        self.at_once: list[str] = [job.id for job, _ in self._at_once]
        self.in_batches: dict[int, list[str]] = shards.apportion([job.id for job, _ in self._later])

    def _edge(self, child: wire.Job, index: int, parent: str) -> str:
        shard = self._where[child.id]
        far = f" {shard}" if shard != self._where[parent] else ""
        return f"{child.id} {'e' if child.on_error else index} {child.request_id}{far}"

    def _split(self, jobs: list[_Item]) -> tuple[list[_Item], list[_Item]]:
        """Returns the jobs that are accepted at once, and all others. The first are as many of the accepting
        shard as fit into one step. The others are ordered by how far they are from the end of the workflow.
        """
        in_main_shard = [item for item in jobs if self._where[item[0].id] == self.main_shard]
        fits = sum(map(_size, in_main_shard)) <= BATCH
        if fits and len(in_main_shard) == len(jobs):
            return jobs, []
        heights = self._heights()
        ordered = sorted(jobs, key=lambda item: (heights[item[0].id], self._where[item[0].id]))
        first = {item[0].id for item in in_main_shard}
        if not fits:
            first = _first_batch(item for item in ordered if item[0].id in first)
        at_once = [item for item in in_main_shard if item[0].id in first]
        return at_once, [item for item in ordered if item[0].id not in first]

    async def taken(self, commands: Commands, timeout: float) -> list[bytes]:
        """Returns the ids of jobs in batches that other jobs have, and the ids that occur twice. Returns
        nothing without batches: the script itself checks the jobs that it accepts at once.

        An id that another call takes after this check is refused when its batch is accepted, and the job's
        dependents end with an error. Raises as `Commands.run`.
        """
        if not self._later:
            return []
        taken = [id_.encode() for id_ in self.repeated]
        for number, ids in self.in_batches.items():
            shard = commands.shards[number]
            for first in range(0, len(ids), IDS_AT_ONCE):
                some = ids[first : first + IDS_AT_ONCE]
                records = [shard.records + id_ for id_ in some]
                found = await commands.send(shard, "MGET", *records, timeout=timeout)
                # A tombstone does not count: another call may take its id.
                taken += [
                    id_.encode()
                    for id_, record in zip(some, found, strict=True)
                    if record and record[:1] != wire.TOMBSTONE.encode()
                ]
        return taken

    def arguments(self) -> Iterator[Any]:
        """Yields the script's arguments for the jobs that it accepts at once."""
        for job, message in self._at_once:
            yield from self._job_arguments(job, message)

    def more(self) -> bytes:
        """Returns how many jobs in batches will fill which queue of the accepting shard, so that the script
        can check the limits. The count under the empty name is of delayed jobs. Returns nothing if no job in
        a batch counts.
        """
        counts: Counter[str] = Counter()
        for job, _ in self._later:
            if self._where[job.id] == self.main_shard and (job.wait is not None or not job.parents):
                counts["" if job.wait is not None else leveled(job.queue, job.priority)] += 1
        return _packed([word for pair in counts.items() for word in pair]) if counts else b""

    def batches(self, channel: str) -> bytes:
        """Returns the batches in the order in which they must be accepted, packed; empty if there are none.

        Args:
            channel: the reply channel of the session that waits for the results.
        """
        if not self._later:
            return b""
        batches: list[tuple[int, list[Any]]] = []
        free = 0
        for item in self._later:
            shard = self._where[item[0].id]
            free -= _size(item)
            if not batches or batches[-1][0] != shard or free < 0:
                batches.append((shard, []))
                free = BATCH - _size(item)
            batches[-1][1].extend(self._job_arguments(*item))
        seal = self._seal
        refusal = _REFUSAL if seal is None else seal.shared_outcome(wire.FAILED, _REFUSAL)
        return _packed([[shard, wire.encode_batch(channel, refusal, jobs)] for shard, jobs in batches])

    def _heights(self) -> dict[str, int]:
        """Returns how far each job is from the end of the workflow: the length of the longest way there."""
        heights: dict[str, int] = {}
        # Children before parents: a job's height is final when its own parents are counted.
        for job, _ in reversed(self._jobs):
            height = heights.setdefault(job.id, 0)
            for parent in job.parents:
                heights[parent] = max(heights.get(parent, 0), height + 1)
        return heights

    def _job_arguments(self, job: wire.Job, message: bytes) -> Iterator[Any]:
        """Yields the arguments of the scripts for one job, in the order of their headers."""
        flags = ("-", "i" if job.ignore_result else "-", "d" if job.dependents else "-")
        queue = leveled(job.queue, job.priority)
        yield from (job.id, queue, job.request_id, "".join(flags), "" if job.wait is None else job.wait)
        yield from (job.result_ttl, " ".join(job.parents), "\n".join(self._edges.get(job.id, ())))
        yield from ("1" if job.value_template is not None else "", message)


def _size(item: _Item) -> int:
    """Returns how much of a batch a job takes, counted in jobs: a long message takes as much as several."""
    return 1 + len(item[1]) * BATCH // BATCH_BYTES


def _first_batch(items: Iterable[_Item]) -> set[str]:
    """Returns the ids of the first jobs that fit into one batch; of one job at least."""
    first: set[str] = set()
    taken = 0
    for item in items:
        taken += _size(item)
        if first and taken > BATCH:
            break
        first.add(item[0].id)
    return first


def _packed(items: list[Any]) -> bytes:
    """Packs items for the unpacker of the server, which knows no type for bytes: bytes go as text, and the
    server makes the same of both.
    """
    return packb(items, use_bin_type=False)  # type: ignore[no-any-return]


_REFUSAL = wire.encode_ended(
    wire.Ended(
        wire.FAILED,
        failures.encode(
            ValueError("another job took this task_id before the workflow was accepted everywhere")
        ),
    )
)
"""The outcome that dependents get from a job of a batch whose id another call took meanwhile."""
