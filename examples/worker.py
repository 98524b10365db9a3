"""A worker in a process of its own: `python examples/worker.py` serves tasks.py until Ctrl-C or SIGTERM."""

import asyncio
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager

from tasks import app

from asyncq import Worker


async def main() -> None:
    worker = Worker(app)
    worker.stop_on_signals()
    await worker.run()


@contextmanager
def background_worker() -> Iterator[None]:
    """Runs this file beside a script for as long as the block lasts."""
    process = subprocess.Popen([sys.executable, __file__])  # noqa: S603  this file
    try:
        yield
    finally:
        process.terminate()
        process.wait()


if __name__ == "__main__":
    asyncio.run(main())
