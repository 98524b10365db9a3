"""Run the benchmarks: every system in turn through every scenario, some rounds of that, one table.

    python benchmarks/run.py [--quick] [--rounds 3] [--only drain,open] [--systems raw,asyncq] [--name NAME]
    python benchmarks/run.py --profile      # what takes the time: drain and enqueue of asyncq under cProfile

Each run of a scenario is a process of its own (the client), which starts the worker as another process. The
systems alternate inside each scenario, so that other load of the machine affects all of them. Writes
`results/<date>-<name>.json` and the table beside it, and replaces files of the same day and name. With
`--profile` it writes `results/<date>-<name>-profile.txt` and no figures, because the profiler changes them.
"""

import argparse
import asyncio
import datetime as dt
import json
import os
import shlex
import signal
import subprocess
import sys
import tempfile
from contextlib import suppress
from pathlib import Path
from typing import Any

import profiled
import redis
import report
import server
import system
import uvloop
from costs import Idle, LoneJob, Start
from latency import OneInFlight
from load import OpenLoop
from micro import Kinds, Micro, WideGroups
from scenario import Scenario
from streams import OneStream
from throughput import Drain, Enqueue, ManyInFlight
from waits import Revocation, Waits
from workflows import Chain, FanIn

FULL: dict[str, Scenario] = {
    "drain": Drain(jobs=20_000),
    "closed": OneInFlight(jobs=3_000),
    "inflight100": ManyInFlight(jobs=20_000),
    "open": OpenLoop(rate=5_000, seconds=10),
    "enqueue": Enqueue(jobs=20_000),
    "lone": LoneJob(jobs=500),
    "idle": Idle(seconds=15),
    "start": Start(starts=3),
    "waits": Waits(rounds=5),
    "revoke": Revocation(rounds=100),
    "chain": Chain(rounds=500),
    "fanin": FanIn(rounds=15),
    "stream": OneStream(ticks=400, items=40_000, rounds=5),
    "kinds": Kinds(jobs=500),
    "groups": WideGroups(width=300),
    "micro": Micro(times=20_000),
}
QUICK: dict[str, Scenario] = {
    "drain": Drain(jobs=20_000),
    "closed": OneInFlight(jobs=500),
    "inflight100": ManyInFlight(jobs=5_000),
    "open": OpenLoop(rate=5_000, seconds=2),
    "enqueue": Enqueue(jobs=5_000),
    "lone": LoneJob(jobs=100),
    "idle": Idle(seconds=6),
    "start": Start(starts=1),
    "waits": Waits(rounds=2),
    "revoke": Revocation(rounds=20),
    "chain": Chain(rounds=50),
    "fanin": FanIn(rounds=3),
    "stream": OneStream(ticks=100, items=20_000, rounds=2),
    "kinds": Kinds(jobs=100),
    "groups": WideGroups(width=120),
    "micro": Micro(times=5_000),
}
FEATURED = {"asyncq"}  # the systems that the scenarios of features are for

LIMIT = 90.0  # seconds for one run of one scenario


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="shorter runs: a first impression, not a result")
    parser.add_argument("--rounds", type=int, default=3, help="how often everything is run (default: 3)")
    parser.add_argument("--only", type=_listed(FULL), default=list(FULL), help=f"of: {','.join(FULL)}")
    adapters = [path.stem for path in (system.HERE / "adapters").glob("*.py")]
    parser.add_argument(
        "--systems", type=_listed(adapters), default=["raw", "asyncq"], help="the first is the floor"
    )
    parser.add_argument("--name", help="of the files in results/ (default: the systems' names)")
    parser.add_argument(
        "--profile",
        action="store_true",
        help="drain and enqueue of asyncq, once: what takes the time",
    )
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)  # where a child puts its profiles
    parser.add_argument("--child", nargs=3, metavar=("SYSTEM", "SCENARIO", "URL"), help=argparse.SUPPRESS)
    return parser.parse_args()


def _listed(known: Any) -> Any:
    def parse(text: str) -> list[str]:
        names = text.split(",")
        if unknown := [name for name in names if name not in known]:
            raise argparse.ArgumentTypeError(f"unknown: {', '.join(unknown)}; there are: {', '.join(known)}")
        return names

    return parse


def child(options: argparse.Namespace) -> None:
    """Runs one scenario in this process, and prints what it measured."""
    name, scenario, url = options.child
    folder, tested_system = options.folder, system.load(name)
    if folder is None:
        chosen = (QUICK if options.quick else FULL)[scenario]
    else:
        chosen, tested_system = profiled.SCENARIOS[scenario], profiled.Profiled(tested_system, folder)

    async def bounded() -> Any:
        async with asyncio.timeout(
            LIMIT - 10
        ):  # before the parent kills this process, so that the worker is stopped properly
            return await chosen.run(tested_system, url)

    measured = uvloop.run(bounded()) if folder is None else profiled.run(bounded, folder)
    json.dump(measured.to_json(), sys.stdout)


def measure(name: str, scenario: str, url: str, *, quick: bool, folder: Path | None = None) -> dict[str, Any]:
    """Runs one scenario as a process of its own on an emptied server. Returns its figures as a tree, or
    `{"error": why}`.

    With a folder, client and worker write their profiles there.
    """
    with redis.Redis.from_url(url) as client:
        client.flushall()
        client.config_resetstat()
    given = [*(["--quick"] if quick else []), *(["--folder", str(folder)] if folder else [])]
    argv = [sys.executable, __file__, *given, "--child", name, scenario, url]
    process = subprocess.Popen(
        argv,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        process_group=0,
        preexec_fn=server.die_with_parent,  # noqa: PLW1509  no threads here
    )
    try:
        out, err = process.communicate(timeout=LIMIT)
    except subprocess.TimeoutExpired:
        return {"error": f"not done after {LIMIT:g} s"}
    finally:
        _end_group(process)
    if process.returncode:
        lines = err.decode(errors="replace").strip().splitlines() or [f"exit code {process.returncode}"]
        print("\n".join(lines[-30:]), file=sys.stderr)
        return {
            "error": lines[-1].replace(str(system.HERE.parent), ".")
        }  # a result names no path of this machine
    tree: dict[str, Any] = json.loads(out)
    return tree


def _end_group(process: subprocess.Popen[bytes]) -> None:
    with suppress(ProcessLookupError):  # the usual case: it ended, and so did its worker
        os.killpg(process.pid, signal.SIGKILL)
    process.wait(5)


def profile(options: argparse.Namespace) -> int:
    """Runs the hot paths under a profiler, and writes the profiles. Returns the exit code."""
    pages, failed = [], []
    with server.running() as url:
        about = report.machine(url)
        for scenario in profiled.SCENARIOS:
            with tempfile.TemporaryDirectory() as folder:
                tree = measure("asyncq", scenario, url, quick=False, folder=Path(folder))
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


def main() -> int:
    options = arguments()
    system.raise_on_sigterm()
    if options.child:
        child(options)
        return 0
    if options.profile:
        return profile(options)
    runs: list[dict[str, Any]] = []
    with server.running() as url:
        about = report.machine(url)
        for round_number in range(1, options.rounds + 1):
            for scenario in options.only:
                for name in options.systems:
                    if FULL[scenario].features and name not in FEATURED:
                        continue
                    about_run = {"round": round_number, "system": name, "scenario": scenario}
                    about_run["others_busy"] = report.busy_cores(0.2)
                    tree = measure(name, scenario, url, quick=options.quick)
                    runs.append({**about_run, **tree})
                    print(
                        f"{round_number} {scenario:12} {name:8}",
                        tree.get("error") or tree["figures"],
                        flush=True,
                    )
    today = _today()
    about |= {"date": today, "command": _command()}
    stem = options.name or "-".join(options.systems) + ("-quick" if options.quick else "")
    table = report.write(system.HERE / "results" / f"{today}-{stem}", about, options.systems, runs)
    print(f"\n{table}")
    return int(any("error" in run for run in runs))


if __name__ == "__main__":
    sys.exit(main())
