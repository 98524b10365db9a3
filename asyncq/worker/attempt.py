"""One run of one job, from its slot to its outcome. Lives on the worker's loop.

Every job is one asyncio task, whose coroutine lets no exception out.
"""

from __future__ import annotations

import asyncio
import logging
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from asyncq import wire
from asyncq.broker.background import BackgroundTasks
from asyncq.broker.commands import FOREVER
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
    Claim,
)
from asyncq.execution.runner import Finish
from asyncq.serializers import PLAIN_VALUE
from asyncq.worker.progress import Reporter
from asyncq.worker.stream_writer import StreamSink
from asyncq.worker.wait_slots import WaitSlot

if TYPE_CHECKING:
    from asyncq.broker.consumer import Consumer, Entry
    from asyncq.client.session import Session
    from asyncq.errors import TimeLimitExceeded
    from asyncq.execution.runner import Runner
    from asyncq.limits import Limits
    from asyncq.serializers import ValueCodec
    from asyncq.worker.capacity import Rooms
    from asyncq.worker.heartbeat import Lease
    from asyncq.worker.held_jobs import HeldJobs
    from asyncq.worker.job_log import JobLog
    from asyncq.worker.outcome_writer import Outcomes
    from asyncq.worker.permits import Limiter

log: logging.Logger = logging.getLogger(__name__)

SLOT_WAIT = 1.0
"""Seconds that a fetched job waits for a slot that a resumed job has taken. Then it is handed back: another
worker may have one."""


class RunningJob(Claim):
    """A job that this session holds, and what is done with it from outside of its body."""

    __slots__ = ("attempts", "delivery", "reporter", "task", "wait_slot")
    state: AttemptState
    revoked: bool

    def __init__(self, delivery: wire.Delivery, attempts: Attempts) -> None:
        super().__init__()
        self.state = FETCHED
        self.delivery: wire.Delivery = delivery
        self.attempts: Attempts = attempts
        self.reporter: Reporter | None = None
        self.task: asyncio.Task[None] | None = None  # until it has left its slot
        self.wait_slot: WaitSlot | None = None  # few jobs wait, so it is made when one does

    # -- what the body asks for, see `context.Link` --

    @property
    def loop(self) -> asyncio.AbstractEventLoop:
        """The worker's."""
        return self.attempts.loop

    @property
    def loop_owner(self) -> Session:
        """The worker's connection, on whose loop the job runs."""
        return self.attempts.session

    async def release_slot(self, wait: asyncio.Task[Any] | None) -> None:
        """A wait begins, see `WaitSlot.release_slot`. Waits of tasks that outlive their job are ignored."""
        if self.task is None:
            return
        if self.wait_slot is None:
            self.wait_slot = WaitSlot(self, self.attempts.held.slots)
        self.wait_slot.release_slot(wait)

    async def reacquire_slot(self, wait: asyncio.Task[Any] | None) -> None:
        """A wait is over, see `WaitSlot.reacquire_slot`."""
        if self.wait_slot is not None:
            await self.wait_slot.reacquire_slot(wait)

    def skip_reacquire(self) -> None:
        """The body is about to be cancelled, and must not reacquire a slot first."""
        if self.wait_slot is not None:
            self.wait_slot.skip_reacquire()

    def overdue(self, error: TimeLimitExceeded) -> None:
        """The body goes on after its time limit. If no try is left, whoever waits is told now. Another try
        has to wait for the end of this one: two bodies of one job must not overlap.
        """
        if self.state is not RUNNING:
            return  # the worker stops, or the job was revoked: that has been seen to
        if self.wait_slot is not None:
            self.wait_slot.stop_waits()
        delivery, attempts, started = self.delivery, self.attempts, self.started
        assert started is not None, "the runner writes it before the body begins"
        log.warning(
            "the body of job %r (task %r) goes on after its time limit; it keeps its slot until it has ended",
            *(delivery.job.id, delivery.job.name),
        )
        run_result = attempts.runner.after_time_limit(delivery, error, started)
        if isinstance(run_result, Finish):
            attempts.outcomes.conclude(self, run_result)
            self.move(CANCELLING, RUNNING)
            attempts.held.ending.add(self)

    def sink(self, codec: ValueCodec) -> StreamSink:
        """Where the items of a generator go."""
        return StreamSink(self, codec)

    async def report(self, state: str, meta: Any) -> None:
        """The job reports what it is at."""
        data = PLAIN_VALUE.dumps(meta, path="meta")
        attempts = self.attempts
        limit = attempts.consumer.settings.max_payload
        if len(data) > limit:
            raise PayloadTooLarge(f"meta takes {len(data):,} bytes, more than max_payload={limit:,}")
        if self.reporter is None:
            self.reporter = Reporter(attempts.consumer.output(self.delivery), attempts.background.start)
        if not await self.reporter.report(state, data):
            self.revoked = True  # it runs elsewhere, or has ended: nothing of it counts any more
            if self.interrupt is not None:
                self.interrupt(wire.NOT_AGAIN)  # the process hears of it before it hears that this is done

    # -- what is done with it --

    def signal(self, signal: str) -> None:
        """Applies a revocation signal, see `RevocationSignals`."""
        self.revoked = True
        if self.task is None:
            return  # it has ended before, and that is what counts
        if self.interrupt is not None:
            # The process gets the signal, and that the job was revoked is said when the body has ended: until
            # then somebody may ask for a stronger signal.
            if signal != wire.NOT_AGAIN:
                self.move(CANCELLING, STARTING, RUNNING)
            self.interrupt(signal)
        elif signal == wire.NOT_AGAIN:
            self._terminate(STARTING)
        else:
            self._terminate(STARTING, RUNNING)

    def abandon(self, reason: str) -> None:
        """Ends the job as if it had been revoked, for nobody cares for it any more; not one that has
        ended.
        """
        self._terminate(STARTING, RUNNING, reason=reason)

    def _terminate(self, *origins: AttemptState, reason: str = "") -> None:
        """Ends the attempt and says that the job was revoked, if it is in one of these states or before
        them. The move decides, and not a look before it: a thread may begin the body in between.
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
            # A thread cannot be stopped, unless it waits for another job: it keeps its slot until it returns,
            # and its result is dropped.
            if self.wait_slot is not None:
                self.wait_slot.stop_waits()
        elif before is not FETCHED and self.task is not None:
            self.task.cancel()

    def withdraw(self) -> bool:
        """Ends the attempt if its body has not begun, without a word about the job, which runs elsewhere;
        says whether it did.
        """
        if self.state is FETCHED:
            self.state = DROPPED
        elif self.move(CANCELLING, STARTING) is not STARTING:
            return False
        elif self.task is not None:
            self.task.cancel()
        return True

    def cancel(self) -> None:
        """Ends the attempt without a word about the job, which runs again elsewhere. A body that has let a
        cancellation go by is cancelled again.
        """
        if self.state is FETCHED:
            self.state = DROPPED
        elif self.state is not DROPPED:
            self.move(CANCELLING, STARTING, RUNNING)
            if self.task is not None:
                self.task.cancel()

    def end_unfinished(self) -> AttemptState:
        """Gives the last state of an attempt that has left its slot and whose body did not run to its end.

        A body may be about to begin in a thread, when the attempt's time is over: then it must not.
        """
        self.attempts.held.ending.discard(self)
        before = self.move(ENDED, STARTING, RUNNING)
        return CANCELLED if before in (DROPPED, CANCELLING) else ENDED


class Attempts:
    """Runs the jobs of one session.

    Args:
        session: the worker's connection, which its jobs use.
        consumer: that holds the entries.
        runner: runs bodies.
        held: the jobs, and their slots.
        lease: no body starts while it may be over.
        limiter: the limits of tasks.
        rooms: the threads and processes.
        outcomes: what becomes of the jobs.
        job_log: where starts are logged.

    Attributes:
        background: what goes on beside jobs, until it is done or the session ends.
    """

    def __init__(
        self,
        session: Session,
        consumer: Consumer,
        runner: Runner,
        held: HeldJobs,
        lease: Lease,
        limiter: Limiter,
        rooms: Rooms,
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
        self._rooms = rooms
        self._job_log = job_log
        self._noted: set[tuple[str, str]] = set()  # entry and id of jobs whose beginning was noted

    async def start(self, entries: list[Entry]) -> None:
        """Starts the jobs of entries that have just been read."""
        if not self._lease.is_fresh():
            await self._lease.until_fresh()
        self._job_log.refresh()
        held = self.held
        if held.stop.is_set():
            self._hold(entries)
            return
        jobs, newest, slots, off_loop = held.jobs, held.newest, held.slots, self._rooms.off_loop
        crowded: list[wire.Delivery] = []
        for item in entries:
            try:
                delivery = self.consumer.delivery(item)
            except Exception as error:  # noqa: BLE001  bytes of anybody's making; raised, it would be read for ever
                await self.outcomes.set_aside(item, error)
                continue
            key = (delivery.entry, delivery.job.id)
            if key in jobs:
                continue
            job = RunningJob(delivery, self)
            if off_loop and not self._has_room(job):
                crowded.append(delivery)
                continue
            jobs[key] = job
            if key[1] in newest:
                held.make_older(key[1])
            newest[key[1]] = job
            held.idle.clear()
            if slots.busy < slots.limit:  # written out: every job passes here
                slots.busy += 1
                job.task = self.loop.create_task(self._run(job))
            else:
                # The entries were read for slots that were free then, and one of those was taken meanwhile.
                job.task = self.loop.create_task(self._run_late(job))

        if crowded:
            await self._line_up(crowded)

    def _hold(self, entries: list[Entry]) -> None:
        """Keeps jobs that came between the order to stop and the end of reading, which are a few turns of the
        loop apart. They have no task, so the shutdown hands them back at once.
        """
        for item in entries:
            with suppress(Exception):  # the next worker that reads it sets it aside
                delivery = self.consumer.delivery(item)
                key = (delivery.entry, delivery.job.id)
                self.held.jobs.setdefault(key, RunningJob(delivery, self))

    def _has_room(self, job: RunningJob) -> bool:
        """Takes a thread or a process for a job that needs one; False if the job is to wait in line for
        it.
        """
        delivery = job.delivery
        executor = self._rooms.off_loop.get(delivery.job.name)
        if executor is None:
            return True
        served, stream = self.consumer.served, delivery.stream
        is_from_queue = stream in served.streams and stream not in served.lines
        # The thread may have become free while this job was on its way: it is for those in line.
        if is_from_queue and executor in self._rooms.with_line:
            return False
        job.threads = self._rooms.take(executor)
        # One from a line, or a last-attempt queue of last tries, came for a thread that somebody has taken
        # since: it waits here for the next one.
        return job.threads is not None or not is_from_queue

    async def _line_up(self, crowded: list[wire.Delivery]) -> None:
        """Puts jobs in line for which there is no thread or process here: behind those that wait there, and
        out of the way of the jobs behind them in their queue. Whichever worker has room first takes them.
        """
        lines: dict[tuple[str, str], list[tuple[str, str]]] = {}
        for delivery in crowded:
            executor = self._rooms.off_loop[delivery.job.name]
            lines.setdefault((delivery.stream, executor), []).append((delivery.entry, delivery.job.id))
        for (stream, executor), jobs in lines.items():
            # If that fails, they are unknown entries of ours, and come here again.
            await self.outcomes.claims.release(stream, jobs, executor)
            await self.consumer.read_line(stream, executor)

    async def _run_late(self, job: RunningJob) -> None:
        """The task of a job that finds no slot."""
        has_slot = False
        if job.state is FETCHED:
            job.state = STARTING
            with suppress(asyncio.CancelledError):  # asked for, see `_run`
                has_slot = await self._has_slot(job)
        if has_slot:
            await self._run(job)
            return
        job.state = job.end_unfinished()
        job.task = None
        job.release_executor_slot()
        self.held.slot_given()

    async def _has_slot(self, job: RunningJob) -> bool:
        """Waits for a slot; False if the job went to another worker instead."""
        while True:
            try:
                async with asyncio.timeout(SLOT_WAIT):
                    await self.held.slots.take()
            except TimeoutError:
                if await self.outcomes.hand_back(job.delivery):
                    return False
            else:
                return True

    async def _run(self, job: RunningJob) -> None:
        """The task of one job. Nothing that the body does gets out of here."""
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
            run_result = await self.runner.run(delivery, job)
            self.outcomes.conclude(job, run_result)
        except asyncio.CancelledError:
            # Asked for: by a revocation, which has seen to the outcome, or because the worker stops or has
            # lost its lease.
            if job.state is not CANCELLING:
                log.debug("job %r was cancelled from outside", delivery.job.id)
        except Exception as error:  # noqa: BLE001  the task of a job has nobody who would look at its exception
            self.outcomes.fail(delivery, error)
        finally:
            job.state = ENDED if job.state is RUNNING else job.end_unfinished()
            # The task's context knows the job: without this each job would be a cycle, garbage that only a
            # collection finds.
            job.task = None
            if job.reporter is not None:
                job.reporter.drop()
            job.release_executor_slot()
            if job.wait_slot is None:
                self.held.slots.give()
            else:
                job.wait_slot.end()
                job.wait_slot = None  # a cycle, too
            self.held.slot_given()

    async def _may_start(self, job: RunningJob) -> bool:
        """Whether a job may start for which there is something to ask: its task is limited, it needs values
        that are kept elsewhere, or a worker has died with it.
        """
        delivery = job.delivery
        limits = self._limiter.limited.get(delivery.job.name)
        if limits is not None and not await self._has_turn(job, limits):
            return False
        if delivery.values:
            keys = self.consumer.served.keys[delivery.stream]
            delivery.values = await self.session.broker.kept.filled(keys, delivery.values, FOREVER)
        return not delivery.crashes or await self._begin(delivery)

    async def _begin(self, delivery: wire.Delivery) -> bool:
        """Notes that the body of a job begins with which a worker has died before. If this worker dies, too,
        that counts for the job, and not for others that have crashed before and only wait here. False if the
        job is another worker's by now.
        """
        over = {key for key in self._noted if key not in self.held.jobs}
        self._noted -= over
        self._noted.add((delivery.entry, delivery.job.id))
        if await self.consumer.begin(delivery, [" ".join(key) for key in over]):
            return True
        self.held.drop(delivery)
        return False

    async def _has_turn(self, job: RunningJob, limits: Limits) -> bool:
        """Asks whether the limits of the job's task let it start. If not, it is put aside until its turn."""
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
        """Says which job the loop is at, for who looks from another thread."""
        current = asyncio.current_task(self.loop)
        for job in list(self.held.jobs.values()):
            if job.task is current:
                return f"task {job.delivery.job.name!r} (job {job.delivery.job.id!r})"
        return "something other than a job"
