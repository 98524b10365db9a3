"""Sends jobs to the server, which accepts them: single jobs, batches, and workflows. Runs on the session's
loop; `Session.submit` is the caller.

`enqueue` is the hot path: it gathers the jobs of one turn of the loop, and sends those of one queue in one
script call; many jobs are sent before the turn ends. A caller who enqueues one job after the other waits for
no turn, see `LONE`. A call that is sent again counts once, for the record holds the request id. With the
setting `replicas`, each of these ways waits for replicas after the answer.
"""

from __future__ import annotations

import asyncio
import logging
import math
from functools import partial
from typing import TYPE_CHECKING, Any, Literal

from asyncq import failpoints, wire
from asyncq.broker.cross_shard.submission import Submission
from asyncq.broker.known_queues import KnownQueues
from asyncq.broker.schema import answer_tags
from asyncq.broker.schema.keys import leveled
from asyncq.broker.schema.records import JobStatus, status_of
from asyncq.broker.transport.background import BackgroundTasks
from asyncq.broker.transport.reconnect import pause
from asyncq.config import shown
from asyncq.errors import BrokerUnavailable, NotReplicated, QueueFull

if TYPE_CHECKING:
    from collections.abc import Sequence

    from asyncq.broker.commands import Commands
    from asyncq.broker.replication import Replication
    from asyncq.broker.schema.keys import Keys
    from asyncq.broker.signing.seal import Seal

log: logging.Logger = logging.getLogger(__name__)

BATCH = 500
"""Most jobs in one script call: Lua unpacks at most some 8,000 values, and the server serves nobody else
during a call."""
FLUSH, FLUSH_BYTES = 32, 16 * 1024
"""With so many jobs of one queue, or so many bytes of messages, a call is sent before the turn of the loop
ends: the server accepts these jobs while other callers go on.
"""
LONE = 8
"""Behind so many jobs in a row that were alone, the next one is probably alone, too, and is sent at once. To
wait for the end of the turn would cost it a callback and a poll of all sockets, some 7 us of 130. A lower
number would make more calls, with fewer jobs each, where callers are independent of each other."""
BATCH_BYTES = 1024 * 1024
"""Most bytes of messages in one script call. A longer message goes alone."""
FULL = (-1, -2)
"""What the enqueue script answers when the queue is full, and when too many jobs are delayed."""
_FULL = (answer_tags.QUEUE_FULL, answer_tags.TOO_MANY_DELAYED)
"""What the submit script answers in these cases."""
_FULL_OF_NUMBER: dict[int, bytes] = dict(zip(FULL, _FULL, strict=True))

ExistingJob = Literal[False] | JobStatus
"""What an enqueue may find under its id: False for the job of another call, else the status of the existing
job of an equal call with the same key."""
Answer = Literal[True] | ExistingJob
"""The answer to an enqueue: True if the job was accepted."""

_Pending = tuple[wire.Job, bytes, "asyncio.Future[Answer] | None"]
"""A job, its message, and the future of the caller, if one waits for it."""


class Intake:
    """What a session gives to the server.

    Args:
        commands: of the session.

    Attributes:
        known: notes the queues, for operators.
    """

    def __init__(self, commands: Commands) -> None:
        self._commands = commands
        self._settings = commands.settings
        self._shards = commands.shards
        self._loop = asyncio.get_running_loop()
        self._seal = commands.seal
        self._enqueue_sha = commands.scripts["enqueue"].sha
        self._measured: set[str] = set()
        """The streams whose length was checked in this tenth of a second, and that were not full."""
        self._measured_until = 0.0
        # What `enqueue` gathered in this turn of the loop, by shard and queue: one script call takes one.
        self._gathered: dict[int, dict[str, list[_Pending]]] = {}
        self._lone = 0
        """How many answers in a row were those to a single job while no other was under way."""
        self._unanswered: dict[float, list[_Pending]] = {}
        """The batches without an answer, by the time at which each is given up, the oldest first."""
        self._given_up_at: asyncio.TimerHandle | None = None
        self._tasks = BackgroundTasks(log)
        self.known: KnownQueues = KnownQueues(commands)
        self._replication: Replication | None = None
        if self._settings.replicas:
            from asyncq.broker.replication import Replication  # most sessions do not need it

            self._replication = Replication(commands)

    async def close(self) -> None:
        """Waits up to a second for the calls under way. The connection is closed already, so they end with
        `BrokerUnavailable`.
        """
        if self._given_up_at is not None:
            self._given_up_at.cancel()
        if self._replication is not None:
            await self._replication.close()
        await self._tasks.wait(1.0)

    def enqueue(self, job: wire.Job, message: bytes) -> asyncio.Future[Answer]:
        """Enqueues a job together with all others of this turn of the loop, or at once if it is probably the
        only one.

        The future's result is an `Answer`. It raises `BrokerUnavailable` if the server could not be reached
        within the operation timeout: the job may have been accepted, and another enqueue with the same id
        tells. It raises `QueueFull` if the queue stayed full for `full_wait`, or if the server is out of
        memory. With `replicas` it raises `NotReplicated` if too few replicas had the job within the operation
        timeout. Cancelling the future does not take the job back.
        """
        future: asyncio.Future[Answer] = self._loop.create_future()
        if self._seal is not None:
            message = self._seal.message(job, message)
        shard = 0 if self._shards.is_one else self._shards.number(job.id)
        queue = leveled(job.queue, job.priority) if job.priority else job.queue
        if self._lone >= LONE and not self._unanswered and not self._gathered:
            self._send_batches(self._shards[shard], queue, [(job, message, future)])
            return future
        boxes = self._gathered.get(shard)
        if boxes is None:
            if not self._gathered:
                self._loop.call_soon(self._send_gathered)
            boxes = self._gathered[shard] = {}
        box = boxes.get(queue)
        if box is None:
            box = boxes[queue] = []
        box.append((job, message, future))
        count = len(box)
        # The jobs of one turn are often alike, so the last message stands for the size of all. A first one
        # waits for no others and is not sent here: the turn ends as soon.
        if count >= FLUSH or (count > 1 and count * len(message) >= FLUSH_BYTES):
            del boxes[queue]
            self._send_batches(self._shards[shard], queue, box)
        return future

    async def enqueue_many(
        self, jobs: Sequence[tuple[wire.Job, bytes]]
    ) -> list[tuple[wire.Job, ExistingJob]]:
        """Enqueues jobs, those of one queue in one shard in script calls of up to 500 jobs. Raises as the
        future of `enqueue`; then some of the jobs may have been accepted.

        Returns:
            The jobs that were not accepted, and what was found under their ids.
        """
        is_one, number_of = self._shards.is_one, self._shards.number
        boxes: dict[tuple[int, str], list[_Pending]] = {}
        for job, message in self._sealed(jobs):
            queue = leveled(job.queue, job.priority) if job.priority else job.queue
            shard = 0 if is_one else number_of(job.id)
            boxes.setdefault((shard, queue), []).append((job, message, None))
        batches = [(where, batch) for where, box in boxes.items() for batch in _batches(box)]
        calls = []
        for (number, queue), batch in batches:
            keys = self._shards[number]
            calls.append((keys, self._enqueue_command(keys, queue, batch), batch))
        if self._replication is not None:
            return await self._enqueue_all_replicated(calls)
        timeout = self._settings.operation_timeout
        sent = [self._until_room(keys, command, timeout, batch[0][0].queue) for keys, command, batch in calls]
        answers = await asyncio.gather(*sent)
        return [
            (item[0], one)
            for (_, _, batch), answer in zip(calls, answers, strict=True)
            if type(answer) is not int
            for item, one in zip(batch, _each(answer, batch, self._seal), strict=True)
            if one is not True
        ]

    async def submit(self, jobs: Sequence[tuple[wire.Job, bytes]]) -> None:
        """Enqueues the jobs of one workflow in one atomic step: all of them, or none. When the answer was
        lost and the call is sent again, it changes nothing.

        The jobs of other shards than the accepting one, and those beyond the first 500, are in its outbox
        then, and come into their queues a moment later. This call delivers them before it returns. A worker
        delivers them if this process dies or the server goes away.

        Args:
            jobs: with their messages, parents before children.

        Raises:
            ValueError: the job of another call has one of the ids; the message names it.
            QueueFull: one of the queues stayed full for `full_wait`, or the server is out of memory.
            BrokerUnavailable: no answer within the operation timeout; the jobs may have been accepted.
            NotReplicated: with `replicas`: the jobs were accepted, but too few replicas had them in time.
        """
        since = self._loop.time()
        submission = Submission(self._sealed(jobs), self._shards, seal=self._seal)
        shard = self._shards[submission.main_shard]
        channel = self._commands.channel
        batches = submission.batches(channel)
        command = self._commands.build(
            shard,
            "submit",
            (),
            (
                *(shard.key_prefix, channel, self._settings.max_length, batches, submission.more()),
                *submission.arguments(),
            ),
        )
        queues = sorted({job.queue for job, _ in jobs})
        self.known.add(queues)
        elsewhere = await submission.taken(self._commands, self._settings.operation_timeout)
        if elsewhere:
            raise _taken(elsewhere)

        async def send(timeout: float) -> None:
            answer = await self._until_room(shard, command, timeout, ", ".join(queues))
            if answer[0] == answer_tags.IDS_TAKEN:
                raise _taken(answer[1:])
            if submission.in_batches:
                await self._commands.forwarded(shard)

        await send(self._settings.operation_timeout)
        if self._replication is not None:
            await self._replication.ensure_workflow(submission, since, send)

    def _sealed(self, jobs: Sequence[tuple[wire.Job, bytes]]) -> Sequence[tuple[wire.Job, bytes]]:
        seal = self._seal
        return jobs if seal is None else [(job, seal.message(job, message)) for job, message in jobs]

    def _enqueue_command(self, keys: Keys, queue: str, batch: list[_Pending]) -> tuple[Any, ...]:
        """Returns the call of the script that enqueues jobs into one queue."""
        if queue not in self.known.names:
            self.known.add((queue,))
        guards = self._commands.connections.guards[keys.shard]
        command: list[Any] = ["EVALSHA", self._enqueue_sha, 1 + len(guards), keys.queues + queue, *guards]
        command += (keys.key_prefix, queue)
        command += (self._commands.channel, self._length_limit(keys.queues + queue, len(batch)))
        for job, message, _ in batch:
            flags = "-i-" if job.ignore_result else "---"
            command += (job.id, job.request_id, flags, "" if job.wait is None else job.wait, message)
        return tuple(command)

    def _length_limit(self, stream: str, count: int) -> int | str:
        """Returns the queue's limit if the script is to check it, else an empty text.

        The check costs the server a command. So a limit above 10,000 is checked for batches of 100 jobs or
        more, ten times a second, and for every job while the queue is full. Each client can exceed the limit
        by what it enqueues, one by one, in a tenth of a second.
        """
        limit = self._settings.max_length
        if limit > 10_000 and count < 100:
            now = self._loop.time()
            if now >= self._measured_until:
                self._measured.clear()
                self._measured_until = now + 0.1
            elif stream in self._measured:
                return ""
            self._measured.add(stream)
        return limit

    def _send_gathered(self) -> None:
        """Sends all jobs that were gathered in this turn of the loop."""
        gathered, self._gathered = self._gathered, {}
        for number, boxes in gathered.items():
            for queue, box in boxes.items():
                self._send_batches(self._shards[number], queue, box)

    def _send_batches(self, keys: Keys, queue: str, box: list[_Pending]) -> None:
        for batch in _batches(box):
            command = self._enqueue_command(keys, queue, batch)
            failpoints.hit("enqueue.send")
            on_reply = partial(self._enqueued, keys, command, batch, self._expect(batch))
            self._commands.post(keys, command, on_reply, now=True)

    def _expect(self, batch: list[_Pending]) -> float:
        """Notes until when a batch must be answered, and returns that time. One timer serves all batches: to
        make and cancel a timer would cost a lone call more than the rest of its sending.
        """
        deadline = self._loop.time() + self._settings.operation_timeout
        # The time is the batch's key, and the loop's clock may not move between two batches.
        while deadline in self._unanswered:
            deadline = math.nextafter(deadline, math.inf)
        self._unanswered[deadline] = batch
        if self._given_up_at is None:
            self._given_up_at = self._loop.call_at(deadline, self._give_up)
        return deadline

    def _give_up(self) -> None:
        """Ends the batches that were not answered within the operation timeout with `BrokerUnavailable`.
        Their jobs may have been accepted all the same.
        """
        timeout = self._settings.operation_timeout
        error = BrokerUnavailable(f"{self._commands.address.safe_url} did not answer within {shown(timeout)}")
        self._given_up_at = None
        for deadline in list(self._unanswered):
            if deadline > self._loop.time():
                self._given_up_at = self._loop.call_at(deadline, self._give_up)
                return
            for _, _, future in self._unanswered.pop(deadline):
                if future is not None and not future.done():
                    future.set_exception(error)

    def _enqueued(
        self, keys: Keys, command: tuple[Any, ...], batch: list[_Pending], deadline: float, answer: Any
    ) -> None:
        """Takes the answer to a batch. If it is an error, also for a lost connection, or if the queue is
        full, a background task tries again.
        """
        if self._unanswered.pop(deadline, None) is None:
            return  # too late: its callers got an error from `_give_up`, and may have called again
        if isinstance(answer, Exception) or answer in FULL:
            self._lone = 0  # without a connection each call would be tried again alone
            left = max(0.05, deadline - self._loop.time())
            self._measured.discard(command[3])  # a full queue is checked for every job until it has room
            self._try_again(keys, command, batch, left)
            return
        failpoints.hit("enqueue.answered")
        if self._replication is not None:
            since = deadline - self._settings.operation_timeout
            self._tasks.start(self._resolve_replicated(keys, command, batch, answer, since))
            return
        is_lone = len(batch) == 1 and not self._unanswered and not self._gathered
        self._lone = self._lone + 1 if is_lone else 0
        self._resolve(batch, _each(answer, batch, self._seal))

    @staticmethod
    def _resolve(batch: list[_Pending], answers: Sequence[Answer]) -> None:
        for (_, _, future), one in zip(batch, answers, strict=True):
            if future is not None and not future.done():
                future.set_result(one)

    def _try_again(self, keys: Keys, command: tuple[Any, ...], batch: list[_Pending], timeout: float) -> None:
        """Sends a batch again in the background, until it is answered or all of its callers are cancelled: a
        server that comes back is not given jobs for which nobody waits any more.
        """
        callers = [future for _, _, future in batch if future is not None]
        task = self._tasks.start(self._enqueue_slowly(keys, command, batch, timeout))

        def on_done(_: asyncio.Future[Answer]) -> None:
            if all(future.cancelled() for future in callers):
                task.cancel()

        for future in callers:
            future.add_done_callback(on_done)

    async def _enqueue_slowly(
        self, keys: Keys, command: tuple[Any, ...], batch: list[_Pending], timeout: float
    ) -> None:
        """Sends a batch again whose first answer was an error or a full queue, and settles its futures."""
        since = self._loop.time() + timeout - self._settings.operation_timeout
        try:
            answer = await self._until_room(keys, command, timeout, batch[0][0].queue)
        except Exception as error:  # noqa: BLE001 - handed to each caller, whatever it is
            for _, _, future in batch:
                if future is not None and not future.done():
                    future.set_exception(error)
            return
        if self._replication is not None:
            await self._resolve_replicated(keys, command, batch, answer, since)
        else:
            self._resolve(batch, _each(answer, batch, self._seal))

    async def _until_room(self, keys: Keys, command: tuple[Any, ...], timeout: float, queue: str) -> Any:
        """Sends an enqueue. Sends it again while the queue is full, for at most `full_wait` seconds.

        Args:
            keys: of the shard.
            command: the call of `enqueue` or `submit`.
            timeout: seconds for each call.
            queue: for the message of the error.

        Raises:
            QueueFull: the queue stayed full, or the server is out of memory.
            BrokerUnavailable: no answer in time.
        """
        deadline = self._loop.time() + self._settings.full_wait
        attempt = 0
        while True:
            answer = await self._commands.send(keys, *command, timeout=timeout)
            full = _what_is_full(answer)
            if full is None:
                return answer
            attempt += 1
            left = deadline - self._loop.time()
            if left <= 0:
                limit = f"max_length={self._settings.max_length:,} jobs"
                text = f"queue {queue!r} holds {limit}"
                if full == answer_tags.TOO_MANY_DELAYED:
                    text = f"{limit} wait for their time"
                raise QueueFull(
                    f"{text} already; nothing was enqueued. "
                    "Start more workers, try again later, or wait for room with full_wait"
                )
            await asyncio.sleep(min(pause(attempt), left))

    # -- with the setting `replicas` --

    async def _resolve_replicated(
        self, keys: Keys, command: tuple[Any, ...], batch: list[_Pending], answer: Any, since: float
    ) -> None:
        """Waits for replicas, and hands what came of it to the callers: to each an error of its own."""
        assert self._replication is not None
        try:
            answers = await self._replicated(keys, command, batch, answer, since)
        except Exception as error:  # noqa: BLE001 - handed to each caller, whatever it is
            for job, _, future in batch:
                if future is None or future.done():
                    continue
                if not isinstance(error, NotReplicated):
                    future.set_exception(error)
                elif job.id in error.ids:
                    future.set_exception(self._replication.about(error, [job.id]))
                else:
                    future.set_result(False)
            return
        self._resolve(batch, answers)

    async def _replicated(
        self, keys: Keys, command: tuple[Any, ...], batch: list[_Pending], answer: Any, since: float
    ) -> list[Answer]:
        """Waits until the replicas have the jobs of a batch that the server has answered.

        Args:
            keys: of the shard.
            command: the call of `enqueue`.
            batch: its jobs.
            answer: of the server.
            since: the loop's time at which it was sent first.

        Raises:
            NotReplicated, QueueFull, BrokerUnavailable: as `Replication.ensure`.
        """
        assert self._replication is not None
        jobs = [job for job, _, _ in batch]

        async def send(timeout: float) -> list[Answer]:
            answer = await self._until_room(keys, command, timeout, jobs[0].queue)
            return _each(answer, batch, self._seal)

        answers = _each(answer, batch, self._seal)
        return await self._replication.ensure(keys, jobs, answers, since, send)

    async def _enqueue_replicated(
        self, keys: Keys, command: tuple[Any, ...], batch: list[_Pending]
    ) -> list[Answer]:
        """Sends a batch as `_until_room`, and waits as `_replicated`."""
        since = self._loop.time()
        timeout = self._settings.operation_timeout
        answer = await self._until_room(keys, command, timeout, batch[0][0].queue)
        return await self._replicated(keys, command, batch, answer, since)

    async def _enqueue_all_replicated(
        self, calls: Sequence[tuple[Keys, tuple[Any, ...], list[_Pending]]]
    ) -> list[tuple[wire.Job, ExistingJob]]:
        """Does what `enqueue_many` does for its batches. One error names the jobs of all of them."""
        assert self._replication is not None
        sent = (self._enqueue_replicated(*call) for call in calls)
        answers = await asyncio.gather(*sent, return_exceptions=True)
        others: list[tuple[wire.Job, ExistingJob]] = []
        short: list[NotReplicated] = []
        for (_, _, batch), answer in zip(calls, answers, strict=True):
            if isinstance(answer, NotReplicated):
                short.append(answer)
            elif isinstance(answer, BaseException):
                raise answer
            else:
                for item, one in zip(batch, answer, strict=True):
                    if one is not True:
                        others.append((item[0], one))
        if short:
            raise self._replication.about(short[0], [id_ for error in short for id_ in error.ids])
        return others


def _taken(ids: Sequence[bytes]) -> ValueError:
    names = ", ".join(repr(id_.decode()) for id_ in ids)
    return ValueError(
        f"jobs with the ids {names} exist already and are other calls; nothing was enqueued. Use "
        "other ids for task_id"
    )


def _batches(box: list[_Pending]) -> list[list[_Pending]]:
    """Splits jobs so that no script call holds up the server and no buffer grows too large."""
    if len(box) <= BATCH and sum(len(message) for _, message, _ in box) <= BATCH_BYTES:
        return [box]
    batches: list[list[_Pending]] = [[]]
    volume = 0
    for item in box:
        if batches[-1] and (len(batches[-1]) >= BATCH or volume + len(item[1]) > BATCH_BYTES):
            batches.append([])
            volume = 0
        batches[-1].append(item)
        volume += len(item[1])
    return batches


def _what_is_full(answer: Any) -> bytes | None:
    """Returns which limit refused an enqueue or a submit; None if none did."""
    if type(answer) is int:
        return _FULL_OF_NUMBER.get(answer)
    return answer[0] if answer[0] in _FULL else None


def _each(answer: Any, batch: Sequence[_Pending], seal: Seal | None) -> list[Answer]:
    if type(answer) is int:
        return [True] * len(batch)
    return [
        one != 0 if type(one) is int else status_of(one, job.id, seal)
        for (job, _, _), one in zip(batch, answer, strict=True)
    ]
