"""Shows where client and worker spend their time: one run of a scenario under cProfile, with a profile for
each process.

A profile says what to look at, not how fast it is: cProfile adds some 0.1 us to every call of a function, so
small functions look more expensive than they are.
"""

import cProfile
import pstats
import re
import sys
from collections.abc import Awaitable, Callable
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import Any

import uvloop
from scenario import Measured, Scenario
from system import HERE, Client, System
from throughput import Drain, Enqueue

TOP = 25
WAITS = {"<built-in method time.sleep>", "<method 'recv_into' of '_socket.socket' objects>"}
"""The functions in which the scenario waits when it observes the server. They are left out."""
SCENARIOS: dict[str, Scenario] = {"drain": Drain(jobs=60_000), "enqueue": Enqueue(jobs=20_000)}
"""With so many jobs, the start of a process takes a small part of the time."""
JOBS = {"drain": 60_000, "enqueue": 65_020}
"""How many jobs each scenario enqueues in all."""


class Profiled:
    """A system whose worker writes a profile when it ends.

    Args:
        system: the real one.
        folder: where the worker's profile goes.
    """

    def __init__(self, system: System, folder: Path) -> None:
        self._system = system
        self._folder = folder

    def __getattr__(self, name: str) -> Any:
        return getattr(self._system, name)

    def worker(self, url: str) -> list[str]:
        words = self._system.worker(url)
        if words[0] == sys.executable:
            words = words[1:]
        return [sys.executable, "-m", "cProfile", "-o", str(self._folder / "worker"), *words]

    def open(self, url: str, callers: int = 1) -> AbstractAsyncContextManager[Client]:
        return self._system.open(url, callers)


def run(body: Callable[[], Awaitable[Measured]], folder: Path) -> Measured:
    """Runs a scenario in this process, and writes the profile of the client."""
    profile = cProfile.Profile()
    try:
        return profile.runcall(uvloop.run, body())
    finally:
        profile.dump_stats(folder / "client")


def page(name: str, folder: Path) -> str:
    """Returns the profiles of one run as text, the most expensive functions first."""
    found = [folder / process for process in ("client", "worker") if (folder / process).exists()]
    return "\n".join(_table(f"{name}: {path.name}", JOBS[name], pstats.Stats(str(path))) for path in found)


def _table(title: str, jobs: int, stats: Any) -> str:
    dearest = sorted(stats.stats.items(), key=lambda item: item[1][2], reverse=True)
    rows = [item for item in dearest if item[0][2] not in WAITS][:TOP]
    lines = [
        f"## {title}, {jobs:,} jobs, {stats.total_calls / jobs:.1f} calls a job",
        "",
        "   own us/job  with what it calls  calls/job  function",
        *(
            f"{own / jobs * 1e6:13.2f} {whole / jobs * 1e6:19.2f} {calls / jobs:10.2f}  {_name(*function)}"
            for function, (_, calls, own, whole, _) in rows
        ),
        "",
    ]
    return "\n".join(lines)


def _name(file: str, line: int, function: str) -> str:
    """Returns the name of a function with its file and line, without the folders of this machine."""
    if file in {"~", ""}:
        return re.sub(r" at 0x\w+", "", function)
    path = Path(file)
    inside = path.relative_to(HERE.parent) if path.is_relative_to(HERE.parent) else Path(path.name)
    short = path.name if "site-packages" in path.parts else inside
    return f"{function} ({short}:{line})"
