"""What a job costs the servers of a Cluster with one, two and three primaries, and how even the shards are.

    python benchmarks/cluster_scale.py [--jobs 20000] [--rounds 3] [--shards 12]

A Cluster of primaries without replicas runs on this machine, of one number after the other in each round. A
process enqueues jobs that do nothing, in batches of a thousand for each primary, for a larger Cluster is for
more load, and waits for all of them; a worker in a process of its own runs them. The time that the processors
spent in all servers, by INFO, is divided by the jobs. What the same servers and the idle worker spend in the
same time without jobs is taken off. The machine's speed varies, so the figures of one round are compared with
each other. Two cores do not get faster by a third server, so nothing is said about jobs a second: the cost of
a job tells how many a primary can do. The module is also the app.
"""

import argparse
import asyncio
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import redis
import server
from system import wait_until

from asyncq import AsyncQ
from asyncq.broker.schema.shards import Shards

SLOTS = 16384
BATCH = 1000
IDLE = 5
"""For so many seconds the servers are looked at without jobs."""

app = AsyncQ()


@app.task(name="noop")
async def noop() -> None:
    """Does nothing."""


@contextmanager
def cluster(primaries: int) -> Iterator[list[redis.Redis]]:
    """Gives clients of the nodes of a cluster without replicas."""
    with tempfile.TemporaryDirectory() as folder:
        processes = []
        try:
            ports = [server.free_port() for _ in range(primaries)]
            for port in ports:
                directory = Path(folder, str(port))
                directory.mkdir()
                words = ["--port", port, "--dir", directory, "--cluster-enabled", "yes", "--save", ""]
                words += ["--cluster-port", server.free_port()]
                command = [str(server.binary()), *map(str, words)]
                processes.append(server.spawn(command, output=subprocess.DEVNULL))
            yield _joined(ports)
        finally:
            for process in processes:
                server.stop(process)


def _joined(ports: list[int]) -> list[redis.Redis]:
    nodes = [redis.Redis(port=port, decode_responses=True) for port in ports]
    for number, node in enumerate(nodes):
        wait_until(lambda node=node: _answers(node), within=10, what="a node to answer")
        first, behind = (SLOTS * n // len(nodes) for n in (number, number + 1))
        node.execute_command("CLUSTER ADDSLOTSRANGE", first, behind - 1)
        node.execute_command("CLUSTER SET-CONFIG-EPOCH", number + 1)
        bus = node.config_get("cluster-port")["cluster-port"]
        nodes[0].execute_command("CLUSTER MEET", "127.0.0.1", ports[number], bus)
    wait_until(
        lambda: all(_is_up(node, len(nodes)) for node in nodes), within=20, what="the cluster to be up"
    )
    return nodes


def _answers(node: redis.Redis) -> bool:
    with suppress(redis.ConnectionError):
        return bool(node.ping())
    return False


def _is_up(node: redis.Redis, count: int) -> bool:
    facts = node.execute_command("CLUSTER INFO")
    return facts["cluster_state"] == "ok" and int(facts["cluster_known_nodes"]) == count


def cpu(nodes: list[redis.Redis]) -> list[float]:
    """Returns the seconds that the processors have spent in each server."""
    facts = [node.info("cpu") for node in nodes]
    return [each["used_cpu_user"] + each["used_cpu_sys"] for each in facts]


async def drain(url: str, jobs: int, batch: int, shards: int) -> list[int]:
    """Enqueues jobs in batches and waits for all of them. Returns how many each shard had."""
    counts = [0] * shards
    where = Shards("asyncq", shards)
    async with AsyncQ(url, shards=shards) as client:
        task = client.task_named("noop")
        for _ in range(jobs // batch):
            results = await task.map([()] * batch)
            await results.get(timeout=60)
            for result in results:
                counts[where.number(result.id)] += 1
    return counts


def measured(primaries: int, jobs: int, shards: int) -> tuple[list[float], list[int]]:
    """Returns the microseconds of each server for a job, and how many jobs each shard had."""
    with cluster(primaries) as nodes:
        hosts = ",".join(f"127.0.0.1:{node.connection_pool.connection_kwargs['port']}" for node in nodes)
        url = f"redis+cluster://{hosts}"
        environment = {**os.environ, "ASYNCQ_URL": url, "ASYNCQ_SHARDS": str(shards)}
        words = [sys.executable, "-m", "asyncq", "--quiet", "worker", "cluster_scale:app"]
        folder = Path(__file__).parent
        worker = subprocess.Popen(words, cwd=folder, env=environment, stderr=subprocess.DEVNULL)
        try:
            batch = BATCH * primaries
            asyncio.run(drain(url, batch, batch, shards))  # the worker is there, and the scripts are loaded
            start = cpu(nodes)
            time.sleep(IDLE)
            before, began = cpu(nodes), time.monotonic()
            counts = asyncio.run(drain(url, jobs, batch, shards))
            after, idle = cpu(nodes), (time.monotonic() - began) / IDLE
            costs = [c - b - (b - a) * idle for a, b, c in zip(start, before, after, strict=True)]
            return [cost / jobs * 1e6 for cost in costs], counts
        finally:
            worker.terminate()
            worker.wait(30)


def main() -> None:
    """Measures, and prints a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--jobs", type=int, default=20_000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--shards", type=int, default=12)
    given = parser.parse_args()
    totals: dict[int, list[float]] = {1: [], 2: [], 3: []}
    unevenness: list[float] = []
    for number in range(given.rounds):
        for primaries, costs in totals.items():
            began = time.monotonic()
            each, counts = measured(primaries, given.jobs, given.shards)
            costs.append(sum(each))
            unevenness.append(max(counts) / statistics.mean(counts))
            shown = " + ".join(f"{cost:.1f}" for cost in each)
            took = time.monotonic() - began
            print(f"round {number + 1}, {primaries} primaries: {shown} us a job ({took:.0f} s)", flush=True)
    print(
        "\n| primaries | us of all servers for a job, median | of one primary's in the same round, median |"
    )
    print("|---|---|---|")
    for primaries, costs in totals.items():
        ratios = [cost / one for cost, one in zip(costs, totals[1], strict=True)]
        print(f"| {primaries} | {statistics.median(costs):.1f} | {statistics.median(ratios):.2f} |")
    print(f"\nthe fullest shard has {max(unevenness):.2f} times the mean")


if __name__ == "__main__":
    main()
