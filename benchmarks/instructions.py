"""Counts the instructions and Redis commands of one job, for client and worker together:
`python benchmarks/instructions.py`, with `lone` or `batched` behind it for one way alone.

Valgrind counts the instructions; other load of the machine does not change their number. A process enqueues
jobs, runs them with a worker of its own, and awaits the results. The count begins after the first hundred
jobs, and ends before the app is closed. The server's commands are counted in a second run without valgrind,
because valgrind makes the process fifty times slower than its server. With BASELINE=PATH, another checkout is
measured, too, and the ratios are printed.

How often a process wakes, and how many jobs come in one batch, still depends on chance. So each figure is the
median of ROUNDS=N (default: 5), taken in turns with the baseline.
"""

from __future__ import annotations

import os
import re
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import redis
import server

if TYPE_CHECKING:
    from collections.abc import Sequence

HERE = Path(__file__).parent
JOBS = {"lone": 400, "batched": 2_000}
"""How many jobs are counted."""
BATCH = 250
"""How many jobs are enqueued in one call, and are waited for at once. What follows the clock seems fifty
times more frequent under valgrind, and the polls for lost notifications ask about each waiter that there is.
"""
BODY = """
import asyncio, gc, os, subprocess, sys
sys.path.insert(0, sys.argv[1])
import asyncq
assert asyncq.__file__.startswith(sys.argv[1]), asyncq.__file__
from asyncq import AsyncQ, Worker

# Heartbeats and observations of workers follow the clock, which seems fifty times faster under valgrind.
app = AsyncQ(sys.argv[2], namespace="n" + str(os.getpid()), lease=300)

@app.task
async def noop():
    pass

async def jobs(mode, count, batch):
    if mode == "lone":
        for _ in range(count):
            await (await noop.delay()).get()
    else:
        for left in range(count, 0, -batch):
            await (await noop.map([()] * min(left, batch))).get()

def count(what):
    if sys.argv[5]:
        subprocess.run([sys.argv[5], what, str(os.getpid())], check=True, stdout=subprocess.DEVNULL)
    print(flush=True)
    sys.stdin.readline()

async def main(mode, number, batch):
    async with app, Worker(app, concurrency=100):
        await jobs(mode, 100, batch)
        count("--zero")
        await jobs(mode, number, batch)
        count("--dump")

gc.disable()  # when it collects depends on what else there is
asyncio.run(main(sys.argv[3], int(sys.argv[4]), int(sys.argv[6])))
"""


def per_job(checkout: Path, url: str, mode: str) -> tuple[float, float]:
    """Returns the instructions of the process and the commands of its server, for each job."""
    with tempfile.TemporaryDirectory() as folder:
        valgrind = ("valgrind", "--tool=callgrind", f"--callgrind-out-file={folder}/counts")
        run(checkout, url, mode, folder, valgrind, "callgrind_control")
        dumped = Path(folder, "counts.1").read_text()
        commands = run(checkout, url, mode, folder)
    total = re.search(r"^summary: (\d+)", dumped, re.MULTILINE)
    assert total is not None, dumped[:1000]
    return int(total[1]) / JOBS[mode], commands / JOBS[mode]


def run(
    checkout: Path, url: str, mode: str, folder: str, under: Sequence[str] = (), control: str = ""
) -> int:
    """Runs the jobs in a process of their own, and returns the number of the server's commands.

    Args:
        checkout: whose asyncq is imported.
        url: of the server.
        mode: how the jobs are enqueued.
        folder: where the process runs.
        under: the command that runs it.
        control: the program that has the instructions counted.
    """
    process = subprocess.Popen(
        [*under, sys.executable, "-c", BODY, str(checkout), url, mode, str(JOBS[mode]), control, str(BATCH)],
        env=dict(os.environ, PYTHONHASHSEED="0", PYTHONDONTWRITEBYTECODE=""),
        cwd=folder,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stdin is not None
    assert process.stdout is not None
    usages = []
    with redis.Redis.from_url(url) as observer:
        for _ in range(2):
            process.stdout.readline()
            usages.append(server.Usage.read(observer))
            process.stdin.write("\n")
            process.stdin.flush()
    _, errors = process.communicate()
    if process.returncode:
        raise RuntimeError(errors)
    return usages[1].since(usages[0]).commands.total()


def main() -> None:
    checkouts = {"this": HERE.parent}
    if "BASELINE" in os.environ:
        checkouts["baseline"] = Path(os.environ["BASELINE"])
    rounds = int(os.environ.get("ROUNDS", "5"))
    with server.running() as url:
        for mode in sys.argv[1:] or JOBS:
            measured: dict[str, list[tuple[float, float]]] = {name: [] for name in checkouts}
            for _ in range(rounds):
                for name, path in checkouts.items():
                    measured[name].append(per_job(path, url, mode))
            figures = {
                name: [statistics.median(each) for each in zip(*pairs, strict=True)]
                for name, pairs in measured.items()
            }
            for name, (instructions, commands) in figures.items():
                print(f"{mode:8} {name:9} {instructions:12,.0f} instructions  {commands:6.2f} commands a job")
            if "baseline" in figures:
                ratios = [
                    this / baseline
                    for this, baseline in zip(figures["this"], figures["baseline"], strict=True)
                ]
                print(f"{mode:8} ratio     {ratios[0]:12.3f}               {ratios[1]:6.3f}")


if __name__ == "__main__":
    main()
