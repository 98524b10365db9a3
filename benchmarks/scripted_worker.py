"""A script that runs a worker of one checkout of asyncq. Its arguments are CHECKOUT URL CONCURRENCY."""

import os
import signal
import sys


async def _main(concurrency: int) -> None:
    import asyncio

    from adapters.asyncq_app import app

    from asyncq import Worker

    worker = asyncio.ensure_future(Worker(app, concurrency=concurrency).run())
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, worker.cancel)
    await asyncio.wait([worker])


if __name__ == "__main__":
    checkout, url, concurrency = sys.argv[1:]
    sys.path[:0] = [checkout, os.environ["PYTHONPATH"]]
    os.environ["ASYNCQ_URL"] = url
    import uvloop

    uvloop.run(_main(int(concurrency)))
