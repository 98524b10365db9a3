"""Options of tasks (`@app.task(...)`) and of calls (`task.options(...)`). Each is declared once.

The declaration is a field of `Options`. It has the name, type and default of the option, who may give it, the
check of its value, the function that puts it into a job, and the text for the docs. All code that checks,
merges or shows options goes by these fields. A new option is a field here and a keyword of `AsyncQ.task` or
`Task.options`.

An `Options` object never changes, so any thread may use it.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Any, Final, Literal, Protocol, runtime_checkable

from asyncq import config, wire
from asyncq.execution.retry import Retry
from asyncq.short_repr import brief
from asyncq.tasks import idempotency

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import timedelta

Timestamp = float | datetime
"""The time in a checked option: seconds from the call, or an absolute time."""

Put = Callable[[wire.Job, Any], None]
"""Puts an option's value into a job."""

_FAR = 2**53
"""The latest time that every reader can hold, in ms since the epoch. A job that expires then never expires.
"""

_TASK_ID = re.compile(r"[A-Za-z0-9_.:-]{1,200}")


@runtime_checkable
class Callback(Protocol):
    """A workflow that may follow a job. It is known by its methods here, for workflows import this file."""

    def clone(self) -> Any:
        """Returns a copy, which later changes of this one do not reach."""

    def link(self, callback: Any, /) -> Any:
        """Makes another workflow follow it."""

    def link_error(self, callback: Any, /) -> Any:
        """Makes a call follow its failure."""


@runtime_checkable
class ErrorCallback(Callback, Protocol):
    """A single call, which may follow a failed job."""

    task: Any
    args: Any


# -- checks: each takes an option's name and value, refuses a wrong value, and returns the value to keep
# ------------------------------------------------------------------------------------------------------------


def _as_given(_name: str, value: Any) -> Any:
    return value


def _task_name(name: str, value: object) -> str:
    if not isinstance(value, str):
        raise TypeError(f"{name}={brief(value)}: give a text, the name by which workers know the task")
    return value


def _queue(_name: str, value: str) -> str:
    return config.name(value)


def _flag(_name: str, value: object) -> bool:
    return bool(value)


def _level(name: str, value: Any) -> int:
    is_int = isinstance(value, int) and not isinstance(value, bool)
    if not is_int or value not in range(wire.LOWEST, wire.HIGHEST + 1):
        raise ValueError(
            f"{name}={brief(value)}: give an integer from {wire.LOWEST} (last) to {wire.HIGHEST} (first)"
        )
    return int(value)  # also of an IntEnum


def _task_id(name: str, value: object) -> str:
    if not isinstance(value, str) or not _TASK_ID.fullmatch(value):
        raise ValueError(f"{name}={brief(value)} cannot be an id: use 1 to 200 of A-Z a-z 0-9 _ . : -")
    return value


def _key(_name: str, value: Any) -> Any:
    idempotency.check_key(value)
    return value


def _headers(name: str, value: object) -> Mapping[str, Any]:
    if not isinstance(value, Mapping):
        raise TypeError(f"{name}={brief(value)}: give a map of texts to plain data")
    return value


def _retry(name: str, value: object) -> Retry:
    if not isinstance(value, Retry):
        raise TypeError(f"{name}={brief(value)}: give a policy, as in retry=Retry(max_retries=3)")
    return value


def _timestamp(name: str, value: Any) -> Timestamp:
    if not isinstance(value, datetime):
        return config.duration(name, value)
    if value.tzinfo is None:
        raise ValueError(
            f"{name}={brief(value)} has no time zone: use datetime.now(UTC) + ..., or seconds from now"
        )
    return value


def _interval(name: str, value: Any) -> float:
    seconds = config.duration(name, value)
    if seconds < 1 or seconds != int(seconds):
        raise ValueError(f"{name}={brief(value)}: give whole seconds, at least 1, such as every=30")
    return seconds


def _text(name: str, value: object) -> str:
    if not isinstance(value, str):
        raise TypeError(f"{name}={brief(value)}: give a text, such as cron='0 3 * * *', tz='Europe/Paris'")
    return value


def _yes_or_no(name: str, value: object) -> bool:
    if not isinstance(value, bool):
        raise TypeError(f"{name}={brief(value)}: use True or False")
    return value


def _catch_up(name: str, value: object) -> object:
    if value not in {"latest", "all", "none"}:
        raise ValueError(f'{name}={brief(value)}: use "latest", "all" or "none"')
    return value


def _aware(name: str, value: object) -> datetime:
    if not isinstance(value, datetime) or value.tzinfo is None:
        raise ValueError(
            f"{name}={brief(value)}: give an aware datetime, as in datetime(2030, 1, 1, tzinfo=UTC)"
        )
    return value


def _count(name: str, value: object) -> int:
    try:
        return config.count(value)
    except ValueError as error:
        raise ValueError(f"{name}={error}") from None


def _callbacks(name: str, value: Any) -> tuple[Callback, ...]:
    several = value if isinstance(value, (list, tuple)) else (value,)
    kind = ErrorCallback if name == "link_error" else Callback
    for one in several:
        if not isinstance(one, kind):
            raise TypeError(f"{name}={brief(one)}: give a call such as note.s(), or a list of them")
    return tuple(one.clone() for one in several)


# -- what an option, once it is checked, makes of a job
# ------------------------------------------------------------------------------------------------------------


def _at(timestamp: Timestamp, job: wire.Job) -> int:
    """Returns milliseconds since the epoch. Seconds count from the time in the job, and not from a second
    reading of the clock: a millisecond may begin between the two, and `eta=0` would be a delay.
    """
    if isinstance(timestamp, datetime):
        return int(timestamp.timestamp() * 1000)
    return min(_FAR, job.enqueued + int(timestamp * 1000))


def _put_priority(job: wire.Job, priority: int) -> None:
    job.priority = priority


def _put_headers(job: wire.Job, headers: Mapping[str, Any]) -> None:
    job.headers = headers


def _put_expires(job: wire.Job, expires: Timestamp) -> None:
    # Options are put in any order, and a deadline is also a time until which the job may start.
    at = _at(expires, job)
    job.expires = at if job.expires is None else min(job.expires, at)


def _put_countdown(job: wire.Job, countdown: float) -> None:
    job.wait = round(countdown * 1000) or None  # without a delay, the job goes straight into its queue


def _put_eta(job: wire.Job, eta: Timestamp) -> None:
    job.wait = max(0, _at(eta, job) - job.enqueued) or None


def _put_deadline(job: wire.Job, deadline: Timestamp) -> None:
    end_by(job, _at(deadline, job))


def _put_timeout(job: wire.Job, timeout: float) -> None:
    job.timeout = round(timeout * 1000)


def _put_retry(job: wire.Job, retry: Retry) -> None:
    job.retry = retry.to_wire()


def _put_track_started(job: wire.Job, _is_tracked: bool) -> None:
    job.request_id += wire.UNTRACKED


def end_by(job: wire.Job, deadline: int) -> None:
    """Gives a job a deadline, in ms since the epoch. An earlier deadline of the job stays.

    A job that has not started by its deadline expires. An earlier time until which it may start stays.
    """
    job.deadline = deadline if job.deadline is None else min(job.deadline, deadline)
    job.expires = job.deadline if job.expires is None else min(job.expires, job.deadline)


# -- the table
# ------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class Option:
    """The declaration of an option, beside its name and type.

    Attributes:
        text: the meaning, as the docs give it.
        check: refuses a value that does not fit, with an error that says what would fit; returns the value to
            keep.
        default: the value for a task that is not given the option.
        giver: who may give it: `@app.task`, `Task.options` (a call), or both.
        job: the field of `wire.Job` that it decides; empty if it decides none.
        put: puts the value into a job; None if the job builder fills that field by itself.
        is_known_to_worker: whether a worker takes the value from the task itself. Then only the value of a
            call is sent.
        position: to which of the calls of a chain it goes; "alone" is for calls outside of workflows.
        flag: the text of `asyncq call --help`; empty if there is no such flag.
    """

    text: str
    check: Callable[[str, Any], Any]
    default: Any = None
    giver: Literal["task", "call", "both"] = "both"
    job: str = ""
    put: Put | None = None
    is_known_to_worker: bool = False
    position: Literal["each", "first", "last", "alone"] = "each"
    flag: str = ""


def _option(text: str, check: Callable[[str, Any], Any], **more: Any) -> Any:
    option = Option(text=text, check=check, **more)
    return dataclasses.field(default=option.default, metadata={"option": option})


@dataclass(frozen=True, init=False)
class Options:
    """The options of a task, or of a call of it. An instance holds only options that were given and differ
    from the default: an option that was not given costs a job nothing.

    Args:
        given: options by name, values as users write them; None means "not given".

    Raises:
        ValueError: a value does not fit; the message says what would fit.
        TypeError: a value is of the wrong type; the message says what would fit.
    """

    name: str | None = _option(
        "the name by which workers know the task (default: `module.function`).", _task_name, giver="task"
    )
    queue: str | None = _option(
        "the queue that the job goes to (default: the app's `default_queue`).",
        _queue,
        job="queue",
        flag="Queue of the job. Default: the task's.",
    )
    priority: int = _option(
        "an integer from -9 to 9: of the jobs that wait in a queue, workers take those with the larger "
        "number first.",
        _level,
        default=0,
        job="priority",
        put=_put_priority,
    )
    task_id: str | None = _option(
        "the id of the job, chosen by the caller: 1 to 200 of `A-Z a-z 0-9 _ . : -`, unique among the "
        "results that still exist.",
        _task_id,
        giver="call",
        job="id",
        position="last",
    )
    key: str | None = _option(
        "any text of 1 to 512 characters. All calls of this task with the same key and equal arguments are "
        "one job: while it is live, they get its handle; later they get its stored outcome, also a failure, "
        "until that is forgotten or `result_ttl` is over. A call with the same key and other arguments "
        "raises `ValueError`. Other options of a later call change nothing. Not together with `task_id`.",
        _key,
        giver="call",
        job="id",
        position="alone",
    )
    headers: Mapping[str, Any] | None = _option(
        "plain data that travels with the job; the task reads it from `asyncq.current().headers`.",
        _headers,
        giver="call",
        job="headers",
        put=_put_headers,
    )
    ignore_result: bool = _option(
        "keep no result; `get` raises `ResultNotFound` at once.",
        _flag,
        default=False,
        job="ignore_result",
        position="last",
    )
    result_ttl: float | timedelta | None = _option(
        "how long the outcome is kept after the end, in seconds or as a timedelta; at least a minute "
        "(default: the app's `result_ttl`).",
        config.duration,
        job="result_ttl",
    )
    track_started: bool = _option(
        "if False, a running job shows as `PENDING` until it ends or reports its progress; its outcome still "
        "has the worker and the start time. The sender's version of the task decides.",
        _flag,
        default=True,
        giver="task",
        job="request_id",
        put=_put_track_started,
    )
    expires: float | timedelta | datetime | None = _option(
        "until when the job may start, in seconds from the call; for a call, also an aware datetime. A job "
        "that has not started by then never starts, and `get` raises `TaskExpired`.",
        _timestamp,
        job="expires",
        put=_put_expires,
    )
    wait: float | timedelta | None = _option(
        "how long `call` waits, in seconds (default: for ever).",
        config.duration,
        giver="call",
        position="last",
    )
    countdown: float | timedelta | None = _option(
        "seconds until the job may start.",
        config.duration,
        giver="call",
        job="wait",
        put=_put_countdown,
        position="first",
    )
    eta: float | timedelta | datetime | None = _option(
        "when the job may start: an aware datetime, or seconds from now. Not together with `countdown`.",
        _timestamp,
        giver="call",
        job="wait",
        put=_put_eta,
        position="first",
    )
    deadline: float | timedelta | datetime | None = _option(
        "when the job, and every job that it starts, must have ended: an aware datetime, or seconds from "
        "now. After that, a waiting job does not start, and a running job is cancelled.",
        _timestamp,
        giver="call",
        job="deadline",
        put=_put_deadline,
    )
    timeout: float | timedelta | None = _option(
        "how long one attempt may take, in seconds from the beginning of its body. Then a coroutine is "
        "cancelled and a process is killed; a thread runs to its end, and its result is ignored.",
        config.duration,
        job="timeout",
        put=_put_timeout,
        is_known_to_worker=True,
    )
    soft_timeout: float | timedelta | None = _option(
        "seconds after which `SoftTimeLimitExceeded` is raised inside an attempt, which may clean up and "
        "return; not in a thread.",
        config.duration,  # `app.py` also checks whether the task's function can have it
        giver="task",
    )
    retry: Retry | None = _option(
        "when to try again after a failure, see `Retry` (default: never).",
        _retry,
        job="retry",
        put=_put_retry,
        is_known_to_worker=True,
    )
    link: Callback | Sequence[Callback] | None = _option(
        "what runs after the job has succeeded, one workflow or a list of workflows: the job's value is "
        "their first argument.",
        _callbacks,
        giver="call",
        position="last",
    )
    link_error: Callback | Sequence[Callback] | None = _option(
        "what runs after the job has failed, one signature or a list of signatures: they get the job's id, "
        "the exception and the traceback (a text) before their own arguments.",
        _callbacks,
        giver="call",
        position="last",
    )
    executor: Literal["thread", "process"] | None = _option(
        "where a plain function runs: `thread` (the default) or `process`.",
        _as_given,  # `app.py` checks it, for that depends on the task's function
        giver="task",
    )
    rate_limit: float | str | None = _option(
        "how many jobs of the task may start, evenly spaced, in all workers together: a number per second, "
        'or "100/s", "100/m", "100/h", "100/d". A job that waits for its turn is `PENDING`, and holds no '
        "slot of a worker.",
        _as_given,  # `Limits.of` checks it and names the task
        giver="task",
    )
    concurrency: int | None = _option(
        "how many jobs of the task may run at once, in all workers together.",
        _as_given,  # `Limits.of` checks it and names the task
        giver="task",
    )
    every: float | timedelta | None = _option(
        "makes a schedule that calls the task without arguments every so many seconds: whole seconds, at "
        "least 1. The schedule has the name of the task, and exists while a worker declares it.",
        _interval,
        giver="task",
    )
    cron: str | None = _option(
        "the same at the times of a cron text: five fields (minute, hour, day of the month, month, day of "
        "the week), or `@hourly`, `@daily`, `@weekly`, `@monthly`, `@yearly`. It needs the extra `cron`.",
        _text,  # the schedule reads it, and shows the place of a fault
        giver="task",
    )
    tz: str | None = _option(
        "the time zone in which the cron text is read, such as `Europe/Paris` (default: UTC).",
        _text,  # as `cron`
        giver="task",
    )
    catch_up: Literal["latest", "all", "none"] = _option(
        "which ticks of the schedule run after a time without a worker: the latest of those that were "
        "missed, all in order (at most the latest 1,000), or none.",
        _catch_up,
        default="latest",
        giver="task",
    )
    overlap: bool = _option(
        "whether the schedule makes a job while the job of the tick before has not ended. If not, the tick "
        "is left out and counted.",
        _yes_or_no,
        default=False,
        giver="task",
    )
    jitter: float | timedelta = _option(
        "each job of the schedule is made up to so many seconds after its tick.",
        config.duration,
        default=0,
        giver="task",
    )
    start: datetime | None = _option(
        "an aware datetime before which the schedule does not tick; `every` counts from it.",
        _aware,
        giver="task",
    )
    until: datetime | None = _option(
        "an aware datetime after which the schedule does not tick.", _aware, giver="task"
    )
    max_runs: int | None = _option("how many jobs the schedule makes.", _count, giver="task")

    def __init__(self, **given: Any) -> None:
        vars(self).update(_overlaid({}, given))

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

    def with_call(self, given: Mapping[str, Any]) -> Options:
        """Returns these options with the options of a call over them. Raises what the constructor raises."""
        own = dict(vars(self))
        if given.get("countdown") is not None or given.get("eta") is not None:
            # Both say when the job may start, so a new one replaces either.
            own.pop("countdown", None)
            own.pop("eta", None)
        options = object.__new__(Options)
        vars(options).update(_overlaid(own, given))
        return options

    def is_bare(self, *, is_call: bool) -> bool:
        """Returns whether a job needs none of the fields that only some jobs have. Arguments as `puts`."""
        return (_RARE_OF_CALL if is_call else _RARE_OF_TASK).isdisjoint(vars(self))

    def puts(self, *, is_call: bool) -> list[tuple[Put, Any]]:
        """Returns the functions that put these options into a job, each with the value that it takes.

        The time limit and the retry policy of the task itself are not sent: its workers know them.

        Args:
            is_call: whether these are a call's options, and not the task's own.
        """
        puts = _PUTS_OF_CALL if is_call else _PUTS_OF_TASK
        return [(puts[name], value) for name, value in vars(self).items() if name in puts]


TABLE: Final[Mapping[str, Option]] = {
    field.name: field.metadata["option"] for field in dataclasses.fields(Options)
}
"""Every option by its name, in the order of the docs."""

FIRST: Final = frozenset(name for name, option in TABLE.items() if option.position == "first")
LAST: Final = frozenset(name for name, option in TABLE.items() if option.position == "last")
"""Options that go to the first or to the last of several calls only. All other options go to each call."""

_EITHER = (
    ("key", "task_id", "both say what the job's id is: give one of them"),
    ("countdown", "eta", "both say when the job may start: give one of them"),
)

_PUTS_OF_CALL = {name: option.put for name, option in TABLE.items() if option.put is not None}
_PUTS_OF_TASK = {name: put for name, put in _PUTS_OF_CALL.items() if not TABLE[name].is_known_to_worker}

_RARE_OF_CALL = frozenset(
    name for name, option in TABLE.items() if option.job not in {"", "queue", "result_ttl"}
)
_RARE_OF_TASK = frozenset(name for name in _RARE_OF_CALL if not TABLE[name].is_known_to_worker)


def _overlaid(values: dict[str, Any], given: Mapping[str, Any]) -> dict[str, Any]:
    """Checks the given options, lays them over the values, and returns these. A value that equals the default
    is left out, so a call can undo an option of its task.
    """
    for name, value in given.items():
        if value is None:
            continue
        option = TABLE[name]
        kept = option.check(name, value)
        if kept == option.default:
            values.pop(name, None)
        else:
            values[name] = kept
    for one, other, text in _EITHER:
        if one in values and other in values:
            raise ValueError(f"{one}= and {other}= {text}")
    soft, hard = values.get("soft_timeout"), values.get("timeout")
    if soft is not None and hard is not None and soft > hard:
        raise ValueError(
            f"soft_timeout={brief(soft)} is above timeout={brief(hard)}, which ends the attempt first: give "
            "a larger timeout, or a smaller soft_timeout"
        )
    return values


@dataclass(frozen=True, slots=True)
class Resolved:
    """Values that all jobs of a task share, computed from options and settings once and not for each call.

    Attributes:
        queue: the queue of the jobs.
        result_ttl: how long outcomes are kept, in ms; at least a minute.
        ignore_result: whether no results are kept.
        max_payload: the largest size of a call's arguments, in bytes.
    """

    queue: str
    result_ttl: int
    ignore_result: bool
    max_payload: int

    @staticmethod
    def of(settings: config.Settings, options: Options) -> Resolved:
        """Takes the values from these options, and from the settings where an option is not given."""
        ttl = settings.result_ttl if options.result_ttl is None else config.seconds(options.result_ttl)
        return Resolved(
            options.queue or settings.default_queue,
            max(60_000, round(ttl * 1000)),
            bool(options.ignore_result),
            settings.max_payload,
        )
