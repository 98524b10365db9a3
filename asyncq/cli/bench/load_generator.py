"""The load generator of `asyncq bench`: calls at a fixed rate, timed by the kernel's clock.

The timers of event loops have a resolution of one millisecond. At 5,000 arrivals a second, arrivals would
come five at a time and half a millisecond late, which is more than the latency that is measured. So on Linux
a timerfd is the clock. `arrive` is called on the running loop.
"""

from __future__ import annotations

import asyncio
import ctypes
import os
import sys
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

_TIMER_ABSTIME = 1
_LEAD_NS = 50_000_000


class _Timespec(ctypes.Structure):
    _fields_ = (("seconds", ctypes.c_long), ("nanoseconds", ctypes.c_long))


class _Timer(ctypes.Structure):
    _fields_ = (("interval", _Timespec), ("first", _Timespec))


@contextmanager
def generate_load(rate: int, count: int, arrive: Callable[[int], None]) -> Iterator[int]:
    """Calls `arrive(due)` on the running loop for `count` evenly spaced arrivals. Yields the last due time.

    Times are monotonic nanoseconds. Arrivals that fall due while the loop is busy are called together when it
    is free, each with its own due time: none is left out, and a caller that measures from `due` sees the
    delay.

    Args:
        rate: arrivals per second.
        count: how many arrivals there are.
        arrive: called for each arrival; it must not block.
    """
    interval = 1_000_000_000 // rate
    first = time.monotonic_ns() + _LEAD_NS
    beat = _kernel_beat if sys.platform == "linux" else _loop_beat
    arrived = 0

    def catch_up() -> bool:
        """Makes the arrivals that are due by now, and returns whether the last one was among them."""
        nonlocal arrived
        due_now = min(count, (time.monotonic_ns() - first) // interval + 1)
        while arrived < due_now:
            arrive(first + arrived * interval)
            arrived += 1
        return arrived == count

    with beat(first, interval, catch_up):
        yield first + (count - 1) * interval


@contextmanager
def _kernel_beat(first: int, interval: int, catch_up: Callable[[], bool]) -> Iterator[None]:
    libc = ctypes.CDLL(None, use_errno=True)
    timer = _Timer(_Timespec(*divmod(interval, 1_000_000_000)), _Timespec(*divmod(first, 1_000_000_000)))
    fd = libc.timerfd_create(time.CLOCK_MONOTONIC, os.O_NONBLOCK | os.O_CLOEXEC)
    if fd < 0 or libc.timerfd_settime(fd, _TIMER_ABSTIME, ctypes.byref(timer), None):
        raise OSError(ctypes.get_errno(), "no timerfd")
    loop = asyncio.get_running_loop()

    def on_beat() -> None:
        os.read(fd, 8)
        if catch_up():
            loop.remove_reader(fd)

    loop.add_reader(fd, on_beat)
    try:
        yield
    finally:
        loop.remove_reader(fd)
        os.close(fd)


@contextmanager
def _loop_beat(first: int, interval: int, catch_up: Callable[[], bool]) -> Iterator[None]:
    """Calls `catch_up` by the loop's own timer, where there is no timerfd. Arrivals are up to a millisecond
    late, and the figures include that.
    """

    async def tick() -> None:
        await asyncio.sleep(max(0.0, (first - time.monotonic_ns()) / 1e9))
        while not catch_up():  # noqa: ASYNC110  it waits for the time, not for somebody
            await asyncio.sleep(max(0.001, interval / 1e9))

    task = asyncio.get_running_loop().create_task(tick())
    try:
        yield
    finally:
        task.cancel()
