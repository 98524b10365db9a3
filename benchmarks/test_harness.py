"""Tests of the measuring tools. Run them with `pytest benchmarks`."""

import asyncio
import random
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace

import pytest

sys.path.insert(0, str(Path(__file__).parent))

import floor
import profiled
import redis
import report
import server
from adapters.raw import Raw
from latency import OneInFlight
from load import OpenLoop
from system import load, wait_until
from throughput import Drain

from asyncq.cli.bench.histogram import Histogram
from asyncq.cli.bench.load_generator import generate_load


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    with server.running() as url:
        yield url


@pytest.mark.parametrize("ns", [0, 1, 127, 128, 129, 255, 256, 511, 512, 1_000_003, (1 << 39) + 12345])
def test_a_single_duration_has_a_quantile_within_one_percent_and_an_exact_maximum(ns: int) -> None:
    histogram = Histogram()
    histogram.record(ns)
    assert histogram.quantile(1.0) == ns
    assert ns * 0.99 <= histogram.quantile(0.001) <= ns


def test_quantiles_agree_with_the_sorted_sample_within_one_percent() -> None:
    draw = random.Random(7)
    sample = [int(draw.lognormvariate(13, 1.5)) for _ in range(20_000)]
    histogram = Histogram()
    for ns in sample:
        histogram.record(ns)
    exact = statistics.quantiles(sample, n=100)
    for percent in (1, 10, 50, 90, 99):
        assert histogram.quantile(percent / 100) == pytest.approx(exact[percent - 1], rel=0.01)


def test_a_merged_histogram_equals_one_with_all_records() -> None:
    parts, whole = [Histogram(), Histogram()], Histogram()
    for number in range(1000):
        parts[number % 2].record(number * number)
        whole.record(number * number)
    parts[0].merge(parts[1])
    assert parts[0].to_json() == whole.to_json()
    assert Histogram.from_json(whole.to_json()).to_json() == whole.to_json()


def test_a_duration_beyond_the_range_is_counted_with_its_true_length() -> None:
    histogram = Histogram()
    histogram.record(1)
    histogram.record(1 << 50)
    assert histogram.max_ns == 1 << 50
    assert histogram.quantile(1.0) >= (1 << 39)


def test_a_negative_duration_is_refused() -> None:
    with pytest.raises(ValueError, match="before the start"):
        Histogram().record(-1)


@pytest.mark.anyio
async def test_arrivals_that_a_blocked_loop_missed_keep_their_own_due_times() -> None:
    due: list[int] = []
    done = asyncio.Event()

    def arrive(ns: int) -> None:
        if not due:
            time.sleep(0.05)  # blocks the loop for 50 arrivals
        due.append(ns)
        if len(due) == 200:
            done.set()

    with generate_load(1000, 200, arrive) as last:
        await asyncio.wait_for(done.wait(), 5)
        assert time.monotonic_ns() >= last
    assert [later - earlier for earlier, later in pairwise(due)] == [1_000_000] * 199
    assert due[-1] == last


class _Stalling:
    """A client on this loop that answers at once, but blocks for a while in the middle."""

    def __init__(self, at: int, seconds: float) -> None:
        self.calls = 0
        self.at = at
        self.seconds = seconds

    async def delay(self) -> SimpleNamespace:
        self.calls += 1
        if self.calls == self.at:
            time.sleep(self.seconds)  # noqa: ASYNC251  the figures must show this stall
        return SimpleNamespace(id="")

    async def value(self, _handle: object) -> None:
        return

    async def map(self, count: int) -> list[SimpleNamespace]:
        return [await self.delay() for _ in range(count)]

    async def stored(self, job_id: str) -> bool:
        return not job_id


@pytest.mark.anyio
async def test_a_stall_counts_in_the_latency_of_every_job_that_was_due_meanwhile() -> None:
    scenario = OpenLoop(rate=1000, seconds=0.5)
    histogram, unanswered, _ = await scenario.phase(_Stalling(at=200, seconds=0.2), 0.5)
    assert not unanswered
    assert histogram.count == 500
    # 200 of 500 jobs fell due in those 0.2 s; a clock started at the sending would have seen one slow job.
    assert histogram.ms(0.75) > 50
    assert histogram.ms(0.25) < 50


@pytest.mark.anyio
async def test_jobs_that_never_end_are_counted_with_the_time_they_waited() -> None:
    class Losing(_Stalling):
        async def value(self, _handle: object) -> None:
            await asyncio.Event().wait()

    scenario = OpenLoop(rate=1000, seconds=0.1, timeout=0.3)
    histogram, unanswered, behind = await scenario.phase(Losing(at=-1, seconds=0), 0.1)
    assert unanswered == histogram.count == 100
    assert histogram.ms(0.01) >= 300
    assert behind >= 0.3


@pytest.mark.anyio
async def test_a_failing_job_fails_the_run_at_once() -> None:
    class Failing(_Stalling):
        async def value(self, _handle: object) -> None:
            raise LookupError("no such job")

    started = time.monotonic()
    with pytest.raises(LookupError, match="no such job"):
        await OpenLoop(rate=1000, seconds=0.1).phase(Failing(at=-1, seconds=0), 0.1)
    assert time.monotonic() - started < 5


@pytest.mark.anyio
async def test_a_backlog_whose_results_were_not_stored_fails_the_run(
    url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Forgetful(floor.Client):
        async def stored(self, job_id: str) -> bool:
            return not await super().stored(job_id)

    monkeypatch.setattr(floor, "Client", Forgetful)
    with redis.Redis.from_url(url) as client:
        client.flushall()
    with pytest.raises(RuntimeError, match="no stored result"):
        await Drain(jobs=1000).run(Raw(), url)


@pytest.mark.anyio
async def test_a_worker_that_ends_by_itself_fails_the_run_at_once(url: str) -> None:
    class Broken(Raw):
        def worker(self, _url: str) -> list[str]:
            return [sys.executable, "-c", "raise SystemExit(7)"]

    started = time.monotonic()
    with pytest.raises(RuntimeError, match="the worker of raw ended by itself: exit code 7"):
        await OneInFlight(jobs=1).run(Broken(), url)
    assert time.monotonic() - started < 5


def test_commands_inside_scripts_count_as_used_but_not_as_sent(url: str) -> None:
    def send() -> None:
        with redis.Redis.from_url(url) as client:
            wait_until(lambda: _watched(client), within=5, what="MONITOR is on")
            for _ in range(3):
                client.eval("redis.call('INCR', KEYS[1]) return redis.call('INCR', KEYS[1])", 1, "k")

    with redis.Redis.from_url(url) as client, ThreadPoolExecutor() as pool:
        before = server.Usage.read(client)
        talking = pool.submit(send)
        sent = server.sent_within(url, 0.5)
        talking.result(5)
        spent = server.Usage.read(client).since(before)
    assert (sent["eval"], sent["incr"]) == (3, 0)
    assert (spent.commands["eval"], spent.commands["incr"]) == (3, 6)
    assert spent.cpu > 0


def _watched(client: redis.Redis) -> bool:
    return any("O" in row["flags"] for row in client.client_list())


def test_the_server_ends_with_a_harness_that_was_killed() -> None:
    script = f"import sys; sys.path.insert(0, {str(Path(server.__file__).parent)!r})\n" + _HOLDER
    harness = subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE)
    assert harness.stdout
    url = harness.stdout.readline().decode().strip()
    with redis.Redis.from_url(url) as client:
        assert client.ping()
    harness.kill()
    harness.wait(5)
    harness.stdout.close()
    wait_until(lambda: not _alive(url), within=5, what="the server is gone")


_HOLDER = """
import server, time
with server.running() as url:
    print(url, flush=True)
    time.sleep(60)
"""


def _alive(url: str) -> bool:
    with redis.Redis.from_url(url) as client, suppress(redis.ConnectionError):
        return bool(client.ping())
    return False


def test_other_busy_processes_are_measured() -> None:
    neighbour = subprocess.Popen([sys.executable, "-c", "while True: pass"])
    try:
        wait_until(lambda: report.busy_cores(0.2) > 0.5, within=5, what="one core is busy")
    finally:
        neighbour.kill()
        neighbour.wait(5)


def test_the_table_compares_each_round_with_the_floor_of_the_same_round() -> None:
    runs = [
        {"round": number, "system": name, "scenario": "closed", "figures": {"closed.p50_ms": value}}
        for number, name, value in [(1, "raw", 1.0), (1, "x", 3.0), (2, "raw", 2.0), (2, "x", 4.0)]
    ]
    runs.append({"round": 2, "system": "x", "scenario": "drain", "error": "it fell over"})
    about = {
        "date": "d",
        "command": "c",
        "cores": 1,
        "cpu": "c",
        "system": "s",
        "python": "p",
    }
    page = report.render(about | {"server": "v", "libraries": {}}, ["raw", "x"], runs)
    line = next(line for line in page.splitlines() if "p50" in line)
    assert line.endswith("| <= 0.45 | 1.5 (1-2) | 3.5 (3-4) **missed** | 2.50 |")
    assert page.endswith("- x, drain, round 2: `it fell over`\n")


def test_a_profile_shows_the_work_of_client_and_worker_and_no_path_of_this_machine(
    url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with redis.Redis.from_url(url) as client:
        client.flushall()
    monkeypatch.setitem(profiled.JOBS, "drain", 12_000)
    scenario, tested_system = Drain(jobs=12_000), profiled.Profiled(load("asyncq"), tmp_path)
    measured = profiled.run(lambda: scenario.run(tested_system, url), tmp_path)
    assert measured.figures["drain.jobs_per_s"] > 0
    client_part, worker_part = profiled.page("drain", tmp_path).split("## drain: worker")
    assert "announce (asyncq/broker/waiters.py:" in client_part
    assert "_run (asyncq/worker/attempt.py:" in worker_part
    assert "12,000 jobs" in worker_part
    assert str(Path(__file__).parents[1]) not in client_part + worker_part
    assert "site-packages" not in client_part + worker_part
