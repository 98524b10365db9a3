"""Traces and metrics of jobs with OpenTelemetry: `app.add_middleware(OpenTelemetryMiddleware())`.

Needs the extra `opentelemetry`, which brings OpenTelemetry's API; the program chooses an SDK and its
exporters. Names follow OpenTelemetry's conventions for messaging. `on_enqueue` runs on the loop of the
session that enqueues, and `on_run` in the asyncio task of the job.

The context of the span that sends a job travels in the headers of the job, as the propagators of the program
write it (W3C by default). In the worker, `on_run` puts the context of its own span there instead. So code
finds it that context variables do not reach: a child process, and the log after the end of the span.
"""

from __future__ import annotations

from time import perf_counter
from typing import TYPE_CHECKING, Any, Final, Literal

from asyncq.integrations.extras import needs_extra

with needs_extra("opentelemetry"):
    from opentelemetry import context as contexts, propagate, trace
    from opentelemetry.metrics import get_meter
    from opentelemetry.trace import Link, SpanKind, Status, StatusCode

from asyncq import __version__, logs
from asyncq.context import current_job
from asyncq.errors import RetryLater
from asyncq.middleware.middleware import Middleware
from asyncq.short_repr import brief

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping

    from opentelemetry.context import Context as TraceContext
    from opentelemetry.metrics import MeterProvider
    from opentelemetry.trace import Span, TracerProvider

    from asyncq.context import Context
    from asyncq.middleware.outgoing_call import Call

__all__ = ["OpenTelemetryMiddleware", "TraceMode"]

TraceMode = Literal["auto", "child", "link"]
"""How the trace of a job belongs to the code that sent the job, see `OpenTelemetryMiddleware`."""

LINK_HEADER: Final = "asyncq-trace-link"
"""The header of a job whose trace is one of its own, with a link to the span that sent it."""

_BUCKETS: Final = (0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.25, 0.5, 0.75, 1, 2.5, 5, 7.5, 10)
_SCHEDULED: Final = "scheduled_for"
"""A header of each job that a schedule has started."""


class OpenTelemetryMiddleware(Middleware):
    """Makes a span where a job is enqueued, and one for each attempt, and measures both.

    Add it to the app before other middleware, so that their time is part of the spans. Without an SDK, or
    before one is set up, nothing is recorded.

    Args:
        trace_mode: `child`: the span of an attempt belongs to the trace of the code that sent the job.
            `link`: it begins a trace of its own, with a link to that code. `auto`: `link` for a job with
            `countdown` or `eta` and one that a schedule has started, because the trace that sent it is over
            by then; else `child`. The process that sends a job decides.
        tracer_provider: makes the tracer (default: the global one).
        meter_provider: makes the meter (default: the global one).

    Raises:
        ValueError: there is no such `trace_mode`.

    Example:
        ```python
        app = AsyncQ()
        app.add_middleware(OpenTelemetryMiddleware())
        ```
    """

    def __init__(
        self,
        *,
        trace_mode: TraceMode = "auto",
        tracer_provider: TracerProvider | None = None,
        meter_provider: MeterProvider | None = None,
    ) -> None:
        if trace_mode not in {"auto", "child", "link"}:
            raise ValueError(f'trace_mode={brief(trace_mode)}: use "auto", "child" or "link"')
        self._mode = trace_mode
        self._tracer = trace.get_tracer("asyncq", __version__, tracer_provider)
        meter = get_meter("asyncq", __version__, meter_provider)
        self._sent = meter.create_counter(
            "messaging.client.sent.messages", "{message}", "Jobs that were enqueued."
        )
        self._send_time = meter.create_histogram(
            "messaging.client.operation.duration",
            "s",
            "Duration of an enqueue.",
            explicit_bucket_boundaries_advisory=_BUCKETS,
        )
        self._consumed = meter.create_counter(
            "messaging.client.consumed.messages", "{message}", "Attempts that a worker has begun."
        )
        self._run_time = meter.create_histogram(
            "messaging.process.duration",
            "s",
            "Duration of an attempt.",
            explicit_bucket_boundaries_advisory=_BUCKETS,
        )

    def on_add(self, app: Any) -> None:  # noqa: ARG002  the log is that of the process
        """Adds `trace_id` and `span_id` to the records of the JSON log of this process."""
        logs.add_fields(log_fields)

    async def on_enqueue(self, call: Call, call_next: Callable[[Call], Awaitable[bool]]) -> bool:
        """Makes the span that sends a job (`send <queue>`), and puts its context into the headers."""
        common = _attributes("send", call.queue, call.task)
        with self._tracer.start_as_current_span(
            f"send {call.queue}",
            context=_sending_context(),
            kind=SpanKind.PRODUCER,
            attributes={**common, "messaging.message.id": call.id},
        ) as span:
            propagate.inject(call.headers)
            call.headers.pop(LINK_HEADER, None)  # of a dead letter that is sent again
            if self._begins_trace(call):
                call.headers[LINK_HEADER] = True
            began = perf_counter()
            try:
                is_new = await call_next(call)
            except Exception as error:
                common["error.type"] = _type_of(error)
                span.set_attribute("error.type", common["error.type"])
                raise
            else:
                if not is_new:  # the call met the job of an equal call with the same `key=`
                    span.set_attribute("asyncq.existing_job", value=True)
                return is_new
            finally:
                self._sent.add(1, common)
                self._send_time.record(perf_counter() - began, common)

    def _begins_trace(self, call: Call) -> bool:
        if self._mode != "auto":
            return self._mode == "link"
        return bool(call.options.get("countdown")) or _SCHEDULED in call.headers

    async def on_run(self, job: Context, call_next: Callable[[Context], Awaitable[Any]]) -> Any:
        """Makes the span of an attempt (`process <queue>`), and runs the attempt in it."""
        common = _attributes("process", job.queue, job.name)
        parent, links = _received(job)
        span = self._tracer.start_span(
            f"process {job.queue}",
            context=parent,
            kind=SpanKind.CONSUMER,
            attributes={**common, **_attributes_of(job)},
            links=links,
        )
        inside = trace.set_span_in_context(span, parent)
        _note_context(job, inside)
        token = contexts.attach(inside)
        began = perf_counter()
        try:
            return await call_next(job)
        except RetryLater:
            raise  # the body has asked for another attempt: this is no error
        except Exception as error:
            common["error.type"] = _type_of(error)
            _mark_failed(span, error)
            raise
        finally:
            contexts.detach(token)
            span.end()
            self._consumed.add(1, common)
            self._run_time.record(perf_counter() - began, common)


def log_fields() -> Mapping[str, str]:
    """Returns the ids of the trace and of the span that the running code belongs to, in hexadecimal digits;
    nothing if there is no trace.

    In a job, that is the trace of the job. A worker logs a failure when the span of the attempt has ended,
    and the span that is current then may be one in which the worker was started.
    """
    found = trace.get_current_span().get_span_context()
    job = current_job.get()
    if job is not None:
        of_job = trace.get_current_span(_context_in(job.headers)).get_span_context()
        if of_job.is_valid and of_job.trace_id != found.trace_id:
            found = of_job
    if not found.is_valid:
        return {}
    return {
        "trace_id": trace.format_trace_id(found.trace_id),
        "span_id": trace.format_span_id(found.span_id),
    }


def _sending_context() -> TraceContext:
    """Returns the context to which a span that sends a job belongs."""
    job = current_job.get()
    if job is not None and not trace.get_current_span().get_span_context().is_valid:
        return _context_in(job.headers)  # this is a child process, or a thread without context variables
    return contexts.get_current()


def _received(job: Context) -> tuple[TraceContext, list[Link]]:
    """Returns the parent context of the span of an attempt, and its links."""
    sent = _context_in(job.headers)
    if not job.headers.get(LINK_HEADER):
        return sent, []
    sender = trace.get_current_span(sent).get_span_context()
    # The rest of the context stays, such as the baggage.
    alone = trace.set_span_in_context(trace.INVALID_SPAN, sent)
    return alone, [Link(sender)] if sender.is_valid else []


def _context_in(headers: Mapping[str, Any]) -> TraceContext:
    """Reads the context that travels in headers, and in nothing else."""
    # A caller may give headers of the same names that are no texts.
    texts = {name: value for name, value in headers.items() if isinstance(value, str)}
    return propagate.extract(texts, contexts.Context())


def _note_context(job: Context, context: TraceContext) -> None:
    """Puts a context into the headers of a job, in place of the one that the job came with."""
    own: dict[str, str] = {}
    propagate.inject(own, context)
    if job.headers and isinstance(job.headers, dict):
        job.headers.update(own)  # the same dictionary is sent to the child process of the job
    else:
        job.headers = own  # jobs without headers share one empty dictionary


def _attributes(operation: str, queue: str, task: str) -> dict[str, Any]:
    """Returns the attributes that spans and metrics have."""
    return {
        "messaging.system": "asyncq",
        "messaging.operation.name": operation,
        "messaging.operation.type": operation,
        "messaging.destination.name": queue,
        "asyncq.task": task,
    }


def _attributes_of(job: Context) -> dict[str, Any]:
    """Returns the attributes that only the span of an attempt has."""
    found: dict[str, Any] = {
        "messaging.message.id": job.id,
        "messaging.message.conversation_id": job.root_id or job.id,
        "asyncq.attempt": job.attempt,
    }
    if job.entry:  # otherwise it runs where it was called
        found["messaging.client.id"] = job.worker
    return found


def _mark_failed(span: Span, error: Exception) -> None:
    span.set_attribute("error.type", _type_of(error))
    span.record_exception(error)
    span.set_status(Status(StatusCode.ERROR, f"{type(error).__name__}: {error}"))


def _type_of(error: Exception) -> str:
    name = getattr(error, "type_name", None)  # of a `RemoteError`, whose own class says nothing
    if isinstance(name, str):
        return name
    kind = type(error)
    return kind.__qualname__ if kind.__module__ == "builtins" else f"{kind.__module__}.{kind.__qualname__}"
