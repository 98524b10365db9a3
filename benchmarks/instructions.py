"""Instructions and commands a job, of client and worker together: `python benchmarks/instructions.py`.

Valgrind counts instructions, which a loaded machine does not change. A process enqueues jobs, runs them with
a worker of its own and awaits the results; run with few and with many jobs, the difference is what the jobs
cost. The server's commands are counted likewise. With BASELINE=PATH, another checkout is measured beside this
one, and the ratios are printed.

How often a process wakes, and how many jobs come in one batch, depend on the machine's moments all the same:
one measurement is off by up to 3 %, and far more while something else runs. So each figure is the median of
ROUNDS=N (default: 5), taken in turns with the baseline.
"""

from __future__ import annotations

import os
import re
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

import redis
import server

HERE = Path(__file__).parent
LONE, BATCHED = (50, 250), (1_000, 4_000)
"""How many jobs the short and the long run have."""
BODY = """
import asyncio, gc, sys
sys.path.insert(0, sys.argv[1])
import asyncq
assert asyncq.__file__.startswith(sys.argv[1]), asyncq.__file__
from asyncq import AsyncQ, Worker

app = AsyncQ(sys.argv[2], namespace="n" + sys.argv[4])

@app.task
async def noop():
    pass

async def main(way, count):
    async with app, Worker(app, concurrency=100):
        await (await noop.delay()).get()
        if way == "lone":
            for _ in range(count):
                await (await noop.delay()).get()
        else:
            await (await noop.map([()] * count)).get()

gc.disable()  # when it collects depends on what else there is
asyncio.run(main(sys.argv[3], int(sys.argv[4])))
"""


def counted(checkout: Path, url: str, way: str, jobs: int) -> tuple[int, int]:
    """The instructions of a process that runs so many jobs, and the commands that it has the server run."""
    environment = dict(os.environ, PYTHONHASHSEED="0", PYTHONDONTWRITEBYTECODE="")
    with redis.Redis.from_url(url) as observer, tempfile.TemporaryDirectory() as folder:
        before = server.Usage.read(observer)
        done = subprocess.run(
            [
                *("valgrind", "--tool=callgrind", "--callgrind-out-file=/dev/null"),
                *(sys.executable, "-c", BODY, str(checkout), url, way, str(jobs)),
            ],
            env=environment,
            cwd=folder,
            capture_output=True,
            text=True,
            check=False,
        )
        spent = server.Usage.read(observer).since(before)
    found = re.search(r"Collected : (\d+)", done.stderr)
    if done.returncode or found is None:
        raise RuntimeError(done.stderr)
    return int(found[1]), spent.commands.total()


def per_job(checkout: Path, url: str, way: str, counts: tuple[int, int]) -> tuple[float, float]:
    """Instructions and commands that one more job costs."""
    few, many = (counted(checkout, url, way, jobs) for jobs in counts)
    more = counts[1] - counts[0]
    return (many[0] - few[0]) / more, (many[1] - few[1]) / more


def main() -> None:
    checkouts = {"this": HERE.parent}
    if "BASELINE" in os.environ:
        checkouts["baseline"] = Path(os.environ["BASELINE"])
    rounds = int(os.environ.get("ROUNDS", "5"))
    with server.running() as url:
        for way, counts in (("lone", LONE), ("batched", BATCHED)):
            taken: dict[str, list[tuple[float, float]]] = {name: [] for name in checkouts}
            for _ in range(rounds):
                for name, path in checkouts.items():
                    taken[name].append(per_job(path, url, way, counts))
            figures = {
                name: [statistics.median(each) for each in zip(*pairs, strict=True)]
                for name, pairs in taken.items()
            }
            for name, (instructions, commands) in figures.items():
                print(f"{way:8} {name:9} {instructions:12,.0f} instructions  {commands:6.2f} commands a job")
            if "baseline" in figures:
                ratios = [mine / its for mine, its in zip(figures["this"], figures["baseline"], strict=True)]
                print(f"{way:8} ratio     {ratios[0]:12.3f}               {ratios[1]:6.3f}")


if __name__ == "__main__":
    main()
