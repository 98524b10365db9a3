"""What the jobs do, the same for every system: coroutine functions, and plain functions for the systems that
run threads or processes. Each takes one argument.

`nap` writes down outside of Redis when it began and ended, so that no system is asked about its own losses.
"""

import asyncio
import os
import time
from typing import Any

NAP = 0.05  # seconds
NAMES = ("echo", "clock", "nap")


async def echo(value: Any) -> Any:
    """Returns its argument."""
    return value


async def clock(_value: Any) -> int:
    """Returns the monotonic clock, in nanoseconds. All processes of the machine share it."""
    return time.monotonic_ns()


async def nap(number: int) -> int:
    """Sleeps. Notes when it began and ended."""
    _note("began", number)
    await asyncio.sleep(NAP)
    _note("ended", number)
    return number


def blocking_echo(value: Any) -> Any:
    """Returns its argument."""
    return value


def blocking_clock(_value: Any) -> int:
    """Returns the monotonic clock, in nanoseconds. All processes of the machine share it."""
    return time.monotonic_ns()


def blocking_nap(number: int) -> int:
    """Sleeps. Notes when it began and ended."""
    _note("began", number)
    time.sleep(NAP)
    _note("ended", number)
    return number


def _note(what: str, number: int) -> None:
    # One small write to a file opened for appending is never mixed with that of another process.
    file = os.open(os.environ["BENCH_JOURNAL"], os.O_WRONLY | os.O_APPEND)
    try:
        os.write(file, f"{what} {number} {time.monotonic_ns()}\n".encode())
    finally:
        os.close(file)
