"""The verbs: what can be done to a job in Redis, each one script and safe to send twice.

Retrying is asyncq's own. Whatever breaks on the way, the same command goes out again, with pauses, until it
is answered or its time is over; the scripts see to it that twice is once.

`enqueue` is the hot verb: all jobs enqueued in one turn of the loop travel in one script call.
"""

from __future__ import annotations

import asyncio
import logging
import math
import os
import re
import socket
import time
from functools import partial
from typing import TYPE_CHECKING, Any, Literal

from asyncq import failpoints, wire
from asyncq.broker import rights, scripts
from asyncq.broker.circle import way_back
from asyncq.broker.connection import Address, ServerError, Verdict
from asyncq.broker.keys import GROUP, LEVEL, leveled, queue_of
from asyncq.broker.line import Line, pause
from asyncq.broker.listener import Listener
from asyncq.broker.pipe import PipeBroken
from asyncq.broker.relay import Relay
from asyncq.broker.shards import Shards
from asyncq.broker.submission import Submission
from asyncq.config import shown
from asyncq.errors import AsyncQError, BrokerNotConfigured, BrokerUnavailable, DecodeError, QueueFull

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from asyncq.broker.keys import Keys
    from asyncq.config import Settings

log: logging.Logger = logging.getLogger("asyncq")

BATCH = 500
"""Most jobs in one script call: Lua unpacks at most some 8,000 values, and other clients want their turn."""
BATCH_BYTES = 1024 * 1024
TOMBSTONE_MS = 60_000
DAY_MS = 86_400_000
READ_AT_ONCE = 500
READER_AWAY_MS = 10_000
"""A reader of a stream that was not heard of for this long holds up nobody."""
MOST_FOLLOWED = 10_000
"""How many jobs one look for a cycle of waits may see: some 20 ms of the server's time."""
FULL = (-1, -2)
"""What the enqueue script answers when the queue has no room, and when too many jobs wait for their time."""
FOREVER = float("inf")
"""The patience of a worker: what it has to say is true however long the server is away. It ends with its
app."""

_LETTER = re.compile(r"([0-9]{1,20}-[0-9]{1,20})(?:\.([0-9]{1,3}))?")

Met = Literal[False] | str | wire.Ended | None
"""What an enqueue may find under its id: False for another job, else how the job of an equal call with the
same key stands, as `Broker.look` says it."""
Answer = Literal[True] | Met
"""To an enqueue: True for accepted."""

_Pending = tuple[wire.Job, bytes, "asyncio.Future[Answer] | None"]


def token() -> str:
    """A random name for a process's life: never reused, also not after a fork."""
    return os.urandom(8).hex()


class Broker:
    """A client's view of the server: one pipelined connection for commands, one subscription for outcomes."""

    def __init__(self, address: Address, settings: Settings, channel: str) -> None:
        self.address = address
        self.settings = settings
        self.shards: Shards = Shards(settings.namespace, settings.shards)
        self.scripts: dict[str, scripts.Script] = scripts.load()
        self.client: str = f"{socket.gethostname()}-{os.getpid()}"
        self.channel = channel
        self._loop = asyncio.get_running_loop()
        # Well under the operation timeout, so that a call on a connection that died in silence still has its
        # time to try again.
        self.line: Line = Line(address, f"asyncq:{self.client}", patience=settings.operation_timeout / 2)
        self._enqueue_sha = self.scripts["enqueue"].sha
        self._next_length_check = self._loop.time() + 0.1
        # By shard and queue: what one script call can accept.
        self._gathered: dict[int, dict[str, list[_Pending]]] = {}
        self._unanswered: dict[float, list[_Pending]] = {}
        """What was sent, by when it is given up: the oldest first."""
        self._given_up_at: asyncio.TimerHandle | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        self._unblocking: set[asyncio.Task[None]] = set()
        self.closing: bool = False
        self.relay: Relay = Relay(self)
        self.listener: Listener = Listener(
            address, f"asyncq-sub:{self.client}", self.channel, self.look, self.expire, self._hint
        )

    async def open(self) -> None:
        """Connects and subscribes.

        Raises:
            BrokerUnavailable: the server did not answer within the operation timeout.
            ServerError: it refuses this user.
        """
        deadline = self._loop.time() + self.settings.operation_timeout
        attempt = 0
        while True:
            try:
                await asyncio.gather(self.line.pipe(), self.listener.confirm())
                await self.load_scripts()
                await self.require(
                    [call for keys in self.shards for call in rights.of_client(keys)],
                )
                await self._agree_on_shards()
                break
            except (BrokerUnavailable, PipeBroken, ServerError) as error:
                passing = not isinstance(error, ServerError) or error.verdict in {
                    Verdict.RETRY,
                    Verdict.RECONNECT,
                }
                attempt += 1
                if passing and self._loop.time() < deadline - 1.0:
                    self.line.drop()
                    await asyncio.sleep(pause(attempt))
                    continue
                await self.close()
                if not passing:
                    raise
                raise BrokerUnavailable(str(error)) from error
            except BaseException:
                await self.close()
                raise
        self.listener.start()

    async def close(self) -> None:
        """Closes both connections. Open calls end with `BrokerUnavailable`."""
        self.closing = True
        if self._given_up_at is not None:
            self._given_up_at.cancel()
        if unblocking := list(self._unblocking):
            # Its job may go on after it has closed the app that it waited with, and then waits for nobody.
            _, late = await asyncio.wait(unblocking, timeout=0.25)
            for task in late:
                task.cancel()
        if errands := self.relay.close():
            await asyncio.wait(errands, timeout=1.0)
        await self.listener.close()
        self.line.close()
        if self._tasks:
            await asyncio.wait(list(self._tasks), timeout=1.0)

    async def load_scripts(self) -> None:
        """Makes all scripts known to the server, in one round trip."""
        pipe = await self.line.pipe()
        await asyncio.gather(
            *(pipe.call("SCRIPT", "LOAD", script.source) for script in self.scripts.values())
        )

    async def require(self, calls: Sequence[rights.Call]) -> None:
        """Sees to it that the user may make these calls.

        Raises:
            ServerError: NOPERM. The first line says what the user lacks, the second what mends it.
            BrokerUnavailable: no answer within the operation timeout.
        """
        refused = await self.run("rights", (), [call.words for call in calls])
        if refused:
            user = self.address.options.get("username") or "default"
            words = {call.decode() for call in refused}
            raise ServerError(rights.complaint(user, self.settings.namespace, calls, words))

    async def _agree_on_shards(self) -> None:
        """Sees to it that nobody else counts the shards of this namespace otherwise.

        Raises:
            BrokerNotConfigured: the namespace has another number of them.
        """
        count, patience = self.shards.count, self.settings.operation_timeout
        key = self.shards[0].count
        (known,) = await self.until_answered(self.line, ("MGET", key), patience)
        if known is None and count > 1:
            # Two who come at once: the first counts.
            await self.until_answered(self.line, ("SET", key, count, "NX"), patience)
            (known,) = await self.until_answered(self.line, ("MGET", key), patience)
        if int(known or 1) != count:
            raise BrokerNotConfigured(
                f"namespace {self.settings.namespace!r} has {int(known or 1)} shards at "
                f"{self.address.safe_url}, and this app says shards={count}: jobs would be looked for where "
                "they are not. Use the same number everywhere, or another namespace; to change it, let all "
                f"jobs end and delete {key!r}"
            )

    # -- the one way a command is sent --

    async def run(
        self, name: str, keys: Sequence[str], arguments: Iterable[Any] = (), *, patience: float | None = None
    ) -> Any:
        """Runs a script, again and again until it is answered.

        Args:
            name: of the script.
            keys: its KEYS.
            arguments: its ARGV.
            patience: seconds to keep trying; None for the client's operation timeout.

        Raises:
            BrokerUnavailable: no answer in that time, or before the app was closed.
            QueueFull: the server's memory is full and the script needs some.
            ServerError: an answer that trying again will not change.
        """
        patience = self.settings.operation_timeout if patience is None else patience
        command = ("EVALSHA", self.scripts[name].sha, len(keys), *keys, *arguments)
        return await self.until_answered(self.line, command, patience)

    async def until_answered(self, line: Line, command: tuple[Any, ...], patience: float) -> Any:
        """Sends a command on a line until it is answered; raises as `run`."""
        deadline = self._loop.time() + patience
        attempt = 0
        problem: Exception | None = None
        while True:
            try:
                async with asyncio.timeout_at(None if patience == FOREVER else deadline):
                    pipe = line.current or await line.pipe()
                    return await pipe.call(*command)
            except ServerError as error:
                problem = error
                if error.verdict is Verdict.DENIED and patience == FOREVER and attempt == 0:
                    log.error("%s refuses: %s; trying on", self.address.safe_url, error)
                await self._mend(line, error, denied_is_final=patience != FOREVER)
            except (PipeBroken, BrokerUnavailable) as error:
                problem = error
            except TimeoutError as error:
                last = f"; before that: {problem}" if problem else ""
                raise BrokerUnavailable(
                    f"{self.address.safe_url} did not answer within {shown(patience)}{last}"
                ) from error
            attempt += 1
            rest = pause(attempt)
            if self.closing or self._loop.time() + rest > deadline:
                raise BrokerUnavailable(f"{self.address.safe_url}: {problem}") from problem
            await asyncio.sleep(rest)

    async def _mend(self, line: Line, error: ServerError, *, denied_is_final: bool) -> None:
        """Does what an error asks for before the command is sent again; raises where that would not help."""
        match error.verdict:
            case Verdict.RETRY:
                pass
            case Verdict.LOAD:
                await self._load_for(line)
            case Verdict.RECONNECT:
                line.drop()
            case Verdict.DENIED if not denied_is_final:
                # Rights that come back hold for connections that are there; a password does not.
                if error.code != "NOPERM":
                    line.drop()
            case Verdict.FULL:
                text = f"the server at {self.address.safe_url} is out of memory ({error})"
                raise QueueFull(text) from error
            case _:
                raise error

    async def _load_for(self, line: Line) -> None:
        try:
            pipe = await line.pipe()
            await asyncio.gather(
                *(pipe.call("SCRIPT", "LOAD", script.source) for script in self.scripts.values())
            )
        except (PipeBroken, AsyncQError) as error:
            log.debug("scripts could not be loaded (%s); again with the next try", error)

    # -- enqueue --

    def enqueue(self, job: wire.Job, message: bytes) -> asyncio.Future[Answer]:
        """Enqueues a job together with all others of this turn of the loop.

        The future's result is an `Answer`. It raises `BrokerUnavailable` when the server
        could not be reached in time (the job may or may not have been accepted; the same id again tells) and
        `QueueFull` when its memory is full.
        """
        future: asyncio.Future[Answer] = self._loop.create_future()
        shard = 0 if self.shards.is_one else self.shards.number(job.id)
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

    async def enqueue_many(self, jobs: Sequence[tuple[wire.Job, bytes]]) -> list[tuple[wire.Job, Met]]:
        """Enqueues jobs in as few script calls as there are queues in shards and batches of 500; raises as
        `enqueue`.

        Returns:
            The jobs that were not accepted, and what was found in their place.
        """
        boxes: dict[tuple[int, str], list[_Pending]] = {}
        for job, message in jobs:
            queue = leveled(job.queue, job.priority) if job.priority else job.queue
            boxes.setdefault((self.shards.number(job.id), queue), []).append((job, message, None))
        batches = [(where, batch) for where, box in boxes.items() for batch in _batches(box)]
        patience = self.settings.operation_timeout
        commands = [self._enqueue_command(shard, queue, batch) for (shard, queue), batch in batches]
        answers = await asyncio.gather(
            *(
                self._until_room(command, patience, queue_of(queue))
                for command, ((_, queue), _) in zip(commands, batches, strict=True)
            )
        )
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

        Those that lie in other shards than most are accepted there a moment later: by this call before it
        returns, or by a worker, if this process dies or the server goes away.

        Args:
            jobs: with their messages, parents before children.

        Raises:
            ValueError: another call's job has the id of one of them; the message names it.
            QueueFull: one of the queues stayed full for `full_wait`, or the server is out of memory.
            BrokerUnavailable: no answer within the operation timeout; they may have been accepted.
        """
        submission = Submission(jobs, self.shards)
        home = self.shards[submission.home]
        command = (
            *("EVALSHA", self.scripts["submit"].sha, 0),
            *(home.space, self.channel, self.settings.max_length, submission.parcels(self.channel)),
            *submission.arguments(),
        )
        queues = sorted({job.queue for job, _ in jobs})
        answer: Any = await self.taken_abroad(submission, self.settings.operation_timeout)
        if not answer:
            answer = await self._until_room(command, self.settings.operation_timeout, ", ".join(queues))
        if type(answer) is not int:
            taken = ", ".join(repr(id_.decode()) for id_ in answer)
            raise ValueError(
                f"jobs with the ids {taken} exist already and are other calls; nothing was enqueued. Use "
                "other ids for task_id"
            )
        if submission.abroad:
            await self.relay.told(home)

    async def taken_abroad(self, submission: Submission, patience: float) -> list[bytes]:
        """The ids of jobs in other shards that others have, or that are there twice. What is taken after this
        look is refused there. Raises as `run`.
        """
        if not submission.abroad:
            return []
        taken = [id_.encode() for id_ in submission.repeated]
        for shard, ids in submission.abroad.items():
            command = ("MGET", *(self.shards[shard].records + id_ for id_ in ids))
            found = await self.until_answered(self.line, command, patience)
            taken += [id_.encode() for id_, record in zip(ids, found, strict=True) if record]
        return taken

    def _enqueue_command(self, shard: int, queue: str, batch: list[_Pending]) -> tuple[Any, ...]:
        keys = self.shards[shard]
        command: list[Any] = ["EVALSHA", self._enqueue_sha, 2, keys.queues + queue, keys.delayed]
        command += (
            keys.records,
            queue,
            self.channel,
            self._length_limit(len(batch)),
            keys.messages,
            keys.wake,
        )
        for job, message, _ in batch:
            flags = "-i-" if job.ignore_result else "---"
            command += (job.id, job.nonce, flags, "" if job.wait is None else job.wait, message)
        return tuple(command)

    def _length_limit(self, count: int) -> int | str:
        """The queue's limit, where it is to be checked. A look costs a command, so a long limit is looked at
        for batches and ten
        times a second: it may be overshot by what one client enqueues, one by one, in a tenth of a second.
        """
        limit = self.settings.max_length
        now = self._loop.time()
        if limit > 10_000 and count < 100 and now < self._next_length_check:
            return ""
        self._next_length_check = now + 0.1
        return limit

    def _send_gathered(self) -> None:
        gathered, self._gathered = self._gathered, {}
        pipe = self.line.current
        for shard, boxes in gathered.items():
            for queue, box in boxes.items():
                for batch in _batches(box):
                    command = self._enqueue_command(shard, queue, batch)
                    if pipe is None or pipe.broken is not None:
                        patience = self.settings.operation_timeout
                        self._spawn(self._enqueue_slowly(command, batch, patience))
                    else:
                        failpoints.hit("enqueue.send")
                        pipe.send(command, partial(self._enqueued, command, batch, self._expect(batch)))

    def _expect(self, batch: list[_Pending]) -> float:
        """Notes that a batch is to be answered in time, and until when. One timer serves all: making one and
        cancelling it costs a lone call more than the rest of its sending.
        """
        deadline = self._loop.time() + self.settings.operation_timeout
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
        patience = self.settings.operation_timeout
        error = BrokerUnavailable(f"{self.address.safe_url} did not answer within {shown(patience)}")
        self._given_up_at = None
        for deadline in list(self._unanswered):
            if deadline > self._loop.time():
                self._given_up_at = self._loop.call_at(deadline, self._give_up)
                return
            for _, _, future in self._unanswered.pop(deadline):
                if future is not None and not future.done():
                    future.set_exception(error)

    def _enqueued(
        self, command: tuple[Any, ...], batch: list[_Pending], deadline: float, answer: Any
    ) -> None:
        """The quick way: the first answer is the last. Anything else is left to the loop that tries again."""
        self._unanswered.pop(deadline, None)
        if isinstance(answer, Exception) or answer in FULL:
            left = max(0.05, deadline - self._loop.time())
            self._spawn(self._enqueue_slowly(command, batch, left))
            return
        failpoints.hit("enqueue.answered")
        self._settle(batch, answer)

    @staticmethod
    def _settle(batch: list[_Pending], answer: Any) -> None:
        for (_, _, future), one in zip(batch, _each(answer, len(batch)), strict=True):
            if future is not None and not future.done():
                future.set_result(one)

    async def _enqueue_slowly(self, command: tuple[Any, ...], batch: list[_Pending], patience: float) -> None:
        try:
            answer = await self._until_room(command, patience, batch[0][0].queue)
        except Exception as error:  # noqa: BLE001 - handed to each caller, whatever it is
            for _, _, future in batch:
                if future is not None and not future.done():
                    future.set_exception(error)
            return
        self._settle(batch, answer)

    async def _until_room(self, command: tuple[Any, ...], patience: float, queue: str) -> Any:
        """Enqueues; waits for room in a full queue for as long as `full_wait` says."""
        deadline = self._loop.time() + self.settings.full_wait
        attempt = 0
        while True:
            answer = await self.until_answered(self.line, command, patience)
            if answer not in FULL:
                return answer
            attempt += 1
            left = deadline - self._loop.time()
            if left <= 0:
                limit = f"max_length={self.settings.max_length:,} jobs"
                full = (
                    f"queue {queue!r} holds {limit}" if answer == FULL[0] else f"{limit} wait for their time"
                )
                raise QueueFull(
                    f"{full} already; nothing was enqueued. "
                    "Start more workers, try again later, or wait for room with full_wait"
                )
            await asyncio.sleep(min(pause(attempt), left))

    def _spawn(self, coroutine: Any) -> None:
        task = self._loop.create_task(coroutine)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    # -- verbs on one job --

    async def look(self, ids: list[str], channel: str = "") -> list[wire.Ended | str | None]:
        """How jobs stand: the outcome of an ended one, the flags of a live one (and after a space when it
        expires, in ms), None for an unknown one.

        With a channel, a live job's waiters are joined by it in the same atomic step.
        """
        if self.shards.is_one:
            answers = await self.run("look", (), (self.shards[0].records, channel, *ids))
            return [_standing(answer) for answer in answers]
        found = await self._look_in_shards(ids, channel)
        if missing := [id_ for id_, answer in found.items() if answer is None]:
            await self.relay.told(*self.shards)  # see _run_known
            found |= await self._look_in_shards(missing, channel)
        return [_standing(found[id_]) for id_ in ids]

    async def _look_in_shards(self, ids: Sequence[str], channel: str) -> dict[str, bytes | None]:
        by_shard = self.shards.apportion(ids)
        looks = [
            self.run("look", (), (self.shards[shard].records, channel, *some))
            for shard, some in by_shard.items()
        ]
        found: dict[str, bytes | None] = {}
        for some, answers in zip(by_shard.values(), await asyncio.gather(*looks), strict=True):
            found.update(zip(some, answers, strict=True))
        return found

    async def _run_known(
        self,
        unknown: Any,
        name: str,
        keys: Sequence[str],
        arguments: Sequence[Any] = (),
        patience: float | None = None,
    ) -> Any:
        """As `run`, of a script about a job. If the job is unknown, asks again after all outboxes were told:
        a workflow is accepted before all of its jobs are where they belong, and whoever was to bring them
        there may have died.
        """
        answer = await self.run(name, keys, arguments, patience=patience)
        if answer == unknown and not self.shards.is_one:
            await self.relay.told(*self.shards, patience=patience)
            answer = await self.run(name, keys, arguments, patience=patience)
        return answer

    async def state(self, id: str, patience: float | None = None) -> wire.Ended | wire.Standing | None:
        """Where a job is: its outcome, or how it stands, or None if it is unknown. Patience as `run`."""
        keys = self.shards.of(id)
        answer = await self._run_known(
            [],
            "state",
            (keys.records + id, keys.latest + id),
            (keys.queues, GROUP, keys.messages + id),
            patience,
        )
        if not answer:
            return None
        if len(answer) == 1:
            return wire.decode_record(answer[0])
        flags, queue = answer[0].decode(), queue_of(answer[1].decode())
        if len(answer) == 2:
            return wire.Standing(flags, queue)
        if flags[0] == wire.RETRYING:
            return wire.Standing(flags, queue, retries=answer[2], failure=answer[3])
        if len(answer) == 3:
            return wire.Standing(flags, queue, answer[2].decode())
        _, _, entry, consumer, started, report = answer
        return wire.Standing(
            flags,
            queue,
            entry.decode(),
            worker=consumer.decode().rpartition("-")[0],  # its name has a token behind it
            started=started,
            report=wire.decode_report(report) if report else None,
        )

    async def message(self, id: str, patience: float | None = None) -> tuple[wire.Job, bytes] | None:
        """The job in the message of one that has not ended, and the values of those that it waited for; None
        if there is none that can be read. Patience as `run`.
        """
        keys = self.shards.of(id)
        answer = await self.run(
            "message", (keys.records + id, keys.messages + id), (keys.queues,), patience=patience
        )
        if not answer:
            return None
        try:
            return wire.decode_job(id, "", answer[0]), answer[1]
        except DecodeError as error:
            log.debug("the message of job %r could not be read: %s", id, error)
            return None

    async def revoke(self, id: str, *, mark: str, outcome: bytes) -> str:
        """Ends a job that no worker has, marks one that a worker has: `revoked`, `signalled`, `ended` or
        `unknown`.
        """
        return await self._end_early(id, wire.REVOKED, outcome, mark)

    async def expire(self, id: str) -> str:
        """Ends a job that no worker has because its time has passed: `revoked`, `running`, `ended` or
        `unknown`.
        """
        outcome = wire.encode_ended(wire.Ended(wire.EXPIRED, finished=int(time.time() * 1000)))
        return await self._end_early(id, wire.EXPIRED, outcome, wire.NOT_AGAIN)

    async def _end_early(self, id_: str, letter: str, outcome: bytes, mark: str) -> str:
        ttl = self.result_ttl_ms(self.settings.result_ttl)
        keys = self.shards.of(id_)
        answer = await self._run_known(
            b"unknown",
            "revoke",
            (keys.records + id_, keys.delayed),
            (
                keys.space,
                id_,
                GROUP,
                letter,
                outcome,
                ttl,
                wire.PUSH_LIMIT,
                keys.marks,
                mark,
                DAY_MS,
            ),
        )
        text: str = answer.decode()
        if text == "revoked":
            await self.relay.told(keys)  # there may be no worker to tell those that wait for it elsewhere
        return text

    async def forget(self, id: str) -> str:
        """Forgets a result: `forgotten`, `flagged` (a live job's, when it ends) or `unknown`."""
        keys = self.shards.of(id)
        kept = (keys.records + id, keys.latest + id, keys.items + id, keys.places + id)
        answer = await self._run_known(b"unknown", "forget", kept)
        text: str = answer.decode()
        return text

    async def block(
        self, id: str, entry: str, mark: str, targets: Sequence[str], patience: float
    ) -> list[str]:
        """Notes for whom a running job waits; if one of them waits for it, the ids on the way from there to
        the job instead. Raises as `run`.

        Within a shard that is one step. Through several it is two, and two jobs that begin to wait for each
        other at the same time may both be told.
        """
        keys = self.shards.of(id)
        arguments = (keys.space, id, entry, mark, DAY_MS, MOST_FOLLOWED, *targets)
        answer = await self.run("block", (keys.records + id, keys.blocks + id), arguments, patience=patience)
        if answer or self.shards.is_one:
            return [one.decode() for one in answer]
        way = await way_back(self, id, targets, most=MOST_FOLLOWED, patience=patience)
        if way:
            self.unblock(id, entry, mark, targets)
        return way

    def unblock(self, id: str, entry: str, mark: str, targets: Sequence[str]) -> None:
        """The wait is over. Nobody waits for the answer. When the app is being closed, nothing is sent."""
        if self.closing:
            return
        edges = [f"{entry} {target} {mark}" for target in targets]
        task = self._loop.create_task(self._unblock(("SREM", self.shards.of(id).blocks + id, *edges)))
        self._unblocking.add(task)
        task.add_done_callback(self._unblocking.discard)

    async def _unblock(self, command: tuple[Any, ...]) -> None:
        try:
            await self.until_answered(self.line, command, self.settings.operation_timeout)
        except AsyncQError as error:
            log.debug("the end of a wait could not be told (%s); its note goes with its job's attempt", error)

    # -- streams --

    async def read_items(
        self, id: str, after: int, taken: int
    ) -> tuple[wire.Ended | str | None, bool, list[tuple[int, bytes]]]:
        """What a generator has yielded behind a number, some 500 items or a megabyte at a time: how its job
        stands, as `look` says it; whether it has ended and this is all; and the items with their numbers.

        Args:
            id: the job.
            after: the number of the last item that is at hand; 0 for all.
            taken: the number of the last item that the reader's user took.

        Raises:
            BrokerUnavailable: no answer within the operation timeout.
        """
        command = self._read_command(id, after, READ_AT_ONCE, taken)
        patience = self.settings.operation_timeout
        standing, *flat = await self.until_answered(self.line, command, patience)
        items = [
            (int(entry.partition(b"-")[0]), data) for entry, data in zip(flat[::2], flat[1::2], strict=True)
        ]
        if standing is None:
            return None, True, items
        if len(standing) == 4:
            return standing.decode(), False, items
        return wire.decode_record(standing), True, items

    def note_place(self, id: str, taken: int) -> None:
        """Says how far a reader is. If it is lost on the way, the next one says it."""
        pipe = self.line.current
        if pipe is not None:
            pipe.send(self._read_command(id, taken, 0, taken), None)

    def _read_command(self, id_: str, after: int, count: int, taken: int) -> tuple[Any, ...]:
        keys = self.shards.of(id_)
        return (
            *("EVALSHA", self.scripts["read"].sha, 3),
            *(keys.records + id_, keys.items + id_, keys.places + id_),
            *(after, count, BATCH_BYTES, taken, keys.events + id_, READER_AWAY_MS, DAY_MS),
        )

    async def save_group(self, id: str, description: bytes) -> None:
        """Keeps the description of a group for as long as a result; again is anew."""
        ttl = self.result_ttl_ms(self.settings.result_ttl)
        command = ("SET", self.shards.of(id).groups + id, description, "PX", ttl)
        await self.until_answered(self.line, command, self.settings.operation_timeout)

    async def restore_group(self, id: str) -> bytes | None:
        """The description that was saved, or None."""
        command = (
            "MGET",
            self.shards.of(id).groups + id,
        )  # which the scripts need anyway: one right less than GET
        found: list[bytes | None] = await self.until_answered(
            self.line, command, self.settings.operation_timeout
        )
        return found[0]

    async def delete_group(self, id: str) -> None:
        """Drops the description. Twice is once."""
        command = ("DEL", self.shards.of(id).groups + id)
        await self.until_answered(self.line, command, self.settings.operation_timeout)

    async def dead_letters(self, limit: int) -> list[tuple[str, dict[bytes, bytes]]]:
        """The newest dead letters with their fields, newest first, without those that are past their time."""
        oldest = int((time.time() - self.settings.dead_ttl) * 1000)
        patience = self.settings.operation_timeout
        commands = [("XREVRANGE", keys.dead, "+", oldest, "COUNT", limit) for keys in self.shards]
        answers = await asyncio.gather(
            *(self.until_answered(self.line, command, patience) for command in commands)
        )
        letters = [
            (entry.decode(), shard, fields)
            for shard, answer in enumerate(answers)
            for entry, fields in answer
        ]
        letters.sort(key=lambda letter: [int(part) for part in letter[0].split("-")], reverse=True)
        return [
            (entry if self.shards.is_one else f"{entry}.{shard}", _pairs(fields))
            for entry, shard, fields in letters[:limit]
        ]

    async def dead_letter(self, id: str) -> dict[bytes, bytes] | None:
        """One dead letter's fields, or None."""
        for keys, entry in self._letters([id]):
            command = ("XRANGE", keys.dead, entry, entry)
            if answer := await self.until_answered(self.line, command, self.settings.operation_timeout):
                return _pairs(answer[0][1])
        return None

    async def delete_dead_letters(self, ids: list[str]) -> int:
        """How many of them there were."""
        count = 0
        for keys, entry in self._letters(ids):
            command = ("XDEL", keys.dead, entry)
            count += await self.until_answered(self.line, command, self.settings.operation_timeout)
        return count

    def _letters(self, ids: Iterable[str]) -> Iterator[tuple[Keys, str]]:
        """Where the letters of these ids would be: an entry, and behind a point its shard if there are
        several.
        """
        for id_ in ids:
            if (found := _LETTER.fullmatch(id_)) and int(found[2] or 0) < self.shards.count:
                yield self.shards[int(found[2] or 0)], found[1]

    async def listened_to(self, queue: str) -> bool:
        """Whether a living worker reads from a queue. Each reads from it in all shards, and from all levels;
        one that is busy with a high level may not have come to the others yet.
        """
        keys = self.shards[0]
        levels, listened = await self._listened_to(keys, queue)
        return listened or any(
            [(await self._listened_to(keys, f"{queue}{LEVEL}{level.decode()}"))[1] for level in levels]
        )

    async def _listened_to(self, keys: Keys, name: str) -> tuple[list[bytes], bool]:
        """The levels of priority of a queue that is called so, and whether it is read from."""
        try:
            beats, levels, (readers, _) = await self.run(
                "census", (keys.beats, keys.stream(name)), (GROUP, keys.levels, name)
            )
        except ServerError as error:
            if error.verdict is Verdict.NO_GROUP or "no such key" in str(error):
                return [], False
            raise
        return levels, bool({reader for reader, _ in readers} & set(beats[::2]))

    async def _hint(self, queue: str) -> None:
        if not await self.listened_to(queue):
            log.warning(
                "a result is waited for, but no worker listens on queue %r at %s; start one: "
                "asyncq worker MODULE:APP%s",
                queue,
                self.address.safe_url,
                "" if queue == self.settings.default_queue else f" {queue}",
            )

    async def server_version(self) -> str:
        """Such as `valkey 9.1.2` or `redis 7.0.15`."""
        pipe = await self.line.pipe()
        info = (await pipe.call("INFO", "server")).decode()
        fields = dict(line.split(":", 1) for line in info.splitlines() if ":" in line)
        name = fields.get("server_name", "redis")
        return f"{name} {fields.get(f'{name}_version', fields.get('redis_version', '?'))}"

    @staticmethod
    def result_ttl_ms(seconds: float) -> int:
        """A result's time to live. Nothing about a job is deleted in under a minute: an enqueue sent again
        late must find it.
        """
        return max(TOMBSTONE_MS, round(seconds * 1000))


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


_LIVE = (b"L", b"D", b"R", b"P", b"W")


def _each(answer: Any, count: int) -> list[Answer]:
    if type(answer) is int:
        return [True] * count
    return [one != 0 if type(one) is int else _standing(one) for one in answer]


def _pairs(fields: list[bytes]) -> dict[bytes, bytes]:
    return dict(zip(fields[::2], fields[1::2], strict=True))


def _standing(answer: bytes | None) -> wire.Ended | str | None:
    if answer is None:
        return None
    if answer[:1] in _LIVE:
        return answer.decode()
    try:
        return wire.decode_record(answer)
    except DecodeError as error:
        log.warning("a record could not be read: %s", error)
        return None
