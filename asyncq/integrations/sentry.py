"""Failures and traces of jobs in Sentry: `sentry_sdk.init(integrations=[AsyncqIntegration()])`.

Needs the extra `sentry`, which brings sentry-sdk. The integration is set up once for a process, and adds
itself to every app there is and every app that is made later. `on_enqueue` runs on the loop of the session
that enqueues, `on_run` in the asyncio task of the job, and the outcome hooks beside the jobs.

Whether a failed attempt is an error or is followed by another one is known only when its outcome is stored.
So `on_run` keeps the exception, with its traceback and the scope of the job, until an outcome hook sends or
drops it.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from contextlib import nullcontext
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from asyncq.integrations.extras import needs_extra

with needs_extra("sentry"):
    import sentry_sdk
    from sentry_sdk.integrations import Integration
    from sentry_sdk.integrations.logging import ignore_logger
    from sentry_sdk.scope import (
        Scope,
        ScopeType,
        should_send_default_pii,
        use_isolation_scope,
        use_scope,
    )
    from sentry_sdk.utils import event_from_exception

from asyncq.app import add_to_every_app
from asyncq.errors import RetryLater
from asyncq.middleware.middleware import Middleware

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from sentry_sdk.tracing import Span

    from asyncq.context import Context
    from asyncq.middleware.job_event import JobEvent
    from asyncq.middleware.outgoing_call import Call

__all__ = ["AsyncqIntegration"]

ORIGIN: Final = "auto.queue.asyncq"
TRACE_HEADERS: Final = {"sentry-trace": "sentry-trace", "sentry-baggage": "baggage"}
"""Header of a job: the name that Sentry has for it. `baggage` belongs to other tracing libraries, too."""
MOST_KEPT: Final = 1000
"""Exceptions that wait for their outcome hooks. None is called for an outcome that did not count, because the
job runs elsewhere; then the exception is dropped when so many others have come after it."""


class AsyncqIntegration(Integration):
    """Sends the failures of jobs to Sentry, and their traces.

    - Each attempt has a scope of its own, with the task, the queue and the id of the job. What the task adds
      (tags, breadcrumbs, a user) stays in it.
    - A job that has failed for good is one event. An attempt that is tried again is none, and neither is a
      job that was revoked or has expired.
    - With `traces_sample_rate`, each attempt is a transaction in the trace of the code that sent the job.

    Args:
        send_arguments: whether events show the arguments of the job (default: as `send_default_pii` of
            `sentry_sdk.init` says).

    Example:
        ```python
        sentry_sdk.init(dsn, integrations=[AsyncqIntegration()])
        ```
    """

    identifier = "asyncq"
    origin = ORIGIN

    def __init__(self, *, send_arguments: bool | None = None) -> None:
        self.send_arguments = send_arguments

    @staticmethod
    def setup_once() -> None:
        """Is called by `sentry_sdk.init`, once in a process."""
        add_to_every_app(_SentryMiddleware())
        # A worker logs each failure as an error, with its traceback. Sentry would make a second event of it.
        ignore_logger("asyncq.worker.job_log")


class _Failure(NamedTuple):
    """What an attempt has raised.

    Attributes:
        error: the exception.
        scope: the scope of the attempt.
        trace: the trace context of the attempt.
    """

    error: Exception
    scope: Scope
    trace: Any


class _SentryMiddleware(Middleware):
    """Does nothing while the client of the process has no `AsyncqIntegration`."""

    def __init__(self) -> None:
        self._failures: OrderedDict[tuple[str, int], _Failure] = OrderedDict()

    def on_add(self, app: Any) -> None:
        app.on_failure(self._send)
        # Not `on_success`, which would cost each job a call: only a middleware around this one could make a
        # success of a failure, and then the exception is dropped later.
        app.on_retry(self._drop)
        app.on_revoked(self._drop)

    async def on_enqueue(self, call: Call, call_next: Callable[[Call], Awaitable[bool]]) -> bool:
        if _integration() is None:
            return await call_next(call)
        has_trace = sentry_sdk.get_current_span() is not None
        with (
            sentry_sdk.start_span(op="queue.publish", name=call.task, origin=ORIGIN)
            if has_trace
            else nullcontext() as span
        ):
            if span is not None:
                span.set_data("messaging.message.id", call.id)
                span.set_data("messaging.destination.name", call.queue)
            values = {
                "sentry-trace": sentry_sdk.get_traceparent(),
                "sentry-baggage": sentry_sdk.get_baggage(),
            }
            call.headers.update({name: value for name, value in values.items() if value})
            return await call_next(call)

    async def on_run(self, job: Context, call_next: Callable[[Context], Awaitable[Any]]) -> Any:
        integration = _integration()
        if integration is None:
            return await call_next(job)
        raised: BaseException | None = None
        value = None
        with sentry_sdk.isolation_scope() as scope:
            scope.clear_breadcrumbs()
            _describe(scope, job, integration)
            with _transaction(job) as span:
                try:
                    value = await call_next(job)
                except BaseException as error:  # noqa: BLE001  raised again below
                    raised = error
                span.set_status(_status(raised))
            if isinstance(raised, Exception) and job.entry:  # else it runs where it was called
                self._keep(job, _Failure(raised, scope, span.get_trace_context()))
        if raised is None:
            return value
        try:
            raise raised
        finally:
            del raised  # its traceback refers to this frame: this would be a cycle

    def _keep(self, job: Context, failure: _Failure) -> None:
        self._failures[job.id, job.attempt] = failure
        if len(self._failures) > MOST_KEPT:
            self._failures.popitem(last=False)

    async def _drop(self, event: JobEvent) -> None:
        self._failures.pop((event.id, event.attempt), None)

    async def _send(self, event: JobEvent) -> None:
        failure = self._failures.pop((event.id, event.attempt), None)
        if _integration() is None:
            return
        if failure is not None:
            # All tasks of a process that were started in one context share its current scope. What that says,
            # the name of a transaction under way above all, would stand before what the job's own scope says.
            with use_isolation_scope(failure.scope), use_scope(Scope(ty=ScopeType.CURRENT)):
                _capture(failure.error, {"trace": failure.trace})
            return
        error = event.error
        if error is None:
            return
        # Its body did not run here, or has succeeded: its task is not known, its workers died with it, its
        # arguments or its value could not be read.
        with sentry_sdk.isolation_scope() as scope, use_scope(Scope(ty=ScopeType.CURRENT)):
            scope.clear_breadcrumbs()
            scope.set_transaction_name(event.task, source="task")
            _set_names(scope, event.task, event.queue, event.id)
            scope.set_context(
                "asyncq",
                {
                    "task": event.task,
                    "id": event.id,
                    "queue": event.queue,
                    "attempt": event.attempt,
                    "worker": event.worker,
                },
            )
            _capture(error, {})


def _integration() -> AsyncqIntegration | None:
    return sentry_sdk.get_client().get_integration(AsyncqIntegration)


def _transaction(job: Context) -> Span:
    found = {
        theirs: job.headers[ours]
        for ours, theirs in TRACE_HEADERS.items()
        if isinstance(job.headers.get(ours), str)
    }
    transaction = sentry_sdk.continue_trace(
        found, op="queue.process", name=job.name, source="task", origin=ORIGIN
    )
    started = sentry_sdk.start_transaction(transaction)
    started.set_data("messaging.message.id", job.id)
    started.set_data("messaging.destination.name", job.queue)
    started.set_data("messaging.message.retry.count", job.attempt - 1)
    return started


def _describe(scope: Scope, job: Context, integration: AsyncqIntegration) -> None:
    scope.set_transaction_name(job.name, source="task")
    _set_names(scope, job.name, job.queue, job.id)
    shown: dict[str, Any] = {
        "task": job.name,
        "id": job.id,
        "queue": job.queue,
        "attempt": job.attempt,
        "worker": job.worker,
    }
    sends = integration.send_arguments
    if should_send_default_pii() if sends is None else sends:
        shown |= {"args": job.args, "kwargs": job.kwargs}
    scope.set_context("asyncq", shown)


def _set_names(scope: Scope, task: str, queue: str, id: str) -> None:
    scope.set_tag("asyncq.task", task)
    scope.set_tag("asyncq.queue", queue)
    scope.set_tag("asyncq.job_id", id)


def _status(raised: BaseException | None) -> str:
    if raised is None:
        return "ok"
    if isinstance(raised, asyncio.CancelledError):
        return "cancelled"
    if isinstance(raised, RetryLater):
        return "aborted"
    return "internal_error" if isinstance(raised, Exception) else "ok"  # `replace` is no error


def _capture(error: Exception, contexts: dict[str, Any]) -> None:
    event, hint = event_from_exception(
        error,
        client_options=sentry_sdk.get_client().options,
        mechanism={"type": "asyncq", "handled": False},
    )
    if contexts:
        event["contexts"] = contexts
    sentry_sdk.capture_event(event, hint=hint)
