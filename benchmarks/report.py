"""Makes the table from the runs: the median of the rounds, their range, and the ratio to the floor.

    python benchmarks/report.py FILE.json [...]   # draws the page and the table of stored results again

The page is in `results_page.py`.
"""

import argparse
import json
import os
import platform
import statistics
import sys
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import redis
from grid import RATES, SERVICE_RATES
from histogram import Histogram
from store import SCHEMA

Runs = list[dict[str, Any]]


@dataclass(frozen=True)
class Figure:
    """One line of the table. `goal` is the smallest good value if more is better, otherwise the
    largest; `goal_ratio` is the same for the ratio to the floor.
    """

    key: str
    title: str
    unit: str
    goal: float | None = None
    more_is_better: bool = False
    compared: bool = True  # whether a ratio to the floor means anything
    goal_ratio: float | None = None

    def met(self, value: float | None, ratio: float | None) -> bool | None:
        """Returns whether the goals are met; None if there is none, or nothing was measured."""
        pairs = [(self.goal, value), (self.goal_ratio, ratio)]
        known = [(goal, found) for goal, found in pairs if goal is not None and found is not None]
        if not known:
            return None
        if self.more_is_better:
            return all(found >= goal for goal, found in known)
        return all(found <= goal for goal, found in known)

    @property
    def goal_text(self) -> str:
        """The goals, for a person."""
        sign = ">=" if self.more_is_better else "<="
        goals = [("", self.goal), ("ratio ", self.goal_ratio)]
        return ", ".join(f"{word}{sign} {number(goal)}" for word, goal in goals if goal is not None)


def _rate(key: str, title: str, goal_ratio: float | None = None) -> Figure:
    return Figure(key, title, "jobs/s", more_is_better=True, goal_ratio=goal_ratio)


def _waiter_figures() -> list[Figure]:
    figures = []
    for count in (1_000, 10_000):
        key, title = f"waiters{count}", f"{count:,} waits of one client"
        figures += [
            Figure(f"{key}.connections", f"{title}: connections", "", 2),
            Figure(f"{key}.kib_each", f"{title}: memory for each", "KiB", 2.5 if count == 10_000 else None),
            Figure(f"{key}.wake_p50_ms", f"{title}: body's end to waiter, p50", "ms"),
            Figure(f"{key}.wake_p99_ms", f"{title}: body's end to waiter, p99", "ms"),
        ]
    return figures


def _payload_figures() -> list[Figure]:
    figures = []
    for size, title in (("200b", "200 bytes"), ("10kb", "10 kB"), ("1mb", "1 MB")):
        figures += [
            Figure(f"payload{size}.p50_ms", f"{title} there and back, one in flight: p50", "ms"),
            Figure(f"payload{size}.p99_ms", f"{title} there and back, one in flight: p99", "ms"),
            _rate(f"payload{size}.jobs_per_s", f"{title} there and back, ten in flight"),
        ]
    return figures


def _open_figures() -> list[Figure]:
    goals = {5_000: (0.42, 1.6), 20_000: (None, 12.0)}
    figures = []
    for rate in RATES:
        median, tail = goals.get(rate, (None, None))
        title = f"open loop, {rate:,} Poisson arrivals/s, from due time"
        figures.append(Figure(f"open{rate}.p50_ms", f"{title}: p50", "ms", median))
        figures.append(Figure(f"open{rate}.p99_ms", f"{title}: p99", "ms", tail))
    return figures


def _growth_figures() -> list[Figure]:
    """The figures of the scenarios of growth, at the largest size. Those in `x` compare it with the
    smallest.
    """
    queued, delayed, waits = "1,000,000 queued", "100,000 delayed", "10,000 waits"
    queues, workers = "1,000 queues of one worker", "200 workers of one queue"
    return [
        Figure("grow_queued.enqueue_x", f"{queued}: time to enqueue, against an empty queue", "x", 1.2),
        Figure("grow_queued.enqueue_server_x", f"{queued}: server CPU to enqueue, against that", "x"),
        Figure("grow_queued.claim_x", f"{queued}: time to claim, run and end, against that", "x", 1.2),
        Figure("grow_queued.claim_server_x", f"{queued}: server CPU of that, against that", "x"),
        Figure("grow_queued.bytes_200", "server's memory for a job with 200 bytes", "bytes", 550),
        Figure("grow_queued.bytes_20", "server's memory for a job with 20 bytes", "bytes", 280),
        Figure("grow_delayed.enqueue_x", f"{delayed}: time to enqueue, against none", "x"),
        Figure("grow_delayed.enqueue_server_x", f"{delayed}: server CPU to enqueue, against none", "x"),
        Figure("grow_delayed.late_p50_ms", "100,000 that are due at once, how late: p50", "ms"),
        Figure("grow_delayed.late_p99_ms", "100,000 that are due at once, how late: p99", "ms"),
        Figure("grow_waiters.connections", f"{waits}, growing: connections", "", 2),
        Figure("grow_waiters.kib_each", f"{waits}, growing: memory for each", "KiB", 2.5),
        Figure("grow_waiters.wake_p50_ms", f"{waits}, growing: body's end to waiter, p50", "ms"),
        Figure("grow_waiters.wake_p99_ms", f"{waits}, growing: body's end to waiter, p99", "ms"),
        Figure("grow_queues.lone_one_p50_ms", "1 queue: lone job, p50", "ms"),
        Figure("grow_queues.lone_p50_ms", f"{queues}: lone job, p50", "ms"),
        Figure("grow_queues.lone_p99_ms", f"{queues}: lone job, p99", "ms"),
        Figure("grow_workers.commands_per_s", f"{workers}: commands that each sends, idle", "/s", 1),
        Figure("grow_workers.kib_each", f"{workers}: server's memory for each", "KiB"),
        Figure("grow_workers.lone_one_p50_ms", "1 worker: lone job, p50", "ms"),
        Figure("grow_workers.lone_p50_ms", f"{workers}: lone job, p50", "ms"),
        Figure("grow_workers.lone_p99_ms", f"{workers}: lone job, p99", "ms"),
    ]


def _service_figures() -> list[Figure]:
    what, faults = "web service", "service_faults"
    kept_up = f"{what}: kept up with"
    figures = [Figure("service.kept_up_per_s", kept_up, "requests/s", 1_000, more_is_better=True)]
    for rate in SERVICE_RATES:
        goal, goal_ratio = (15, 2) if rate == 1_000 else (None, None)
        title = f"{what}, {rate:,} requests/s, from due time to answer"
        figures.append(Figure(f"service{rate}.p50_ms", f"{title}: p50", "ms"))
        figures.append(Figure(f"service{rate}.p99_ms", f"{title}: p99", "ms", goal, goal_ratio=goal_ratio))
    given_up = f"{what}, 2,000 requests given up"
    return [
        *figures,
        *(
            Figure(f"{faults}.{kind}_left", f"{given_up}: {kind} left", "", 0)
            for kind in ("jobs", "tasks", "connections")
        ),
        Figure(f"{faults}.restart_errors", f"{what}, a worker of two restarted: answers 5xx", "", 0),
        Figure(f"{faults}.restart_p99_ms", f"{what}, a worker of two restarted: p99", "ms"),
    ]


FIGURES = [
    _rate("drain.jobs_per_s", "drain of a backlog to stored results", 0.42),
    Figure("closed.p50_ms", "one in flight, `delay` to value: p50", "ms", goal_ratio=1.65),
    Figure("closed.p99_ms", "one in flight, `delay` to value: p99", "ms", goal_ratio=1.6),
    _rate("inflight100.jobs_per_s", "100 in flight", 0.5),
    Figure("inflight100.p50_ms", "100 in flight: p50", "ms"),
    Figure("inflight100.p99_ms", "100 in flight: p99", "ms"),
    Figure("open.kept_up_per_s", "open loop: kept up with", "jobs/s", 20_000, more_is_better=True),
    *_open_figures(),
    _rate("enqueue.sequential_per_s", "enqueue, one after the other", 0.78),
    _rate("enqueue.concurrent_per_s", "enqueue, 100 callers", 0.45),
    _rate("enqueue.map_per_s", "enqueue, batches of 1,000", 0.36),
    Figure("lone.commands_per_job", "Redis commands, lone job", "", 9),
    Figure("lone.server_us_per_job", "server CPU, lone job", "us"),
    Figure("batch.commands_per_job", "Redis commands per job, in batches", "", 6),
    Figure("batch.server_us_per_job", "server CPU per job, in batches", "us", 12),
    Figure("idle.commands_per_s", "commands sent by an idle worker", "/s", 1),
    Figure("idle.rss_mib", "memory of an idle worker (RSS)", "MiB", 42),
    Figure("start.first_job_s", "worker's process start to first value", "s", 0.5),
    *_waiter_figures(),
    Figure("kill.lost", "worker killed: jobs that had not ended when the time was up", "", compared=False),
    Figure("kill.run_twice", "worker killed: jobs that ran to their end twice", "", compared=False),
    Figure("kill.no_result", "worker killed: jobs that ended without a stored result", "", compared=False),
    Figure(
        "kill.redelivered_s",
        "worker killed: interrupted jobs began again after (median)",
        "s",
        compared=False,
    ),
    Figure("kill.last_redelivered_s", "worker killed: the last of them after", "s", compared=False),
    Figure("sync.p50_ms", "blocking calls, one in flight: p50", "ms"),
    Figure("sync.p99_ms", "blocking calls, one in flight: p99", "ms"),
    _rate("drain2.jobs_per_s", "drain by two worker processes"),
    *_payload_figures(),
    _rate("queued.enqueue_per_s", "the long backlog, enqueued"),
    Figure("queued.bytes_per_job", "the server's memory for each of its jobs", "bytes"),
    _rate("queued.drain_per_s", "the long backlog, drained"),
    _rate("delayed.enqueue_per_s", "delayed jobs, enqueued"),
    Figure("delayed.late_p50_ms", "delayed jobs that are due at once, how late: p50", "ms"),
    Figure("delayed.late_p99_ms", "delayed jobs that are due at once, how late: p99", "ms"),
    *_growth_figures(),
    *_service_figures(),
    Figure("waits.live_1_ms", "`map` of 1 and its value", "ms"),
    Figure("waits.live_100_ms", "`map` of 100 and all values", "ms"),
    Figure("waits.live_10000_ms", "`map` of 10,000 and all values", "ms"),
    Figure("waits.ended_1_ms", "value of 1 ended job, by its id", "ms"),
    Figure("waits.ended_100_ms", "values of 100 ended jobs, by their ids", "ms"),
    Figure("waits.ended_10000_ms", "values of 10,000 ended jobs, by their ids", "ms"),
    Figure("revoke.p50_ms", "revocation of a running coroutine to its waiter: p50", "ms", 50),
    Figure("chain10.p50_ms", "chain of 10, `delay` to value: p50", "ms"),
    Figure("fanin1000.ms", "1,000 jobs and one with the list of their values", "ms"),
    Figure("fanin1000.to_plain", "that, against 1,000 plain jobs", "x", 2),
    Figure("stream.first_item_ms_p50", "a lone item, yielded to read: p50", "ms", 3),
    Figure("kinds.thread_more_us", "a job in a thread, more than a coroutine: p50", "us"),
    Figure("kinds.process_more_us", "a job in a process, more than a coroutine: p50", "us"),
    Figure("kinds.first_process_ms", "the first job of a process", "ms"),
    Figure("groups.with_one_between_s", "300 jobs after 300, one job between them", "s"),
    Figure("groups.each_after_each_s", "300 jobs after 300, each after each", "s"),
    Figure("micro.script_called_us", "`finish` of nothing, with the functions that it calls", "us of server"),
    Figure("micro.script_all_us", "`finish` of nothing, with all shared functions", "us of server"),
    Figure("micro.own_task_us", "an asyncio task, kept by hand", "us"),
    Figure("micro.group_task_us", "a task in an anyio task group", "us"),
    Figure("micro.outcome_ns", "an outcome, a named tuple, made", "ns"),
    Figure("micro.outcome_dataclass_ns", "an outcome, a frozen dataclass, made", "ns"),
    Figure("micro.waiter_kept_ns", "a waiter noted and dropped, by a dict of references", "ns"),
    Figure("micro.waiter_weak_dict_ns", "a waiter noted and dropped, by a WeakValueDictionary", "ns"),
    Figure("stream.items_per_s", "small items through one stream", "items/s", 20_000, more_is_better=True),
]


def machine(url: str) -> dict[str, Any]:
    """Describes the machine, the server and the libraries, without anything that names the host."""
    with redis.Redis.from_url(url) as client:
        info: dict[str, Any] = client.info("server")
    valkey = info.get("valkey_version")
    return {
        "cpu": _cpu_model(),
        "cores": os.cpu_count(),
        "system": platform.system(),
        "python": platform.python_version(),
        "server": f"Valkey {valkey}" if valkey else f"Redis {info['redis_version']}",
        "libraries": {name: _version(name) for name in ("asyncq", "redis", "hiredis", "uvloop", "msgpack")},
    }


def figures() -> list[dict[str, Any]]:
    """Returns what the figures are, for whoever reads the results without this program."""
    return [asdict(figure) for figure in FIGURES]


def render(
    about: dict[str, Any],
    systems: list[str],
    runs: Runs,
    described: Mapping[str, Mapping[str, Any]] | None = None,
) -> str:
    """Returns the Markdown page.

    Args:
        about: machine, versions and command.
        systems: the first is the floor with which the others are compared.
        runs: the cells.
        described: what the results say about each system.
    """
    libraries = ", ".join(f"{name} {number}" for name, number in about["libraries"].items() if number)
    rounds = max((run["round"] for run in runs), default=0)
    others = [run.get("others", 0.0) for run in runs] or [0.0]
    described = described or {}
    present = [name for name in systems if not described.get(name, {}).get("missing")]
    lines = [
        f"# {about['date']}: {', '.join(systems)}",
        "",
        f"`{about['command']}`",
        "",
        f"{about['cores']} cores ({about['cpu']}), {about['system']}, {about['server']},",
        f"Python {about['python']}, {libraries}.",
        f"While a cell was measured, others used {statistics.median(others):.1%} of the machine",
        f"(at most {max(others):.1%}). One worker process, TCP loopback.",
        f"Rounds: {rounds}; median (smallest-largest); a ratio is the median of each round's ratio.",
        "",
        *_table(present, runs, set(about.get("peers", ()))),
        *_latencies(present, runs),
        *_promises(systems, described),
        *_remarks(runs),
        *_errors(runs),
    ]
    return "\n".join(lines) + "\n"


def _table(systems: list[str], runs: Runs, peers: set[str]) -> list[str]:
    floor, *others = systems
    without_goals = {*peers, *(name for name in others if name.partition("@")[0] == floor)}
    heads = ["", "goal", floor]
    for name in others:
        heads += [name, f"{name} / {floor_of(name, floor)}"]
    lines = [_row(heads), _row(["---"] * len(heads))]
    for figure in FIGURES:
        measured = {name: rounds_of(runs, name, figure.key) for name in systems}
        if not any(measured.values()):
            continue
        unit = f", {figure.unit}" if figure.unit else ""
        cells = [figure.title + unit, figure.goal_text, spread(measured[floor])]
        for name in others:
            found = ratio(measured[name], measured.get(floor_of(name, floor), {}))
            cells += [spread(measured[name]), _ratio_text(figure, found)]
            if name not in without_goals:
                cells[-2 if figure.goal is not None else -1] += _goal_met(figure, measured[name], found)
        lines.append(_row(cells))
    return lines


def floor_of(name: str, floor: str) -> str:
    """Returns the floor on the same server and the same Python."""
    _, at, variant = name.partition("@")
    own = f"{floor}{at}{variant}"
    return floor if name == own else own


def _latencies(systems: list[str], runs: Runs) -> list[str]:
    merged: dict[tuple[str, str], Histogram] = {}
    for run in runs:
        for key, tree in run.get("histograms", {}).items():
            if run["system"] in systems:
                merged.setdefault((key, run["system"]), Histogram()).merge(Histogram.from_json(tree))
    if not merged:
        return []
    heads = ["all rounds together, ms", "system", "count", "p50", "p90", "p99", "p99.9", "largest"]
    lines = ["", _row(heads), _row(["---"] * len(heads))]
    for (key, name), histogram in sorted(
        merged.items(), key=lambda item: (item[0][0], systems.index(item[0][1]))
    ):
        quantiles = [f"{histogram.ms(q):.2f}" for q in (0.5, 0.9, 0.99, 0.999, 1.0)]
        lines.append(_row([key, name, f"{histogram.count:,}", *quantiles]))
    return lines


def _promises(systems: list[str], described: Mapping[str, Mapping[str, Any]]) -> list[str]:
    rows = []
    for name in systems:
        about = described.get(name)
        if about is None:
            continue
        if about["missing"]:
            rows.append(_row([name, about["missing"], "", ""]))
            continue
        versions = ", ".join(f"{each} {number}" for each, number in about["versions"].items() if number)
        promise = "; ".join(text for text in (about["promise"], about["recovery"]) if text)
        rows.append(_row([name, f"{versions}; Python {about['python']}", promise, about["settings"]]))
    heads = [
        "system",
        "versions",
        "what it promises if its worker dies; what was set for the kill",
        "settings",
    ]
    return ["", _row(heads), _row(["---"] * 4), *rows] if rows else []


def _remarks(runs: Runs) -> list[str]:
    skipped: dict[tuple[str, str, str], int] = {}
    for run in runs:
        if "skipped" in run:
            key = (run["system"], run["scenario"], run["skipped"])
            skipped[key] = skipped.get(key, 0) + 1
    lines = [f"- {name}, {scenario}: {why}" for name, scenario, why in skipped]
    disturbed = [
        f"- {run['system']}, {run['scenario']}, round {run['round']}: others used {run['others']:.0%}"
        for run in runs
        if run.get("disturbed")
    ]
    raised = [f"- {line}" for line in raised_under_load(runs)]
    return [
        *(["", "Not measured:", "", *lines] if lines else []),
        *(["", "Calls raised in the open loop; higher rates were not tried:", "", *raised] if raised else []),
        *(
            ["", "Measured while others used the machine, at the quietest try:", "", *disturbed]
            if disturbed
            else []
        ),
    ]


def raised_under_load(runs: Runs) -> list[str]:
    """Returns a line for each system and rate of arrivals at which calls raised."""
    return [
        f"{run['system']}, round {run['round']}, {rate.removeprefix('open')} arrivals/s: {note['error']}"
        for run in runs
        for rate, note in run.get("notes", {}).items()
        if run["scenario"] in {"open", "service"} and isinstance(note, dict) and "error" in note
    ]


def _errors(runs: Runs) -> list[str]:
    failed = [
        f"- {run['system']}, {run['scenario']}, round {run['round']}: `{run['error']}`"
        for run in runs
        if "error" in run
    ]
    return ["", "Failed:", "", *failed] if failed else []


def rounds_of(runs: Runs, name: str, key: str) -> dict[int, float]:
    """Returns a system's figure in each round."""
    return {
        run["round"]: run["figures"][key]
        for run in runs
        if run["system"] == name and key in run.get("figures", {})
    }


def ratio(measured: dict[int, float], floor: dict[int, float]) -> float | None:
    """Returns the median of the ratios to the floor of the same round; None if there is none."""
    ratios = [value / floor[each] for each, value in measured.items() if floor.get(each)]
    return statistics.median(ratios) if ratios else None


def _ratio_text(figure: Figure, found: float | None) -> str:
    if not figure.compared:
        return ""
    return "-" if found is None else f"{found:.2f}"


def spread(measured: dict[int, float]) -> str:
    """Formats the median of the rounds, and their range if they differ."""
    if not measured:
        return "-"  # not measured for this system, or failed; failed runs are listed below the table
    values = sorted(measured.values())
    middle = number(statistics.median(values))
    return middle if values[0] == values[-1] else f"{middle} ({number(values[0])}-{number(values[-1])})"


def _goal_met(figure: Figure, measured: dict[int, float], found: float | None) -> str:
    met = figure.met(statistics.median(measured.values()), found) if measured else None
    return {True: " met", False: " **missed**", None: ""}[met]


def number(value: float) -> str:
    """Formats a figure: three digits, or whole numbers from 1,000."""
    return f"{value:,.0f}" if value >= 1000 else f"{value:.3g}"


def _row(cells: list[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _cpu_model() -> str:
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    return next(
        (line.partition(":")[2].strip() for line in lines if line.startswith("model name")), "unknown"
    )


def _version(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None


def stored(path: Path) -> dict[str, Any]:
    """Reads a file of results. An older one without a schema gets what this program says about the figures.

    Raises:
        SystemExit: it is no such file.
    """
    try:
        tree = json.loads(path.read_text())
    except OSError as error:
        sys.exit(f"cannot read {path}: {error.strerror}")
    except ValueError:
        tree = None
    if not isinstance(tree, dict) or not {"about", "runs"} <= set(tree):
        sys.exit(f"{path} is no file of results: it is what benchmarks/run.py writes")
    if tree.get("schema", SCHEMA) != SCHEMA:
        sys.exit(f"{path} has schema {tree['schema']}, and this program reads {SCHEMA}")
    if "schema" not in tree:
        names = dict.fromkeys(run["system"] for run in tree["runs"])
        tree |= {"systems": [{"name": name} for name in names], "figures": figures(), "guarantees": {}}
    return tree


def main() -> None:
    import results_page  # it imports this module

    parser = argparse.ArgumentParser(description="Draws the page and the table of stored results again.")
    parser.add_argument("files", nargs="+", type=Path, metavar="FILE.json", help="what run.py has written")
    for path in parser.parse_args().files:
        tree = stored(path)
        path.with_suffix(".html").write_text(results_page.draw(tree))
        print(f"drew {path.with_suffix('.html')}")
        # The table of an older file was written by the program of its day, which knew other figures.
        if "schema" in tree:
            described = {row["name"]: row for row in tree["systems"]}
            path.with_suffix(".md").write_text(
                render(tree["about"], list(described), tree["runs"], described)
            )
            print(f"drew {path.with_suffix('.md')}")


if __name__ == "__main__":
    main()
