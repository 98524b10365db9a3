"""Traces and metrics with OpenTelemetry's SDK: over jobs, their children, workflows, and into a collector."""

from __future__ import annotations

import asyncio
import gzip
import io
import json
import logging
import threading
from contextlib import AsyncExitStack
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, Any

import pytest
from helpers import process_bodies
from helpers.waiting import until, until_state
from opentelemetry import baggage, context, trace
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import SpanKind, StatusCode

import asyncq
from asyncq import Retry, RetryLater, Worker, group, logs
from asyncq.integrations.opentelemetry import OpenTelemetryMiddleware

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = pytest.mark.anyio


class Traced:
    """An SDK that keeps spans and measurements in memory, without being the SDK of the process."""

    def __init__(self) -> None:
        self.exporter = InMemorySpanExporter()
        self.provider = TracerProvider(shutdown_on_exit=False)
        self.provider.add_span_processor(SimpleSpanProcessor(self.exporter))
        self.reader = InMemoryMetricReader()
        self.meters = MeterProvider([self.reader], shutdown_on_exit=False)
        self.tracer = self.provider.get_tracer("test")

    def middleware(self, **options: Any) -> OpenTelemetryMiddleware:
        return OpenTelemetryMiddleware(tracer_provider=self.provider, meter_provider=self.meters, **options)

    def spans(self, name: str = "", task: str = "") -> list[ReadableSpan]:
        """Returns the spans that have ended, in the order of their beginning."""
        found = [
            span
            for span in self.exporter.get_finished_spans()
            if span.name.startswith(name) and task in {"", span.attributes.get("asyncq.task")}
        ]
        return sorted(found, key=lambda span: span.start_time)

    def one(self, name: str, task: str = "") -> ReadableSpan:
        [span] = self.spans(name, task)
        return span

    def measured(self) -> dict[str, list[Any]]:
        """Returns the points of each instrument."""
        data = self.reader.get_metrics_data()
        return {
            metric.name: list(metric.data.data_points)
            for resource in data.resource_metrics
            for scope in resource.scope_metrics
            for metric in scope.metrics
        }


@pytest.fixture
def traced() -> Iterator[Traced]:
    traced = Traced()
    yield traced
    traced.provider.shutdown()
    traced.meters.shutdown()


def _is_child(span: ReadableSpan, parent: ReadableSpan) -> bool:
    return (
        span.parent is not None
        and span.parent.span_id == parent.context.span_id
        and span.context.trace_id == parent.context.trace_id
    )


@pytest.fixture
def work(app):
    """Tasks: one that starts another one, and the two halves of a chord."""

    @app.task(name="part")
    async def part(x: int) -> int:
        return x

    @app.task(name="start")
    async def start() -> str:
        return (await part.delay(1)).id

    @app.task(name="total")
    async def total(values: list[int]) -> int:
        return sum(values)

    return part, start, total


async def test_one_trace_goes_from_the_caller_over_its_job_to_the_children_of_the_job(app, traced, work):
    _, start, _ = work
    app.add_middleware(traced.middleware())
    async with Worker(app) as worker:
        with traced.tracer.start_as_current_span("request"):
            child = await start.call()
        await until(lambda: len(traced.spans()) == 5, "all spans to end")
    request, sent, ran = traced.one("request"), traced.one("send", "start"), traced.one("process", "start")
    sent_child, ran_child = traced.one("send", "part"), traced.one("process", "part")
    assert _is_child(sent, request)
    assert _is_child(ran, sent)
    assert _is_child(sent_child, ran)
    assert _is_child(ran_child, sent_child)
    assert [span.kind for span in (sent, ran)] == [SpanKind.PRODUCER, SpanKind.CONSUMER]
    assert [span.name for span in (sent, ran)] == ["send default", "process default"]
    assert not any(span.links for span in traced.spans())
    common = {"messaging.system": "asyncq", "messaging.destination.name": "default"}
    assert dict(sent_child.attributes) == common | {
        "messaging.operation.name": "send",
        "messaging.operation.type": "send",
        "messaging.message.id": child,
        "asyncq.task": "part",
    }
    assert dict(ran_child.attributes) == common | {
        "messaging.operation.name": "process",
        "messaging.operation.type": "process",
        "messaging.message.id": child,
        "messaging.message.conversation_id": ran.attributes["messaging.message.id"],
        "messaging.client.id": worker.name,
        "asyncq.task": "part",
        "asyncq.attempt": 1,
    }
    assert sent.instrumentation_scope.name == "asyncq"


async def test_all_jobs_of_a_chord_are_in_the_trace_of_the_code_that_sent_it(app, traced, work):
    part, _, total = work
    app.add_middleware(traced.middleware())
    async with Worker(app):
        with traced.tracer.start_as_current_span("request"):
            assert await (group(part.s(1), part.s(2)) | total.s()).call() == 3
        await until(lambda: len(traced.spans()) == 7, "all spans to end")
    request = traced.one("request")
    sent = {span.attributes["messaging.message.id"]: span for span in traced.spans("send")}
    assert all(_is_child(span, request) for span in sent.values())
    ran = traced.spans("process")
    assert sorted(span.attributes["asyncq.task"] for span in ran) == ["part", "part", "total"]
    assert all(_is_child(span, sent[span.attributes["messaging.message.id"]]) for span in ran)


@pytest.mark.parametrize(
    "options",
    [{"countdown": 0.01}, {"eta": True}, {"headers": {"scheduled_for": "2026-12-01T00:00:00Z"}}],
    ids=["countdown", "eta", "schedule"],
)
async def test_a_delayed_job_begins_a_trace_that_is_linked_with_the_sender(app, traced, work, options):
    part, *_ = work
    if "eta" in options:
        options = {"eta": datetime.now(UTC) + timedelta(seconds=0.3)}
    app.add_middleware(traced.middleware())
    async with Worker(app):
        with traced.tracer.start_as_current_span("request"):
            result = await part.options(**options).delay(1)
        assert await result.get(timeout=20) == 1
    sent, ran = traced.one("send"), traced.one("process")
    assert _is_child(sent, traced.one("request"))
    assert ran.parent is None
    assert ran.context.trace_id != sent.context.trace_id
    [link] = ran.links
    assert (link.context.trace_id, link.context.span_id) == (sent.context.trace_id, sent.context.span_id)


@pytest.mark.parametrize(("mode", "is_child"), [("child", True), ("link", False)])
async def test_the_trace_mode_decides_for_jobs_of_every_kind(app, traced, work, mode, is_child):
    part, *_ = work
    app.add_middleware(traced.middleware(trace_mode=mode))
    async with Worker(app):
        for countdown in (None, 0.01):
            result = await part.options(countdown=countdown).delay(1)
            assert await result.get(timeout=20) == 1
    assert [bool(span.parent) for span in traced.spans("process")] == [is_child] * 2
    assert [len(span.links) for span in traced.spans("process")] == [0 if is_child else 1] * 2


def test_an_unknown_trace_mode_is_refused():
    with pytest.raises(ValueError, match="trace_mode='parent': use"):
        OpenTelemetryMiddleware(trace_mode="parent")


async def test_a_failed_attempt_is_an_error_and_a_job_that_asks_for_another_attempt_or_is_revoked_is_none(
    app, traced, nap
):
    @app.task(name="fails", retry=Retry(max_retries=1, backoff=0.01))
    async def fails() -> None:
        if asyncq.current().attempt == 1:
            raise LookupError("no luck")

    @app.task(name="later")
    async def later() -> int:
        if asyncq.current().attempt == 1:
            raise RetryLater(countdown=0.01)
        return 1

    app.add_middleware(traced.middleware())
    async with Worker(app):
        await fails.call()
        await later.call()
        result = await nap.delay(60)
        await until_state(result, "STARTED")
        await result.revoke(terminate=True, wait=True)
        await until(lambda: traced.spans("process", nap.name), "its span to end")
    first, second = traced.spans("process", "fails")
    assert (first.status.status_code, first.status.description) == (StatusCode.ERROR, "LookupError: no luck")
    assert first.attributes["error.type"] == "LookupError"
    assert [event.name for event in first.events] == ["exception"]
    assert [first.attributes["asyncq.attempt"], second.attributes["asyncq.attempt"]] == [1, 2]
    assert first.parent.span_id == second.parent.span_id
    fine = [second, *traced.spans("process", "later"), *traced.spans("process", nap.name)]
    assert len(fine) == 4
    assert {span.status.status_code for span in fine} == {StatusCode.UNSET}
    assert not any(span.events for span in fine)


async def test_a_refused_enqueue_is_an_error_and_one_that_meets_a_live_job_says_so(app, traced, work):
    part, *_ = work

    class Refusing(asyncq.Middleware):
        async def on_enqueue(self, call: Any, call_next: Any) -> Any:
            if call.args == (0,):
                raise PermissionError("not now")
            return await call_next(call)

    app.add_middleware(traced.middleware())
    app.add_middleware(Refusing())
    with pytest.raises(PermissionError):
        await part.delay(0)
    for _ in range(2):
        await part.options(key="once").delay(1)
    refused, first, second = traced.spans("send")
    assert refused.status.status_code is StatusCode.ERROR
    assert refused.attributes["error.type"] == "PermissionError"
    assert "asyncq.existing_job" not in first.attributes
    assert second.attributes["asyncq.existing_job"] is True


async def test_threads_and_child_processes_are_in_the_trace_and_baggage_arrives(app, traced):
    @app.task(name="thread")
    def in_thread() -> tuple[int, object]:
        return trace.get_current_span().get_span_context().span_id, baggage.get_baggage("tenant")

    in_process = app.task(name="process", executor="process")(process_bodies.headers)
    app.add_middleware(traced.middleware())
    token = context.attach(baggage.set_baggage("tenant", "ada"))
    try:
        async with Worker(app):
            span_id, tenant = await in_thread.call()
            headers = await in_process.call()
    finally:
        context.detach(token)
    assert (span_id, tenant) == (traced.one("process", "thread").context.span_id, "ada")
    span = traced.one("process", "process").context
    assert headers["traceparent"].split("-")[1:3] == [f"{span.trace_id:032x}", f"{span.span_id:016x}"]
    assert headers["baggage"] == "tenant=ada"


async def test_jobs_of_a_sender_without_traces_and_with_strange_headers_run(app, traced, work):
    part, *_ = work
    async with Worker(app):
        result = await part.options(countdown=0.05, headers={"traceparent": 7, "baggage": [1]}).delay(1)
        plain = await part.options(countdown=0.05).delay(2)
        app.add_middleware(traced.middleware())
        assert [await result.get(timeout=20), await plain.get(timeout=20)] == [1, 2]
    assert [span.parent for span in traced.spans("process")] == [None, None]
    assert (await asyncio.to_thread(part.apply, (3,))).result == 3
    ran = traced.spans("process")[-1]
    assert "messaging.client.id" not in ran.attributes
    assert not trace.get_current_span().get_span_context().is_valid


async def test_sends_and_attempts_are_measured_by_the_names_of_the_conventions(app, traced, work):
    part, *_ = work

    @app.task(name="fails")
    async def fails() -> None:
        raise LookupError

    app.add_middleware(traced.middleware())
    async with Worker(app):
        for x in range(3):
            await part.call(x)
        await (await fails.delay()).outcome(timeout=20)
    measured = traced.measured()
    base = {"messaging.system": "asyncq", "messaging.destination.name": "default", "asyncq.task": "part"}
    sends = base | {"messaging.operation.name": "send", "messaging.operation.type": "send"}
    runs = base | {"messaging.operation.name": "process", "messaging.operation.type": "process"}
    failed = runs | {"asyncq.task": "fails", "error.type": "LookupError"}
    assert _values(measured["messaging.client.sent.messages"], sends) == [3]
    assert _values(measured["messaging.client.consumed.messages"], runs) == [3]
    assert _values(measured["messaging.client.consumed.messages"], failed) == [1]
    [durations] = [point for point in measured["messaging.process.duration"] if point.attributes == runs]
    assert durations.count == 3
    assert durations.explicit_bounds[0] == 0.005
    assert 0 < durations.sum < 20
    [durations] = [
        point for point in measured["messaging.client.operation.duration"] if point.attributes == sends
    ]
    assert durations.count == 3


def _values(points: list[Any], attributes: dict[str, str]) -> list[int]:
    return [point.value for point in points if dict(point.attributes) == attributes]


async def test_the_json_log_names_the_trace_of_each_record_about_a_job(app, traced, root_logger):
    own = logging.getLogger("shop.mail")

    @app.task(name="fails")
    async def fails() -> None:
        own.warning("about to fail")
        with traced.tracer.start_as_current_span("inner"):
            own.warning("inside")
        raise LookupError("no luck")

    stream = io.StringIO()
    handler = logging.StreamHandler(stream)
    handler.setFormatter(logs.JsonFormatter())
    root_logger.addHandler(handler)
    own.warning("outside of everything")
    app.add_middleware(traced.middleware())
    async with AsyncExitStack() as stack:
        with traced.tracer.start_as_current_span("service"):
            await stack.enter_async_context(Worker(app))
        await (await fails.delay()).outcome(timeout=20)
    outside, *records = [json.loads(line) for line in stream.getvalue().splitlines()]
    assert "trace_id" not in outside
    ran, inner = traced.one("process").context, traced.one("inner").context
    shown = [(record["message"], record["span_id"]) for record in records if "span_id" in record]
    about_to_fail, inside, failed = shown
    assert about_to_fail == ("about to fail", f"{ran.span_id:016x}")
    assert inside == ("inside", f"{inner.span_id:016x}")
    assert "failed after" in failed[0]
    assert failed[1] == f"{ran.span_id:016x}"
    assert {r["trace_id"] for r in records if "trace_id" in r} == {f"{ran.trace_id:032x}"}


class Collector(ThreadingHTTPServer):
    """An OTLP collector that keeps what it receives."""

    def __init__(self) -> None:
        self.spans: list[Any] = []
        super().__init__(("127.0.0.1", 0), _Receiver)


class _Receiver(BaseHTTPRequestHandler):
    server: Collector

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        if self.headers.get("Content-Encoding") == "gzip":
            body = gzip.decompress(body)
        request = ExportTraceServiceRequest.FromString(body)
        for resource in request.resource_spans:
            for scope in resource.scope_spans:
                self.server.spans += scope.spans
        self.send_response(200)
        self.send_header("Content-Type", "application/x-protobuf")
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *_: Any) -> None: ...


@pytest.fixture
def collector() -> Iterator[Collector]:
    server = Collector()
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    yield server
    server.shutdown()
    server.server_close()
    thread.join()


async def test_a_trace_arrives_at_a_collector_over_otlp(app, traced, work, collector):
    _, start, _ = work
    exporter = OTLPSpanExporter(endpoint=f"http://127.0.0.1:{collector.server_port}/v1/traces")
    traced.provider.add_span_processor(BatchSpanProcessor(exporter))
    app.add_middleware(traced.middleware())
    async with Worker(app):
        await start.call()
        await until(lambda: len(traced.spans("process")) == 2, "all spans to end")
    await asyncio.to_thread(traced.provider.shutdown)
    spans = collector.spans
    assert sorted(span.name for span in spans) == ["process default"] * 2 + ["send default"] * 2
    assert len({span.trace_id for span in spans}) == 1
    by_id = {span.span_id: span for span in spans}
    chain = [span for span in spans if not span.parent_span_id]
    while following := [span for span in spans if by_id.get(span.parent_span_id) is chain[-1]]:
        chain += following
    kinds = ["SPAN_KIND_PRODUCER", "SPAN_KIND_CONSUMER"] * 2
    assert [span.SpanKind.Name(span.kind) for span in chain] == kinds
