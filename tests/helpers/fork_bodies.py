"""Tasks whose bodies fork, for each executor. `asyncq worker helpers.fork_bodies:app` runs them."""

from __future__ import annotations

import ctypes
import multiprocessing
import os
import signal
import time
from typing import Any

import asyncq
from asyncq import AsyncQ
from helpers.notes import note

app = AsyncQ()
EXECUTORS = ("coroutine", "thread", "process")


def square(number: int) -> int:
    return number * number


def sleep() -> None:
    time.sleep(60)


def pooled(method: str) -> list[int]:
    """Computes squares in a pool, then terminates a process. Returns the squares and its exit code."""
    context: Any = multiprocessing.get_context(method)
    with context.Pool(2) as pool:
        squares = pool.map(square, range(3))
    process = context.Process(target=sleep)
    process.start()
    process.terminate()
    process.join(20)
    return [*squares, process.exitcode]


EXPECTED = [0, 1, 4, -signal.SIGTERM]


@app.task(name="pooled.coroutine")
async def pooled_in_coroutine(method: str) -> list[int]:
    return pooled(method)


app.task(name="pooled.thread")(pooled)
app.task(name="pooled.process", executor="process")(pooled)


@app.task(name="has_children")
def has_children(log: str, gate: str) -> str:
    """Forks in Python, and in C, where no code of asyncq runs in the child. Runs until a file appears."""
    for fork in (os.fork, ctypes.PyDLL(None).fork):
        pid = fork()
        if not pid:
            time.sleep(60)
            os._exit(0)
        note(log, f"child {pid}")
    while not os.access(gate, os.F_OK):
        time.sleep(0.01)
    return "done"


@app.task(name="holds_a_process")
def holds_a_process(log: str) -> None:
    process = multiprocessing.get_context("fork").Process(target=sleep)
    process.start()
    note(log, f"child {process.pid}")
    process.join()


@app.task(name="forks_and_dies", executor="process")
def forks_and_dies(log: str) -> None:
    """Kills itself while a child that it forked in C holds copies of all its descriptors."""
    pid = ctypes.PyDLL(None).fork()
    if not pid:
        os.setsid()  # it lives on when the others are killed
        time.sleep(60)
        os._exit(0)
    note(log, f"child {pid}")
    os.kill(os.getpid(), signal.SIGKILL)


@app.task(name="waits", executor="process")
def waits(log: str) -> None:
    note(log, f"process {os.getpid()}")
    time.sleep(60)


def ask_in_child(task: asyncq.Task[[int], int]) -> tuple[int, str]:
    """Forks a child that starts a job and asks its parent's worker. Returns the job's value and the error."""
    source, sink = os.pipe()
    pid = os.fork()
    if not pid:
        try:
            value = task.delay_sync(7).get_sync(timeout=20, disable_sync_subtasks=False)
            try:
                asyncq.current().progress_sync(1, 2)
            except RuntimeError as error:
                os.write(sink, f"{value} {error}".encode())
        finally:
            os._exit(0)
    os.close(sink)
    with open(source) as answer:  # noqa: PTH123  a descriptor has no path
        value, _, text = answer.read().partition(" ")
    os.waitpid(pid, 0)
    return int(value), text
