"""Says what a job that has not begun waits for: its time, other jobs, a permit of its task, a pause of its
queue, a worker that serves its queue or knows its task. Runs on the session's loop; it only reads.

The record says which kind of wait it is. Then one function for each kind asks the server for the rest. What
the answer names may change at any moment.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from asyncq import wire
from asyncq.broker.schema.keys import EXECUTORS, GROUP, LAST_ATTEMPT, LEVEL, name_from, queue_of, text_of
from asyncq.broker.schema.records import Record
from asyncq.broker.transport.server_error import ErrorAction, ServerError
from asyncq.control.job_listing import worker_name
from asyncq.control.queues import serving
from asyncq.errors import DecodeError, ResultNotFound
from asyncq.outcome import timestamp
from asyncq.states import State
from asyncq.tasks.planning import BARRIER_TASK

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import datetime

    from asyncq.broker.broker import Broker
    from asyncq.broker.schema.keys import Keys
    from asyncq.broker.worker_store import RegisteredWorker

MOST_NAMED = 10
"""Most jobs, or workers, that a reason names."""
_ASKED_AT_ONCE = 500

_EXECUTOR_OF = {sign: executor for executor, sign in EXECUTORS.items()}


@dataclass(frozen=True, slots=True)
class Reason:
    """One reason for which a job has not begun, or has not ended.

    Attributes:
        kind: `time`, `retry`, `parents`, `permit`, `rate`, `paused`, `no worker`, `unknown task`, `quiet`,
            `executor`, `last try`, `turn`; of a job that runs `running` or `jobs`, of an ended one `ended`.
        text: the reason, as a sentence.
        until: when it will be over, in UTC, if that is known.
        jobs: ids of jobs that must end, or hold what it needs: the first ten.
        workers: names of workers that the reason is about: the first ten.
    """

    kind: str
    text: str
    until: datetime | None = None
    jobs: tuple[str, ...] = ()
    workers: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Why:
    """What a job waits for. `print(why)` shows the reasons, one a line.

    Attributes:
        id: of the job.
        task: the name of its task; empty if that is not known.
        queue: its queue; empty if it has ended.
        state: where it is.
        reasons: what it waits for; the first must be over before the others count.
    """

    id: str
    task: str
    queue: str
    state: State
    reasons: tuple[Reason, ...]

    def __str__(self) -> str:
        return "\n".join(reason.text for reason in self.reasons)


async def why(broker: Broker, id: str) -> Why:
    """Returns what a job waits for.

    Raises:
        ResultNotFound: there is no such job (any more).
        BrokerUnavailable: no answer within the operation timeout.
    """
    data = await broker.record(id)
    try:
        record = None if data is None else Record.parse(data)
    except DecodeError as error:
        raise ResultNotFound(f"the record of job {id!r} cannot be read: {error}") from error
    if record is None or record.flags[0] == wire.TOMBSTONE:
        raise ResultNotFound(f"there is no job {id!r}: it never existed, was forgotten, or has expired")
    state = wire.STATE_OF[record.flags[0]]
    if not record.flags.is_live:
        return Why(id, "", "", state, (Reason("ended", f"it has ended: {state}"),))
    message = await broker.message(id)
    task = "" if message is None else message[0].name
    job = _Job(broker, id, task, record)
    state, reasons = await job.reasons()
    return Why(id, task, job.queue, state, tuple(reasons))


class _Job:
    """A job that has not ended, and what it may wait for."""

    def __init__(self, broker: Broker, id_: str, task: str, record: Record) -> None:
        self.queue = queue_of(record.queue)
        self._broker = broker
        self._id = id_
        self._task = task
        self._record = record
        self._keys: Keys = broker.shards.of(id_)

    async def reasons(self) -> tuple[State, list[Reason]]:
        """Returns where the job is, and what it waits for."""
        letter = self._record.flags[0]
        state = wire.STATE_OF[letter]
        if letter == wire.LIVE:
            return await self._in_queue_or_running()
        if letter == wire.WAITING:
            first = await self._parents()
        elif letter == wire.DEFERRED:
            first = await self._deferral()
        else:
            first = await self._due(letter)
        return state, [first, *await self._of_queue()]

    async def _send(self, *command: Any) -> Any:
        return await self._broker.commands.send(self._keys, *command)

    # -- it waits outside of its queue --

    async def _due_at(self) -> datetime | None:
        score = await self._send("ZSCORE", self._keys.delayed, self._id)
        return None if score is None else timestamp(int(float(score)))

    async def _due(self, letter: str) -> Reason:
        """It waits for its time, or for its next try."""
        due = await self._due_at()
        at = "now" if due is None else f"{due:%Y-%m-%d %H:%M:%S} UTC"
        if letter != wire.RETRYING:
            return Reason("time", f"it waits for its time: {at}", due)
        (tries,) = await self._send("HMGET", self._keys.messages + self._id, "a")
        count = wire.number_in(tries or b"0", wire.MOST_COUNTED)
        which = f"retry {count}" if count else "next try"
        return Reason("retry", f"it has failed and waits for its {which}: {at}", due)

    async def _parents(self) -> Reason:
        """It waits for other jobs of its workflow."""
        (text,) = await self._send("HMGET", self._keys.messages + self._id, "p")
        parents = list(dict.fromkeys(text_of(text or b"").split()))
        live: list[str] = []
        for first in range(0, len(parents), _ASKED_AT_ONCE):
            some = parents[first : first + _ASKED_AT_ONCE]
            letters = await asyncio.gather(*map(self._letter_of, some))
            live += [id_ for id_, letter in zip(some, letters, strict=True) if letter in wire.NOT_ENDED]
            if len(live) > MOST_NAMED:
                break
        named = live[:MOST_NAMED]
        states = await asyncio.gather(*map(self._broker.state, named))
        shown = [
            f"{id_} ({'ended' if snapshot is None else snapshot.state})"
            for id_, snapshot in zip(named, states, strict=True)
        ]
        more = " and more" if len(live) > MOST_NAMED else ""
        of_all = (
            f"of the {len(parents):,} jobs before it, these have not ended"
            if len(parents) > 1
            else "the job before it has not ended"
        )
        text = f"{of_all}: {', '.join(shown)}{more}" if shown else "the jobs before it have just ended"
        return Reason("parents", text, jobs=tuple(named))

    async def _letter_of(self, id_: str) -> str:
        keys = self._broker.shards.of(id_)
        found: bytes = await self._broker.commands.send(keys, "GETRANGE", keys.records + id_, 0, 0)
        return text_of(found)

    async def _deferral(self) -> Reason:
        """A worker had it and has put it off: its task has a limit, or the worker does not know the task."""
        limit_state, put_off = await self._send("HMGET", self._keys.messages + self._id, "g", "u")
        due = await self._due_at()
        task = self._task.removesuffix("*")
        keys = self._broker.shards.of(task)
        waits = await self._broker.commands.send(keys, "ZSCORE", keys.permits_waiting + task, self._id)
        if waits is not None:
            return await self._permit(keys, task, "other jobs have all permits")
        if limit_state is not None and put_off is None:
            at = "" if due is None else f": {due:%Y-%m-%d %H:%M:%S.%f}"[:-3] + " UTC"
            return Reason("rate", f"the rate limit of its task has given it a time to start{at}", due)
        return Reason(
            "unknown task",
            f"the worker that had it does not know its task {self._task!r}, and has left it to others; it is "
            "tried again every two seconds at most, until unknown_task_wait is over",
            due,
        )

    async def _permits_in_use(self) -> list[Reason]:
        """It has not come to its turn yet, and then it needs a permit: other jobs of its task have some."""
        task = self._task.removesuffix("*")
        keys = self._broker.shards.of(task)
        send = self._broker.commands.send
        if not task or not await send(keys, "HLEN", keys.permits_held + task):
            return []
        are_all_taken = await send(keys, "ZCARD", keys.permits_waiting + task) > 0
        who = "other jobs have all permits" if are_all_taken else "other jobs have permits"
        return [await self._permit(keys, task, who)]

    async def _permit(self, keys: Keys, task: str, who: str) -> Reason:
        """It waits for a permit, or will: its task has `concurrency=`. `who` says who has permits."""
        held = await self._broker.commands.send(keys, "HGETALL", keys.permits_held + task)
        holders = [
            (name_from(claim).partition(" ")[2], worker_name(name_from(session_id)))
            for claim, session_id in held.items()
        ]
        some = holders[:MOST_NAMED]
        shown = ", ".join(f"{id_} (on worker {worker})" for id_, worker in some)
        more = f" and {len(holders) - MOST_NAMED:,} more" if len(holders) > MOST_NAMED else ""
        return Reason(
            "permit",
            f"task {task!r} has a limit of its concurrency, and {who}: {shown}{more}"
            if holders
            else f"task {task!r} has a limit of its concurrency; a permit has just become free",
            jobs=tuple(id_ for id_, _ in some),
            workers=tuple(dict.fromkeys(worker for _, worker in some)),
        )

    # -- it is in its queue --

    async def _in_queue_or_running(self) -> tuple[State, list[Reason]]:
        stream = self._keys.stream(self._record.queue)
        try:
            pending = await self._send("XPENDING", stream, GROUP, self._record.entry, self._record.entry, 1)
        except ServerError as error:
            if error.action is not ErrorAction.NO_GROUP:
                raise
            pending = []
        if pending:
            _, consumer, idle, _ = pending[0]
            return State.STARTED, await self._running(worker_name(name_from(consumer)), idle / 1000)
        reasons = await self._of_queue() or [await self._turn()]
        return State.PENDING, [*reasons, *await self._permits_in_use()]

    async def _running(self, worker: str, seconds: float) -> list[Reason]:
        reasons = [
            Reason("running", f"worker {worker} has had it for {seconds:,.1f} s", workers=(worker,)),
        ]
        (targets,) = await self._broker.commands.run(
            self._keys, "waits", (), (self._keys.key_prefix, self._id)
        )
        if ids := [text_of(id_) for id_ in targets][:MOST_NAMED]:
            reasons.append(Reason("jobs", f"it waits for the end of {', '.join(ids)}", jobs=tuple(ids)))
        return reasons

    async def _of_queue(self) -> list[Reason]:
        """Returns what keeps all jobs of its queue, or of its task, from workers."""
        reasons: list[Reason] = []
        paused, workers = await asyncio.gather(
            self._broker.queues.paused([self.queue]), self._broker.workers.all()
        )
        if paused:
            reasons.append(Reason("paused", f"queue {self.queue!r} is paused"))
        serve = serving(self.queue, workers)
        if not serve:
            others = ", ".join(sorted({one.name for one in workers if one.is_live})[:MOST_NAMED])
            reasons.append(
                Reason(
                    "no worker",
                    f"no worker serves queue {self.queue!r}"
                    + (f"; live workers: {others}" if others else "; no worker lives"),
                )
            )
            return reasons
        names = tuple(dict.fromkeys(one.name for one in serve))[:MOST_NAMED]
        knowing = await self._knowing(serve)
        if self._task not in ("", BARRIER_TASK) and not knowing:
            reasons.append(
                Reason(
                    "unknown task",
                    f"no worker of queue {self.queue!r} knows task {self._task!r}: {', '.join(names)}",
                    workers=names,
                )
            )
        elif all(one.status is not None and one.status.is_quiet for one in knowing or serve):
            reasons.append(Reason("quiet", f"its workers are quiet: {', '.join(names)}", workers=names))
        return reasons

    async def _knowing(self, serve: Sequence[RegisteredWorker]) -> list[RegisteredWorker]:
        """Returns those of the workers that know its task."""
        field = f"t{self._task.removesuffix('*')}"
        found = await self._broker.workers.announced([one.session_id for one in serve], field)
        return [one for one, (knows,) in zip(serve, found, strict=True) if knows is not None]

    async def _turn(self) -> Reason:
        """Nothing but other jobs is in its way."""
        name = self._record.queue
        if name.endswith(LAST_ATTEMPT):
            return Reason("last try", "it is on its last try, and waits until it can run alone")
        figures, workers = await asyncio.gather(
            self._broker.queues.figures([self.queue]), self._broker.workers.all()
        )
        statuses = [one.status for one in serving(self.queue, workers) if one.status is not None]
        busy, slots = sum(one.busy for one in statuses), sum(one.concurrency for one in statuses)
        load = f"{busy:,} of {slots:,} slots of its workers are taken"
        executor = _EXECUTOR_OF.get(name[-1]) if LEVEL in name else None
        if executor is not None:
            return Reason("executor", f"it waits until a worker has a free {executor} for it; {load}")
        waiting = f"{figures[self.queue].waiting:,} jobs wait in queue {self.queue!r}"
        names = dict.fromkeys(worker.name for worker in serving(self.queue, workers))
        return Reason("turn", f"it waits for its turn: {waiting}; {load}", workers=tuple(names)[:MOST_NAMED])
