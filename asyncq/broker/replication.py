"""Makes an enqueue wait until so many replicas have its jobs (the setting `replicas`), and makes the errors
for those that had to give up. Runs on the session's loop. Only `Intake` uses it, and only with that setting.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, NamedTuple

from asyncq.broker.replica_waits import ReplicaWaits
from asyncq.broker.schema.records import Record, RequestId, status_of
from asyncq.config import shown
from asyncq.errors import BrokerUnavailable, DecodeError, NotReplicated

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence

    from asyncq import wire
    from asyncq.broker.commands import Commands
    from asyncq.broker.cross_shard.submission import Submission
    from asyncq.broker.schema.keys import Keys
    from asyncq.broker.schema.records import JobStatus

    Answer = bool | JobStatus
    """As `enqueue.Answer`."""

SEND_AGAIN = 30.0
"""Seconds for which an enqueue is sent again if the server has lost its jobs. Later than this, a job that is
not there may have run: what is left of an ended job may be gone after a minute, see `keys.TOMBSTONE_MS`."""
AT_LEAST = 0.1
"""The share of the operation timeout that replicas get at least, however long the server took to accept."""
MOST_NOTED = 10_000
"""Of how many calls that raised `NotReplicated` it is known that they were made here."""
_SHOWN = 5
"""Most ids in the text of an error."""


class _Made(NamedTuple):
    """A call of this session whose job had too few replicas.

    Attributes:
        request_id: of the job.
        call: a hash of the task and the arguments.
    """

    request_id: str
    call: int


class Replication:
    """What a session knows of the replicas.

    Args:
        commands: of the session.
    """

    def __init__(self, commands: Commands) -> None:
        self._commands = commands
        self._wanted = commands.settings.replicas
        self._timeout = commands.settings.operation_timeout
        self._loop = asyncio.get_running_loop()
        # By shard. One server has one for all of them.
        self._waits: dict[int, ReplicaWaits] = {}
        for numbers in commands.connections.together:
            self._waits |= dict.fromkeys(numbers, ReplicaWaits(commands, numbers[0]))
        self._made: dict[str, _Made] = {}

    async def close(self) -> None:
        """Ends the waits under way: they raise `NotReplicated`. A second call does nothing."""
        await asyncio.gather(*(waits.close() for waits in set(self._waits.values())))

    async def ensure(
        self,
        shard: Keys,
        jobs: Sequence[wire.Job],
        answers: list[Answer],
        since: float,
        send: Callable[[float], Awaitable[list[Answer]]],
    ) -> list[Answer]:
        """Waits until the replicas have the jobs of an enqueue, also those that existed before it. If the
        server has lost them meanwhile, for a replica without them has taken its place, they are sent again.
        That makes no second job, as after a lost answer.

        Args:
            shard: of the jobs.
            jobs: of one enqueue.
            answers: of the server, by the jobs.
            since: the loop's time at which they were sent first.
            send: sends the enqueue again, for as many seconds as it is given, and returns the answers.

        Returns:
            The answers to what was sent last. Another call's job is not waited for.

        Raises:
            NotReplicated: too few replicas had the jobs in time.
            QueueFull, BrokerUnavailable: the jobs were lost, and could not be sent again.
        """
        until = self._deadline(since)
        while True:
            for at, job in enumerate(jobs):
                if answers[at] is False:
                    answers[at] = await self._status_of_own(shard, job) or False
            there = [job.id for job, one in zip(jobs, answers, strict=True) if one is not False]
            try:
                if not there or await self._has(shard, there, until):
                    for id_ in there:
                        self._made.pop(id_, None)
                    return answers
            except NotReplicated:
                self._note([job for job, one in zip(jobs, answers, strict=True) if one is True])
                raise
            self._check_time(there, since, until)
            answers = await send(until - self._loop.time())

    async def ensure_workflow(
        self, submission: Submission, since: float, send: Callable[[float], Awaitable[None]]
    ) -> None:
        """Waits until the replicas have all jobs of a workflow, as `ensure` does.

        Args:
            submission: the workflow.
            since: the loop's time at which it was sent first.
            send: sends it again.
        """
        until = self._deadline(since)
        try:
            while not await self._has_workflow(submission, until):
                self._check_time(submission.ids, since, until)
                await send(until - self._loop.time())
        except NotReplicated as error:
            raise self.about(error, submission.ids) from error

    async def _has_workflow(self, submission: Submission, until: float) -> bool:
        """Waits as `_has` for a workflow. What its accepting shard has not delivered yet is in its outbox,
        and its replicas have that, too.
        """
        shards = self._commands.shards
        main = shards[submission.main_shard]
        if not await self._has(main, submission.at_once, until):
            return False
        for number, ids in submission.in_batches.items():
            # The last look finds what was delivered between the first two.
            if not (
                await self._has(shards[number], ids, until)
                or await self._commands.send(main, "XLEN", main.outbox)
                or await self._has(shards[number], ids, until)
            ):
                return False
        return True

    async def _has(self, shard: Keys, ids: Sequence[str], until: float) -> bool:
        """Waits until the replicas have some jobs.

        Returns:
            False if the server does not have all of the jobs: another one has taken its place, or it has lost
            its data.

        Raises:
            NotReplicated: too few replicas had them in time.
        """
        try:
            replicas = await self._waits_of(shard).replicas_with(shard, ids, until)
        except BrokerUnavailable as error:
            raise self._error(ids, None, str(error)) from error
        if replicas is not None and replicas < self._wanted:
            raise self._error(ids, replicas)
        return replicas is not None

    def _waits_of(self, shard: Keys) -> ReplicaWaits:
        """Returns what asks the server of a shard."""
        return self._waits[shard.shard]

    def _deadline(self, since: float) -> float:
        """Returns the loop's time at which the wait for replicas ends.

        Args:
            since: the loop's time at which the jobs were sent.
        """
        return max(since + self._timeout, self._loop.time() + self._timeout * AT_LEAST)

    def _check_time(self, ids: Sequence[str], since: float, until: float) -> None:
        """Raises `BrokerUnavailable` if it is too late to send jobs again that the server has lost."""
        now = self._loop.time()
        if now >= until or now - since > SEND_AGAIN:
            raise BrokerUnavailable(
                f"{self._commands.address.safe_url}: the server was replaced before its replicas had all of "
                f"{_named(ids)}, and the new one does not have them"
            )

    # -- errors --

    def _error(self, ids: Sequence[str], replicas: int | None, why: str = "") -> NotReplicated:
        """Makes the error for jobs that too few replicas had in time.

        Args:
            ids: of the jobs.
            replicas: how many had them; None if the server did not say it.
            why: the server did not say it.
        """
        had = f"{replicas} of {self._wanted} replicas had confirmed that within {shown(self._timeout)}"
        again = ", or make the same call with task_id=id, which waits for them again" if len(ids) == 1 else ""
        return NotReplicated(
            f"the server has accepted {_named(ids)}, but {why if replicas is None else had}\n"
            "Do not make the call anew, it is a second job. Look whether the replicas run (asyncq doctor), "
            f"and go on with app.AsyncResult(id){again}",
            ids=tuple(ids),
            wanted=self._wanted,
            replicas=replicas,
        )

    def about(self, error: NotReplicated, ids: Sequence[str]) -> NotReplicated:
        """Makes an error that says of other jobs what one says of some."""
        return self._error(ids, error.replicas, str(error.__cause__ or ""))

    # -- calls that are made again --

    def _note(self, jobs: Sequence[wire.Job]) -> None:
        """Notes that calls raise `NotReplicated`: if they are made again with the same ids, that waits for
        the replicas again.
        """
        for job in jobs:
            self._made.pop(job.id, None)  # the newest stands last
            self._made[job.id] = _Made(job.request_id, hash((job.name, job.body)))
        while len(self._made) > MOST_NOTED:
            del self._made[next(iter(self._made))]

    async def _status_of_own(self, shard: Keys, job: wire.Job) -> JobStatus:
        """Returns the status of the job that has the id of a new call, if this session has enqueued it by the
        same call, and that raised `NotReplicated`. Returns None if it is another call's job.

        Raises:
            BrokerUnavailable: no answer within the operation timeout.
        """
        made = self._made.get(job.id)
        if made is None or made.call != hash((job.name, job.body)):
            return None
        (record,) = await self._commands.send(shard, "MGET", shard.records + job.id)
        try:
            # Only the random part: the rest may change when the job starts.
            if record is None or _random(Record.parse(record).request_id) != _random(made.request_id):
                return None
        except DecodeError:
            return None
        channel = "" if job.ignore_result else self._commands.channel
        (answer,) = await self._commands.run(shard, "fetch_status", (), (shard.records, channel, 1, job.id))
        return status_of(answer, job.id, self._commands.seal)


def _named(ids: Sequence[str]) -> str:
    names = ", ".join(map(repr, ids[:_SHOWN])) + (" ..." if len(ids) > _SHOWN else "")
    return f"job {names}" if len(ids) == 1 else f"{len(ids)} jobs ({names})"


def _random(request_id: str) -> str:
    return RequestId.parse(request_id).random
