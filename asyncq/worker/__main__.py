"""The program of a child process that runs jobs on their last try, see `processes.spawner`.

A worker starts it; to start a worker, use `asyncq worker`. The process runs one job at a time on the loop of
its own `Worker`, and ends when no job is left. Its exit code tells the worker whether a job took it down.
"""

from __future__ import annotations

import asyncio
import json
import logging
import os
import signal
import sys
from functools import partial
from typing import TYPE_CHECKING, Any

from asyncq import config, logs
from asyncq.errors import AsyncQError
from asyncq.system import early_signals
from asyncq.worker.processes import pool
from asyncq.worker.processes.app_source import NO_APP, WORKER_FAILED, AppSource
from asyncq.worker.processes.liveness import LifeSigns
from asyncq.worker.worker import Worker

if TYPE_CHECKING:
    from asyncq.app import AsyncQ

log: logging.Logger = logging.getLogger(__name__)


def main(target: str, setup: str, watcher: early_signals.Watcher | None) -> None:
    """Runs what waits in the last-attempt queues, and ends.

    Args:
        target: `module:attribute` of the app. It is an argument so that the list of processes shows it.
        setup: JSON, as `spawner.Spawner` writes it.
        watcher: ends the process at a signal, until the worker handles signals.
    """
    given = json.loads(setup)
    # Before the app is imported: a module that never comes back must not count as a child that starts.
    signs = LifeSigns(given["pipe"], given["parent"], on_parent_end=lambda: os._exit(0))
    handler = logs.configure_child(*given["logging"])
    app = _load(target, given)
    logs.keep(handler, is_chosen=False)
    app.reconfigure(**given["settings"])

    async def run() -> int:
        worker = Worker(app, 1, given["queues"], target=given["target"], only_last_tries=True)
        _stop_on_signals(worker)
        # Nobody is left to kill this process, so it hands back what it cannot end within its grace. If its
        # worker had asked it to stop before, it hands back at once.
        signs.on_parent_end = partial(asyncio.get_running_loop().call_soon_threadsafe, worker.stop)
        try:
            await worker.run()
        except AsyncQError as error:
            log.error("this process for jobs on their last try ends: %s", error)
            return WORKER_FAILED
        finally:
            signs.on_parent_end = _nothing
        return 0

    if watcher is not None:
        watcher.close()
    try:
        code = asyncio.run(run())
    finally:
        logs.end_streams()  # a lost standard stream must not change the exit code: it tells of jobs
    if code:
        sys.exit(code)


def _stop_on_signals(worker: Worker) -> None:
    """Makes SIGTERM and SIGINT stop the worker. The second of the two hands back its job at once.

    The spawner sends SIGTERM and then SIGINT. The same signal counts once: a service manager that stops the
    spawner's process may send a SIGTERM to this one as well, and the job still has its grace.
    """
    loop = asyncio.get_running_loop()
    received: set[int] = set()

    def stop(number: int) -> None:
        if number not in received:
            received.add(number)
            worker.stop()

    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, stop, number)


def _nothing() -> None:
    """The process ends by itself."""


def _load(target: str, given: dict[str, Any]) -> AsyncQ:
    """Imports the app, or ends the process with the exit code `NO_APP`."""
    sys.path[:], sys.argv[:] = given["path"], given["argv"]
    config.warn_of_no_variable()
    pool.importing = True  # a program that starts a worker on import would start another one here
    try:
        return AppSource(target, given["modules"], given["tasks"]).load()
    except BaseException:
        log.warning("the app cannot be imported in this process for last tries", exc_info=True)
        logs.end_streams()
        os._exit(NO_APP)  # at once: threads that a module has started must not delay the end
    finally:
        pool.importing = False


def _start() -> None:
    # No job runs during the import: a worker that stops may end the process then, and that is no failure.
    with early_signals.leaving(lambda *_: os._exit(0)) as watcher:
        main(sys.argv[1], sys.stdin.read(), watcher)


if __name__ == "__main__":
    _start()
