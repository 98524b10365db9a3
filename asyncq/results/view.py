"""What a handle shows without asking anybody, and its identity: the base of every handle.

The properties say what this process last saw of the job, and may be read on any thread. A handle keeps its
job, see `known_job`, out of sight of users: the rest of asyncq gets it by `job_of`.
"""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from asyncq import failures
from asyncq.outcome import timestamp
from asyncq.serializers import PLAIN_VALUE
from asyncq.states import State

if TYPE_CHECKING:
    from datetime import datetime
    from typing import Self

    from asyncq.broker.waiters import Waiter
    from asyncq.client.application import App
    from asyncq.results.known_job import KnownJob
    from asyncq.sync_bridge import LoopOwner

R_co = TypeVar("R_co", covariant=True)
T = TypeVar("T")


class View(Generic[R_co]):
    """Shows one job as this process last saw it. A user sees this class as `AsyncResult`.

    Attributes:
        id: the job's id.
        parent: the handle of what the job came after, if anything.
    """

    __slots__ = ("__weakref__", "_job", "id", "parent")

    def __init__(self, job: KnownJob[R_co]) -> None:
        self.id: str = job.id
        self.parent: Any = None
        self._job = job

    @property
    def _loop_owner(self) -> LoopOwner:
        return self._job.loop_owner

    # -- what was last seen --

    @property
    def app(self) -> App:
        """The app that the job belongs to. For a handle that was made without one, it is the only app of this
        process.

        Raises:
            RuntimeError: there is no app, or more than one; the message lists the ways out.
        """
        return self._job.app

    @property
    def task_id(self) -> str:
        """The id, by Celery's other name."""
        return self.id

    @property
    def state(self) -> State | str:
        """The job's state as last seen. `UNKNOWN` on a handle that was made from an id and has not looked
        yet.
        """
        return self._job.state

    @property
    def status(self) -> State | str:
        """The state, by Celery's other name."""
        return self.state

    @property
    def result(self) -> R_co | Exception | None:
        """The value, or the exception (not raised), once the job has ended; before a retry, the last error;
        else None.
        """
        outcome = self._job.known()
        if outcome is None:
            failure = _last_failure(self._job.latest)
            return None if failure is None else failure.rebuild()
        return outcome.value if outcome.state is State.SUCCESS else outcome.error

    @property
    def info(self) -> Any:
        """The result; while the job runs, what it reported last with `update_state` or `progress`."""
        waiter = self._job.latest
        if waiter is not None and waiter.ended is None and waiter.snapshot.report is not None:
            return PLAIN_VALUE.loads(waiter.snapshot.report.meta)
        return self.result

    @property
    def traceback(self) -> str | None:
        """Where the task failed, once it has, also before a retry; else None."""
        outcome = self._job.known()
        if outcome is None:
            failure = _last_failure(self._job.latest)
            return None if failure is None else failure.traceback
        return outcome.traceback

    @property
    def date_done(self) -> datetime | None:
        """When the job ended, in UTC; None before."""
        outcome = self._job.known()
        return None if outcome is None else outcome.finished_at

    @property
    def date_started(self) -> datetime | None:
        """When its present or last attempt was started, in UTC, as last seen."""
        outcome = self._job.known()
        if outcome is not None:
            return outcome.started_at
        return None if self._job.latest is None else timestamp(self._job.latest.snapshot.started)

    @property
    def name(self) -> str | None:
        """The task's name, if known."""
        return self._job.name

    @property
    def args(self) -> tuple[Any, ...] | None:
        """The call's positional arguments, on the handle that `delay` or `apply` returned. On any other they
        are known with the setting `result_extended`, once `refresh` has looked or the outcome is known. The
        values have the types of the task's annotations, or plain ones if the task is not registered.
        """
        call = self._job.arguments()
        return None if call is None else call[0]

    @property
    def kwargs(self) -> dict[str, Any] | None:
        """The call's keyword arguments; see `args` for where they are known."""
        call = self._job.arguments()
        return None if call is None else call[1]

    @property
    def worker(self) -> str | None:
        """The worker that runs the job, or ended it, as last seen."""
        outcome = self._job.known()
        if outcome is not None:
            return outcome.worker
        return None if self._job.latest is None else self._job.latest.snapshot.worker

    @property
    def retries(self) -> int | None:
        """How often the job was run again after the first time, as last seen; None where that is not
        known.
        """
        outcome = self._job.known()
        if outcome is not None:
            return max(0, outcome.attempts - 1)
        waiter = self._job.latest
        return waiter.snapshot.retries if waiter is not None and waiter.state == State.RETRY else None

    @property
    def queue(self) -> str | None:
        """The queue of the job, as last seen."""
        return self._job.queue

    @property
    def ignored(self) -> bool:
        """Whether this process enqueued the job with `ignore_result=True`."""
        return self._job.is_ignored

    # -- as a value --

    def __eq__(self, other: object) -> bool:
        if isinstance(other, View):
            return self.id == other.id
        if isinstance(other, str):
            return self.id == other
        return NotImplemented

    def __hash__(self) -> int:
        return hash(self.id)

    def __str__(self) -> str:
        return self.id

    def __repr__(self) -> str:
        name = self.name
        return f"<{type(self).__name__} {self.id} {name + ' ' if name else ''}{self.state}>"

    def __copy__(self) -> Self:
        # The job is copied as well: of two copies of an `EagerResult`, one may be forgotten.
        other = handle_of(type(self), copy.copy(self._job))
        other.parent = self.parent
        return other

    def __deepcopy__(self, memo: dict[int, Any]) -> Self:
        return self.__copy__()


H = TypeVar("H", bound=View[Any])


def handle_of(kind: type[H], job: KnownJob[Any]) -> H:
    """Returns a handle of a job, of that class."""
    # Without its `__init__`, which takes what a user has: an id.
    handle = kind.__new__(kind)
    handle.id = job.id
    handle.parent = None
    handle._job = job
    return handle


def job_of(handle: View[T]) -> KnownJob[T]:
    """Returns the job behind a handle."""
    return handle._job


def _last_failure(waiter: Waiter | None) -> failures.Failure | None:
    """Returns what the last attempt failed with, of a job that waits for the next."""
    if waiter is None or waiter.state != State.RETRY or not waiter.snapshot.failure:
        return None
    return failures.decode(waiter.snapshot.failure)
