"""The program of one worker process of `asyncq worker --workers N`. Its supervisor starts it.

    python -m asyncq.cli.worker_process shop-1 7 312

The arguments are the worker's name, the descriptor of the connection to the supervisor, and its process id.

It runs the same `worker_service.serve` as a worker without a supervisor. But the supervisor prints what one
such worker would print about its start, and why it cannot start: once, and not once for each worker.
"""

from __future__ import annotations

import sys
from typing import Any

from asyncq import config, logs
from asyncq.cli import console, signals
from asyncq.cli.exits import explained
from asyncq.cli.invocation import Invocation
from asyncq.cli.loop import all_ended, leave
from asyncq.cli.worker_service import WorkerOptions, serve
from asyncq.worker.processes.supervised import SupervisorLink


def main(descriptor: int, supervisor: int) -> int:
    """Runs the worker until it is stopped, and returns the exit code.

    Args:
        descriptor: the descriptor of the connection to the supervisor.
        supervisor: the supervisor's process id.
    """
    logs.flush_each_line()
    signals.stop_is_success()
    with signals.immediate():
        link = SupervisorLink(descriptor, supervisor)
        code = _run(link, link.setup())
        # The interpreter would wait for threads of the user's code, perhaps for ever.
        if not all_ended():
            leave(code)
        return code


def _run(link: SupervisorLink, setup: dict[str, Any]) -> int:
    sys.argv[:] = setup["argv"]  # as the app's module would see it without a supervisor
    if setup["reloads"]:
        # Python takes a cached module for the new one if the file has the same length and was changed within
        # the same second, as by a formatter that runs when a file is saved. The old code would run then,
        # until the next change.
        sys.dont_write_bytecode = True
    given = setup["invocation"]
    del given["settings"]  # it follows from the others
    invocation = Invocation(**given)
    options = WorkerOptions(**{**setup["options"], "name": setup["name"]})
    console.choose_colors(enabled=not invocation.no_color)
    if not setup["is_first"]:
        config.warn_of_no_variable()
    try:
        return serve(invocation, options, link)
    except Exception as error:  # noqa: BLE001  the outermost place there is
        why = explained(error)
        link.failed(str(why), why.hint, int(why.code))
        return int(why.code)


if __name__ == "__main__":
    try:
        sys.exit(main(*map(int, sys.argv[2:])))
    finally:
        logs.end_streams()
