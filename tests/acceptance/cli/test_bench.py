"""`asyncq bench`: small runs of the real thing, and its clockwork."""

import asyncio
import itertools
import json
import time

import pytest

from asyncq.cli.bench.histogram import Histogram
from asyncq.cli.bench.load_generator import generate_load
from asyncq.cli.bench.report import bars


def test_latency_counts_every_job_and_cleans_up(project):
    words = ("--rate", "200/s", "--duration", "500ms", "--warmup", "100ms", "--save", "run.json", "--json")
    ended = project.run("bench", "latency", *words, "-q")
    assert ended.code == 0, ended
    report = json.loads(ended.out)
    assert report == json.loads((project.folder / "run.json").read_text())
    assert (report["lost"], report["result"]["histogram"]["count"]) == (0, 100)
    assert 0 < report["enqueue"]["p50_ms"] <= report["result"]["p50_ms"] <= report["result"]["max_ms"]
    server = project.start("server", "run")
    server.stdout.readline()
    assert json.loads(project.run("server", "status", "--json").out)["keys"] == 0


def test_throughput_reports_each_part(project):
    ended = project.run("bench", "throughput", "--jobs", "2000", "-q")
    assert ended.code == 0, ended
    head, *lines = ended.out.splitlines()
    assert head.startswith("2,000 jobs, payload 200 B, 1 worker process, embedded Valkey ")
    assert [line.split("  ")[1] for line in lines] == [
        "enqueue in batches",
        "drain of a backlog",
        "100 in flight",
        "one of these",
    ]


def test_a_benchmark_without_a_worker_ends_with_an_error(project):
    ended = project.run("bench", "latency", "--no-worker", "-q", ASYNCQ_URL="memory://")
    assert (ended.code, ended.err.splitlines()[0]) == (1, "error: no worker answers on queue 'default'")


@pytest.mark.anyio
async def test_arrivals_that_a_busy_loop_missed_keep_their_own_due_times():
    dues: list[int] = []
    done = asyncio.Event()

    def arrive(due: int) -> None:
        if not dues:
            time.sleep(0.02)  # the loop is busy for twenty beats
        dues.append(due)
        if len(dues) == 40:
            done.set()

    with generate_load(1000, 40, arrive) as last:
        await asyncio.wait_for(done.wait(), 30)
    assert {after - before for before, after in itertools.pairwise(dues)} == {1_000_000}
    assert dues[-1] == last
    assert time.monotonic_ns() >= last


def test_bars_show_how_the_records_are_distributed():
    times = Histogram()
    for ms, count in ((0.3, 96), (0.9, 48), (3.0, 1)):
        for _ in range(count):
            times.record(int(ms * 1e6))
    assert bars(times) == "<0.5 ████████████  <1 ██████  <2  <4 ▏   (ms)"
