"""How much memory of the server a kept result takes: `python benchmarks/result_memory.py [JOBS]`.

Jobs that return texts of several sizes run on a private server. The figures are the growth of its memory in
use, for each job that has ended: the record with its outcome, and what the server needs around it. A result
is kept for `result_ttl`. The lists of ended jobs (the history) are full before the count begins, so they are
not in the figures.
"""

import asyncio
import sys

import redis
import server

from asyncq import AsyncQ, Worker

SIZES = (0, 100, 1_000, 10_000, 100_000)
BATCH = 1_000


async def measure(url: str, jobs: int) -> dict[int, float]:
    """Returns the bytes for each result, by the size of the returned text. `jobs` is for small ones."""
    app = AsyncQ(url, history=BATCH, result_ttl=3600)

    @app.task(name="text")
    async def text(size: int) -> str:
        return "x" * size

    async def run(size: int, count: int) -> None:
        for begin in range(0, count, BATCH):
            calls = [(size,)] * min(BATCH, count - begin)
            await (await text.map(calls)).get(timeout=120)

    found = {}
    with redis.Redis.from_url(url) as observer:
        async with app, Worker(app):
            await run(0, 3 * BATCH)
            for size in SIZES:
                count = max(100, min(jobs, 20_000_000 // (size + 1)))
                before = observer.info("memory")["used_memory"]
                await run(size, count)
                found[size] = (observer.info("memory")["used_memory"] - before) / count
    return found


def main(jobs: int) -> None:
    with server.running() as url:
        for size, each in asyncio.run(measure(url, jobs)).items():
            print(f"{size:>7,} bytes returned: {each:>9,.0f} bytes of the server's memory for each result")


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 20_000)
