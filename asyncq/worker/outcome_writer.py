"""Decides what becomes of a job whose body has ended: finished, retried, replaced, deferred, or revoked.

`Attempts` and `RunningJob` call this on the worker's loop, and it calls `broker.claims`, the one way out of a
claim. A job stays held until the server has answered. Most outcomes travel in the batches of `Claims`. What
needs a script of its own gets a background task, and the worker waits for these tasks before it stops.
"""

from __future__ import annotations

import asyncio
import logging
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from asyncq import wire
from asyncq.broker.transport.background import BackgroundTasks, unexpected
from asyncq.errors import DecodeError
from asyncq.execution.executors import CANCELLING
from asyncq.execution.run_results import Finish, Requeue, Unknown
from asyncq.worker.unknown_tasks import UnknownTasks

if TYPE_CHECKING:
    from collections.abc import Coroutine, Sequence

    from asyncq.broker.claims import Claims
    from asyncq.broker.consumer import Consumer
    from asyncq.broker.entry_reader import Entry
    from asyncq.client.session import Session
    from asyncq.execution.run_results import Replace
    from asyncq.execution.runner import Runner
    from asyncq.worker.attempt import RunningJob
    from asyncq.worker.held_jobs import HeldJobs
    from asyncq.worker.job_log import JobLog

log: logging.Logger = logging.getLogger(__name__)


@dataclass(slots=True)
class Counts:
    """How many jobs of a worker ended in which way, over all of its sessions.

    Attributes:
        done: jobs that ended here, with success, with a failure or by a revocation.
        failed: those among them that failed.
        retried: jobs that failed and are tried again.
        malformed: entries without a readable message.
        handed_back: jobs that went back into their queues, because the worker stops or has no slot for them.
        left: bodies that still ran when the worker ended, and jobs that it could neither end nor hand back.
    """

    done: int = 0
    failed: int = 0
    retried: int = 0
    malformed: int = 0
    handed_back: int = 0
    left: int = 0


class Outcomes:
    """Stores what became of the jobs of one session.

    Args:
        counts: the counts of the worker.
        connection: the worker's session. It has the hooks for jobs that are enqueued.
        claims: the claims of the session.
        consumer: the consumer that read the entries.
        runner: encodes outcomes.
        held: the jobs that the session holds.
        job_log: logs the ends.
    """

    def __init__(
        self,
        counts: Counts,
        connection: Session,
        claims: Claims,
        consumer: Consumer,
        runner: Runner,
        held: HeldJobs,
        job_log: JobLog,
    ) -> None:
        self.counts = counts
        self.claims = claims
        self._connection = connection
        self.reports: BackgroundTasks = BackgroundTasks(log)
        self._consumer = consumer
        self._runner = runner
        self._held = held
        self._job_log = job_log
        self._unknown_tasks = UnknownTasks(consumer, asyncio.get_running_loop().time)

    def conclude(self, running: RunningJob, run_result: Finish | Requeue | Replace) -> None:
        """Stores the run result of a body that has ended."""
        delivery = running.delivery
        if running.state is CANCELLING:
            # The body has ended, whatever it made of the signal. A job in a process is stored as revoked only
            # now; for all others that was done when the signal came.
            if running.interrupt is not None:
                self.revoke(running)
        elif isinstance(run_result, Finish):
            if run_result.letter == wire.FAILED:
                if isinstance(run_result, Unknown):
                    self.report(delivery, self._put_off(delivery, run_result))
                    return
                self._note_failure(delivery, run_result, running.started)
            elif self._job_log.is_detailed:
                self._log_end(running, run_result.letter)
            self.counts.done += 1
            if run_result.dead:
                self.report(delivery, self.claims.dead_letter(delivery, run_result.outcome, run_result.dead))
            else:
                self.claims.finish(delivery, run_result.letter, run_result.outcome)
        elif isinstance(run_result, Requeue):
            self.report(delivery, self._retry(running, run_result))
        else:
            self.report(delivery, self._replace(running, run_result.jobs))

    def _note_failure(self, delivery: wire.Delivery, finish: Finish, started: int | None) -> None:
        self.counts.failed += 1
        self._job_log.failed(delivery, finish, started)

    async def _put_off(self, delivery: wire.Delivery, run_result: Unknown) -> int:
        """Defers a job whose task is unknown here, so that another worker may take it, or lets it fail."""
        put_off = await self._unknown_tasks.put_off(delivery)
        if put_off is not None:
            return await self.claims.put_off(delivery, put_off.wait, put_off.so_far)
        self._note_failure(delivery, run_result, None)
        self.counts.done += 1
        return await self.claims.dead_letter(delivery, run_result.outcome, run_result.dead)

    def _log_end(self, running: RunningJob, letter: str) -> None:
        if letter == wire.SUCCEEDED:
            self._job_log.succeeded(running.delivery, running.started)
        else:
            self._job_log.dropped(running.delivery, "expired before it started")

    def fail(self, delivery: wire.Delivery, error: Exception) -> None:
        """Fails a job that could not be run, because of a fault of ours or of a message that no client of
        ours writes. Without an outcome, whoever waits for the job would hang.
        """
        self._job_log.could_not_run(delivery, error)
        self.claims.finish(delivery, wire.FAILED, self._runner.failed(delivery, error))

    def revoke(self, running: RunningJob, reason: str = "") -> None:
        """Ends a job as revoked. The reason is the given one, or else that of the signal."""
        self.counts.done += 1
        delivery = running.delivery
        self._job_log.dropped(delivery, "was revoked")
        reason = reason or self._held.reasons.get((delivery.entry, delivery.job.id), "")
        outcome = self._runner.revoked(delivery, running.started, reason)
        self.claims.finish(delivery, wire.REVOKED, outcome)

    async def quarantine(self, item: Entry, error: Exception) -> None:
        """Sets an entry without a readable message aside, and fails the job that the entry may belong to."""
        stream, entry, _ = item
        self.counts.malformed += 1
        queue = self._consumer.served.queues[stream]
        self._job_log.unreadable(queue, entry, self._consumer.job_id(item), error)
        stand_in = wire.Delivery(entry, stream, 0, 0, wire.Job("?", "?", queue, b"", "", "", 0, 1))
        id_ = self._consumer.job_id(item) or ""
        if isinstance(error, wire.NotSigned):
            outcome = self._runner.failed(stand_in, DecodeError(str(error)))
            if await self.claims.refuse(stream, entry, id_, error.reason, outcome):
                return
            await self.claims.quarantine(stream, entry, error.reason, outcome, id_)
            return
        outcome = self._runner.failed(stand_in, error)
        await self.claims.quarantine(stream, entry, str(error)[:500], outcome, id_)

    def refuse(self, delivery: wire.Delivery, error: wire.NotSigned) -> None:
        """Ends a job that is given values which nobody has signed, and keeps it as a dead letter."""
        self.counts.done += 1
        self.counts.failed += 1
        self._job_log.could_not_run(delivery, error)
        outcome = self._runner.failed(delivery, DecodeError(str(error)))
        self.report(delivery, self.claims.dead_letter(delivery, outcome, error.reason))

    async def hand_back(self, delivery: wire.Delivery) -> bool:
        """Makes a new entry of a job for another worker. Returns False if that is not possible now."""
        try:
            [answer] = await self.claims.release(delivery.stream, [(delivery.entry, delivery.job.id)])
        except Exception as error:  # noqa: BLE001  whatever it is, this session still holds the job
            log.debug("job %r could not be handed back (%r); it stays here", delivery.job.id, error)
            return False
        self.counts.handed_back += answer == 1
        self._held.drop(delivery)
        return True

    async def hand_back_all(self, stream: str, deliveries: Sequence[wire.Delivery]) -> bool:
        """Makes new entries of jobs of one stream that have not begun. Returns False if that is not possible
        now: some of them may have new entries all the same, so none of them may begin here, and the call must
        be made again.
        """
        try:
            await self.claims.release(stream, [(one.entry, one.job.id) for one in deliveries])
        except Exception as error:  # noqa: BLE001  whatever it is, this session still holds the jobs
            log.debug("%d jobs could not be handed back (%r); trying again", len(deliveries), error)
            return False
        for delivery in deliveries:
            self._held.drop(delivery)
        await self._consumer.read_returned_queue(stream)
        return True

    async def _replace(self, running: RunningJob, jobs: list[tuple[wire.Job, bytes]]) -> int:
        """Replaces a job by a workflow. If other jobs have one of the workflow's ids, the job fails."""
        delivery = running.delivery
        if self._connection.on_enqueue:
            replacing = _Replacing(self._connection, self.claims, delivery)
            answer = await replacing.run(jobs)
            if replacing.refusal is not None:
                return await self._fail_attempt(running, replacing.refusal)
        else:
            answer = await self.claims.replace(delivery, jobs)
        if answer >= 0:
            return answer
        ids = ", ".join(repr(job.id) for job, _ in jobs[:-1])
        error = ValueError(
            f"a workflow should replace this job, but another job has one of its ids ({ids}) already. Use "
            "other ids for task_id"
        )
        self._job_log.could_not_run(delivery, error)
        outcome = self._runner.failed(delivery, error)
        accepted = await self.claims.finish_now(delivery.stream, [(delivery, wire.FAILED, outcome)])
        return accepted == 1

    async def _fail_attempt(self, running: RunningJob, error: Exception) -> int:
        """Stores that an attempt has failed after its body had ended."""
        delivery, started = running.delivery, running.started
        assert started is not None, "the body has ended"
        run_result = self._runner.after_failure(delivery, error, started)
        if isinstance(run_result, Requeue):
            return await self._retry(running, run_result)
        self._note_failure(delivery, run_result, started)
        self.counts.done += 1
        if run_result.dead:
            return await self.claims.dead_letter(delivery, run_result.outcome, run_result.dead)
        ended = (delivery, run_result.letter, run_result.outcome)
        return await self.claims.finish_now(delivery.stream, [ended]) == 1

    def _retry(self, running: RunningJob, requeue: Requeue) -> Coroutine[Any, Any, int]:
        """Counts and logs an attempt that is followed by another, and returns the call that stores it."""
        delivery = running.delivery
        self.counts.retried += 1
        self._job_log.retried(delivery, requeue, running.started)
        return self.claims.retry(delivery, requeue.wait, requeue.retries, requeue.failure, requeue.last)

    def report(self, delivery: wire.Delivery, call: Coroutine[Any, Any, int]) -> None:
        """Awaits the call that stores the run result of one job, in the background. The job is held until the
        server has answered.
        """
        self.reports.start(self._until_reported(delivery, call))

    async def _until_reported(self, delivery: wire.Delivery, call: Coroutine[Any, Any, int]) -> None:
        """Awaits a call, logs a refusal or an error, and lets go of the job."""
        try:
            if not await call:
                log.warning(
                    "the run result of job %r was refused: another worker has taken the job over, or the "
                    "result was stored before and the server's answer was lost",
                    delivery.job.id,
                )
        except Exception as error:
            # Whatever it is, the entry stays pending, and the fetcher finds it as an unknown pending entry.
            log.error(
                "the run result of job %r could not be stored (%s); the job runs again",
                *(delivery.job.id, error),
                exc_info=unexpected(error),
            )
        self._held.drop(delivery)

    async def until_stored(self) -> None:
        """Waits until everything that has ended by now is stored. Its own cancellation cancels no call."""
        await self.claims.drain()
        await self.reports.wait()

    async def finish(self) -> None:
        """Waits until everything is stored, and also what follows from the answers.

        Its own cancellation cancels the calls that are not part of a batch.
        """
        await self.claims.drain()
        await self.reports.finish()


class _Replacing:
    """Replaces a job by a workflow, inside of the hooks around each enqueue.

    Args:
        connection: has the hooks.
        claims: replaces the job.
        delivery: the job.

    Attributes:
        refusal: why a hook refused the workflow; None if none did.
    """

    def __init__(self, connection: Session, claims: Claims, delivery: wire.Delivery) -> None:
        self._connection = connection
        self._claims = claims
        self._delivery = delivery
        self._answer: int | None = None
        self._is_sent = False
        self.refusal: Exception | None = None

    async def run(self, jobs: Sequence[tuple[wire.Job, bytes]]) -> int:
        """Replaces the job, and returns the answer of the script; or sets `refusal`."""
        try:
            await self._connection.around_enqueue(jobs, self._send)
        except Exception as error:
            if not self._is_sent:
                self.refusal = error
                return 0
            if self._answer is None:
                raise
            if self._answer > 0:
                # The workflow is accepted, and nobody waits for this call any more.
                log.exception("a middleware failed after job %r was replaced", self._delivery.job.id)
        assert self._answer is not None, "the hooks have passed on every call"
        return self._answer

    async def _send(self, jobs: list[tuple[wire.Job, bytes]]) -> list[bool | Exception]:
        self._is_sent = True
        self._answer = await self._claims.replace(self._delivery, jobs)
        if self._answer < 0:
            return [ValueError("another job has one of the ids of the workflow") for _ in jobs]
        return [True] * len(jobs)
