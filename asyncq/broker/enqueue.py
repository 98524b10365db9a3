"""How jobs get in: one by one, in batches, and as workflows.

`enqueue` is the hot verb: all jobs enqueued in one turn of the loop travel in one script call.
"""

from __future__ import annotations

import asyncio
import logging
import math
from functools import partial
from typing import TYPE_CHECKING, Any, Literal

from asyncq import failpoints, wire
from asyncq.broker.background import BackgroundTasks
from asyncq.broker.cross_shard.submission import Submission
from asyncq.broker.schema.keys import leveled, queue_of
from asyncq.broker.schema.records import JobStatus, status_of
from asyncq.broker.transport.reconnect import pause
from asyncq.config import shown
from asyncq.errors import BrokerUnavailable, QueueFull

if TYPE_CHECKING:
    from collections.abc import Sequence

    from asyncq.broker.commands import Commands
    from asyncq.broker.schema.keys import Keys

log: logging.Logger = logging.getLogger(__name__)

BATCH = 500
"""Most jobs in one script call: Lua unpacks at most some 8,000 values, and other clients want their turn."""
BATCH_BYTES = 1024 * 1024
FULL = (-1, -2)
"""What the enqueue script answers when the queue has no room, and when too many jobs wait for their time."""

ExistingJob = Literal[False] | JobStatus
"""What an enqueue may find under its id: False for another job, else how the job of an equal call with the
same key stands."""
Answer = Literal[True] | ExistingJob
"""To an enqueue: True for accepted."""

_Pending = tuple[wire.Job, bytes, "asyncio.Future[Answer] | None"]


class Intake:
    """What a client gives to the server.

    Args:
        commands: of the session.
    """

    def __init__(self, commands: Commands) -> None:
        self._commands = commands
        self._channel = commands.channel
        self._settings = commands.settings
        self._shards = commands.shards
        self._loop = asyncio.get_running_loop()
        self._enqueue_sha = commands.scripts["enqueue"].sha
        self._measured: set[str] = set()
        """The streams whose length was looked at in this tenth of a second, and that had room."""
        self._measured_until = 0.0
        # By shard and queue: what one script call can accept.
        self._gathered: dict[int, dict[str, list[_Pending]]] = {}
        self._unanswered: dict[float, list[_Pending]] = {}
        """What was sent, by when it is given up: the oldest first."""
        self._given_up_at: asyncio.TimerHandle | None = None
        self._tasks = BackgroundTasks(log)

    async def close(self) -> None:
        """Waits a moment for what is under way. The connection is closed, so it ends with
        `BrokerUnavailable`.
        """
        if self._given_up_at is not None:
            self._given_up_at.cancel()
        await self._tasks.wait(1.0)

    def enqueue(self, job: wire.Job, message: bytes) -> asyncio.Future[Answer]:
        """Enqueues a job together with all others of this turn of the loop.

        The future's result is an `Answer`. It raises `BrokerUnavailable` when the server
        could not be reached in time (the job may or may not have been accepted; the same id again tells) and
        `QueueFull` when its memory is full.
        """
        future: asyncio.Future[Answer] = self._loop.create_future()
        shard = 0 if self._shards.is_one else self._shards.number(job.id)
        boxes = self._gathered.get(shard)
        if boxes is None:
            if not self._gathered:
                self._loop.call_soon(self._send_gathered)
            boxes = self._gathered[shard] = {}
        queue = leveled(job.queue, job.priority) if job.priority else job.queue
        box = boxes.get(queue)
        if box is None:
            box = boxes[queue] = []
        box.append((job, message, future))
        return future

    async def enqueue_many(
        self, jobs: Sequence[tuple[wire.Job, bytes]]
    ) -> list[tuple[wire.Job, ExistingJob]]:
        """Enqueues jobs in as few script calls as there are queues in shards and batches of 500; raises as
        `enqueue`.

        Returns:
            The jobs that were not accepted, and what was found in their place.
        """
        is_one, number_of = self._shards.is_one, self._shards.number
        boxes: dict[tuple[int, str], list[_Pending]] = {}
        for job, message in jobs:
            queue = leveled(job.queue, job.priority) if job.priority else job.queue
            shard = 0 if is_one else number_of(job.id)
            boxes.setdefault((shard, queue), []).append((job, message, None))
        batches = [(where, batch) for where, box in boxes.items() for batch in _batches(box)]
        timeout = self._settings.operation_timeout
        sent = []
        for (number, queue), batch in batches:
            keys = self._shards[number]
            command = self._enqueue_command(keys, queue, batch)
            sent.append(self._until_room(keys, command, timeout, queue_of(queue)))
        answers = await asyncio.gather(*sent)
        return [
            (item[0], one)
            for (_, batch), answer in zip(batches, answers, strict=True)
            if type(answer) is not int
            for item, one in zip(batch, _each(answer, len(batch)), strict=True)
            if one is not True
        ]

    async def submit(self, jobs: Sequence[tuple[wire.Job, bytes]]) -> None:
        """Enqueues the jobs of one workflow in one atomic step: all of them, or none. Sent again, because the
        answer was lost, it changes nothing.

        Those that lie in other shards than most, and those beyond the first 500, come into their queues a
        moment later: by this call before it returns, or by a worker, if this process dies or the server goes
        away.

        Args:
            jobs: with their messages, parents before children.

        Raises:
            ValueError: another call's job has the id of one of them; the message names it.
            QueueFull: one of the queues stayed full for `full_wait`, or the server is out of memory.
            BrokerUnavailable: no answer within the operation timeout; they may have been accepted.
        """
        submission = Submission(jobs, self._shards)
        home = self._shards[submission.home]
        batches = submission.batches(self._channel)
        command = self._commands.build(
            "submit",
            (),
            (
                *(home.space, self._channel, self._settings.max_length, batches, submission.more()),
                *submission.arguments(),
            ),
        )
        queues = sorted({job.queue for job, _ in jobs})
        timeout = self._settings.operation_timeout
        answer: Any = await submission.taken(self._commands, timeout)
        if not answer:
            answer = await self._until_room(home, command, timeout, ", ".join(queues))
        if type(answer) is not int:
            taken = ", ".join(repr(id_.decode()) for id_ in answer)
            raise ValueError(
                f"jobs with the ids {taken} exist already and are other calls; nothing was enqueued. Use "
                "other ids for task_id"
            )
        if submission.in_batches:
            await self._commands.forwarded(home)

    def _enqueue_command(self, keys: Keys, queue: str, batch: list[_Pending]) -> tuple[Any, ...]:
        command: list[Any] = ["EVALSHA", self._enqueue_sha, 1, keys.queues + queue, keys.space, queue]
        command += (self._channel, self._length_limit(keys.queues + queue, len(batch)))
        for job, message, _ in batch:
            flags = "-i-" if job.ignore_result else "---"
            command += (job.id, job.request_id, flags, "" if job.wait is None else job.wait, message)
        return tuple(command)

    def _length_limit(self, stream: str, count: int) -> int | str:
        """The queue's limit, where it is to be checked. A look costs a command, so a long limit is looked at
        for batches and ten times a second, and for each job once it was found full: it may be overshot by
        what one client enqueues, one by one, in a tenth of a second.
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
        gathered, self._gathered = self._gathered, {}
        for number, boxes in gathered.items():
            keys = self._shards[number]
            for queue, box in boxes.items():
                for batch in _batches(box):
                    command = self._enqueue_command(keys, queue, batch)
                    failpoints.hit("enqueue.send")
                    on_reply = partial(self._enqueued, keys, command, batch, self._expect(batch))
                    self._commands.post(keys, command, on_reply, now=True)

    def _expect(self, batch: list[_Pending]) -> float:
        """Notes that a batch is to be answered in time, and until when. One timer serves all: making one and
        cancelling it costs a lone call more than the rest of its sending.
        """
        deadline = self._loop.time() + self._settings.operation_timeout
        while deadline in self._unanswered:
            deadline = math.nextafter(deadline, math.inf)
        self._unanswered[deadline] = batch
        if self._given_up_at is None:
            self._given_up_at = self._loop.call_at(deadline, self._give_up)
        return deadline

    def _give_up(self) -> None:
        """The server has said nothing for as long as a client waits; the jobs may have been accepted all the
        same.
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
        """The quick way: the first answer is the last. Anything else, also that there is no connection, is
        left to the loop that tries again.
        """
        if self._unanswered.pop(deadline, None) is None:
            return  # too late: it was given up, and whoever was told so may have called again
        if isinstance(answer, Exception) or answer in FULL:
            left = max(0.05, deadline - self._loop.time())
            self._measured.discard(command[3])  # a full queue is looked at for every job until it has room
            self._tasks.start(self._enqueue_slowly(keys, command, batch, left))
            return
        failpoints.hit("enqueue.answered")
        self._settle(batch, answer)

    @staticmethod
    def _settle(batch: list[_Pending], answer: Any) -> None:
        for (_, _, future), one in zip(batch, _each(answer, len(batch)), strict=True):
            if future is not None and not future.done():
                future.set_result(one)

    async def _enqueue_slowly(
        self, keys: Keys, command: tuple[Any, ...], batch: list[_Pending], timeout: float
    ) -> None:
        try:
            answer = await self._until_room(keys, command, timeout, batch[0][0].queue)
        except Exception as error:  # noqa: BLE001 - handed to each caller, whatever it is
            for _, _, future in batch:
                if future is not None and not future.done():
                    future.set_exception(error)
            return
        self._settle(batch, answer)

    async def _until_room(self, keys: Keys, command: tuple[Any, ...], timeout: float, queue: str) -> Any:
        """Enqueues; waits for room in a full queue for as long as `full_wait` says."""
        deadline = self._loop.time() + self._settings.full_wait
        attempt = 0
        while True:
            answer = await self._commands.send(keys, *command, timeout=timeout)
            if answer not in FULL:
                return answer
            attempt += 1
            left = deadline - self._loop.time()
            if left <= 0:
                limit = f"max_length={self._settings.max_length:,} jobs"
                full = (
                    f"queue {queue!r} holds {limit}" if answer == FULL[0] else f"{limit} wait for their time"
                )
                raise QueueFull(
                    f"{full} already; nothing was enqueued. "
                    "Start more workers, try again later, or wait for room with full_wait"
                )
            await asyncio.sleep(min(pause(attempt), left))


def _batches(box: list[_Pending]) -> list[list[_Pending]]:
    """Split so that no script call holds up the server, and no buffer grows beyond reason."""
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


def _each(answer: Any, count: int) -> list[Answer]:
    if type(answer) is int:
        return [True] * count
    return [one != 0 if type(one) is int else status_of(one) for one in answer]
