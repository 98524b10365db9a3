"""The child process that runs jobs on their last try, see `last_try`. To start a worker: `asyncq worker`."""

from __future__ import annotations

import asyncio
import importlib
import json
import operator
import os
import sys

from asyncq import config, early_signals, logs
from asyncq.worker.worker import Worker


def main(target: str, setup: str, watcher: early_signals.Watcher | None) -> None:
    """The child: runs what waits in the lanes of last tries, and ends.

    Args:
        target: `module:attribute` of the app.
        setup: as `last_try.Spawner` writes it.
        watcher: what ends the process at a signal, until the worker handles them.
    """
    given = json.loads(setup)
    handler = logs.configure_child(*given["logging"])
    module, _, attribute = target.partition(":")
    sys.path.insert(0, "")
    config.warn_of_no_variable()
    app = operator.attrgetter(attribute)(importlib.import_module(module))
    logs.keep(handler, is_chosen=False)
    app.reconfigure(**given["settings"])

    async def run() -> None:
        worker = Worker(app, concurrency=1, target=target, only_last_tries=True)
        worker.stop_on_signals()
        await worker.run()

    if watcher is not None:
        watcher.close()
    try:
        asyncio.run(run())
    finally:
        logs.end_streams()  # its exit code says whether a job has taken it down


def _start() -> None:
    # Nothing runs while the app is imported: a worker that stops may end it at once, and that is no failure.
    with early_signals.leaving(lambda *_: os._exit(0)) as watcher:
        main(sys.argv[1], sys.stdin.read(), watcher)


if __name__ == "__main__":
    _start()
