"""The child process that runs jobs on their last try, see `last_try`. To start a worker: `asyncq worker`."""

from __future__ import annotations

import asyncio
import importlib
import json
import logging
import operator
import sys

from asyncq.worker.worker import Worker


def main(target: str, settings: str) -> None:
    """The child: runs what waits in the lanes of last tries, and ends."""
    module, _, attribute = target.partition(":")
    sys.path.insert(0, "")
    app = operator.attrgetter(attribute)(importlib.import_module(module))
    app.reconfigure(**json.loads(settings))

    async def run() -> None:
        worker = Worker(app, concurrency=1, only_last_tries=True)
        worker.stop_on_signals()
        await worker.run()

    asyncio.run(run())


if __name__ == "__main__":
    logging.basicConfig(format="%(levelname)s  %(message)s", level=logging.WARNING)
    main(sys.argv[1], sys.stdin.read())
