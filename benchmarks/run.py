"""Run the benchmarks: every system in turn through every scenario, some rounds of that, one table.

    python benchmarks/run.py [--grid bench] [--rounds 3] [--only drain,open] [--systems raw,asyncq]
    python benchmarks/run.py --profile      # what takes the time: drain and enqueue under cProfile

Each cell (a system, a scenario, a round) is a process of its own (the client), which starts the worker as
another process. The systems alternate inside each scenario, so that other load of the machine affects all of
them. Each finished cell is stored at once in `results/<date>-<name>.json`: a run that was interrupted goes on
where it was, `--fresh` starts anew. The table and the page are written beside it. Files of the same day and
name are replaced.

With `--profile` it writes `results/<date>-<name>-profile.txt` and no figures, because the profiler changes
them.
"""

import argparse
import datetime as dt
import json
import os
import platform
import shlex
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import environments
import grid
import profiled
import redis
import report
import results_page
import server
import system
from environments import Environment, Missing
from meter import Meter
from scenario import Scenario
from store import Store

FLOOR = "raw"
NOT_COMPARED = {"current", "baseline"}
"""The adapters that run only when they are named: they compare two checkouts of asyncq."""
BUDGET = {"bench": 57.0}
"""After so many minutes, no new cell of the grid is started."""
OTHERS = 0.05
"""The share of the machine that others may use while a cell is measured."""
TRIES = {"smoke": 1, "bench": 3, "full": 3}
"""How often a cell is measured if others used the machine meanwhile."""
VARIANTS = ["raw@redis", "asyncq@redis"]
LONG_VARIANTS = [f"{name}@py{version}" for version in ("3.12", "3.13") for name in ("raw", "asyncq")]


@dataclass(frozen=True)
class Cell:
    """One measurement: a scenario, in one round, of one system."""

    number: int
    scenario: str
    system: str


def adapters() -> list[str]:
    """Returns the systems that there are: the floor and asyncq first."""
    found = {path.stem for path in (system.HERE / "adapters").glob("*.py")} - {"__init__"}
    found -= {name for name in found if name.startswith("asyncq_")}
    return [FLOOR, "asyncq", *sorted(found - {FLOOR, "asyncq"})]


def arguments() -> argparse.Namespace:
    known = grid.scenarios("bench")
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--grid", choices=("smoke", "bench", "full"), default="bench", help="how much is run")
    parser.add_argument("--rounds", type=int, help="how often everything is run (default: 3; smoke: 1)")
    parser.add_argument("--only", type=_listed(known), help=f"of: {','.join(known)}")
    variants = [*VARIANTS, *LONG_VARIANTS]
    parser.add_argument("--systems", type=_listed([*adapters(), *variants]), help="the first is the floor")
    parser.add_argument("--name", help="of the files in results/ (default: the grid)")
    parser.add_argument("--fresh", action="store_true", help="do not go on with an unfinished run")
    parser.add_argument("--again", action="store_true", help="measure the failed cells of the last run again")
    parser.add_argument("--minutes", type=float, help="start no new cell after so many minutes (bench: 57)")
    parser.add_argument(
        "--profile", action="store_true", help="drain and enqueue of asyncq: what takes the time"
    )
    return parser.parse_args()


def _listed(known: Any) -> Any:
    def parse(text: str) -> list[str]:
        names = text.split(",")
        if unknown := [name for name in names if name not in known]:
            raise argparse.ArgumentTypeError(f"unknown: {', '.join(unknown)}; there are: {', '.join(known)}")
        return names

    return parse


def cells(known: dict[str, Scenario], only: list[str], systems: list[str], rounds: int) -> Iterator[Cell]:
    """Yields what is to be measured, in this order: the systems alternate inside each scenario."""
    for number in range(1, rounds + 1):
        for name in only:
            if known[name].once and number > 1:
                continue
            for each in systems:
                if grid.concerns(name, known[name], each):
                    yield Cell(number, name, each)


def measure(
    name: str, scenario: str, url: str, *, size: str, python: str = sys.executable, folder: Path | None = None
) -> dict[str, Any]:
    """Runs one scenario as a process of its own on an emptied server. Returns its figures as a tree, or
    `{"error": why}`.

    With a folder, client and worker write their profiles there.
    """
    with redis.Redis.from_url(url) as client:
        server.empty(client)
        client.config_resetstat()
    given = ["--folder", str(folder)] if folder else []
    argv = [python, str(system.HERE / "child.py"), name, scenario, url, "--grid", size, *given]
    process = subprocess.Popen(
        argv,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        process_group=0,
        cwd=system.HERE.parent,
        preexec_fn=server.die_with_parent,  # noqa: PLW1509  no threads here
    )
    limit = grid.scenarios(size)[scenario].limit
    try:
        out, err = process.communicate(timeout=limit)
    except subprocess.TimeoutExpired:
        return {"error": f"not done after {limit:g} s"}
    finally:
        _end_group(process)
    if process.returncode:
        lines = err.decode(errors="replace").strip().splitlines() or [f"exit code {process.returncode}"]
        print("\n".join(lines[-30:]), file=sys.stderr)
        # A result names no path of this machine.
        return {"error": lines[-1].replace(str(system.HERE.parent), ".")[:500]}
    tree: dict[str, Any] = json.loads(out.splitlines()[-1])
    return tree


def _end_group(process: subprocess.Popen[bytes]) -> None:
    with suppress(ProcessLookupError):  # the usual case: it ended, and so did its worker
        os.killpg(process.pid, signal.SIGKILL)
    process.wait(5)
    # Its children are now this process's, see `adopt_orphans`: their time counts as the benchmark's own.
    with suppress(ChildProcessError):
        while True:
            os.waitpid(-process.pid, 0)


@dataclass
class Session:
    """What the cells of one run share: the servers, and where each system runs.

    Args:
        size: the grid.
        urls: the URL of each server.
        servers: their process ids.
        places: the environment of each system that can run.
    """

    size: str
    urls: dict[str, str]
    servers: list[int]
    places: dict[str, Environment]

    def run(self, cell: Cell) -> dict[str, Any]:
        """Measures one cell, again if others used the machine meanwhile. Returns the quietest try."""
        best: dict[str, Any] = {}
        for number in range(1, TRIES[self.size] + 1):
            started, meter = time.monotonic(), Meter(lambda: self.servers)
            adapter, _, variant = cell.system.partition("@")
            url = self.urls["redis" if variant == "redis" else "valkey"]
            python = self.places[cell.system].python
            tree = measure(adapter, cell.scenario, url, size=self.size, python=python)
            others = meter.others()
            row = {
                "round": cell.number,
                "system": cell.system,
                "scenario": cell.scenario,
                "seconds": round(time.monotonic() - started, 1),
                "others": others,
                "tries": number,
                "disturbed": others > OTHERS,
                **tree,
            }
            if not best or others < best["others"]:
                best = row
            best["tries"] = number
            if others <= OTHERS or "skipped" in tree:
                break
        return best


def places(store: Store, wanted: list[str], urls: dict[str, str]) -> dict[str, Environment]:
    """Makes the environments. What cannot run is noted in the results, with the reason."""
    found = {}
    for name in wanted:
        adapter, _, variant = name.partition("@")
        try:
            if variant == "redis" and "redis" not in urls:
                raise Missing("no redis-server is on this machine")
            python = variant.removeprefix("py") if variant.startswith("py") else ""
            place = environments.environment(adapter, python)
            store.systems[name] = {"missing": None, "note": place.note, **_described(adapter, place)}
            found[name] = place
        except Missing as why:
            store.systems[name] = {"missing": str(why), "note": "", "settings": "", "promise": ""}
            print(f"    {name}: {why}", flush=True)
    return found


def _described(adapter: str, place: Environment) -> dict[str, Any]:
    argv = [place.python, str(system.HERE / "child.py"), adapter, "describe"]
    done = subprocess.run(argv, capture_output=True, text=True, timeout=60, check=False)
    if done.returncode:
        raise Missing((done.stderr.strip().splitlines() or ["its adapter failed"])[-1])
    described: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return described


def profile(options: argparse.Namespace) -> int:
    """Runs the hot paths under a profiler, and writes the profiles. Returns the exit code."""
    pages, failed = [], []
    with server.running() as url:
        about = report.machine(url)
        for scenario in profiled.SCENARIOS:
            with tempfile.TemporaryDirectory() as folder:
                tree = measure("asyncq", scenario, url, size="bench", folder=Path(folder))
                if "error" in tree:
                    failed.append(f"{scenario}: {tree['error']}")
                    continue
                pages.append(profiled.page(scenario, Path(folder)))
    path = system.HERE / "results" / f"{_today()}-{options.name or 'asyncq'}-profile.txt"
    machine = f"{about['cores']} cores ({about['cpu']}), Python {about['python']}, {about['server']}"
    path.write_text("\n".join([_command(), machine, "", *pages, *failed]))
    print(path.read_text())
    return int(bool(failed))


def _today() -> str:
    return dt.datetime.now(dt.UTC).date().isoformat()


def _command() -> str:
    return shlex.join(["python", "benchmarks/run.py", *sys.argv[1:]])


def _commit() -> str:
    """Returns what git calls the package's files, so that two versions are never mixed in one result."""
    argv = ["git", "-C", str(system.HERE.parent), "rev-parse", "--short=12", "HEAD:asyncq"]
    done = subprocess.run(argv, capture_output=True, text=True, check=False)
    return done.stdout.strip() or "unknown"


def main() -> int:
    options = arguments()
    if platform.system() != "Linux":
        print("the benchmarks need Linux: nothing was measured")
        return 0 if options.grid == "smoke" else 1
    system.raise_on_sigterm()
    server.adopt_orphans()
    if options.profile:
        return profile(options)
    if options.grid == "smoke":
        with tempfile.TemporaryDirectory() as folder:
            return compare(options, Path(folder))
    return compare(options, system.HERE / "results")


def compare(options: argparse.Namespace, folder: Path) -> int:
    """Measures what is not yet measured, and writes the table. Returns the exit code."""
    size, known = options.grid, grid.scenarios(options.grid)
    chosen = options.systems or _default_systems(size)
    only = options.only or grid.names(size)
    rounds = options.rounds or (1 if size == "smoke" else 3)
    minutes = options.minutes or BUDGET.get(size)
    deadline = time.monotonic() + minutes * 60 if minutes else float("inf")
    with ExitStack() as stack:
        urls, servers = _start_servers(stack)
        about = report.machine(urls["valkey"]) | {"date": _today(), "command": _command()}
        about |= {"grid": size, "rounds": rounds, "commit": _commit(), "floor": chosen[0]}
        store = Store.open(folder, options.name or size, about, fresh=options.fresh, again=options.again)
        store.figures = report.figures()
        plan = list(cells(known, only, chosen, rounds))
        session = Session(size, urls, servers, places(store, _used(plan), urls))
        store.about["peers"] = [
            name for name in session.places if name.partition("@")[0] not in environments.OWN
        ]
        left = [cell for cell in plan if cell.system in session.places]
        left = [cell for cell in left if not store.has(cell.number, cell.scenario, cell.system)]
        print(f"{len(left)} cells to measure", flush=True)
        while left and time.monotonic() < deadline:
            cell = left.pop(0)
            run = session.run(cell)
            store.add(run)
            outcome = run.get("error") or run.get("skipped") or run["figures"]
            print(f"{cell.number} {cell.scenario:12} {cell.system:16}", outcome, flush=True)
    store.about["complete"] = not left
    store.write()
    page = report.render(store.about, _present(chosen, store), store.runs, store.systems)
    store.path.with_suffix(".md").write_text(page)
    store.path.with_suffix(".html").write_text(results_page.draw(report.stored(store.path)))
    print(f"\n{page}")
    if left:
        print(f"{len(left)} cells are left: the same command goes on with them")
    failed = [run for run in store.runs if "error" in run]
    empty = [run for run in store.runs if not any(run.get(key) for key in ("error", "skipped", "figures"))]
    return int(bool(failed or empty))


def _default_systems(size: str) -> list[str]:
    if size == "smoke":
        return [FLOOR, "asyncq"]
    compared = [name for name in adapters() if name not in NOT_COMPARED]
    return [*compared, *VARIANTS, *(LONG_VARIANTS if size == "full" else [])]


def _used(plan: list[Cell]) -> list[str]:
    return list(dict.fromkeys(cell.system for cell in plan))


def _present(chosen: list[str], store: Store) -> list[str]:
    """Returns the systems of the table: those that were asked for, also those that could not run."""
    return [name for name in chosen if name in store.systems]


def _start_servers(stack: ExitStack) -> tuple[dict[str, str], list[int]]:
    urls = {"valkey": stack.enter_context(server.running())}
    if found := shutil.which("redis-server"):
        urls["redis"] = stack.enter_context(server.running(Path(found)))
    return urls, [server.process_id(url) for url in urls.values()]


if __name__ == "__main__":
    sys.exit(main())
