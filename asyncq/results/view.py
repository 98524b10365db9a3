"""What a process last saw of a job: what all handles have, whoever may be waiting.

Properties talk to no server, and may be read on any thread. `waiter` is for the loop of the session that
serves the call.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, ClassVar, Generic, TypeVar

from asyncq import failures
from asyncq.client.sessions import the_only_app
from asyncq.execution import parent_results
from asyncq.outcome import Outcome, timestamp
from asyncq.serializers import PLAIN_ARGUMENTS, PLAIN_VALUE
from asyncq.short_repr import brief
from asyncq.states import State

if TYPE_CHECKING:
    from datetime import datetime
    from typing import Self

    from asyncq import wire
    from asyncq.broker.waiters import Listener, Waiter
    from asyncq.client.application import App, Runnable
    from asyncq.serializers import ValueCodec
    from asyncq.sync_bridge import LoopOwner

_ID = re.compile(r"[!-~]{1,500}")

R_co = TypeVar("R_co", covariant=True)


class View(Generic[R_co]):
    """One job as this process last saw it: the part of a handle that asks nobody.

    The methods are for the modules that wait, follow and walk. A user sees this class as `AsyncResult`.

    Attributes:
        id: the job's id.
        parent: the handle of what the job came after, if anything.
    """

    __slots__ = ("__weakref__", "_app", "_args", "_ignored", "_kwargs", "_task", "_waiter", "id", "parent")

    kind: ClassVar[str] = ""
    """What its row in a lineage calls it, see `handle_serialization.Row`."""
    is_local: ClassVar[bool] = False
    """Whether the call ran in this process, without a server that could be asked."""

    def __init__(self, id: str, app: App | None = None, *, task: Runnable | None = None) -> None:
        if not isinstance(id, str) or not id:
            raise ValueError(f"AsyncResult needs the id of a job, not {brief(id)}")
        if not _ID.fullmatch(id):
            # No job has it. Looked up in one command with others, it would keep their answers from them.
            raise ValueError(
                f"{id[:100]!r} cannot be the id of a job: an id is 1 to 500 printable ASCII characters"
            )
        self.id: str = id
        self.parent: Any = None
        self._app: App | None = app
        self._task: Runnable | None = task
        self._waiter: Waiter | None = None
        self._args: tuple[Any, ...] | None = None
        self._kwargs: dict[str, Any] | None = None
        self._ignored = False

    @classmethod
    def of_job(
        cls,
        task: Runnable,
        app: App,
        job: wire.Job,
        waiter: Waiter | None,
        args: tuple[Any, ...] | None,
        kwargs: dict[str, Any] | None,
    ) -> Self:
        """Makes the handle of a job that this process is about to enqueue. `waiter` is the one that was
        announced for it; None if the job will be announced later, or never.
        """
        handle = cls.__new__(cls)
        handle.id = job.id
        handle.parent = None
        handle._app = app
        handle._task = task
        handle._waiter = waiter
        handle._args = args
        handle._kwargs = kwargs
        handle._ignored = job.ignore_result
        return handle

    # -- what was last seen --

    @property
    def app(self) -> App:
        """The app it belongs to; for a handle made without one, the only app of this process.

        Raises:
            RuntimeError: there is no app, or more than one; the message lists the ways out.
        """
        if self._app is None:
            self._app = the_only_app()
        return self._app

    @property
    def loop_owner(self) -> LoopOwner:
        """Where the calls of this object run."""
        return self.app.sessions

    def waiter(self, listener: Listener | None = None) -> Waiter:
        """The waiter of this job in the session that serves the call; on that session's loop. Whoever asks
        for many gives the session's listener.
        """
        listener = listener or self.app.sessions.current().listener
        waiter = self._waiter
        if waiter is None:
            waiter = self._waiter = listener.waiter(self.id)
        elif waiter.home is not listener:
            waiter = self._waiter = listener.follow(waiter)
        return waiter

    def attach(self, waiter: Waiter) -> None:
        """Takes the waiter that was announced for the job of this handle."""
        self._waiter = waiter

    @property
    def _latest(self) -> Waiter | None:
        """What any session has seen of the job that this handle was made or awaited through."""
        waiter = self._waiter
        return None if waiter is None else waiter.latest()

    @property
    def task_id(self) -> str:
        """The id, by Celery's other name."""
        return self.id

    @property
    def state(self) -> State | str:
        """The job's state as last seen. `UNKNOWN` on a handle made from an id that has not looked yet."""
        waiter = self._waiter
        if waiter is None:
            return State.UNKNOWN
        return waiter.state if waiter.kin is None else waiter.latest().state

    @property
    def status(self) -> State | str:
        """The state, by Celery's other name."""
        return self.state

    @property
    def result(self) -> R_co | Exception | None:
        """The value, or the exception (not raised), once the job has ended; before a retry, the last error;
        else None.
        """
        outcome = self.known()
        if outcome is None:
            failure = self._last_failure()
            return None if failure is None else failure.rebuild()
        return outcome.value if outcome.state is State.SUCCESS else outcome.error

    @property
    def info(self) -> Any:
        """The result; while the job runs, what it said of itself last with `update_state` or `progress`."""
        waiter = self._latest
        if waiter is not None and waiter.ended is None and waiter.report is not None:
            return PLAIN_VALUE.loads(waiter.report.meta)
        return self.result

    @property
    def traceback(self) -> str | None:
        """Where the task failed, once it has, also before a retry; else None."""
        outcome = self.known()
        if outcome is None:
            failure = self._last_failure()
            return None if failure is None else failure.traceback
        return outcome.traceback

    def _last_failure(self) -> failures.Failure | None:
        waiter = self._latest
        if waiter is None or waiter.state != State.RETRY or not waiter.failure:
            return None
        return failures.decode(waiter.failure)

    @property
    def date_done(self) -> datetime | None:
        """When it ended, in UTC; None before."""
        outcome = self.known()
        return None if outcome is None else outcome.finished_at

    @property
    def date_started(self) -> datetime | None:
        """When its present or last attempt was started, in UTC, as last seen."""
        outcome = self.known()
        if outcome is not None:
            return outcome.started_at
        return None if self._latest is None else timestamp(self._latest.started)

    @property
    def name(self) -> str | None:
        """The task's name, if known."""
        outcome = self.known()
        if outcome is not None and outcome.name:
            return outcome.name
        if self._task is not None:
            return self._task.name
        waiter = self._latest
        return None if waiter is None or waiter.call is None else waiter.call[0].name

    @property
    def args(self) -> tuple[Any, ...] | None:
        """The call's positional arguments, on the handle that `delay` or `apply` gave; on any other with
        `result_extended`, once `refresh` has looked, or its outcome is known. Values are as the task's
        annotations make them, and plain where the task is not registered.
        """
        if self._args is not None:
            return self._args
        call = self._kept_call()
        return None if call is None else tuple(call[0])

    @property
    def kwargs(self) -> dict[str, Any] | None:
        """The call's keyword arguments; where, see `args`."""
        if self._kwargs is not None:
            return self._kwargs
        call = self._kept_call()
        return None if call is None else call[1]

    def _kept_call(self) -> tuple[list[Any], dict[str, Any]] | None:
        """The arguments that came with the outcome, or with a look before the end."""
        waiter = self._latest
        if waiter is None:
            return None
        body, name = b"", None
        if waiter.ended is not None and waiter.ended.body:
            body, name = waiter.ended.body, waiter.ended.name
        elif waiter.call is not None:
            job, values = waiter.call
            body, name = job.body, job.name
            if job.value_template is not None:
                body = parent_results.kept_of(job, values) if values else b""  # it waits for them yet
        if not body:
            return None
        task = self._task or (self.app.find_task(name) if name else None)
        return (PLAIN_ARGUMENTS if task is None else task.arguments).loads(body)

    @property
    def worker(self) -> str | None:
        """Which worker has it, or ended it, as last seen."""
        outcome = self.known()
        if outcome is not None:
            return outcome.worker
        return None if self._latest is None else self._latest.worker

    @property
    def retries(self) -> int | None:
        """How often it was run again after the first time, as last seen; None where that is not known."""
        outcome = self.known()
        if outcome is not None:
            return max(0, outcome.attempts - 1)
        return self._latest.retries if self._latest is not None and self.state == State.RETRY else None

    @property
    def queue(self) -> str | None:
        """Its queue, as last seen."""
        outcome = self.known()
        if outcome is not None and outcome.queue:
            return outcome.queue
        return None if self._latest is None else self._latest.queue

    @property
    def ignored(self) -> bool:
        """Whether it was enqueued here with `ignore_result=True`."""
        return self._ignored

    def known(self) -> Outcome[R_co] | None:
        """The outcome, if this process knows it."""
        waiter = self._waiter
        if waiter is None:
            return None
        if waiter.ended is None:
            # Written out: of most jobs one session has seen all that there is to see.
            if waiter.kin is None:
                return None
            waiter = waiter.latest()
            if waiter.ended is None:
                return None
        return Outcome(self.id, waiter.ended, self.codec(waiter.ended))

    def is_settled(self) -> bool:
        """Whether nothing more will come of the job: it has ended, is unknown, or its result is ignored."""
        waiter = self._waiter
        return self._ignored or (waiter is not None and (waiter.ended is not None or waiter.gone))

    def codec(self, ended: wire.Ended) -> ValueCodec:
        """What reads the value of the job."""
        task = self._task or self.app.find_task(ended.name)
        return task.returns if task is not None else PLAIN_VALUE

    def item_codec(self) -> ValueCodec:
        """What reads the items that the job yields."""
        name = self.name
        task = self._task or (self.app.find_task(name) if name else None)
        return task.items if task is not None else PLAIN_VALUE

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
        other = type(self)(self.id, self._app, task=self._task)
        other.parent = self.parent
        other._waiter, other._ignored = self._waiter, self._ignored
        other._args, other._kwargs = self._args, self._kwargs
        return other

    def __deepcopy__(self, memo: dict[int, Any]) -> Self:
        return self.__copy__()
