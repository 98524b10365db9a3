"""One life of a worker: an incarnation from its first beat to its last, and the jobs that it holds."""

from __future__ import annotations

import asyncio
import logging
from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING, Any

import anyio

from asyncq import wire
from asyncq.broker.commands import FOREVER
from asyncq.broker.connection import ServerError, Verdict
from asyncq.broker.consumer import Consumer, Entry, Interrupted
from asyncq.broker.line import pause
from asyncq.broker.turnstile import SEATED, Turnstile
from asyncq.errors import PayloadTooLarge
from asyncq.executors import Claim
from asyncq.runner import Finish, Replace, Requeue, Runner
from asyncq.serializers import PLAIN_VALUE
from asyncq.slots import Slots
from asyncq.worker.background import BackgroundTasks, ErrorLog, unexpected
from asyncq.worker.courier import Courier
from asyncq.worker.emitter import Emitter
from asyncq.worker.finisher import Finisher
from asyncq.worker.job_log import JobLog
from asyncq.worker.last_try import Spawner
from asyncq.worker.lease import Lease
from asyncq.worker.limits import Gate
from asyncq.worker.parking import Parking
from asyncq.worker.process import LAST_WORDS
from asyncq.worker.promoter import Promoter
from asyncq.worker.reclaimer import Reclaimer
from asyncq.worker.reporter import Reporter

if TYPE_CHECKING:
    from collections.abc import Coroutine, Mapping

    from asyncq.broker.keys import Keys
    from asyncq.broker.listener import Listener
    from asyncq.limits import Limits
    from asyncq.serializers import ValueCodec
    from asyncq.session import Session
    from asyncq.worker.worker import Worker

log: logging.Logger = logging.getLogger(__name__)


PATIENCE = 1.0
"""Seconds that a job waits for a slot that one which came back from a wait took before it. Then it is handed
back: another worker may have one."""


class Running(Claim):
    """A job that this incarnation holds, and its slot."""

    __slots__ = ("delivery", "entered", "life", "parking", "reporter", "task")

    def __init__(self, delivery: wire.Delivery, life: Life) -> None:
        super().__init__()
        self.delivery: wire.Delivery = delivery
        self.life: Life = life
        self.reporter: Reporter | None = None
        self.task: asyncio.Task[None] | None = None
        self.entered: bool = False  # and not left
        self.parking: Parking | None = None  # few jobs wait, so it is made when one does

    @property
    def loop(self) -> asyncio.AbstractEventLoop:
        """The worker's."""
        return self.life.loop

    async def leave(self, wait: asyncio.Task[Any] | None) -> None:
        """A wait begins, see `Parking.leave`. Of what a job left behind when it ended, none is counted."""
        if not self.entered:
            return
        if self.parking is None:
            self.parking = Parking(self, self.life.slots)
        self.parking.leave(wait)

    async def come_back(self, wait: asyncio.Task[Any] | None) -> None:
        """A wait is over, see `Parking.come_back`."""
        if self.parking is not None:
            await self.parking.come_back(wait)

    def hurry(self) -> None:
        """The body is about to be cancelled, and not to wait for a slot first."""
        if self.parking is not None:
            self.parking.hurry()

    def cancel(self) -> None:
        """Ends the task. One that was not entered yet sees for itself that it is not wanted: cancelled before
        its first step, it would never come to its `finally`, and its slot would be taken for ever.
        """
        self.wanted = False
        if self.task is not None and self.entered:
            self.task.cancel()

    @property
    def carrier(self) -> Session:
        """The worker's session, on whose loop the job runs."""
        return self.life.session

    def outlet(self, codec: ValueCodec) -> Emitter:
        """Where the items of a generator go."""
        return Emitter(self, codec)

    async def report(self, state: str, meta: Any) -> None:
        """The job says of itself what it is at."""
        data = PLAIN_VALUE.dumps(meta, path="meta")
        limit = self.life.worker.app.settings.max_payload
        if len(data) > limit:
            raise PayloadTooLarge(f"meta takes {len(data):,} bytes, more than max_payload={limit:,}")
        if self.reporter is None:
            self.reporter = Reporter(self.life.consumer, self.delivery, self.life.spawn)
        if not await self.reporter.report(state, data):
            self.revoked = True  # it runs elsewhere, or has ended: nothing of it counts any more
            if self.interrupt is not None:
                self.interrupt(wire.NOT_AGAIN)  # the process hears of it before it hears that this is done


class Life:
    """One incarnation of a worker, from its first beat to its last."""

    def __init__(self, worker: Worker) -> None:
        app = worker.app
        self.session: Session = app.sessions.here()
        broker = self.session.broker
        settings = app.settings
        self.worker = worker
        self.broker = broker
        self.listener: Listener = broker.listener
        self.consumer: Consumer = Consumer(broker.commands, worker.name, worker.queues)
        self.runner: Runner = Runner(
            app.tasks,
            worker.name,
            Slots(settings.threads),
            settings.max_payload,
            worker.pool,
            extended=settings.result_extended,
        )
        self._job_log = JobLog(worker.name)
        self.lease: Lease = Lease(
            self.consumer.beating(),
            settings.lease,
            self._on_marks,
            self._on_lost,
            settings.stall_warning,
            self._what_runs,
        )
        self.promoters: list[Promoter] = [Promoter(self.consumer, shard) for shard in broker.shards]
        self.reclaimers: list[Reclaimer] = [
            Reclaimer(
                self.consumer, shard, settings.lease, self._on_last_tries, self._on_level, self._job_log
            )
            for shard in broker.shards
        ]
        self.courier: Courier = Courier(broker.commands, settings.lease)
        self._on_levels = {keys.news: partial(self._on_level, keys) for keys in broker.shards}
        self.spawner: Spawner | None = (
            None if worker.target is None else Spawner(worker.target, broker.address.url, settings)
        )
        self._last_tries_wait = worker.only_last_tries
        # Held until the server has answered its end; keyed by both ids, for entry ids can be given out twice
        # after a flush.
        self.held: dict[tuple[str, str], Running] = {}
        self._reasons: dict[tuple[str, str], str] = {}
        """Why jobs were revoked, where somebody said so."""
        self.finisher: Finisher = Finisher(broker.commands, self.consumer, self.held.__len__, self._on_done)
        self.loop: asyncio.AbstractEventLoop = asyncio.get_running_loop()
        self._room = asyncio.Event()
        self.slots: Slots = Slots(worker.concurrency, settings.max_parked, self._room.set)
        self._idle = asyncio.Event()
        self._idle.set()
        self._is_lost = asyncio.Event()
        self._stopping = False
        self._lived = False
        self._must_look_for_ghosts = self._gave_up_a_read = False
        self._reports = BackgroundTasks(log)
        self._limited: Mapping[str, Limits] = app.limits
        self._gate = Gate(Turnstile(broker.commands, self.consumer.name), app.limits, self._reports.start)
        self._sideways = BackgroundTasks(log)

    # -- from the first beat --

    async def begin(self) -> None:
        """Asks for its rights, makes the groups, sends the first beat, and listens for revocations.

        Raises:
            AsyncQError: not now; this life will not begin.
        """
        started = self.worker.started.is_set()
        if not started:
            # Once it has worked, somebody may be changing its rights: then it tries on.
            await self.consumer.check_rights()
        patience = FOREVER if started else self.worker.app.settings.operation_timeout
        await self.consumer.make_groups(patience)
        await self.lease.start()
        for channel in self.consumer.marks_channels:
            await self.listener.subscribe(channel, self._on_mark)
        for promoter in self.promoters:
            await self.listener.subscribe(promoter.shard.wake, promoter.call)
        for channel, hear in self._on_levels.items():
            await self.listener.subscribe(channel, hear)
        self.listener.renewed.add(self._look_for_levels)
        await self.consumer.look_for_levels(patience)

    async def live(self, stop: asyncio.Event) -> None:
        """Serves the queues until told to stop or taken for dead."""
        self._lived = True
        async with anyio.create_task_group() as group:
            for duty in (*[one.run for one in self.reclaimers], *[one.run for one in self.promoters]):
                group.start_soon(duty)
            group.start_soon(self.courier.run)
            group.start_soon(self._fetch)
            self.worker.started.set()
            ends = [asyncio.create_task(event.wait()) for event in (stop, self._is_lost)]
            try:
                await asyncio.wait(ends, return_when=asyncio.FIRST_COMPLETED)
            finally:
                for end in ends:
                    end.cancel()
            self._stopping = True
            group.cancel_scope.cancel()

    # -- to the last --

    async def end(self, grace: float, hurry: asyncio.Event) -> None:
        """Lets running jobs end within the grace, hands back what is left, and leaves. After a lost lease:
        drops everything.
        """
        self._stopping = True
        self.consumer.drop_read()
        if self.spawner is not None:
            await self.spawner.stop()
        if self._is_lost.is_set():
            log.error(
                "this worker was taken for dead (it stood still for a lease); its jobs run elsewhere, it "
                "begins anew"
            )
            await self._cancel_all()
        elif self._lived:  # else it has read nothing, and there may not even be a group to ask
            await self._drain(grace, hurry)
            await self._hand_back()
        self._sideways.cancel()
        await self.lease.stop()
        for channel in self.consumer.marks_channels:
            self.listener.unsubscribe(channel, self._on_mark)
        for promoter in self.promoters:
            self.listener.unsubscribe(promoter.shard.wake, promoter.call)
        for channel, hear in self._on_levels.items():
            self.listener.unsubscribe(channel, hear)
        self.listener.renewed.discard(self._look_for_levels)
        if not self._is_lost.is_set():
            await self._try_to_leave()
        self._job_log.close()
        self.consumer.close()
        # It may be the last worker: nobody else would tell what its jobs' ends mean in other shards.
        await self.broker.commands.all_forwarded(LAST_WORDS)

    async def _drain(self, grace: float, hurry: asyncio.Event) -> None:
        waits = [asyncio.create_task(event.wait()) for event in (self._idle, hurry, self._is_lost)]
        await asyncio.wait(waits, timeout=grace, return_when=asyncio.FIRST_COMPLETED)
        for wait in waits:
            wait.cancel()
        left = self.slots.busy + self.slots.parked
        if left and not hurry.is_set():
            log.warning("%d jobs did not end within the grace of %g s; they are handed back", left, grace)

    async def _cancel_all(self) -> None:
        tasks = []
        for running in list(self.held.values()):
            if running.task is not None and not running.task.done():
                running.cancel()
                tasks.append(running.task)
        if tasks:
            # A body that does not let itself be cancelled is left behind; its outcome will be refused.
            await asyncio.wait(tasks, timeout=1.0 + LAST_WORDS)

    async def _hand_back(self) -> None:
        """Everything that has not ended becomes a new entry, for another worker; and what a late read may
        still have claimed, too.
        """
        unfinished = [
            running for running in self.held.values() if running.task is not None and not running.task.done()
        ]
        await self._cancel_all()
        with suppress(TimeoutError):
            async with asyncio.timeout(5.0):
                await self.finisher.drain()
                await self._reports.finish()
        by_stream: dict[str, list[tuple[str, str]]] = {}
        for running in unfinished:
            delivery = running.delivery
            by_stream.setdefault(delivery.stream, []).append((delivery.entry, delivery.job.id))
        try:
            for stream in (*self.consumer.streams, *self.consumer.lanes):
                for item in await self.consumer.ghosts(stream, self._held_in(stream)):
                    with suppress(Exception):  # the next who reads it sets it aside
                        by_stream.setdefault(stream, []).append(
                            (item[1], self.consumer.delivery(item).job.id)
                        )
            for stream, jobs in by_stream.items():
                answers = await self.consumer.release(stream, jobs)
                self.worker.handed_back += sum(answer == 1 for answer in answers)
        except Exception as error:
            log.warning(
                "jobs could not be handed back (%s); they run elsewhere when the lease is over",
                error,
                exc_info=unexpected(error),
            )

    async def _try_to_leave(self) -> None:
        try:
            if not await self.consumer.leave():
                log.debug(
                    "worker %r still holds entries; the others take them when the lease is over",
                    self.consumer.name,
                )
        except Exception as error:  # noqa: BLE001  others find out, and take over what it held
            log.debug("worker %r could not say goodbye: %s", self.consumer.name, error)

    def _what_runs(self) -> str:
        current = asyncio.current_task(self.loop)
        for running in list(self.held.values()):
            if running.task is current:
                return f"task {running.delivery.job.name!r} (job {running.delivery.job.id!r})"
        return "something other than a job"

    def _on_lost(self) -> None:
        self._is_lost.set()

    # -- reading --

    async def _fetch(self) -> None:
        """Reads whenever there is room, never more than there is room for: what is claimed starts within this
        turn of the loop.
        """
        errors = ErrorLog(log, "no jobs could be read; trying again")
        attempt = 0
        last_look = self.loop.time()
        while not self._stopping:
            try:
                if (
                    self._must_look_for_ghosts
                    or self.loop.time() - last_look > 2 * self.worker.app.settings.lease
                ):
                    await self._find_ghosts()
                    last_look = self.loop.time()
                await self._until_room()
                await self._start_all(await self._read())
                attempt = 0
            except Interrupted:
                self._must_look_for_ghosts = self._gave_up_a_read = True
            except Exception as error:  # noqa: BLE001  a worker that does not read is of no use, whatever it was
                # Whatever went wrong, a reply with entries in it may have been lost.
                self._must_look_for_ghosts = True
                attempt += 1
                if unexpected(error) is not None:
                    errors.add(error)
                await self._recover(error, attempt)

    def _on_level(self, keys: Keys, name: bytes) -> None:
        """A queue has a level of priority that it had not before."""
        self.spawn(self.consumer.hear_of_level(keys, name))

    def _look_for_levels(self) -> None:
        """Such news may have been missed."""
        self.spawn(self.consumer.look_for_levels())

    async def _until_room(self) -> None:
        slots = self.slots
        while slots.busy >= slots.limit or len(self.held) - slots.parked >= 4 * slots.limit:
            self._room.clear()
            await self._room.wait()

    async def _until_quiet(self) -> None:
        """Until no body runs. Those that wait for other jobs do nothing, and may wait for what is to come."""
        while self.slots.busy:
            self._room.clear()
            await self._room.wait()
        await self.finisher.drain()
        await self._reports.wait()

    async def _read(self) -> list[Entry]:
        if self._last_tries_wait:
            await self._run_last_tries()
            return []
        room = min(self.slots.limit - self.slots.busy, 500)
        return await self.consumer.read(list(self.consumer.streams), room, block=True)

    async def _run_last_tries(self) -> None:
        """Each may be what took two workers down already, so it runs with nobody beside it."""
        await self._until_quiet()
        while alone := await self.consumer.read(list(self.consumer.lanes), 1, block=False):
            await self._start_all(alone)
            await self._until_quiet()
        if self.worker.only_last_tries:
            if self.slots.parked:
                # What they wait for may come into the lanes, too, and no other reads them.
                await asyncio.sleep(1.0)
                return
            self.worker.stop()
            await asyncio.Event().wait()  # until the life is ended
        self._last_tries_wait = False

    def _on_last_tries(self) -> None:
        """Jobs wait in a lane. A child process takes them, so that nothing here need stop; without one, we do
        when our hands are empty.
        """
        if self.worker.only_last_tries:
            return
        if self.spawner is not None:
            self.spawner.start()
        else:
            self._last_tries_wait = True

    async def _find_ghosts(self) -> None:
        for stream in (*self.consumer.streams, *self.consumer.lanes):
            found = await self.consumer.ghosts(stream, self._held_in(stream))
            if found:
                level = logging.DEBUG if self._gave_up_a_read else logging.WARNING
                log.log(level, "%d jobs whose delivery was lost on the way are taken up", len(found))
            await self._start_all(found)
        await self._gate.audit()
        self._must_look_for_ghosts = self._gave_up_a_read = False

    def _held_in(self, stream: str) -> list[str]:
        """The entries that are held of a stream: two streams may have given out the same id."""
        held = [running.delivery for running in self.held.values()]
        return [delivery.entry for delivery in held if delivery.stream == stream]

    async def _recover(self, error: Exception, attempt: int) -> None:
        """Does what the error asks for. What goes wrong here is only one more error: the worker never ends of
        it.
        """
        if attempt == 3:
            log.warning("no jobs can be read at the moment (%s); trying on", error)
        try:
            if isinstance(error, ServerError) and error.verdict is Verdict.NO_GROUP:
                log.warning("the server has lost the queue's group (%s); making it again", error)
                await self.consumer.make_groups()
            elif isinstance(error, ServerError) and error.verdict is Verdict.LOAD:
                await self.broker.commands.load_scripts()
            else:
                await asyncio.sleep(pause(attempt))
        except Exception as another:  # noqa: BLE001  see above
            log.debug("not yet: %s", another)
            await asyncio.sleep(pause(attempt))

    async def _start_all(self, entries: list[Entry]) -> None:
        if not entries:
            return
        if not self.lease.is_fresh():
            await self.lease.until_fresh()
        self._job_log.refresh()
        slots = self.slots
        for item in entries:
            try:
                delivery = self.consumer.delivery(item)
            except Exception as error:  # noqa: BLE001  bytes of anybody's making; raised, it would be read for ever
                await self._set_aside(item, error)
                continue
            key = (delivery.entry, delivery.job.id)
            if key in self.held:
                continue
            running = self.held[key] = Running(delivery, self)
            self._idle.clear()
            if slots.busy < slots.limit:  # written out: every job passes here
                slots.busy += 1
                running.task = self.loop.create_task(self._run(running))
            else:
                running.task = self.loop.create_task(self._run_late(running))

    async def _set_aside(self, item: Entry, error: Exception) -> None:
        stream, entry, _ = item
        self.worker.malformed += 1
        queue = self.consumer.queue(stream)
        self._job_log.unreadable(queue, entry, self.consumer.job_id(item), error)
        stand_in = wire.Delivery(entry, stream, 0, 0, wire.Job("?", "?", queue, b"", "", "", 0, 1))
        await self.consumer.discard(item, str(error)[:500], self.runner.failed(stand_in, error))

    # -- running --

    async def _run_late(self, running: Running) -> None:
        """The task of a job that was read for a slot which one that came back from a wait has taken since."""
        running.entered = True
        while True:
            try:
                async with asyncio.timeout(PATIENCE):
                    await self.slots.take()
            except TimeoutError:
                if await self._handed_back(running):
                    return
            except asyncio.CancelledError:
                self._rest()
                return  # asked for, see `_run`
            else:
                break
        await self._run(running)

    async def _handed_back(self, running: Running) -> bool:
        delivery = running.delivery
        try:
            [answer] = await self.consumer.release(delivery.stream, [(delivery.entry, delivery.job.id)])
        except Exception as error:  # noqa: BLE001  whatever it is, the job is still ours
            log.debug("job %r could not be handed back (%r); it waits on", delivery.job.id, error)
            return False
        self.worker.handed_back += answer == 1
        self._on_done(delivery)
        return True

    async def _run(self, running: Running) -> None:
        """The task of one job. Nothing that the body does gets out of here."""
        delivery = running.delivery
        running.entered = True
        try:
            if not running.wanted:
                return
            if (
                self._limited
                and (limits := self._limited.get(delivery.job.name)) is not None
                and not await self._may_start(running, limits)
            ):
                return
            if not self.lease.is_fresh():
                await self.lease.until_fresh()
            if self._job_log.is_detailed:
                self._job_log.started(delivery)
            verdict = await self.runner.run(delivery, running)
            self._conclude(running, verdict)
        except asyncio.CancelledError:
            # Asked for: by a revocation, which has seen to the outcome, or because the worker stops or has
            # lost its lease.
            if running.wanted:
                log.debug("job %r was cancelled from outside", delivery.job.id)
        except Exception as error:  # noqa: BLE001
            # A fault of ours, or a message that no client of ours would write: the job must not hang.
            self._job_log.could_not_run(delivery, error)
            self.finisher.add(delivery, wire.FAILED, self.runner.failed(delivery, error))
        finally:
            running.entered = False
            # The task's context knows the job's claim: without this each job would be a cycle, garbage that
            # only a collection finds.
            running.task = None
            if running.reporter is not None:
                running.reporter.drop()
            if running.parking is None:
                self.slots.give()
            else:
                running.parking.end()
                running.parking = None  # a cycle, too
            self._rest()

    async def _may_start(self, running: Running, limits: Limits) -> bool:
        """Whether the limits of the job's task let it start; if not, it is put aside until its turn."""
        delivery = running.delivery
        place = self._gate.place(limits, delivery)
        running.parking = Parking(running, self.slots, place)
        turn = await place.enter()
        if turn is None or turn.starts:
            return True
        call = self.consumer.postpone(delivery, turn.wait, turn.ticket)
        self._report(delivery, self._gate.put_aside(limits, delivery.job.id, call) if turn.parked else call)
        return False

    def _rest(self) -> None:
        """A job has left its slot: was it the last?"""
        if not self.slots.busy and not self.slots.parked:
            self._idle.set()

    def _conclude(self, running: Running, verdict: Finish | Requeue | Replace) -> None:
        delivery = running.delivery
        if not running.wanted:
            if running.interrupt is not None:
                self._end_revoked(running)  # its body has ended, whatever it made of the signal
        elif isinstance(verdict, Finish):
            self.worker.done += 1
            if verdict.letter == wire.FAILED:
                self.worker.failed += 1
                self._job_log.failed(delivery, verdict, running.started)
            elif self._job_log.is_detailed:
                self._log_end(running, verdict.letter)
            if verdict.dead:
                self._report(delivery, self.consumer.bury(delivery, verdict.outcome, verdict.dead))
            else:
                self.finisher.add(delivery, verdict.letter, verdict.outcome)
        elif isinstance(verdict, Requeue):
            self.worker.retried += 1
            self._job_log.retried(delivery, verdict, running.started)
            self._report(
                delivery, self.consumer.retry(delivery, verdict.wait, verdict.retries, verdict.failure)
            )
        else:
            self._report(delivery, self._replace(delivery, verdict.jobs))

    def _log_end(self, running: Running, letter: str) -> None:
        if letter == wire.SUCCEEDED:
            self._job_log.succeeded(running.delivery, running.started)
        else:
            self._job_log.dropped(running.delivery, "expired before it began")

    async def _replace(self, delivery: wire.Delivery, jobs: list[tuple[wire.Job, bytes]]) -> int:
        answer = await self.consumer.replace(delivery, jobs)
        if answer >= 0:
            return answer
        ids = ", ".join(repr(job.id) for job, _ in jobs[:-1])
        error = ValueError(
            f"this job was to be replaced by a workflow, but other jobs have one of its ids ({ids}). Use "
            "other ids for task_id"
        )
        self._job_log.could_not_run(delivery, error)
        outcome = self.runner.failed(delivery, error)
        accepted = await self.consumer.finish_now(delivery.stream, 1, [(delivery, wire.FAILED, outcome)])
        return accepted == 1

    def _report(self, delivery: wire.Delivery, call: Coroutine[Any, Any, int]) -> None:
        """Has one job's verdict sent until it is answered; the job is held until then."""
        self._reports.start(self._until_reported(delivery, call))

    async def _until_reported(self, delivery: wire.Delivery, call: Coroutine[Any, Any, int]) -> None:
        try:
            if not await call:
                log.warning(
                    "what became of job %r was refused: it was taken over meanwhile, or this was stored "
                    "before and the answer was lost",
                    delivery.job.id,
                )
        except Exception as error:
            log.error(
                "what became of job %r could not be stored (%s); it runs again",
                *(delivery.job.id, error),
                exc_info=unexpected(error),
            )
        self._on_done(delivery)

    def spawn(self, coroutine: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        """Starts what goes on beside a job, until it is done or this life ends."""
        return self._sideways.start(coroutine)

    def _on_done(self, delivery: wire.Delivery) -> None:
        key = (delivery.entry, delivery.job.id)
        self.held.pop(key, None)
        if self._reasons:
            self._reasons.pop(key, None)
        self._room.set()

    # -- revocation --

    def _on_mark(self, data: bytes) -> None:
        mark = data.decode("utf-8", "replace")
        if mark[:1] == SEATED:
            self._gate.tell(mark[1:])
        else:
            self._on_marks([mark])

    def _on_marks(self, marks: list[str]) -> None:
        """Marks on jobs that we hold: `c<id>` is not to start (again), the others are to end now; why, may
        stand behind it.
        """
        for mark in marks:
            id_, _, reason = mark[1:].partition(" ")
            for key, running in list(self.held.items()):
                if running.delivery.job.id == id_:
                    running.revoked = True
                    if reason:
                        self._reasons[key] = reason
                    self._obey(running, mark[0])

    def _obey(self, running: Running, mark: str) -> None:
        if running.task is None or running.task.done():
            return  # it has ended, and that is what counts
        if running.interrupt is not None:
            # Revoked is said when the body has ended: until then somebody may ask for a stronger signal.
            running.wanted = running.wanted and mark == wire.NOT_AGAIN
            running.interrupt(mark)
        elif running.wanted and (mark != wire.NOT_AGAIN or not running.begun):
            self._terminate(running)

    def abandon(self, running: Running, reason: str) -> None:
        """Ends a job that nobody cares for any more, as if it had been revoked; not one that has ended."""
        if running.wanted and running.entered:
            self._terminate(running, reason)

    def _terminate(self, running: Running, reason: str = "") -> None:
        running.wanted = False
        self._end_revoked(running, reason)
        if self.runner.runs_in_thread(running.delivery.job) and running.begun:
            # A thread cannot be stopped, unless it waits for another job: it keeps its slot until it returns,
            # and its result is dropped.
            if running.parking is not None:
                running.parking.stop_waits()
            return
        running.cancel()

    def _end_revoked(self, running: Running, reason: str = "") -> None:
        self.worker.done += 1
        delivery = running.delivery
        self._job_log.dropped(delivery, "was revoked")
        reason = reason or self._reasons.get((delivery.entry, delivery.job.id), "")
        outcome = self.runner.revoked(delivery, running.started, reason)
        self.finisher.add(delivery, wire.REVOKED, outcome)
