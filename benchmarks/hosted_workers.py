"""A process with several workers of asyncq on one loop: `python hosted_workers.py URL COUNT`.

Two hundred processes would need some 9 GiB and a minute to start. The server does not see the difference:
each worker here has an app of its own, so it has a session, connections, heartbeats and loops of its own.
They share the loop and the processor time of the process.
"""

import asyncio
import signal
import sys

import bodies
import uvloop
from system import CONCURRENCY

from asyncq import AsyncQ, Worker


async def host(url: str, count: int) -> None:
    """Runs so many workers until SIGTERM."""
    stop = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
    started = [asyncio.Event() for _ in range(count)]

    async def one(ready: asyncio.Event) -> None:
        app = AsyncQ(url)
        app.task(bodies.echo)
        async with Worker(app, CONCURRENCY):
            ready.set()
            await stop.wait()

    async with asyncio.TaskGroup() as group:
        for each in started:
            group.create_task(one(each))
        for each in started:
            await each.wait()
        print("ready", flush=True)


if __name__ == "__main__":
    uvloop.run(host(sys.argv[1], int(sys.argv[2])))
