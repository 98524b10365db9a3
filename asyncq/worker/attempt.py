"""One run of one job in a worker, from its delivery to its outcome: here a job starts, and here it is ended.

The fetcher calls `Attempts.start` with the entries that it has read. Each job becomes one asyncio task on the
worker's loop, whose coroutine lets no exception out. `RunningJob` is what the rest of the worker sees of the
attempt: signals, time limits and the shutdown act on it, on the worker's loop. Its `state` decides each race;
only `JobControl.begin` changes it on another thread. Every attempt gives back its slot, thread and permit
once, however it ends.
"""

from __future__ import annotations

import asyncio
import logging
from contextlib import suppress
from time import perf_counter
from typing import TYPE_CHECKING, Any

from asyncq import wire
from asyncq.broker.commands import FOREVER
from asyncq.broker.transport.background import BackgroundTasks
from asyncq.errors import PayloadTooLarge
from asyncq.execution.executors import (
    CANCELLED,
    CANCELLING,
    DROPPED,
    ENDED,
    FETCHED,
    RUNNING,
    STARTING,
    AttemptState,
    JobControl,
)
from asyncq.execution.run_results import Finish
from asyncq.serializers import PLAIN_VALUE
from asyncq.worker.progress import Reporter
from asyncq.worker.read_ahead import ReadAhead
from asyncq.worker.stream_writer import StreamSink
from asyncq.worker.wait_slots import WaitSlot

if TYPE_CHECKING:
    from asyncq.broker.consumer import Consumer
    from asyncq.broker.entry_reader import Entry
    from asyncq.client.session import Session
    from asyncq.errors import TimeLimitExceeded
    from asyncq.execution.runner import Runner
    from asyncq.limits import Limits
    from asyncq.serializers import ValueCodec
    from asyncq.worker.capacity import Capacity
    from asyncq.worker.heartbeat import Lease
    from asyncq.worker.held_jobs import HeldJobs
    from asyncq.worker.job_log import JobLog
    from asyncq.worker.outcome_writer import Outcomes
    from asyncq.worker.permits import Limiter

log: logging.Logger = logging.getLogger(__name__)

SLOT_WAIT = 1.0
"""Seconds that a fetched job waits for a slot that a resumed job has taken. Then the job is handed back:
another worker may have a free slot."""


class RunningJob(JobControl):
    """A job that this session holds, with all that can be done to it from outside of its body."""

    __slots__ = ("attempts", "delivery", "reporter", "task", "wait_slot")
    state: AttemptState
    revoked: bool

    def __init__(self, delivery: wire.Delivery, attempts: Attempts) -> None:
        super().__init__()
        self.state = FETCHED
        self.delivery: wire.Delivery = delivery
        self.attempts: Attempts = attempts
        self.reporter: Reporter | None = None
        self.task: asyncio.Task[None] | None = None  # None again when it has left its slot
        self.wait_slot: WaitSlot | None = None  # few jobs wait for others, so it is made by the first wait

    # -- what the body may ask for, see `context.Link` --

    @property
    def loop(self) -> asyncio.AbstractEventLoop:
        """The worker's loop."""
        return self.attempts.loop

    @property
    def loop_owner(self) -> Session:
        """The worker's session, on whose loop the job runs."""
        return self.attempts.session

    @property
    def lifespan_state(self) -> Any:
        """What the lifespan of the app has yielded in this worker."""
        return self.attempts.runner.lifespan_state

    async def release_slot(self, wait: asyncio.Task[Any] | None) -> None:
        """Releases the job's slot, because a wait begins, see `WaitSlot.release_slot`.

        Waits of asyncio tasks that outlive their job are ignored.
        """
        if self.task is None:
            return
        if self.wait_slot is None:
            self.wait_slot = WaitSlot(self, self.attempts.held.slots)
        self.wait_slot.release_slot(wait)

    async def reacquire_slot(self, wait: asyncio.Task[Any] | None) -> None:
        """Reacquires a slot, because a wait is over, see `WaitSlot.reacquire_slot`."""
        if self.wait_slot is not None:
            await self.wait_slot.reacquire_slot(wait)

    def skip_reacquire(self) -> None:
        """Makes waits end without a slot, because the body is about to be cancelled."""
        if self.wait_slot is not None:
            self.wait_slot.skip_reacquire()

    def overdue(self, error: TimeLimitExceeded) -> None:
        """Handles a body that goes on after its time limit. The body keeps its slot until it has ended.

        If no attempt is left, the job ends now, and whoever waits for it is notified. Otherwise the next
        attempt has to wait until this body has ended: two bodies of one job must not overlap.
        """
        if self.state is not RUNNING:
            return  # the worker stops, or the job was revoked, and that decides about the job
        if self.wait_slot is not None:
            self.wait_slot.stop_waits()
        delivery, attempts, started = self.delivery, self.attempts, self.started
        assert started is not None, "the runner writes it before the body begins"
        log.warning(
            "the body of job %r (task %r) still runs after its time limit; it keeps its slot until it ends",
            *(delivery.job.id, delivery.job.name),
        )
        run_result = attempts.runner.after_failure(delivery, error, started)
        if isinstance(run_result, Finish):
            attempts.outcomes.conclude(self, run_result)
            self.move(CANCELLING, RUNNING)
            attempts.held.ending.add(self)

    def cleaning_up(self, is_cleaning: bool) -> None:
        """Notes that the clean-up of the job's dependencies begins or has ended: nothing may cancel it."""
        if is_cleaning:
            self.attempts.held.cleaning_up.add(self)
        else:
            self.attempts.held.cleaning_up.discard(self)

    def _cancel_task(self) -> None:
        """Cancels the asyncio task of the job, unless it is in its clean-up, which ends soon by itself."""
        if self.task is not None and self not in self.attempts.held.cleaning_up:
            self.task.cancel()

    def sink(self, codec: ValueCodec) -> StreamSink:
        """Returns the sink for the items of a generator."""
        return StreamSink(self, codec)

    async def report(self, state: str, meta: Any) -> None:
        """Stores a report of the job about its progress.

        Raises:
            PayloadTooLarge: `meta` takes more than `max_payload`.
        """
        data = PLAIN_VALUE.dumps(meta, path="meta")
        attempts = self.attempts
        limit = attempts.consumer.settings.max_payload
        if len(data) > limit:
            raise PayloadTooLarge(f"meta takes {len(data):,} bytes, more than max_payload={limit:,}")
        if self.reporter is None:
            self.reporter = Reporter(attempts.consumer.output(self.delivery), attempts.background.start)
        if not await self.reporter.report(state, data):
            self.revoked = True  # it runs elsewhere, or has ended: nothing that this attempt does counts
            if self.interrupt is not None:
                self.interrupt(wire.NOT_AGAIN)  # the process must know before its `update_state` returns

    # -- what the worker does to it --

    def signal(self, signal: str) -> None:
        """Applies a revocation signal, see `RevocationSignals`."""
        self.revoked = True
        if self.task is None and self.state is not FETCHED:
            return  # the body has ended before the signal came, so its own outcome counts
        if self.interrupt is not None:
            # The process gets the signal. The outcome `revoked` is stored when the body has ended, and not
            # now: until then somebody may ask for a stronger signal.
            if signal != wire.NOT_AGAIN:
                self.move(CANCELLING, STARTING, RUNNING)
            self.interrupt(signal)
        elif signal == wire.NOT_AGAIN:
            self._terminate(STARTING)
        else:
            self._terminate(STARTING, RUNNING)

    def abandon(self, reason: str) -> None:
        """Revokes a job for which nobody cares any more. It does nothing to a job that has ended."""
        self._terminate(STARTING, RUNNING, reason=reason)

    def _terminate(self, *origins: AttemptState, reason: str = "") -> None:
        """Ends the attempt and stores the outcome `revoked`, if it is in one of these states or `FETCHED`.

        The answer of `move` decides. To read the state first would race with a body that begins in a thread.
        """
        before = self.state
        if before is FETCHED:
            self.state = DROPPED
        else:
            before = self.move(CANCELLING, *origins)
            if before not in origins:
                return
        attempts = self.attempts
        attempts.outcomes.revoke(self, reason)
        if self.task is not None:
            attempts.held.ending.add(self)
        if before is RUNNING and self.in_thread:
            # A thread cannot be stopped, unless it waits for another job. It keeps its slot until the
            # function returns, and its result is dropped.
            if self.wait_slot is not None:
                self.wait_slot.stop_waits()
        elif before is not FETCHED:
            self._cancel_task()

    def withdraw(self) -> bool:
        """Ends the attempt if its body has not begun, and returns whether it did.

        Nothing is stored about the job: the caller hands it back, and it runs elsewhere.
        """
        if self.state is FETCHED:
            self.state = DROPPED
        elif self.move(CANCELLING, STARTING) is not STARTING:
            return False
        else:
            self._cancel_task()
        return True

    def cancel(self) -> None:
        """Ends the attempt, even if its body runs. Nothing is stored: the job runs again elsewhere.

        A second call cancels again a body that has ignored the first cancellation.
        """
        if self.state is FETCHED:
            self.state = DROPPED
        elif self.state is not DROPPED:
            self.move(CANCELLING, STARTING, RUNNING)
            self._cancel_task()

    def end_unfinished(self) -> AttemptState:
        """Returns the last state of an attempt that leaves its slot and whose body did not run to its end.

        If a body is about to begin in a thread at this moment, the move to `ENDED` keeps it from beginning.
        """
        self.attempts.held.ending.discard(self)
        before = self.move(ENDED, STARTING, RUNNING)
        return CANCELLED if before in (DROPPED, CANCELLING) else ENDED


class Attempts:
    """Starts the jobs of one session, and runs each in an asyncio task.

    Args:
        session: the worker's session, which its jobs use for calls of their own.
        consumer: holds the entries.
        runner: runs the bodies.
        held: the jobs of the session, and their slots.
        lease: no body starts while the lease may be over.
        limiter: the limits of tasks.
        capacity: the threads and processes.
        outcomes: stores what becomes of the jobs.
        job_log: logs the starts.

    Attributes:
        background: tasks beside the jobs. They run until they are done or the session ends.
        ahead: the jobs that were fetched before there are slots for them.
    """

    def __init__(
        self,
        session: Session,
        consumer: Consumer,
        runner: Runner,
        held: HeldJobs,
        lease: Lease,
        limiter: Limiter,
        capacity: Capacity,
        outcomes: Outcomes,
        job_log: JobLog,
    ) -> None:
        self.session = session
        self.consumer = consumer
        self.runner = runner
        self.held = held
        self.outcomes = outcomes
        self.loop: asyncio.AbstractEventLoop = asyncio.get_running_loop()
        self.background: BackgroundTasks = BackgroundTasks(log)
        self._lease = lease
        self._limiter = limiter
        self._capacity = capacity
        self._job_log = job_log
        self.ahead: ReadAhead = ReadAhead(
            consumer, held, outcomes.hand_back_all, self._begin_task, outcomes.reports.start
        )

    async def start(self, entries: list[Entry]) -> None:  # noqa: C901 - every job passes here, and a call costs
        """Starts the jobs of entries that have just been read.

        A job gets a slot at once if one is free. Those that were fetched ahead wait for one. An entry whose
        job is held already is skipped.
        """
        if not self._lease.is_fresh():
            await self._lease.until_fresh()
        self._job_log.refresh()
        held = self.held
        if held.stop.is_set():
            self._hold(entries)
            return
        jobs, newest, slots, off_loop = held.jobs, held.newest, held.slots, self._capacity.off_loop
        ahead, noted = self.ahead, self.ahead.notes.streams
        at_once = ahead.note_first(entries) if noted else 0
        crowded: list[wire.Delivery] = []
        unreadable: list[tuple[Entry, Exception]] = []
        for number, item in enumerate(entries):
            try:
                delivery = self.consumer.delivery(item)
            except Exception as error:  # noqa: BLE001  anybody may have written these bytes; raised, it would be read for ever
                unreadable.append((item, error))
                continue
            key = (delivery.entry, delivery.job.id)
            if key in jobs:
                continue
            job = RunningJob(delivery, self)
            if off_loop and not self._has_capacity(job):
                crowded.append(delivery)
                continue
            jobs[key] = job
            if key[1] in newest:
                held.make_older(key[1])
            newest[key[1]] = job
            if noted and delivery.stream in noted and not (number < at_once and slots.busy < slots.limit):
                ahead.add(job)
                continue
            held.idle.clear()
            if slots.busy < slots.limit:  # not a call of `Slots`, for speed: every job passes here
                slots.busy += 1
                job.task = self.loop.create_task(self._run(job))
            else:
                # The entry was read for a slot that was free then. Another job has taken it meanwhile.
                job.task = self.loop.create_task(self._run_late(job))
        if ahead.count:
            ahead.start_waiting()
        if unreadable or crowded:
            await self._set_aside(unreadable, crowded)

    async def _set_aside(
        self, unreadable: list[tuple[Entry, Exception]], crowded: list[wire.Delivery]
    ) -> None:
        for item, error in unreadable:
            await self.outcomes.quarantine(item, error)
        if crowded:
            await self._move_to_executor_queues(crowded)

    def _begin_task(self, job: RunningJob) -> None:
        """Starts the asyncio task of a job that was fetched ahead. A slot is free."""
        self.held.idle.clear()
        self.held.slots.busy += 1
        job.task = self.loop.create_task(self._run(job))

    def _hold(self, entries: list[Entry]) -> None:
        """Holds jobs that were read after the worker was told to stop.

        The read ends a few turns of the loop after the stop. These jobs get no task, so the shutdown hands
        them back at once.
        """
        for item in entries:
            with suppress(Exception):  # unreadable: the next worker that reads the entry sets it aside
                delivery = self.consumer.delivery(item)
                key = (delivery.entry, delivery.job.id)
                self.held.jobs.setdefault(key, RunningJob(delivery, self))

    def _has_capacity(self, job: RunningJob) -> bool:
        """Takes a thread or a process for a job that needs one. Returns False if the job has to go into the
        queue of its executor.
        """
        delivery = job.delivery
        executor = self._capacity.off_loop.get(delivery.job.name)
        if executor is None:
            return True
        served, stream = self.consumer.served, delivery.stream
        is_from_queue = stream in served.streams and stream not in served.executor_queues
        # If a thread has become free while this job was on its way, it is for the jobs in the executor queue.
        if is_from_queue and executor in self._capacity.with_queue:
            return False
        job.threads = self._capacity.take(executor)
        # A job from an executor queue, or from a last-attempt queue, was read for a thread that another job
        # has taken since. It waits here for the next thread.
        return job.threads is not None or not is_from_queue

    async def _move_to_executor_queues(self, crowded: list[wire.Delivery]) -> None:
        """Moves jobs for which no thread or process is free into the queues of their executors.

        There they are behind the jobs that wait already, and do not block the jobs behind them in their own
        queue. Whichever worker has a free thread or process first takes them.
        """
        queues: dict[tuple[str, str], list[tuple[str, str]]] = {}
        for delivery in crowded:
            executor = self._capacity.off_loop[delivery.job.name]
            queues.setdefault((delivery.stream, executor), []).append((delivery.entry, delivery.job.id))
        for (stream, executor), jobs in queues.items():
            # If this fails, they are unknown pending entries of this session, and are started again as such.
            await self.outcomes.claims.release(stream, jobs, executor)
            await self.consumer.read_executor_queue(stream, executor)

    async def _run_late(self, job: RunningJob) -> None:
        """Runs a job that has found no slot: waits for one, or hands the job back."""
        has_slot = False
        if job.state is FETCHED:
            job.state = STARTING
            with suppress(asyncio.CancelledError):  # a signal or the shutdown has cancelled it, see `_run`
                has_slot = await self._has_slot(job)
        if has_slot:
            await self._run(job)
            return
        job.state = job.end_unfinished()
        job.task = None
        job.release_executor_slot()
        self.held.slot_given()

    async def _has_slot(self, job: RunningJob) -> bool:
        """Waits for a slot. Returns False if the job was handed back to its queue instead."""
        while True:
            try:
                async with asyncio.timeout(SLOT_WAIT):
                    await self.held.slots.take()
            except TimeoutError:
                if await self.outcomes.hand_back(job.delivery):
                    return False
            else:
                return True

    async def _run(self, job: RunningJob) -> None:  # noqa: C901 - every job passes here, and a call costs
        """Runs one job that has a slot, in the asyncio task of the job. No exception of the body gets out."""
        delivery = job.delivery
        try:
            if job.state is DROPPED:
                return
            job.state = STARTING
            has_something_to_ask = self._limiter.limited or delivery.crashes or delivery.values
            if has_something_to_ask and not await self._may_start(job):
                return
            if not self._lease.is_fresh():
                await self._lease.until_fresh()
            if self._job_log.is_detailed:
                self._job_log.started(delivery)
            began = perf_counter() if self.ahead.times.measures else 0.0
            run_result = await self.runner.run(delivery, job)
            if began:
                self.ahead.times.add(perf_counter() - began)
            self.outcomes.conclude(job, run_result)
        except asyncio.CancelledError:
            # Wanted: by a revocation, which has stored the outcome already, or because the worker stops or
            # has lost its lease.
            if job.state is not CANCELLING:
                log.debug("job %r was cancelled from outside", delivery.job.id)
        except Exception as error:  # noqa: BLE001  nobody would look at the exception of this asyncio task
            self.outcomes.fail(delivery, error)
        finally:
            job.state = ENDED if job.state is RUNNING else job.end_unfinished()
            # The context of the asyncio task refers to the job. Without this line each job would be a cycle,
            # which only the garbage collector frees.
            job.task = None
            if job.reporter is not None:
                job.reporter.drop()
            job.release_executor_slot()
            if job.wait_slot is None:
                self.held.slots.give()
            else:
                job.wait_slot.end()
                job.wait_slot = None  # this would be a cycle, too
            self.held.slot_given()

    async def _may_start(self, job: RunningJob) -> bool:
        """Asks the server whether a job may start. Returns False if not; then its slot is released.

        Only some jobs need this: their task has a limit, they need values that are stored elsewhere, or a
        worker has died with them before.
        """
        delivery = job.delivery
        limits = self._limiter.limited.get(delivery.job.name)
        if limits is not None and not await self._has_turn(job, limits):
            return False
        if delivery.values:
            keys = self.consumer.served.keys[delivery.stream]
            try:
                delivery.values = await self.session.broker.kept.filled(keys, delivery.values, FOREVER)
            except wire.NotSigned as error:
                self.outcomes.refuse(delivery, error)
                return False
        if not delivery.crashes or await self.ahead.notes.begin(delivery):
            return True
        self.held.drop(delivery)
        return False

    async def _has_turn(self, job: RunningJob, limits: Limits) -> bool:
        """Returns whether the limits of the job's task let it start. If they do not, the job is deferred."""
        delivery = job.delivery
        permit = self._limiter.permit(limits, delivery)
        job.wait_slot = WaitSlot(job, self.held.slots, permit)
        answer = await permit.ask()
        if answer is None or answer.starts:
            return True
        call = self.outcomes.claims.defer(delivery, answer.wait, answer.state)
        self.outcomes.report(
            delivery, self._limiter.defer(limits, delivery.job.id, call) if answer.waits_for_permit else call
        )
        return False

    def name_of_current(self) -> str:
        """Returns the name of the job that the loop runs now. The stall watch calls it on its own thread."""
        current = asyncio.current_task(self.loop)
        for job in list(self.held.jobs.values()):
            if job.task is current:
                return f"task {job.delivery.job.name!r} (job {job.delivery.job.id!r})"
        return "something other than a job"
