"""Measures what a call outside of any block costs more, because it hops to the thread of the background
session: `python benchmarks/app_loop.py`.

It asks for the same ended result in turns: through the session of a block, and through the background
session. It prints the medians of the rounds, in microseconds a call.
"""

from __future__ import annotations

import asyncio
import statistics
import time

from asyncq import AsyncQ, Worker

ROUNDS, CALLS = 9, 500


async def round_of(handle) -> float:
    started = time.perf_counter()
    for _ in range(CALLS):
        await handle.exists()
    return (time.perf_counter() - started) / CALLS * 1e6


async def main() -> None:
    app = AsyncQ("memory://")

    @app.task
    async def noop() -> None:
        pass

    async with app, Worker(app):
        handle = await noop.delay()
        await handle.get()
    direct, from_other_threads = [], []
    for _ in range(ROUNDS):
        async with app:
            direct.append(await round_of(handle))
        from_other_threads.append(await round_of(handle))
    await app.close()
    in_block, outside = statistics.median(direct), statistics.median(from_other_threads)
    print(
        f"in a block {in_block:.0f} us, outside {outside:.0f} us: the hop costs {outside - in_block:.0f} us"
    )


if __name__ == "__main__":
    asyncio.run(main())
