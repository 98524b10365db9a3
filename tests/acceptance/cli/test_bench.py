"""`asyncq bench`: small runs of the real thing, and its clockwork."""

import asyncio
import itertools
import json
import time
from xml.etree import ElementTree as ET

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


def test_load_finds_the_rate_that_was_kept_up_and_draws_a_page(project):
    words = ("--from", "50/s", "--to", "200/s", "--steps", "2", "--duration", "400ms", "--warmup", "0s")
    ended = project.run("bench", "load", *words, "--blocks", "2", "--html", "load.html", "--json", "-q")
    assert ended.code == 0, ended
    report = json.loads(ended.out)
    assert (report["schema"], report["command"], report["kept_up_per_s"]) == (1, "load", 200)
    assert [(step["rate"], step["kept_up_blocks"], step["lost"]) for step in report["steps"]] == [
        (50, 2, 0),
        (200, 2, 0),
    ]
    assert [step["result"]["histogram"]["count"] for step in report["steps"]] == [20, 80]
    page = ET.fromstring((project.folder / "load.html").read_text().removeprefix("<!DOCTYPE html>\n"))
    assert "Kept up with: 200 jobs/s" in "".join(page.itertext())


def test_load_stops_at_a_rate_that_is_not_kept_up_and_fails_if_it_is_the_lowest(project):
    words = ("--from", "20/s", "--to", "40/s", "--steps", "2", "--duration", "200ms", "--warmup", "0s")
    # No job is answered within a microsecond.
    ended = project.run("bench", "load", *words, "--blocks", "1", "--p99", "0.000001", "-q")
    assert ended.code == 1, ended
    assert ended.out.splitlines()[-1] == "  kept up: 0 jobs/s"
    assert "40/s " not in ended.out.partition("\n")[2]


def test_a_comparison_with_a_saved_measurement_has_a_verdict_for_each_figure(project):
    """The base claims to be far faster than any machine is. So the verdict does not depend on the machine."""
    words = ("bench", "throughput", "--jobs", "2000", "--blocks", "4", "-q")
    saved = project.run(*words, "--save", "base.json", "--html", "page.html")
    assert saved.code == 0, saved
    base = json.loads((project.folder / "base.json").read_text())
    assert [figure["key"] for figure in base["figures"]][:3] == [
        "enqueue_per_s",
        "drain_per_s",
        "in_flight_per_s",
    ]
    assert {len(figure["blocks"]) for figure in base["figures"]} == {4}
    assert (project.folder / "page.html").read_text().startswith("<!DOCTYPE html>")
    del base["about"]["others"]  # other tests run meanwhile, now more and then less
    for figure in base["figures"]:
        factor = 1000 if figure["more_is_better"] else 0.001
        # More blocks than now: with four beside four, no p is small enough for five figures.
        figure["blocks"] = [value * factor for value in figure["blocks"]] * 3
    project.write("fast.json", json.dumps(base))
    shown, failed = (
        project.run(*words, "--compare", "fast.json", *more)
        for more in (("--json",), ("--fail-if-slower", "--html", "against.html"))
    )
    assert shown.code == 0, shown
    verdicts = json.loads(shown.out)["comparison"]["verdicts"]
    assert [each["verdict"] for each in verdicts] == ["slower"] * 5
    assert failed.code == 1, failed
    assert failed.out.count("  slower") == 5
    assert (project.folder / "against.html").read_text().count("slower") >= 5
    # All of the machine was used by others then: nobody knows whose work the difference is.
    base["about"]["others"] = 9.0
    project.write("busy.json", json.dumps(base))
    unknown = project.run(*words, "--compare", "busy.json", "--fail-if-slower")
    assert unknown.code == 0, unknown
    assert unknown.out.count("no difference that the noise allows") == 5
    assert "no verdict, repeat both when it is quiet" in unknown.out


def test_a_comparison_with_something_else_is_refused_before_anything_is_measured(project):
    project.write("load.json", '{"schema": 1, "command": "load"}')
    project.write(
        "other.json", '{"schema": 1, "command": "latency", "about": {}, "parameters": {}, "figures": []}'
    )
    words = ("bench", "latency", "--compare")
    other, missing, parameters, nothing = project.run_each(
        (*words, "load.json"),
        (*words, "none.json"),
        (*words, "other.json"),
        ("bench", "latency", "--fail-if-slower"),
    )
    assert {each.code for each in (other, missing, parameters, nothing)} == {2}
    first = "error: load.json was saved by `asyncq bench load`, and this is `asyncq bench latency`"
    assert other.err.splitlines()[0] == first
    assert missing.err.splitlines()[0] == "error: cannot read none.json: No such file or directory"
    assert "other.json was measured with rate None, and this is rate 500" in parameters.err
    assert "add --compare FILE" in nothing.err


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
