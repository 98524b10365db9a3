"""Tests of the measuring tools. Run them with `pytest benchmarks`."""

import asyncio
import json
import os
import random
import re
import statistics
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager, suppress
from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from xml.etree import ElementTree as ET

import pytest

sys.path.insert(0, str(Path(__file__).parent))

import environments
import floor
import grid
import meter as meter_module
import profiled
import redis
import report
import results_page
import run
import server
from adapters.raw import Raw
from arrivals import arriving, poisson
from backlog_growth import QueueGrowth
from curves import growth, medians, paired_growth
from guarantees import Kill
from latency import OneInFlight
from load import Ladder, OpenLoop
from meter import Meter
from scenario import Measured, Scenario
from store import Store
from system import MISSING, System, load, wait_until
from throughput import Drain
from worker_growth import ManyWorkers

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

    async def delay(self, value: object = 0, task: str = "echo") -> SimpleNamespace:
        self.calls += 1
        if self.calls == self.at:
            time.sleep(self.seconds)  # noqa: ASYNC251  the figures must show this stall
        return SimpleNamespace(id=task, value=value)

    async def value(self, handle: SimpleNamespace) -> object:
        return handle.value

    async def map(self, values: Sequence[object], task: str = "echo") -> list[SimpleNamespace]:
        return [await self.delay(value, task) for value in values]

    async def result(self, _job_id: str) -> object:
        return MISSING

    async def stored(self, job_ids: Sequence[str]) -> int:
        return len(job_ids)


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
        async def stored(self, job_ids: Sequence[str]) -> int:
            return len(job_ids) - await super().stored(job_ids)

    monkeypatch.setattr(floor, "Client", Forgetful)
    with redis.Redis.from_url(url) as client:
        server.empty(client)
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
        wait_until(
            lambda: _share_of_others(0.3) > 0.5 / (os.cpu_count() or 1), within=5, what="one core is busy"
        )
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
    assert line.endswith("| ratio <= 1.65 | 1.5 (1-2) | 3.5 (3-4) | 2.50 **missed** |")
    assert page.endswith("- x, drain, round 2: `it fell over`\n")


def test_a_profile_shows_the_work_of_client_and_worker_and_no_path_of_this_machine(
    url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with redis.Redis.from_url(url) as client:
        server.empty(client)
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


def _share_of_others(seconds: float) -> float:
    meter = Meter(list)
    time.sleep(seconds)
    return meter.others()


def test_the_benchmark_s_own_processes_and_servers_are_not_others(url: str) -> None:
    started, busy = time.monotonic(), meter_module.busy_seconds()
    meter = Meter(list)
    subprocess.run([sys.executable, "-c", "import time\nwhile time.process_time() < 1: pass"], check=True)
    others = meter.others() * (os.cpu_count() or 1) * (time.monotonic() - started)
    assert others < meter_module.busy_seconds() - busy - 0.8

    server_id = server.process_id(url)
    meter, without = Meter(lambda: [server_id]), Meter(list)
    with redis.Redis.from_url(url) as client:
        client.eval("local n = 0 for i = 1, 40000000 do n = n + 1 end return n", 0)
    assert meter.others() < without.others()


def test_poisson_arrivals_have_the_mean_rate_and_come_in_clusters() -> None:
    times = poisson(1000, 50_000)
    assert times == sorted(times)
    assert times[-1] / 1e9 == pytest.approx(50, rel=0.02)
    gaps = [later - earlier for earlier, later in pairwise([0, *times])]
    # Of exponential gaps, 1 - 1/e are shorter than the mean, and their deviation is the mean.
    assert sum(gap < 1_000_000 for gap in gaps) / len(gaps) == pytest.approx(0.632, abs=0.01)
    assert statistics.pstdev(gaps) == pytest.approx(1_000_000, rel=0.03)
    in_a_window: dict[int, int] = {}
    for at in times:
        in_a_window[at // 10_000_000] = in_a_window.get(at // 10_000_000, 0) + 1
    counts = list(in_a_window.values())
    assert statistics.pvariance(counts) == pytest.approx(statistics.mean(counts), rel=0.1)


def test_every_system_gets_the_same_arrivals() -> None:
    assert poisson(500, 100) == poisson(500, 100)
    assert poisson(500, 100, seed=1) != poisson(500, 100, seed=2)


@pytest.mark.anyio
async def test_poisson_arrivals_that_a_blocked_loop_missed_keep_their_own_due_times() -> None:
    due: list[int] = []
    done = asyncio.Event()
    times = poisson(1000, 200)

    def arrive(ns: int) -> None:
        if not due:
            time.sleep(0.05)  # blocks the loop for some fifty arrivals
        due.append(ns)
        assert time.monotonic_ns() >= ns
        if len(due) == 200:
            done.set()

    with arriving(times, arrive) as last:
        await asyncio.wait_for(done.wait(), 5)
        assert time.monotonic_ns() >= last
    assert [at - due[0] for at in due] == [at - times[0] for at in times]
    assert due[-1] == last


@pytest.mark.anyio
async def test_the_rate_is_not_raised_any_more_when_a_system_does_not_keep_up() -> None:
    class Slow(_Stalling):
        async def delay(self, value: object = 0, task: str = "echo") -> SimpleNamespace:
            time.sleep(0.01)  # noqa: ASYNC251  a hundred jobs a second, and no more
            return await super().delay(value, task)

    class SlowSystem(_OwnWorker):
        @asynccontextmanager
        async def open(self, url: str, callers: int = 1) -> AsyncIterator[Slow]:
            assert (url, callers) == ("", 100)
            yield Slow(at=-1, seconds=0)

    measured = await Ladder(rates=(20, 400, 800), seconds=1.0, warmup=0.1, timeout=0.5).run(SlowSystem(), "")
    assert measured.figures["open20.kept_up"] == 1
    assert measured.figures["open400.kept_up"] == 0
    assert "open800.kept_up" not in measured.figures
    assert measured.figures["open.kept_up_per_s"] == 20


@pytest.mark.anyio
async def test_a_rate_at_which_calls_raise_is_not_kept_up_and_said() -> None:
    class Broken(_Stalling):
        async def delay(self, value: object = 0, task: str = "echo") -> SimpleNamespace:
            if self.calls > 60:
                raise ConnectionError("too many connections")
            return await super().delay(value, task)

    class BrokenSystem(_OwnWorker):
        @asynccontextmanager
        async def open(self, url: str, callers: int = 1) -> AsyncIterator[Broken]:
            assert (url, callers) == ("", 100)
            yield Broken(at=-1, seconds=0)

    measured = await Ladder(rates=(20, 400, 800), seconds=1.0, warmup=0.1, timeout=2.0).run(
        BrokenSystem(), ""
    )
    assert measured.figures["open.kept_up_per_s"] == 20
    assert measured.figures["open400.kept_up"] == 0
    assert "open800.kept_up" not in measured.figures
    run = {"system": "broken", "scenario": "open", "round": 1, **measured.to_json()}
    assert report.raised_under_load([run]) == [
        "broken, round 1, 400 arrivals/s: ConnectionError: too many connections"
    ]


class _OwnWorker(System):
    """A system whose worker does nothing."""

    name = "own"
    promise = ""

    def worker(self, url: str) -> list[str]:
        return [sys.executable, "-c", "import time; time.sleep(60)", url]


@pytest.mark.anyio
async def test_a_job_that_returns_another_value_fails_the_run() -> None:
    class Wrong(_Stalling):
        async def value(self, handle: SimpleNamespace) -> object:
            return (handle.value, "wrong")

    with pytest.raises(RuntimeError, match=r"a job returned \(.*, 'wrong'\), and not"):
        await OpenLoop(rate=1000, seconds=0.1).phase(Wrong(at=-1, seconds=0), 0.1)


@pytest.mark.anyio
async def test_a_system_whose_stream_is_longer_than_its_results_is_measured_by_its_results(url: str) -> None:
    class ByResults(Raw):
        share = 0.1
        empty_streams_mean_stored = False

    with redis.Redis.from_url(url) as client:
        server.empty(client)
    measured = await Drain(jobs=20_000).run(ByResults(), url)
    assert measured.notes["jobs"] == 2_000
    assert measured.figures["drain.jobs_per_s"] > 0


@pytest.mark.anyio
async def test_a_killed_worker_of_the_floor_loses_what_it_ran(
    url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("BENCH_JOURNAL", raising=False)
    with redis.Redis.from_url(url) as client:
        server.empty(client)
    measured = await Kill(most=1.0, jobs_per_slot=4).run(Raw(), url)
    assert measured.notes["jobs"] in {400, 800, 1600, 3200}, "they are doubled if they end before the kill"
    assert measured.figures["kill.lost"] >= measured.notes["interrupted"] > 0
    assert measured.figures["kill.run_twice"] == 0
    assert "kill.redelivered_s" not in measured.figures


class _Counting(Scenario):
    """A scenario that is only planned."""

    async def run(self, system: System, url: str) -> Measured:
        raise NotImplementedError(system, url)


class _OnceOnly(_Counting):
    once = True


def test_systems_alternate_inside_each_scenario_and_what_one_round_shows_is_not_repeated() -> None:
    known = {"closed": _Counting(), "kill": _OnceOnly()}
    plan = [
        (cell.number, cell.scenario, cell.system)
        for cell in run.cells(known, ["closed", "kill"], ["raw", "asyncq", "raw@redis"], 2)
    ]
    assert plan == [
        (1, "closed", "raw"),
        (1, "closed", "asyncq"),
        (1, "closed", "raw@redis"),
        (1, "kill", "raw"),
        (1, "kill", "asyncq"),
        (2, "closed", "raw"),
        (2, "closed", "asyncq"),
        (2, "closed", "raw@redis"),
    ]


ABOUT = {
    "date": "2026-01-02",
    "command": "c",
    "cores": 1,
    "cpu": "c",
    "system": "s",
    "python": "p",
    "server": "v",
    "libraries": {},
    "grid": "bench",
    "commit": "abc",
}


def test_an_interrupted_run_goes_on_with_the_cells_that_are_missing(tmp_path: Path) -> None:
    store = Store.open(tmp_path, "bench", ABOUT)
    store.systems["raw"] = {"missing": None, "promise": "nothing"}
    store.add({"round": 1, "scenario": "closed", "system": "raw", "figures": {"closed.p50_ms": 1.0}})
    store.add({"round": 1, "scenario": "drain", "system": "raw", "error": "it fell over"})

    later = Store.open(tmp_path, "bench", {**ABOUT, "date": "2026-01-03"})
    assert later.path == store.path
    assert later.has(1, "closed", "raw")
    assert later.has(1, "drain", "raw")
    assert not later.has(2, "closed", "raw")
    assert later.systems == store.systems
    store.about["complete"] = True
    store.write()
    again = Store.open(tmp_path, "bench", ABOUT, again=True)
    assert again.has(1, "closed", "raw")
    assert not again.has(1, "drain", "raw")


def test_a_finished_run_or_one_of_other_code_is_not_gone_on_with(tmp_path: Path) -> None:
    store = Store.open(tmp_path, "bench", ABOUT)
    store.add({"round": 1, "scenario": "closed", "system": "raw", "figures": {"closed.p50_ms": 1.0}})
    later = {**ABOUT, "date": "2026-01-03"}
    assert not Store.open(tmp_path, "bench", {**later, "commit": "def"}).runs
    assert not Store.open(tmp_path, "bench", later, fresh=True).runs
    assert not Store.open(tmp_path, "other", later).runs
    store.about["complete"] = True
    store.write()
    assert not Store.open(tmp_path, "bench", later).runs


def test_a_file_of_results_holds_what_a_killed_worker_showed_beside_the_promise(tmp_path: Path) -> None:
    store = Store.open(tmp_path, "bench", ABOUT)
    store.systems["x"] = {"missing": None, "promise": "much", "recovery": "a short lease"}
    figures = {"kill.lost": 3.0, "kill.run_twice": 0.0}
    store.add({"round": 1, "scenario": "kill", "system": "x", "figures": figures, "notes": {"jobs": 60}})
    tree = json.loads(store.path.read_text())
    assert tree["schema"] == 2
    assert tree["guarantees"] == {
        "x": {"promise": "much", "recovery": "a short lease", "jobs": 60, "lost": 3.0, "run_twice": 0.0}
    }
    assert [row["name"] for row in tree["systems"]] == ["x"]
    assert not list(tmp_path.glob("*.new"))


def test_a_run_has_curves_only_if_its_scenario_measured_some() -> None:
    curve = {"key": "k", "title": "t", "x": "jobs", "y": "ms", "log_x": True, "points": [[1, 2.0], [10, 3.0]]}
    assert Measured({"a": 1.0}, curves=[curve]).to_json()["curves"] == [curve]
    assert "curves" not in Measured({"a": 1.0}).to_json()


def test_a_cell_is_measured_again_while_others_use_the_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    shares = iter([0.4, 0.2, 0.01])
    session = _session(monkeypatch, shares)
    row = session.run(run.Cell(1, "closed", "raw"))
    assert (row["tries"], row["others"], row["disturbed"]) == (3, 0.01, False)
    assert row["figures"] == {"closed.p50_ms": 1.0}
    assert next(shares, None) is None


def test_a_cell_that_was_never_quiet_is_marked_and_has_the_figures_of_the_quietest_try(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    row = _session(monkeypatch, iter([0.4, 0.2, 0.3, 0.0])).run(run.Cell(1, "closed", "raw"))
    assert (row["tries"], row["others"], row["disturbed"]) == (3, 0.2, True)
    page = report.render(ABOUT, ["raw"], [row])
    assert "- raw, closed, round 1: others used 20%" in page


def test_a_quiet_cell_is_measured_once(monkeypatch: pytest.MonkeyPatch) -> None:
    row = _session(monkeypatch, iter([0.05])).run(run.Cell(1, "closed", "raw"))
    assert (row["tries"], row["disturbed"]) == (1, False)


def _session(monkeypatch: pytest.MonkeyPatch, shares: Iterator[float]) -> run.Session:
    monkeypatch.setattr(run.Meter, "others", lambda _meter: next(shares))
    tree = {"figures": {"closed.p50_ms": 1.0}}
    monkeypatch.setattr(run, "measure", lambda *_args, **_kwargs: tree)
    places = {"raw": environments.Environment(sys.executable)}
    return run.Session("bench", {"valkey": ""}, [], places)


def test_a_variant_is_compared_with_the_floor_of_the_same_server() -> None:
    runs = [
        {"round": 1, "system": name, "scenario": "closed", "figures": {"closed.p50_ms": value}}
        for name, value in [("raw", 1.0), ("x", 2.0), ("raw@redis", 4.0), ("x@redis", 12.0)]
    ]
    page = report.render(ABOUT | {"peers": ["x", "x@redis"]}, ["raw", "x", "raw@redis", "x@redis"], runs)
    line = next(line for line in page.splitlines() if "p50" in line)
    assert line.endswith("| ratio <= 1.65 | 1 | 2 | 2.00 | 4 | 4.00 | 12 | 3.00 |")


def test_a_peer_that_is_not_installable_is_in_the_page_with_the_reason() -> None:
    described = {"x": {"missing": "not installable: needs Python 9"}}
    page = report.render(ABOUT, ["raw", "x"], [], described)
    assert "| x | not installable: needs Python 9 |  |  |" in page


CURVE = {"key": "depth", "title": "growth", "x": "jobs", "y": "ms", "log_x": True}


def _tree() -> dict[str, Any]:
    """Results as `run.py` stores them: two rounds of the floor, asyncq and two peers; one did not run."""
    systems = {"raw": 1.0, "asyncq": 2.0, "quick": 1.5, "careless": 1.2, "asyncq@redis": 3.0}
    runs: list[dict[str, Any]] = []
    for number in (1, 2):
        for name, factor in systems.items():
            times = Histogram()
            for ms in (1, 2, 3):
                times.record(int(ms * factor * 1e6))
            figures = {"closed.p50_ms": factor * number, "closed.p99_ms": 2 * factor, "open100.kept_up": 1.0}
            histograms = {"closed": times.to_json(), "open100": times.to_json()}
            curve = {**CURVE, "points": [[0, factor], [10, factor * number]]}
            run_ = {"round": number, "system": name, "scenario": "closed", "others": 0.0, "notes": {}}
            runs.append(run_ | {"figures": figures, "histograms": histograms, "curves": [curve]})
    runs.append({"round": 1, "system": "quick", "scenario": "drain", "error": "<b>fell & over</b>"})
    runs.append({"round": 1, "system": "quick", "scenario": "enqueue", "skipped": "no batches"})
    killed = {"jobs": 60, "interrupted": 9, "redelivered": 9, "run_twice": 0, "no_result": 0, "lost": 0}
    row = {
        "missing": None,
        "note": "",
        "settings": "acks <late>",
        "promise": "at least once",
        "recovery": "5 s",
    }
    row |= {"python": "3.11", "versions": {"redis": "8"}}
    return {
        "schema": 2,
        "about": ABOUT | {"peers": ["quick", "careless"], "floor": "raw", "complete": True, "commit": "abc"},
        "systems": [
            *({"name": name, **row} for name in systems),
            {"name": "absent", "missing": "needs <Python> 9", "settings": "", "promise": ""},
        ],
        "figures": report.figures(),
        "guarantees": {"asyncq": killed, "quick": killed, "careless": killed | {"lost": 7}},
        "runs": runs,
    }


def _words(page: str) -> str:
    spaced = re.sub(r"</(td|th|dt|dd|li|p|h\d)>", r" \g<0>", page)
    tree = ET.fromstring(spaced.removeprefix("<!DOCTYPE html>\n"))
    for style in list(tree.iter("style")):
        style.text = ""
    return " ".join("".join(tree.itertext()).split())


def test_the_page_has_every_system_and_figure_and_loads_nothing() -> None:
    page = results_page.draw(_tree())
    words = _words(page)
    for name in ("raw", "asyncq", "quick", "careless", "asyncq@redis", "absent"):
        assert name in words
    assert "one in flight, delay to value: p50" in words
    assert "needs <Python> 9" in words
    assert "acks <late>" in words
    assert "quick, drain, round 1: <b>fell & over</b>" in words
    assert "quick, enqueue: no batches" in words
    assert not re.search(r"https?:|<script|@import|url\(|src=", page)


def test_the_page_says_ratios_and_whether_goals_are_met() -> None:
    words = _words(results_page.draw(_tree()))
    assert "one in flight, delay to value: p50 3 ms 2.00 ratio <= 1.65 missed" in words
    assert "0 of 2 goals are met." in words


def test_the_page_says_where_another_system_that_kept_its_jobs_is_better() -> None:
    words = _words(results_page.draw(_tree()))
    kept, _, lost = words.partition("Better, but they lost jobs when their worker was killed:")
    assert "In 2 of 2 figures, another system that kept every job is better:" in kept
    assert "p50: asyncq 3 ms, quick 2.25 ms." in kept
    assert "p50: careless 1.8 ms (asyncq 3 ms)." in lost
    assert "7 of 60 jobs had not ended when the time was up." in lost
    assert "Lost none of 60 jobs. 9 of 9 interrupted jobs began again." in lost


def test_the_page_says_that_asyncq_is_first_where_it_is() -> None:
    tree = _tree()
    tree["runs"] = [run for run in tree["runs"] if run["system"] not in {"quick", "careless"}]
    assert "No other system was measured" in _words(results_page.draw(tree | {"about": ABOUT}))
    slow = [run | {"figures": {"closed.p50_ms": 90.0}, "system": "quick"} for run in tree["runs"][:1]]
    words = _words(results_page.draw(tree | {"runs": tree["runs"] + slow}))
    assert "asyncq is first in all 1 figures that another system has, too." in words


def test_a_curve_is_drawn_with_the_median_of_the_rounds() -> None:
    tree = ET.fromstring(results_page.draw(_tree()).removeprefix("<!DOCTYPE html>\n"))
    (chart,) = [each for each in tree.iter("figure") if each.findtext("figcaption") == "growth"]
    points = [each.text for each in chart.iter("title")]
    assert "asyncq: 2 (ms) at 0 (jobs)" in points
    assert "asyncq: 3 (ms) at 10 (jobs)" in points
    assert {each.text or "".join(each.itertext()) for each in chart.iter("li")} == {
        "raw", "asyncq", "quick", "careless", "asyncq@redis",
    }  # fmt: skip


def test_stored_results_are_drawn_again_by_their_file_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tree = _tree()
    # What a figure is comes from the file, not from the program that draws it.
    tree["figures"] = [
        {**figure, "title": "renamed"} if figure["key"] == "closed.p50_ms" else figure
        for figure in tree["figures"]
    ]
    path = tmp_path / "2026-01-01-x.json"
    path.write_text(json.dumps(tree))
    monkeypatch.setattr(sys, "argv", ["report.py", str(path)])
    report.main()
    assert "renamed" in path.with_suffix(".html").read_text()
    assert "| raw |" in path.with_suffix(".md").read_text()


def test_results_without_a_schema_are_drawn_and_their_table_stays(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "old.json"
    path.write_text(json.dumps({"about": ABOUT, "runs": _tree()["runs"]}))
    monkeypatch.setattr(sys, "argv", ["report.py", str(path)])
    report.main()
    assert "one in flight, delay to value" in _words(path.with_suffix(".html").read_text())
    assert not path.with_suffix(".md").exists()


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("no", "no file of results"),
        ("{}", "no file of"),
        ('{"schema": 3, "about": 0, "runs": 0}', "schema 3"),
    ],
)
def test_another_file_is_refused_with_a_reason(tmp_path: Path, text: str, said: str) -> None:
    path = tmp_path / "x.json"
    path.write_text(text)
    with pytest.raises(SystemExit, match=said):
        report.stored(path)


def test_every_adapter_has_pinned_requirements_and_says_its_settings() -> None:
    for name in run.adapters():
        if name in environments.OWN:
            continue
        requirements = environments.REQUIREMENTS / f"{name.partition('_')[0]}.txt"
        lines = [line for line in requirements.read_text().splitlines() if not line.startswith("#")]
        assert "==" in lines[0], name


def test_every_figure_of_a_scenario_is_named_once() -> None:
    keys = [figure.key for figure in report.FIGURES]
    assert len(keys) == len(set(keys))


@pytest.mark.parametrize("size", ["smoke", "bench", "full"])
def test_every_grid_has_its_scenarios(size: str) -> None:
    known = grid.scenarios(size)
    assert set(grid.names(size)) <= set(known)
    assert set(grid.CORE) <= set(known)


@pytest.mark.parametrize("scenario", grid.GROWTH)
def test_a_scenario_of_growth_gives_curves_and_figures_that_the_report_knows(url: str, scenario: str) -> None:
    tree = run.measure("asyncq", scenario, url, size="smoke")
    assert "error" not in tree
    assert tree["figures"]
    assert set(tree["figures"]) <= {figure.key for figure in report.FIGURES}
    assert tree["curves"]
    for curve in tree["curves"]:
        assert set(curve) == {"key", "title", "x", "y", "log_x", "points"}
        assert curve["key"].startswith(scenario)
        sizes = [size for size, _ in curve["points"]]
        assert sizes
        assert sizes == sorted(set(sizes))
        assert all(value >= 0 for _, value in curve["points"])


def test_growth_is_the_median_ratio_of_measurements_that_were_made_in_turn() -> None:
    # The machine became half as fast for the second pair; the job costs a tenth more in each pair.
    assert paired_growth([10.0, 20.0, 10.0], [11.0, 22.0, 11.0]) == 1.1
    assert growth(medians({0: [10.0], 100: [9.0], 1000: [11.0, 12.0, 40.0]})) == 1.2


@pytest.mark.anyio
async def test_the_costs_of_a_long_queue_stand_beside_those_of_an_empty_one(url: str) -> None:
    with redis.Redis.from_url(url) as client:
        server.empty(client)
        measured = await QueueGrowth(sizes=(1_500, 3_000), piece=2_000, times=1).run(Raw(), url)
        (stream,) = client.scan_iter(count=10_000, _type="stream")
        # The worker goes on for a moment, until it is stopped; but the queue was not drained.
        assert client.xlen(stream) > 500
    points = {each["key"]: each["points"] for each in measured.curves}
    assert [size for size, _ in points["grow_queued.claim_us"]] == [0, 1_500, 3_000]
    assert [size for size, _ in points["grow_queued.bytes"]] == [1_500, 3_000]
    assert 20 < measured.figures["grow_queued.bytes_20"] < measured.figures["grow_queued.bytes_200"] < 1_000


@pytest.mark.anyio
async def test_a_job_of_a_long_queue_with_another_value_fails_the_run(
    url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Wrong(floor.Client):
        async def result(self, job_id: str) -> object:
            return (await super().result(job_id), "wrong")

    monkeypatch.setattr(floor, "Client", Wrong)
    with redis.Redis.from_url(url) as client:
        server.empty(client)
    with pytest.raises(RuntimeError, match="a job returned"):
        await QueueGrowth(sizes=(1_500,), piece=1_000, times=1).run(Raw(), url)


@pytest.mark.anyio
async def test_workers_that_end_by_themselves_fail_the_run_of_growth(url: str) -> None:
    class Broken(Raw):
        def hosted(self, _url: str, _count: int) -> list[str]:
            return [sys.executable, "-c", "raise SystemExit(7)"]

    with pytest.raises(RuntimeError, match="the workers of raw ended with exit code 7"):
        await ManyWorkers(counts=(1,), jobs=1, seconds=0.1).run(Broken(), url)
