"""Metrics for Prometheus, read as a scrape would read them."""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING

import pytest
from helpers.waiting import until, until_state
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.parser import text_string_to_metric_families

import asyncq
from asyncq import Retry, Worker
from asyncq.integrations import prometheus
from asyncq.integrations.prometheus import PrometheusMiddleware, report_queues

if TYPE_CHECKING:
    from collections.abc import Mapping

pytestmark = pytest.mark.anyio


class Scraped:
    """What a registry shows now."""

    def __init__(self, registry: CollectorRegistry) -> None:
        text = generate_latest(registry).decode()
        self.samples = [
            sample for family in text_string_to_metric_families(text) for sample in family.samples
        ]

    def value(self, name: str, **labels: str) -> float | None:
        found = [sample.value for sample in self.samples if sample.name == name and sample.labels == labels]
        return found[0] if found else None

    def labels(self, name: str) -> list[Mapping[str, str]]:
        return [sample.labels for sample in self.samples if sample.name == name]


@pytest.fixture
def registry() -> CollectorRegistry:
    return CollectorRegistry()


async def test_each_end_of_an_attempt_is_counted_once_by_its_state(app, registry, nap):
    app.add_middleware(PrometheusMiddleware(registry=registry))

    @app.task(name="works")
    async def works() -> None: ...

    @app.task(name="fails", retry=Retry(max_retries=2, backoff=0.01))
    async def fails() -> None:
        raise LookupError

    async with Worker(app):
        await asyncio.gather(*(works.call() for _ in range(5)))
        await (await fails.delay()).outcome(timeout=20)
        result = await nap.delay(60)
        await until_state(result, "STARTED")
        await result.revoke(terminate=True, wait=True)
        await until(lambda: _count(registry, nap.name, "REVOKED") == 1, "the revocation to be counted")
    assert _count(registry, "works", "SUCCESS") == 5
    assert _count(registry, "fails", "RETRY") == 2
    assert _count(registry, "fails", "FAILURE") == 1
    assert len(Scraped(registry).labels("asyncq_jobs_total")) == 4


def _count(registry: CollectorRegistry, task: str, state: str) -> float | None:
    return Scraped(registry).value("asyncq_jobs_total", task=task, queue="default", state=state)


async def test_waits_runs_and_results_are_timed(app, registry, nap):
    app.add_middleware(PrometheusMiddleware(registry=registry))
    labels = {"task": nap.name, "queue": "default"}
    result = await nap.delay(0.2)
    enqueued = time.monotonic()
    await until(lambda: time.monotonic() - enqueued > 0.3, "the job to have waited")
    async with Worker(app):
        await result.get(timeout=20)
        await until(lambda: _count(registry, nap.name, "SUCCESS") == 1, "it to be counted")
    scraped = Scraped(registry)
    times = {
        name: scraped.value(f"asyncq_{name}_seconds_sum", **labels)
        for name in ("job_wait", "job_run", "result_latency")
    }
    assert 0.25 <= times["job_wait"] < 20
    assert 0.2 <= times["job_run"] < 20
    assert 0.5 <= times["result_latency"] < 40
    assert scraped.value("asyncq_job_wait_seconds_count", **labels) == 1
    assert scraped.value("asyncq_job_wait_seconds_bucket", **labels, le="0.1") == 0
    assert scraped.value("asyncq_job_run_seconds_bucket", **labels, le="+Inf") == 1


async def test_the_wait_of_a_delayed_job_begins_when_it_is_due(app, registry, add):
    app.add_middleware(PrometheusMiddleware(registry=registry))
    async with Worker(app):
        result = await add.options(countdown=1).delay(1, 2)
        assert await result.get(timeout=20) == 3
    wait = Scraped(registry).value("asyncq_job_wait_seconds_sum", task=add.name, queue="default")
    assert wait < 0.9


async def test_unknown_names_of_tasks_share_a_label(app, registry):
    app.add_middleware(PrometheusMiddleware(registry=registry))
    async with Worker(app):
        for number in range(3):
            await (await app.send(f"no such task {number}")).outcome(timeout=20)
        await until(lambda: _count(registry, "other", "FAILURE") == 3, "all to be counted")
    assert len(Scraped(registry).labels("asyncq_jobs_total")) == 1


async def test_several_apps_count_into_one_registry_and_calls_here_do_not_wait(app, make_app, registry, add):
    for each in (app, make_app()):
        each.add_middleware(PrometheusMiddleware(registry=registry))
    assert (await asyncio.to_thread(add.apply, (1, 2))).result == 3
    scraped = Scraped(registry)
    assert scraped.value("asyncq_job_run_seconds_count", task=add.name, queue="default") == 1
    assert scraped.labels("asyncq_job_wait_seconds_count") == []


async def test_the_middleware_is_added_to_an_app_that_has_none(make_app):
    app = make_app()
    prometheus.add_if_missing(app)
    prometheus.add_if_missing(app)
    assert len(app.run_hooks) == 1


async def test_of_two_workers_one_reports_each_queue_and_the_other_one_follows_it(app, make_app, add):
    registries = [CollectorRegistry(), CollectorRegistry()]
    await add.map([(1, 2), (3, 4), (5, 6)])
    async with report_queues(app, every=0.5, registry=registries[0]):
        await until(lambda: _depth(registries[0]) == 3, "the first to report")
        await until(lambda: _oldest(registries[0]), "the jobs to have waited")
        second = asyncio.ensure_future(_report(make_app(), registries[1]))
        other = CollectorRegistry()
        async with report_queues(app, queues=["mail"], every=0.1, registry=other):
            await until(lambda: _depth(other, "mail") == 0, "a queue that nobody else reports")
        assert _depth(registries[1]) is None
        assert Scraped(registries[1]).labels("asyncq_workers") == []
        scraped = Scraped(registries[0])
        values = [scraped.value(f"asyncq_{name}") for name in ("workers", "dead_jobs", "embedded")]
        assert values == [0, 0, 0]
    assert _depth(registries[0]) is None
    await until(lambda: _depth(registries[1]) == 3, "the second to follow")
    second.cancel()
    await asyncio.wait({second})


async def _report(app: asyncq.AsyncQ, registry: CollectorRegistry) -> None:
    async with report_queues(app, every=0.5, registry=registry):
        await asyncio.Event().wait()


def _depth(registry: CollectorRegistry, queue: str = "default") -> float | None:
    return Scraped(registry).value("asyncq_queue_depth", queue=queue)


def _oldest(registry: CollectorRegistry) -> float | None:
    return Scraped(registry).value("asyncq_queue_oldest_seconds", queue="default")


async def test_figures_that_grow_old_are_not_shown(app, registry, monkeypatch):
    async with report_queues(app, every=0.1, registry=registry):
        await until(lambda: _depth(registry) == 0, "a measurement")

        async def fail(_: object) -> None:
            raise asyncq.BrokerUnavailable("gone")

        monkeypatch.setattr(prometheus.QueueMeter, "measure", fail)
        await until(lambda: _depth(registry) is None, "the figures to grow old")
        monkeypatch.undo()
        await until(lambda: _depth(registry) == 0, "another measurement")


async def test_a_wrong_interval_and_a_second_block_on_a_registry_are_refused(app, registry):
    with pytest.raises(ValueError, match="every"):
        async with report_queues(app, every=-1, registry=registry):
            ...
    async with report_queues(app, registry=registry):
        with pytest.raises(ValueError, match="asyncq_queue_depth"):
            async with report_queues(app, registry=registry):
                ...
