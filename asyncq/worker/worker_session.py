"""One registration of a worker at the server, from its first beat to its last, and the wiring of its parts.

`Worker` runs one session after the other on its loop. The constructor here makes all parts: fetcher,
attempts, outcomes, limiter, lease, recovery, delayed jobs. `begin` registers, `run` serves the queues, `end`
gives up the jobs. Each session has an id of its own, which is also the name of its consumer and is never used
again. A worker whose session was taken for dead begins another session. A new loop of the worker goes into
`_make_loops`.
"""

from __future__ import annotations

import asyncio
import logging
import os
import socket
import sys
from functools import partial
from typing import TYPE_CHECKING, NamedTuple

import anyio

from asyncq import wire
from asyncq.broker.claims import Claims
from asyncq.broker.commands import FOREVER
from asyncq.broker.consumer import OTHER_PAUSES, Consumer
from asyncq.broker.limiter import Permits
from asyncq.broker.transport.server_error import ServerError
from asyncq.errors import BrokerUnavailable
from asyncq.execution.runner import Runner
from asyncq.execution.slots import Slots
from asyncq.worker.announcer import Announcer
from asyncq.worker.attempt import Attempts
from asyncq.worker.capacity import Capacity
from asyncq.worker.delayed_jobs import Promoter
from asyncq.worker.executor_streams import ExecutorQueueReader
from asyncq.worker.fetcher import Fetcher
from asyncq.worker.heartbeat import Lease
from asyncq.worker.held_jobs import HeldJobs
from asyncq.worker.job_log import JobLog
from asyncq.worker.last_tries import LastTries
from asyncq.worker.orders import Orders
from asyncq.worker.outcome_writer import Outcomes
from asyncq.worker.parent_audit import ParentAudit
from asyncq.worker.permits import Limiter
from asyncq.worker.processes.process import LAST_MESSAGES_TIMEOUT
from asyncq.worker.processes.spawner import HAND_BACK_TIMEOUT, Spawner
from asyncq.worker.read_shares import ReadShare, SharedRoom
from asyncq.worker.recovery import Reclaimer
from asyncq.worker.revocation import RevocationSignals
from asyncq.worker.shutdown import Shutdown
from asyncq.worker.signing_log import SigningLog
from asyncq.worker.ticker import Ticker

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Sequence
    from typing import Any

    from asyncq.broker.broker import Broker
    from asyncq.broker.entry_reader import EntryReader
    from asyncq.broker.schema.keys import Keys
    from asyncq.worker.resources import Resources
    from asyncq.worker.worker import Worker

    Loop = Callable[[], Coroutine[Any, Any, None]]

log: logging.Logger = logging.getLogger(__name__)


class _Background(NamedTuple):
    """The loops of a session, the channels that it subscribes to, the part that runs last attempts, what ends
    the calls of outcome hooks, the parts that take the jobs of dead sessions, those that move due jobs, and
    those that make the jobs of schedules.
    """

    loops: list[Loop]
    subscriptions: list[tuple[str, Callable[[bytes], None]]]
    last_tries: LastTries
    stop_events: Callable[[], None]
    reclaimers: list[Reclaimer]
    promoters: list[Promoter]
    tickers: list[Ticker]


class WorkerSession:
    """One session of a worker.

    Args:
        worker: the worker that runs the session.
        resources: what the worker has, which outlives a session.
        stop: set once the session is to end.
    """

    def __init__(self, worker: Worker, resources: Resources, stop: asyncio.Event) -> None:
        pool = resources.pool
        app = worker.app
        settings = app.settings
        connection = app.sessions.current()
        self.worker = worker
        self.broker: Broker = connection.broker
        self.consumer: Consumer = Consumer(self.broker.commands, worker.name, worker.queues)
        self.held: HeldJobs = HeldJobs(worker.concurrency, settings.max_parked, stop)
        threads = Slots(settings.threads)
        capacity = Capacity(app.tasks, app.off_loop, {"thread": threads, "process": pool.slots})
        runner = Runner(
            app.tasks,
            worker.name,
            threads,
            settings.max_payload,
            pool,
            extended=settings.result_extended,
        )
        runner.hooks = app.run_hooks
        runner.lifespan_state = resources.lifespan.state
        runner.injector = resources.injector
        self.job_log: JobLog = JobLog(worker.name)
        claims = Claims(
            self.broker.commands,
            self.consumer.served,
            self.consumer.name,
            self.held.drop,
            self.broker.history,
        )
        outcomes = Outcomes(worker.counts, connection, claims, self.consumer, runner, self.held, self.job_log)
        permits = Permits(self.broker.commands, self.consumer.name)
        limiter = Limiter(permits, app.limits, outcomes.reports.start)
        signals = RevocationSignals(self.held, limiter, self.consumer.seal)
        self.is_lost: asyncio.Event = asyncio.Event()
        self.lease: Lease = Lease(
            self.consumer.beating(),
            settings.lease,
            signals.apply,
            self.is_lost.set,
            settings.stall_warning,
            lambda: self.attempts.name_of_current(),  # noqa: PLW0108  `attempts` is made below
        )
        self.attempts: Attempts = Attempts(
            connection,
            self.consumer,
            runner,
            self.held,
            self.lease,
            limiter,
            capacity,
            outcomes,
            self.job_log,
        )
        executor_queues = ExecutorQueueReader(self.consumer, self.held, self.attempts, capacity)
        for slots in (threads, pool.slots):
            slots.on_change = executor_queues.capacity_freed
        self.fetchers: list[Fetcher] = self._make_fetchers(limiter, executor_queues)
        self._announcer = Announcer(self.consumer, app.tasks, settings.lease)
        self._has_run = False
        stop_events = resources.events.follow(claims, self.held)
        self._background: _Background = self._make_loops(signals, executor_queues, stop_events)

    def _make_fetchers(self, limiter: Limiter, executor_queues: ExecutorQueueReader) -> list[Fetcher]:
        """Makes the fetchers: one for each reader. A process for last attempts has one, because it runs one
        job at a time.
        """
        readers: Sequence[EntryReader | None] = (
            [None] if self.worker.only_last_tries else self.consumer.readers
        )
        room = SharedRoom(len(readers), self.held.changed.set)
        return [
            Fetcher(
                reader,
                ReadShare(room) if len(readers) > 1 else None,
                self.worker,
                self.consumer,
                self.held,
                self.attempts,
                limiter,
                executor_queues,
            )
            for reader in readers
        ]

    def _make_loops(
        self,
        signals: RevocationSignals,
        executor_queues: ExecutorQueueReader,
        stop_events: Callable[[], None],
    ) -> _Background:
        """Makes the loops of the session, and the handlers of its channels."""
        worker, settings = self.worker, self.worker.app.settings
        lease = settings.lease
        url, is_child = self.broker.address.url, worker.only_last_tries
        spawner = None if is_child else Spawner(worker.app, worker.target, worker.queues, url)
        last_tries = LastTries(spawner, self.consumer, self.held, executor_queues)
        loops: list[Loop] = []
        reclaimers: list[Reclaimer] = []
        promoters: list[Promoter] = []
        tickers: list[Ticker] = []
        subscriptions: list[tuple[str, Callable[[bytes], None]]] = [
            (channel, signals.on_message) for channel in self.consumer.signal_channels
        ]
        orders = Orders(
            *(worker, self.broker.commands, self.consumer, self.held),
            self.attempts.background,
            self.report_status,
        )
        subscriptions.append((self.consumer.signal_channels[0], orders.on_message))
        for shard in self.broker.shards:
            promoter = Promoter(self.consumer, shard)
            reclaimer = Reclaimer(
                *(self.consumer, self.attempts.outcomes.claims, shard, lease),
                *(last_tries.call, self._on_level, self.job_log),
                None if shard.shard else lambda: wire.encode_status(self._status()),
            )
            reclaimers.append(reclaimer)
            promoters.append(promoter)
            loops += (reclaimer.run, promoter.run)
            subscriptions += ((shard.wake, promoter.call), (shard.new_levels, partial(self._on_level, shard)))
            if not is_child:
                ticker = Ticker(
                    *(worker.app.sessions.current(), self.consumer, shard, worker.app.declarations),
                    *(settings.schedule_ttl, lease),
                )
                tickers.append(ticker)
                loops.append(ticker.run)
                subscriptions.append((shard.schedules_wake, ticker.call))
        loops += (
            self._announcer.run,
            *(fetcher.run for fetcher in self.fetchers),
            executor_queues.run,
            last_tries.run,
        )
        if self.broker.address.is_cluster:
            # Shards of one server are lost together, so none of them lacks what another has.
            loops.append(ParentAudit(self.broker.commands, self.consumer.name).run)
        if not is_child:
            loops.append(SigningLog(self.broker).run)
        return _Background(loops, subscriptions, last_tries, stop_events, reclaimers, promoters, tickers)

    # -- from the first beat --

    async def begin(self) -> None:
        """Checks the rights, makes the groups, sends the first beat, and subscribes to its channels.

        Raises:
            AsyncQError: the session cannot begin now, for example because the server is away or refuses.
        """
        started = self.worker.started.is_set()
        if not started:
            # A worker that has worked before tries on without this check: an operator may be changing rights.
            await self.consumer.check_rights()
        timeout = FOREVER if started else self.worker.app.settings.operation_timeout
        await self.consumer.make_groups(timeout)
        # Before the first read: other workers take a consumer without a beat for dead.
        await self.lease.start()
        await self._announcer.announce(timeout)
        for channel, on_message in self._background.subscriptions:
            await self.broker.listener.subscription.subscribe(channel, on_message)
        self.broker.listener.subscription.renewed.add(self._on_renewed)
        await self.consumer.find_levels(timeout)
        await self.consumer.find_paused(timeout)
        self.consumer.be_quiet(on=self.worker.is_quiet)
        await self.report_status()
        if not started:  # else the first turn of the ticker does it, and tries on
            for ticker in self._background.tickers:
                await ticker.begin()

    async def run(self) -> None:
        """Serves the queues until the worker is to stop or the session is taken for dead."""
        self._has_run = True
        async with anyio.create_task_group() as group:
            for loop in self._background.loops:
                group.start_soon(loop)
            self.worker.started.set()
            ends = [asyncio.create_task(event.wait()) for event in (self.held.stop, self.is_lost)]
            try:
                await asyncio.wait(ends, return_when=asyncio.FIRST_COMPLETED)
            finally:
                for end in ends:
                    end.cancel()
            group.cancel_scope.cancel()

    async def take_over(self, dead: str) -> None:
        """Takes the jobs of a session that is known to be dead, without waiting for its lease."""
        for reclaimer in self._background.reclaimers:
            await reclaimer.take_over(dead)

    def _on_level(self, shard: Keys, name: bytes) -> None:
        """Adds a level of priority that a queue has had only since now, so that it is read, too. Or asks
        which queues are paused, if these have changed.
        """
        if name == OTHER_PAUSES:
            self.attempts.background.start(self._find_paused())
        else:
            self.attempts.background.start(self.consumer.add_level(shard, name))

    def _on_renewed(self, shards: Sequence[Keys]) -> None:
        """Asks for all levels, pauses, due jobs and schedules in some shards: the connection to them was
        renewed, so messages about these may be lost.
        """
        self.attempts.background.start(self.consumer.find_levels(shards=shards))
        if any(keys.shard == 0 for keys in shards):  # it has all pauses
            self.attempts.background.start(self._find_paused())
        for keys in shards:
            self._background.promoters[keys.shard].call()
            if self._background.tickers:
                self._background.tickers[keys.shard].call()

    async def _find_paused(self) -> None:
        """Asks which queues are paused. If that fails, the next check-in tells."""
        try:
            await self.consumer.find_paused(self.worker.app.settings.operation_timeout)
        except (ServerError, BrokerUnavailable) as error:
            log.debug("the paused queues could not be read (%s); they are read again soon", error)

    async def report_status(self) -> None:
        """Stores at the server what this session says of its worker."""
        await self.broker.workers.report(self.consumer.name, self._status())

    def _status(self) -> wire.WorkerStatus:
        """Returns what this session says of its worker."""
        worker = self.worker
        return wire.WorkerStatus(
            socket.gethostname(),
            os.getpid(),
            worker.born,
            list(worker.queues),
            worker.concurrency,
            self.held.slots.busy,
            worker.done,
            worker.failed,
            # Not imported: `asyncq` imports this module.
            sys.modules["asyncq"].__version__,
            round(worker.app.settings.lease * 1000),
            worker.is_quiet,
        )

    # -- to the last --

    async def end(self, grace: float, at_once: asyncio.Event) -> None:
        """Ends the session: waits for running jobs, hands back what is left, and leaves the server.

        After a lost lease it drops all jobs instead, for they run elsewhere.

        Args:
            grace: seconds that running jobs may take.
            at_once: set when the session must not wait for running jobs.
        """
        self.attempts.ahead.close()
        shutdown = Shutdown(self.consumer, self.held, self.attempts.outcomes, self.is_lost)
        # Beside the drain: the jobs in processes for last tries have the same grace.
        stopping = asyncio.create_task(self._background.last_tries.stop(grace, at_once))
        stops_until = asyncio.get_running_loop().time() + grace + HAND_BACK_TIMEOUT
        try:
            # Otherwise the next command would wait behind a read that blocks at the server. The server may
            # still serve that read: `hand_back` finds what it took, or else other workers recover it.
            self.consumer.drop_read()
            await self._give_up_jobs(shutdown, grace, at_once)
            self.attempts.background.cancel()
        finally:
            # Whatever went wrong: while a session sends beats, no other worker recovers its jobs.
            await self.lease.stop()
        self._unsubscribe()
        self._background.stop_events()
        if not self.is_lost.is_set():
            await shutdown.leave()
            await shutdown.until_clean()
        left = LAST_MESSAGES_TIMEOUT
        if not self.is_lost.is_set():
            # A worker in a program of its own may be the last thing on its loop: nobody would wait for the
            # processes after it. A worker that begins a new session leaves them to end by themselves.
            left += max(0.0, stops_until - asyncio.get_running_loop().time())
        await asyncio.wait({stopping}, timeout=left)
        stopping.cancel()
        self.job_log.close()
        self.consumer.close()
        # This may be the last worker, and then no other one would forward what its jobs left in the outboxes.
        await self.broker.commands.all_forwarded(LAST_MESSAGES_TIMEOUT)

    async def _give_up_jobs(self, shutdown: Shutdown, grace: float, at_once: asyncio.Event) -> None:
        """Drains and hands back the jobs, or cancels them after a lost lease."""
        if self.is_lost.is_set():
            if not self.held.stop.is_set():
                log.error(
                    "this worker was taken for dead, because its heartbeat stood still for a lease; its jobs "
                    "run elsewhere, and it begins a new session"
                )
            await shutdown.cancel_all()
        elif self._has_run:  # otherwise it has read nothing, and the groups may not exist
            shutdown.withdraw()
            await shutdown.drain(grace, at_once)
            await shutdown.hand_back()

    def _unsubscribe(self) -> None:
        for channel, on_message in self._background.subscriptions:
            self.broker.listener.subscription.unsubscribe(channel, on_message)
        self.broker.listener.subscription.renewed.discard(self._on_renewed)
