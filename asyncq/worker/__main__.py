"""A child process that runs jobs on their last try, see `processes.spawner`. To start a worker: `asyncq
worker`.
"""

from __future__ import annotations

import asyncio
import json
import logging
import os
import sys
from functools import partial
from typing import TYPE_CHECKING, Any

from asyncq import config, logs
from asyncq.system import early_signals
from asyncq.worker.processes import pool
from asyncq.worker.processes.app_source import NO_APP, AppSource
from asyncq.worker.processes.liveness import LifeSigns
from asyncq.worker.worker import Worker

if TYPE_CHECKING:
    from asyncq.app import AsyncQ

log: logging.Logger = logging.getLogger(__name__)


def main(target: str, setup: str, watcher: early_signals.Watcher | None) -> None:
    """The child: runs what waits in the last-attempt queues, and ends.

    Args:
        target: `module:attribute` of the app, which is seen in the list of processes.
        setup: as `spawner.Spawner` writes it.
        watcher: what ends the process at a signal, until the worker handles them.
    """
    given = json.loads(setup)
    # Before the app is imported: a module that never comes back must not count as a child that starts.
    signs = LifeSigns(given["pipe"], on_parent_end=lambda: os._exit(0))
    handler = logs.configure_child(*given["logging"])
    app = _load(target, given)
    logs.keep(handler, is_chosen=False)
    app.reconfigure(**given["settings"])

    async def run() -> None:
        worker = Worker(app, 1, given["queues"], target=given["target"], only_last_tries=True)
        worker.stop_on_signals()
        # Nobody is left to kill this process, so it hands back what it cannot end within its grace. If its
        # worker had asked it to stop before, it hands back at once.
        signs.on_parent_end = partial(asyncio.get_running_loop().call_soon_threadsafe, worker.stop)
        try:
            await worker.run()
        finally:
            signs.on_parent_end = _nothing

    if watcher is not None:
        watcher.close()
    try:
        asyncio.run(run())
    finally:
        logs.end_streams()  # its exit code says whether a job has taken it down


def _nothing() -> None:
    """The process ends by itself."""


def _load(target: str, given: dict[str, Any]) -> AsyncQ:
    """Imports the app, or ends the process."""
    sys.path[:], sys.argv[:] = given["path"], given["argv"]
    config.warn_of_no_variable()
    pool.importing = True  # a program that starts a worker when it is imported would start another here
    try:
        return AppSource(target, given["modules"], given["tasks"]).load()
    except BaseException:
        log.warning("the app cannot be imported for last tries", exc_info=True)
        logs.end_streams()
        os._exit(NO_APP)  # threads that a module has started must not hold it up
    finally:
        pool.importing = False


def _start() -> None:
    # Nothing runs while the app is imported: a worker that stops may end it at once, and that is no failure.
    with early_signals.leaving(lambda *_: os._exit(0)) as watcher:
        main(sys.argv[1], sys.stdin.read(), watcher)


if __name__ == "__main__":
    _start()
