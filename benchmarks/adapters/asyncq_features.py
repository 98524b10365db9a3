"""The app with the tasks that the scenarios of features need."""

import asyncio
from collections.abc import AsyncIterator
from time import perf_counter_ns

from adapters.asyncq_app import app, noop

__all__ = ["app", "count", "echo", "in_process", "in_thread", "noop", "numbers", "sleep", "ticks"]


@app.task
def in_thread() -> None:
    """Does nothing in a thread."""


@app.task(executor="process")
def in_process() -> None:
    """Does nothing in a process."""


@app.task
async def echo(value: object = None) -> object:
    """Returns its argument."""
    return value


@app.task
async def count(values: list[object]) -> int:
    """Returns how many values there are."""
    return len(values)


@app.task
async def sleep(seconds: float) -> None:
    """Sleeps."""
    await asyncio.sleep(seconds)


@app.task
async def numbers(n: int) -> AsyncIterator[int]:
    """Yields the numbers up to n, as fast as possible."""
    for number in range(1, n + 1):
        yield number


@app.task
async def ticks(n: int, pause: float) -> AsyncIterator[int]:
    """Yields the time, n times, with a pause before each."""
    for _ in range(n):
        await asyncio.sleep(pause)
        yield perf_counter_ns()
