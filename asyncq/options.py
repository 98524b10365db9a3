"""Options of tasks and of calls: what they are, which values they take, and what they make of a job.

Options do not change once they are made, so any thread may use them.
"""

from __future__ import annotations

import dataclasses
import re
import time
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

from asyncq import config, idempotency, wire
from asyncq.retry import Retry

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import timedelta

_FAR = 2**53
"""The latest moment that every reader can hold, in ms: beyond it "expires" means never."""

_TASK_ID = re.compile(r"[A-Za-z0-9_.:-]{1,200}")


@runtime_checkable
class Callback(Protocol):
    """What may follow a job: a workflow. Known by its methods, for workflows are made of options and stand
    above this file.
    """

    def clone(self) -> Any:
        """A copy, which later changes of this one do not reach."""

    def link(self, callback: Any, /) -> Any:
        """Makes another workflow follow it."""

    def link_error(self, callback: Any, /) -> Any:
        """Makes a call follow its failure."""


@runtime_checkable
class ErrorCallback(Callback, Protocol):
    """What may follow a failed job: a single call."""

    task: Any
    args: Any


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """What may be said about a task and about a call of it: what `Task.options` takes, and these. Never
    shares a namespace with the task's own arguments.

    Attributes:
        soft_timeout: seconds after which `SoftTimeLimitExceeded` is raised inside a coroutine or a process,
            which may clean up and return.
        executor: where a plain function runs, `thread` or `process`.
        track_started: False lets a running job show as `PENDING`.
    """

    queue: str | None = None
    priority: int | None = None
    task_id: str | None = None
    key: str | None = None
    headers: Mapping[str, Any] | None = None
    ignore_result: bool | None = None
    result_ttl: float | timedelta | None = None
    expires: float | timedelta | datetime | None = None
    wait: float | timedelta | None = None
    countdown: float | timedelta | None = None
    eta: float | timedelta | datetime | None = None
    deadline: float | timedelta | datetime | None = None
    timeout: float | timedelta | None = None
    soft_timeout: float | timedelta | None = None
    retry: Retry | None = None
    link: Callback | Sequence[Callback] | None = None
    link_error: Callback | Sequence[Callback] | None = None
    executor: str | None = None
    track_started: bool | None = None

    def __post_init__(self) -> None:
        if self.queue is not None:
            config.name(self.queue)
        _check_priority(self.priority)
        if self.task_id is not None and not (
            isinstance(self.task_id, str) and _TASK_ID.fullmatch(self.task_id)
        ):
            raise ValueError(f"task_id={self.task_id!r} cannot be an id: use 1 to 200 of A-Z a-z 0-9 _ . : -")
        if self.key is not None:
            idempotency.check_key(self.key)
            if self.task_id is not None:
                raise ValueError("key= and task_id= both say what the job's id is: give one of them")
        for name in ("result_ttl", "wait", "countdown", "timeout", "soft_timeout"):
            if (time_ := getattr(self, name)) is not None:
                config.duration(name, time_)
        for name in ("expires", "eta", "deadline"):
            _check_moment(name, getattr(self, name))
        if self.countdown is not None and self.eta is not None:
            raise ValueError("countdown= and eta= say the same thing in two ways: give one of them")
        _check_kinds(self.retry, self.headers)
        object.__setattr__(self, "link", _callbacks("link", self.link))
        object.__setattr__(self, "link_error", _callbacks("link_error", self.link_error))

    @property
    def links(self) -> tuple[Any, ...]:
        """The workflows that follow when the job has ended well."""
        links: Any = self.link
        return links or ()

    @property
    def error_links(self) -> tuple[Any, ...]:
        """The calls that follow when the job has failed."""
        links: Any = self.link_error
        return links or ()

    def needs_nothing(self) -> bool:
        """Whether a call has nothing to carry but its arguments."""
        return not (self.ignore_result or self.priority) and all(
            one is None for one in (self.task_id, self.key, self.headers, self.expires, self.track_started)
        )

    def comes_at_once(self) -> bool:
        """Whether there is nothing to say of when it runs, for how long, and how often."""
        return all(one is None for one in (self.countdown, self.eta, self.deadline, self.timeout, self.retry))

    def with_call(self, call: Options) -> Options:
        """These options, with those of a call over them."""
        given = {
            field.name: value
            for field in dataclasses.fields(call)
            if (value := getattr(call, field.name)) is not None
        }
        if "countdown" in given or "eta" in given:
            # The call says anew when the job may start, in whichever of the two ways.
            given = {"countdown": None, "eta": None, **given}
        return dataclasses.replace(self, **given)

    def add_to(self, job: wire.Job, *, is_call: bool) -> None:
        """Puts into a job what few jobs have. The time limit and the retry policy of the task itself are not
        sent: its workers know them.

        Args:
            job: the job.
            is_call: whether these are a call's options, and not the task's own.
        """
        if self.priority is not None:
            job.priority = int(self.priority)
        if self.headers is not None:
            job.headers = self.headers
        if self.expires is not None:
            job.expires = _moment(self.expires)
        if self.deadline is not None:
            end_by(job, _moment(self.deadline))
        if self.countdown is not None:
            job.wait = _ms(self.countdown)
        elif self.eta is not None:
            job.wait = max(0, _moment(self.eta) - job.enqueued)
        if is_call and self.timeout is not None:
            job.timeout = _ms(self.timeout)
        if is_call and self.retry is not None:
            job.retry = self.retry.to_wire()
        if self.track_started is False:
            job.nonce += wire.UNTRACKED


@dataclass(frozen=True, slots=True)
class Resolved:
    """What every job of a task has, worked out once from options and settings, so that a call need not.

    Attributes:
        queue: the queue of its jobs.
        result_ttl: how long their outcomes are kept, in ms.
        ignore_result: whether none are kept.
        max_payload: most bytes of the arguments of a call.
    """

    queue: str
    result_ttl: int
    ignore_result: bool
    max_payload: int

    @staticmethod
    def of(settings: config.Settings, options: Options) -> Resolved:
        """The values of these options, those of the settings in their gaps."""
        ttl = settings.result_ttl if options.result_ttl is None else config.seconds(options.result_ttl)
        return Resolved(
            options.queue or settings.default_queue,
            max(60_000, round(ttl * 1000)),
            bool(options.ignore_result),
            settings.max_payload,
        )


def end_by(job: wire.Job, deadline: int) -> None:
    """Gives a job a deadline, in ms since the epoch; an earlier one that it has stays.

    A job that is not started by its deadline expires; so does one whose own time to start is over earlier.
    """
    job.deadline = deadline if job.deadline is None else min(job.deadline, deadline)
    job.expires = job.deadline if job.expires is None else min(job.expires, job.deadline)


def _check_priority(priority: object) -> None:
    if priority is None:
        return
    is_int = isinstance(priority, int) and not isinstance(priority, bool)
    if not is_int or priority not in range(wire.LOWEST, wire.HIGHEST + 1):
        raise ValueError(
            f"priority={priority!r}: give an integer from {wire.LOWEST} (last) to {wire.HIGHEST} (first)"
        )


def _check_kinds(retry: object, headers: object) -> None:
    if retry is not None and not isinstance(retry, Retry):
        raise TypeError(f"retry={retry!r}: give a policy, as in retry=Retry(max_retries=3)")
    if headers is not None and not isinstance(headers, Mapping):
        raise TypeError(f"headers={headers!r}: give a map of texts to plain data")


def _check_moment(name: str, moment: float | timedelta | datetime | None) -> None:
    if isinstance(moment, datetime):
        if moment.tzinfo is None:
            raise ValueError(
                f"{name}={moment!r} has no time zone: use datetime.now(UTC) + ..., or seconds from now"
            )
    elif moment is not None:
        config.duration(name, moment)


def _callbacks(name: str, given: Any) -> tuple[Any, ...] | None:
    if given is None:
        return None
    several = given if isinstance(given, (list, tuple)) else (given,)
    kind = ErrorCallback if name == "link_error" else Callback
    for one in several:
        if not isinstance(one, kind):
            raise TypeError(f"{name}={one!r}: give a call such as note.s(), or a list of them")
    return tuple(one.clone() for one in several)


def _ms(duration: float | timedelta) -> int:
    return round(config.seconds(duration) * 1000)


def _moment(moment: float | timedelta | datetime) -> int:
    """In milliseconds since the epoch."""
    if isinstance(moment, datetime):
        return int(moment.timestamp() * 1000)
    return min(_FAR, int((time.time() + config.seconds(moment)) * 1000))
