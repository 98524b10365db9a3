"""Open loop: arrivals come when they come, whether or not the system has answered the earlier ones.

Latency is taken from the moment a job was *due*, not from when the generator got round to sending it. A
generator that waits for a slow system and then starts the clock leaves the worst seconds out of its figures
(coordinated omission); here they are all in, the jobs that never came back too.
"""

import asyncio
import ctypes
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass

from histogram import Histogram
from scenario import Measured, Scenario
from system import Client, System, worker

_TIMER_ABSTIME = 1
_libc = ctypes.CDLL(None, use_errno=True)
KEPT_UP_WITHIN = 0.5  # seconds after the last arrival in which the last value must be there


class _Timespec(ctypes.Structure):
    _fields_ = (("seconds", ctypes.c_long), ("nanoseconds", ctypes.c_long))


class _Timer(ctypes.Structure):
    _fields_ = (("interval", _Timespec), ("first", _Timespec))


@contextmanager
def arrivals(rate: int, count: int, arrive: Callable[[int], None]) -> Iterator[int]:
    """Call `arrive(due)` in the running loop for `count` evenly spaced arrivals; give the last due time.

    Times are monotonic nanoseconds. The kernel keeps the beat (a timerfd): libuv's own timers have a
    resolution of one millisecond, which at 5,000/s would let jobs arrive five at a time and half a
    millisecond late. Beats that passed while the loop was busy are counted by the kernel and handed over
    together, each with its own due time.
    """
    interval = 1_000_000_000 // rate
    first = time.monotonic_ns() + 50_000_000
    timer = _Timer(_Timespec(*divmod(interval, 1_000_000_000)), _Timespec(*divmod(first, 1_000_000_000)))
    fd = _libc.timerfd_create(time.CLOCK_MONOTONIC, os.O_NONBLOCK | os.O_CLOEXEC)
    if fd < 0 or _libc.timerfd_settime(fd, _TIMER_ABSTIME, ctypes.byref(timer), None):
        raise OSError(ctypes.get_errno(), "no timerfd")
    arrived = 0

    def on_beat() -> None:
        nonlocal arrived
        beats = int.from_bytes(os.read(fd, 8), "little")
        for _ in range(min(beats, count - arrived)):
            arrive(first + arrived * interval)
            arrived += 1
        if arrived == count:
            loop.remove_reader(fd)

    loop = asyncio.get_running_loop()
    loop.add_reader(fd, on_beat)
    try:
        yield first + (count - 1) * interval
    finally:
        loop.remove_reader(fd)
        os.close(fd)


@dataclass(frozen=True)
class OpenLoop(Scenario):
    """Arrivals at a fixed rate for some seconds, each enqueued and waited for by a task of its own."""

    rate: int
    seconds: float
    warmup: float = 1.0
    patience: float = 15.0

    async def run(self, system: System, url: str) -> Measured:
        async with worker(system, url), system.open(url) as client:
            await client.value(await client.delay())
            await self.phase(client, self.warmup)
            histogram, unanswered, behind = await self.phase(client, self.seconds)
        figures = {
            "open.p50_ms": histogram.ms(0.5),
            "open.p99_ms": histogram.ms(0.99),
            "open.kept_up": float(not unanswered and behind <= KEPT_UP_WITHIN),
        }
        return Measured(
            figures, {"open": histogram}, {"unanswered": unanswered, "behind_s": round(behind, 3)}
        )

    async def phase(self, client: Client, seconds: float) -> tuple[Histogram, int, float]:
        """Return the latencies, the number never answered, the seconds from the last arrival to the end."""
        histogram = Histogram()
        pending: dict[asyncio.Task[None], int] = {}
        failed: list[asyncio.Task[None]] = []
        count = int(self.rate * seconds)
        over = asyncio.Event()

        async def one(due: int) -> None:
            await client.value(await client.delay())
            histogram.record(time.monotonic_ns() - due)

        def arrive(due: int) -> None:
            task = asyncio.create_task(one(due))
            pending[task] = due
            task.add_done_callback(ended)

        def ended(task: asyncio.Task[None]) -> None:
            del pending[task]
            if not task.cancelled() and task.exception():
                failed.append(task)
            if failed or histogram.count == count:
                over.set()

        # What is unanswered when patience ends is counted below.
        with arrivals(self.rate, count, arrive) as last, suppress(TimeoutError):
            await asyncio.wait_for(over.wait(), (last - time.monotonic_ns()) / 1e9 + self.patience)
        behind = (time.monotonic_ns() - last) / 1e9
        unanswered = dict(pending)
        for task in unanswered:
            task.cancel()
        await asyncio.gather(*unanswered, return_exceptions=True)
        for task in failed:
            task.result()  # a job that failed fails the run
        for due in unanswered.values():
            histogram.record(time.monotonic_ns() - due)
        return histogram, len(unanswered), behind
