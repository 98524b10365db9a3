"""The interface that every system under test has for the harness, and functions to run its worker."""

import asyncio
import importlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path
from typing import Any, Protocol

import server

HERE = Path(__file__).parent
CONCURRENCY = 100


class Handle(Protocol):
    """The handle of an enqueued job. It has at least the job's id."""

    @property
    def id(self) -> str: ...


class Client(Protocol):
    """An open client. Its only task takes no argument and does nothing; the result is stored."""

    async def delay(self) -> Handle:
        """Enqueues one job. Returns once the server has it."""

    async def value(self, handle: Any) -> object:
        """Waits for the job's result."""

    async def map(self, count: int) -> Sequence[Handle]:
        """Enqueues a batch in the system's fastest way. Returns once the server has all of it."""

    async def stored(self, job_id: str) -> bool:
        """Returns whether a job's result is stored. Knows only the id."""


class System(Protocol):
    """One task system."""

    @property
    def name(self) -> str: ...

    def worker(self, url: str) -> list[str]:
        """Returns the command line of one worker process with a concurrency of 100."""

    def open(self, url: str) -> AbstractAsyncContextManager[Client]:
        """Returns a client in this process."""


def load(name: str) -> System:
    """Returns the system of `adapters/<name>.py`."""
    system: System = importlib.import_module(f"adapters.{name}").SYSTEM
    return system


@asynccontextmanager
async def worker(system: System, url: str) -> AsyncIterator[subprocess.Popen[bytes]]:
    """Runs one worker process of the system for the block.

    Its output goes to this process's stderr, because stdout is for the figures. If the worker ends by itself,
    the block is cancelled at its next wait, which would otherwise last until the time is up.
    """
    loop, body = asyncio.get_running_loop(), asyncio.current_task()
    env = {**os.environ, "PYTHONPATH": str(HERE)}
    process = server.spawn(system.worker(url), env=env, output=sys.stderr.fileno())
    ended = os.pidfd_open(process.pid)

    def on_end() -> None:
        loop.remove_reader(ended)  # it stays readable
        assert body is not None
        body.cancel()

    loop.add_reader(ended, on_end)
    try:
        yield process
        _insist_alive(system, process)
    except asyncio.CancelledError:
        _insist_alive(system, process)
        raise
    finally:
        loop.remove_reader(ended)
        os.close(ended)
        server.stop(process)


def _insist_alive(system: System, process: subprocess.Popen[bytes]) -> None:
    if process.poll() is not None:
        raise RuntimeError(f"the worker of {system.name} ended by itself: exit code {process.returncode}")


def rss_mib(process: subprocess.Popen[bytes]) -> float:
    """Returns the resident memory of a process and its children, in MiB."""
    return sum(_rss_kib(pid) for pid in _family(process.pid)) / 1024


def _family(pid: int) -> Iterator[int]:
    yield pid
    for listing in Path(f"/proc/{pid}/task").glob("*/children"):
        for child in listing.read_text().split():
            yield from _family(int(child))


def _rss_kib(pid: int) -> int:
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmRSS:"))


def wait_until(condition: Any, *, within: float, what: str, every: float = 0.002) -> None:
    """Polls until the condition holds. Raises `TimeoutError`, which names the condition, after `within`
    seconds.
    """
    deadline = time.monotonic() + within
    while not condition():
        if time.monotonic() > deadline:
            raise TimeoutError(f"after {within:g} s still not so: {what}")
        time.sleep(every)


def raise_on_sigterm() -> None:
    """Turns SIGTERM into SystemExit, so that every `finally` on the way out runs."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
