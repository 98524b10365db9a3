"""The interface that every system under test has for the harness, and functions to run its worker."""

import asyncio
import importlib
import os
import signal
import subprocess
import sys
import time
from abc import ABC, abstractmethod
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any, ClassVar, NamedTuple, Protocol

import server

HERE = Path(__file__).parent
CONCURRENCY = 100
MISSING = object()
"""What `Client.result` returns for a job whose result is not stored."""


class Handle(Protocol):
    """The handle of an enqueued job. It has at least the job's id."""

    @property
    def id(self) -> str: ...


class Held(NamedTuple):
    """A handle of a library that has no `id`, beside the id."""

    id: str
    job: Any


class Client(Protocol):
    """An open client. Its tasks are those of `bodies.py`. Each takes one argument."""

    async def delay(self, value: Any = 0, task: str = "echo") -> Handle:
        """Enqueues one job. Returns once the server has it."""

    async def value(self, handle: Any) -> object:
        """Waits for the job, and returns its result."""

    async def map(self, values: Sequence[Any], task: str = "echo") -> Sequence[Handle]:
        """Enqueues a job for each value in the system's fastest way. Returns once the server has all of
        them.
        """

    async def result(self, job_id: str) -> object:
        """Returns the result that is stored for a job, or `MISSING`. Knows only the id."""

    async def stored(self, job_ids: Sequence[str]) -> int:
        """Returns for how many of these jobs the server has a result."""


class System(ABC):
    """One task system at the settings of its adapter. The adapter's docstring says them.

    Attributes:
        name: the name of the adapter's file.
        promise: what becomes of a job whose worker dies, by the system's documentation at these settings.
        recovery: what is set for the scenario `kill`, so that a dead worker's jobs are found soon; empty if
            nothing is.
        recovers_within: how many seconds `kill` waits for a dead worker's jobs: more than the settings need.
        slots: how many jobs a worker runs at once.
        share: the share of the jobs of `drain` and the batches that this system gets, because it is slower.
        has_batch: whether one call enqueues a batch. Otherwise `map` is a hundred callers.
        has_delay: whether `Client.delayed(count, seconds)` enqueues a batch of jobs for later.
        hands_back: whether a worker that is stopped gives the jobs back that it has not run.
        waiters: how many jobs one client can wait for at once.
        empty_streams_mean_stored: whether the step that stores a result also deletes the stream's entry. Then
            `drain` watches the length of the streams, which costs the server less than asking for results.
    """

    name: str
    promise: str
    recovery: str = ""
    recovers_within: float = 60.0
    slots: int = CONCURRENCY
    share: float = 0.1
    has_batch: bool = False
    has_delay: bool = False
    hands_back: bool = True
    waiters: int = 10_000
    empty_streams_mean_stored: bool = False
    packages: ClassVar[tuple[str, ...]] = ()
    """The packages whose versions belong to the results."""

    def worker(self, url: str) -> list[str]:  # noqa: ARG002  for those whose module does not know it
        """Returns the command line of one worker process. By default it runs `work` of the adapter in a
        script, on uvloop and without logs.
        """
        return [sys.executable, str(HERE / "uvloop_worker.py"), f"adapters.{self.name}"]

    def worker_of(self, url: str, queues: Sequence[str]) -> list[str]:  # noqa: ARG002  for those that have one
        """Returns the command line of one worker that serves these queues. Then `Client.delay_in(queue,
        value)` enqueues a job into one of them.

        Raises:
            Skipped: the system has none.
        """
        raise Skipped("one queue")

    def hosted(self, url: str, count: int) -> list[str]:  # noqa: ARG002  as above
        """Returns the command line of a process with so many workers. It prints `ready` when all can run
        jobs.

        Raises:
            Skipped: the system has none.
        """
        raise Skipped("one worker in a process")

    @abstractmethod
    def open(self, url: str, callers: int = 1) -> AbstractAsyncContextManager[Any]:
        """Returns a client in this process.

        Args:
            url: of the server.
            callers: how many callers use it at once. With one, a call may block the loop.
        """

    def blocking(self, url: str) -> Any:  # noqa: ARG002  for those that have one
        """Returns a context manager of a client for code without a loop: `delay(value)` and `value(handle)`
        are plain functions.

        Raises:
            Skipped: the system has none.
        """
        raise Skipped("no blocking calls")


class Skipped(Exception):
    """A scenario that this system cannot do, and why."""


def load(name: str) -> System:
    """Returns the system of `adapters/<name>.py`."""
    system: System = importlib.import_module(f"adapters.{name}").SYSTEM
    return system


async def by_callers(
    enqueue: Callable[[Any], Awaitable[Any]], values: Sequence[Any], callers: int = CONCURRENCY
) -> list[Any]:
    """Enqueues a job for each value by so many callers at once, for systems without a call for batches."""
    handles: list[Any] = [None] * len(values)
    numbers = iter(range(len(values)))

    async def caller() -> None:
        for number in numbers:
            handles[number] = await enqueue(values[number])

    await asyncio.gather(*(caller() for _ in range(callers)))
    return handles


def start_worker(system: System, url: str, queues: Sequence[str] = ()) -> subprocess.Popen[bytes]:
    """Starts one worker process, by default of the default queue. Its output goes to stderr, because stdout
    is for the figures.
    """
    env = {**os.environ, "PYTHONPATH": str(HERE)}
    argv = system.worker_of(url, queues) if queues else system.worker(url)
    return server.spawn(argv, env=env, output=sys.stderr.fileno())


@asynccontextmanager
async def worker(
    system: System, url: str, queues: Sequence[str] = ()
) -> AsyncIterator[subprocess.Popen[bytes]]:
    """Runs one worker process of the system for the block, by default of the default queue.

    If the worker ends by itself, the block is cancelled at its next wait, which would otherwise last until
    the time is up.
    """
    loop, body = asyncio.get_running_loop(), asyncio.current_task()
    process = start_worker(system, url, queues)
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


@asynccontextmanager
async def workers(system: System, url: str, count: int) -> AsyncIterator[None]:
    """Runs so many worker processes for the block."""
    async with AsyncExitStack() as stack:
        for _ in range(count):
            await stack.enter_async_context(worker(system, url))
        yield


def _insist_alive(system: System, process: subprocess.Popen[bytes]) -> None:
    if process.poll() is not None:
        raise RuntimeError(f"the worker of {system.name} ended by itself: exit code {process.returncode}")


class WrongValueError(RuntimeError):
    """A job's value is not the one that its body returned."""


def insist_equal(expected: object, value: object) -> None:
    """Raises `WrongValueError` if a job's value is not the one that its body returned."""
    if value != expected:
        raise WrongValueError(f"a job returned {_short(value)}, and not {_short(expected)}")


def _short(value: object) -> str:
    text = repr(value)
    return text if len(text) < 60 else f"{text[:50]}... ({len(text)} characters)"


def rss_mib(process: subprocess.Popen[bytes]) -> float:
    """Returns the resident memory of a process and its children, in MiB."""
    return sum(rss_kib(pid) for pid in family(process.pid)) / 1024


def family(pid: int) -> Iterator[int]:
    """Yields a process and its children, and theirs."""
    yield pid
    for listing in Path(f"/proc/{pid}/task").glob("*/children"):
        for child in listing.read_text().split():
            yield from family(int(child))


def rss_kib(pid: int) -> int:
    """Returns the resident memory of a process alone, in KiB."""
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
