"""The child process that runs jobs on their last try, see `last_try`. To start a worker: `asyncq worker`."""

from __future__ import annotations

import asyncio
import importlib
import json
import logging
import operator
import sys

from asyncq.worker.worker import Worker


class _OneLine(logging.Formatter):
    """A record is a line, whatever was put into it by whoever named a task."""

    def formatMessage(self, record: logging.LogRecord) -> str:
        """The message, with control characters escaped."""
        return super().formatMessage(record).encode("unicode_escape").decode()


def main(target: str, settings: str) -> None:
    """The child: runs what waits in the lanes of last tries, and ends."""
    module, _, attribute = target.partition(":")
    sys.path.insert(0, "")
    app = operator.attrgetter(attribute)(importlib.import_module(module))
    app.reconfigure(**json.loads(settings))

    async def run() -> None:
        worker = Worker(app, concurrency=1, target=target, only_last_tries=True)
        worker.stop_on_signals()
        await worker.run()

    asyncio.run(run())


if __name__ == "__main__":
    handler: logging.Handler = logging.StreamHandler()
    handler.setFormatter(_OneLine("%(levelname)s  %(message)s"))
    logging.basicConfig(handlers=[handler], level=logging.WARNING)
    main(sys.argv[1], sys.stdin.read())
