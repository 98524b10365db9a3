"""A worker process for the trials: `python -m chaos.worker`, or `python -m chaos.worker old` for a worker of
the previous release. It prints a line when it reads jobs.
"""

from __future__ import annotations

import asyncio
import logging
import os

from asyncq import Worker
from asyncq.failpoints import VARIABLE as FAILPOINTS
from chaos.app import app


async def main() -> None:
    logging.basicConfig(
        level=os.environ.get("CHAOS_LOG", "INFO"), format="%(asctime)s %(levelname)s %(message)s"
    )
    # The failpoints are for this process and not for its children: a trial that kills the worker must not
    # kill the child in which a last try runs.
    os.environ.pop(FAILPOINTS, None)
    worker = Worker(app, target="chaos.app:app")
    worker.stop_on_signals()
    running = asyncio.create_task(worker.run())
    started = asyncio.create_task(worker.started.wait())
    await asyncio.wait({running, started}, return_when=asyncio.FIRST_COMPLETED)
    print("ready", flush=True)  # noqa: T201  the process that started this one waits for it
    await running


if __name__ == "__main__":
    asyncio.run(main())
