"""What it costs to wait for a replica.

    python benchmarks/replicas.py [--seconds 2] [--rounds 5] [--durable]

A private server with one replica on this machine, on loopback TCP; with `--durable` both sync an append-only
file with every write (`appendfsync always`). Enqueues with `replicas=1` beside enqueues with `replicas=0`, in
turn: one caller, who makes one call after the other, and a hundred callers in one process. No worker runs.
"""

import argparse
import asyncio
import statistics
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

import redis
import server
from system import wait_until

from asyncq import AsyncQ

CALLERS = (1, 100)


@contextmanager
def with_replica(*, durable: bool) -> Iterator[str]:
    """Runs a server and its replica, and yields the URL of the server."""
    with ExitStack() as stack:
        url, other = (stack.enter_context(server.running()) for _ in range(2))
        primary, replica = (stack.enter_context(redis.Redis.from_url(each)) for each in (url, other))
        if durable:
            for each in (primary, replica):
                each.config_set("appendfsync", "always")
                each.config_set("appendonly", "yes")
        primary.config_set("repl-diskless-sync-delay", 0)
        replica.replicaof("127.0.0.1", primary.connection_pool.connection_kwargs["port"])
        wait_until(lambda: primary.wait(1, 100) == 1, within=20, what="the replica follows")
        yield url


async def measure(url: str, replicas: int, callers: int, seconds: float) -> tuple[float, float]:
    """Returns the median time of a call in seconds, and calls per second."""
    app = AsyncQ(url, namespace=f"replicas{replicas}", replicas=replicas)

    @app.task(name="noop")
    async def noop() -> None:
        """Does nothing."""

    times: list[float] = []

    async def call(until: float) -> None:
        while (begin := time.perf_counter()) < until:
            await noop.delay()
            times.append(time.perf_counter() - begin)

    async with app:
        await asyncio.gather(*(noop.delay() for _ in range(callers)))
        begin = time.perf_counter()
        await asyncio.gather(*(call(begin + seconds) for _ in range(callers)))
        rate = len(times) / (time.perf_counter() - begin)
    with redis.Redis.from_url(url) as client:
        server.empty(client)
    return statistics.median(times), rate


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--seconds", type=float, default=2.0)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--durable", action="store_true")
    options = parser.parse_args()
    with with_replica(durable=options.durable) as url:
        for callers in CALLERS:
            found: dict[int, list[tuple[float, float]]] = {0: [], 1: []}
            for _ in range(options.rounds):
                for replicas, measured in found.items():
                    measured.append(asyncio.run(measure(url, replicas, callers, options.seconds)))
            ratios = [one[0] / none[0] for none, one in zip(found[0], found[1], strict=True)]
            print(f"{callers} caller{'s' if callers > 1 else ''}:")
            for replicas, rounds in found.items():
                took, rate = (statistics.median(column) for column in zip(*rounds, strict=True))
                print(f"  replicas={replicas}: {took * 1e6:>8,.0f} us a call, {rate:>8,.0f} calls/s")
            low, middle, high = min(ratios), statistics.median(ratios), max(ratios)
            print(f"  a call takes {middle:.2f} times as long ({low:.2f} to {high:.2f})")


if __name__ == "__main__":
    main()
