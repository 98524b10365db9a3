"""Logs the starts and ends of a worker's jobs. Runs on the worker's loop.

A final failure is an ERROR record with its traceback, a retry is a WARNING, a start and a success are DEBUG.
Each record has `job_id`, `task`, `queue`, `worker` and `attempt`, and at the end of an attempt `duration` in
seconds. If one of the first five is not known, it is "" or 0, so that a format may name it. A job that
succeeds pays for one test of an attribute.
"""

from __future__ import annotations

import asyncio
import contextvars
import logging
from typing import TYPE_CHECKING, Any

from asyncq import failures, logs, wire
from asyncq.config import shown
from asyncq.errors import DecodeError
from asyncq.system import clock

if TYPE_CHECKING:
    from asyncq.execution.run_results import Finish, Requeue
    from asyncq.wire import Delivery

log: logging.Logger = logging.getLogger(__name__)

LINES_PER_SECOND = 100
"""How many failures, and how many retries, are logged one by one within a second. The others are counted."""


class JobLog:
    """Logs the starts and ends of one worker's jobs.

    Args:
        worker: the name of the worker.
    """

    def __init__(self, worker: str) -> None:
        self._worker = worker
        self.is_detailed: bool = False
        """Whether starts and successes are logged. It is kept here, because every job asks for it."""
        self._failures = _Budget("failures", logging.ERROR, worker)
        self._retries = _Budget("retries", logging.WARNING, worker)

    def refresh(self) -> None:
        """Reads the level of the logger again: a program may change it while the worker runs."""
        self.is_detailed = log.isEnabledFor(logging.DEBUG)

    def close(self) -> None:
        """Logs how many records were left out, if any were."""
        self._failures.close()
        self._retries.close()

    def started(self, delivery: Delivery) -> None:
        """Logs that a job starts."""
        log.debug("%s started", _named(delivery), extra=self._extra(delivery))

    def succeeded(self, delivery: Delivery, started: int | None) -> None:
        """Logs that a job has succeeded."""
        extra = self._extra(delivery, started)
        log.debug("%s succeeded after %s", _named(delivery), _time(extra), extra=extra)

    def dropped(self, delivery: Delivery, why: str) -> None:
        """Logs the end of a job that neither succeeded nor failed: it was revoked, or it expired."""
        log.debug("%s %s", _named(delivery), why, extra=self._extra(delivery))

    def failed(self, delivery: Delivery, finish: Finish, started: int | None) -> None:
        """Logs that a job has failed for good."""
        if not self._failures.has_room():
            return
        extra = self._extra(delivery, started)
        error, trace = finish.error, ""
        if error is None:
            error, trace = _error_in(finish.outcome)
        why = f" ({finish.dead})" if finish.dead else ""
        self._log(logging.ERROR, "%s failed after %s%s: %s", delivery, extra, why, error, trace)

    def retried(self, delivery: Delivery, requeue: Requeue, started: int | None) -> None:
        """Logs that a job has failed and is tried again."""
        if not self._retries.has_room():
            return
        extra = self._extra(delivery, started)
        error = requeue.error if requeue.error is not None else failures.decode(requeue.failure).rebuild()
        when = f", and is tried again in {shown(requeue.wait / 1000)}"
        self._log(logging.WARNING, "%s failed after %s%s: %s", delivery, extra, when, error)

    def could_not_run(self, delivery: Delivery, error: Exception) -> None:
        """Logs that a job has failed without a fault of its own, with the traceback of the error."""
        if self._failures.has_room():
            log.error(
                "%s could not be run: %s",
                *(_named(delivery), failures.one_line(error)),
                exc_info=error,
                extra=self._extra(delivery),
            )

    def unreadable(self, queue: str, entry: str, job_id: str | None, error: Exception) -> None:
        """Logs that an entry holds no message of asyncq and is set aside."""
        if self._failures.has_room():
            extra = {"job_id": job_id or "", "task": "", "queue": queue, "worker": self._worker, "attempt": 0}
            named = "" if job_id is None else f" of job {job_id!r}"
            log.error(
                "the message%s in entry %s of queue %r cannot be read and is moved to the dead letters: %s",
                *(named, entry, queue, error),
                extra=extra,
            )

    def lost(self, job_id: str, task: str, queue: str, dead: str, attempts: int) -> None:
        """Logs that a job has ended as `WorkerLost`, because too many workers died with it."""
        if self._failures.has_room():
            log.error(
                "job %r of task %r in queue %r failed: %d workers died while they ran it, the last was %r; "
                "it is kept with the dead letters",
                *(job_id, task, queue, attempts, dead),
                extra={"job_id": job_id, "task": task, "queue": queue, "worker": dead, "attempt": attempts},
            )

    def _log(
        self,
        level: int,
        text: str,
        delivery: Delivery,
        extra: dict[str, Any],
        more: str,
        error: BaseException,
        trace: str = "",
    ) -> None:
        # A program may have called `dictConfig` after the worker began, see `enable_loggers`.
        if log.disabled:
            logs.enable_loggers()
        if not log.isEnabledFor(level):
            return
        own_trace = failures.of_task(error.__traceback__)
        was_raised = own_trace is not None or ("Traceback" in trace if trace else error.__cause__ is not None)
        # An exception that was never raised, or one that is retried, needs no traceback: its line says
        # enough.
        has_trace = level >= logging.ERROR and was_raised
        exc_info = (type(error), error, own_trace) if has_trace else None
        args = (_named(delivery), _time(extra), more, failures.one_line(error))
        file, line, function, _ = log.findCaller()
        record = log.makeRecord(log.name, level, file, line, text, args, exc_info, function, extra)
        if has_trace and trace:
            # Formatters show this text instead of `exc_info`, whose cause has the same text once more.
            record.exc_text = logs.cut(trace.rstrip())
        log.handle(record)

    def _extra(self, delivery: Delivery, started: int | None = None) -> dict[str, Any]:
        job = delivery.job
        extra = {
            "job_id": job.id,
            "task": job.name,
            "queue": job.queue,
            "worker": self._worker,
            "attempt": delivery.attempt,
        }
        if started is not None:
            extra["duration"] = max(0.0, clock.now() - started / 1000)
        return extra


class _Budget:
    """Allows so many records a second, and logs once a second how many it did not allow.

    A service whose database is gone may fail ten thousand times a second. That many tracebacks would fill the
    disk, and block the loop that has to run the jobs.

    Args:
        what: the plural of what is counted, for the record.
        level: the level of the record with the count.
        worker: the name of the worker.
    """

    def __init__(self, what: str, level: int, worker: str) -> None:
        self._what = what
        self._level = level
        self._worker = worker
        self._loop = asyncio.get_running_loop()
        self._begins = float("-inf")
        self._used = 0
        self._left_out = 0
        self._timer: asyncio.TimerHandle | None = None

    def has_room(self) -> bool:
        """Returns whether a record may be logged in this second, or else counts it as left out."""
        now = self._loop.time()
        if now - self._begins >= 1.0:
            self.close()
            self._begins = now
            self._used = 0
        if self._used < LINES_PER_SECOND:
            self._used += 1
            return True
        self._left_out += 1
        if self._timer is None:
            self._timer = self._loop.call_at(self._begins + 1.0, self.close)
        return False

    def close(self) -> None:
        """Logs the count, if it is not 0."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self._left_out:
            # In an empty context: the timer, or the next job, would log in the context of an unrelated job.
            contextvars.Context().run(self._log_count)
            self._left_out = 0

    def _log_count(self) -> None:
        extra = {"job_id": "", "task": "", "queue": "", "worker": self._worker, "attempt": 0}
        log.log(
            self._level,
            "%d more %s within a second were not logged one by one",
            *(self._left_out, self._what),
            extra=extra,
        )


def _named(delivery: Delivery) -> str:
    job = delivery.job
    return f"job {job.id!r} of task {job.name!r} (queue {job.queue!r}, attempt {delivery.attempt})"


def _time(extra: dict[str, Any]) -> str:
    seconds: float = extra.get("duration", 0.0)
    if seconds >= 1:
        return shown(round(seconds, 3))
    milliseconds = seconds * 1000
    return f"{round(milliseconds, 1) if milliseconds < 10 else round(milliseconds):g} ms"


def _error_in(outcome: bytes) -> tuple[BaseException, str]:
    """Returns the failure in an outcome that came from another process, and its traceback from there."""
    try:
        failure = failures.decode(wire.decode_ended(wire.FAILED, outcome).payload)
    except DecodeError as error:
        return error, ""
    return failure.rebuild(), failure.formatted()
