"""The trials' tasks, for workers and clients. `chaos.worker` is the worker process."""

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
"""The argument of a worker of the release before."""

_runs = itertools.count()
_journals: dict[str, oracle.Journal] = {}


def journal() -> oracle.Journal:
    """This process's journal, in the folder that the environment names."""
    folder = os.environ[FOLDER]
    if folder not in _journals:
        _journals[folder] = oracle.Journal(Path(folder))
    return _journals[folder]


@contextlib.contextmanager
def witnessed(number: int, handed: str = "-"):
    """Writes down that a body began, with what it was handed in one line, for it may be killed at any moment;
    and that it ended. Gives the run's name, which no other run has.
    """
    job = asyncq.current()
    run = f"{os.getpid()}.{next(_runs)}"
    journal().note(oracle.BEGUN, job.id, run, number, job.attempt, handed)
    yield run
    journal().note(oracle.ENDED, job.id, run)


async def work(number: int, seconds: float = 0.0) -> list[int | str]:
    """The common job. Its value tells the job and the run apart from all others."""
    with witnessed(number) as run:
        await asyncio.sleep(seconds)
        return [oracle.expected(number), run]


def step(number: int, seconds: float = 0.0) -> list[int | str]:
    """The same in a thread, or in a process."""
    with witnessed(number) as run:
        time.sleep(seconds)
        return [oracle.expected(number), run]


async def member(above: Any, number: int, seconds: float = 0.0) -> list[int | str]:
    """A job of a workflow: it is given the values of those before it, one as itself and several in a list."""
    several = [] if above is None else above if isinstance(above[0], list) else [above]
    handed = ",".join(f"{value}:{parent}" for value, parent, *_ in several)
    with witnessed(number, handed or "-") as run:
        await asyncio.sleep(seconds)
        return [oracle.expected(number), run]


async def bulky(number: int, size: int) -> list[int | str]:
    """A job whose value takes so many bytes more."""
    with witnessed(number) as run:
        return [oracle.expected(number), run, "x" * size]


async def hang_once(number: int) -> list[int | str]:
    """Runs for ever the first time, and ends at once when it is run again."""
    with witnessed(number) as run:
        await asyncio.sleep(HOUR if asyncq.current().attempt == 1 else 0)
        return [oracle.expected(number), run]


async def echo(number: int) -> int:
    return number


async def poison(number: int, kind: str) -> None:
    """Takes its worker down."""
    with witnessed(number):
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
    """The tasks above on an app, under names that both sides share. Those of an old release lack one."""
    functions = (work, member, bulky, step, hang_once, echo, poison)
    tasks = {f.__name__: app.task(name=f.__name__)(f) for f in functions}
    if not is_old:
        tasks["released"] = app.task(name="released")(work)
    tasks["apart"] = app.task(name="apart", executor="process")(step)

    @app.task(name="becomes")
    async def becomes(number: int, inner: int, seconds: float) -> list[int | str]:
        """Leaves a workflow of two jobs in its place."""
        await asyncio.sleep(seconds)
        first = tasks["member"].s(None, inner, seconds).set(task_id=f"job-{inner}")
        return await asyncq.current().replace(first | tasks["member"].s(number, seconds))

    return SimpleNamespace(**tasks, becomes=becomes)
