"""Ends claims: here, and nowhere else, a claimed job is finished, retried, deferred, replaced by a workflow,
released to its queue, or kept as a dead letter. It also takes the claims of dead workers.

A claim is a pending entry. Each way to end one is a single script, which checks the claim (the fence) and
may be sent twice. What the end means for other shards is forwarded. Runs on the worker's loop.

Outcomes are frequent, so they go in batches: those of one turn of the loop and one stream go in one call. Two
calls are under way, and the next one gathers meanwhile. A lone job never waits for others, and a turn in
which many jobs end sends before it is over. The other ways are rare, and each is a call of its own.
"""

from __future__ import annotations

import asyncio
import logging
from enum import Enum, auto
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple

from asyncq import failpoints, wire
from asyncq.broker.commands import FOREVER
from asyncq.broker.cross_shard.submission import Submission
from asyncq.broker.schema import answer_tags
from asyncq.broker.schema.keys import GROUP, LAST_ATTEMPT, leveled, name_to, result_ttl_ms, text_of
from asyncq.broker.transport.background import BackgroundTasks, unexpected
from asyncq.system import clock

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from asyncq.broker.commands import Commands
    from asyncq.broker.history import History
    from asyncq.broker.served_streams import Served

log: logging.Logger = logging.getLogger(__name__)

BATCH = 250
"""Most jobs in one call of `finish` and of `release`."""
BATCH_BYTES = 4 * 1024 * 1024
"""With so many bytes of outcomes a call takes no further one. The last is sent whole. 250 outcomes of a
megabyte would hold up the server for half a second."""
FLUSH, FLUSH_BYTES = 32, 16 * 1024
"""With so many outcomes, or so many bytes of them, a call is sent before the turn of the loop ends: the
server ends these jobs while the loop runs others. Without that, client, worker and server take turns, and a
hundred jobs that are in flight move in lockstep, see `docs/design.md`.
"""
UNDER_WAY = 2
"""So many calls of `finish` wait for an answer, and outcomes gather meanwhile."""
MOST_UNDER_WAY = 6
"""Most calls of `finish` that wait for an answer, where the last ones were sent because of `FLUSH`. Each must
be counted down in `_done`, whatever happens.
"""
TAKE_AT_ONCE = 100
"""Most entries of a dead worker session that one call takes."""

Outcome = tuple[wire.Delivery, str, bytes]
"""A delivery, the status code of its outcome, and the outcome."""


class Way(Enum):
    """How a claim ended."""

    FINISHED = auto()
    """The job ended with an outcome, revoked and expired jobs among them."""
    DEAD = auto()
    """The job failed for the last time, and is kept as a dead letter."""
    RETRIED = auto()
    """The job failed, and is tried again later."""
    DEFERRED = auto()
    """The body did not start, and the job comes again later: a limit of its task holds it up, or the worker
    does not know the task."""
    REPLACED = auto()
    """A workflow took the place of the job."""
    RELEASED = auto()
    """The job was released to its queue."""
    UNREADABLE = auto()
    """The entry held no message of asyncq."""
    LOST = auto()
    """The job ended because too many workers died with it."""


class ClaimEnd(NamedTuple):
    """The end of one claim, as a hook gets it.

    Attributes:
        way: how it ended.
        stream, entry: the claim; the entry is empty for `LOST`.
        id: of the job; empty if the entry held no message.
        answer: of the script: 0 if it refused, for the claim was somebody else's; 2 for `RETRIED`,
            `DEFERRED`, `REPLACED` and `RELEASED` if the job ended as revoked instead.
        delivery: the job; None for `RELEASED`, `UNREADABLE` and `LOST`.
        letter, outcome: the status code and the outcome of a job that ended; for `RETRIED` the encoded error
            of the attempt; else empty.
        task: for `LOST` the name of the task.
    """

    way: Way
    stream: str
    entry: str
    id: str
    answer: int
    delivery: wire.Delivery | None = None
    letter: str = ""
    outcome: bytes = b""
    task: str = ""


class Taken(NamedTuple):
    """What became of the jobs of a dead worker session.

    Attributes:
        put_back: how many jobs are in their queues again.
        revoked: how many jobs ended as revoked.
        lost: id and task name of each job that ended as lost.
        has_more: whether the session may hold more: call `take` again.
    """

    put_back: int = 0
    revoked: int = 0
    lost: Sequence[tuple[str, str]] = ()
    has_more: bool = False


class Claims:
    """The claims of one worker session.

    Args:
        commands: of the app's session.
        served: the streams that the worker session reads from.
        holder: the session id, under which it claims.
        on_done: called for each delivery that was given to `finish`, when the server has answered or the
            outcome was given up: the worker need not hold the job any longer.
        history: notes the jobs that have ended.

    Attributes:
        hooks: called with the end of each claim, when the server has answered. An empty list costs one truth
            test for each batch.
    """

    def __init__(
        self,
        commands: Commands,
        served: Served,
        holder: str,
        on_done: Callable[[wire.Delivery], None],
        history: History,
    ) -> None:
        self.hooks: list[Callable[[ClaimEnd], None]] = []
        self._commands = commands
        self._seal = commands.seal
        self._served = served
        self._holder = holder
        self._on_done = on_done
        self._history = history
        self._loop = asyncio.get_running_loop()
        self._waiting: dict[str, list[Outcome]] = {}
        self._scheduled = False
        self._under_way = 0
        self._tasks = BackgroundTasks(log)
        self._empty = asyncio.Event()
        self._empty.set()

    # -- with an outcome, in batches --

    def finish(self, delivery: wire.Delivery, letter: str, outcome: bytes) -> None:
        """Ends a job with an outcome, together with all others that end in this turn of the loop. Returns at
        once; the job stays held until `on_done` is called for it.

        Args:
            delivery: the job.
            letter: the status code of the outcome.
            outcome: encoded.
        """
        waiting = self._waiting.get(delivery.stream)
        if waiting is None:
            self._waiting[delivery.stream] = [(delivery, letter, outcome)]
            self._empty.clear()
        else:
            waiting.append((delivery, letter, outcome))
            count = len(waiting)
            # The outcomes of one turn are often alike, so the last one stands for the size of all.
            if count >= FLUSH or count * len(outcome) >= FLUSH_BYTES:
                self._send(MOST_UNDER_WAY)
                return
        if not self._scheduled and self._under_way < UNDER_WAY:
            self._scheduled = True
            self._loop.call_soon(self._end_turn)

    async def drain(self) -> None:
        """Waits until every outcome that was given to `finish` is stored, or was given up."""
        await self._empty.wait()

    async def finish_now(self, stream: str, batch: Sequence[Outcome]) -> int | list[int]:
        """Ends jobs of one stream in a call of their own, which is sent again for as long as it takes.

        Args:
            stream: of the jobs.
            batch: the jobs, at most `BATCH`.

        Returns:
            The number of jobs if all were accepted, else for each job 1 accepted, 2 accepted before, 0
            refused.
        """
        command = self._finish_command(stream, batch)
        keys = self._served.keys[stream]
        reply = await self._commands.send(keys, *command, timeout=FOREVER)
        answer: int | list[int] = self._commands.without_ends(keys, reply)
        if not self._commands.shards.is_one:
            self._forward(stream, batch)
        self._history.note_batch(keys, batch, answer)
        if self.hooks:
            self._tell(_finished(stream, batch, answer))
        return answer

    def _end_turn(self) -> None:
        self._scheduled = False
        self._send(UNDER_WAY)

    def _send(self, most: int) -> None:
        """Sends what was gathered, batch by batch, while fewer than so many calls wait for an answer."""
        while self._waiting and self._under_way < most:
            stream, waiting = next(iter(self._waiting.items()))
            batch, rest = _first_batch(waiting)
            if rest:
                self._waiting[stream] = rest
            else:
                del self._waiting[stream]
            self._under_way += 1
            try:
                command = self._finish_command(stream, batch)
                failpoints.hit("finish.send")
                on_reply = partial(self._answered, stream, command, batch)
                self._commands.post(self._served.keys[stream], command, on_reply, now=True)
            except Exception as error:  # noqa: BLE001  an error of one batch must not hold up the others
                self._give_up(stream, batch, error)

    def _finish_command(self, stream: str, batch: Sequence[Outcome]) -> tuple[Any, ...]:
        """Returns the call that ends jobs of one stream."""
        served = self._served
        keys, queue = served.keys[stream], served.streams.get(stream) or served.last_attempt_queues[stream]
        guards = self._commands.connections.guards[keys.shard]
        command: list[Any] = [
            "EVALSHA", self._commands.scripts["finish"].sha, 1 + len(guards), stream, *guards,
            keys.key_prefix, queue, GROUP, self._holder, wire.PUSH_LIMIT, keys.signals,
        ]  # fmt: skip
        seal = self._seal
        for delivery, letter, outcome in batch:
            job = delivery.job
            if seal is not None:
                outcome = seal.outcome(job.id, letter, outcome)  # noqa: PLW2901  only the command has it sealed
            command += (delivery.entry, job.id, job.request_id, job.channel, letter, job.result_ttl, outcome)
        return tuple(command)

    def _answered(self, stream: str, command: tuple[Any, ...], batch: list[Outcome], answer: Any) -> None:
        """Takes the first answer to a batch. If it is an error, a background task sends the batch again."""
        if isinstance(answer, Exception):
            self._tasks.start(self._persist(stream, command, batch))
            return
        failpoints.hit("finish.answered")
        self._done(stream, batch, answer)

    async def _persist(self, stream: str, command: tuple[Any, ...], batch: list[Outcome]) -> None:
        """Sends a batch whose first try has failed, until there is an answer."""
        try:
            answer = await self._commands.send(self._served.keys[stream], *command, timeout=FOREVER)
        except Exception as error:  # noqa: BLE001  each call under way must be counted down, see `UNDER_WAY`
            self._give_up(stream, batch, error)
        else:
            self._done(stream, batch, answer)

    def _give_up(self, stream: str, batch: list[Outcome], error: Exception) -> None:
        """Gives up outcomes that cannot be stored. The entries stay pending, so the jobs run again.

        There are three causes: the server lost its data, and the jobs with it (NOGROUP); the app was closed
        while the server was away; or an error that sending again would not mend.
        """
        log.error("%d outcomes could not be stored: %s", len(batch), error, exc_info=unexpected(error))
        self._done(stream, batch, None)

    def _done(self, stream: str, batch: list[Outcome], answer: int | list[int] | None) -> None:
        """Ends a call under way, with the script's answer, or with None if the batch was given up. Lets go of
        its jobs, and sends what was gathered meanwhile.
        """
        for delivery, _, _ in batch:
            self._on_done(delivery)
        # Counted down before anything that could raise: a call that stayed counted would keep one of the
        # calls from being made for ever.
        self._under_way -= 1
        if type(answer) is list:
            answer = self._commands.without_ends(self._served.keys[stream], answer)
        if type(answer) is list:
            _log_refusals(batch, answer)
        if not self._commands.shards.is_one:
            self._forward(stream, batch)
        if answer is not None:
            self._history.note_batch(self._served.keys[stream], batch, answer)
            if self.hooks:
                self._tell(_finished(stream, batch, answer))
        if self._waiting:
            self._send(UNDER_WAY)
        elif not self._under_way:
            self._empty.set()

    def _forward(self, stream: str, batch: Sequence[Outcome]) -> None:
        """Has the outbox delivered if one of these ends may concern a job in another shard."""
        if any(delivery.job.dependents or letter != wire.SUCCEEDED for delivery, letter, _ in batch):
            self._commands.forward(self._served.keys[stream])

    # -- each in a call of its own --

    async def dead_letter(self, delivery: wire.Delivery, outcome: bytes, reason: str) -> int:
        """Ends a job with a failure and keeps it as a dead letter.

        Args:
            delivery: the job.
            outcome: the failure, encoded.
            reason: why it is kept, for the operator who reads it.

        Returns:
            1 done, 2 done before, 0 refused.
        """
        keys, job = self._served.keys[delivery.stream], delivery.job
        stored = self._sealed(job.id, wire.FAILED, outcome)
        arguments = (
            *(keys.key_prefix, GROUP, self._holder, delivery.entry, job.id, stored, job.result_ttl),
            *(wire.PUSH_LIMIT, keys.signals, reason, *self._dead_limits()),
        )
        return await self._end(
            Way.DEAD, delivery, "dead_letter", (delivery.stream, keys.dead), arguments, wire.FAILED, outcome
        )

    async def retry(
        self, delivery: wire.Delivery, wait: int, retries: int, failure: bytes, last: bytes = b""
    ) -> int:
        """Ends the claim to a failed job, which is delayed until its next attempt.

        Args:
            delivery: the job.
            wait: ms until the next attempt.
            retries: how many there were, with this one.
            failure: the error of this attempt, encoded.
            last: the outcome that the job gets if it expires before the next attempt; empty if it cannot.

        Returns:
            1 done, 2 the job ended by a revocation signal instead, 0 refused.
        """
        id_, seal = delivery.job.id, self._seal
        error = failure if seal is None else seal.close("failure", id_, failure)
        last = self._sealed(id_, wire.FAILED, last) if last else last
        return await self._delay(Way.RETRIED, "retry", delivery, wait, retries, error, last, error=failure)

    async def defer(self, delivery: wire.Delivery, wait: int, turn: bytes) -> int:
        """Ends the claim to a job that the limits of its task do not let start yet. The job is deferred for
        at most `wait` ms.

        Args:
            delivery: the job.
            wait: in ms.
            turn: the limiter state, for the worker that gets the job next.

        Returns:
            1 done, 2 the job ended by a revocation signal instead, 0 refused.
        """
        return await self._delay(Way.DEFERRED, "defer", delivery, wait, "g", turn)

    async def put_off(self, delivery: wire.Delivery, wait: int, so_far: bytes) -> int:
        """Ends the claim to a job whose task this worker does not know. The job is deferred for `wait` ms.
        Returns as `defer`.

        Args:
            delivery: the job.
            wait: in ms.
            so_far: how often and how long the job was deferred, for the worker that gets it next.
        """
        return await self._delay(Way.DEFERRED, "defer", delivery, wait, "u", so_far)

    async def _delay(
        self, way: Way, script: str, delivery: wire.Delivery, *why: Any, error: bytes = b""
    ) -> int:
        """Runs a script that ends a claim and delays the job."""
        keys, job = self._served.keys[delivery.stream], delivery.job
        revoked = self._outcome_bytes(wire.REVOKED, delivery.stream, self._holder, delivery.attempt)
        revoked = self._sealed(job.id, wire.REVOKED, revoked)
        arguments = (
            *(keys.key_prefix, GROUP, self._holder, delivery.entry, job.id, *why),
            *(keys.messages, keys.wake, wire.PUSH_LIMIT, job.result_ttl, keys.signals, revoked),
        )
        return await self._end(
            way, delivery, script, (delivery.stream, keys.delayed), arguments, outcome=error
        )

    async def replace(self, delivery: wire.Delivery, jobs: Sequence[tuple[wire.Job, bytes]]) -> int:
        """Puts a workflow in the place of a running job. The last job of the workflow takes the job's id.

        Args:
            delivery: the running job.
            jobs: those of the workflow with their messages, parents before children.

        Returns:
            1 done, 2 the job ended by a revocation signal instead, 0 refused, -1 another job has one of the
            ids: then the claim stands.
        """
        commands, seal = self._commands, self._seal
        keys, job = self._served.keys[delivery.stream], delivery.job
        if seal is not None:
            jobs = [(one, seal.message(one, message)) for one, message in jobs]
        last, message = jobs[-1]
        submission = Submission(jobs, commands.shards, keys.shard, apart=last, seal=seal)
        queue = leveled(last.queue, last.priority)
        if await submission.taken(commands, FOREVER):
            return -1
        revoked = self._outcome_bytes(wire.REVOKED, delivery.stream, self._holder, delivery.attempt)
        revoked = self._sealed(job.id, wire.REVOKED, revoked)
        arguments = (
            *(keys.key_prefix, GROUP, self._holder, delivery.entry, job.id, wire.PUSH_LIMIT, job.result_ttl),
            *(keys.signals, revoked, commands.channel, queue, "" if last.wait is None else last.wait),
            *(" ".join(last.parents), "1" if last.value_template is not None else "", message),
            *(submission.batches(commands.channel), *submission.arguments()),
        )
        answer = await self._end(Way.REPLACED, delivery, "replace", (delivery.stream,), arguments)
        if submission.in_batches:
            commands.forward(keys)
        return answer

    async def _end(
        self,
        way: Way,
        delivery: wire.Delivery,
        script: str,
        keys: Sequence[str],
        arguments: Sequence[Any],
        letter: str = "",
        outcome: bytes = b"",
    ) -> int:
        """Runs a script that ends one claim until it is answered, and calls the hooks. Returns the answer."""
        shard, id_ = self._served.keys[delivery.stream], delivery.job.id
        answer: int = await self._commands.run(shard, script, keys, arguments, timeout=FOREVER)
        if way is Way.DEAD and answer == 1:
            self._history.note(shard, delivery, letter, outcome)
        elif way is not Way.DEAD and answer == 2:  # it has found a revocation signal
            revoked = self._outcome_bytes(wire.REVOKED, delivery.stream, self._holder, delivery.attempt)
            self._history.note(shard, delivery, wire.REVOKED, revoked)
        # -1: another job has an id of the workflow. Then the claim stands.
        if self.hooks and answer >= 0:
            stream, entry = delivery.stream, delivery.entry
            self._tell([ClaimEnd(way, stream, entry, id_, answer, delivery, letter, outcome)])
        return answer

    async def release(self, stream: str, jobs: Sequence[tuple[str, str]], executor: str = "") -> list[int]:
        """Releases jobs to the returned queue of their level, which is read first, without counting a crash.
        Raises as `Commands.run`.

        Args:
            stream: of the entries.
            jobs: the entries, with the ids of their jobs, in the order in which they were delivered.
            executor: in whose executor queue they wait from now on; empty for the returned queue.

        Returns:
            For each 1 released, 2 ended by a revocation signal, 0 not ours.
        """
        answers: list[int] = []
        while left := jobs[len(answers) : len(answers) + BATCH]:
            answers += await self._release(stream, left, executor)
        return answers

    async def _release(self, stream: str, jobs: Sequence[tuple[str, str]], executor: str) -> list[int]:
        """Releases the first of the jobs, as many as one call may move; at least one."""
        keys = self._served.keys[stream]
        served = self._served
        target, name = (
            served.executor_queue_of(stream, executor) if executor else served.returned_queue_of(stream)
        )
        arguments = (
            *(keys.key_prefix, GROUP, self._holder, wire.PUSH_LIMIT, self._result_ttl(), keys.signals),
            *(self._shared_outcome(wire.REVOKED, stream, self._holder, 0), name),
            *(part for job in jobs for part in job),
        )
        failpoints.hit("release.send")
        answers: list[int] = await self._commands.run(keys, "release", (stream, target), arguments)
        failpoints.hit("release.answered")
        if self.hooks:
            each = zip(jobs, answers, strict=False)
            self._tell([ClaimEnd(Way.RELEASED, stream, entry, id_, one) for (entry, id_), one in each])
        return answers

    async def refuse(self, stream: str, entry: str, id: str, reason: str, outcome: bytes) -> bool:
        """Ends the job of an entry whose message must not be run, and keeps the message as a dead letter, so
        that it can be sent again when whoever does it accepts its signature.

        Args:
            stream: of the claim.
            entry: of the claim.
            id: of the job, as the entry has it.
            reason: why it is kept.
            outcome: the failure, encoded.

        Returns:
            False if no live job has this entry: then the entry stays where it is, for `quarantine`.
        """
        keys = self._served.keys[stream]
        [found] = await self._commands.send(keys, "MGET", keys.records + id, timeout=FOREVER)
        # If the record changes meanwhile, somebody has ended or moved the job, and the script refuses.
        words = b"" if found is None else found
        if words[:1] != wire.LIVE.encode() or words.split(b" ", 2)[1] != entry.encode():
            return False
        stored = self._sealed(id, wire.FAILED, outcome)
        arguments = (
            *(keys.key_prefix, GROUP, self._holder, entry, id, stored, self._result_ttl()),
            *(wire.PUSH_LIMIT, keys.signals, reason, *self._dead_limits()),
        )
        await self._commands.run(keys, "dead_letter", (stream, keys.dead), arguments, timeout=FOREVER)
        if self.hooks:
            self._tell([ClaimEnd(Way.UNREADABLE, stream, entry, "", 1, None, wire.FAILED, outcome)])
        return True

    async def quarantine(self, stream: str, entry: str, reason: str, outcome: bytes, id: str = "") -> None:
        """Moves an entry that holds no message of asyncq to the dead letters. If a record names the entry all
        the same, its job fails with this outcome.

        Args:
            stream: of the claim.
            entry: of the claim.
            reason: why it is kept.
            outcome: the failure, encoded.
            id: of the job, as the entry has it; empty if it has none.
        """
        keys = self._served.keys[stream]
        stored = self._sealed(id, wire.FAILED, outcome)
        arguments = (
            *(keys.key_prefix, GROUP, self._holder, entry, reason, stored, self._result_ttl()),
            *(wire.PUSH_LIMIT, *self._dead_limits()),
        )
        await self._commands.run(keys, "quarantine", (stream, keys.dead), arguments, timeout=FOREVER)
        if self.hooks:
            self._tell([ClaimEnd(Way.UNREADABLE, stream, entry, "", 1, None, wire.FAILED, outcome)])

    async def take(self, stream: str, dead: str, seen: str | None) -> Taken:
        """Takes the jobs that a dead worker session held, some of them in each call. Takes nothing if its
        heartbeat goes on after all. Raises as `Commands.run`.

        Args:
            stream: of the entries.
            dead: the session id under which they are claimed.
            seen: the count at which its heartbeat stood still; None if it had none.
        """
        keys = self._served.keys[stream]
        crashes = self._commands.settings.max_crashes
        last_attempt_queue = keys.stream(self._served.queues[stream] + LAST_ATTEMPT)
        returned_queue, returned_name = self._served.returned_queue_of(stream)
        # Any program may read from the group under any name, also under one that is not UTF-8.
        consumer = name_to(dead)
        lost_outcome = self._outcome_bytes(wire.LOST, stream, dead, crashes)
        failpoints.hit("take.send")
        answer = await self._commands.run(
            keys,
            "take",
            (
                *(stream, keys.beats, keys.beat_observations, keys.observations, keys.dead),
                *(named.encode() + consumer for named in (keys.signals, keys.announcements, keys.started)),
                *(last_attempt_queue, returned_queue),
            ),
            (
                *(keys.key_prefix, GROUP, consumer, name_to(seen or ""), TAKE_AT_ONCE, crashes, self._holder),
                *(wire.PUSH_LIMIT, self._result_ttl(), self._shared(wire.LOST, lost_outcome)),
                *(self._shared_outcome(wire.REVOKED, stream, dead, 0), *self._dead_limits(), returned_name),
            ),
        )
        failpoints.hit("take.answered")
        if answer[0] == answer_tags.ALIVE:
            return Taken()
        _, back, revoked, more, *lost = answer
        jobs = [(text_of(id_), wire.task_name(head)) for id_, head in lost]
        if self.hooks:
            self._tell(
                [
                    ClaimEnd(Way.LOST, stream, "", id_, 1, None, wire.LOST, lost_outcome, task)
                    for id_, task in jobs
                ]
            )
        return Taken(back, revoked, jobs, bool(more))

    def _dead_limits(self) -> tuple[int, int]:
        settings = self._commands.settings
        return round(settings.dead_ttl * 1000), settings.dead_cap

    def _result_ttl(self) -> int:
        return result_ttl_ms(self._commands.settings.result_ttl)

    def _sealed(self, id_: str, letter: str, outcome: bytes) -> bytes:
        """Returns the outcome of a job as it is stored."""
        return outcome if self._seal is None else self._seal.outcome(id_, letter, outcome)

    def _shared(self, letter: str, outcome: bytes) -> bytes:
        """Returns an outcome as it is stored for those of several jobs that end so."""
        return outcome if self._seal is None else self._seal.shared_outcome(letter, outcome)

    def _shared_outcome(self, letter: str, stream: str, holder: str, attempts: int) -> bytes:
        return self._shared(letter, self._outcome_bytes(letter, stream, holder, attempts))

    def _outcome_bytes(self, letter: str, stream: str, holder: str, attempts: int) -> bytes:
        """Returns the outcome of a job that its worker will not finish: revoked or lost."""
        queue = self._served.queues[stream]
        worker = text_of(name_to(holder.rpartition("-")[0]))
        finished = int(clock.now() * 1000)
        return wire.encode_ended(
            wire.Ended(letter, finished=finished, attempts=attempts, worker=worker, queue=queue)
        )

    def _tell(self, ends: Sequence[ClaimEnd]) -> None:
        """Calls the hooks with the ends of claims. Logs what a hook raises."""
        for hook in self.hooks:
            for end in ends:
                try:
                    hook(end)
                except Exception:
                    # The server has answered, so the worker does not have the job any more. An error of a
                    # hook must not keep it from letting go of the job.
                    log.exception("a hook for the end of job %r failed", end.id)


def _first_batch(waiting: list[Outcome]) -> tuple[list[Outcome], list[Outcome]]:
    """Returns as many as may end in one call, and the rest."""
    if len(waiting) <= BATCH and sum([len(outcome) for _, _, outcome in waiting]) <= BATCH_BYTES:
        return waiting, []
    count = volume = 0
    while count < min(BATCH, len(waiting)) and volume < BATCH_BYTES:
        volume += len(waiting[count][2])
        count += 1
    return waiting[:count], waiting[count:]


def _log_refusals(batch: Sequence[Outcome], answers: Sequence[int]) -> None:
    """Logs each outcome that the fence has refused."""
    for (delivery, _, _), accepted in zip(batch, answers, strict=True):
        if not accepted:
            log.warning(
                "the outcome of job %r was refused: another worker took the job over while this worker was "
                "away",
                delivery.job.id,
            )


def _finished(stream: str, batch: Sequence[Outcome], answer: int | list[int]) -> list[ClaimEnd]:
    """Returns the ends of the claims of a batch, for the hooks."""
    answers = [1] * len(batch) if isinstance(answer, int) else answer
    return [
        ClaimEnd(Way.FINISHED, stream, delivery.entry, delivery.job.id, one, delivery, letter, outcome)
        for (delivery, letter, outcome), one in zip(batch, answers, strict=True)
    ]
