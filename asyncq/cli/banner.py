"""What `asyncq worker` shows when it is ready: which workers run, for which app and on which server. A user
looks there first when jobs do not run.

`of` collects the facts, on the worker's loop. `show` prints them, in the process that the user has started.
"""

from __future__ import annotations

import asyncio
import logging
import os
import platform
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from asyncq import __version__, config
from asyncq.broker.transport.url import mask
from asyncq.cli import console, target as targets
from asyncq.worker.processes import pool

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from asyncq.app import AsyncQ
    from asyncq.worker import Worker

log: logging.Logger = logging.getLogger("asyncq.cli.worker")


class Facts(NamedTuple):
    """What a worker says about itself.

    Attributes:
        loop: the kind of its event loop.
        app: the app, as its target, with tasks and namespace.
        server: the server, with its version and its address.
        queues: the queues that it serves.
        runs: how many jobs it runs at the same time, and their grace.
        grace: the grace in seconds.
    """

    loop: str
    app: str
    server: str
    queues: str
    runs: str
    grace: float


async def of(worker: Worker, app: AsyncQ, target: str) -> Facts:
    """Collects the facts about a worker that is ready.

    Args:
        worker: the worker.
        app: its app, which must be open.
        target: `module:attribute` of the app.

    Raises:
        BrokerUnavailable: the server is away.
    """
    broker = app.sessions.current().broker
    server = (await broker.server_version()).capitalize()
    if targets.is_local(app):
        held = app.sessions.current().server
        directory = held.directory if held is not None else "?"
        server = f"embedded {server} in {directory} (this machine only; set ASYNCQ_URL for production)"
    else:
        server = f"{server} at {mask(app.settings.url)}"
    count = len(app.tasks)
    return Facts(
        loop=type(asyncio.get_running_loop()).__module__.partition(".")[0],
        app=f"{target}, {count} task{'s' * (count != 1)}, namespace {app.settings.namespace}",
        server=server,
        queues=", ".join(worker.queues),
        runs=f"{worker.concurrency} jobs at a time, {_helpers(app)}, grace {config.shown(worker.grace)}",
        grace=worker.grace,
    )


def _helpers(app: AsyncQ) -> str:
    """Returns how many threads there may be, and how many processes, if a task needs them."""
    threads = f"{app.settings.threads} threads"
    if any(task.executor == "process" for task in app.tasks.values()):
        return f"{threads}, {pool.size(app)} processes"
    return threads


def show(who: str, facts: Facts, more: Sequence[tuple[str, str]], *, prints: bool, **extra: Any) -> None:
    """Prints the banner of one worker or of several, or logs it as one record.

    Args:
        who: the worker, or how many workers.
        facts: of the worker; for several, of any of them.
        more: further rows, as pairs of name and text.
        prints: whether to print it for a person.
        extra: fields of the log record.
    """
    head = f"asyncq {__version__}  {who}  python {platform.python_version()}  {facts.loop}"
    rows = [
        ("app", facts.app),
        ("server", facts.server),
        ("queues", facts.queues),
        ("runs", facts.runs),
        *more,
    ]
    if prints:
        ready = f"ready{_age()}. Ctrl-C once to drain, twice to hand jobs back."
        console.say(f"{head}\n{console.aligned(rows)}\n{ready}")
    else:
        shown = "; ".join(f"{name} {text}" for name, text in rows)
        log.info("ready: %s; %s", " ".join(head.split()), shown, extra=extra)


def pids(workers: Mapping[str, int]) -> str:
    """Formats worker processes, by name.

    >>> pids({"w-1": 4711, "w-2": 4712})
    'w-1 (pid 4711), w-2 (pid 4712)'
    """
    return ", ".join(f"{name} (pid {pid})" for name, pid in workers.items())


def _age() -> str:
    """Returns how long this process has run, from the kernel: a clock that starts here would miss the
    imports. Empty if the kernel does not tell.
    """
    try:
        stat = Path("/proc/self/stat").read_text("ascii").rpartition(")")[2].split()
        now = float(Path("/proc/uptime").read_text("ascii").split()[0])
    except (OSError, ValueError):
        return ""
    began = int(stat[19]) / os.sysconf("SC_CLK_TCK")
    return f" in {(now - began) * 1000:.0f} ms"
