"""`asyncq worker --metrics-port`: scraped by a real HTTP client, from one worker and from several."""

from __future__ import annotations

import asyncio
import os
import re
import signal
import socket
import sys
from typing import TYPE_CHECKING

import httpx
import pytest
from helpers.error_output import until_line
from helpers.own_server import free_port
from helpers.waiting import until
from prometheus_client.parser import text_string_to_metric_families

if TYPE_CHECKING:
    from collections.abc import Callable

    from helpers.forked import Forked

pytestmark = pytest.mark.anyio

TASKS = """
from asyncq import AsyncQ
from prometheus_client import Counter, Gauge

app = AsyncQ(lease=2)
sold = Counter("shop_sold", "Things that were sold.")
shops = Gauge("shop_open", "Processes that sell.", multiprocess_mode="livesum")
shops.set(1)

@app.task(name="sell")
async def sell(count: int) -> int:
    sold.inc(count)
    return count
"""


@pytest.fixture
def sell(app):
    """A stand-in for the task, on the test's app."""

    @app.task(name="sell")
    async def sell(count: int) -> int: ...

    return sell


@pytest.fixture
def start(project, server_url, namespace) -> Callable[..., tuple[int, Forked]]:
    """Starts workers with metrics. When they are ready, returns their port and their process."""
    project.write("shop.py", TASKS)

    def start(*words: str) -> tuple[int, Forked]:
        port = free_port()
        served = {"ASYNCQ_URL": server_url, "ASYNCQ_NAMESPACE": namespace}
        process = project.start("worker", "shop", "--metrics-port", str(port), *words, **served)
        process.banner = until_line(process, "ready")
        assert f"http://0.0.0.0:{port}/metrics" in process.banner
        return port, process

    return start


async def _scraped(port: int) -> dict[tuple[str, ...], float]:
    async with httpx.AsyncClient() as client:
        response = await client.get(f"http://127.0.0.1:{port}/metrics")
    assert response.status_code == 200
    assert response.headers["content-type"].startswith("text/plain")
    samples = [
        sample for family in text_string_to_metric_families(response.text) for sample in family.samples
    ]
    keys = [(sample.name, *sorted(sample.labels.values())) for sample in samples]
    assert len(set(keys)) == len(keys), "a sample is there twice"
    return {key: sample.value for key, sample in zip(keys, samples, strict=True)}


DONE = ("asyncq_jobs_total", "SUCCESS", "default", "sell")
DEPTH = ("asyncq_queue_depth", "default")


async def test_a_worker_serves_what_it_has_counted_and_what_waits(app, sell, start):
    port, _ = start()

    async def has(key: tuple[str, ...], value: float) -> bool:
        return (await _scraped(port)).get(key) == value

    await until(lambda: has(DEPTH, 0), "the queue to be measured")
    await (await sell.map([(2,)] * 5)).get(timeout=30)
    await until(lambda: has(DONE, 5), "the jobs to be counted")
    found = await _scraped(port)
    assert found["shop_sold_total",] == 10, "what the app counts itself"
    assert found["asyncq_workers",] == 1
    assert found["asyncq_job_run_seconds_count", "default", "sell"] == 5
    assert found["process_cpu_seconds_total",] > 0


@pytest.mark.skipif(sys.platform != "linux", reason="signals a worker by its process id")
async def test_the_supervisor_of_several_workers_serves_the_metrics_of_all_and_of_those_that_have_died(
    app, sell, start
):
    port, process = start("--workers", "2")
    first, _ = (int(pid) for pid in re.findall(r"\(pid (\d+)\)", process.banner))

    async def has(key: tuple[str, ...], value: float) -> bool:
        return (await _scraped(port)).get(key) == value

    await until(lambda: has(DEPTH, 0), "the queue to be measured")
    await (await sell.map([(1,)] * 20)).get(timeout=30)
    await until(lambda: has(DONE, 20), "all jobs to be counted")
    found = await _scraped(port)
    assert len([key for key in found if key[0] == "asyncq_queue_depth"]) == 1
    assert found["shop_open",] == 2
    os.kill(first, signal.SIGKILL)
    await asyncio.to_thread(until_line, process, "runs again")
    await (await sell.map([(1,)] * 20)).get(timeout=30)
    await until(lambda: has(DONE, 40), "the other jobs to be counted")
    found = await _scraped(port)
    assert found["shop_sold_total",] == 40
    assert found["shop_open",] == 2, "the gauge of a process that has died does not count"


async def test_a_port_in_use_is_an_error_in_one_line(project, server_url):
    with socket.socket() as other:
        other.bind(("0.0.0.0", 0))
        other.listen()
        port = other.getsockname()[1]
        for words in ((), ("-w", "2")):
            ended = project.run("worker", "shop", "--metrics-port", str(port), *words, ASYNCQ_URL=server_url)
            assert ended.code == 1
            assert f"--metrics-port {port}: Address already in use" in ended.err
            assert "Traceback" not in ended.err


async def test_without_prometheus_client_the_error_says_what_to_install(project, server_url):
    project.write("prometheus_client.py", "raise ImportError('not here')")
    ended = project.run("worker", "shop", "--metrics-port", "9100", ASYNCQ_URL=server_url)
    assert ended.code == 78
    assert "pip install 'asyncq[prometheus]'" in ended.err
