"""The tasks of the trials. Workers run them, and clients call them. `chaos.worker` is the worker process.

Each body writes into the journal of its process when it starts and when it ends, and returns a value that
tells job and run apart from all others. The judge (`oracle`) compares the journals with what the waiters
got.
"""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import faulthandler
import itertools
import os
import signal
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import asyncq
from asyncq import AsyncQ
from chaos import oracle

FOLDER = "CHAOS_FOLDER"
HOUR = 3600.0
OLD = "old"
"""The argument of `chaos.worker` for a worker of the previous release."""

_runs = itertools.count()
_journals: dict[str, oracle.Journal] = {}


def journal() -> oracle.Journal:
    """Returns the journal of this process, in the folder that the environment names."""
    folder = os.environ[FOLDER]
    if folder not in _journals:
        _journals[folder] = oracle.Journal(Path(folder))
    return _journals[folder]


@contextlib.contextmanager
def in_journal(number: int, parent_values: str = "-"):
    """Notes in the journal that a body starts and that it ends. Yields the name of the run, which no other
    run has.

    The values that the body got (`parent_values`) are in the same line as the start, because the process may
    be killed at any time.
    """
    job = asyncq.current()
    run = f"{os.getpid()}.{next(_runs)}"
    journal().note(oracle.STARTED, job.id, run, number, job.attempt, parent_values)
    yield run
    journal().note(oracle.ENDED, job.id, run)


async def work(number: int, seconds: float = 0.0) -> list[int | str]:
    """The usual job. Its value tells the job and the run apart from all others."""
    with in_journal(number) as run:
        await asyncio.sleep(seconds)
        return [oracle.expected(number), run]


def step(number: int, seconds: float = 0.0) -> list[int | str]:
    """Does what `work` does, as a plain function: in a thread, or in a process."""
    with in_journal(number) as run:
        time.sleep(seconds)
        return [oracle.expected(number), run]


async def member(above: Any, number: int, seconds: float = 0.0) -> list[int | str]:
    """A job of a workflow. It gets the value of one parent as it is, and the values of several in a list."""
    several = [] if above is None else above if isinstance(above[0], list) else [above]
    parent_values = ",".join(f"{value}:{parent}" for value, parent, *_ in several)
    with in_journal(number, parent_values or "-") as run:
        await asyncio.sleep(seconds)
        return [oracle.expected(number), run]


async def bulky(number: int, size: int) -> list[int | str]:
    """A job whose value is larger by `size` bytes."""
    with in_journal(number) as run:
        return [oracle.expected(number), run, "x" * size]


async def hang_once(number: int) -> list[int | str]:
    """Runs for an hour in its first attempt, and ends at once in each later attempt."""
    with in_journal(number) as run:
        await asyncio.sleep(HOUR if asyncq.current().attempt == 1 else 0)
        return [oracle.expected(number), run]


async def echo(number: int) -> int:
    return number


async def poison(number: int, kind: str) -> None:
    """Kills or stops its worker, in one of the ways in `POISONS`."""
    with in_journal(number):
        faulthandler.disable()
        POISONS[kind]()


POISONS = {
    "exit": lambda: os._exit(9),
    "killed": lambda: os.kill(os.getpid(), signal.SIGKILL),
    "segfault": lambda: ctypes.string_at(8),
    "abort": os.abort,
    "frozen": lambda: os.kill(os.getpid(), signal.SIGSTOP),
}


def register(app: AsyncQ, *, is_old: bool = False) -> SimpleNamespace:
    """Registers the tasks above on an app, under names that workers and clients share. An old release lacks
    the task `released`.
    """
    functions = (work, member, bulky, step, hang_once, echo, poison)
    tasks = {f.__name__: app.task(name=f.__name__)(f) for f in functions}
    if not is_old:
        tasks["released"] = app.task(name="released")(work)
    tasks["apart"] = app.task(name="apart", executor="process")(step)

    @app.task(name="becomes")
    async def becomes(number: int, inner: int, seconds: float) -> list[int | str]:
        """Replaces this job by a workflow of two jobs."""
        await asyncio.sleep(seconds)
        first = tasks["member"].s(None, inner, seconds).set(task_id=f"job-{inner}")
        return await asyncq.current().replace(first | tasks["member"].s(number, seconds))

    return SimpleNamespace(**tasks, becomes=becomes)
