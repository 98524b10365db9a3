"""A call on its way to the server, as the `on_enqueue` of a middleware gets it."""

from __future__ import annotations

import copy
from datetime import UTC, datetime
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from asyncq import wire
from asyncq.serializers import in_front
from asyncq.short_repr import brief

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from asyncq.serializers import ArgumentCodec

_NIL = b"\xc0"


class Call:
    """One call that is about to be enqueued. Only its headers may be changed.

    Attributes:
        headers: plain data that travels with the job, and arrives in `asyncq.current().headers`. What the
            caller gave as `headers=`, or what the dead letter had that is sent again, is in it already.

    Example:
        ```python
        async def on_enqueue(self, call, call_next):
            call.headers["request"] = request_id.get()
            return await call_next(call)
        ```
    """

    __slots__ = ("_arguments", "_codec_of", "_job", "headers")

    def __init__(self, job: wire.Job, codec_of: Callable[[str], ArgumentCodec]) -> None:
        self._job = job
        self._codec_of = codec_of
        self._arguments: tuple[tuple[Any, ...], dict[str, Any]] | None = None
        # A deep copy: a hook may change what lies in it, and the caller's own object must stay as it is.
        self.headers: dict[str, Any] = copy.deepcopy(dict(job.headers)) if job.headers else {}

    @property
    def task(self) -> str:
        """The name of the task."""
        return self._job.name

    @property
    def id(self) -> str:
        """The id of the job."""
        return self._job.id

    @property
    def queue(self) -> str:
        """The queue that the job goes to."""
        return self._job.queue

    @property
    def args(self) -> tuple[Any, ...]:
        """The positional arguments, as the task will get them. Those of a step of a workflow are without the
        values of the steps before it, which do not exist yet.

        They are decoded at the first access, so they are not the caller's own objects.

        Raises:
            DecodeError: a class of an argument is not known in this process.
        """
        return self._decoded()[0]

    @property
    def kwargs(self) -> dict[str, Any]:
        """The keyword arguments. They are decoded as `args` are."""
        return self._decoded()[1]

    @property
    def options(self) -> Mapping[str, Any]:
        """The options of the call and of its task, by the names that `Task.options` has for them, as far as
        they differ from the defaults: `priority`, `countdown` (seconds until the job may start, also for
        `eta=`), `expires` and `deadline` (aware datetimes), `timeout` and `result_ttl` (seconds),
        `ignore_result`, `retry` (a map with `max_retries`, `backoff`, `max_backoff`, `jitter`, and the names
        of the exceptions in `on`; only a policy that the call was given). `result_ttl` is always there.
        """
        job = self._job
        found: dict[str, Any] = {"result_ttl": job.result_ttl / 1000}
        if job.priority:
            found["priority"] = job.priority
        if job.wait is not None:
            found["countdown"] = job.wait / 1000
        if job.expires is not None and job.expires != job.deadline:  # what has a deadline expires then
            found["expires"] = _time(job.expires)
        if job.deadline is not None:
            found["deadline"] = _time(job.deadline)
        if job.timeout is not None:
            found["timeout"] = job.timeout / 1000
        if job.ignore_result:
            found["ignore_result"] = True
        if job.retry is not None:
            names = ("max_retries", "backoff", "max_backoff", "jitter", "on")
            found["retry"] = dict(zip(names, job.retry, strict=False))
        return MappingProxyType(found)

    def _decoded(self) -> tuple[tuple[Any, ...], dict[str, Any]]:
        if self._arguments is None:
            job = self._job
            # The worker puts so many arguments before these.
            before = 0 if job.value_template is None else 3 if job.value_template == "e" else 1
            body = in_front(job.body, [_NIL] * before) if before else job.body
            args, kwargs = self._codec_of(job.name).loads(body)
            self._arguments = tuple(args[before:]), kwargs
        return self._arguments

    def __repr__(self) -> str:
        return f"<Call {self.id} of {self.task}: headers={brief(self.headers)}>"


def _time(milliseconds: int) -> datetime:
    return datetime.fromtimestamp(min(milliseconds, wire.LATEST) / 1000, UTC)
