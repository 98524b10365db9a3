"""A worker process with schedules in code: `python -m helpers.schedule_jobs`. `SCHEDULES` says which, as
JSON: the options of each task by its name. Without `SCHEDULES` it has the task `note` alone.
"""

from __future__ import annotations

import asyncio
import json
import os
import sys

import asyncq
from asyncq import AsyncQ, Worker
from helpers.notes import note


def register(app: AsyncQ) -> None:
    """Registers a task for each schedule. It notes the id of its job and the process that ran it."""
    for name, options in json.loads(os.environ.get("SCHEDULES", '{"note": {}}')).items():

        async def body() -> None:
            if log := os.environ.get("SCHEDULE_LOG"):
                note(log, f"{asyncq.current().id} {os.getpid()}")

        app.task(name=name, **options)(body)


async def main() -> None:
    app = AsyncQ()
    register(app)
    worker = Worker(app)
    worker.stop_on_signals()
    running = asyncio.create_task(worker.run())
    await worker.started.wait()
    sys.stdout.write("ready\n")
    sys.stdout.flush()
    await running


if __name__ == "__main__":
    asyncio.run(main())
