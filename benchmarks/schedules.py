"""How late the ticks of many schedules are, and what schedules cost that do not tick.

    python benchmarks/schedules.py [--schedules 1000] [--workers 2] [--rounds 3]

All schedules tick in the same second, every ten seconds, and their jobs do nothing. The workers are processes
of their own, and run those jobs meanwhile. A tick is late from its time to the entry of its job in the queue,
both by the server's clock. Before that, the same number of schedules wait for a time that does not come: the
commands of all workers at the server, with them and without. The module is also the app.
"""

import argparse
import asyncio
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta

import redis
import server
import workers
from system import wait_until

from asyncq import AsyncQ

EVERY = 10
"""Seconds between two ticks."""
IDLE = 20
"""For so many seconds commands are counted."""

app = AsyncQ()


@app.task(name="noop")
async def noop() -> None:
    """Does nothing."""


def commands_per_second(observer: redis.Redis) -> float:
    """Counts the commands at the server for a while, without those of the count itself."""
    before, began = observer.info("stats")["total_commands_processed"], time.monotonic()
    time.sleep(IDLE)
    return (observer.info("stats")["total_commands_processed"] - before - 1) / (time.monotonic() - began)


@contextmanager
def scheduled(url: str, names: list[str], every: int, start: datetime | None = None) -> Iterator[None]:
    """Adds schedules, and removes them at the end."""

    async def add() -> None:
        async with AsyncQ(url) as client:
            call = client.task_named("noop").s()
            adds = (
                client.schedules.add(name, call, every=every, start=start, overlap=True) for name in names
            )
            await asyncio.gather(*adds)

    async def remove() -> None:
        async with AsyncQ(url) as client:
            await asyncio.gather(*map(client.schedules.remove, names))

    asyncio.run(add())
    try:
        yield
    finally:
        asyncio.run(remove())


def jobs(observer: redis.Redis) -> dict[datetime, list[float]]:
    """Returns for each tick by how many ms each of its jobs was late."""
    found: dict[datetime, list[float]] = {}
    for key in observer.scan_iter(match="*:r:pulse-*", count=10_000):
        text = key.rpartition(b":")[2].decode()
        tick = datetime.strptime(text, "%Y%m%dT%H%M%SZ").replace(tzinfo=UTC)
        entry = observer.get(key).split()[1]
        found.setdefault(tick, []).append(int(entry.partition(b"-")[0]) - tick.timestamp() * 1000)
    return found


def lateness(observer: redis.Redis, schedules: int, ticks: list[datetime]) -> list[float]:
    """Waits for the ticks. Returns by how many ms each of their jobs was late, in order."""
    time.sleep((ticks[-1] - datetime.now(UTC)).total_seconds() + 1)

    def made() -> bool:
        found = jobs(observer)
        return all(len(found.get(tick, ())) == schedules for tick in ticks)

    wait_until(made, within=30, what="each tick has as many jobs as there are schedules", every=0.5)
    found = jobs(observer)
    return sorted(late for tick in ticks for late in found[tick])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--schedules", type=int, default=1000)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=3)
    arguments = parser.parse_args()
    names = [f"pulse-{number}" for number in range(arguments.schedules)]
    with server.running() as url, redis.Redis.from_url(url) as observer:
        process, _ = workers.start(url, arguments.workers, "schedules:app")
        try:
            time.sleep(2)
            without = commands_per_second(observer)
            with scheduled(url, names, every=86_400):
                time.sleep(2)
                idle = commands_per_second(observer)
            first = datetime.now(UTC).replace(microsecond=0) + timedelta(seconds=10)
            ticks = [first + timedelta(seconds=EVERY * number) for number in range(arguments.rounds)]
            with scheduled(url, names, every=EVERY, start=first):
                late = lateness(observer, len(names), ticks)
        finally:
            server.stop(process)
    print(f"{len(names)} schedules, {arguments.workers} workers")
    print(f"commands per second without schedules, with schedules that wait: {without:.1f}, {idle:.1f}")
    shares = (("p50", 0.5), ("p90", 0.9), ("p99", 0.99), ("max", 1.0))
    figures = ", ".join(f"{name} {late[int((len(late) - 1) * share)]:.0f}" for name, share in shares)
    print(f"{len(late)} ticks of the same {len(ticks)} seconds, ms late: {figures}")


if __name__ == "__main__":
    main()
