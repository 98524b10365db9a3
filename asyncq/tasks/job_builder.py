"""Makes the jobs of a task: checks and encodes arguments, and writes options into the message.

Every job that comes from a call is made here: for `delay`, `map`, a workflow or an eager run. A job inherits
the deadline and the ancestors of the job that makes the call. Everything is plain computation in the caller's
thread: nothing here sends a command or waits.
"""

from __future__ import annotations

import inspect
import os
from typing import TYPE_CHECKING, Any, Protocol

from asyncq import wire
from asyncq.client.application import Runnable
from asyncq.context import MAX_ANCESTORS, current_job
from asyncq.errors import PayloadTooLarge, SerializationError
from asyncq.serializers import ArgumentCodec
from asyncq.short_repr import brief
from asyncq.system import clock
from asyncq.tasks import idempotency
from asyncq.tasks.options import Options, Resolved, end_by

if TYPE_CHECKING:
    from collections.abc import Callable

    from asyncq.client.application import App
    from asyncq.context import Context
    from asyncq.dependencies.injection import Injection

MAX_SIGNATURE_KEYS = 1000
"""How many combinations of argument names are remembered for one task: with `**kwargs` there is no end."""


class Sendable(Runnable, Protocol):
    """A task, for code that enqueues calls of it."""

    builder: JobBuilder
    handle: type[Any]
    """The class of its handles, a `View`."""

    def with_options(self, options: Options, /) -> Sendable:
        """Returns the task with these options for its calls."""
        ...


class JobBuilder:
    """Makes the jobs of one task, with one set of options.

    Args:
        app: the app of the task.
        name: the task's name.
        function: the task's function, whose parameters the arguments must fit.
        options: the options of the task; `with_options` gives those of a call.
        injection: the dependencies of the function, which are no arguments.

    Attributes:
        arguments: the codec of the arguments.
        signature: of the function, without its dependencies.
        has_own_id: whether a job has an id that the caller chose (`task_id=`, `key=`). Another job may have
            the same id.
        resolved: the values that follow from the options and the settings.
    """

    __slots__ = (
        "_app",
        "_checked_keys",
        "_is_bare",
        "_puts",
        "arguments",
        "has_own_id",
        "injection",
        "name",
        "options",
        "resolved",
        "signature",
    )

    def __init__(
        self,
        app: App,
        name: str,
        function: Callable[..., Any],
        options: Options,
        injection: Injection | None = None,
    ) -> None:
        self.name: str = name
        self.injection: Injection | None = injection
        face = function if injection is None else injection.face
        self.signature: inspect.Signature = inspect.signature(face)
        self.arguments: ArgumentCodec = ArgumentCodec(face, app.policy)
        self._app = app
        self._checked_keys: set[object] = set()
        self._use(options, is_call=False)

    def _use(self, options: Options, *, is_call: bool) -> None:
        self.options: Options = options
        self.has_own_id: bool = options.task_id is not None or options.key is not None
        self._is_bare = options.is_bare(is_call=is_call)
        self._puts = options.puts(is_call=is_call)
        self.resolve()

    def with_options(self, options: Options) -> JobBuilder:
        """Returns a builder of calls with these options."""
        other: JobBuilder = object.__new__(JobBuilder)
        other.name, other.signature, other.arguments = self.name, self.signature, self.arguments
        other._app, other._checked_keys, other.injection = self._app, self._checked_keys, self.injection
        other._use(options, is_call=True)
        return other

    def resolve(self) -> None:
        """Computes what follows from the options and the settings; to be called when the settings change."""
        self.resolved: Resolved = Resolved.of(self._app.settings, self.options)

    # -- arguments --

    def body(self, args: tuple[Any, ...], kwargs: dict[str, Any], before: int = 0) -> bytes:
        """Checks and encodes the arguments of a call.

        Args:
            args: positional arguments.
            kwargs: keyword arguments.
            before: how many arguments a worker will put in front of them: values of earlier steps.

        Raises:
            TypeError: they do not fit the function.
            SerializationError, PayloadTooLarge: they cannot travel.
        """
        # Whether arguments fit depends only on their number and names, so each combination is checked once.
        signature_key = (before + len(args), *kwargs) if kwargs else before + len(args)
        if signature_key not in self._checked_keys:
            self.check((None,) * before + args, kwargs)
            if len(self._checked_keys) < MAX_SIGNATURE_KEYS:
                self._checked_keys.add(signature_key)
        body = self.arguments.dumps(args, kwargs, before)
        if len(body) > self.resolved.max_payload:
            raise self._too_large("the arguments of a call", len(body))
        return body

    def check(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        """Refuses arguments that do not fit the function.

        Raises:
            TypeError: they do not fit.
        """
        try:
            self.signature.bind(*args, **kwargs)
        except TypeError as error:
            raise TypeError(f"{self.name}{self.signature}: {error}{self._hint(args, kwargs)}") from None

    def check_part(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        """Refuses arguments that can never become a call, whatever is put before them. Raises as `check`."""
        try:
            self.signature.bind_partial(*args, **kwargs)
        except TypeError as error:
            raise TypeError(f"{self.name}{self.signature}: {error}{self._hint(args, kwargs)}") from None

    def _hint(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> str:
        """Returns what to add if a call may have meant a parameter that the worker fills."""
        if self.injection is None:
            return ""
        filled = self.injection.parameters.keys()
        most = self.injection.most_positional
        given = filled if most is not None and len(args) > most else filled & kwargs.keys()
        return f"; {', '.join(sorted(given))}: the worker fills what has Depends(...)" if given else ""

    # -- jobs --

    def call(self, body: bytes, channel: str, random: str = "") -> tuple[wire.Job, bytes]:
        """Makes the job of a single call, and its message. Arguments as `job`, errors as `message`."""
        if self._is_bare and current_job.get() is None:
            # The most frequent case, written out: a call pays only for what it uses.
            random = random or os.urandom(16).hex()
            resolved, shards = self.resolved, self._app.sessions.shards
            job = wire.Job(
                random[:24] if shards.is_one else shards.new_id(random[:24]),
                self.name,
                resolved.queue,
                body,
                random[24:],
                channel,
                int(clock.now() * 1000),
                resolved.result_ttl,
            )
            return job, wire.encode_plain(job)
        job = self.job(body, channel, random=random)
        return job, self.message(job)

    def job(self, body: bytes, channel: str, *, shard: int | None = None, random: str = "") -> wire.Job:
        """Makes a new job.

        Args:
            body: the encoded arguments.
            channel: the reply channel for its outcome.
            shard: the shard of the job; by default the shard of the job that makes the call, or any shard.
            random: 32 hexadecimal digits, for the id and the request id; by default new ones.
        """
        random = random or os.urandom(16).hex()
        parent = current_job.get()
        options, resolved, shards = self.options, self.resolved, self._app.sessions.shards
        if shard is None and parent is not None:
            shard = shards.number(parent.id)
        job = wire.Job(
            options.task_id or shards.new_id(random[:24], shard),
            self.name,
            resolved.queue,
            body,
            random[24:],
            "" if resolved.ignore_result else channel,
            int(clock.now() * 1000),
            resolved.result_ttl,
            ignore_result=resolved.ignore_result,
        )
        if not self._is_bare:
            if options.key is not None:
                job.id = idempotency.job_id(self._app.settings.namespace, self.name, options.key)
                job.request_id = idempotency.request_id(self.name, self.signature, body, job.request_id)
            for put, value in self._puts:
                put(job, value)
        if parent is not None:
            _inherit(job, parent, self._app)
        if job.expires is not None:
            # The record holds the request id, so whoever reads the record sees when the job expires.
            job.request_id = f"{job.request_id}~{job.expires}"
        return job

    def message(self, job: wire.Job) -> bytes:
        """Encodes the message of a job.

        Raises:
            SerializationError, PayloadTooLarge: the headers cannot travel.
        """
        try:
            message = wire.encode_job(job)
        except (TypeError, ValueError, OverflowError) as error:
            raise SerializationError(
                f"headers={brief(job.headers)} cannot travel ({error}); use plain texts, numbers, lists, maps"
            ) from error
        if len(message) - len(job.body) > self.resolved.max_payload:
            raise self._too_large("the headers of a call", len(message) - len(job.body))
        return message

    def _too_large(self, what: str, size: int) -> PayloadTooLarge:
        return PayloadTooLarge(
            f"{what} of {self.name} take {size:,} bytes, more than max_payload="
            f"{self.resolved.max_payload:,}; store the data elsewhere and send its name, or raise max_payload"
        )

    def taken(self, id_: str) -> ValueError:
        """Makes the error for a call that was refused because another call's job has its id."""
        key = self.options.key
        if key is not None:
            return ValueError(
                f"key {brief(key)} of {self.name} belongs to a call with other arguments, so nothing was "
                "enqueued; use another key, or forget the result of that call when its job has ended: "
                f"await app.AsyncResult({id_!r}).forget()"
            )
        return ValueError(
            f"a job with task_id {id_!r} exists already and is another call; use another id, or "
            f"app.AsyncResult({id_!r}) for that job"
        )

    def refuse_key(self) -> None:
        """Refuses a key for a call that is a part of a workflow.

        Raises:
            ValueError: the options have a key.
        """
        key = self.options.key
        if key is not None:
            raise ValueError(
                f"key={brief(key)} of {self.name} is not for a call in a workflow; give it to a task that "
                "starts the workflow"
            )


def _inherit(job: wire.Job, parent: Context, app: App) -> None:
    job.parent_id = parent.id
    job.root_id = parent.root_id or parent.id
    if parent.parent_id is not None and parent.is_of(app):
        job.ancestors = list(parent.ancestors[: MAX_ANCESTORS - 1])
    if parent.deadline_ms is not None:
        end_by(job, parent.deadline_ms)
