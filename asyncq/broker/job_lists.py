"""Lists jobs that have not ended, some at a time: those that wait in a stream, those that workers have, those
that wait for their time, and those that wait for other jobs. `control.job_listing` calls it, on the session's
loop.

Each call reads a page: at most a thousand jobs, and at most some megabytes. Nothing is stored for a listing,
so a job that moves while somebody reads page after page may be listed twice, or not at all.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, NamedTuple

from asyncq import wire
from asyncq.broker.schema.keys import GROUP, name_from, name_to, queue_of, text_of

if TYPE_CHECKING:
    from collections.abc import Sequence

    from asyncq.broker.commands import Commands
    from asyncq.broker.history import EndedJob
    from asyncq.broker.schema.keys import Keys
    from asyncq.broker.signing.seal import Seal

READ_AT_ONCE = 1000
"""Most jobs, or keys, that one call to the server looks at."""
EXACT_UP_TO = 10_000
"""So many delayed jobs, and ten times as many keys, are counted one by one. Of more, a part is counted, and
the rest is estimated by it."""


class ListedJob(NamedTuple):
    """A job as it was found.

    Attributes:
        id, task, queue: as they are.
        letter: the letter of its record: `wire.LIVE` for a job that waits in its queue or that a worker has.
        entry: the id of its entry; empty if it has none.
        enqueued: when it was enqueued, in ms since the epoch.
        crashes, retries: how often it was begun before.
        consumer: the worker session that has it; empty if none has.
        claimed: when that session claimed it, in ms since the epoch.
        error: the encoded failure of its last try; empty if there was none.
    """

    id: str
    task: str
    queue: str
    letter: str
    entry: str
    enqueued: int
    crashes: int
    retries: int
    consumer: str = ""
    claimed: int = 0
    error: bytes = b""


class FoundJobs(NamedTuple):
    """One page of jobs.

    Attributes:
        jobs: each with the place behind it, from which a next call goes on.
        after: from where to go on; empty at the end.
        looked_at: how many jobs, or keys, were looked at.
    """

    jobs: Sequence[tuple[ListedJob | EndedJob, str]]
    after: str
    looked_at: int


class DelayedCounts(NamedTuple):
    """How many jobs wait for their time, for their next try, and for other jobs.

    Attributes:
        delayed: all that wait for a time, retries and deferred jobs too.
        retrying: those of them that have failed and are tried again.
        waiting: those that wait for other jobs.
        is_exact: False if some of these figures are estimates.
    """

    delayed: int
    retrying: int
    waiting: int
    is_exact: bool


class JobLists:
    """The jobs of a namespace that have not ended. Everything here raises as `Commands.run`.

    Args:
        commands: of the session.
    """

    def __init__(self, commands: Commands) -> None:
        self._commands = commands

    async def entries(
        self, keys: Keys, name: str, after: str, most: int, *, running: bool, consumer: str = ""
    ) -> FoundJobs:
        """Lists jobs of one stream, the oldest entry first.

        Args:
            keys: of the shard.
            name: of the stream in records.
            after: the entry behind which to begin; empty for the first.
            most: at most so many jobs.
            running: whether to list the jobs that workers have, and not those that wait.
            consumer: only jobs of this worker session; empty for those of all.
        """
        kind = "running" if running else "waiting"
        last, *found = await self._commands.run(
            keys,
            "list_entries",
            (keys.stream(name),),
            (GROUP, kind, after, min(most, READ_AT_ONCE), name_to(consumer)),
        )
        jobs = []
        for id_, entry, task, enqueued, crashes, retries, holder, claimed in found:
            job = ListedJob(
                *(text_of(id_), text_of(task), queue_of(name), wire.LIVE, entry.decode()),
                *(enqueued, crashes, retries, name_from(holder), claimed),
            )
            jobs.append((job, job.entry))
        return FoundJobs(jobs, text_of(last), len(jobs))

    async def delayed(self, keys: Keys, after: str, most: int) -> FoundJobs:
        """Lists jobs of a shard that wait for their time, in its order.

        Args:
            keys: of the shard.
            after: `<time> <id>` of the job behind which to begin; empty for the first.
            most: at most so many jobs.
        """
        send = self._commands.send
        first = 0
        if after:
            time, _, id_ = after.partition(" ")
            score, rank = await asyncio.gather(
                send(keys, "ZSCORE", keys.delayed, name_to(id_)),
                send(keys, "ZRANK", keys.delayed, name_to(id_)),
            )
            if rank is not None and score is not None and int(float(score)) == int(time):
                first = rank + 1
            else:  # that job has gone: go on with those of the same time
                first = await send(keys, "ZCOUNT", keys.delayed, "-inf", f"({time}")
        last = first + min(most, READ_AT_ONCE) - 1
        found = await send(keys, "ZRANGE", keys.delayed, first, last, "WITHSCORES")
        ids = [name_from(id_) for id_, _ in found]
        jobs = await self.described(keys, ids)
        listed = [
            (job, f"{int(float(time))} {id_}")
            for (_, time), id_, job in zip(found, ids, jobs, strict=False)
            if job is not None
        ]
        # Of long messages, fewer were described than asked for.
        looked_at = len(jobs)
        is_end = looked_at == len(found) < min(most, READ_AT_ONCE)
        behind = (
            "" if is_end or not looked_at else f"{int(float(found[looked_at - 1][1]))} {ids[looked_at - 1]}"
        )
        return FoundJobs(listed, behind, looked_at)

    async def waiting_for_jobs(self, keys: Keys, after: str) -> FoundJobs:
        """Lists jobs of a shard that wait for other jobs, in no order. There is no list of them, so this
        looks at all keys of the server, a thousand a call.

        Args:
            keys: of the shard.
            after: from where to go on: `<cursor> <id>`, or what a call before has returned; empty at first.
        """
        here, _, last = (after or "0").partition(" ")
        cursor, ids, looked_at = await self._scan(keys, here)
        # A page may end in the middle of what one call finds. The next one finds the same, and goes on behind
        # the last job of that page.
        found = await self._all_described(keys, sorted(id_ for id_ in set(ids) if id_ > last))
        jobs = [job for job in found if job is not None and job.letter == wire.WAITING]
        behind = "" if cursor == "0" else cursor
        listed = [(job, f"{here} {job.id}") for job in jobs[:-1]] + [(job, behind) for job in jobs[-1:]]
        return FoundJobs(listed, behind, looked_at)

    async def _scan(self, keys: Keys, cursor: str) -> tuple[str, list[str], int]:
        """Looks at a thousand keys of the server. Returns the next cursor, and the ids of jobs that wait."""
        found: Any
        next_cursor, found = await self._commands.send(
            keys, "SCAN", cursor, "MATCH", keys.messages + "*", "COUNT", READ_AT_ONCE
        )
        start = len(keys.messages.encode())
        return text_of(next_cursor), [name_from(key[start:]) for key in found], READ_AT_ONCE

    async def described(self, keys: Keys, ids: Sequence[str]) -> list[ListedJob | None]:
        """Describes jobs that wait for their time or for other jobs; None for those that do not. Describes
        fewer than asked for if their messages are long.
        """
        if not ids:
            return []
        answer = await self._commands.run(
            keys, "describe_jobs", (), (keys.records, keys.messages, *map(name_to, ids))
        )
        seal = self._commands.seal
        return [_described(id_, one, seal) if one else None for id_, one in zip(ids, answer, strict=False)]

    async def _all_described(self, keys: Keys, ids: Sequence[str]) -> list[ListedJob | None]:
        jobs: list[ListedJob | None] = []
        while len(jobs) < len(ids):
            jobs += await self.described(keys, ids[len(jobs) : len(jobs) + READ_AT_ONCE])
        return jobs

    async def delayed_counts(self) -> DelayedCounts:
        """Counts the jobs of all shards that wait for a time or for other jobs. Where there are too many, it
        estimates the figures by a part of them.
        """
        shards = self._commands.shards
        counts = await asyncio.gather(*map(self._delayed_counts_in, shards))
        waiting, is_exact = await self._waiting_count()
        return DelayedCounts(
            sum(one.delayed for one in counts),
            sum(one.retrying for one in counts),
            waiting,
            is_exact=is_exact and all(one.is_exact for one in counts),
        )

    async def _delayed_counts_in(self, keys: Keys) -> DelayedCounts:
        send = self._commands.send
        total = await send(keys, "ZCARD", keys.delayed)
        retrying = looked_at = 0
        is_exact = total <= EXACT_UP_TO
        for first in range(0, min(total, EXACT_UP_TO), READ_AT_ONCE):
            if is_exact:
                ids = await send(keys, "ZRANGE", keys.delayed, first, first + READ_AT_ONCE - 1)
            else:
                ids = await send(keys, "ZRANDMEMBER", keys.delayed, READ_AT_ONCE)
            if not ids:
                break
            records = await send(keys, "MGET", *(keys.records.encode() + id_ for id_ in ids))
            retrying += sum(record is not None and record[:1] == wire.RETRYING.encode() for record in records)
            looked_at += len(ids)
        if not is_exact and looked_at:
            retrying = round(retrying * total / looked_at)
        return DelayedCounts(total, retrying, 0, is_exact)

    async def _waiting_count(self) -> tuple[int, bool]:
        """Returns how many jobs wait for other jobs, and whether that is no estimate."""
        waiting, is_exact = 0, True
        for keys in self._commands.shards:
            cursor, looked_at, found = "0", 0, 0
            while True:
                cursor, ids, more = await self._scan(keys, cursor)
                looked_at += more
                if ids:
                    records = await self._commands.send(
                        keys, "MGET", *(keys.records.encode() + name_to(id_) for id_ in ids)
                    )
                    found += sum(
                        record is not None and record[:1] == wire.WAITING.encode() for record in records
                    )
                if cursor == "0" or looked_at >= 10 * EXACT_UP_TO:
                    break
            if cursor != "0":
                is_exact = False
                size = await self._commands.send(keys, "DBSIZE")
                found = round(found * max(1.0, size / looked_at))
            waiting += found
        return waiting, is_exact


def _described(id_: str, fields: list[Any], seal: Seal | None) -> ListedJob:
    letter, queue, task, enqueued, crashes, retries, error = fields
    if seal is not None:
        error = seal.opened_failure(id_, error)
    return ListedJob(
        *(id_, text_of(task), queue_of(text_of(queue)), text_of(letter), ""),
        *(enqueued, crashes, retries),
        error=error,
    )
