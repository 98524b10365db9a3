"""Every error that asyncq raises. The docstring of each is written for the person who gets the error.

Workers, clients and tasks raise them, on any thread. `docs/reference/errors.md` is made of these docstrings.
"""

from __future__ import annotations

from datetime import timedelta
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Mapping


class AsyncQError(Exception):
    """Base of every error that asyncq itself raises. An exception that your task raised is not one of them:
    it arrives as it is.
    """


class ResultTimeout(AsyncQError, TimeoutError):
    """The job did not end within the timeout of this wait.

    The job itself goes on. Wait again, or `await result.revoke()` to end it. A `TimeoutError` that the *task*
    raised is not a `ResultTimeout`, so the two can be told apart.
    """


class TaskRevoked(AsyncQError):
    """The job was revoked before it ended, so there is no value."""


class TaskExpired(TaskRevoked):
    """The job was not started before its `expires` or its `deadline`, so it never starts."""


class WorkerLost(AsyncQError):
    """The job killed its worker each time it was tried, so it is not tried again. Or it ran in a process
    of its own (`executor="process"`), and that process died.

    Look at the worker's log for a crash (out of memory, a segmentation fault in an extension, `os._exit`).
    """


class ResultNotFound(AsyncQError, LookupError):
    """There is no result under this id: the job never existed, its result was forgotten or has expired, or
    its task ignores results.

    A result is kept for `result_ttl` (an hour by default) after the end of the job. To keep it longer, raise
    `result_ttl` on the app, the task or the call.
    """


class RemoteOrigin(NamedTuple):
    """What a `RemoteError` knows of the exception for which it stands.

    Attributes:
        type_name: the full name of its class.
        traceback: the formatted traceback of where it was raised.
        message: what its `str()` returned; None if that is the `str()` of the arguments.
        attributes: those of its attributes that are plain data.
        names: module and name of its class, then of the classes above.
        has_args: whether its arguments could be sent.
        left_out: the names of the attributes that are not plain data.
    """

    type_name: str
    traceback: str = ""
    message: str | None = None
    attributes: dict[str, Any] = {}  # noqa: RUF012  read only through a proxy
    names: tuple[tuple[str, str], ...] = ()
    has_args: bool = True
    left_out: tuple[str, ...] = ()


class RemoteError(AsyncQError):
    """The task raised an exception that cannot be made again in this process: its class is not imported here,
    or the new exception would not be equal.

    The error keeps what is known of the exception. It is also caught as the nearest of the exception's
    classes that is imported here: `except LookupError` catches a `RemoteError` for a
    `shop.errors.OutOfStock(LookupError)`, and `except OutOfStock` catches it where that class is imported.

    Attributes:
        type_name: the full name of the class, as in `shop.errors.OutOfStock`.
        args: the arguments of the exception (its message, as a string, if they could not be sent).
        traceback: the formatted traceback of where it was raised.
        attributes: those of its attributes that are plain data, by their names. Each is an attribute of this
            error, too, unless the error has one of that name.
    """

    def __init__(self, type_name: str, args: tuple[Any, ...] = (), traceback: str = "") -> None:
        super().__init__(*args)
        self.__dict__["_origin"] = RemoteOrigin(type_name, traceback)

    def __init_subclass__(cls, **options: Any) -> None:
        # `failures.remote` derives classes from this class and a class of the user's. The user's
        # `__init_subclass__` must not run for them: it may keep a register of subclasses, or demand keywords.
        if "_stands_for" not in cls.__dict__:
            super().__init_subclass__(**options)

    # Properties, so that neither an attribute of the exception nor its class can replace them.

    @property
    def _origin(self) -> RemoteOrigin:
        origin = self.__dict__.get("_origin")
        return origin if type(origin) is RemoteOrigin else RemoteOrigin(type(self).__name__)

    @property
    def type_name(self) -> str:
        """The full name of the class of the exception."""
        return self._origin.type_name

    @property
    def traceback(self) -> str:
        """The formatted traceback of where it was raised."""
        return self._origin.traceback

    @property
    def attributes(self) -> Mapping[str, Any]:
        """Those attributes of the exception that are plain data, by their names."""
        return MappingProxyType(self._origin.attributes)

    def __str__(self) -> str:
        origin = self._origin
        message = BaseException.__str__(self) if origin.message is None else origin.message
        return f"{origin.type_name}: {message}" if message else origin.type_name

    def __reduce__(self) -> tuple[Any, ...]:
        return RemoteError, ("", self.args), {**self._origin.attributes, "_origin": self._origin}

    def __setstate__(self, state: dict[str, Any] | None) -> None:
        # Not by `setattr`: an attribute of the exception may have the name of a property.
        self.__dict__.update(state or {})


class RemoteTraceback(AsyncQError):
    """Where a task failed, on the worker. It is the `__cause__` of the raised exception, so that the
    traceback of an uncaught exception shows it.
    """

    def __init__(self, traceback: str) -> None:
        super().__init__(traceback)
        self.traceback = traceback

    def __str__(self) -> str:
        return "\n" + self.traceback.rstrip()


class WouldDeadlock(AsyncQError, RuntimeError):
    """A task waited for another job, and nothing allowed it to. If the jobs in all slots did that, no worker
    could run the jobs that they wait for.

    What to do: return the ids and let the caller wait; or allow the wait, with
    `get(disable_sync_subtasks=False)` or `with asyncq.allow_join_result():`. Then the task releases its slot
    while it waits.

    Even an allowed wait raises this error if the wait would never end: for the task's own job, for a job that
    started it, or for a job that waits for it. The message shows the path. It also raises this error if
    `max_parked` jobs of the worker wait already.
    """


class SyncInAsyncContext(AsyncQError, RuntimeError):
    """A blocking `..._sync` call was made on a thread whose event loop is running, which it would stop.

    Await the method without the suffix instead.
    """


class TimeLimitExceeded(AsyncQError):
    """The task ran longer than its `timeout`, or past its `deadline`, and was stopped. A thread cannot be
    stopped: it goes on, and what it returns is dropped.
    """


class SoftTimeLimitExceeded(AsyncQError):
    """The task ran longer than its `soft_timeout`. Raised inside the task, which may clean up and return.

    A task group may put it into an exception group, as every exception: `except*` catches it either way.
    """


class RetryLater(AsyncQError):
    """Raise it in a task to run the job again later: `raise RetryLater(countdown=5) from error`.

    The slot is free meanwhile. When no retry is left, the job fails with the exception that follows `from`,
    or with this error if there is none.

    Args:
        message: why, for the log and for whoever reads the state.
        countdown: seconds until the next try; None uses the task's retry policy.
        max_retries: how many retries there may be; None uses the task's retry policy (3 if it has none).
    """

    def __init__(
        self, message: str = "", *, countdown: float | timedelta | None = None, max_retries: int | None = None
    ) -> None:
        super().__init__(*([message] if message else []))
        if isinstance(countdown, timedelta):
            countdown = countdown.total_seconds()
        if countdown is not None and not 0 <= countdown < 1e10:
            raise ValueError(f"countdown={countdown!r}: give a finite number of seconds from now, 0 or more")
        self.countdown = countdown
        self.max_retries = max_retries


class QueueFull(AsyncQError):
    """The queue, or the server's memory, is full. Nothing was enqueued. Try again later, or start more
    workers. With `full_wait` an enqueue waits for room. `max_length` bounds the length of a queue.
    """


class NotRegistered(AsyncQError):
    """No worker of the queue has known a task of this name for `unknown_task_wait` (30 s).

    Import the module that defines it in the worker's application module, or correct the name.
    """


class SerializationError(AsyncQError, TypeError):
    """A value cannot be sent. The message says which part of it: `kwargs['items'][3].at`.

    Send None, bool, int, float, str, bytes, list, tuple, dict, set, frozenset, datetime, date, time,
    timedelta, UUID, Decimal, a path or an IP address. Or send an enum, dataclass, NamedTuple or pydantic
    model that the task's annotations name at that place, or that the app lists in `types=`.
    """


class PayloadTooLarge(SerializationError):
    """A payload is larger than `max_payload` (1 MiB by default). Nothing was written.

    Store the data elsewhere (a file, an object store, a Redis key of your own) and send its name.
    """


class DecodeError(AsyncQError, ValueError):
    """Bytes from Redis are not a message of asyncq, or are one of a newer version. Or the app has
    `secrets`, and nobody with one of them has signed the bytes for this place.

    After a change of secrets: let all processes accept the new one before any signs with it.
    """


class IncompleteStream(AsyncQError):
    """The tree of results is not complete yet: a job in it has not ended, so its children are not known."""


class BrokerUnavailable(AsyncQError, ConnectionError):
    """The server cannot be reached, or did not answer in time.

    Check that it runs and that `ASYNCQ_URL` names it. If the call was an enqueue, the job may or may not have
    been accepted. Send the same `task_id` again to find out: that never makes a second job.
    """


class NotReplicated(BrokerUnavailable):
    """The server has accepted the job, but fewer replicas than the setting `replicas` asks for have confirmed
    it within `operation_timeout`. The job **exists** and runs as any other; it is lost if the server dies
    before a replica has it.

    Do not make the call anew: that would be a second job. Go on with `app.AsyncResult(error.ids[0])`, or wait
    for the replicas again with the same call and `task_id=error.ids[0]` in the same process, which makes no
    second job. `asyncq doctor` says how many replicas are connected.

    Attributes:
        ids: of the jobs, in the order of their calls.
        wanted: how many replicas should have them (`replicas`).
        replicas: how many had them; None if the server did not answer.
    """

    def __init__(
        self, message: str = "", *, ids: tuple[str, ...] = (), wanted: int = 0, replicas: int | None = None
    ) -> None:
        super().__init__(message)
        self.ids = ids
        self.wanted = wanted
        self.replicas = replicas


class BrokerNotConfigured(AsyncQError):
    """No server is configured, and no embedded one can be started here. Or `shards` differs from the value of
    the other processes that use the namespace.

    Set `ASYNCQ_URL=redis://host:6379/0`, or pass the URL to `AsyncQ(...)`, or `pip install
    "asyncq[embedded]"`.
    """
