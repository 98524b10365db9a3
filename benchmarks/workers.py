"""What several worker processes bring: one beside two, with jobs that do nothing and with jobs that compute.

    python benchmarks/workers.py [--rounds 3] [--workers 2] [--jobs 100000]

A client enqueues the jobs and closes. Then `asyncq worker --workers N` is started. The clock runs from the
moment when all workers are ready to the first check that finds the queue empty, so only the jobs count that
are left by then. CPU per job is that of all worker processes, without their start. The module is also the
app.
"""

import argparse
import asyncio
import os
import re
import signal
import statistics
import subprocess
import sys
import time
from pathlib import Path

import redis
import server
from system import wait_until

from asyncq import AsyncQ, Task

HERE = Path(__file__).parent
COMPUTE = 200e-6
"""Seconds of CPU that a job computes."""
MAP_SIZE = 1000
TICKS = os.sysconf("SC_CLK_TCK")

app = AsyncQ()


@app.task
async def noop() -> None:
    """Does nothing."""


@app.task
async def compute() -> None:
    """Computes in Python, on the event loop."""
    end = time.thread_time() + COMPUTE
    while time.thread_time() < end:
        pass


async def enqueue(task: Task, jobs: int) -> None:
    async with app:
        for _ in range(0, jobs, MAP_SIZE):
            await task.map([()] * MAP_SIZE)


def cpu(pids: list[int]) -> float:
    """Returns the seconds of CPU that processes have used so far."""
    fields = [Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split() for pid in pids]
    return sum(int(each[11]) + int(each[12]) for each in fields) / TICKS


def start(url: str, workers: int, module: str = "workers") -> tuple[subprocess.Popen[str], list[int]]:
    """Starts workers of a module's app, and returns their command and their processes when all are ready."""
    process = subprocess.Popen(
        [sys.executable, "-m", "asyncq", "worker", module, "-w", str(workers)],
        env={**os.environ, "ASYNCQ_URL": url, "PYTHONPATH": str(HERE)},
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=server.die_with_parent,  # noqa: PLW1509  there are no threads yet
    )
    assert process.stderr is not None
    pids: list[int] = []
    for line in process.stderr:
        pids += map(int, re.findall(r"\(pid (\d+)\)", line))
        if line.startswith("ready"):
            return process, pids or [process.pid]
    raise RuntimeError(f"the workers ended with {process.wait()}")


def measure(url: str, task: Task, workers: int, jobs: int) -> tuple[float, float]:
    """Returns jobs per second, and microseconds of the workers' CPU for each job."""
    with redis.Redis.from_url(url) as observer:
        observer.flushall()
        asyncio.run(enqueue(task, jobs))
        (stream,) = observer.scan_iter(count=10_000, _type="stream")
        process, pids = start(url, workers)
        began, left, used = time.perf_counter(), observer.xlen(stream), cpu(pids)
        wait_until(lambda: observer.xlen(stream) == 0, within=120, what="the queue is empty", every=0.005)
        took, used = time.perf_counter() - began, cpu(pids) - used
    process.send_signal(signal.SIGTERM)
    process.communicate(timeout=30)
    return left / took, used / left * 1e6


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--jobs", type=int, default=100_000)
    options = parser.parse_args()
    with server.running() as url:
        app.reconfigure(url=url)
        for task, jobs in ((noop, options.jobs), (compute, options.jobs // 5)):
            found: dict[int, list[tuple[float, float]]] = {1: [], options.workers: []}
            for _ in range(options.rounds):
                for workers, measured in found.items():
                    measured.append(measure(url, task, workers, jobs))
            rates = {workers: [rate for rate, _ in measured] for workers, measured in found.items()}
            for workers, measured in found.items():
                each = statistics.median(used for _, used in measured)
                print(
                    f"{task.name:16} {workers} workers: {statistics.median(rates[workers]):9,.0f} jobs/s "
                    f"({min(rates[workers]):,.0f} to {max(rates[workers]):,.0f}), {each:6.1f} us of CPU a job"
                )
            ratios = [many / one for one, many in zip(*rates.values(), strict=True)]
            spread = f"{min(ratios):.2f} to {max(ratios):.2f}"
            print(f"{task.name:16} ratio {statistics.median(ratios):.2f} ({spread})")


if __name__ == "__main__":
    main()
