"""Poisson arrivals: jobs of many independent callers, each of whom knows nothing of the others.

Evenly spaced arrivals never come two at a time, so they hide the queue that builds up when some do. The times
between two arrivals are drawn from an exponential distribution, with a fixed seed: each system gets the same
arrivals.

The timers of event loops have a resolution of one millisecond. At 5,000 arrivals a second, several would come
at once and late, which is more than the latency that is measured. So a timerfd of Linux is the clock.
"""

import asyncio
import ctypes
import os
import random
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

SEED = 20_26
_TIMER_ABSTIME = 1
_LEAD_NS = 50_000_000


class _Timespec(ctypes.Structure):
    _fields_ = (("seconds", ctypes.c_long), ("nanoseconds", ctypes.c_long))


class _Timer(ctypes.Structure):
    _fields_ = (("interval", _Timespec), ("first", _Timespec))


def poisson(rate: float, count: int, seed: int = SEED) -> list[int]:
    """Returns when `count` arrivals come, in nanoseconds from the beginning, at a mean of `rate` a second."""
    draw = random.Random(seed)
    at, times = 0.0, []
    for _ in range(count):
        at += draw.expovariate(rate)
        times.append(round(at * 1e9))
    return times


@contextmanager
def arriving(times: Sequence[int], arrive: Callable[[int], None]) -> Iterator[int]:
    """Calls `arrive(due)` on the running loop for each arrival. Yields when the last one is due.

    Times are monotonic nanoseconds. Arrivals that fall due while the loop is busy are called together when it
    is free, each with its own due time: none is left out, and a caller that measures from `due` sees the
    delay.

    Args:
        times: when the arrivals come, in nanoseconds from the beginning, in their order.
        arrive: called for each arrival; it must not block.
    """
    first = time.monotonic_ns() + _LEAD_NS
    loop = asyncio.get_running_loop()
    libc = ctypes.CDLL(None, use_errno=True)
    fd = libc.timerfd_create(time.CLOCK_MONOTONIC, os.O_NONBLOCK | os.O_CLOEXEC)
    if fd < 0:
        raise OSError(ctypes.get_errno(), "no timerfd")
    arrived = 0

    def set_timer() -> None:
        when = _Timespec(*divmod(first + times[arrived], 1_000_000_000))
        if libc.timerfd_settime(fd, _TIMER_ABSTIME, ctypes.byref(_Timer(_Timespec(0, 0), when)), None):
            raise OSError(ctypes.get_errno(), "the timer was not set")

    def on_time() -> None:
        nonlocal arrived
        os.read(fd, 8)
        now = time.monotonic_ns() - first
        while arrived < len(times) and times[arrived] <= now:
            arrived += 1
            arrive(first + times[arrived - 1])
        if arrived == len(times):
            loop.remove_reader(fd)
        else:
            set_timer()

    set_timer()
    loop.add_reader(fd, on_time)
    try:
        yield first + times[-1]
    finally:
        loop.remove_reader(fd)
        os.close(fd)
